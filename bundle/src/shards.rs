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
    pub(crate) fn complete(mut shards: Vec<(u16, Arc<T>)>) -> Option<Self> {
        shards.sort_by_key(|(shard, _)| *shard);
        let bits = shards.first()?.1.bits();
        let whole = shards.len() == 1 << bits;
        let in_place =
            |(at, (shard, held)): (usize, &(u16, Arc<T>))| usize::from(*shard) == at && held.bits() == bits;
        let complete = whole && shards.iter().enumerate().all(in_place);
        complete.then(|| Self(shards.into_iter().map(|(_, held)| held).collect()))
    }

    pub(crate) fn of(&self, word: u64) -> Option<&T> {
        let bits = self.0.first()?.bits();
        self.0.get(usize::from(shard_of(word, bits))).map(|shard| &**shard)
    }
}
