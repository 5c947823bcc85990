//! Which credentials were found authentic before. It is never asked whether one is still good: the standing of its
//! key, revocations, watermarks, grants and the time are looked at for each request, cached or not.
//!
//! * A credential is known by a keyed hash of 128 bits over its bytes, so that none is kept: SipHash-2-4, a quarter of
//!   what SHA-256 would cost a warm request. Whoever does not know another's credential can only guess the hash of it.
//! * It is bounded, and a lookup takes the same time whatever is in it: a hash has [`WAYS`] places where it can be, and
//!   the one that was not asked for the longest makes room. Only authentic credentials come in.

use alloc::{sync::Arc, vec::Vec};
use core::{fmt, hash::Hasher};

use siphasher::sip128::{Hasher128, SipHasher24};
use token::Fingerprint;

use crate::Identity;

/// Remembers which credentials are authentic, and never whether they are good.
pub struct Cache {
    hasher: SipHasher24,
    places: Vec<Option<(Key, Arc<Identity>)>>,
    hits: u64,
    misses: u64,
}

pub(crate) type Key = (u64, u64);

impl Cache {
    /// For that many credentials, 0 for none. `seed` is what a client cannot know, such as the configuration and the
    /// time of start.
    pub fn new(entries: usize, seed: &[u8]) -> Self {
        let seed = Fingerprint::of(seed);
        let mut key = [0; 16];
        key.iter_mut().zip(seed.as_bytes()).for_each(|(to, from)| *to = *from);
        let places = entries.checked_next_multiple_of(WAYS).unwrap_or(entries);
        let mut cache =
            Self { hasher: SipHasher24::new_with_key(&key), places: Vec::new(), hits: 0, misses: 0 };
        cache.places.resize(places, None);
        cache
    }

    /// One that remembers nothing, for who asks seldom.
    pub fn none() -> Self {
        Self::new(0, &[])
    }

    /// Hits and misses since this was asked last.
    pub fn counts(&mut self) -> (u64, u64) {
        (core::mem::take(&mut self.hits), core::mem::take(&mut self.misses))
    }

    /// `username` is that under the proof of an API key, else empty.
    pub(crate) fn key(&self, credential: &[u8], username: &[u8]) -> Key {
        let mut hasher = self.hasher;
        // In front, so that no two pairs read the same.
        hasher.write_usize(credential.len());
        hasher.write(credential);
        hasher.write(username);
        let hash = hasher.finish128();
        (hash.h1, hash.h2)
    }

    pub(crate) fn get(&mut self, key: Key) -> Option<Arc<Identity>> {
        let set = set(&mut self.places, key);
        let found = set.iter().position(|place| matches!(place, Some((known, _)) if *known == key));
        let Some(at) = found else {
            self.misses = self.misses.saturating_add(1);
            return None;
        };
        self.hits = self.hits.saturating_add(1);
        set.get_mut(..=at)?.rotate_right(1);
        set.first()?.as_ref().map(|(_, identity)| Arc::clone(identity))
    }

    pub(crate) fn put(&mut self, key: Key, identity: Arc<Identity>) {
        let set = set(&mut self.places, key);
        // One that is there already has another key behind it now.
        let same = set.iter().position(|place| matches!(place, Some((known, _)) if *known == key));
        let upto = same.map_or(set.len(), |at| at.saturating_add(1));
        if let Some(front) = set.get_mut(..upto) {
            front.rotate_right(upto.min(1));
        }
        if let Some(first) = set.first_mut() {
            *first = Some((key, identity));
        }
    }
}

fn set(places: &mut [Option<(Key, Arc<Identity>)>], (word, _): Key) -> &mut [Option<(Key, Arc<Identity>)>] {
    let sets = u64::try_from(places.len() / WAYS).unwrap_or_default();
    // 64 bits of a hash over some hundred sets: the remainder favours none.
    let at =
        word.checked_rem(sets).and_then(|at| usize::try_from(at).ok()).and_then(|at| at.checked_mul(WAYS));
    at.and_then(|at| places.get_mut(at..at.checked_add(WAYS)?)).unwrap_or_default()
}

// By hand: no credential is in it, but many identities.
impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cache({} places)", self.places.len())
    }
}

/// At half load, one set in 300 overflows.
const WAYS: usize = 16;
