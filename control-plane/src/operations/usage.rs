//! When AuthKeys were last used and edges last seen: gathered, and written about once a second.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::sleep;

use crate::{
    clock::Time,
    model::{AuthKeyId, EdgeId},
    store::{Store, StoreError, auth_keys, edges},
};

#[derive(Debug, Clone)]
pub(super) struct Usage {
    store: Store,
    gathered: Arc<Mutex<Gathered>>,
}

#[derive(Debug, Default)]
struct Gathered {
    auth_keys: HashMap<AuthKeyId, Time>,
    edges: HashMap<EdgeId, Seen>,
}

#[derive(Debug)]
struct Seen {
    at: Time,
    version: u64,
    status: Option<String>,
}

impl Usage {
    pub(super) fn start(store: Store) -> Self {
        let usage = Self { store, gathered: Arc::default() };
        let gathered = Arc::downgrade(&usage.gathered);
        let store = usage.store.clone();
        tokio::spawn(async move {
            loop {
                sleep(PERIOD).await;
                // Ends with the service.
                let Some(gathered) = gathered.upgrade() else { return };
                Self { store: store.clone(), gathered }.flush().await;
            }
        });
        usage
    }

    pub(super) fn auth_key_used(&self, id: &AuthKeyId, at: Time) {
        self.with(|gathered| gathered.auth_keys.insert(id.clone(), at));
    }

    pub(super) fn edge_seen(&self, id: &EdgeId, at: Time, version: u64, status: Option<&str>) {
        let seen = Seen { at, version, status: status.map(str::to_owned) };
        self.with(|gathered| gathered.edges.insert(id.clone(), seen));
    }

    /// What can't be written is dropped: nobody was promised it.
    pub(super) async fn flush(&self) {
        let gathered = self.with(mem::take);
        if gathered.auth_keys.is_empty() && gathered.edges.is_empty() {
            return;
        }
        if let Err(error) = write(&self.store, gathered).await {
            tracing::warn!(error.code = error.code(), "last uses could not be written");
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Gathered) -> T) -> T {
        change(&mut self.gathered.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn write(store: &Store, gathered: Gathered) -> Result<(), StoreError> {
    let mut write = store.write().await?;
    let Gathered { auth_keys: used, edges: seen } = gathered;
    // Two replicas that write the same rows do so in the same order.
    let mut used: Vec<_> = used.into_iter().collect();
    used.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
    for (id, at) in &used {
        auth_keys::used(&mut write, id, at.seconds()).await?;
    }
    let mut seen: Vec<_> = seen.into_iter().collect();
    seen.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
    for (id, Seen { at, version, status }) in &seen {
        edges::seen(&mut write, id, at.seconds(), *version, status.as_deref()).await?;
    }
    write.commit().await
}

const PERIOD: Duration = Duration::from_secs(1);
