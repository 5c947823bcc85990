//! Builds and signs bundles. Only the control plane and tests enable this module.

#![expect(clippy::arithmetic_side_effects, reason = "does not run in the proxy; sizes are below 2^32")]

mod block;
mod sharded_set;
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
    Entry, Gap, MAX_GRANT_BYTES, ObjectKind, Requirements, Scope, ScopeKey, gaps, grants, keys,
    object::encode_entries, revocations, watermarks,
};
use sharded_set::{OptionalObject, ShardedSet, encode_object};
use tail::{OperationKind, TailBuilder};

pub use crate::keys::SecretKey;
pub use block::{BlockBuilder, BlockError, BuiltBlock};
pub use sign::{CheckpointFields, DelegationFields, ManifestFields, RootKey, SnapshotKey, TailKey};

/// 4,096 prefixes take at most 41 KiB, at 10 bytes each. Fingerprints are uniform, so no shard comes close to 64 KiB.
const TARGET_PREFIXES_PER_SHARD: usize = 4096;

/// 1,024 watermarks take 24 KiB.
const TARGET_WATERMARKS_PER_SHARD: usize = 1024;

/// Half an object, because grants vary in size and one shard that is too large causes all to be encoded again.
const TARGET_GRANT_BYTES_PER_SHARD: usize = 32 * 1024;

/// Entries in a checkpoint without an index, 40 bytes each.
const MAX_DIRECT_ENTRIES: usize = 80;

/// 40 KiB, at 40 bytes each.
const MAX_ENTRIES_PER_INDEX: usize = 1024;

/// The state that edges are to receive, and its encoding.
///
/// New revocations and raised watermarks are part of the tail and take effect with the next [`build`](Self::build). All
/// other changes take effect with the next [`checkpoint`](Self::checkpoint), which a snapshot key must sign. Only changed
/// objects are encoded again.
#[derive(Default)]
pub struct Builder {
    keys: OptionalObject,
    secret_keys: OptionalObject,
    /// By prefix, to detect collisions. Includes those in the tail.
    revocations: BTreeMap<u64, Fingerprint>,
    revocation_shards: ShardedSet,
    unrevocations: BTreeMap<u64, Fingerprint>,
    unrevocation_shards: ShardedSet,
    watermarks: BTreeMap<ScopeKey, u64>,
    watermark_shards: ShardedSet,
    grants: BTreeMap<ScopeKey, Arc<[u8]>>,
    grant_shards: ShardedSet,
    /// The scopes of watermarks and grants that need [`Requirements::HOLDERS`].
    holders: BTreeSet<ScopeKey>,
    gaps: OptionalObject,
    /// The prefixes of the known fingerprints of credentials issued in a gap.
    known: BTreeSet<u64>,
    known_shards: ShardedSet,
    blocks: BTreeMap<u16, BuiltBlock>,
    tail: TailBuilder,
    state: CheckpointState,
    /// A change is pending that only a checkpoint can publish.
    has_pending_changes: bool,
}

/// The content of a checkpoint.
#[derive(Default)]
struct CheckpointState {
    covered_until: u64,
    entries: Vec<Entry>,
    objects: Vec<(Entry, Arc<[u8]>)>,
    /// The numbers of the blocks whose shards edges may still have.
    blocks: Vec<u16>,
    /// Whether it requires [`Requirements::HOLDERS`].
    requires_holders: bool,
}

impl Builder {
    /// Replaces the public keys by these token keys. Symmetric keys are skipped.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if they do not fit one object.
    pub fn set_verifying_keys<'a>(
        &mut self,
        keys: impl IntoIterator<Item = &'a VerifyingKey>,
    ) -> Result<(), TooLarge> {
        self.set_public_keys(keys, [])
    }

    /// Replaces the public keys by these token keys and these keys of API key generations. Symmetric keys are skipped.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if they do not fit one object.
    pub fn set_public_keys<'a>(
        &mut self,
        keys: impl IntoIterator<Item = &'a VerifyingKey>,
        generations: impl IntoIterator<Item = &'a GenerationKey>,
    ) -> Result<(), TooLarge> {
        let bytes = keys::encode_public(keys.into_iter(), generations.into_iter()).ok_or(TooLarge)?;
        self.keys = Some(encode_object(ObjectKind::Keys, 0, bytes)?);
        self.has_pending_changes = true;
        Ok(())
    }

    /// Replaces the symmetric keys.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if they do not fit one object.
    pub fn set_secret_keys<'a>(
        &mut self,
        keys: impl IntoIterator<Item = impl Into<SecretKey<'a>>>,
    ) -> Result<(), TooLarge> {
        let secrets: Vec<SecretKey<'a>> = keys.into_iter().map(Into::into).collect();
        let bytes = keys::encode_secret(&secrets).ok_or(TooLarge)?;
        self.secret_keys = Some(encode_object(ObjectKind::SecretKeys, 0, bytes)?);
        self.has_pending_changes = true;
        Ok(())
    }

    /// Removes the symmetric keys from the next checkpoint.
    pub fn remove_secret_keys(&mut self) {
        self.has_pending_changes |= self.secret_keys.take().is_some();
    }

    /// Revokes a fingerprint and returns whether that is a change. `number` is the number of the transaction and never
    /// decreases.
    ///
    /// # Errors
    ///
    /// [`Collision`] if another fingerprint with the same first 64 bits is revoked or un-revoked: edges could not
    /// distinguish the two.
    pub fn revoke(&mut self, number: u64, fingerprint: Fingerprint) -> Result<bool, Collision> {
        let prefix = fingerprint.prefix();
        self.check_collision(fingerprint)?;
        if self.revocations.insert(prefix, fingerprint).is_some() {
            return Ok(false);
        }
        self.revocation_shards.mark_dirty(prefix);
        self.remove_unrevocation(&fingerprint);
        self.tail.add(number, OperationKind::Revoke(prefix));
        Ok(true)
    }

    /// Un-revokes a fingerprint: the next checkpoint overrides its revocation and the base. Returns whether that is a change.
    ///
    /// # Errors
    ///
    /// [`Collision`] if another fingerprint with the same first 64 bits is revoked or un-revoked.
    pub fn unrevoke(&mut self, fingerprint: Fingerprint) -> Result<bool, Collision> {
        let prefix = fingerprint.prefix();
        self.check_collision(fingerprint)?;
        let revoked = self.revocations.remove(&prefix).is_some();
        if revoked {
            self.revocation_shards.mark_dirty(prefix);
        }
        let new = self.unrevocations.insert(prefix, fingerprint).is_none();
        if new {
            self.unrevocation_shards.mark_dirty(prefix);
        }
        self.has_pending_changes |= revoked || new;
        Ok(revoked || new)
    }

    /// Removes a revocation that is redundant, because the credential has expired or the base contains it. Returns whether
    /// it existed.
    pub fn remove_revocation(&mut self, fingerprint: &Fingerprint) -> bool {
        remove(&mut self.revocations, &mut self.revocation_shards, fingerprint)
    }

    /// Removes an un-revocation that is redundant, because the credential has expired or the base no longer contains it as
    /// revoked. Returns whether it existed.
    pub fn remove_unrevocation(&mut self, fingerprint: &Fingerprint) -> bool {
        remove(&mut self.unrevocations, &mut self.unrevocation_shards, fingerprint)
    }

    /// Checks that no other fingerprint has the same prefix.
    fn check_collision(&self, new: Fingerprint) -> Result<(), Collision> {
        let prefix = new.prefix();
        let held = self.revocations.get(&prefix).or_else(|| self.unrevocations.get(&prefix));
        match held {
            Some(held) if *held != new => Err(Collision { held: *held, new }),
            _ => Ok(()),
        }
    }

    /// Raises a watermark to `instant`, in seconds since the Unix epoch. Never lowers it. `number` is as in
    /// [`revoke`](Self::revoke). Returns whether that is a change.
    pub fn raise_watermark(&mut self, number: u64, scope: Scope<'_>, instant: u64) -> bool {
        let key = ScopeKey::new(scope);
        if self.watermarks.get(&key).is_some_and(|held| *held >= instant) {
            return false;
        }
        self.watermarks.insert(key, instant);
        self.watermark_shards.mark_dirty(key.word());
        self.note_holder(scope);
        self.tail.add(number, OperationKind::RaiseWatermark(key, instant));
        true
    }

    /// Lets the next checkpoint require what edges need for this scope. The tail alone cannot require it.
    fn note_holder(&mut self, scope: Scope<'_>) {
        if scope.needs_holders() {
            self.holders.insert(scope.into());
            self.has_pending_changes |= !self.state.requires_holders;
        }
    }

    /// Removes a watermark from the next checkpoint. Returns whether it existed.
    pub fn remove_watermark(&mut self, scope: Scope<'_>) -> bool {
        let held = self.delete_watermark(scope.into());
        self.has_pending_changes |= held;
        held
    }

    /// Lowers a watermark to `instant`, in seconds since the Unix epoch, in the next checkpoint. Returns whether that is a
    /// change.
    pub fn lower_watermark(&mut self, scope: Scope<'_>, instant: u64) -> bool {
        let key = ScopeKey::new(scope);
        match self.watermarks.get_mut(&key) {
            Some(held) if *held > instant => *held = instant,
            _ => return false,
        }
        self.watermark_shards.mark_dirty(key.word());
        self.has_pending_changes = true;
        true
    }

    /// Removes a watermark that is redundant, because every credential it applies to has expired. Needs no checkpoint.
    /// Returns whether it existed.
    pub fn remove_expired_watermark(&mut self, scope: impl Into<ScopeKey>) -> bool {
        self.delete_watermark(scope.into())
    }

    fn delete_watermark(&mut self, key: ScopeKey) -> bool {
        let held = self.watermarks.remove(&key).is_some();
        if held {
            self.watermark_shards.mark_dirty(key.word());
        }
        held
    }

    /// Replaces the permission statements of a subject. Returns whether that is a change.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if they are longer than [`MAX_GRANT_BYTES`].
    pub fn set_grant(&mut self, subject: &str, statements: &[u8]) -> Result<bool, TooLarge> {
        if statements.len() > MAX_GRANT_BYTES {
            return Err(TooLarge);
        }
        let key = ScopeKey::new(Scope::User(subject));
        if self.grants.get(&key).is_some_and(|held| **held == *statements) {
            return Ok(false);
        }
        self.grants.insert(key, statements.into());
        self.grant_shards.mark_dirty(key.word());
        self.note_holder(Scope::User(subject));
        self.has_pending_changes = true;
        Ok(true)
    }

    /// Removes the grant of a subject. Returns whether it existed.
    pub fn remove_grant(&mut self, subject: &str) -> bool {
        let key = ScopeKey::new(Scope::User(subject));
        let held = self.grants.remove(&key).is_some();
        if held {
            self.grant_shards.mark_dirty(key.word());
            self.has_pending_changes = true;
        }
        held
    }

    /// Replaces the gaps and the known fingerprints of credentials that were issued in them.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if the gaps do not fit one object.
    pub fn set_gaps(
        &mut self,
        gaps: &[Gap],
        known: impl IntoIterator<Item = Fingerprint>,
    ) -> Result<(), TooLarge> {
        let mut sorted = gaps.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let gaps = match sorted.is_empty() {
            true => None,
            false => Some(encode_object(ObjectKind::Gaps, 0, gaps::encode(&sorted))?),
        };
        let known: BTreeSet<u64> = known.into_iter().map(|fingerprint| fingerprint.prefix()).collect();
        if gaps != self.gaps || known != self.known {
            (self.gaps, self.known, self.known_shards) = (gaps, known, ShardedSet::default());
            self.has_pending_changes = true;
        }
        Ok(())
    }

    /// Adds a block of the base and returns its number. Edges receive it with the next checkpoint, so the caller may
    /// immediately remove the revocations that it contains and the block that it replaces.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if all block numbers are in use.
    pub fn install_block(&mut self, block: BuiltBlock) -> Result<u16, TooLarge> {
        block.head().ok_or(TooLarge)?;
        // Edges keep the shards of the current checkpoint while they fetch new ones, so their numbers are not reused.
        let is_free = |number: &u16| !self.blocks.contains_key(number) && !self.state.blocks.contains(number);
        let number = (0..=u16::MAX).find(is_free).ok_or(TooLarge)?;
        self.blocks.insert(number, block);
        self.has_pending_changes = true;
        Ok(number)
    }

    /// Removes a block from the next checkpoint. Returns whether it existed.
    pub fn remove_block(&mut self, number: u16) -> bool {
        let held = self.blocks.remove(&number).is_some();
        self.has_pending_changes |= held;
        held
    }

    /// Returns the blocks with their numbers.
    pub fn blocks(&self) -> impl Iterator<Item = (u16, &BuiltBlock)> {
        self.blocks.iter().map(|(number, block)| (*number, block))
    }

    /// Returns the number of revocations outside blocks.
    pub fn revocation_count(&self) -> usize {
        self.revocations.len()
    }

    /// Returns the number of operations in the tail.
    pub fn tail_len(&self) -> usize {
        self.tail.len()
    }

    /// Returns whether a [`checkpoint`](Self::checkpoint) is due, because a change requires it or the tail is long.
    pub fn needs_checkpoint(&self) -> bool {
        self.has_pending_changes || self.tail.len() > tail::MAX_SEGMENT_OPERATIONS
    }

    /// Makes the current state the content of the checkpoint, up to operation `number`, and starts a new tail.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if a set does not fit the format.
    pub fn checkpoint(&mut self, number: u64) -> Result<(), TooLarge> {
        self.encode_sets()?;
        let covered_until = self.tail.last().max(number);
        let Self { holders, watermarks, grants, .. } = self;
        holders.retain(|scope| watermarks.contains_key(scope) || grants.contains_key(scope));
        let requirements = match holders.is_empty() {
            true => None,
            false => Some(encode_object(ObjectKind::Requirements, 0, Requirements::HOLDERS.encode())?),
        };
        let mut direct: Vec<(Entry, Arc<[u8]>)> = self
            .keys
            .iter()
            .chain(&self.secret_keys)
            .chain(&self.gaps)
            .chain(&requirements)
            .cloned()
            .collect();
        let mut objects = direct.clone();
        let sharded_sets = [
            &self.revocation_shards,
            &self.watermark_shards,
            &self.grant_shards,
            &self.unrevocation_shards,
            &self.known_shards,
        ];
        let sharded: Vec<_> =
            sharded_sets.into_iter().flat_map(|set| &set.shards).flatten().cloned().collect();
        for (number, block) in &self.blocks {
            let head = encode_object(ObjectKind::Block, *number, block.head().ok_or(TooLarge)?)?;
            objects.push(head.clone());
            objects.extend(block.objects(*number));
            direct.push(head);
        }
        objects.extend(sharded.iter().cloned());
        if direct.len() + sharded.len() <= MAX_DIRECT_ENTRIES {
            direct.extend(sharded);
        } else {
            let mut entries: Vec<Entry> = sharded.iter().map(|(entry, _)| *entry).collect();
            entries.sort_unstable();
            for (chunk, shard) in entries.chunks(MAX_ENTRIES_PER_INDEX).zip(0..) {
                let mut bytes = Vec::new();
                encode_entries(&mut bytes, chunk).ok_or(TooLarge)?;
                let index = encode_object(ObjectKind::Index, shard, bytes)?;
                objects.push(index.clone());
                direct.push(index);
            }
        }
        let mut entries: Vec<Entry> = direct.iter().map(|(entry, _)| *entry).collect();
        entries.sort_unstable();
        self.state = CheckpointState {
            covered_until,
            entries,
            objects,
            blocks: self.blocks.keys().copied().collect(),
            requires_holders: requirements.is_some(),
        };
        self.tail.clear(covered_until);
        self.has_pending_changes = false;
        Ok(())
    }

    /// Encodes the changed shards of all sets.
    fn encode_sets(&mut self) -> Result<(), TooLarge> {
        for (set, shards, kind) in [
            (&self.revocations, &mut self.revocation_shards, ObjectKind::Revocations),
            (&self.unrevocations, &mut self.unrevocation_shards, ObjectKind::Unrevocations),
        ] {
            if set.is_empty() && kind == ObjectKind::Unrevocations {
                *shards = ShardedSet::default();
                continue;
            }
            shards.encode(kind, TARGET_PREFIXES_PER_SHARD, set.len(), |bits, low, high| {
                let prefixes: Vec<u64> = set.range(low..=high).map(|(prefix, _)| *prefix).collect();
                Some(revocations::encode(bits, &prefixes))
            })?;
        }
        let known = &self.known;
        if !known.is_empty() {
            self.known_shards.encode(
                ObjectKind::Known,
                TARGET_PREFIXES_PER_SHARD,
                known.len(),
                |bits, low, high| {
                    let prefixes: Vec<u64> = known.range(low..=high).copied().collect();
                    Some(revocations::encode(bits, &prefixes))
                },
            )?;
        }
        let watermarks = &self.watermarks;
        self.watermark_shards.encode(
            ObjectKind::Watermarks,
            TARGET_WATERMARKS_PER_SHARD,
            watermarks.len(),
            |bits, low, high| {
                let (low, high) = (ScopeKey::from_words(low, 0), ScopeKey::from_words(high, u64::MAX));
                let held: Vec<_> =
                    watermarks.range(low..=high).map(|(scope, instant)| (*scope, *instant)).collect();
                Some(watermarks::encode(bits, &held))
            },
        )?;
        let grants = &self.grants;
        if grants.is_empty() {
            self.grant_shards = ShardedSet::default();
        } else {
            let bytes = grants.values().map(|grant| grant.len() + grants::ROW_LEN).sum();
            self.grant_shards.encode(
                ObjectKind::Grants,
                TARGET_GRANT_BYTES_PER_SHARD,
                bytes,
                |bits, low, high| {
                    let (low, high) = (ScopeKey::from_words(low, 0), ScopeKey::from_words(high, u64::MAX));
                    let held: Vec<_> =
                        grants.range(low..=high).map(|(subject, grant)| (*subject, &**grant)).collect();
                    grants::encode(bits, &held)
                },
            )?;
        }
        Ok(())
    }

    /// Returns the content of the last [`checkpoint`](Self::checkpoint), which must have been called before, and the
    /// current tail.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if a segment of the tail does not fit one object.
    pub fn build(&mut self) -> Result<BuiltBundle, TooLarge> {
        let tail: Vec<(Entry, Arc<[u8]>)> = self.tail.encode()?.cloned().collect();
        let CheckpointState { covered_until, entries, objects, .. } = &self.state;
        Ok(BuiltBundle {
            covered_until: *covered_until,
            checkpoint: entries.clone(),
            tail: tail.iter().map(|(entry, _)| *entry).collect(),
            objects: objects.iter().cloned().chain(tail).collect(),
        })
    }
}

/// Removes a fingerprint from a set. Returns whether it was a member.
fn remove(set: &mut BTreeMap<u64, Fingerprint>, shards: &mut ShardedSet, fingerprint: &Fingerprint) -> bool {
    let prefix = fingerprint.prefix();
    match set.entry(prefix) {
        btree_map::Entry::Occupied(held) if held.get() == fingerprint => {
            held.remove();
            shards.mark_dirty(prefix);
            true
        }
        _ => false,
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { revocations, unrevocations, watermarks, grants, blocks, tail, .. } = self;
        let counts = [
            revocations.len(),
            unrevocations.len(),
            watermarks.len(),
            grants.len(),
            blocks.len(),
            tail.len(),
        ];
        write!(f, "Builder({counts:?} revocations, unrevocations, watermarks, grants, blocks, operations)")
    }
}

/// A bundle without its signed parts, the checkpoint and the manifest.
#[derive(Clone)]
pub struct BuiltBundle {
    /// The number of the last operation in the checkpoint, for [`CheckpointFields`].
    pub covered_until: u64,
    /// The entries of the checkpoint, for [`CheckpointFields`].
    pub checkpoint: Vec<Entry>,
    /// The entries of the tail, for [`ManifestFields`].
    pub tail: Vec<Entry>,
    /// All objects except the checkpoint, including those that only an index or a block names.
    pub objects: Vec<(Entry, Arc<[u8]>)>,
}

impl fmt::Debug for BuiltBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.objects.iter().map(|(entry, _)| entry)).finish()
    }
}

/// Two fingerprints have the same first 64 bits, so edges could not distinguish them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collision {
    /// The fingerprint in the set.
    pub held: Fingerprint,
    /// The fingerprint that was to be added.
    pub new: Fingerprint,
}

impl fmt::Display for Collision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the fingerprints {} and {} share their first 64 bits", self.held, self.new)
    }
}

impl core::error::Error for Collision {}

/// The content exceeds a limit of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bundle exceeds a limit of its format")
    }
}

impl core::error::Error for TooLarge {}
