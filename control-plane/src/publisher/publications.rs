use std::{fmt, sync::Arc};

use bundle::Snapshot;
use tokio::sync::{Notify, watch};

use super::shelf::Shelf;

/// A signed manifest, and what it makes of its objects.
#[derive(Debug)]
pub struct Publication {
    pub version: u64,
    /// Milliseconds since the Unix epoch.
    pub issued_at: u64,
    pub expires_at: u64,
    pub manifest: Vec<u8>,
    pub snapshot: Snapshot,
}

/// Where the latest publication is found and waited for.
#[derive(Clone)]
pub struct Publications {
    latest: watch::Receiver<Arc<Publication>>,
    /// Changes with the version only: who waits for a new one is not woken by each signature.
    version: watch::Receiver<u64>,
    bell: Arc<Notify>,
    shelf: Arc<Shelf>,
}

impl Publications {
    pub(super) fn new(
        latest: watch::Receiver<Arc<Publication>>,
        version: watch::Receiver<u64>,
        shelf: Arc<Shelf>,
    ) -> Self {
        Self { latest, version, bell: Arc::default(), shelf }
    }

    pub fn latest(&self) -> Arc<Publication> {
        Arc::clone(&self.latest.borrow())
    }

    /// Returns when something newer than `version` is published; never, when publishing has ended.
    pub async fn newer_than(&self, version: u64) {
        if self.version.clone().wait_for(|published| *published > version).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Rings, and returns when `version` is published.
    pub async fn reached(&self, version: u64) {
        self.ring();
        self.newer_than(version.saturating_sub(1)).await;
    }

    /// An object, by its hash, that every edge may see.
    pub fn object(&self, sha256: &[u8; 32]) -> Option<Arc<[u8]>> {
        self.shelf.open_object(sha256)
    }

    /// The object with the symmetric keys, by its hash.
    pub fn secret_keys(&self, sha256: &[u8; 32]) -> Option<Arc<[u8]>> {
        self.shelf.secret_object(sha256)
    }

    /// Asks the publisher to look for changes.
    pub fn ring(&self) {
        self.bell.notify_one();
    }

    pub(super) async fn rung(&self) {
        self.bell.notified().await;
    }
}

impl fmt::Debug for Publications {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Publications(version {})", *self.version.borrow())
    }
}
