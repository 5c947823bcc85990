//! The file of the journal. Publishers append to it under a lock, and sync it before they release the lock.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use super::{
    JournalContent,
    entry::{Entry, FileExtent, JournalMark, LineError},
};
use crate::platform::data_dir::{self, TempFile};

/// How often a locked file is tried again.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(2);

/// The length of a mark is at most this. Bytes.
const MAX_MARK_BYTES: u64 = 256;

/// The file with its lock. The lock is held while the store is read and the new entries are written.
#[derive(Debug)]
pub(super) struct LockedFile {
    file: File,
    path: PathBuf,
    /// The last mark in the file. Lines after it are the rest of a batch that a crash has cut off.
    pub(super) last: Option<JournalMark>,
    length: u64,
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// An operation on the file failed.
    #[error("cannot use the journal `{}`", .path.display())]
    File { path: PathBuf, source: io::Error },
    /// Another process holds the lock.
    #[error("another process holds the lock of the journal `{}`", .path.display())]
    Locked { path: PathBuf },
    /// A line is not a valid entry.
    #[error(
        "line {line} of the journal `{}` is damaged. Do not restore the file from a backup",
        .path.display()
    )]
    Malformed { path: PathBuf, line: usize },
    /// A later version of Keystile has written an entry of an unknown kind.
    #[error(
        "line {line} of the journal `{}` is of the unknown kind `{kind}`; run the version of Keystile that \
         wrote it, or a later one",
        .path.display()
    )]
    UnknownKind { path: PathBuf, line: usize, kind: String },
}

impl JournalError {
    /// Returns the error code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "journal_unusable",
            Self::Locked { .. } => "journal_busy",
            Self::Malformed { .. } => "journal_malformed",
            Self::UnknownKind { .. } => "journal_newer",
        }
    }
}

/// Reads the whole file; `None` if there is no journal.
pub(super) fn read(path: &Path) -> Result<Option<JournalContent>, JournalError> {
    let failed = |source| JournalError::File { path: path.to_owned(), source };
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => scan(&opened.map_err(failed)?, path).map(Some),
    }
}

/// Reads the last mark; `None` if there is no journal, or no mark in it.
pub(super) fn last_mark(path: &Path) -> Result<Option<JournalMark>, JournalError> {
    let failed = |source| JournalError::File { path: path.to_owned(), source };
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    match mark_at_end(&mut file).map_err(failed)? {
        Some(mark) => Ok(Some(mark)),
        None => Ok(scan(&file, path)?.marks.pop()),
    }
}

/// Returns the mark in the last line, where every complete batch has one.
fn mark_at_end(file: &mut File) -> io::Result<Option<JournalMark>> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_MARK_BYTES)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let Some(lines) = tail.strip_suffix(b"\n") else { return Ok(None) };
    Ok(lines.rsplit(|byte| *byte == b'\n').next().and_then(Entry::parse_mark))
}

/// Reads all lines from the start. A batch that a crash has cut off may end within a line, or in a page that was never
/// written: a damaged line ends the file, unless a mark comes after it.
fn scan(mut file: &File, path: &Path) -> Result<JournalContent, JournalError> {
    let failed = |source| JournalError::File { path: path.to_owned(), source };
    file.rewind().map_err(failed)?;
    let mut recorded = JournalContent::default();
    recorded.extent.file = identity(&file.metadata().map_err(failed)?);
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut line = Vec::new();
    let mut broken = None;
    for number in 1.. {
        line.clear();
        reader.read_until(b'\n', &mut line).map_err(failed)?;
        let Some(text) = line.strip_suffix(b"\n") else { break };
        if let Some(line) = broken {
            if Entry::parse_mark(text).is_some() {
                return Err(JournalError::Malformed { path: path.to_owned(), line });
            }
            continue;
        }
        match Entry::parse(text).and_then(|entry| recorded.apply(entry)) {
            Ok(()) => recorded.extent.length += u64::try_from(line.len()).unwrap_or_default(),
            Err(LineError::Malformed) => broken = Some(number),
            Err(LineError::UnknownKind(kind)) => {
                return Err(JournalError::UnknownKind { path: path.to_owned(), line: number, kind });
            }
        }
    }
    Ok(recorded)
}

impl LockedFile {
    /// Waits for the lock, creates the file if there is none, and removes the rest of a line that a crash has cut off.
    pub(super) fn acquire(path: &Path, timeout: Duration) -> Result<Self, JournalError> {
        let failed = |source| JournalError::File { path: path.to_owned(), source };
        let deadline = Instant::now() + timeout;
        loop {
            let file = open(path).map_err(failed)?;
            match file.try_lock() {
                Ok(()) if is_same_file(path, &file).map_err(failed)? => return Self::from_file(file, path),
                // Another process has replaced the file in between.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(LOCK_RETRY_INTERVAL),
                Err(TryLockError::WouldBlock) => return Err(JournalError::Locked { path: path.to_owned() }),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
    }

    fn from_file(mut file: File, path: &Path) -> Result<Self, JournalError> {
        let failed = |source| JournalError::File { path: path.to_owned(), source };
        let mut length = file.metadata().map_err(failed)?.len();
        let mut last = mark_at_end(&mut file).map_err(failed)?;
        if last.is_none() && length > 0 {
            let mut found = scan(&file, path)?;
            if found.extent.length < length {
                length = found.extent.length;
                file.set_len(length).map_err(failed)?;
            }
            last = found.marks.pop();
        }
        Ok(Self { file, path: path.to_owned(), last, length })
    }

    /// Appends entries, and returns when they are durable.
    pub(super) fn append(mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let mut lines = Vec::new();
        entries.iter().for_each(|entry| entry.write(&mut lines));
        let written = self.file.write_all(&lines).and_then(|()| self.file.sync_data());
        if written.is_err() {
            // A partial batch must not precede the next one.
            let _ = self.file.set_len(self.length);
        }
        written.map_err(|source| JournalError::File { path: self.path, source })
    }

    /// Replaces the lines of `extent` by those of the draft, and keeps the lines that were appended since. Returns `false`
    /// and changes nothing if another process has replaced the file since `extent` was read.
    pub(super) fn compact(mut self, mut draft: TempFile, extent: &FileExtent) -> Result<bool, JournalError> {
        let path = self.path.clone();
        let mut replace = || {
            if identity(&self.file.metadata()?) != extent.file || self.length < extent.length {
                return Ok(None);
            }
            self.file.seek(SeekFrom::Start(extent.length))?;
            io::copy(&mut self.file, &mut draft)?;
            Ok(Some(()))
        };
        let done = replace().and_then(|done| done.map(|()| draft.persist()).transpose());
        done.map(|done| done.is_some()).map_err(|source| JournalError::File { path, source })
    }
}

/// Opens the file for appending, and creates it if there is none.
fn open(path: &Path) -> io::Result<File> {
    let append = || OpenOptions::new().read(true).append(true).open(path);
    match append() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match data_dir::create_exclusive(path, b"") {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            append()
        }
        opened => opened,
    }
}

/// Returns whether `file` is still the file at `path`.
fn is_same_file(path: &Path, file: &File) -> io::Result<bool> {
    let held = identity(&file.metadata()?);
    match fs::metadata(path) {
        Ok(named) => Ok(identity(&named) == held),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns device and inode.
fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::Version, journal::EntryKind, platform::data_dir};

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn mark(number: u64) -> Entry {
        JournalMark { version: Version::new(number), seq: number, at: number }.entry()
    }

    fn unrevoked(number: u64) -> Entry {
        let fingerprint = format!("{number:064x}");
        Entry { version: Version::new(number), kind: EntryKind::Unrevoked { fingerprint } }
    }

    #[test]
    fn a_truncated_batch_is_cut_to_complete_lines_and_ends_before_its_mark() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        assert_eq!(read(&path).unwrap(), None);
        LockedFile::acquire(&path, TIMEOUT).unwrap().append(&[unrevoked(1), mark(2)]).unwrap();
        let before = fs::read(&path).unwrap();
        let mut after = before.clone();
        [unrevoked(3), unrevoked(3), mark(3)].iter().for_each(|entry| entry.write(&mut after));
        for length in before.len()..after.len() {
            // Cut off, or followed by a page that was never written.
            for rest in [0, 300] {
                let mut truncated = after[..length].to_vec();
                truncated.extend(vec![0; rest]);
                fs::write(&path, &truncated).unwrap();
                assert_eq!(last_mark(&path).unwrap().unwrap().version, Version::new(2), "{length} {rest}");
                let locked = LockedFile::acquire(&path, TIMEOUT).unwrap();
                // The next write continues from version 2, and writes all of version 3 again.
                assert_eq!(locked.last.unwrap().version, Version::new(2), "{length} {rest}");
                locked.append(&[unrevoked(4), mark(4)]).unwrap();
                let recorded = read(&path).unwrap().unwrap();
                assert_eq!((recorded.newest.get(), recorded.marks.len()), (4, 2), "{length} {rest}");
            }
        }
        assert_eq!(data_dir::group_or_world_mode_bits(&path).unwrap(), 0);
    }

    #[test]
    fn a_damaged_line_before_a_mark_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        LockedFile::acquire(&path, TIMEOUT).unwrap().append(&[unrevoked(1), unrevoked(2), mark(2)]).unwrap();
        let mut text = fs::read(&path).unwrap();
        text[3] = b'#';
        fs::write(&path, &text).unwrap();
        let error = read(&path).unwrap_err();
        assert_eq!(error.code(), "journal_malformed");
        assert!(error.to_string().contains("line 1"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), text);
    }

    #[test]
    fn an_unknown_kind_is_named_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        LockedFile::acquire(&path, TIMEOUT).unwrap().append(&[mark(1)]).unwrap();
        let mut text = fs::read(&path).unwrap();
        text.extend(b"{\"version\":7,\"kind\":\"banished\",\"who\":\"x\"}\n");
        fs::write(&path, &text).unwrap();
        let error = read(&path).unwrap_err();
        assert_eq!(error.code(), "journal_newer");
        assert!(error.to_string().contains("line 2") && error.to_string().contains("`banished`"), "{error}");
    }

    #[test]
    fn compaction_keeps_lines_that_were_appended_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        LockedFile::acquire(&path, TIMEOUT).unwrap().append(&[mark(1), mark(2), mark(3)]).unwrap();
        let extent = read(&path).unwrap().unwrap().extent;
        LockedFile::acquire(&path, TIMEOUT).unwrap().append(&[mark(5)]).unwrap();
        let draft = || {
            let (mut draft, mut lines) = (TempFile::for_path(&path).unwrap(), Vec::new());
            mark(4).write(&mut lines);
            draft.write_all(&lines).unwrap();
            draft
        };
        let held = LockedFile::acquire(&path, TIMEOUT).unwrap();
        let waiting = {
            let path = path.clone();
            std::thread::spawn(move || LockedFile::acquire(&path, TIMEOUT).unwrap().append(&[mark(6)]))
        };
        assert!(held.compact(draft(), &extent).unwrap());
        waiting.join().unwrap().unwrap();
        let marks =
            || read(&path).unwrap().unwrap().marks.iter().map(|mark| mark.version.get()).collect::<Vec<_>>();
        assert_eq!(marks(), [4, 5, 6]);

        // Another process has compacted it since.
        assert!(!LockedFile::acquire(&path, TIMEOUT).unwrap().compact(draft(), &extent).unwrap());
        assert_eq!(marks(), [4, 5, 6]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left behind");
        assert_eq!(data_dir::group_or_world_mode_bits(&path).unwrap(), 0);
    }
}
