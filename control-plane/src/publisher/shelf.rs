use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use bundle::{Entry, ObjectKind};

use crate::clock::Time;

/// The objects of the latest publications, by hash.
#[derive(Default)]
pub(super) struct Shelf {
    held: RwLock<HashMap<[u8; 32], Held>>,
}

struct Held {
    kind: ObjectKind,
    bytes: Arc<[u8]>,
    /// When it ceased to be part of the latest one. An edge that has an earlier manifest may still come for it.
    superseded: Option<Time>,
}

impl Shelf {
    /// Puts the objects of a publication there, and takes away what was superseded long ago.
    pub(super) fn stock(&self, objects: &[(Entry, Arc<[u8]>)], now: Time) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        for object in held.values_mut() {
            object.superseded.get_or_insert(now);
        }
        for (entry, bytes) in objects {
            let bytes = Arc::clone(bytes);
            held.insert(*entry.sha256(), Held { kind: entry.kind(), bytes, superseded: None });
        }
        held.retain(|_, object| object.superseded.is_none_or(|since| now < since.plus(KEPT)));
    }

    pub(super) fn open_object(&self, sha256: &[u8; 32]) -> Option<Arc<[u8]>> {
        self.find(sha256, |kind| kind != ObjectKind::SecretKeys)
    }

    pub(super) fn secret_object(&self, sha256: &[u8; 32]) -> Option<Arc<[u8]>> {
        self.find(sha256, |kind| kind == ObjectKind::SecretKeys)
    }

    fn find(&self, sha256: &[u8; 32], wanted: impl Fn(ObjectKind) -> bool) -> Option<Arc<[u8]>> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.get(sha256).filter(|object| wanted(object.kind)).map(|object| Arc::clone(&object.bytes))
    }
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shelf")
    }
}

/// Five times the default lifetime of a manifest.
const KEPT: Duration = Duration::from_secs(300);
