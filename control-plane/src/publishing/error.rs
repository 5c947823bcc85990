//! The errors of publishing.

use std::error::Error as _;

use bundle::{AdvanceError, Incomplete, ManifestError, ObjectError, Regression, builder::TooLarge};

use crate::{db::StoreError, domain::Version, keys::keyring::KeyError, service::OpenError};

/// Why a bundle could not be published. The previous bundle stays in use until it goes stale.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A key file cannot be used.
    #[error(transparent)]
    Keys(KeyError),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store lacks a version that was published: a backup was restored, or a failover lost commits.
    #[error("the database was rolled back and lacks {}: a backup was restored, or a failover lost commits", lost(*published, *kept))]
    RolledBack {
        /// The last version that was published.
        published: Version,
        /// The last version before that one which the store still has.
        kept: Version,
    },
    /// The journal cannot be merged into a database that was rolled back.
    #[error("the database was rolled back, and the journal cannot be merged into it: {0}")]
    Merge(Box<OpenError>),
    /// The bundle exceeds a limit of the format.
    #[error("{0}")]
    TooLarge(TooLarge),
    /// Edges would refuse the bundle that was built.
    #[error("edges would refuse the bundle that was built")]
    Invalid(#[source] InvalidBundle),
}

/// Why an edge would refuse the bundle.
#[derive(Debug, thiserror::Error)]
pub enum InvalidBundle {
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error(transparent)]
    Incomplete(#[from] Incomplete),
    #[error(transparent)]
    Regression(#[from] Regression),
}

/// Names what the store lacks.
fn lost(published: Version, kept: Version) -> String {
    match kept >= published {
        true => "issued credentials".to_owned(),
        false => format!("versions {} to {published}", kept.next()),
    }
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
