//! What is stored of an issuer.

use super::jwks::IssuerKey;
use crate::domain::UnixSeconds;

/// The record of another issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerRecord {
    pub issuer: String,
    /// The keys of the last valid set.
    pub keys: Vec<IssuerKey>,
    /// The skipped keys of that set with the reasons.
    pub skipped: Vec<String>,
    /// The URL and the entity tag of the set, separated by a space.
    pub tag: Option<String>,
    /// When keys were last fetched.
    pub fetched_at: Option<UnixSeconds>,
    /// When the last attempt was made.
    pub tried_at: Option<UnixSeconds>,
    /// When the next fetch is due.
    pub due_at: UnixSeconds,
    /// The number of consecutive failures.
    pub failures: u64,
    /// The error of the last attempt.
    pub error: Option<String>,
}
