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
//! * Nothing makes it shorter yet: [`Journal::compact`] is written and not called.

mod entry;
mod file;

use std::{
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
    home::Home,
    model::{Revocation, RevocationChange},
    store::{NEVER, Store, StoreError, audit, grants, revocations, tombstones, versions, watermarks},
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
    /// The last mark, and when it was made.
    marked: Mutex<Option<(u64, Instant)>>,
    /// Its length when it was last written anew, or found.
    length: AtomicU64,
    /// Why it can't be written, while that is so.
    trouble: Mutex<Option<String>>,
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
        Ok(spawn_blocking(move || file::read(&path)).await.map_err(|_| CatchUpError::Ended)??)
    }

    /// Whether it could be written now.
    pub fn writable(&self) -> Result<(), JournalError> {
        Locked::take(&self.path).map(drop)
    }

    /// Why it can't be written at present.
    pub fn trouble(&self) -> Option<String> {
        self.state.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Brings it up to the store's version. A journal that can't be written keeps no revocation from being published:
    /// it is told once, and shown by `/readyz` and `keystile doctor`.
    pub async fn keep_up(&self, store: &Store) {
        let done = tokio::time::timeout(PATIENCE, self.catch_up(store)).await;
        let trouble = match done {
            Ok(Ok(())) => None,
            Ok(Err(error)) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                Some(format!("{error}{}", cause.unwrap_or_default()))
            }
            Err(_elapsed) => Some("writing it takes too long".to_owned()),
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
    }

    /// As [`keep_up`](Self::keep_up), for who must know.
    pub async fn catch_up(&self, store: &Store) -> Result<(), CatchUpError> {
        let now = versions::current(&mut store.reader().await?).await?.number;
        let due = {
            let marked = self.state.marked.lock().unwrap_or_else(PoisonError::into_inner);
            marked.is_none_or(|(_, at)| at.elapsed() >= MARK_EVERY)
        };
        if !due && self.state.written.load(Ordering::Acquire) >= now {
            return Ok(());
        }
        let path = self.path.clone();
        let locked = spawn_blocking(move || Locked::take(&path)).await.map_err(|_| CatchUpError::Ended)??;
        let (mut entries, version, line) = since(store, locked.newest.unwrap_or(0)).await?;
        if let Some((seq, at)) = line {
            let mut marked = self.state.marked.lock().unwrap_or_else(PoisonError::into_inner);
            if due {
                if marked.is_none_or(|(last, _)| last != seq) {
                    entries.push(Entry { version, what: What::Mark { seq, at } });
                }
                *marked = Some((seq, Instant::now()));
            }
        }
        let length = locked.length;
        if !entries.is_empty() {
            spawn_blocking(move || locked.append(&entries)).await.map_err(|_| CatchUpError::Ended)??;
        }
        self.state.written.fetch_max(version, Ordering::AcqRel);
        let _ = self.state.length.compare_exchange(0, length.max(1), Ordering::AcqRel, Ordering::Acquire);
        Ok(())
    }

    /// Whether it has grown so much that it had better be written anew.
    pub fn has_doubled(&self) -> bool {
        let then = self.state.length.load(Ordering::Acquire).max(SMALL);
        std::fs::metadata(&self.path).is_ok_and(|now| now.len() > then.saturating_mul(2))
    }

    /// Writes it anew from a store that knows all it says: what time has made meaningless is gone there. Marks thin out
    /// with their age.
    pub async fn compact(&self, store: &Store, now: u64) -> Result<(), CatchUpError> {
        let path = self.path.clone();
        let locked = spawn_blocking(move || Locked::take(&path)).await.map_err(|_| CatchUpError::Ended)??;
        let marks = self.read().await?.map(|recorded| recorded.marks).unwrap_or_default();
        let (entries, version, line) = since(store, 0).await?;
        let mut lines: Vec<Entry> = thinned(&marks, now)
            .map(|Mark { version, seq, at }| Entry { version, what: What::Mark { seq, at } })
            .chain(entries)
            .collect();
        lines.extend(line.map(|(seq, at)| Entry { version, what: What::Mark { seq, at } }));
        lines.sort_by_key(|entry| entry.version);
        spawn_blocking(move || locked.rewrite(&lines)).await.map_err(|_| CatchUpError::Ended)??;
        self.state.written.fetch_max(version, Ordering::AcqRel);
        let length = std::fs::metadata(&self.path).map_or(1, |file| file.len());
        self.state.length.store(length.max(1), Ordering::Release);
        Ok(())
    }
}

/// What the store took back after a version, in order; its version, and its newest audit line.
async fn since(store: &Store, version: u64) -> Result<(Vec<Entry>, u64, Option<(u64, u64)>), StoreError> {
    let mut read = store.read().await?;
    let now = versions::current(&mut read).await?.number;
    let mut entries = Vec::new();
    for (version, change) in revocations::all_since(&mut read, version).await? {
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
        entries.push(Entry { version, what });
    }
    for (version, raised) in watermarks::since(&mut read, version).await? {
        entries.push(Entry { version, what: What::of_watermark(&raised) });
    }
    for (version, tombstone) in tombstones::since(&mut read, version).await? {
        entries.push(Entry { version, what: What::of_tombstone(tombstone) });
    }
    for (version, subject) in grants::changed_since(&mut read, version).await? {
        entries.push(Entry { version, what: What::Granted { subject: subject.to_string() } });
    }
    entries.sort_by_key(|entry| entry.version);
    let line = audit::newest(&mut read, 1).await?.pop().map(|line| (line.seq, line.at));
    Ok((entries, now, line))
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

/// A disk that hangs keeps no revocation back.
const PATIENCE: Duration = Duration::from_secs(4);

/// Bytes.
const SMALL: u64 = 1 << 20;

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
