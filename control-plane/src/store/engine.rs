use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::StoreError;

/// All that differs between the two databases, apart from how they tell of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

impl Engine {
    pub(super) const fn session_settings(self) -> &'static str {
        match self {
            // FULL: a commit in the write-ahead log is synced before it is acknowledged.
            Self::Sqlite => {
                "PRAGMA busy_timeout = 8000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
            }
            // `on` is the default; a server that has it off would acknowledge what a crash can lose.
            Self::Postgres => "SET synchronous_commit = on; SET lock_timeout = '8s';",
        }
    }

    pub(super) const fn begin_write(self) -> &'static str {
        match self {
            // Takes the write lock at once: a lock taken half-way cannot be waited for.
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
        }
    }

    pub(super) const fn begin_read(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN",
            Self::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }
}

/// The engine that a URL names, and the URL that its driver takes.
pub(super) fn resolve(url: &str, folder: &Path) -> Result<(Engine, String), StoreError> {
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Ok((Engine::Postgres, url.to_owned()));
    }
    let Some(path) = url.strip_prefix("sqlite:") else {
        return Err(StoreError::Url);
    };
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path.contains('?') || path == ":memory:" {
        return Err(StoreError::Url);
    }
    let path = std::path::absolute(folder.join(PathBuf::from(path))).map_err(StoreError::File)?;
    make_private(&path).map_err(StoreError::File)?;
    Ok((Engine::Sqlite, format!("sqlite://{}?mode=rw", percent_encode(&path))))
}

/// SQLite gives its -wal and -shm files the mode of the database.
fn make_private(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn percent_encode(path: &Path) -> String {
    path.as_os_str().as_encoded_bytes().iter().fold(String::new(), |text, byte| match byte {
        b'/' | b'.' | b'-' | b'_' | b'~' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
            text + &char::from(*byte).to_string()
        }
        _ => text + &format!("%{byte:02X}"),
    })
}
