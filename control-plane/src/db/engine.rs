//! The differences between the databases.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::{StoreError, postgres_url::PostgresUrl};

/// What is encoded in the path of a database file: everything but `/` and the unreserved characters of RFC 3986.
const PATH_ENCODE_SET: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_').remove(b'~');

/// The database engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

impl Engine {
    pub(crate) const fn session_settings(self) -> &'static str {
        match self {
            // With FULL a commit is synced to the write-ahead log before it is acknowledged.
            Self::Sqlite => {
                "PRAGMA busy_timeout = 8000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
            }
            // `on` is the default. A server with `off` would acknowledge commits that a crash can lose.
            Self::Postgres => "SET synchronous_commit = on; SET lock_timeout = '8s';",
        }
    }

    pub(crate) const fn begin_write(self) -> &'static str {
        match self {
            // The write lock is taken at the beginning: SQLite cannot wait for one within a read transaction.
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
        }
    }

    pub(crate) const fn begin_read(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN",
            Self::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }
}

/// The location of the database. `Display` omits passwords.
pub(crate) enum DatabaseLocation {
    Sqlite { path: PathBuf, url: String },
    Postgres(PostgresUrl),
}

impl DatabaseLocation {
    pub(crate) fn resolve(url: &str, folder: &Path) -> Result<Self, StoreError> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Postgres(PostgresUrl::parse(url, folder)?));
        }
        let path = url.strip_prefix("sqlite:").ok_or(StoreError::Url)?;
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path.contains('?') || path == ":memory:" {
            return Err(StoreError::Url);
        }
        let file = folder.join(path);
        let path = std::path::absolute(&file)
            .map_err(|source| StoreError::File { location: file.display().to_string(), source })?;
        let url = format!(
            "sqlite://{}?mode=rw",
            percent_encode(path.as_os_str().as_encoded_bytes(), PATH_ENCODE_SET)
        );
        Ok(Self::Sqlite { path, url })
    }

    pub(crate) const fn engine(&self) -> Engine {
        match self {
            Self::Sqlite { .. } => Engine::Sqlite,
            Self::Postgres(_) => Engine::Postgres,
        }
    }

    /// Returns the URL for the driver.
    pub(crate) fn url(&self) -> &str {
        match self {
            Self::Sqlite { url, .. } | Self::Postgres(PostgresUrl { url, .. }) => url,
        }
    }

    /// Returns the SQLite file; `None` for PostgreSQL.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Sqlite { path, .. } => Some(path),
            Self::Postgres(_) => None,
        }
    }

    /// Creates the SQLite file if it does not exist. SQLite gives its -wal and -shm files the same mode.
    pub(crate) fn create_file(&self) -> io::Result<()> {
        let Self::Sqlite { path, .. } = self else { return Ok(()) };
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Checks that the SQLite file can be read. Whether PostgreSQL is available shows on connect.
    pub(crate) fn check_exists(&self) -> Result<(), StoreError> {
        let Self::Sqlite { path, .. } = self else { return Ok(()) };
        match File::open(path) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::Missing { location: self.to_string() })
            }
            Err(source) => Err(StoreError::File { location: self.to_string(), source }),
        }
    }
}

impl fmt::Display for DatabaseLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { path, .. } => write!(f, "{}", path.display()),
            Self::Postgres(PostgresUrl { server, .. }) => f.write_str(server),
        }
    }
}
