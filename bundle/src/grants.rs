//! Grants: the permission statements of each subject, compiled by the publisher and opaque to this crate.
//!
//! ```text
//!  1  bits: the set is divided into 2^bits shards by leading bits
//!  2  number of subjects
//!     each, ascending: 16  subject, hashed like the scope of its watermark
//!                       4  offset of its statements from the end of this table
//!                       2  their length, at most 16 KiB
//!     statements: each distinct text once, in the order of its first subject
//! ```
//! Subjects with equal statements share them.

use alloc::vec::Vec;
use core::fmt;

use crate::{
    ScopeKey,
    codec::{Malformed, Reader},
    shards::{Sharded, check_bits, shard_of},
};

/// Size of the largest grant, in bytes. Four of them fit one object, and one is enough for a user with several large roles
/// that list each operation by name.
pub const MAX_GRANT_BYTES: usize = 16 * 1024;

/// Bytes before the table of subjects.
const HEADER_LEN: usize = 3;

/// Bytes of one subject in the table.
pub(crate) const ROW_LEN: usize = 22;

/// One shard of the grants: the encoded bytes, validated completely.
#[derive(Clone)]
pub struct GrantShard {
    bytes: Vec<u8>,
    bits: u8,
    subjects: usize,
}

impl GrantShard {
    pub(crate) fn decode(bytes: Vec<u8>, shard: u16) -> Result<Self, Malformed> {
        let mut rest = Reader(&bytes);
        let bits = check_bits(rest.u8("shard bits")?, shard)?;
        let subjects = usize::from(rest.u16("number of subjects")?);
        let table = rest.bytes(subjects.saturating_mul(ROW_LEN), "table of the subjects")?;
        let rows = table.as_chunks::<ROW_LEN>().0;
        let ascending = rows.is_sorted_by(|before, after| decode_row(before).0 < decode_row(after).0);
        if !ascending || rows.iter().any(|row| shard_of(decode_row(row).0.word(), bits) != shard) {
            return Err(Malformed("order of the subjects"));
        }
        // Every statement text has a subject, and starts where the previous distinct one ends.
        let mut known: Vec<(usize, usize)> = Vec::new();
        let mut end = 0usize;
        for row in rows {
            let (_, offset, length) = decode_row(row);
            if length > MAX_GRANT_BYTES {
                return Err(Malformed("length of a grant"));
            }
            if known.binary_search(&(offset, length)).is_err() {
                if offset != end {
                    return Err(Malformed("offset of a grant"));
                }
                end = end.saturating_add(length);
                known.push((offset, length));
            }
        }
        if rest.0.len() != end {
            return Err(Malformed("length of the grants"));
        }
        Ok(Self { bytes, bits, subjects })
    }

    /// Returns the statements of a subject, or `None` if it has no grant.
    pub(crate) fn get(&self, subject: ScopeKey) -> Option<&[u8]> {
        let (table, grants) =
            self.bytes.get(HEADER_LEN..)?.split_at_checked(self.subjects.checked_mul(ROW_LEN)?)?;
        let rows = table.as_chunks::<ROW_LEN>().0;
        let at = rows.binary_search_by_key(&subject, |row| decode_row(row).0).ok()?;
        let (_, offset, length) = decode_row(rows.get(at)?);
        grants.get(offset..offset.checked_add(length)?)
    }
}

impl Sharded for GrantShard {
    fn bits(&self) -> u8 {
        self.bits
    }
}

impl fmt::Debug for GrantShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrantShard({} subjects, {} bytes)", self.subjects, self.bytes.len())
    }
}

/// Encodes a shard. The subjects must be in ascending order and belong to it. Returns `None` if there are too many.
#[cfg(feature = "builder")]
pub(crate) fn encode(bits: u8, grants: &[(ScopeKey, &[u8])]) -> Option<Vec<u8>> {
    let mut out = Vec::from([bits]);
    out.extend(u16::try_from(grants.len()).ok()?.to_be_bytes());
    let mut offsets = alloc::collections::BTreeMap::new();
    let mut statements: Vec<u8> = Vec::new();
    for (subject, grant) in grants {
        let next = u32::try_from(statements.len()).ok()?;
        let offset = *offsets.entry(*grant).or_insert_with(|| {
            statements.extend(*grant);
            next
        });
        out.extend(subject.to_bytes());
        out.extend(offset.to_be_bytes());
        out.extend(u16::try_from(grant.len()).ok()?.to_be_bytes());
    }
    out.extend(statements);
    Some(out)
}

/// Returns subject, offset and length. They are exact wherever `usize` has more than 16 bits.
fn decode_row(row: &[u8; ROW_LEN]) -> (ScopeKey, usize, usize) {
    let (subject, location) = row.split_at(16);
    let (offset, length) = location.split_at(4);
    let offset = offset.try_into().map_or(u32::MAX, u32::from_be_bytes);
    let length = length.try_into().map_or(u16::MAX, u16::from_be_bytes);
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    (ScopeKey::from_bytes(subject.try_into().unwrap_or_default()), offset, length.into())
}
