//! The file of the journal: appended to by whoever publishes, under a lock, and durable when that is done.

use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use super::{
    Recorded,
    entry::{BadLine, Entry, Extent},
};
use crate::home::{self, Draft};

/// Held by one process at a time, for as long as it takes to look at the store and to write what is new.
#[derive(Debug)]
pub(super) struct Locked {
    file: File,
    path: PathBuf,
    /// Version of the last line; none where there is none.
    pub(super) newest: Option<u64>,
    pub(super) length: u64,
}

#[derive(Debug)]
pub enum JournalError {
    File {
        path: PathBuf,
        source: io::Error,
    },
    /// Somebody else has kept it for too long.
    Busy {
        path: PathBuf,
    },
    Malformed {
        path: PathBuf,
        line: usize,
    },
    /// Of a later version.
    Kind {
        path: PathBuf,
        line: usize,
        kind: String,
    },
}

impl JournalError {
    pub const fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "journal_unusable",
            Self::Busy { .. } => "journal_busy",
            Self::Malformed { .. } => "journal_malformed",
            Self::Kind { .. } => "journal_newer",
        }
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => write!(f, "the journal `{}` can't be used", path.display()),
            Self::Busy { path } => {
                write!(f, "another process has kept the journal `{}` locked for too long", path.display())
            }
            Self::Malformed { path, line } => write!(
                f,
                "line {line} of the journal `{}` can't be read; restore the file from its backup",
                path.display()
            ),
            Self::Kind { path, line, kind } => write!(
                f,
                "line {line} of the journal `{}` is of the kind `{kind}`, which this version does not know; run the \
                 version that wrote it, or a later one",
                path.display()
            ),
        }
    }
}

impl std::error::Error for JournalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } => Some(source),
            Self::Busy { .. } | Self::Malformed { .. } | Self::Kind { .. } => None,
        }
    }
}

/// All that is there; None where there is no journal. A last line that was torn by a crash is none.
pub(super) fn read(path: &Path) -> Result<Option<Recorded>, JournalError> {
    let failed = |source| JournalError::File { path: path.to_owned(), source };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let mut recorded = Recorded::default();
    recorded.extent.file = identity(&file.metadata().map_err(failed)?);
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        reader.read_until(b'\n', &mut line).map_err(failed)?;
        let Some(text) = line.strip_suffix(b"\n") else { break };
        let bad = |bad| match bad {
            BadLine::Malformed => JournalError::Malformed { path: path.to_owned(), line: number },
            BadLine::Kind(kind) => JournalError::Kind { path: path.to_owned(), line: number, kind },
        };
        recorded.take(Entry::read(text).map_err(bad)?).map_err(bad)?;
        recorded.extent.length += u64::try_from(line.len()).unwrap_or_default();
    }
    Ok(Some(recorded))
}

impl Locked {
    /// Waits for the lock, makes the file where there is none, and cuts off what a crash has left of a line.
    pub(super) fn take(path: &Path) -> Result<Self, JournalError> {
        let failed = |source| JournalError::File { path: path.to_owned(), source };
        let patience = Instant::now() + PATIENCE;
        loop {
            let file = open(path).map_err(failed)?;
            match file.try_lock() {
                Ok(()) if is_still(path, &file).map_err(failed)? => {
                    return Self::of(file, path).map_err(failed);
                }
                // Somebody has put another file in its place meanwhile.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if Instant::now() < patience => sleep(RETRY),
                Err(TryLockError::WouldBlock) => return Err(JournalError::Busy { path: path.to_owned() }),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
    }

    fn of(mut file: File, path: &Path) -> io::Result<Self> {
        let mut length = file.metadata()?.len();
        let mut from = length;
        let mut tail = Vec::new();
        // Backwards, until a whole line is there: one that ends, and the end of the one before it.
        loop {
            let ends: Vec<usize> =
                tail.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).collect();
            let (last, before) = (ends.last().copied(), ends.iter().rev().nth(1).copied());
            let whole = if before.is_some() || from == 0 { last } else { None };
            if from > 0 && whole.is_none() {
                let next = from.saturating_sub(STEP);
                let mut read = vec![0; usize::try_from(from - next).unwrap_or_default()];
                file.seek(SeekFrom::Start(next))?;
                file.read_exact(&mut read)?;
                read.extend(tail);
                (tail, from) = (read, next);
                continue;
            }
            let end = last.map_or(0, |at| at + 1);
            let torn = tail.len() - end;
            if torn > 0 {
                length -= u64::try_from(torn).unwrap_or_default();
                file.set_len(length)?;
            }
            let line = last.and_then(|last| tail.get(before.map_or(0, |at| at + 1)..last));
            let newest = line.and_then(|line| Entry::read(line).ok()).map(|entry| entry.version);
            if line.is_some() && newest.is_none() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "its last line can't be read"));
            }
            return Ok(Self { file, path: path.to_owned(), newest, length });
        }
    }

    /// Returns when the lines are durable.
    pub(super) fn append(mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let mut lines = Vec::new();
        entries.iter().for_each(|entry| entry.write(&mut lines));
        let written = self.file.write_all(&lines).and_then(|()| self.file.sync_data());
        if written.is_err() {
            // Half of it would be in the way of whoever comes next.
            let _ = self.file.set_len(self.length);
        }
        written.map_err(|source| JournalError::File { path: self.path, source })
    }

    /// Replaces the lines of `extent` by those of the draft; lines that were appended after them are kept. Returns
    /// `false`, and changes nothing, if another process has replaced the file since `extent` was read.
    pub(super) fn compact(mut self, mut draft: Draft, extent: &Extent) -> Result<bool, JournalError> {
        let path = self.path.clone();
        let mut replace = || {
            if identity(&self.file.metadata()?) != extent.file || self.length < extent.length {
                return Ok(None);
            }
            self.file.seek(SeekFrom::Start(extent.length))?;
            io::copy(&mut self.file, &mut draft)?;
            Ok(Some(()))
        };
        let done = replace().and_then(|done| done.map(|()| draft.replace()).transpose());
        done.map(|done| done.is_some()).map_err(|source| JournalError::File { path, source })
    }
}

fn open(path: &Path) -> io::Result<File> {
    let open = || OpenOptions::new().read(true).append(true).mode(0o600).open(path);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match home::write_new(path, b"") {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            open()
        }
        opened => opened,
    }
}

fn is_still(path: &Path, file: &File) -> io::Result<bool> {
    let held = identity(&file.metadata()?);
    match fs::metadata(path) {
        Ok(named) => Ok(identity(&named) == held),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Whoever has it reads what changed in the store and writes a few lines.
const PATIENCE: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(2);

/// More than a line has.
const STEP: u64 = 8192;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{home, journal::What};

    fn mark(version: u64) -> Entry {
        Entry { version, what: What::Mark { seq: version, at: version } }
    }

    #[test]
    fn a_torn_last_line_is_no_line_and_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        assert_eq!(read(&path).unwrap(), None);
        Locked::take(&path).unwrap().append(&[mark(1), mark(2)]).unwrap();
        let whole = fs::read(&path).unwrap();
        let mut longer = whole.clone();
        mark(3).write(&mut longer);
        for length in whole.len()..longer.len() {
            fs::write(&path, &longer[..length]).unwrap();
            assert_eq!(read(&path).unwrap().unwrap().newest, 2, "{length}");
            let locked = Locked::take(&path).unwrap();
            assert_eq!(locked.newest, Some(2), "{length}");
            locked.append(&[mark(4)]).unwrap();
            let recorded = read(&path).unwrap().unwrap();
            assert_eq!((recorded.newest, recorded.marks.len()), (4, 3), "{length}");
        }
        assert_eq!(home::open_to_others(&path).unwrap(), 0);
    }

    #[test]
    fn what_a_later_version_wrote_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        Locked::take(&path).unwrap().append(&[mark(1)]).unwrap();
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
        Locked::take(&path).unwrap().append(&[mark(1), mark(2), mark(3)]).unwrap();
        let extent = read(&path).unwrap().unwrap().extent;
        Locked::take(&path).unwrap().append(&[mark(5)]).unwrap();
        let draft = || {
            let (mut draft, mut lines) = (Draft::of(&path).unwrap(), Vec::new());
            mark(4).write(&mut lines);
            draft.write_all(&lines).unwrap();
            draft
        };
        let held = Locked::take(&path).unwrap();
        let waiting = {
            let path = path.clone();
            std::thread::spawn(move || Locked::take(&path).unwrap().append(&[mark(6)]))
        };
        assert!(held.compact(draft(), &extent).unwrap());
        waiting.join().unwrap().unwrap();
        let marks =
            || read(&path).unwrap().unwrap().marks.iter().map(|mark| mark.version).collect::<Vec<_>>();
        assert_eq!(marks(), [4, 5, 6]);

        // Another process has compacted it since.
        assert!(!Locked::take(&path).unwrap().compact(draft(), &extent).unwrap());
        assert_eq!(marks(), [4, 5, 6]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left behind");
        assert_eq!(home::open_to_others(&path).unwrap(), 0);
    }

    #[test]
    fn long_lines_and_many_are_read_from_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let long = |version| Entry {
            version,
            what: What::Revoked {
                fingerprint: "00".repeat(32),
                expires_at: None,
                reason: Some("\u{1}".repeat(9000)),
                revoked_at: 1,
            },
        };
        for version in 1..4 {
            Locked::take(&path).unwrap().append(&[mark(version), long(version)]).unwrap();
            assert_eq!(Locked::take(&path).unwrap().newest, Some(version));
        }
    }
}
