//! A set divided into shards; only changed shards are encoded again.

use alloc::{sync::Arc, vec::Vec};

use super::TooLarge;
use crate::{
    Entry, ObjectKind,
    shards::{MAX_BITS, shard_of},
};

/// An encoded object, or `None` if there is none or it must be encoded again.
pub(super) type OptionalObject = Option<(Entry, Arc<[u8]>)>;

/// Returns the object with its entry. Fails if it is larger than an object may be.
pub(super) fn encode_object(
    kind: ObjectKind,
    shard: u16,
    bytes: Vec<u8>,
) -> Result<(Entry, Arc<[u8]>), TooLarge> {
    let entry = Entry::for_bytes(kind, shard, &bytes).ok_or(TooLarge)?;
    Ok((entry, bytes.into()))
}

/// The 2^bits encoded shards of a set. A shard that must be encoded again is `None`.
#[derive(Default)]
pub(super) struct ShardedSet {
    bits: u8,
    pub(super) shards: Vec<OptionalObject>,
}

impl ShardedSet {
    /// Marks the shard of the member with this leading word as changed.
    pub(super) fn mark_dirty(&mut self, word: u64) {
        let at = usize::from(shard_of(word, self.bits));
        if let Some(shard) = self.shards.get_mut(at) {
            *shard = None;
        }
    }

    /// Encodes the changed shards, with about `per_shard` members each. `encode_range` encodes the members between two
    /// leading words, both inclusive, for a given number of shard bits.
    pub(super) fn encode(
        &mut self,
        kind: ObjectKind,
        per_shard: usize,
        members: usize,
        encode_range: impl Fn(u8, u64, u64) -> Option<Vec<u8>>,
    ) -> Result<(), TooLarge> {
        let mut bits = bits_for_len(members, per_shard);
        // Keep a number of shards that is up to twice the best one, so that a set whose size varies around a threshold
        // is not encoded completely at every change.
        if !self.shards.is_empty() && self.bits >= bits && self.bits - bits <= 1 {
            bits = self.bits;
        }
        while self.encode_with_bits(bits, kind, &encode_range).is_err() {
            bits += 1;
            if bits > MAX_BITS {
                return Err(TooLarge);
            }
        }
        Ok(())
    }

    fn encode_with_bits(
        &mut self,
        bits: u8,
        kind: ObjectKind,
        encode_range: &impl Fn(u8, u64, u64) -> Option<Vec<u8>>,
    ) -> Result<(), TooLarge> {
        if self.shards.is_empty() || self.bits != bits {
            *self = Self { bits, shards: alloc::vec![None; 1 << bits] };
        }
        let last = u64::MAX.checked_shr(bits.into()).unwrap_or(0);
        for (shard, number) in self.shards.iter_mut().zip(0..=u16::MAX) {
            if shard.is_none() {
                let low = u64::from(number).checked_shl(64 - u32::from(bits)).unwrap_or(0);
                let bytes = encode_range(bits, low, low | last).ok_or(TooLarge)?;
                *shard = Some(encode_object(kind, number, bytes)?);
            }
        }
        Ok(())
    }
}

/// Returns the number of bits for shards of at most `per_shard` members on average.
fn bits_for_len(members: usize, per_shard: usize) -> u8 {
    let shards = members.div_ceil(per_shard).next_power_of_two();
    u8::try_from(shards.trailing_zeros()).unwrap_or(MAX_BITS).min(MAX_BITS)
}
