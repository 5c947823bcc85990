//! Credentials: AuthKeys, API keys and tokens.

pub mod api_keys;
pub mod auth_keys;
pub mod coverage;
pub mod issued;
mod queries;
pub mod tokens;
