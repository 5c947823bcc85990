//! The errors of the store.

use std::{fmt, io, path::PathBuf};

use crate::model::BadPage;

/// An operation of the store failed. Nothing was changed, unless the response to a commit was lost.
#[derive(Debug)]
pub enum StoreError {
    /// The URL is not that of a supported database.
    Url,
    /// The database file cannot be created or opened.
    File { place: String, source: io::Error },
    /// The file does not exist, or the database has no Keystile schema.
    Missing { place: String },
    /// The file was replaced or removed since it was opened.
    Replaced { path: PathBuf },
    /// The database was rolled back: it lacks a version that was published.
    WentBack,
    /// The disk is almost full.
    NoRoom,
    /// The first connection failed.
    Unusable { place: String, source: sqlx::Error },
    /// The schema must be migrated.
    SchemaOlder,
    /// The schema is that of a later version.
    SchemaNewer,
    /// The migration failed.
    Migration(sqlx::migrate::MigrateError),
    /// A query failed or timed out.
    Database(sqlx::Error),
    /// A column has an invalid value.
    Corrupt { what: &'static str },
    /// The requested page is invalid.
    Page(BadPage),
}

impl StoreError {
    /// Returns the error code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Url => "store_url_invalid",
            Self::File { .. } | Self::Unusable { .. } => "store_unusable",
            Self::Missing { .. } => "store_missing",
            Self::Replaced { .. } => "store_replaced",
            Self::WentBack => "store_went_back",
            Self::NoRoom => "store_disk_full",
            Self::SchemaOlder => "store_schema_older",
            Self::SchemaNewer => "store_schema_newer",
            Self::Migration(_) => "store_migration_failed",
            Self::Database(_) => "store_unavailable",
            Self::Corrupt { .. } => "store_corrupt",
            Self::Page(_) => "request_invalid",
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The text omits the URL, which may contain a password.
            Self::Url => {
                f.write_str("store.url is neither `sqlite:FILE` nor `postgres://USER@HOST/DATABASE`")
            }
            Self::File { place, .. } => write!(f, "cannot create or open the database file `{place}`"),
            Self::Missing { place } => write!(
                f,
                "no database at `{place}`; if there was one, restore its backup, as a new one lacks the revocations; \
                 otherwise create it with `keystile init`"
            ),
            Self::Replaced { path } => write!(
                f,
                "`{}` is not the file that was opened: it was replaced or removed, for example by a restored backup; no \
                 other process would read what this one writes",
                path.display()
            ),
            Self::WentBack => f.write_str(
                "the database was rolled back: a backup was restored, or a failover lost commits; no change is possible \
                 until the lost revocations are applied again; retry in a second",
            ),
            Self::NoRoom => f.write_str("the disk of the database is almost full"),
            Self::Unusable { place, .. } => write!(f, "cannot use the database at `{place}`"),
            Self::SchemaOlder => f.write_str(
                "the schema of the database is older than this program; make a backup, then `keystile serve` migrates it",
            ),
            Self::SchemaNewer => f.write_str(
                "the schema of the database is newer than this program; run the version that last migrated it, or a later one",
            ),
            Self::Migration(_) => f.write_str("cannot migrate the database to the current schema"),
            Self::Database(_) => f.write_str("a database query failed"),
            Self::Page(error) => error.fmt(f),
            Self::Corrupt { what } => write!(f, "the database contains a malformed {what}"),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Url
            | Self::Corrupt { .. }
            | Self::Page(_)
            | Self::Missing { .. }
            | Self::Replaced { .. }
            | Self::WentBack
            | Self::NoRoom
            | Self::SchemaOlder
            | Self::SchemaNewer => None,
            Self::File { source, .. } => Some(source),
            Self::Unusable { source, .. } => Some(source),
            Self::Migration(error) => Some(error),
            Self::Database(error) => Some(error),
        }
    }
}

impl From<BadPage> for StoreError {
    fn from(error: BadPage) -> Self {
        Self::Page(error)
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}
