//! Sets of fingerprints as sorted, delta-coded 64-bit prefixes, queried without unpacking. Revocations, un-revocations
//! and the known fingerprints of gaps have this format.
//!
//! ```text
//!  1  bits: the set is divided into 2^bits shards by leading bits
//!  4  number of prefixes
//!     each block of 64 prefixes: 8  its first prefix
//!                                4  offset of its deltas from the end of this table
//!     each prefix but the first of a block: LEB128 of its distance from the previous one
//! ```
//! A look-up is a binary search in the table and a scan of at most 63 deltas.

use alloc::vec::Vec;
use core::fmt;

use crate::{
    codec::{Malformed, Reader},
    shards::{Sharded, check_bits, shard_of},
};

/// Bytes before the table.
const HEADER_LEN: usize = 5;

/// Bytes of one block in the table.
const ROW_LEN: usize = 12;

/// With 64 prefixes per block the table costs 0.2 bytes per prefix, compared to about 7 for the delta, and a scan is short.
const PREFIXES_PER_BLOCK: usize = 64;

/// One shard of a set of prefixes: the encoded bytes, validated completely.
#[derive(Clone)]
pub struct PrefixShard {
    bytes: Vec<u8>,
    bits: u8,
    blocks: usize,
}

impl PrefixShard {
    pub(crate) fn decode(bytes: Vec<u8>, shard: u16) -> Result<Self, Malformed> {
        let mut rest = Reader(&bytes);
        let bits = check_bits(rest.u8("shard bits")?, shard)?;
        let count =
            usize::try_from(rest.u32("number of prefixes")?).map_err(|_| Malformed("number of prefixes"))?;
        let blocks = count.div_ceil(PREFIXES_PER_BLOCK);
        let table =
            rest.bytes(blocks.checked_mul(ROW_LEN).ok_or(Malformed("number of prefixes"))?, "table")?;
        let deltas = rest.0;
        let mut left = count;
        let mut last = None;
        for row in table.as_chunks::<ROW_LEN>().0 {
            let (first, offset) = decode_row(row);
            if deltas.len().checked_sub(rest.0.len()) != Some(offset) {
                return Err(Malformed("offset of a block"));
            }
            let mut prefix = first;
            for position in 0..left.min(PREFIXES_PER_BLOCK) {
                if position > 0 {
                    let delta = rest.varint("distance")?;
                    prefix = prefix.checked_add(delta).ok_or(Malformed("distance"))?;
                }
                if last.is_some_and(|last| last >= prefix) || shard_of(prefix, bits) != shard {
                    return Err(Malformed("order of the prefixes"));
                }
                last = Some(prefix);
            }
            left = left.saturating_sub(PREFIXES_PER_BLOCK);
        }
        rest.finish()?;
        Ok(Self { bytes, bits, blocks })
    }

    /// Returns whether the set contains the prefix. Never `None`, because [`decode`](Self::decode) validates every byte.
    pub(crate) fn contains(&self, prefix: u64) -> Option<bool> {
        let (table, deltas) =
            self.bytes.get(HEADER_LEN..)?.split_at_checked(self.blocks.checked_mul(ROW_LEN)?)?;
        let rows = table.as_chunks::<ROW_LEN>().0;
        let after = rows.partition_point(|row| decode_row(row).0 <= prefix);
        let Some(row) = after.checked_sub(1).and_then(|at| rows.get(at)) else { return Some(false) };
        let (mut current, offset) = decode_row(row);
        let end = rows.get(after).map_or(deltas.len(), |next| decode_row(next).1);
        let mut rest = Reader(deltas.get(offset..end)?);
        while current < prefix && !rest.0.is_empty() {
            current = current.checked_add(rest.varint("distance").ok()?)?;
        }
        Some(current == prefix)
    }
}

impl Sharded for PrefixShard {
    fn bits(&self) -> u8 {
        self.bits
    }
}

impl fmt::Debug for PrefixShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrefixShard({} bytes)", self.bytes.len())
    }
}

/// Encodes a shard. The prefixes must be in strictly ascending order and belong to it.
#[cfg(feature = "builder")]
pub(crate) fn encode(bits: u8, prefixes: &[u64]) -> Vec<u8> {
    let mut table = Vec::new();
    let mut deltas = Vec::new();
    for block in prefixes.chunks(PREFIXES_PER_BLOCK) {
        table.extend(block.first().copied().unwrap_or_default().to_be_bytes());
        table.extend(u32::try_from(deltas.len()).unwrap_or(u32::MAX).to_be_bytes());
        for pair in block.windows(2) {
            if let [before, after] = pair {
                crate::codec::encode_varint(&mut deltas, after.wrapping_sub(*before));
            }
        }
    }
    let count = u32::try_from(prefixes.len()).unwrap_or(u32::MAX);
    [&[bits][..], &count.to_be_bytes(), &table, &deltas].concat()
}

fn decode_row(row: &[u8; ROW_LEN]) -> (u64, usize) {
    let [a, b, c, d, e, f, g, h, offset @ ..] = *row;
    // An offset that does not fit is invalid, and `decode` rejects it.
    let offset = usize::try_from(u32::from_be_bytes(offset)).unwrap_or(usize::MAX);
    (u64::from_be_bytes([a, b, c, d, e, f, g, h]), offset)
}
