use std::{error::Error as _, fmt};

use bundle::{AdvanceError, Incomplete, ManifestError, ObjectError, Regression, builder::TooLarge};

use crate::{
    keys::KeyError,
    operations::{OpenError, RepairError},
    store::StoreError,
};

/// Why nothing was published. What was published before stays until it goes stale.
#[derive(Debug)]
pub enum PublishError {
    Keys(KeyError),
    Store(StoreError),
    /// The store has lost what was published: a backup was restored, or it failed over to a copy that lacks commits.
    WentBack {
        published: u64,
        /// The latest version of those before that it still has.
        kept: u64,
    },
    /// The journal beside the keys says more than the store knows, and no server has merged it yet.
    Restored,
    /// The journal can't be read.
    Journal(RepairError),
    /// What the journal says can't be refused again in a database that went back.
    Merge(Box<OpenError>),
    TooLarge(TooLarge),
    /// What was built is not what edges would accept.
    Unreadable(Defect),
}

#[derive(Debug)]
pub enum Defect {
    Manifest(ManifestError),
    Object(ObjectError),
    Incomplete(Incomplete),
    Regression(Regression),
}

impl PublishError {
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Keys(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::WentBack { .. } => "store_went_back",
            Self::Restored => "database_restored",
            Self::Journal(_) => "journal_unusable",
            Self::Merge(_) => "journal_not_merged",
            Self::TooLarge(_) => "bundle_too_large",
            Self::Unreadable(_) => "bundle_unreadable",
        }
    }

    pub fn cause(&self) -> String {
        self.source().map(ToString::to_string).unwrap_or_default()
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::WentBack { published, kept } if kept >= published => f.write_str(
                "the database went back: some of what was issued is missing; a backup was restored, or a failover lost \
                 commits",
            ),
            Self::WentBack { published, kept } => write!(
                f,
                "the database went back: versions {} to {published} are missing; a backup was restored, or a failover \
                 lost commits",
                kept.saturating_add(1)
            ),
            Self::Restored => f.write_str(
                "the database was restored from a backup, and does not know what was revoked since; start the server, or \
                 run `keystile restore --repair`",
            ),
            Self::Journal(error) => error.fmt(f),
            Self::Merge(error) => write!(f, "the database went back, and the journal can't be merged into it: {error}"),
            Self::TooLarge(error) => error.fmt(f),
            Self::Unreadable(_) => f.write_str("the bundle that was built can't be read"),
        }
    }
}

impl std::error::Error for PublishError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Keys(error) => error.source(),
            Self::Store(error) => error.source(),
            Self::Journal(error) => error.source(),
            Self::Merge(error) => error.source(),
            Self::WentBack { .. } | Self::Restored | Self::TooLarge(_) => None,
            Self::Unreadable(Defect::Manifest(error)) => Some(error),
            Self::Unreadable(Defect::Object(error)) => Some(error),
            Self::Unreadable(Defect::Incomplete(error)) => Some(error),
            Self::Unreadable(Defect::Regression(error)) => Some(error),
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
        Self::Unreadable(Defect::Manifest(error))
    }
}

impl From<ObjectError> for PublishError {
    fn from(error: ObjectError) -> Self {
        Self::Unreadable(Defect::Object(error))
    }
}

impl From<Incomplete> for PublishError {
    fn from(error: Incomplete) -> Self {
        Self::Unreadable(Defect::Incomplete(error))
    }
}

impl From<AdvanceError> for PublishError {
    fn from(rejected: AdvanceError) -> Self {
        Self::Unreadable(match rejected {
            AdvanceError::Incomplete(error) => Defect::Incomplete(error),
            AdvanceError::Regression(error) => Defect::Regression(error),
        })
    }
}
