//! The data folder: private to its owner, with durable and atomic file writes.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// The path of the data folder.
#[derive(Debug, Clone)]
pub struct Home {
    folder: PathBuf,
}

impl Home {
    /// Returns the data folder at `folder`, which need not exist.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Returns the path of the data folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns true if the data folder exists.
    pub fn exists(&self) -> bool {
        self.folder.is_dir()
    }

    /// Returns the path of the key folder.
    pub fn keys(&self) -> PathBuf {
        self.folder.join("keys")
    }

    /// Returns true if the key folder contains any file.
    pub fn has_keys(&self) -> bool {
        fs::read_dir(self.keys()).is_ok_and(|mut files| files.next().is_some())
    }

    /// Returns the path of the settings file.
    pub fn config_file(&self) -> PathBuf {
        self.folder.join("keystile.toml")
    }

    /// Creates the data folder and the key folder if they do not exist, readable by the owner only.
    pub fn create(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(self.keys())
    }
}

/// A private file under a temporary name, in the same folder as its final path. Dropping it deletes it.
#[derive(Debug)]
pub struct Draft {
    file: NamedTempFile,
    path: PathBuf,
}

impl Draft {
    /// Creates a draft for `path`.
    pub fn of(path: &Path) -> io::Result<Self> {
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        // `tempfile` creates files that only their owner can read.
        let file = tempfile::Builder::new().prefix(".draft-").tempfile_in(folder)?;
        chown_to_folder_owner(folder, file.as_file())?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Syncs the written data to disk, so that [`replace`](Self::replace) has little left to do.
    pub fn sync(&self) -> io::Result<()> {
        self.file.as_file().sync_all()
    }

    /// Moves the draft to its final path, replacing an existing file. The file is durable when this returns.
    pub fn replace(self) -> io::Result<()> {
        self.sync()?;
        self.file.persist(&self.path).map_err(|error| error.error)?;
        sync_folder_of(&self.path)
    }

    /// Like [`replace`](Self::replace), but fails with [`io::ErrorKind::AlreadyExists`] if the file exists.
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

/// Creates a private file atomically.
///
/// # Errors
///
/// [`io::ErrorKind::AlreadyExists`] if the file exists, or the error of the write.
pub fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut draft = Draft::of(path)?;
    draft.write_all(content)?;
    draft.create()
}

/// Writes a private file atomically, replacing an existing one.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut draft = Draft::of(path)?;
    draft.write_all(content)?;
    draft.replace()
}

/// Syncs the folder of `path`, which makes the new name durable.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?.sync_all()
}

/// Changes the owner of a file to the owner of its folder, so that the server can read files that root has created.
fn chown_to_folder_owner(folder: &Path, file: &File) -> io::Result<()> {
    let (folder, own) = (fs::metadata(folder)?, file.metadata()?);
    match new_owner((folder.uid(), folder.gid()), own.uid()) {
        Some((uid, gid)) => fchown(file, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

/// Returns the user and group that a file must be changed to, or `None` if its user already owns the folder.
fn new_owner(folder: (u32, u32), own_uid: u32) -> Option<(u32, u32)> {
    (folder.0 != own_uid).then_some(folder)
}

/// Returns the permission bits of group and others.
pub fn open_to_others(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o077)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_changes_owner_only_if_its_folder_has_another_owner() {
        assert_eq!(new_owner((1234, 5678), 0), Some((1234, 5678)));
        assert_eq!(new_owner((1234, 5678), 1234), None);
    }

    /// Requires root; `make test` runs it with `--ignored` where it can.
    #[test]
    #[ignore = "needs root"]
    fn files_belong_to_the_owner_of_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        std::os::unix::fs::chown(folder.path(), Some(1234), Some(1234)).expect("root privileges");
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
