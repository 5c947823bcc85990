//! Revoked fingerprints, or restored ones: 64-bit prefixes, sorted, delta-coded, queried where they lie.
//!
//! ```text
//!  1  bits: the set is cut into 2^bits shards by leading bits
//!  4  number of prefixes
//!     each block of 64 prefixes: 8  its first prefix
//!                                4  where its deltas start, from the end of this table
//!     each prefix but the first of a block: LEB128 of its distance to the one before
//! ```
//! A look-up is a binary search in the table and a walk over at most 63 deltas.

use alloc::vec::Vec;
use core::fmt;

use crate::{
    codec::{Malformed, Reader},
    shards::{Bits, checked_bits, shard_of},
};

/// One shard, checked through to its last byte, in the bytes it came in.
#[derive(Clone)]
pub struct Shard {
    bytes: Vec<u8>,
    bits: u8,
    blocks: usize,
}

impl Shard {
    pub(crate) fn read(bytes: Vec<u8>, shard: u16) -> Result<Self, Malformed> {
        let mut rest = Reader(&bytes);
        let bits = checked_bits(rest.u8("shard bits")?, shard)?;
        let count =
            usize::try_from(rest.u32("number of prefixes")?).map_err(|_| Malformed("number of prefixes"))?;
        let blocks = count.div_ceil(BLOCK);
        let table = rest.bytes(blocks.checked_mul(ROW).ok_or(Malformed("number of prefixes"))?, "table")?;
        let deltas = rest.0;
        let mut left = count;
        let mut last = None;
        for row in table.as_chunks::<ROW>().0 {
            let (first, offset) = split(row);
            if deltas.len().checked_sub(rest.0.len()) != Some(offset) {
                return Err(Malformed("offset of a block"));
            }
            let mut prefix = first;
            for position in 0..left.min(BLOCK) {
                if position > 0 {
                    let delta = rest.varint("distance")?;
                    prefix = prefix.checked_add(delta).ok_or(Malformed("distance"))?;
                }
                if last.is_some_and(|last| last >= prefix) || shard_of(prefix, bits) != shard {
                    return Err(Malformed("order of the prefixes"));
                }
                last = Some(prefix);
            }
            left = left.saturating_sub(BLOCK);
        }
        rest.end()?;
        Ok(Self { bytes, bits, blocks })
    }

    /// None cannot happen: every byte was checked when the shard was read.
    pub(crate) fn find(&self, prefix: u64) -> Option<bool> {
        let (table, deltas) = self.bytes.get(HEADER..)?.split_at_checked(self.blocks.checked_mul(ROW)?)?;
        let rows = table.as_chunks::<ROW>().0;
        let after = rows.partition_point(|row| split(row).0 <= prefix);
        let Some(row) = after.checked_sub(1).and_then(|at| rows.get(at)) else { return Some(false) };
        let (mut current, offset) = split(row);
        let end = rows.get(after).map_or(deltas.len(), |next| split(next).1);
        let mut rest = Reader(deltas.get(offset..end)?);
        while current < prefix && !rest.0.is_empty() {
            current = current.checked_add(rest.varint("distance").ok()?)?;
        }
        Some(current == prefix)
    }
}

impl Bits for Shard {
    fn bits(&self) -> u8 {
        self.bits
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revocations::Shard({} bytes)", self.bytes.len())
    }
}

/// Prefixes must ascend and belong to the shard.
#[cfg(feature = "builder")]
pub(crate) fn write(bits: u8, prefixes: &[u64]) -> Vec<u8> {
    let mut table = Vec::new();
    let mut deltas = Vec::new();
    for block in prefixes.chunks(BLOCK) {
        table.extend(block.first().copied().unwrap_or_default().to_be_bytes());
        table.extend(u32::try_from(deltas.len()).unwrap_or(u32::MAX).to_be_bytes());
        for pair in block.windows(2) {
            if let [before, after] = pair {
                crate::codec::write_varint(&mut deltas, after.wrapping_sub(*before));
            }
        }
    }
    let count = u32::try_from(prefixes.len()).unwrap_or(u32::MAX);
    [&[bits][..], &count.to_be_bytes(), &table, &deltas].concat()
}

fn split(row: &[u8; ROW]) -> (u64, usize) {
    let [a, b, c, d, e, f, g, h, offset @ ..] = *row;
    // An offset that does not fit is one that no block has: read() refuses it.
    let offset = usize::try_from(u32::from_be_bytes(offset)).unwrap_or(usize::MAX);
    (u64::from_be_bytes([a, b, c, d, e, f, g, h]), offset)
}

const HEADER: usize = 5;

const ROW: usize = 12;

/// 64 prefixes to a block: the table costs 0.2 bytes a prefix beside some 7 of the deltas, and a walk is short.
const BLOCK: usize = 64;
