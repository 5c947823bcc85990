//! Why a service could not be opened.

use crate::{db::StoreError, journal::CatchUpError, keys::keyring::KeyError, platform::data_dir::DataDir};

/// Why the signing keys could not be reloaded.
#[derive(Debug)]
pub enum ReloadKeysError {
    /// A key file cannot be used.
    Keys(KeyError),
    /// The store cannot be read.
    Store(StoreError),
}

impl From<StoreError> for ReloadKeysError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Why a service could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data folder does not exist.
    #[error("the data folder `{}` does not exist", .data_dir.path().display())]
    NoDataDir { data_dir: DataDir },
    /// The store cannot be opened.
    #[error(transparent)]
    Store(StoreError),
    /// A key file cannot be used.
    #[error(transparent)]
    Keys(KeyError),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(CatchUpError),
    /// The database was restored from a backup, and the journal is not merged into it yet.
    #[error("the database was restored from a backup and lacks the revocations since")]
    JournalNotMerged,
    /// The store has an item again that was deleted according to the journal, and it cannot be deleted.
    #[error("`{what}` was deleted after the restored backup, and cannot be deleted again: {error}")]
    Merge { what: String, error: String },
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<KeyError> for OpenError {
    fn from(error: KeyError) -> Self {
        Self::Keys(error)
    }
}
