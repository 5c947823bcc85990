//! The tables of operators, users, roles and grants.

pub(super) mod foreign_subjects;
pub(super) mod grants;
pub(super) mod operators;
pub(super) mod roles;
mod statements;
pub(super) mod users;
