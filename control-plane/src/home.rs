//! The data folder: private to its owner, and what is written there is there after a power cut.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

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

/// A private file under a temporary name, in the folder of the file that it will become. Dropping it deletes it.
#[derive(Debug)]
pub struct Draft {
    file: NamedTempFile,
    path: PathBuf,
}

impl Draft {
    /// Creates the draft of `path`.
    pub fn of(path: &Path) -> io::Result<Self> {
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        // `tempfile` makes files that only their owner can read.
        let file = tempfile::Builder::new().prefix(".draft-").tempfile_in(folder)?;
        give_to_owner_of(folder, file.as_file())?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Makes what was written durable, so that [`replace`](Self::replace) has little left to do.
    pub fn sync(&self) -> io::Result<()> {
        self.file.as_file().sync_all()
    }

    /// Puts the draft in the place of whatever is there. When this returns, the file is durable.
    pub fn replace(self) -> io::Result<()> {
        self.sync()?;
        self.file.persist(&self.path).map_err(|error| error.error)?;
        sync_folder_of(&self.path)
    }

    /// As [`replace`](Self::replace), but fails with [`io::ErrorKind::AlreadyExists`] if a file is there.
    fn create(self) -> io::Result<()> {
        self.sync()?;
        self.file.persist_noclobber(&self.path).map_err(|error| error.error)?;
        sync_folder_of(&self.path)
    }
}

impl io::Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes a private file that must not exist yet, whole or not at all.
pub fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut draft = Draft::of(path)?;
    draft.write_all(content)?;
    draft.create()
}

/// Writes a private file, in place of what may be there, whole or not at all.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut draft = Draft::of(path)?;
    draft.write_all(content)?;
    draft.replace()
}

/// A new name is durable once the folder is.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?.sync_all()
}

/// A command that root runs must not leave a file that the server can't read.
fn give_to_owner_of(folder: &Path, file: &File) -> io::Result<()> {
    let (folder, own) = (fs::metadata(folder)?, file.metadata()?);
    match new_owner((folder.uid(), folder.gid()), own.uid()) {
        Some((uid, gid)) => fchown(file, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

/// Returns whom a file is to be given to: user and group of its folder, unless it is the user's already.
fn new_owner(folder: (u32, u32), own_uid: u32) -> Option<(u32, u32)> {
    (folder.0 != own_uid).then_some(folder)
}

/// The permission bits that others than the owner have.
pub fn open_to_others(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o077)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_given_to_the_owner_of_its_folder_only_where_that_is_another() {
        assert_eq!(new_owner((1234, 5678), 0), Some((1234, 5678)));
        assert_eq!(new_owner((1234, 5678), 1234), None);
    }

    /// Only root can give files away: `make test` runs it with `--ignored` where it can.
    #[test]
    #[ignore = "needs root"]
    fn files_belong_to_the_owner_of_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        std::os::unix::fs::chown(folder.path(), Some(1234), Some(1234)).expect("root's rights");
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
