use core::fmt;

use bundle::{Incomplete, ManifestError, ObjectError, Regression, Rejected};

/// Why a refresh failed; what was held is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No answer.
    Unreachable,
    Status(u16),
    Manifest(ManifestError),
    /// By so many seconds.
    Expired(Signed, u64),
    /// Issued so many seconds from now.
    FromFuture(u64),
    /// Below what the policy demands.
    BelowFloor {
        what: &'static str,
        floor: u64,
        offered: u64,
    },
    /// It would have this edge forget something.
    Regression(Regression),
    Object(ObjectError),
    Incomplete(Incomplete),
}

/// What has a signature and a lifetime of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    Manifest,
    Checkpoint,
    Delegation,
}

impl Failure {
    pub const fn code(self) -> &'static str {
        match self {
            Self::Unreachable => "control_plane_unreachable",
            Self::Status(_) => "control_plane_status",
            Self::Manifest(error) => error.code(),
            Self::Expired(Signed::Manifest, _) => "manifest_expired",
            Self::Expired(Signed::Checkpoint, _) => "checkpoint_expired",
            Self::Expired(Signed::Delegation, _) => "delegation_expired",
            Self::FromFuture(_) => "manifest_from_future",
            Self::BelowFloor { .. } => "manifest_below_floor",
            Self::Regression(regression) => regression.code(),
            Self::Object(error) => error.code(),
            Self::Incomplete(_) => "bundle_incomplete",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => f.write_str("the control plane did not answer"),
            Self::Status(status) => write!(f, "the control plane answered {status}"),
            Self::Manifest(error) => error.fmt(f),
            Self::Expired(signed, ago) => {
                let signed = match signed {
                    Signed::Manifest => "manifest",
                    Signed::Checkpoint => "checkpoint",
                    Signed::Delegation => "delegation",
                };
                write!(f, "the {signed} expired {ago} s ago by this edge's clock")
            }
            Self::FromFuture(ahead) => {
                write!(f, "the manifest was issued {ahead} s ahead of this edge's clock")
            }
            Self::BelowFloor { what, floor, offered } => {
                write!(f, "{what} {offered} was offered, and the configuration demands {floor} at least")
            }
            Self::Regression(regression) => regression.fmt(f),
            Self::Object(error) => error.fmt(f),
            Self::Incomplete(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Failure {}

impl From<ManifestError> for Failure {
    fn from(error: ManifestError) -> Self {
        Self::Manifest(error)
    }
}

impl From<ObjectError> for Failure {
    fn from(error: ObjectError) -> Self {
        Self::Object(error)
    }
}

impl From<Regression> for Failure {
    fn from(regression: Regression) -> Self {
        Self::Regression(regression)
    }
}

impl From<Incomplete> for Failure {
    fn from(incomplete: Incomplete) -> Self {
        Self::Incomplete(incomplete)
    }
}

impl From<Rejected> for Failure {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Incomplete(incomplete) => Self::Incomplete(incomplete),
            Rejected::Regression(regression) => Self::Regression(regression),
        }
    }
}
