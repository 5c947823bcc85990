//! A cache of authenticated credentials. It never caches whether a credential is still valid: key status, revocations,
//! watermarks, grants and expiry are checked on every request.
//!
//! * The cache key is a 128-bit keyed hash (SipHash-2-4) of the credential, so no credential is stored. It costs a
//!   quarter of a SHA-256 on a cache hit. A client that does not know a credential can only guess its hash.
//! * The cache has a fixed size and constant lookup time: it is set-associative with [`WAYS`] entries per set, and the
//!   least recently used entry of a set is evicted. Only authenticated credentials are inserted.

use alloc::{sync::Arc, vec::Vec};
use core::{fmt, hash::Hasher};

use bundle::Snapshot;
use siphasher::sip128::{Hasher128, SipHasher24};
use token::Fingerprint;

use crate::identity::Identity;

/// Entries per set. At half load, one set in 300 overflows.
const WAYS: usize = 16;

/// A bounded cache of authenticated credentials, and what a host reports about requests.
pub struct Cache {
    hasher: SipHasher24,
    slots: Vec<Slot>,
    /// The [`Snapshot::key_set`] of the last look-up, and its number.
    key_set: (Fingerprint, u32),
    hits: u64,
    misses: u64,
    /// The issuers, by their index in the policy, whose tokens named a key that the bundle lacks; the earliest first, so
    /// that tokens of one issuer do not prevent reports of another.
    missing_keys: Vec<usize>,
    omitted_claims: u64,
}

pub(crate) type CacheKey = (u64, u64);

type Slot = Option<Entry>;

#[derive(Clone)]
struct Entry {
    key: CacheKey,
    identity: Arc<Identity>,
    /// The number of the key set that was last seen to have the key that verified the credential.
    key_set: u32,
}

impl Cache {
    /// Creates a cache for `entries` credentials; 0 disables it. `seed` keys the hash and must be unpredictable for
    /// clients, for example the configuration and the start time.
    pub fn new(entries: usize, seed: &[u8]) -> Self {
        let seed = Fingerprint::digest(seed);
        let mut key = [0; 16];
        key.iter_mut().zip(seed.as_bytes()).for_each(|(to, from)| *to = *from);
        let slots = entries.checked_next_multiple_of(WAYS).unwrap_or(entries);
        let hasher = SipHasher24::new_with_key(&key);
        let mut cache = Self {
            hasher,
            slots: Vec::new(),
            key_set: (seed, 0),
            hits: 0,
            misses: 0,
            missing_keys: Vec::new(),
            omitted_claims: 0,
        };
        cache.slots.resize(slots, None);
        cache
    }

    /// Creates a disabled cache.
    pub fn disabled() -> Self {
        Self::new(0, &[])
    }

    /// Returns the number of hits and misses since the last call, and resets both.
    pub fn take_counts(&mut self) -> (u64, u64) {
        (core::mem::take(&mut self.hits), core::mem::take(&mut self.misses))
    }

    /// Records that a token named a key of an issuer, by its index in the policy, that the bundle lacks. Nothing else of
    /// the token is kept: a client can name any key.
    pub(crate) fn record_missing_key(&mut self, issuer: Option<usize>) {
        if let Some(at) = issuer
            && !self.missing_keys.contains(&at)
        {
            self.missing_keys.push(at);
        }
    }

    /// Returns the earliest issuer by its index in the policy, and removes it.
    pub(crate) fn take_missing_key(&mut self) -> Option<usize> {
        (!self.missing_keys.is_empty()).then(|| self.missing_keys.remove(0))
    }

    /// Counts claims that a header cannot represent.
    pub(crate) const fn count_omitted_claims(&mut self, claims: u64) {
        self.omitted_claims = self.omitted_claims.saturating_add(claims);
    }

    /// Returns the number of claims of authenticated credentials, since the last call, that a header cannot represent.
    pub const fn take_omitted_claims(&mut self) -> u64 {
        core::mem::replace(&mut self.omitted_claims, 0)
    }

    /// Returns the cache key. `username` is the username of an API key, and empty for other credentials.
    pub(crate) fn key(&self, credential: &[u8], username: &[u8]) -> CacheKey {
        let mut hasher = self.hasher;
        // The length prefix makes the encoding of (credential, username) unambiguous.
        hasher.write_usize(credential.len());
        hasher.write(credential);
        hasher.write(username);
        let hash = hasher.finish128();
        (hash.h1, hash.h2)
    }

    /// Returns the identity of an authenticated credential, if the snapshot still has the key that verified it.
    pub(crate) fn get(&mut self, key: CacheKey, snapshot: &Snapshot) -> Option<Arc<Identity>> {
        let current_set = self.number_of_key_set(snapshot);
        let set = set_for(&mut self.slots, key);
        let Some(at) = set.iter().position(|slot| is_for(slot, key)) else {
            self.misses = self.misses.saturating_add(1);
            return None;
        };
        self.hits = self.hits.saturating_add(1);
        if at > 0 {
            set.get_mut(..=at)?.rotate_right(1);
        }
        let Entry { identity, key_set, .. } = set.first_mut()?.as_mut()?;
        if *key_set != current_set {
            if !identity.is_key_current(snapshot) {
                return None;
            }
            *key_set = current_set;
        }
        Some(Arc::clone(identity))
    }

    /// Returns a number that differs from those of all other key sets. Most look-ups are in the same set as the previous
    /// one, so that the names of a key are compared only when the set has changed.
    fn number_of_key_set(&mut self, snapshot: &Snapshot) -> u32 {
        let (known, number) = &mut self.key_set;
        if known != snapshot.key_set() {
            *known = *snapshot.key_set();
            *number = number.checked_add(1).unwrap_or_else(|| {
                // Earlier numbers are used again only after all entries that have them are gone.
                self.slots.fill(None);
                0
            });
        }
        *number
    }

    /// Adds the identity of a credential that a key of the snapshot has verified.
    pub(crate) fn insert(&mut self, key: CacheKey, identity: Arc<Identity>, snapshot: &Snapshot) {
        let key_set = self.number_of_key_set(snapshot);
        let set = set_for(&mut self.slots, key);
        // An entry with the same key is replaced: it was authenticated with an older verification key.
        let existing = set.iter().position(|slot| is_for(slot, key));
        let end = existing.map_or(set.len(), |at| at.saturating_add(1));
        if let Some(front) = set.get_mut(..end) {
            front.rotate_right(end.min(1));
        }
        if let Some(first) = set.first_mut() {
            *first = Some(Entry { key, identity, key_set });
        }
    }
}

fn is_for(slot: &Slot, key: CacheKey) -> bool {
    slot.as_ref().is_some_and(|entry| entry.key == key)
}

fn set_for(slots: &mut [Slot], (word, _): CacheKey) -> &mut [Slot] {
    let sets = u64::try_from(slots.len() / WAYS).unwrap_or_default();
    // A remainder of 64 hash bits by a few hundred sets is practically unbiased.
    let at =
        word.checked_rem(sets).and_then(|at| usize::try_from(at).ok()).and_then(|at| at.checked_mul(WAYS));
    at.and_then(|at| slots.get_mut(at..at.checked_add(WAYS)?)).unwrap_or_default()
}

// Implemented by hand so that identities are not printed.
impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cache({} slots)", self.slots.len())
    }
}
