//! The tables of operators, users, roles and grants.

pub mod foreign_subjects;
pub mod grants;
pub mod operators;
pub mod roles;
pub mod users;
