//! Buffers the last uses of AuthKeys and the reports of edges, and writes them in batches: each edge at most once a second,
//! or immediately if it enforces a new version, as a command may be waiting for that.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::queries as edges;
use crate::{
    credentials::auth_keys,
    db::{Store, StoreError},
    domain::UnixMillis,
    domain::{AuthKeyId, EdgeId, EdgeReport, Version},
    installation,
};

/// How often updates are written, and the minimum interval between two reports of the same edge.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// How long a batch is open after its first update. The workers of a fleet report within a few milliseconds of each other.
const BATCH_WINDOW: Duration = Duration::from_millis(20);

/// How long the last written report of a silent edge is remembered.
const RETENTION: Duration = Duration::from_secs(600);

/// A handle to the buffer. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct LastSeenRecorder {
    store: Store,
    pending: Arc<Mutex<PendingUpdates>>,
    wake: Arc<Notify>,
}

#[derive(Debug, Default)]
struct PendingUpdates {
    auth_keys: HashMap<AuthKeyId, UnixMillis>,
    edges: HashMap<EdgeId, PendingReport>,
    /// The latest version that this server has published, and when.
    published: Option<(Version, UnixMillis)>,
    /// The version that each edge enforced in its last written report, and when it was written.
    written: HashMap<EdgeId, (Version, Instant)>,
}

#[derive(Debug)]
struct PendingReport {
    at: UnixMillis,
    report: EdgeReport,
}

impl LastSeenRecorder {
    /// Starts the writing task and returns it too. The task ends when the last handle is dropped.
    pub(crate) fn start(store: Store) -> (Self, JoinHandle<()>) {
        let usage = Self { store, pending: Arc::default(), wake: Arc::default() };
        let (pending, wake) = (Arc::downgrade(&usage.pending), Arc::clone(&usage.wake));
        let store = usage.store.clone();
        let writer = tokio::spawn(async move {
            loop {
                // Updates within the window share a transaction.
                if timeout(WRITE_INTERVAL, wake.notified()).await.is_ok() {
                    sleep(BATCH_WINDOW).await;
                }
                // Ends with the service.
                let Some(pending) = pending.upgrade() else { return };
                Self { store: store.clone(), pending, wake: Arc::clone(&wake) }.flush().await;
            }
        });
        (usage, writer)
    }

    /// Records a use of an AuthKey.
    pub(crate) fn record_auth_key_use(&self, id: &AuthKeyId, at: UnixMillis) {
        self.with_pending(|pending| pending.auth_keys.insert(id.clone(), at));
    }

    /// Records the report of an edge.
    pub(crate) fn record_edge_report(&self, id: &EdgeId, at: UnixMillis, report: EdgeReport) {
        let enforces = report.enforces();
        let is_new = self.with_pending(|pending| {
            pending.edges.insert(id.clone(), PendingReport { at, report });
            pending.written.get(id).is_none_or(|(written, _)| *written < enforces)
        });
        if is_new {
            self.wake.notify_one();
        }
    }

    /// Records a publication of this server.
    pub(crate) fn record_publication(&self, version: Version, at: UnixMillis) {
        self.with_pending(|pending| pending.published = Some((version, at)));
        self.wake.notify_one();
    }

    /// Writes the updates that are due. If that fails, they are dropped, except for the publication.
    pub(crate) async fn flush(&self) {
        let due = self.with_pending(PendingUpdates::take_due);
        if due.auth_keys.is_empty() && due.edges.is_empty() && due.published.is_none() {
            return;
        }
        let published = due.published;
        if let Err(error) = write_updates(&self.store, due).await {
            // The publisher logs a rollback.
            if !matches!(error, StoreError::RolledBack) {
                tracing::warn!(error.code = error.code(), "cannot write the last uses and edge reports");
            }
            // Commands wait for the publication, so it is written with the next batch.
            self.with_pending(|pending| pending.published = pending.published.or(published));
        }
    }

    fn with_pending<T>(&self, change: impl FnOnce(&mut PendingUpdates) -> T) -> T {
        change(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl PendingUpdates {
    /// Removes and returns the updates that are due: all but reports of edges that were written within the interval.
    fn take_due(&mut self) -> DueUpdates {
        let now = Instant::now();
        let written = &mut self.written;
        written.retain(|_, (_, at)| now.saturating_duration_since(*at) < RETENTION);
        let lately = |(_, at): &(Version, Instant)| now.saturating_duration_since(*at) < WRITE_INTERVAL;
        let due: Vec<(EdgeId, PendingReport)> =
            self.edges.extract_if(|id, _| !written.get(id).is_some_and(lately)).collect();
        for (id, seen) in &due {
            written.insert(id.clone(), (seen.report.enforces(), now));
        }
        DueUpdates { auth_keys: mem::take(&mut self.auth_keys), edges: due, published: self.published.take() }
    }
}

/// The updates of one transaction.
struct DueUpdates {
    auth_keys: HashMap<AuthKeyId, UnixMillis>,
    edges: Vec<(EdgeId, PendingReport)>,
    published: Option<(Version, UnixMillis)>,
}

async fn write_updates(store: &Store, due: DueUpdates) -> Result<(), StoreError> {
    let mut upkeep = store.upkeep().await?;
    let DueUpdates { auth_keys: used, edges: mut seen, published } = due;
    // The rows are sorted, so that replicas which write the same rows cannot deadlock.
    let mut used: Vec<_> = used.into_iter().collect();
    used.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
    for (id, at) in &used {
        auth_keys::record_use(upkeep.db(), id, at.seconds()).await?;
    }
    seen.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
    for (id, PendingReport { at, report }) in &seen {
        edges::record_report(upkeep.db(), id, at.seconds(), report).await?;
    }
    if let Some((version, at)) = published {
        installation::record_publication(upkeep.db(), version, at).await?;
    }
    upkeep.commit().await
}
