//! The data folder: private to its owner, and what is written there is there after a power cut.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use crate::random;

#[derive(Debug, Clone)]
pub struct Home {
    folder: PathBuf,
}

impl Home {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn exists(&self) -> bool {
        self.folder.is_dir()
    }

    pub fn keys(&self) -> PathBuf {
        self.folder.join("keys")
    }

    /// Whether any key was ever made.
    pub fn has_keys(&self) -> bool {
        fs::read_dir(self.keys()).is_ok_and(|mut files| files.next().is_some())
    }

    pub fn config_file(&self) -> PathBuf {
        self.folder.join("keystile.toml")
    }

    /// Makes the folders that are missing.
    pub fn create(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(self.keys())
    }
}

/// Writes a private file that must not exist yet, whole or not at all.
pub fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let draft = folder.join(format!(".draft-{}", random::text(random::ALPHANUMERIC, 16)));
    let written = draft_then_link(&draft, path, content);
    fs::remove_file(&draft)?;
    written?;
    // The name is durable only when its folder is.
    File::open(folder)?.sync_all()
}

/// Writes a private file, in place of what may be there, whole or not at all.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let draft = folder.join(format!(".draft-{}", random::text(random::ALPHANUMERIC, 16)));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written =
        file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written?;
    File::open(folder)?.sync_all()
}

/// The permission bits that others than the owner have.
pub fn open_to_others(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o077)
}

/// A hard link refuses to replace what is there; a rename would not.
fn draft_then_link(draft: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::hard_link(draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_private_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().join("data"));
        home.create().unwrap();
        home.create().unwrap();
        let file = home.keys().join("a");
        write_new(&file, b"first").unwrap();
        assert_eq!(write_new(&file, b"second").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&file).unwrap(), b"first");
        assert_eq!(fs::read_dir(home.keys()).unwrap().count(), 1);
        for path in [home.folder(), &home.keys(), &file] {
            assert_eq!(open_to_others(path).unwrap(), 0, "{}", path.display());
        }
    }
}
