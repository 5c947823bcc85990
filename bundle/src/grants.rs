//! Grants: what each subject may do, compiled by whoever publishes; opaque here.
//!
//! ```text
//!  1  bits: the set is cut into 2^bits shards by leading bits
//!  2  number of subjects
//!     each, ascending: 16  subject, hashed as the scope of its watermark is
//!                       4  where its statements start, from the end of this table
//!                       2  their length, at most 16 KiB
//!     statements: each text once, in the order of its first subject
//! ```
//! Subjects with the same statements share them.

use alloc::vec::Vec;
use core::fmt;

use crate::{
    ScopeKey,
    codec::{Malformed, Reader},
    shards::{Bits, checked_bits, shard_of},
};

/// One shard, checked through to its last byte, in the bytes it came in.
#[derive(Clone)]
pub struct Shard {
    bytes: Vec<u8>,
    bits: u8,
    subjects: usize,
}

impl Shard {
    pub(crate) fn read(bytes: Vec<u8>, shard: u16) -> Result<Self, Malformed> {
        let mut rest = Reader(&bytes);
        let bits = checked_bits(rest.u8("shard bits")?, shard)?;
        let subjects = usize::from(rest.u16("number of subjects")?);
        let table = rest.bytes(subjects.saturating_mul(ROW), "table of the subjects")?;
        let rows = table.as_chunks::<ROW>().0;
        let ascending = rows.is_sorted_by(|before, after| split(before).0 < split(after).0);
        if !ascending || rows.iter().any(|row| shard_of(split(row).0.word(), bits) != shard) {
            return Err(Malformed("order of the subjects"));
        }
        // Every statement belongs to somebody, and starts where the last new one ended.
        let mut known: Vec<(usize, usize)> = Vec::new();
        let mut end = 0usize;
        for row in rows {
            let (_, offset, length) = split(row);
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

    pub(crate) fn of(&self, subject: ScopeKey) -> Option<&[u8]> {
        let (table, grants) = self.bytes.get(HEADER..)?.split_at_checked(self.subjects.checked_mul(ROW)?)?;
        let rows = table.as_chunks::<ROW>().0;
        let at = rows.binary_search_by_key(&subject, |row| split(row).0).ok()?;
        let (_, offset, length) = split(rows.get(at)?);
        grants.get(offset..offset.checked_add(length)?)
    }
}

impl Bits for Shard {
    fn bits(&self) -> u8 {
        self.bits
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "grants::Shard({} subjects, {} bytes)", self.subjects, self.bytes.len())
    }
}

/// Subjects must ascend and belong to the shard. None if they are too many.
#[cfg(feature = "builder")]
pub(crate) fn write(bits: u8, grants: &[(ScopeKey, &[u8])]) -> Option<Vec<u8>> {
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
        out.extend(subject.bytes());
        out.extend(offset.to_be_bytes());
        out.extend(u16::try_from(grant.len()).ok()?.to_be_bytes());
    }
    out.extend(statements);
    Some(out)
}

/// Offset and length are what they say on every machine with more than 16 bits.
fn split(row: &[u8; ROW]) -> (ScopeKey, usize, usize) {
    let (subject, place) = row.split_at(16);
    let (offset, length) = place.split_at(4);
    let offset = offset.try_into().map_or(u32::MAX, u32::from_be_bytes);
    let length = length.try_into().map_or(u16::MAX, u16::from_be_bytes);
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    (ScopeKey::from_bytes(subject.try_into().unwrap_or_default()), offset, length.into())
}

/// Four such grants fit one object: a user with several large roles, each operation by its name.
pub const MAX_GRANT_BYTES: usize = 16 * 1024;

const HEADER: usize = 3;

pub(crate) const ROW: usize = 22;
