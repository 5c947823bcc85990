//! A set cut into shards, of which only those are encoded again that have changed.

use alloc::{sync::Arc, vec::Vec};

use super::TooLarge;
use crate::{
    Entry, Kind,
    shards::{MAX_BITS, shard_of},
};

pub(super) type Encoded = Option<(Entry, Arc<[u8]>)>;

pub(super) fn encoded(kind: Kind, shard: u16, bytes: Vec<u8>) -> Result<(Entry, Arc<[u8]>), TooLarge> {
    let entry = Entry::of(kind, shard, &bytes).ok_or(TooLarge)?;
    Ok((entry, bytes.into()))
}

/// A set cut into 2^bits encoded shards; None is one that must be encoded again.
#[derive(Default)]
pub(super) struct Cut {
    bits: u8,
    pub(super) shards: Vec<Encoded>,
}

impl Cut {
    pub(super) fn touch(&mut self, word: u64) {
        let at = usize::from(shard_of(word, self.bits));
        if let Some(shard) = self.shards.get_mut(at) {
            *shard = None;
        }
    }

    /// `write` encodes the members between two leading words, both included.
    pub(super) fn encode(
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
                *shard = Some(encoded(kind, number, bytes)?);
            }
        }
        Ok(())
    }
}

fn bits_for(members: usize, per_shard: usize) -> u8 {
    let shards = members.div_ceil(per_shard).next_power_of_two();
    u8::try_from(shards.trailing_zeros()).unwrap_or(MAX_BITS).min(MAX_BITS)
}
