//! What is stored of an issuer.

use super::jwks::IssuerKey;

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
    pub fetched_at: Option<u64>,
    /// When the last attempt was made.
    pub tried_at: Option<u64>,
    /// When the next fetch is due.
    pub due_at: u64,
    /// The number of consecutive failures.
    pub failures: u64,
    /// The error of the last attempt.
    pub error: Option<String>,
}
