//! When AuthKeys were last used and what edges told: gathered, and written in one transaction, the word of an edge at
//! most once a second, and at once when it is news: somebody may be waiting for it.

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

use crate::{
    clock::Time,
    model::{AuthKeyId, EdgeId, EdgeReport},
    store::{Store, StoreError, auth_keys, edges, installation},
};

#[derive(Debug, Clone)]
pub(crate) struct Usage {
    store: Store,
    gathered: Arc<Mutex<Gathered>>,
    news: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Gathered {
    auth_keys: HashMap<AuthKeyId, Time>,
    edges: HashMap<EdgeId, Seen>,
    /// The latest version that this server has published.
    published: Option<(u64, Time)>,
    /// What was written last of each edge, and when.
    written: HashMap<EdgeId, (u64, Instant)>,
}

#[derive(Debug)]
struct Seen {
    at: Time,
    report: EdgeReport,
}

impl Usage {
    /// Returns with it the task that writes, which ends when the last `Usage` is dropped.
    pub(super) fn start(store: Store) -> (Self, JoinHandle<()>) {
        let usage = Self { store, gathered: Arc::default(), news: Arc::default() };
        let (gathered, news) = (Arc::downgrade(&usage.gathered), Arc::clone(&usage.news));
        let store = usage.store.clone();
        let writer = tokio::spawn(async move {
            loop {
                // Those that come within a moment share a transaction.
                if timeout(PERIOD, news.notified()).await.is_ok() {
                    sleep(TOGETHER).await;
                }
                // Ends with the service.
                let Some(gathered) = gathered.upgrade() else { return };
                Self { store: store.clone(), gathered, news: Arc::clone(&news) }.flush().await;
            }
        });
        (usage, writer)
    }

    pub(super) fn auth_key_used(&self, id: &AuthKeyId, at: Time) {
        self.with(|gathered| gathered.auth_keys.insert(id.clone(), at));
    }

    pub(super) fn edge_seen(&self, id: &EdgeId, at: Time, report: EdgeReport) {
        let enforces = report.enforces();
        let news = self.with(|gathered| {
            gathered.edges.insert(id.clone(), Seen { at, report });
            gathered.written.get(id).is_none_or(|(written, _)| *written < enforces)
        });
        if news {
            self.news.notify_one();
        }
    }

    pub(crate) fn published(&self, version: u64, at: Time) {
        self.with(|gathered| gathered.published = Some((version, at)));
        self.news.notify_one();
    }

    /// What can't be written is dropped: nobody was promised it.
    pub(crate) async fn flush(&self) {
        let due = self.with(Gathered::take_due);
        if due.auth_keys.is_empty() && due.edges.is_empty() && due.published.is_none() {
            return;
        }
        let published = due.published;
        if let Err(error) = write(&self.store, due).await {
            // The publisher says so, once.
            if !matches!(error, StoreError::WentBack) {
                tracing::warn!(error.code = error.code(), "last uses could not be written");
            }
            // Commands wait for it.
            self.with(|gathered| gathered.published = gathered.published.or(published));
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Gathered) -> T) -> T {
        change(&mut self.gathered.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Gathered {
    /// All but the edges that were written less than a period ago: those wait for their turn.
    fn take_due(&mut self) -> Due {
        let now = Instant::now();
        let written = &mut self.written;
        written.retain(|_, (_, at)| now.saturating_duration_since(*at) < FORGOTTEN);
        let lately = |(_, at): &(u64, Instant)| now.saturating_duration_since(*at) < PERIOD;
        let due: Vec<(EdgeId, Seen)> =
            self.edges.extract_if(|id, _| !written.get(id).is_some_and(lately)).collect();
        for (id, seen) in &due {
            written.insert(id.clone(), (seen.report.enforces(), now));
        }
        Due { auth_keys: mem::take(&mut self.auth_keys), edges: due, published: self.published.take() }
    }
}

struct Due {
    auth_keys: HashMap<AuthKeyId, Time>,
    edges: Vec<(EdgeId, Seen)>,
    published: Option<(u64, Time)>,
}

async fn write(store: &Store, due: Due) -> Result<(), StoreError> {
    let mut write = store.write().await?;
    let Due { auth_keys: used, edges: mut seen, published } = due;
    // Two replicas that write the same rows do so in the same order.
    let mut used: Vec<_> = used.into_iter().collect();
    used.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
    for (id, at) in &used {
        auth_keys::used(&mut write, id, at.seconds()).await?;
    }
    seen.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
    for (id, Seen { at, report }) in &seen {
        edges::seen(&mut write, id, at.seconds(), report).await?;
    }
    if let Some((version, at)) = published {
        installation::publish(&mut write, version, at).await?;
    }
    write.commit().await
}

const PERIOD: Duration = Duration::from_secs(1);

/// The workers of a fleet tell within some milliseconds of each other.
const TOGETHER: Duration = Duration::from_millis(20);

/// Of an edge that is silent for so long nothing need be remembered here.
const FORGOTTEN: Duration = Duration::from_secs(600);
