//! The objects that edges may fetch.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use bundle::{Entry, ObjectKind};

use crate::domain::UnixMillis;

/// How long an object of an earlier publication can still be fetched: five times the default lifetime of a manifest.
const SUPERSEDED_RETENTION: Duration = Duration::from_secs(300);

/// The objects of the latest publications, by hash.
#[derive(Default)]
pub(super) struct ObjectCache {
    objects: RwLock<HashMap<[u8; 32], CachedObject>>,
}

struct CachedObject {
    kind: ObjectKind,
    bytes: Arc<[u8]>,
    /// When the object ceased to be part of the latest publication. An edge that has an earlier manifest may still
    /// fetch it.
    superseded_at: Option<UnixMillis>,
}

impl ObjectCache {
    /// Inserts the objects of a publication, and removes those that were superseded long ago.
    pub(super) fn insert(&self, objects: &[(Entry, Arc<[u8]>)], now: UnixMillis) {
        let mut cached = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        for object in cached.values_mut() {
            object.superseded_at.get_or_insert(now);
        }
        for (entry, bytes) in objects {
            let bytes = Arc::clone(bytes);
            let object = CachedObject { kind: entry.kind(), bytes, superseded_at: None };
            cached.insert(*entry.sha256(), object);
        }
        cached.retain(|_, object| object.superseded_at.is_none_or(|at| now < at.plus(SUPERSEDED_RETENTION)));
    }

    /// Returns an object that every edge may read.
    pub(super) fn public_object(&self, sha256: &[u8; 32]) -> Option<Arc<[u8]>> {
        self.find(sha256, |kind| kind != ObjectKind::SecretKeys)
    }

    /// Returns an object with symmetric keys.
    pub(super) fn secret_object(&self, sha256: &[u8; 32]) -> Option<Arc<[u8]>> {
        self.find(sha256, |kind| kind == ObjectKind::SecretKeys)
    }

    fn find(&self, sha256: &[u8; 32], wanted: impl Fn(ObjectKind) -> bool) -> Option<Arc<[u8]>> {
        let cached = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        cached.get(sha256).filter(|object| wanted(object.kind)).map(|object| Arc::clone(&object.bytes))
    }
}

impl fmt::Debug for ObjectCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObjectCache")
    }
}
