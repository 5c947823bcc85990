//! The journal, `keys/journal`: a record of revocations and deletions outside the database, which a backup of the
//! database does not replace.
//!
//! ```text
//! store --commit--> publisher: journal --catches up from the store, fsync--> manifest signed --> edges
//! ```
//! A database that is restored from a backup lacks what was revoked and deleted after the backup. The journal still has
//! it: a server that opens such a database finds entries that the store lacks, and applies them again before it publishes.
//!
//! * Every revocation and deletion has a version in the store, so the next process can write the entries that a crash has
//!   prevented: the journal has an entry before a manifest that contains it is signed.
//! * Processes that share the folder are serialized by a lock on the file. A process with its own folder has its own
//!   journal.
//! * When the file has grown to twice the necessary size, the server compacts it. Edges and publishers do not wait for
//!   that: the lock is held only while the new file replaces the old one.

mod entry;
mod file;
mod queries;
pub mod tombstones;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::spawn_blocking;

pub use entry::{Entry, EntryKind, JournalContent, JournalMark, JournalRevocation};
pub use file::JournalError;
use file::LockedFile;

use crate::{
    accounts::grants,
    audit,
    db::{Executor, NEVER_EXPIRES, Store, StoreError, versions},
    domain::{Revocation, RevocationChange, UnixMillis, Version},
    platform::data_dir::{DataDir, TempFile},
    revocation::{revocations, watermarks},
};

/// Milliseconds.
const HOUR_MS: u64 = 3_600_000;

/// How long marks are kept, in milliseconds: longer than any backup. A database that is restored from an older backup is
/// not recognized.
pub const MARK_RETENTION_MS: u64 = 400 * 24 * HOUR_MS;

/// How often a mark is written if nothing was revoked. Credentials that were issued leave no other trace in the journal,
/// so a rollback by less than this goes unnoticed.
const MARK_INTERVAL: Duration = Duration::from_secs(2);

/// How long a publisher waits for a slow disk before it publishes without the journal.
pub const PUBLISHER_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a command waits for a slow disk.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a process waits for the lock. The holder writes a few lines, and the next attempt follows soon.
const LOCK_TIMEOUT: Duration = Duration::from_millis(200);

/// A journal of less than twice this size is not compacted.
const MIN_COMPACTION_BYTES: u64 = 1 << 20;

/// The estimated size of an entry. A revocation without a reason takes about 150 bytes, a mark 60.
const ENTRY_BYTES: u64 = 160;

/// The journal of a data folder. Clones share its state.
#[derive(Debug, Clone)]
pub struct Journal {
    path: PathBuf,
    state: Arc<JournalState>,
}

#[derive(Debug, Default)]
struct JournalState {
    /// The version up to which this process has written the journal.
    written: AtomicU64,
    /// When the store was last compared with the journal.
    last_checked: Mutex<Option<Instant>>,
    /// The version up to which the store has all journal entries. Set by a merge, cleared by the next write.
    merged: Mutex<Option<Version>>,
    /// The length in bytes after the last compaction by this process; 0 if there was none.
    compacted_length: AtomicU64,
    /// Why the last write failed, or `None` if it succeeded.
    last_error: Mutex<Option<String>>,
}

/// Whether the store has everything that the journal was last written from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// The store has everything, or this could not be determined.
    Complete,
    /// The store was rolled back and the journal is not merged yet. Nothing was written.
    RolledBack,
}

/// Why the journal could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum CatchUpError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The thread that writes the file panicked.
    #[error("the thread that writes the journal panicked")]
    Panicked,
}

impl CatchUpError {
    /// Returns the error code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Journal(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::Panicked => "journal_unusable",
        }
    }
}

impl Journal {
    /// Returns the journal of a data folder. The file need not exist yet.
    pub fn new(data_dir: &DataDir) -> Self {
        Self { path: data_dir.keys().join("journal"), state: Arc::default() }
    }

    /// Reads all entries; `None` if there is no journal.
    pub async fn read(&self) -> Result<Option<JournalContent>, CatchUpError> {
        let path = self.path.clone();
        Ok(run_blocking(move || file::read(&path)).await??)
    }

    /// Checks that the file can be locked and opened for writing.
    pub fn check_writable(&self) -> Result<(), JournalError> {
        LockedFile::acquire(&self.path, LOCK_TIMEOUT).map(drop)
    }

    /// Returns why the last write failed, or `None` if it succeeded.
    pub fn last_error(&self) -> Option<String> {
        self.state.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns whether the store has everything that the journal was last written from. Otherwise the database was
    /// restored from a backup, or failed over to a copy that lacks commits.
    pub async fn continues_in(&self, store: &Store) -> Result<bool, CatchUpError> {
        let path = self.path.clone();
        let Some(last) = run_blocking(move || file::last_mark(&path)).await?? else { return Ok(true) };
        Ok(last.exists_in(&mut store.read().await?).await?)
    }

    /// Continues the journal after the caller has merged it into a store that was rolled back. The store has everything
    /// up to version `known`.
    pub fn resume_after(&self, known: Version) {
        *self.state.merged.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }

    /// Brings the journal up to the version of the store. A failure must not delay a revocation: it is logged once, and
    /// shown by `/readyz` and `keystile doctor`. If the result is [`Continuity::RolledBack`], the caller must not publish before
    /// it has merged the journal.
    pub async fn keep_up(&self, store: &Store, timeout: Duration) -> Continuity {
        let (journal, store) = (self.clone(), store.clone());
        // The task continues after the timeout.
        let catching_up = tokio::spawn(async move { journal.catch_up(&store).await });
        let done = match tokio::time::timeout(timeout, catching_up).await {
            Ok(done) => Some(done.unwrap_or(Err(CatchUpError::Panicked))),
            Err(_elapsed) => None,
        };
        let trouble = match &done {
            Some(Ok(_)) => None,
            Some(Err(error)) => {
                let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
                Some(format!("{error}{}", cause.unwrap_or_default()))
            }
            None => Some("writing the journal timed out".to_owned()),
        };
        let mut reported = self.state.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        match (&trouble, &*reported) {
            (Some(cause), None) => tracing::error!(
                journal.file = %self.path.display(),
                error.cause = cause,
                "cannot write revocations to the journal: restoring a backup of the database would make the revoked \
                 credentials valid again"
            ),
            (None, Some(_)) => tracing::info!("the journal is up to date again"),
            _ => {}
        }
        *reported = trouble;
        match done {
            Some(Ok(continuity)) => continuity,
            _ => Continuity::Complete,
        }
    }

    /// Like [`keep_up`](Self::keep_up), but returns failures.
    pub async fn catch_up(&self, store: &Store) -> Result<Continuity, CatchUpError> {
        let now = versions::current(&mut store.reader().await?).await?.number;
        let is_due = {
            let last_checked = self.state.last_checked.lock().unwrap_or_else(PoisonError::into_inner);
            last_checked.is_none_or(|at| at.elapsed() >= MARK_INTERVAL)
        };
        if !is_due && self.state.written.load(Ordering::Acquire) >= now.get() {
            return Ok(Continuity::Complete);
        }
        let path = self.path.clone();
        let locked = run_blocking(move || LockedFile::acquire(&path, LOCK_TIMEOUT)).await??;
        let merged = *self.state.merged.lock().unwrap_or_else(PoisonError::into_inner);
        let mut read = store.read().await?;
        let from = match (merged, locked.last) {
            (Some(known), _) => known,
            (None, None) => Version::ZERO,
            (None, Some(last)) if last.exists_in(&mut read).await? => last.version,
            (None, Some(_)) => return Ok(Continuity::RolledBack),
        };
        let version = versions::current(&mut read).await?.number;
        let mut entries = read_entries_since(&mut read, from).await?;
        let mark = newest_mark(&mut read, version).await?;
        drop(read);
        let has_changed =
            !entries.is_empty() || mark.map(|mark| mark.seq) != locked.last.map(|last| last.seq);
        if has_changed {
            // The mark comes last: a batch without one was cut off by a crash, and is written again.
            entries.extend(mark.map(JournalMark::entry));
            run_blocking(move || locked.append(&entries)).await??;
        }
        *self.state.last_checked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        if merged.is_some() {
            *self.state.merged.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        self.state.written.fetch_max(version.get(), Ordering::AcqRel);
        Ok(Continuity::Complete)
    }

    /// Returns whether the size that the entries need is unknown: [`expect_entries`](Self::expect_entries) estimates it.
    pub fn needs_estimate(&self) -> bool {
        self.state.compacted_length.load(Ordering::Acquire) == 0
    }

    /// Sets the size that the file needs, before it was compacted for the first time, by the number of its entries.
    pub fn expect_entries(&self, entries: u64) {
        let length = entries.saturating_mul(ENTRY_BYTES).max(1);
        let _ = self.state.compacted_length.compare_exchange(0, length, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Returns whether the file has grown to more than twice the size that it needs, as far as that is known.
    pub fn needs_compaction(&self) -> bool {
        let needed = self.state.compacted_length.load(Ordering::Acquire);
        let limit = needed.max(MIN_COMPACTION_BYTES).saturating_mul(2);
        std::fs::metadata(&self.path).is_ok_and(|file| file.len() > limit)
    }

    /// Replaces the lines that `recorded` was read from by the present entries of the store. The caller must have checked
    /// that the store has all of `recorded`, and `lookup` must be a transaction that is later than `recorded`. Returns
    /// `false` if another process has compacted the file in between.
    ///
    /// Older marks are thinned out: see [`thin_out`].
    pub async fn compact(
        &self,
        executor: &mut impl Executor,
        recorded: &JournalContent,
        now: UnixMillis,
    ) -> Result<bool, CatchUpError> {
        let path = self.path.clone();
        let mut draft = run_blocking(move || TempFile::for_path(&path))
            .await?
            .map_err(|source| self.file_error(source))?;
        let version = versions::current(executor).await?.number;
        let mut from = Some(0);
        while let Some(prefix) = from {
            let (page, next) = revocations::page_by_prefix(executor, prefix).await?;
            draft = self.append(draft, page.into_iter().map(revocation_entry).collect()).await?;
            from = next;
        }
        let mut entries: Vec<Entry> = thin_out(&recorded.marks, now.millis())
            .map(JournalMark::entry)
            .chain(read_other_entries_since(executor, Version::ZERO).await?)
            .collect();
        entries.sort_by_key(|entry| entry.version);
        // The newest mark comes last, because the next write continues from the last mark.
        let last = newest_mark(executor, version).await?.or(recorded.marks.last().copied());
        entries.extend(last.map(JournalMark::entry));
        draft = self.append(draft, entries).await?;
        let (path, extent) = (self.path.clone(), recorded.extent);
        let done =
            run_blocking(move || LockedFile::acquire(&path, LOCK_TIMEOUT)?.compact(draft, &extent)).await??;
        let length = std::fs::metadata(&self.path).map_or(1, |file| file.len());
        self.state.compacted_length.store(length.max(1), Ordering::Release);
        Ok(done)
    }

    /// Appends entries to a temporary file, durably.
    async fn append(&self, mut draft: TempFile, entries: Vec<Entry>) -> Result<TempFile, CatchUpError> {
        let written = run_blocking(move || {
            let mut lines = Vec::new();
            entries.iter().for_each(|entry| entry.write(&mut lines));
            draft.write_all(&lines).and_then(|()| draft.sync()).map(|()| draft)
        });
        written.await?.map_err(|source| self.file_error(source))
    }

    fn file_error(&self, source: io::Error) -> CatchUpError {
        JournalError::File { path: self.path.clone(), source }.into()
    }
}

/// Runs file operations on a thread that may block.
async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CatchUpError> {
    spawn_blocking(work).await.map_err(|_| CatchUpError::Panicked)
}

/// Reads the entries that the store has after a version, in the order of their versions.
async fn read_entries_since(
    executor: &mut impl Executor,
    version: Version,
) -> Result<Vec<Entry>, StoreError> {
    let mut entries: Vec<Entry> =
        revocations::all_since(executor, version).await?.into_iter().map(revocation_entry).collect();
    entries.extend(read_other_entries_since(executor, version).await?);
    entries.sort_by_key(|entry| entry.version);
    Ok(entries)
}

fn revocation_entry((version, change): (Version, RevocationChange)) -> Entry {
    let kind = match change {
        RevocationChange::Revoked(Revocation { fingerprint, expires_at, reason, revoked_at }) => {
            EntryKind::Revoked {
                fingerprint: fingerprint.to_string(),
                expires_at: (expires_at != NEVER_EXPIRES).then_some(expires_at),
                reason,
                revoked_at,
            }
        }
        RevocationChange::Restored { fingerprint, .. } => {
            EntryKind::Unrevoked { fingerprint: fingerprint.to_string() }
        }
    };
    Entry { version, kind }
}

/// Reads the entries that the store has after a version, except revocations of fingerprints.
async fn read_other_entries_since(
    executor: &mut impl Executor,
    version: Version,
) -> Result<Vec<Entry>, StoreError> {
    let mut entries = Vec::new();
    for (version, raised) in watermarks::since(executor, version).await? {
        entries.push(Entry { version, kind: EntryKind::from_watermark(&raised) });
    }
    for (version, tombstone) in tombstones::since(executor, version).await? {
        entries.push(Entry { version, kind: EntryKind::from_tombstone(tombstone) });
    }
    for (version, subject) in grants::changed_since(executor, version).await? {
        entries.push(Entry { version, kind: EntryKind::Granted { subject: subject.to_string() } });
    }
    Ok(entries)
}

impl JournalMark {
    /// Returns whether the store has everything that the journal was written from up to this mark.
    pub(crate) async fn exists_in(&self, executor: &mut impl Executor) -> Result<bool, StoreError> {
        Ok(versions::current(executor).await?.number >= self.version
            && audit::has_entry(executor, self.seq, self.at).await?)
    }
}

/// Returns a mark of this version with the newest audit entry, or `None` if there is no audit entry.
async fn newest_mark(
    executor: &mut impl Executor,
    version: Version,
) -> Result<Option<JournalMark>, StoreError> {
    let line = audit::list_newest(executor, 1).await?.pop();
    Ok(line.map(|line| JournalMark { version, seq: line.seq, at: line.at }))
}

/// Returns all marks of the last hour, and one for each hour of the last 400 days. `now` is in milliseconds.
fn thin_out(marks: &[JournalMark], now: u64) -> impl Iterator<Item = JournalMark> {
    let mut hour = None;
    marks.iter().copied().filter(move |mark| {
        let age = now.saturating_sub(mark.at);
        if age > MARK_RETENTION_MS {
            return false;
        }
        age < HOUR_MS || hour.replace(mark.at / HOUR_MS) != Some(mark.at / HOUR_MS)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_marks_are_thinned_out() {
        let now = 1000 * 24 * HOUR_MS;
        let marks: Vec<JournalMark> = (0..2000 * 24)
            .map(|half| JournalMark { version: Version::new(half), seq: half, at: half * HOUR_MS / 2 })
            .collect();
        let kept: Vec<u64> = thin_out(&marks, now).map(|mark| mark.at).collect();
        assert!(kept.len() <= 400 * 24 + 3, "{}", kept.len());
        assert_eq!(kept.last(), Some(&(now - HOUR_MS / 2)));
        assert!(kept.iter().all(|at| now - at <= MARK_RETENTION_MS));
        assert!(kept.windows(2).all(|pair| pair[1] - pair[0] <= HOUR_MS));
    }
}
