//! Detects that the files of a SQLite database were replaced. If a backup is restored by replacing them, a running server
//! would continue with deleted files that no other process reads or writes.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::StoreError;

/// Device and inode.
type FileIdentity = (u64, u64);

/// The files of an open database.
#[derive(Debug, Clone)]
pub struct DatabaseFiles {
    database: PathBuf,
    opened: Option<FileIdentity>,
    /// The write-ahead log and its index, when they were first seen. They exist while any process has the database open.
    beside: [Option<FileIdentity>; 2],
}

impl DatabaseFiles {
    /// Records the database file. Must be called before the first connection.
    pub(crate) fn open(database: &Path) -> Self {
        Self { database: database.to_owned(), opened: file_identity(database), beside: [None; 2] }
    }

    /// Fails if one of the files was removed or replaced. Must be called while a connection is open.
    pub fn check(&mut self) -> Result<(), StoreError> {
        if file_identity(&self.database) != self.opened {
            return Err(StoreError::Replaced { path: self.database.clone() });
        }
        for (suffix, seen) in ["-wal", "-shm"].into_iter().zip(&mut self.beside) {
            let mut path = self.database.clone().into_os_string();
            path.push(suffix);
            let now = file_identity(Path::new(&path));
            match seen {
                None => *seen = now,
                Some(_) if *seen == now => {}
                Some(_) => return Err(StoreError::Replaced { path: path.into() }),
            }
        }
        Ok(())
    }

    /// Returns the free space on the disk of the database in bytes; `None` if it cannot be determined.
    pub fn free_bytes(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(&self.database).ok().filter(|disk| disk.f_blocks > 0)?;
        // Root may use the reserved blocks too.
        let blocks = if rustix::process::geteuid().is_root() { disk.f_bfree } else { disk.f_bavail };
        Some(blocks.saturating_mul(disk.f_frsize))
    }
}

/// Returns device and inode of a file; `None` if there is none.
fn file_identity(path: &Path) -> Option<FileIdentity> {
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}
