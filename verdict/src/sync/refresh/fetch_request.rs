//! Requests to the control plane.

use alloc::string::String;

use bundle::{Entry, ObjectKind};

/// A request to the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchRequest {
    /// A request for a newer manifest than the current one.
    Manifest {
        /// The epoch of the current delegation.
        epoch: u64,
        /// The current version.
        have: u64,
        /// When the current manifest was issued, in milliseconds since the Unix epoch.
        issued_at: u64,
        /// How long the control plane may hold the request, in seconds.
        wait_seconds: u64,
    },
    /// A request for an object that the manifest names.
    Object(Entry),
}

impl FetchRequest {
    /// Returns the path with the query.
    pub fn path(&self) -> String {
        match self {
            Self::Manifest { epoch, have, .. } => {
                alloc::format!("/edge/v1/manifest?have={have}&epoch={epoch}")
            }
            Self::Object(entry) => {
                let hash = token::Fingerprint::from(*entry.sha256());
                match entry.kind() {
                    ObjectKind::SecretKeys => alloc::format!("/edge/v1/keys?sha256={hash}"),
                    _ => alloc::format!("/edge/v1/objects/{hash}"),
                }
            }
        }
    }

    /// Returns the `If-None-Match` header of a manifest request.
    pub fn etag(&self) -> Option<String> {
        match self {
            Self::Manifest { have, issued_at, .. } => Some(alloc::format!("\"{have}-{issued_at}\"")),
            Self::Object(_) => None,
        }
    }

    /// Returns how long the control plane may hold the request, in seconds.
    pub const fn wait_seconds(&self) -> u64 {
        match self {
            Self::Manifest { wait_seconds, .. } => *wait_seconds,
            Self::Object(_) => 0,
        }
    }

    /// Returns the number of bytes of the response body to buffer. Longer bodies are rejected.
    pub fn max_bytes(&self) -> usize {
        match self {
            Self::Manifest { .. } => bundle::MAX_MANIFEST_BYTES.saturating_add(1),
            Self::Object(entry) => {
                usize::try_from(entry.size()).map_or(usize::MAX, |size| size.saturating_add(1))
            }
        }
    }
}
