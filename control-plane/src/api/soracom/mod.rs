//! The paths under `/v1`, as Soracom's clients call them.

pub(super) mod auth;
pub(super) mod auth_keys;
