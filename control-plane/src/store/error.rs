use std::{fmt, io, path::PathBuf};

use crate::model::BadPage;

/// The store could not do it. Nothing was changed, unless a commit's answer was lost.
#[derive(Debug)]
pub enum StoreError {
    /// Not a store's URL.
    Url,
    /// The database file.
    File {
        place: String,
        source: io::Error,
    },
    /// No file, or a database that is none of ours.
    Missing {
        place: String,
    },
    /// The file that was opened is not the one of that name any more.
    Replaced {
        path: PathBuf,
    },
    /// It does not know what was published from it.
    WentBack,
    /// The disk is almost full.
    NoRoom,
    /// No first connection.
    Unusable {
        place: String,
        source: sqlx::Error,
    },
    SchemaOlder,
    SchemaNewer,
    /// The schema.
    Migration(sqlx::migrate::MigrateError),
    /// The database says no, or nothing.
    Database(sqlx::Error),
    /// A row holds what we never write.
    Corrupt {
        what: &'static str,
    },
    /// A page of a list that is not there.
    Page(BadPage),
}

impl StoreError {
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
            // The URL may hold a password: it is not repeated.
            Self::Url => {
                f.write_str("store.url is neither `sqlite:FILE` nor `postgres://USER@HOST/DATABASE`")
            }
            Self::File { place, .. } => write!(f, "the database file `{place}` can't be made or opened"),
            Self::Missing { place } => write!(
                f,
                "no database at `{place}`; if there was one, restore its backup, for a new one has forgotten what was \
                 revoked; if there was none, `keystile init` makes it"
            ),
            Self::Replaced { path } => write!(
                f,
                "`{}` is not the file that was opened: it was replaced or removed meanwhile, as by a restored backup; \
                 what this process would write there nobody reads",
                path.display()
            ),
            Self::WentBack => f.write_str(
                "the database lacks what was published from it: a backup was restored, or a failover lost commits; nothing \
                 is changed before what it lacks is refused again; try again in a second",
            ),
            Self::NoRoom => f.write_str("the disk of the database is almost full"),
            Self::Unusable { place, .. } => write!(f, "the database at `{place}` can't be used"),
            Self::SchemaOlder => f.write_str(
                "the schema of the database is older than this program; `keystile serve` brings it up to date, \
                 make a backup before",
            ),
            Self::SchemaNewer => f.write_str(
                "the schema of the database is newer than this program; run the version that last served it, or a later one",
            ),
            Self::Migration(_) => f.write_str("the database can't be brought to the current schema"),
            Self::Database(_) => f.write_str("the database did not do what was asked"),
            Self::Page(error) => error.fmt(f),
            Self::Corrupt { what } => write!(f, "the database holds a malformed {what}"),
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
