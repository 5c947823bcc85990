//! The issuers of which edges lack a key.

use token::Fingerprint;
use tokio::sync::Notify;

use crate::config;

/// The issuers whose keys edges lack, according to their reports.
#[derive(Debug)]
pub(crate) struct MissingKeys(Vec<(Fingerprint, Notify)>);

impl MissingKeys {
    pub(crate) fn new(issuers: &[config::Issuer]) -> Self {
        let entry = |issuer: &config::Issuer| (Fingerprint::digest(issuer.issuer.as_bytes()), Notify::new());
        Self(issuers.iter().map(entry).collect())
    }
}

impl MissingKeys {
    /// Returns the signal of an issuer, by the SHA-256 of its name; `None` for an unknown one.
    pub(crate) fn signal(&self, issuer: &Fingerprint) -> Option<&Notify> {
        self.0.iter().find(|(known, _)| known == issuer).map(|(_, signal)| signal)
    }
}
