//! The paths under `/v1`, compatible with Soracom's API.

pub(super) mod auth;
pub(super) mod auth_keys;
