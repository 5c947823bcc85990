use std::{fmt, io};

/// The store could not do it. Nothing was changed, unless a commit's answer was lost.
#[derive(Debug)]
pub enum StoreError {
    /// Not a store's URL.
    Url,
    /// The database file.
    File(io::Error),
    /// The schema.
    Migration(sqlx::migrate::MigrateError),
    /// The database says no, or nothing.
    Database(sqlx::Error),
    /// A row holds what we never write.
    Corrupt { what: &'static str },
}

impl StoreError {
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Url => "store_url_invalid",
            Self::File(_) => "store_file_unusable",
            Self::Migration(_) => "store_migration_failed",
            Self::Database(_) => "store_unavailable",
            Self::Corrupt { .. } => "store_corrupt",
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The URL may hold a password: it is not repeated.
            Self::Url => {
                f.write_str("store.url is neither `sqlite:FILE` nor `postgres://USER@HOST/DATABASE`")
            }
            Self::File(_) => f.write_str("the database file can't be made or opened"),
            Self::Migration(_) => f.write_str("the database can't be brought to the current schema"),
            Self::Database(_) => f.write_str("the database did not do what was asked"),
            Self::Corrupt { what } => write!(f, "the database holds a malformed {what}"),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Url | Self::Corrupt { .. } => None,
            Self::File(error) => Some(error),
            Self::Migration(error) => Some(error),
            Self::Database(error) => Some(error),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}
