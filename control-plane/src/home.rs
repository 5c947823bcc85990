//! The data folder: private to its owner, and what is written there is there after a power cut.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
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
    let written = give_to_owner_of(folder, &file)
        .and_then(|()| file.write_all(content))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written?;
    File::open(folder)?.sync_all()
}

/// A command that root runs must not leave a file that the server can't read.
fn give_to_owner_of(folder: &Path, file: &File) -> io::Result<()> {
    let (folder, own) = (fs::metadata(folder)?, file.metadata()?);
    if folder.uid() == own.uid() { Ok(()) } else { fchown(file, Some(folder.uid()), Some(folder.gid())) }
}

/// The permission bits that others than the owner have.
pub fn open_to_others(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o077)
}

/// A hard link refuses to replace what is there; a rename would not.
fn draft_then_link(draft: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    give_to_owner_of(path.parent().ok_or(io::ErrorKind::InvalidInput)?, &file)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::hard_link(draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only root can give files away; for anybody else there is nothing to see here.
    #[test]
    fn files_belong_to_the_owner_of_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        if std::os::unix::fs::chown(folder.path(), Some(1234), Some(1234)).is_err() {
            return;
        }
        for write in [write_new, replace] {
            write(&file, b"content").unwrap();
            let owner = fs::metadata(&file).unwrap();
            assert_eq!((owner.uid(), owner.gid()), (1234, 1234));
        }
    }

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
