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
pub struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// Returns the data folder at `folder`, which need not exist.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Returns the path of the data folder.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Returns true if the data folder exists.
    pub fn exists(&self) -> bool {
        self.root.is_dir()
    }

    /// Returns the path of the key folder.
    pub fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    /// Returns the path of the folder for what can be derived from the database again. It is created when it is needed.
    pub fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// Returns true if the key folder contains any file.
    pub fn has_keys(&self) -> bool {
        fs::read_dir(self.keys()).is_ok_and(|mut files| files.next().is_some())
    }

    /// Returns the path of the settings file.
    pub fn config_file(&self) -> PathBuf {
        self.root.join("keystile.toml")
    }

    /// Creates the data folder and the key folder if they do not exist, readable by the owner only.
    pub fn create(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(self.keys())
    }
}

/// A private file under a temporary name, in the same folder as its final path. Dropping it deletes it.
#[derive(Debug)]
pub struct TempFile {
    file: NamedTempFile,
    path: PathBuf,
}

impl TempFile {
    /// Creates a draft for `path`.
    pub fn for_path(path: &Path) -> io::Result<Self> {
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        // `tempfile` creates files that only their owner can read.
        let file = tempfile::Builder::new().prefix(".draft-").tempfile_in(folder)?;
        chown_to_parent_owner(folder, file.as_file())?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Syncs the written data to disk, so that [`persist`](Self::persist) has little left to do.
    pub fn sync(&self) -> io::Result<()> {
        self.file.as_file().sync_all()
    }

    /// Moves the draft to its final path, replacing an existing file. The file is durable when this returns.
    pub fn persist(self) -> io::Result<()> {
        self.sync()?;
        self.file.persist(&self.path).map_err(|error| error.error)?;
        sync_parent_dir(&self.path)
    }

    /// Moves the draft to its final path without syncing it. After a power failure the file may be damaged, which readers
    /// must notice.
    pub fn persist_unsynced(self) -> io::Result<()> {
        self.file.persist(&self.path).map(drop).map_err(|error| error.error)
    }

    /// Like [`persist`](Self::persist), but fails with [`io::ErrorKind::AlreadyExists`] if the file exists.
    fn persist_noclobber(self) -> io::Result<()> {
        self.sync()?;
        self.file.persist_noclobber(&self.path).map_err(|error| error.error)?;
        sync_parent_dir(&self.path)
    }
}

impl io::Write for TempFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Creates a private folder if it does not exist. It belongs to the owner of the folder that it is in.
pub fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    chown_to_parent_owner(path.parent().ok_or(io::ErrorKind::InvalidInput)?, &File::open(path)?)
}

/// Creates a private file atomically.
///
/// # Errors
///
/// [`io::ErrorKind::AlreadyExists`] if the file exists, or the error of the write.
pub fn create_exclusive(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut draft = TempFile::for_path(path)?;
    draft.write_all(content)?;
    draft.persist_noclobber()
}

/// Writes a private file atomically, replacing an existing one.
pub fn replace_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut draft = TempFile::for_path(path)?;
    draft.write_all(content)?;
    draft.persist()
}

/// Syncs the folder of `path`, which makes the new name durable.
fn sync_parent_dir(path: &Path) -> io::Result<()> {
    File::open(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?.sync_all()
}

/// Changes the owner of a file to the owner of its folder, so that the server can read files that root has created.
fn chown_to_parent_owner(folder: &Path, file: &File) -> io::Result<()> {
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
pub fn group_or_world_mode_bits(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o077)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_owner_changes_only_if_folder_owner_differs() {
        assert_eq!(new_owner((1234, 5678), 0), Some((1234, 5678)));
        assert_eq!(new_owner((1234, 5678), 1234), None);
    }

    /// Requires root; `make test` runs it with `--ignored` where it can.
    #[test]
    #[ignore = "needs root"]
    fn files_are_owned_by_folder_owner() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        std::os::unix::fs::chown(folder.path(), Some(1234), Some(1234)).expect("root privileges");
        for write in [create_exclusive, replace_atomically] {
            write(&file, b"content").unwrap();
            let owner = fs::metadata(&file).unwrap();
            assert_eq!((owner.uid(), owner.gid()), (1234, 1234));
        }
    }

    #[test]
    fn files_are_private_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::new(folder.path().join("data"));
        data_dir.create().unwrap();
        data_dir.create().unwrap();
        let file = data_dir.keys().join("a");
        create_exclusive(&file, b"first").unwrap();
        assert_eq!(create_exclusive(&file, b"second").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&file).unwrap(), b"first");
        assert_eq!(fs::read_dir(data_dir.keys()).unwrap().count(), 1);
        for path in [data_dir.path(), &data_dir.keys(), &file] {
            assert_eq!(group_or_world_mode_bits(path).unwrap(), 0, "{}", path.display());
        }
    }
}
