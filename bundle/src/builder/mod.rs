//! Making bundles: the control plane's and the tests' alone.

#![expect(clippy::arithmetic_side_effects, reason = "does not run in the proxy; sizes are below 2^32")]

mod block;
mod cut;
mod sign;
mod tail;

use alloc::{
    collections::{BTreeMap, BTreeSet, btree_map},
    sync::Arc,
    vec::Vec,
};
use core::fmt;

use token::{Fingerprint, VerifyingKey, api_key::GenerationKey};

use crate::{
    Entry, Gap, Kind, MAX_GRANT_BYTES, Scope, ScopeKey, gaps, grants, keys, object::write_entries,
    revocations, watermarks,
};
use cut::{Cut, Encoded, encoded};
use tail::{Tail, What};

pub use crate::{carried::carry, keys::SecretKey};
pub use block::{Block, BlockBuilder, BlockError};
pub use sign::{CheckpointDraft, Delegates, Draft, Root, SnapshotKey, TailKey};

/// Everything edges are to know.
///
/// Revocations and watermarks take effect with the next [`build`](Self::build): they stand in the tail. All else waits
/// for [`settle`](Self::settle), after which a snapshot key must sign. Only what has changed is encoded again.
#[derive(Default)]
pub struct Builder {
    keys: Encoded,
    secret_keys: Encoded,
    /// By prefix, so that two fingerprints never share one unnoticed; those in the tail too.
    revoked: BTreeMap<u64, Fingerprint>,
    revocations: Cut,
    restored: BTreeMap<u64, Fingerprint>,
    restorations: Cut,
    instants: BTreeMap<ScopeKey, u64>,
    watermarks: Cut,
    granted: BTreeMap<ScopeKey, Arc<[u8]>>,
    grants: Cut,
    gaps: Encoded,
    /// By prefix: issued in a gap.
    known: BTreeSet<u64>,
    known_shards: Cut,
    blocks: BTreeMap<u16, Block>,
    tail: Tail,
    settled: Settled,
    /// Something waits that only a checkpoint can say.
    unsettled: bool,
}

/// The content of a checkpoint.
#[derive(Default)]
struct Settled {
    cut: u64,
    entries: Vec<Entry>,
    objects: Vec<(Entry, Arc<[u8]>)>,
    /// Edges hold shards under these numbers.
    blocks: Vec<u16>,
}

impl Builder {
    /// Replaces the public keys; symmetric ones among them are left out.
    pub fn keys<'a>(&mut self, keys: impl IntoIterator<Item = &'a VerifyingKey>) -> Result<(), TooLarge> {
        self.public_keys(keys, [])
    }

    /// Replaces the public keys, those that API keys are signed with too; symmetric ones of either are left out.
    pub fn public_keys<'a>(
        &mut self,
        keys: impl IntoIterator<Item = &'a VerifyingKey>,
        generations: impl IntoIterator<Item = &'a GenerationKey>,
    ) -> Result<(), TooLarge> {
        let bytes = keys::write_public(keys.into_iter(), generations.into_iter()).ok_or(TooLarge)?;
        self.keys = Some(encoded(Kind::Keys, 0, bytes)?);
        self.unsettled = true;
        Ok(())
    }

    /// Replaces the symmetric keys.
    pub fn secret_keys<'a>(
        &mut self,
        keys: impl IntoIterator<Item = impl Into<SecretKey<'a>>>,
    ) -> Result<(), TooLarge> {
        let secrets: Vec<SecretKey<'a>> = keys.into_iter().map(Into::into).collect();
        let bytes = keys::write_secret(&secrets).ok_or(TooLarge)?;
        self.secret_keys = Some(encoded(Kind::SecretKeys, 0, bytes)?);
        self.unsettled = true;
        Ok(())
    }

    /// Edges are to hold no symmetric keys, from the next checkpoint on.
    pub fn no_secret_keys(&mut self) {
        self.unsettled |= self.secret_keys.take().is_some();
    }

    /// Whether it is new. `number` is that of the transaction, no lower than any before. Refused when another
    /// fingerprint with the same first 64 bits is there: edges could not tell the two apart.
    pub fn revoke(&mut self, number: u64, fingerprint: Fingerprint) -> Result<bool, Collision> {
        let prefix = fingerprint.prefix();
        self.check(fingerprint)?;
        if self.revoked.insert(prefix, fingerprint).is_some() {
            return Ok(false);
        }
        self.revocations.touch(prefix);
        self.forget_restoration(&fingerprint);
        self.tail.add(number, What::Revoke(prefix));
        Ok(true)
    }

    /// Takes a revocation back: from the next checkpoint on the credential is good again, whatever the base says.
    /// Whether that changes anything.
    pub fn restore(&mut self, fingerprint: Fingerprint) -> Result<bool, Collision> {
        let prefix = fingerprint.prefix();
        self.check(fingerprint)?;
        let revoked = self.revoked.remove(&prefix).is_some();
        if revoked {
            self.revocations.touch(prefix);
        }
        let new = self.restored.insert(prefix, fingerprint).is_none();
        if new {
            self.restorations.touch(prefix);
        }
        self.unsettled |= revoked || new;
        Ok(revoked || new)
    }

    /// Drops a revocation whose credential has expired, or that a base says now. Whether it was there.
    pub fn forget(&mut self, fingerprint: &Fingerprint) -> bool {
        remove(&mut self.revoked, &mut self.revocations, fingerprint)
    }

    /// Drops a restoration whose credential has expired, or that no base contradicts any more. Whether it was there.
    pub fn forget_restoration(&mut self, fingerprint: &Fingerprint) -> bool {
        remove(&mut self.restored, &mut self.restorations, fingerprint)
    }

    fn check(&self, new: Fingerprint) -> Result<(), Collision> {
        let prefix = new.prefix();
        let held = self.revoked.get(&prefix).or_else(|| self.restored.get(&prefix));
        match held {
            Some(held) if *held != new => Err(Collision { held: *held, new }),
            _ => Ok(()),
        }
    }

    /// Moves a watermark forward, never back; `number` as with [`revoke`](Self::revoke). Whether it moved.
    pub fn watermark(&mut self, number: u64, scope: Scope<'_>, instant: u64) -> bool {
        let key = ScopeKey::of(scope);
        if self.instants.get(&key).is_some_and(|held| *held >= instant) {
            return false;
        }
        self.instants.insert(key, instant);
        self.watermarks.touch(key.word());
        self.tail.add(number, What::Raise(key, instant));
        true
    }

    /// Whether there was one.
    pub fn remove_watermark(&mut self, scope: Scope<'_>) -> bool {
        let held = self.forget_watermark(scope);
        self.unsettled |= held;
        held
    }

    /// Moves a watermark back, which from the next checkpoint on edges know. Whether it was later.
    pub fn lower_watermark(&mut self, scope: Scope<'_>, instant: u64) -> bool {
        let key = ScopeKey::of(scope);
        match self.instants.get_mut(&key) {
            Some(held) if *held > instant => *held = instant,
            _ => return false,
        }
        self.watermarks.touch(key.word());
        self.unsettled = true;
        true
    }

    /// Drops a watermark that refuses nothing any more, as all it covers has expired. Whether it was there.
    pub fn forget_watermark(&mut self, scope: impl Into<ScopeKey>) -> bool {
        let key = scope.into();
        let held = self.instants.remove(&key).is_some();
        if held {
            self.watermarks.touch(key.word());
        }
        held
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
        self.unsettled = true;
        Ok(true)
    }

    /// Takes back whatever a subject was granted. Whether that was anything.
    pub fn ungrant(&mut self, subject: &str) -> bool {
        let key = ScopeKey::of(Scope::User(subject));
        let held = self.granted.remove(&key).is_some();
        if held {
            self.grants.touch(key.word());
            self.unsettled = true;
        }
        held
    }

    /// Replaces the gaps, and what is known of the credentials that were issued in them. From the next checkpoint on.
    pub fn gaps(
        &mut self,
        gaps: &[Gap],
        known: impl IntoIterator<Item = Fingerprint>,
    ) -> Result<(), TooLarge> {
        let mut sorted = gaps.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let gaps = match sorted.is_empty() {
            true => None,
            false => Some(encoded(Kind::Gaps, 0, gaps::write(&sorted))?),
        };
        let known: BTreeSet<u64> = known.into_iter().map(|fingerprint| fingerprint.prefix()).collect();
        if gaps != self.gaps || known != self.known {
            (self.gaps, self.known, self.known_shards) = (gaps, known, Cut::default());
            self.unsettled = true;
        }
        Ok(())
    }

    /// Adds a block of the base and gives the number it got. Until the next checkpoint all is as before: so what it has
    /// taken in may be forgotten, and the block it replaces dropped, right after.
    pub fn install(&mut self, block: Block) -> Result<u16, TooLarge> {
        block.head().ok_or(TooLarge)?;
        // Not one that edges hold now: their old shards stay whole while the new ones come in.
        let is_free =
            |number: &u16| !self.blocks.contains_key(number) && !self.settled.blocks.contains(number);
        let number = (0..=u16::MAX).find(is_free).ok_or(TooLarge)?;
        self.blocks.insert(number, block);
        self.unsettled = true;
        Ok(number)
    }

    /// Whether it was there.
    pub fn drop_block(&mut self, number: u16) -> bool {
        let held = self.blocks.remove(&number).is_some();
        self.unsettled |= held;
        held
    }

    pub fn blocks(&self) -> impl Iterator<Item = (u16, &Block)> {
        self.blocks.iter().map(|(number, block)| (*number, block))
    }

    /// How many revocations there are beside those in blocks.
    pub fn revoked(&self) -> usize {
        self.revoked.len()
    }

    /// How many operations stand in the tail.
    pub fn tail(&self) -> usize {
        self.tail.len()
    }

    /// Whether it is time to [`settle`](Self::settle): something waits for it, or the tail is long.
    pub fn needs_checkpoint(&self) -> bool {
        self.unsettled || self.tail.len() > tail::SEGMENT
    }

    /// Makes all that is known now the content of the next checkpoint, up to operation `number`, and begins a new tail.
    pub fn settle(&mut self, number: u64) -> Result<(), TooLarge> {
        self.encode_sets()?;
        let cut = self.tail.last().max(number);
        let mut direct: Vec<(Entry, Arc<[u8]>)> =
            self.keys.iter().chain(&self.secret_keys).chain(&self.gaps).cloned().collect();
        let mut objects = direct.clone();
        let cuts =
            [&self.revocations, &self.watermarks, &self.grants, &self.restorations, &self.known_shards];
        let sharded: Vec<_> = cuts.into_iter().flat_map(|cut| &cut.shards).flatten().cloned().collect();
        for (number, block) in &self.blocks {
            let head = encoded(Kind::Block, *number, block.head().ok_or(TooLarge)?)?;
            objects.push(head.clone());
            objects.extend(block.objects(*number));
            direct.push(head);
        }
        objects.extend(sharded.iter().cloned());
        if direct.len() + sharded.len() <= DIRECT_ENTRIES {
            direct.extend(sharded);
        } else {
            let mut entries: Vec<Entry> = sharded.iter().map(|(entry, _)| *entry).collect();
            entries.sort_unstable();
            for (chunk, shard) in entries.chunks(ENTRIES_PER_INDEX).zip(0..) {
                let mut bytes = Vec::new();
                write_entries(&mut bytes, chunk).ok_or(TooLarge)?;
                let index = encoded(Kind::Index, shard, bytes)?;
                objects.push(index.clone());
                direct.push(index);
            }
        }
        let mut entries: Vec<Entry> = direct.iter().map(|(entry, _)| *entry).collect();
        entries.sort_unstable();
        self.settled = Settled { cut, entries, objects, blocks: self.blocks.keys().copied().collect() };
        self.tail.clear(cut);
        self.unsettled = false;
        Ok(())
    }

    fn encode_sets(&mut self) -> Result<(), TooLarge> {
        for (set, cut, kind) in [
            (&self.revoked, &mut self.revocations, Kind::Revocations),
            (&self.restored, &mut self.restorations, Kind::Restorations),
        ] {
            if set.is_empty() && kind == Kind::Restorations {
                *cut = Cut::default();
                continue;
            }
            cut.encode(kind, PREFIXES_PER_SHARD, set.len(), |bits, low, high| {
                let prefixes: Vec<u64> = set.range(low..=high).map(|(prefix, _)| *prefix).collect();
                Some(revocations::write(bits, &prefixes))
            })?;
        }
        let known = &self.known;
        if !known.is_empty() {
            self.known_shards.encode(Kind::Known, PREFIXES_PER_SHARD, known.len(), |bits, low, high| {
                let prefixes: Vec<u64> = known.range(low..=high).copied().collect();
                Some(revocations::write(bits, &prefixes))
            })?;
        }
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
        Ok(())
    }

    /// The content as of the last [`settle`](Self::settle), which there must have been, and the tail as of now.
    pub fn build(&mut self) -> Result<Built, TooLarge> {
        let tail: Vec<(Entry, Arc<[u8]>)> = self.tail.encode()?.cloned().collect();
        let Settled { cut, entries, objects, .. } = &self.settled;
        Ok(Built {
            cut: *cut,
            checkpoint: entries.clone(),
            tail: tail.iter().map(|(entry, _)| *entry).collect(),
            objects: objects.iter().cloned().chain(tail).collect(),
        })
    }
}

fn remove(set: &mut BTreeMap<u64, Fingerprint>, cut: &mut Cut, fingerprint: &Fingerprint) -> bool {
    let prefix = fingerprint.prefix();
    match set.entry(prefix) {
        btree_map::Entry::Occupied(held) if held.get() == fingerprint => {
            held.remove();
            cut.touch(prefix);
            true
        }
        _ => false,
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { revoked, restored, instants, granted, blocks, tail, .. } = self;
        let counts = [revoked.len(), restored.len(), instants.len(), granted.len(), blocks.len(), tail.len()];
        write!(f, "Builder({counts:?} revocations, restorations, watermarks, grants, blocks, operations)")
    }
}

/// A bundle without its checkpoint and its manifest.
#[derive(Clone)]
pub struct Built {
    /// For the checkpoint.
    pub cut: u64,
    /// For the checkpoint, in its order.
    pub checkpoint: Vec<Entry>,
    /// For the manifest, in its order.
    pub tail: Vec<Entry>,
    /// All objects, those behind an index or a block too.
    pub objects: Vec<(Entry, Arc<[u8]>)>,
}

impl fmt::Debug for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.objects.iter().map(|(entry, _)| entry)).finish()
    }
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
