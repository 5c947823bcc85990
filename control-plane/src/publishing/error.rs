//! The errors of publishing.

use std::{error::Error as _, fmt};

use bundle::{AdvanceError, Incomplete, ManifestError, ObjectError, Regression, builder::TooLarge};

use crate::{db::StoreError, keys::keyring::KeyError, service::OpenError};

/// Why a bundle could not be published. The previous bundle stays in use until it goes stale.
#[derive(Debug)]
pub enum PublishError {
    /// A key file cannot be used.
    Keys(KeyError),
    /// The store cannot be read or written.
    Store(StoreError),
    /// The store lacks a version that was published: a backup was restored, or a failover lost commits.
    RolledBack {
        /// The last version that was published.
        published: u64,
        /// The last version before that one which the store still has.
        kept: u64,
    },
    /// The journal cannot be merged into a database that was rolled back.
    Merge(Box<OpenError>),
    /// The bundle exceeds a limit of the format.
    TooLarge(TooLarge),
    /// Edges would refuse the bundle that was built.
    Invalid(InvalidBundle),
}

/// Why an edge would refuse the bundle.
#[derive(Debug)]
pub enum InvalidBundle {
    Manifest(ManifestError),
    Object(ObjectError),
    Incomplete(Incomplete),
    Regression(Regression),
}

impl PublishError {
    /// Returns the error code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Keys(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::RolledBack { .. } => "store_went_back",
            Self::Merge(_) => "journal_not_merged",
            Self::TooLarge(_) => "bundle_too_large",
            Self::Invalid(_) => "bundle_unreadable",
        }
    }

    /// Returns the text of the source error, or an empty text.
    pub fn cause(&self) -> String {
        self.source().map(ToString::to_string).unwrap_or_default()
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::RolledBack { published, kept } if kept >= published => f.write_str(
                "the database was rolled back and lacks issued credentials: a backup was restored, or a failover lost \
                 commits",
            ),
            Self::RolledBack { published, kept } => write!(
                f,
                "the database was rolled back and lacks versions {} to {published}: a backup was restored, or a failover \
                 lost commits",
                kept.saturating_add(1)
            ),
            Self::Merge(error) => {
                write!(f, "the database was rolled back, and the journal cannot be merged into it: {error}")
            }
            Self::TooLarge(error) => error.fmt(f),
            Self::Invalid(_) => f.write_str("edges would refuse the bundle that was built"),
        }
    }
}

impl std::error::Error for PublishError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Keys(error) => error.source(),
            Self::Store(error) => error.source(),
            Self::Merge(error) => error.source(),
            Self::RolledBack { .. } | Self::TooLarge(_) => None,
            Self::Invalid(InvalidBundle::Manifest(error)) => Some(error),
            Self::Invalid(InvalidBundle::Object(error)) => Some(error),
            Self::Invalid(InvalidBundle::Incomplete(error)) => Some(error),
            Self::Invalid(InvalidBundle::Regression(error)) => Some(error),
        }
    }
}

impl From<StoreError> for PublishError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<TooLarge> for PublishError {
    fn from(error: TooLarge) -> Self {
        Self::TooLarge(error)
    }
}

impl From<ManifestError> for PublishError {
    fn from(error: ManifestError) -> Self {
        Self::Invalid(InvalidBundle::Manifest(error))
    }
}

impl From<ObjectError> for PublishError {
    fn from(error: ObjectError) -> Self {
        Self::Invalid(InvalidBundle::Object(error))
    }
}

impl From<Incomplete> for PublishError {
    fn from(error: Incomplete) -> Self {
        Self::Invalid(InvalidBundle::Incomplete(error))
    }
}

impl From<AdvanceError> for PublishError {
    fn from(rejected: AdvanceError) -> Self {
        Self::Invalid(match rejected {
            AdvanceError::Incomplete(error) => InvalidBundle::Incomplete(error),
            AdvanceError::Regression(error) => InvalidBundle::Regression(error),
        })
    }
}
