use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use bundle::Snapshot;
use tokio::sync::{Notify, watch};

use super::shelf::Shelf;

/// A signed manifest, and what it makes of its objects.
#[derive(Debug)]
pub struct Publication {
    /// Of the delegation.
    pub epoch: u64,
    pub version: u64,
    /// Milliseconds since the Unix epoch.
    pub issued_at: u64,
    pub expires_at: u64,
    pub manifest: Vec<u8>,
    pub snapshot: Snapshot,
}

/// What makes a manifest later than another, the time it was signed at aside. With a higher epoch versions begin anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    pub epoch: u64,
    pub version: u64,
}

impl Publication {
    pub const fn order(&self) -> Order {
        Order { epoch: self.epoch, version: self.version }
    }
}

/// Where the latest publication is found and waited for.
#[derive(Clone)]
pub struct Publications {
    latest: watch::Receiver<Arc<Publication>>,
    /// Changes with the order only: who waits for a new one is not woken by each signature.
    order: watch::Receiver<Order>,
    bell: Arc<Notify>,
    /// The code of what keeps the publisher from publishing, while it does.
    trouble: Arc<Mutex<Option<&'static str>>>,
    shelf: Arc<Shelf>,
}

impl Publications {
    pub(super) fn new(
        latest: watch::Receiver<Arc<Publication>>,
        order: watch::Receiver<Order>,
        shelf: Arc<Shelf>,
    ) -> Self {
        Self { latest, order, bell: Arc::default(), trouble: Arc::default(), shelf }
    }

    pub fn latest(&self) -> Arc<Publication> {
        Arc::clone(&self.latest.borrow())
    }

    /// Returns when something newer is published; never, when publishing has ended.
    pub async fn newer_than(&self, held: Order) {
        self.until(|published| published > held).await;
    }

    /// Rings, and returns when nothing older than `order` is published.
    pub async fn caught_up(&self, order: Order) {
        self.ring();
        self.until(|published| published >= order).await;
    }

    /// Rings, and returns when `version` is published.
    pub async fn reached(&self, version: u64) {
        self.ring();
        self.until(|published| published.version >= version).await;
    }

    async fn until(&self, enough: impl Fn(Order) -> bool) {
        if self.order.clone().wait_for(|published| enough(*published)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// An object, by its hash, that every edge may see.
    pub fn object(&self, sha256: &[u8; 32]) -> Option<Arc<[u8]>> {
        self.shelf.open_object(sha256)
    }

    /// The object with the symmetric keys, by its hash.
    pub fn secret_keys(&self, sha256: &[u8; 32]) -> Option<Arc<[u8]>> {
        self.shelf.secret_object(sha256)
    }

    /// Why nothing is published at the moment, as a code.
    pub fn trouble(&self) -> Option<&'static str> {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_trouble(&self, code: Option<&'static str>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = code;
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
        write!(f, "Publications({:?})", *self.order.borrow())
    }
}
