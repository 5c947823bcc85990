//! The latest publication, and how readers wait for one.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use bundle::Snapshot;
use tokio::sync::{Notify, watch};

use super::object_cache::ObjectCache;

/// A signed manifest, with the bundle that an edge assembles from it.
#[derive(Debug)]
pub struct Publication {
    /// The epoch of the delegation.
    pub epoch: u64,
    /// The version of the bundle.
    pub version: u64,
    /// Milliseconds since the Unix epoch.
    pub issued_at: u64,
    /// Milliseconds since the Unix epoch.
    pub expires_at: u64,
    /// The signed manifest.
    pub manifest: Vec<u8>,
    /// The bundle as an edge assembles it.
    pub snapshot: Snapshot,
}

/// The position of a bundle in the order that edges require, compared by epoch first: a higher epoch may begin with a
/// lower version. The time of issue does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    /// The epoch of the delegation.
    pub epoch: u64,
    /// The version of the bundle.
    pub version: u64,
}

impl Publication {
    /// Returns the position of this publication.
    pub const fn order(&self) -> Order {
        Order { epoch: self.epoch, version: self.version }
    }
}

/// A handle to the latest publication. Clones share it.
#[derive(Clone)]
pub struct Publications {
    latest: watch::Receiver<Arc<Publication>>,
    /// Changes with the position only, so a renewed signature wakes no task that waits for a new version.
    order: watch::Receiver<Order>,
    publish_requests: Arc<Notify>,
    /// The error code of the last attempt to publish, or `None` if it succeeded.
    trouble: Arc<Mutex<Option<&'static str>>>,
    object_cache: Arc<ObjectCache>,
}

impl Publications {
    pub(super) fn new(
        latest: watch::Receiver<Arc<Publication>>,
        order: watch::Receiver<Order>,
        object_cache: Arc<ObjectCache>,
    ) -> Self {
        Self { latest, order, publish_requests: Arc::default(), trouble: Arc::default(), object_cache }
    }

    /// Returns the latest publication.
    pub fn latest(&self) -> Arc<Publication> {
        Arc::clone(&self.latest.borrow())
    }

    /// Waits until a bundle newer than `held` is published. Waits forever once publishing has ended.
    pub async fn newer_than(&self, held: Order) {
        self.wait_until(|published| published > held).await;
    }

    /// Requests a publication, and waits until a bundle of at least `order` is published.
    pub async fn caught_up(&self, order: Order) {
        self.ring();
        self.wait_until(|published| published >= order).await;
    }

    /// Requests a publication, and waits until `version` or a later one is published.
    pub async fn reached(&self, version: u64) {
        self.ring();
        self.wait_until(|published| published.version >= version).await;
    }

    async fn wait_until(&self, is_reached: impl Fn(Order) -> bool) {
        if self.order.clone().wait_for(|published| is_reached(*published)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns the object of a hash if every edge may read it.
    pub fn object(&self, sha256: &[u8; 32]) -> Option<Arc<[u8]>> {
        self.object_cache.public_object(sha256)
    }

    /// Returns the object of a hash if it contains symmetric keys.
    pub fn secret_keys(&self, sha256: &[u8; 32]) -> Option<Arc<[u8]>> {
        self.object_cache.secret_object(sha256)
    }

    /// Returns the error code of the last attempt to publish, or `None` if it succeeded.
    pub fn trouble(&self) -> Option<&'static str> {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_trouble(&self, code: Option<&'static str>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = code;
    }

    /// Requests that the publisher looks for changes and publishes them.
    pub fn ring(&self) {
        self.publish_requests.notify_one();
    }

    /// Waits for a call of [`ring`](Self::ring).
    pub(super) async fn publish_requested(&self) {
        self.publish_requests.notified().await;
    }
}

impl fmt::Debug for Publications {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Publications({:?})", *self.order.borrow())
    }
}
