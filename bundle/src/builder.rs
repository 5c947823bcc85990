//! Making bundles: the control plane's and the tests' alone.

#![expect(clippy::arithmetic_side_effects, reason = "does not run in the proxy; bits are at most 17")]

use alloc::{
    collections::{BTreeMap, btree_map},
    sync::Arc,
    vec::Vec,
};
use core::fmt;

use ed25519_dalek::Signer;
use token::{Fingerprint, VerifyingKey};

use crate::{
    Entry, Kind, MAX_GRANT_BYTES, MAX_MANIFEST_BYTES, PublisherKey, Scope, ScopeKey, grants, keys,
    manifest::{MAGIC, signed_bytes},
    object::write_entries,
    revocations,
    shards::{MAX_BITS, shard_of},
    watermarks,
};

pub use crate::{carried::carry, keys::SecretKey};

/// Everything edges are to know; [`Builder::build`] encodes again only what has changed.
#[derive(Default)]
pub struct Builder {
    keys: Encoded,
    secret_keys: Encoded,
    /// By prefix, so that two fingerprints never share one unnoticed.
    revoked: BTreeMap<u64, Fingerprint>,
    revocations: Cut,
    instants: BTreeMap<ScopeKey, u64>,
    watermarks: Cut,
    granted: BTreeMap<ScopeKey, Arc<[u8]>>,
    grants: Cut,
}

impl Builder {
    /// Replaces the public keys; symmetric ones among them are left out.
    pub fn keys<'a>(&mut self, keys: impl IntoIterator<Item = &'a VerifyingKey>) -> Result<(), TooLarge> {
        let bytes = keys::write_public(keys.into_iter()).ok_or(TooLarge)?;
        self.keys = encoded(Kind::Keys, 0, bytes)?;
        Ok(())
    }

    /// Replaces the symmetric keys.
    pub fn secret_keys<'a>(
        &mut self,
        keys: impl IntoIterator<Item = impl Into<SecretKey<'a>>>,
    ) -> Result<(), TooLarge> {
        let secrets: Vec<SecretKey<'a>> = keys.into_iter().map(Into::into).collect();
        let bytes = keys::write_secret(&secrets).ok_or(TooLarge)?;
        self.secret_keys = encoded(Kind::SecretKeys, 0, bytes)?;
        Ok(())
    }

    /// Whether it is new. Refused when another fingerprint with the same first 64 bits is there: edges could not tell
    /// the two apart.
    pub fn revoke(&mut self, fingerprint: Fingerprint) -> Result<bool, Collision> {
        match self.revoked.entry(fingerprint.prefix()) {
            btree_map::Entry::Occupied(held) if *held.get() == fingerprint => Ok(false),
            btree_map::Entry::Occupied(held) => Err(Collision { held: *held.get(), new: fingerprint }),
            btree_map::Entry::Vacant(room) => {
                room.insert(fingerprint);
                self.revocations.touch(fingerprint.prefix());
                Ok(true)
            }
        }
    }

    /// Drops a revocation whose credential has expired. Whether it was there.
    pub fn forget(&mut self, fingerprint: &Fingerprint) -> bool {
        let prefix = fingerprint.prefix();
        let held = self.revoked.get(&prefix) == Some(fingerprint) && self.revoked.remove(&prefix).is_some();
        if held {
            self.revocations.touch(prefix);
        }
        held
    }

    /// Moves a watermark forward, never back. Whether it moved.
    pub fn watermark(&mut self, scope: Scope<'_>, instant: u64) -> bool {
        let key = ScopeKey::of(scope);
        if self.instants.get(&key).is_some_and(|held| *held >= instant) {
            return false;
        }
        self.instants.insert(key, instant);
        self.watermarks.touch(key.word());
        true
    }

    /// Drops the watermarks of instants before this one: nothing that old is alive.
    pub fn forget_watermarks(&mut self, before: u64) {
        let watermarks = &mut self.watermarks;
        self.instants.retain(|scope, instant| {
            let kept = *instant >= before;
            if !kept {
                watermarks.touch(scope.word());
            }
            kept
        });
    }

    /// Replaces what a subject may do. Whether that changes anything.
    pub fn grant(&mut self, subject: &str, statements: &[u8]) -> Result<bool, TooLarge> {
        if statements.len() > MAX_GRANT_BYTES {
            return Err(TooLarge);
        }
        let key = ScopeKey::of(Scope::User(subject));
        if self.granted.get(&key).is_some_and(|held| **held == *statements) {
            return Ok(false);
        }
        self.granted.insert(key, statements.into());
        self.grants.touch(key.word());
        Ok(true)
    }

    /// Takes back whatever a subject was granted. Whether that was anything.
    pub fn ungrant(&mut self, subject: &str) -> bool {
        let key = ScopeKey::of(Scope::User(subject));
        let held = self.granted.remove(&key).is_some();
        if held {
            self.grants.touch(key.word());
        }
        held
    }

    pub fn revoked(&self) -> usize {
        self.revoked.len()
    }

    pub fn build(&mut self) -> Result<Built, TooLarge> {
        let revoked = &self.revoked;
        self.revocations.encode(
            Kind::Revocations,
            PREFIXES_PER_SHARD,
            revoked.len(),
            |bits, low, high| {
                let prefixes: Vec<u64> = revoked.range(low..=high).map(|(prefix, _)| *prefix).collect();
                Some(revocations::write(bits, &prefixes))
            },
        )?;
        let instants = &self.instants;
        self.watermarks.encode(
            Kind::Watermarks,
            WATERMARKS_PER_SHARD,
            instants.len(),
            |bits, low, high| {
                let (low, high) = (ScopeKey::new(low, 0), ScopeKey::new(high, u64::MAX));
                let held: Vec<_> =
                    instants.range(low..=high).map(|(scope, instant)| (*scope, *instant)).collect();
                Some(watermarks::write(bits, &held))
            },
        )?;
        let granted = &self.granted;
        if granted.is_empty() {
            // Not even an empty object, so that edges from before there were grants can go on reading.
            self.grants = Cut::default();
        } else {
            let bytes = granted.values().map(|grant| grant.len() + grants::ROW).sum();
            self.grants.encode(Kind::Grants, GRANT_BYTES_PER_SHARD, bytes, |bits, low, high| {
                let (low, high) = (ScopeKey::new(low, 0), ScopeKey::new(high, u64::MAX));
                let held: Vec<_> =
                    granted.range(low..=high).map(|(subject, grant)| (*subject, &**grant)).collect();
                grants::write(bits, &held)
            })?;
        }
        let direct = self.keys.iter().chain(&self.secret_keys).cloned();
        let sharded = || {
            let cuts = [&self.revocations, &self.watermarks, &self.grants];
            cuts.into_iter().flat_map(|cut| &cut.shards).flatten().cloned()
        };
        let mut objects: Vec<(Entry, Arc<[u8]>)> = direct.chain(sharded()).collect();
        let mut entries: Vec<Entry> = objects.iter().map(|(entry, _)| *entry).collect();
        if entries.len() > DIRECT_ENTRIES {
            let (sharded, direct): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| {
                matches!(entry.kind(), Kind::Revocations | Kind::Watermarks | Kind::Grants)
            });
            entries = direct;
            for (chunk, shard) in sharded.chunks(ENTRIES_PER_INDEX).zip(0..) {
                let mut bytes = Vec::new();
                write_entries(&mut bytes, chunk).ok_or(TooLarge)?;
                let index = encoded(Kind::Index, shard, bytes)?;
                entries.extend(index.iter().map(|(entry, _)| *entry));
                objects.extend(index);
            }
        }
        Ok(Built { entries, objects })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { revoked, instants, granted, .. } = self;
        let counts = [revoked.len(), instants.len(), granted.len()];
        write!(f, "Builder({counts:?} revocations, watermarks, grants)")
    }
}

/// A bundle without its manifest.
#[derive(Clone)]
pub struct Built {
    /// For the manifest, in its order.
    pub entries: Vec<Entry>,
    /// All objects, those behind an index too.
    pub objects: Vec<(Entry, Arc<[u8]>)>,
}

impl fmt::Debug for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.objects.iter().map(|(entry, _)| entry)).finish()
    }
}

/// The publisher's key pair.
pub struct Publisher(ed25519_dalek::SigningKey);

impl Publisher {
    pub fn new(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    pub fn public_key(&self) -> PublisherKey {
        PublisherKey::own(self.0.verifying_key())
    }

    pub fn sign(&self, draft: &Draft<'_>) -> Result<Vec<u8>, TooLarge> {
        let Draft { audience, version, issued_at, expires_at, entries } = draft;
        let mut body = Vec::from(*MAGIC);
        body.extend(self.public_key().id());
        for number in [version, issued_at, expires_at] {
            body.extend(number.to_be_bytes());
        }
        body.push(u8::try_from(audience.len()).map_err(|_| TooLarge)?);
        body.extend(audience.as_bytes());
        write_entries(&mut body, entries).ok_or(TooLarge)?;
        let signed = self.sign_body(body);
        if signed.len() > MAX_MANIFEST_BYTES { Err(TooLarge) } else { Ok(signed) }
    }

    /// Signs any bytes as a manifest, wrong ones too: how the tests forge.
    pub fn sign_body(&self, mut body: Vec<u8>) -> Vec<u8> {
        let signature = self.0.sign(&signed_bytes(&body));
        body.extend(signature.to_bytes());
        body
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Publisher({})", self.public_key())
    }
}

/// What a manifest is to say.
#[derive(Debug, Clone)]
pub struct Draft<'a> {
    /// 1 to 64 bytes.
    pub audience: &'a str,
    pub version: u64,
    /// Milliseconds since the Unix epoch.
    pub issued_at: u64,
    /// Milliseconds since the Unix epoch.
    pub expires_at: u64,
    pub entries: &'a [Entry],
}

/// Two fingerprints that edges could not tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collision {
    pub held: Fingerprint,
    pub new: Fingerprint,
}

impl fmt::Display for Collision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the fingerprints {} and {} share their first 64 bits", self.held, self.new)
    }
}

impl core::error::Error for Collision {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bundle is larger than its format can hold")
    }
}

impl core::error::Error for TooLarge {}

type Encoded = Option<(Entry, Arc<[u8]>)>;

fn encoded(kind: Kind, shard: u16, bytes: Vec<u8>) -> Result<Encoded, TooLarge> {
    let entry = Entry::of(kind, shard, &bytes).ok_or(TooLarge)?;
    Ok(Some((entry, bytes.into())))
}

/// A set cut into 2^bits encoded shards; None is one that must be encoded again.
#[derive(Default)]
struct Cut {
    bits: u8,
    shards: Vec<Encoded>,
}

impl Cut {
    fn touch(&mut self, word: u64) {
        let at = usize::from(shard_of(word, self.bits));
        if let Some(shard) = self.shards.get_mut(at) {
            *shard = None;
        }
    }

    /// `write` encodes the members between two leading words, both included.
    fn encode(
        &mut self,
        kind: Kind,
        per_shard: usize,
        members: usize,
        write: impl Fn(u8, u64, u64) -> Option<Vec<u8>>,
    ) -> Result<(), TooLarge> {
        let mut bits = bits_for(members, per_shard);
        // Cut anew only when it pays: a set at the edge of a size must not be encoded whole at every change.
        if !self.shards.is_empty() && self.bits >= bits && self.bits - bits <= 1 {
            bits = self.bits;
        }
        while self.encode_at(bits, kind, &write).is_err() {
            bits += 1;
            if bits > MAX_BITS {
                return Err(TooLarge);
            }
        }
        Ok(())
    }

    fn encode_at(
        &mut self,
        bits: u8,
        kind: Kind,
        write: &impl Fn(u8, u64, u64) -> Option<Vec<u8>>,
    ) -> Result<(), TooLarge> {
        if self.shards.is_empty() || self.bits != bits {
            *self = Self { bits, shards: alloc::vec![None; 1 << bits] };
        }
        let last = u64::MAX.checked_shr(bits.into()).unwrap_or(0);
        for (shard, number) in self.shards.iter_mut().zip(0..=u16::MAX) {
            if shard.is_none() {
                let low = u64::from(number).checked_shl(64 - u32::from(bits)).unwrap_or(0);
                let bytes = write(bits, low, low | last).ok_or(TooLarge)?;
                *shard = encoded(kind, number, bytes)?;
            }
        }
        Ok(())
    }
}

fn bits_for(members: usize, per_shard: usize) -> u8 {
    let shards = members.div_ceil(per_shard).next_power_of_two();
    u8::try_from(shards.trailing_zeros()).unwrap_or(MAX_BITS).min(MAX_BITS)
}

/// 4,096 prefixes take at most 41 KiB at 10 bytes each; fingerprints spread evenly, so no shard comes near 64 KiB.
const PREFIXES_PER_SHARD: usize = 4096;

/// 1,024 watermarks take 24 KiB.
const WATERMARKS_PER_SHARD: usize = 1024;

/// Half an object: grants are not all of a size, and where a shard is too large all are cut anew.
const GRANT_BYTES_PER_SHARD: usize = 32 * 1024;

/// 40 bytes each: with the rest of the manifest well below 4 KiB.
const DIRECT_ENTRIES: usize = 80;

/// 40 bytes each: 40 KiB.
const ENTRIES_PER_INDEX: usize = 1024;
