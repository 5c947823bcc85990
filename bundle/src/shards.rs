//! A set cut into 2^bits shards by the leading bits of its members, so that a change touches one small object.

use alloc::{sync::Arc, vec::Vec};

use crate::codec::Malformed;

/// More would not fit the shard number of an entry.
pub(crate) const MAX_BITS: u8 = 16;

/// The shard that a member with this leading word belongs to.
pub(crate) fn shard_of(word: u64, bits: u8) -> u16 {
    // `checked_shr` is None for bits = 0: the one shard of an undivided set.
    let shard = word.checked_shr(64u32.saturating_sub(bits.into())).unwrap_or(0);
    u16::try_from(shard).unwrap_or(u16::MAX)
}

pub(crate) fn checked_bits(bits: u8, shard: u16) -> Result<u8, Malformed> {
    if bits > MAX_BITS || u32::from(shard) >= 1 << bits { Err(Malformed("shard")) } else { Ok(bits) }
}

pub(crate) trait Bits {
    fn bits(&self) -> u8;
}

/// All shards of one set, in order.
#[derive(Debug, Clone)]
pub(crate) struct Shards<T>(Vec<Arc<T>>);

impl<T: Bits> Shards<T> {
    /// None unless every shard is there, once, and all are cut alike.
    pub(crate) fn complete(shards: Vec<(u16, Arc<T>)>) -> Option<Self> {
        let bits = shards.first()?.1.bits();
        if shards.len() != 1 << bits {
            return None;
        }
        let mut placed = alloc::vec![None; shards.len()];
        for (number, shard) in shards {
            let place = placed.get_mut(usize::from(number))?;
            if shard.bits() != bits || place.replace(shard).is_some() {
                return None;
            }
        }
        placed.into_iter().collect::<Option<_>>().map(Self)
    }

    /// Of a set that may be absent as a whole.
    pub(crate) fn any(shards: Vec<(u16, Arc<T>)>) -> Option<Option<Self>> {
        if shards.is_empty() { Some(None) } else { Self::complete(shards).map(Some) }
    }

    pub(crate) fn of(&self, word: u64) -> Option<&T> {
        let bits = self.0.first()?.bits();
        self.0.get(usize::from(shard_of(word, bits))).map(|shard| &**shard)
    }
}
