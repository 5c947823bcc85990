//! The latest publication, and how readers wait for one.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use bundle::Snapshot;
use tokio::sync::{Notify, watch};

use super::object_cache::ObjectCache;
use crate::{
    db::PublishedVersions,
    domain::{Epoch, Version},
};

/// A signed manifest, with the bundle that an edge assembles from it.
#[derive(Debug)]
pub struct Publication {
    /// The epoch of the delegation.
    pub epoch: Epoch,
    /// The version of the bundle.
    pub version: Version,
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
pub struct BundlePosition {
    /// The epoch of the delegation.
    pub epoch: Epoch,
    /// The version of the bundle.
    pub version: Version,
}

impl Publication {
    /// Returns the position of this publication.
    pub const fn position(&self) -> BundlePosition {
        BundlePosition { epoch: self.epoch, version: self.version }
    }
}

/// A handle to the latest publication. Clones share it.
#[derive(Clone)]
pub struct Publications {
    latest: watch::Receiver<Arc<Publication>>,
    /// Changes with the position only, so a renewed signature wakes no task that waits for a new version.
    position: watch::Receiver<BundlePosition>,
    publish_requests: Arc<Notify>,
    /// The error code of the last attempt to publish, or `None` if it succeeded.
    last_error_code: Arc<Mutex<Option<&'static str>>>,
    object_cache: Arc<ObjectCache>,
}

impl Publications {
    pub(super) fn new(
        latest: watch::Receiver<Arc<Publication>>,
        position: watch::Receiver<BundlePosition>,
        object_cache: Arc<ObjectCache>,
    ) -> Self {
        Self {
            latest,
            position,
            publish_requests: Arc::default(),
            last_error_code: Arc::default(),
            object_cache,
        }
    }

    /// Returns the latest publication.
    pub fn latest(&self) -> Arc<Publication> {
        Arc::clone(&self.latest.borrow())
    }

    /// Waits until a bundle newer than `held` is published. Waits forever once publishing has ended.
    pub async fn wait_newer_than(&self, held: BundlePosition) {
        self.wait_until(|published| published > held).await;
    }

    /// Requests a publication, and waits until a bundle of at least `order` is published.
    pub async fn wait_at_least(&self, order: BundlePosition) {
        self.request_publish();
        self.wait_until(|published| published >= order).await;
    }

    /// Requests a publication, and waits until `version` or a later one is published.
    pub async fn wait_for_version(&self, version: Version) {
        self.request_publish();
        self.wait_until(|published| published.version >= version).await;
    }

    async fn wait_until(&self, is_reached: impl Fn(BundlePosition) -> bool) {
        if self.position.clone().wait_for(|published| is_reached(*published)).await.is_err() {
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
    pub fn last_error_code(&self) -> Option<&'static str> {
        *self.last_error_code.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_error_code(&self, code: Option<&'static str>) {
        *self.last_error_code.lock().unwrap_or_else(PoisonError::into_inner) = code;
    }

    /// Requests that the publisher looks for changes and publishes them.
    pub fn request_publish(&self) {
        self.publish_requests.notify_one();
    }

    /// Waits for a call of [`request_publish`](Self::request_publish).
    pub(super) async fn wait_publish_request(&self) {
        self.publish_requests.notified().await;
    }
}

impl PublishedVersions for Publications {
    fn wait_for(&self, version: Version) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.wait_for_version(version))
    }
}

impl fmt::Debug for Publications {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Publications({:?})", *self.position.borrow())
    }
}
