//! The errors of the store.

use std::{io, path::PathBuf};

use super::postgres_url::PostgresUrlError;
use crate::domain::{CoreError, ErrorKind, InvalidPageRequest};

/// An operation of the store failed. Nothing was changed, unless the response to a commit was lost.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL is not that of a supported database.
    #[error("store.url is neither `sqlite:FILE` nor `postgres://USER@HOST/DATABASE`")]
    Url,
    /// A parameter of the URL of a PostgreSQL database is unknown or invalid.
    #[error("store.url")]
    PostgresUrl(#[from] PostgresUrlError),
    /// The database file cannot be created or opened.
    #[error("cannot create or open the database file `{location}`")]
    File { location: String, source: io::Error },
    /// The file does not exist, or the database has no Keystile schema.
    #[error(
        "no database at `{location}`; if there was one, restore its backup, as a new one lacks the revocations"
    )]
    Missing { location: String },
    /// The file was replaced or removed since it was opened.
    #[error(
        "`{}` is not the file that was opened: it was replaced or removed, for example by a restored backup; \
         no other process would read what this one writes",
        .path.display()
    )]
    Replaced { path: PathBuf },
    /// The database was rolled back: it lacks a version that was published.
    #[error(
        "the database was rolled back: a backup was restored, or a failover lost commits; no change is \
         possible until the lost revocations are applied again; retry in a second"
    )]
    RolledBack,
    /// The disk is almost full.
    #[error("the disk of the database is almost full")]
    DiskAlmostFull,
    /// The first connection failed.
    #[error("cannot use the database at `{location}`")]
    Unusable { location: String, source: sqlx::Error },
    /// No connection is possible any more.
    #[error("cannot use the database at `{location}`")]
    Unreachable { location: String, source: sqlx::Error },
    /// All connections are in use.
    #[error("all connections to the database are in use")]
    Busy,
    /// The schema must be migrated.
    #[error("the schema of the database is older than this program")]
    SchemaOlder,
    /// The schema is that of a later version.
    #[error(
        "the schema of the database is newer than this program; run the version that last migrated it, or a \
         later one"
    )]
    SchemaNewer,
    /// A migration was interrupted.
    #[error("a migration of the database was interrupted: restore the backup from before it")]
    SchemaIncomplete,
    /// The migration failed.
    #[error("cannot migrate the database to the current schema")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// A query failed or timed out.
    #[error("a database query failed")]
    Database(#[from] sqlx::Error),
    /// A column has an invalid value.
    #[error("the database contains a malformed {what}")]
    Corrupt { what: &'static str },
    /// The requested page is invalid.
    #[error("{0}")]
    Page(InvalidPageRequest),
}

impl StoreError {
    /// Returns the error code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Url | Self::PostgresUrl(_) => "store_url_invalid",
            Self::File { .. } | Self::Unusable { .. } => "store_unusable",
            Self::Missing { .. } => "store_missing",
            Self::Replaced { .. } => "store_replaced",
            Self::RolledBack => "store_went_back",
            Self::DiskAlmostFull => "store_disk_full",
            Self::SchemaOlder => "store_schema_older",
            Self::SchemaNewer => "store_schema_newer",
            Self::SchemaIncomplete | Self::Migration(_) => "store_migration_failed",
            Self::Unreachable { .. } | Self::Busy | Self::Database(_) => "store_unavailable",
            Self::Corrupt { .. } => "store_corrupt",
            Self::Page(_) => "request_invalid",
        }
    }
}

impl CoreError for StoreError {
    fn code(&self) -> &'static str {
        self.code()
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Page(_) => ErrorKind::Invalid,
            _ => ErrorKind::Unavailable,
        }
    }
}

impl From<InvalidPageRequest> for StoreError {
    fn from(error: InvalidPageRequest) -> Self {
        Self::Page(error)
    }
}
