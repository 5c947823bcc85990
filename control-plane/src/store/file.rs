//! Whether the files of a SQLite database are still those that were opened. Whoever restores a backup by replacing them
//! leaves a running server with files that have no name any more, which nobody else reads or writes.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::StoreError;

/// Device and inode.
type Identity = (u64, u64);

#[derive(Debug, Clone)]
pub struct Files {
    database: PathBuf,
    opened: Option<Identity>,
    /// The write-ahead log and its index, from when they were first seen. They stay while anybody has the database open.
    beside: [Option<Identity>; 2],
}

impl Files {
    /// To be called before the first connection.
    pub(super) fn of(database: &Path) -> Self {
        Self { database: database.to_owned(), opened: identity(database), beside: [None; 2] }
    }

    /// Fails when one of the files was removed or replaced. To be called while a connection is open.
    pub fn check(&mut self) -> Result<(), StoreError> {
        if identity(&self.database) != self.opened {
            return Err(StoreError::Replaced { path: self.database.clone() });
        }
        for (suffix, seen) in ["-wal", "-shm"].into_iter().zip(&mut self.beside) {
            let mut path = self.database.clone().into_os_string();
            path.push(suffix);
            let now = identity(Path::new(&path));
            match seen {
                None => *seen = now,
                Some(_) if *seen == now => {}
                Some(_) => return Err(StoreError::Replaced { path: path.into() }),
            }
        }
        Ok(())
    }

    /// Bytes that are free on the disk of the database; `None` where that cannot be told.
    pub fn room(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(&self.database).ok().filter(|disk| disk.f_blocks > 0)?;
        // Root may use what is reserved.
        let blocks = if rustix::process::geteuid().is_root() { disk.f_bfree } else { disk.f_bavail };
        Some(blocks.saturating_mul(disk.f_frsize))
    }
}

fn identity(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}
