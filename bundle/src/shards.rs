//! Sets that are divided into 2^bits shards by the leading bits of their members, so that a change affects one small
//! object.

use alloc::{sync::Arc, vec::Vec};

use crate::codec::Malformed;

/// The shard number of an entry has 16 bits.
pub(crate) const MAX_BITS: u8 = 16;

/// Returns the number of the shard of a member with this leading word.
pub(crate) fn shard_of(word: u64, bits: u8) -> u16 {
    // With 0 bits `checked_shr` is `None`, and the set has one shard.
    let shard = word.checked_shr(64u32.saturating_sub(bits.into())).unwrap_or(0);
    u16::try_from(shard).unwrap_or(u16::MAX)
}

/// Checks that a set with 2^`bits` shards has a shard with this number. Returns `bits`.
pub(crate) fn check_bits(bits: u8, shard: u16) -> Result<u8, Malformed> {
    if bits > MAX_BITS || u32::from(shard) >= 1 << bits { Err(Malformed("shard")) } else { Ok(bits) }
}

/// A shard of a set.
pub(crate) trait Sharded {
    /// The set has 2^bits shards.
    fn bits(&self) -> u8;
}

/// All shards of one set, in order of their numbers.
#[derive(Debug, Clone)]
pub(crate) struct Shards<T>(Vec<Arc<T>>);

impl<T: Sharded> Shards<T> {
    /// Returns the set, or `None` unless every shard is given exactly once and all have the same number of bits.
    pub(crate) fn from_all(shards: Vec<(u16, Arc<T>)>) -> Option<Self> {
        let bits = shards.first()?.1.bits();
        if shards.len() != 1 << bits {
            return None;
        }
        let mut ordered = alloc::vec![None; shards.len()];
        for (number, shard) in shards {
            let slot = ordered.get_mut(usize::from(number))?;
            if shard.bits() != bits || slot.replace(shard).is_some() {
                return None;
            }
        }
        ordered.into_iter().collect::<Option<_>>().map(Self)
    }

    /// Like [`from_all`](Self::from_all), for a set that may be absent: `Some(None)` without any shard.
    pub(crate) fn from_all_or_none(shards: Vec<(u16, Arc<T>)>) -> Option<Option<Self>> {
        if shards.is_empty() { Some(None) } else { Self::from_all(shards).map(Some) }
    }

    /// Returns the shard of a member with this leading word.
    pub(crate) fn get(&self, word: u64) -> Option<&T> {
        let bits = self.0.first()?.bits();
        self.0.get(usize::from(shard_of(word, bits))).map(|shard| &**shard)
    }
}
