//! Other issuers, and their keys.

pub mod jwks;
pub(crate) mod missing_keys;
mod queries;
mod record;
pub mod refresh;

pub use queries::{add, clamp_to_now, find, list, update};
pub use record::IssuerRecord;
pub use refresh::{RefreshError, RefreshMode, RefreshOutcome, list_issuers, refresh_issuer, sync_issuers};
