use alloc::string::String;

use bundle::{Entry, ObjectKind};

/// What the leader is to ask the control plane for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `epoch` is that of the delegation, `have` the version, `issued_at` the time of the manifest that is held.
    Manifest {
        /// The epoch of the delegation that is held.
        epoch: u64,
        /// The version that is held.
        have: u64,
        /// The second at which the manifest that is held was issued.
        issued_at: u64,
        /// How long the control plane may hold the request.
        wait_seconds: u64,
    },
    /// An object that the manifest names.
    Object(Entry),
}

impl Call {
    /// The path, its query included.
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

    /// The `If-None-Match` of a manifest.
    pub fn etag(&self) -> Option<String> {
        match self {
            Self::Manifest { have, issued_at, .. } => Some(alloc::format!("\"{have}-{issued_at}\"")),
            Self::Object(_) => None,
        }
    }

    /// How many seconds the control plane may hold the request.
    pub const fn wait_seconds(&self) -> u64 {
        match self {
            Self::Manifest { wait_seconds, .. } => *wait_seconds,
            Self::Object(_) => 0,
        }
    }

    /// How many bytes of the answer to take: more are refused anyway.
    pub fn max_bytes(&self) -> usize {
        match self {
            Self::Manifest { .. } => bundle::MAX_MANIFEST_BYTES.saturating_add(1),
            Self::Object(entry) => {
                usize::try_from(entry.size()).map_or(usize::MAX, |size| size.saturating_add(1))
            }
        }
    }
}
