//! Other issuers, and their keys.

pub mod jwks;
pub mod queries;
pub mod refresh;

pub use refresh::{RefreshError, RefreshMode, RefreshOutcome, list_issuers, refresh_issuer, sync_issuers};
