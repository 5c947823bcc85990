//! What was taken back, beside the database and not restored with it: `keys/journal`.
//!
//! ```text
//! store --commit--> publisher: journal --catches up from the store, fsync--> manifest signed --> edges
//! ```
//! A backup that is restored has forgotten what was revoked and deleted after it. The journal has not: whoever serves
//! such a database finds that it says more than the store knows, and refuses it again before anything is published.
//!
//! * Everything that is taken back has a version in the store, so that whoever comes next catches up with what a crash
//!   kept from being written: the journal has an entry at the latest when a manifest is signed that needs it.
//! * Processes that share the folder take turns by a lock on the file. Each that has a folder of its own keeps one too.
//! * Once it has grown to twice what it needs, the server writes it anew without what no longer matters. Edges and
//!   publishers do not wait for that: the lock is held only while the new file takes the place of the old one.

mod entry;
mod file;

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

pub use entry::{Entry, Mark, Recorded, Refused, What};
pub use file::JournalError;
use file::Locked;

use crate::{
    clock::Time,
    home::{Draft, Home},
    model::{Revocation, RevocationChange},
    store::{Lookup, NEVER, Store, StoreError, audit, grants, revocations, tombstones, versions, watermarks},
};

#[derive(Debug, Clone)]
pub struct Journal {
    path: PathBuf,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The version that it was brought up to here.
    written: AtomicU64,
    /// When the store was last looked at.
    looked: Mutex<Option<Instant>>,
    /// Set after a merge, until a line was written: the version up to which the store knows what the journal says.
    merged: Mutex<Option<u64>>,
    /// Its length in bytes after it was compacted here; 0 if it was not yet.
    compacted: AtomicU64,
    /// Why it can't be written, while that is so.
    trouble: Mutex<Option<String>>,
}

/// Whether the store holds what the journal was last written from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    Kept,
    /// Nothing was written: the store went back, and is not merged yet.
    Lost,
}

#[derive(Debug)]
pub enum CatchUpError {
    Journal(JournalError),
    Store(StoreError),
    /// The thread that writes has ended.
    Ended,
}

impl CatchUpError {
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Journal(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::Ended => "journal_unusable",
        }
    }
}

impl std::fmt::Display for CatchUpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Journal(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Ended => f.write_str("writing the journal was cut short"),
        }
    }
}

impl std::error::Error for CatchUpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Journal(error) => error.source(),
            Self::Store(error) => error.source(),
            Self::Ended => None,
        }
    }
}

impl From<JournalError> for CatchUpError {
    fn from(error: JournalError) -> Self {
        Self::Journal(error)
    }
}

impl From<StoreError> for CatchUpError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Journal {
    pub fn of(home: &Home) -> Self {
        Self { path: home.keys().join("journal"), state: Arc::default() }
    }

    /// All that it says; None where there is none.
    pub async fn read(&self) -> Result<Option<Recorded>, CatchUpError> {
        let path = self.path.clone();
        Ok(on_thread(move || file::read(&path)).await??)
    }

    /// Whether it could be written now.
    pub fn writable(&self) -> Result<(), JournalError> {
        Locked::take(&self.path, LOCK_PATIENCE).map(drop)
    }

    /// Why it can't be written at present.
    pub fn trouble(&self) -> Option<String> {
        self.state.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns whether the store holds what the journal was last written from. If not, it was restored from a backup, or
    /// failed over to a copy that lacks commits.
    pub async fn continues_in(&self, store: &Store) -> Result<bool, CatchUpError> {
        let path = self.path.clone();
        let Some(last) = on_thread(move || file::last_mark(&path)).await?? else { return Ok(true) };
        Ok(last.is_in(&mut store.read().await?).await?)
    }

    /// Lets the journal go on in a store that has lost what it was last written from: the caller has merged it. The store
    /// knows everything up to version `known`.
    pub fn resume_after(&self, known: u64) {
        *self.state.merged.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }

    /// Brings it up to the store's version. A journal that can't be written keeps no revocation from being published:
    /// that is logged once, and shown by `/readyz` and `keystile doctor`. But from a store that has lost what the journal
    /// was last written from, nothing must be published before it is merged.
    pub async fn keep_up(&self, store: &Store, patience: Duration) -> Continuity {
        let (journal, store) = (self.clone(), store.clone());
        // What takes longer goes on beside the caller.
        let catching_up = tokio::spawn(async move { journal.catch_up(&store).await });
        let done = match tokio::time::timeout(patience, catching_up).await {
            Ok(done) => Some(done.unwrap_or(Err(CatchUpError::Ended))),
            Err(_elapsed) => None,
        };
        let trouble = match &done {
            Some(Ok(_)) => None,
            Some(Err(error)) => {
                let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
                Some(format!("{error}{}", cause.unwrap_or_default()))
            }
            None => Some("writing it takes too long".to_owned()),
        };
        let mut told = self.state.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match (&trouble, &*told) {
            (Some(cause), None) => tracing::error!(
                journal.file = %self.path.display(),
                error.cause = cause,
                "what is revoked is not written to the journal: a backup that is restored would make it good again"
            ),
            (None, Some(_)) => tracing::info!("the journal is up to date again"),
            _ => {}
        }
        *told = trouble;
        match done {
            Some(Ok(continuity)) => continuity,
            _ => Continuity::Kept,
        }
    }

    /// As [`keep_up`](Self::keep_up), for who must know.
    pub async fn catch_up(&self, store: &Store) -> Result<Continuity, CatchUpError> {
        let now = versions::current(&mut store.reader().await?).await?.number;
        let is_due = {
            let looked = self.state.looked.lock().unwrap_or_else(PoisonError::into_inner);
            looked.is_none_or(|at| at.elapsed() >= MARK_EVERY)
        };
        if !is_due && self.state.written.load(Ordering::Acquire) >= now {
            return Ok(Continuity::Kept);
        }
        let path = self.path.clone();
        let locked = on_thread(move || Locked::take(&path, LOCK_PATIENCE)).await??;
        let merged = *self.state.merged.lock().unwrap_or_else(PoisonError::into_inner);
        let mut read = store.read().await?;
        let from = match (merged, locked.last) {
            (Some(known), _) => known,
            (None, None) => 0,
            (None, Some(last)) if last.is_in(&mut read).await? => last.version,
            (None, Some(_)) => return Ok(Continuity::Lost),
        };
        let version = versions::current(&mut read).await?.number;
        let mut entries = since(&mut read, from).await?;
        let mark = newest_mark(&mut read, version).await?;
        drop(read);
        let is_news = !entries.is_empty() || mark.map(|mark| mark.seq) != locked.last.map(|last| last.seq);
        if is_news {
            // Last: a batch without it was torn, and is written again.
            entries.extend(mark.map(Mark::entry));
            on_thread(move || locked.append(&entries)).await??;
        }
        *self.state.looked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        if merged.is_some() {
            *self.state.merged.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        self.state.written.fetch_max(version, Ordering::AcqRel);
        Ok(Continuity::Kept)
    }

    /// True if it has grown to more than twice what it needs to hold `things` entries.
    pub fn needs_compaction(&self, things: u64) -> bool {
        let needed = match self.state.compacted.load(Ordering::Acquire) {
            0 => things.saturating_mul(LINE_BYTES),
            length => length,
        };
        let limit = needed.max(SMALL_BYTES).saturating_mul(2);
        std::fs::metadata(&self.path).is_ok_and(|file| file.len() > limit)
    }

    /// Replaces the lines that `recorded` was read from by what the store says now. The caller has made sure that the
    /// store knows all of `recorded`, and `lookup` is a single state of the store, later than `recorded`. Returns `false`
    /// if another process was faster.
    ///
    /// Marks thin out with their age: see [`thinned`].
    pub async fn compact(
        &self,
        lookup: &mut impl Lookup,
        recorded: &Recorded,
        now: Time,
    ) -> Result<bool, CatchUpError> {
        let path = self.path.clone();
        let mut draft = on_thread(move || Draft::of(&path)).await?.map_err(|source| self.failed(source))?;
        let version = versions::current(lookup).await?.number;
        let mut from = Some(0);
        while let Some(prefix) = from {
            let (portion, next) = revocations::portion(lookup, prefix).await?;
            draft = self.add(draft, portion.into_iter().map(revocation).collect()).await?;
            from = next;
        }
        let mut entries: Vec<Entry> = thinned(&recorded.marks, now.millis())
            .map(Mark::entry)
            .chain(others_since(lookup, 0).await?)
            .collect();
        entries.sort_by_key(|entry| entry.version);
        // Last, because whoever catches up goes on from the last mark.
        let last = newest_mark(lookup, version).await?.or(recorded.marks.last().copied());
        entries.extend(last.map(Mark::entry));
        draft = self.add(draft, entries).await?;
        let (path, extent) = (self.path.clone(), recorded.extent);
        let done = on_thread(move || Locked::take(&path, LOCK_PATIENCE)?.compact(draft, &extent)).await??;
        let length = std::fs::metadata(&self.path).map_or(1, |file| file.len());
        self.state.compacted.store(length.max(1), Ordering::Release);
        Ok(done)
    }

    async fn add(&self, mut draft: Draft, entries: Vec<Entry>) -> Result<Draft, CatchUpError> {
        let written = on_thread(move || {
            let mut lines = Vec::new();
            entries.iter().for_each(|entry| entry.write(&mut lines));
            draft.write_all(&lines).and_then(|()| draft.sync()).map(|()| draft)
        });
        written.await?.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> CatchUpError {
        JournalError::File { path: self.path.clone(), source }.into()
    }
}

/// File operations may block for as long as the disk does.
async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, CatchUpError> {
    spawn_blocking(work).await.map_err(|_| CatchUpError::Ended)
}

/// Reads what the store took back after a version, in the order of versions.
async fn since(lookup: &mut impl Lookup, version: u64) -> Result<Vec<Entry>, StoreError> {
    let mut entries: Vec<Entry> =
        revocations::all_since(lookup, version).await?.into_iter().map(revocation).collect();
    entries.extend(others_since(lookup, version).await?);
    entries.sort_by_key(|entry| entry.version);
    Ok(entries)
}

fn revocation((version, change): (u64, RevocationChange)) -> Entry {
    let what = match change {
        RevocationChange::Revoked(Revocation { fingerprint, expires_at, reason, revoked_at }) => {
            What::Revoked {
                fingerprint: fingerprint.to_string(),
                expires_at: (expires_at != NEVER).then_some(expires_at),
                reason,
                revoked_at,
            }
        }
        RevocationChange::Restored { fingerprint, .. } => {
            What::Unrevoked { fingerprint: fingerprint.to_string() }
        }
    };
    Entry { version, what }
}

/// Reads what the store took back after a version, other than by fingerprint.
async fn others_since(lookup: &mut impl Lookup, version: u64) -> Result<Vec<Entry>, StoreError> {
    let mut entries = Vec::new();
    for (version, raised) in watermarks::since(lookup, version).await? {
        entries.push(Entry { version, what: What::of_watermark(&raised) });
    }
    for (version, tombstone) in tombstones::since(lookup, version).await? {
        entries.push(Entry { version, what: What::of_tombstone(tombstone) });
    }
    for (version, subject) in grants::changed_since(lookup, version).await? {
        entries.push(Entry { version, what: What::Granted { subject: subject.to_string() } });
    }
    Ok(entries)
}

impl Mark {
    /// Returns whether the store holds what the journal was written from up to this mark.
    pub(crate) async fn is_in(&self, lookup: &mut impl Lookup) -> Result<bool, StoreError> {
        Ok(versions::current(lookup).await?.number >= self.version
            && audit::is_there(lookup, self.seq, self.at).await?)
    }
}

/// Reads the newest audit line, as a mark of this version.
async fn newest_mark(lookup: &mut impl Lookup, version: u64) -> Result<Option<Mark>, StoreError> {
    let line = audit::newest(lookup, 1).await?.pop();
    Ok(line.map(|line| Mark { version, seq: line.seq, at: line.at }))
}

/// All of the last hour, one for each hour of the last 400 days.
fn thinned(marks: &[Mark], now: u64) -> impl Iterator<Item = Mark> {
    let mut hour = None;
    marks.iter().copied().filter(move |mark| {
        let age = now.saturating_sub(mark.at);
        if age > KEPT {
            return false;
        }
        age < HOUR || hour.replace(mark.at / HOUR) != Some(mark.at / HOUR)
    })
}

/// Milliseconds.
const HOUR: u64 = 3_600_000;

/// Longer than backups are kept: what a database lacks that is restored from an older one is not told.
pub const KEPT: u64 = 400 * 24 * HOUR;

/// What is only issued, and not taken back, leaves no other trace: a database that lacks that much goes unnoticed.
const MARK_EVERY: Duration = Duration::from_secs(2);

/// A disk that hangs keeps no revocation from being published for longer.
pub const PUBLISHER_PATIENCE: Duration = Duration::from_millis(500);

/// A command has nothing else to do.
pub const COMMAND_PATIENCE: Duration = Duration::from_secs(4);

/// Whoever holds the lock writes a few lines; a revocation does not wait for longer. The next look comes soon.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);

/// A journal of twice this is not worth compacting.
const SMALL_BYTES: u64 = 1 << 20;

/// A revocation without a reason takes some 150 bytes, a mark 60.
const LINE_BYTES: u64 = 160;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_thin_out_with_their_age() {
        let now = 1000 * 24 * HOUR;
        let marks: Vec<Mark> =
            (0..2000 * 24).map(|half| Mark { version: half, seq: half, at: half * HOUR / 2 }).collect();
        let kept: Vec<u64> = thinned(&marks, now).map(|mark| mark.at).collect();
        assert!(kept.len() <= 400 * 24 + 3, "{}", kept.len());
        assert_eq!(kept.last(), Some(&(now - HOUR / 2)));
        assert!(kept.iter().all(|at| now - at <= KEPT));
        assert!(kept.windows(2).all(|pair| pair[1] - pair[0] <= HOUR));
    }
}
