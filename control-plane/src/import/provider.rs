//! The providers of tokens in the source.

use super::needs::Needs;

/// Where a token may be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Location {
    Header { name: String, prefix: String },
    Query(String),
    Cookie(String),
}

impl Location {
    /// The locations of a provider without any.
    pub(super) fn defaults() -> Vec<Self> {
        vec![
            Self::Header { name: "authorization".to_owned(), prefix: "Bearer ".to_owned() },
            Self::Query("access_token".to_owned()),
        ]
    }
}

/// Where the keys of a provider are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeySource {
    Url(String),
    File(String),
    Inline(String),
    /// OpenID Connect Discovery.
    Discovery,
}

/// A provider of tokens.
#[derive(Debug, Clone)]
pub(super) struct Provider {
    pub(super) at: String,
    pub(super) issuer: String,
    /// Empty: any audience.
    pub(super) audiences: Vec<String>,
    /// Whether a requirement names other audiences.
    pub(super) has_replaced_audiences: bool,
    pub(super) locations: Vec<Location>,
    pub(super) forwards: bool,
    /// The key of the payload in the metadata.
    pub(super) payload_key: Option<String>,
    /// The claims that are lists separated by spaces.
    pub(super) spaced_claims: Vec<String>,
    /// Whether it has locations that the policy cannot have.
    pub(super) has_other_locations: bool,
    /// Alternatives of what every token must have. None: the policy accepts no token of the provider.
    pub(super) subjects: Vec<Needs>,
    pub(super) keys: KeySource,
    pub(super) leeway_seconds: u64,
    pub(super) max_lifetime_seconds: Option<u64>,
    /// Headers for the upstream: the header and the claim.
    pub(super) claim_headers: Vec<(String, String)>,
}

impl Provider {
    /// A provider without any property, to find out what a condition on the subject needs.
    pub(super) const fn for_subjects() -> Self {
        Self {
            at: String::new(),
            issuer: String::new(),
            audiences: Vec::new(),
            has_replaced_audiences: false,
            locations: Vec::new(),
            has_other_locations: false,
            forwards: false,
            payload_key: None,
            spaced_claims: Vec::new(),
            subjects: Vec::new(),
            keys: KeySource::Discovery,
            leeway_seconds: 0,
            max_lifetime_seconds: None,
            claim_headers: Vec::new(),
        }
    }
}
