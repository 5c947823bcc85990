//! The tail: the operations since the checkpoint, in commit order. Each of them can only refuse more credentials.
//!
//! ```text
//!  8  number of the first operation
//!  2  count, at least 1
//!     each: LEB128 of 2 * (its number - the previous number) + its type; for the first, the previous number is the one above
//!           0, a revocation:    8  first 64 bits of the fingerprint
//!           1, a watermark:    16  scope
//!                               8  instant, seconds since the Unix epoch
//! ```
//! Operations of one transaction have the same number.

use alloc::vec::Vec;
use core::fmt;

use crate::{
    ScopeKey,
    codec::{Malformed, Reader},
    sorted::{Row, last_with_prefix, sort_rows},
};

/// A segment of consecutive operations, sorted for look-ups.
pub struct TailSegment {
    /// Prefix, number, and two zeros.
    revocations: Vec<Row>,
    /// Scope (two words), instant, number.
    watermarks: Vec<Row>,
}

impl TailSegment {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut rest = Reader(bytes);
        let mut number = rest.u64("number of the first operation")?;
        let count = rest.u16("number of operations")?;
        if count == 0 {
            return Err(Malformed("number of operations"));
        }
        let (mut revocations, mut watermarks) = (Vec::new(), Vec::new());
        for at in 0..count {
            let head = rest.varint("number of an operation")?;
            let distance = head >> 1;
            if at == 0 && distance != 0 {
                return Err(Malformed("number of an operation"));
            }
            number = number.checked_add(distance).ok_or(Malformed("number of an operation"))?;
            if head & 1 == 0 {
                revocations.push([rest.u64("prefix")?, number, 0, 0]);
            } else {
                watermarks.push([rest.u64("scope")?, rest.u64("scope")?, rest.u64("instant")?, number]);
            }
        }
        rest.finish()?;
        Ok(Self { revocations: sort_rows(revocations), watermarks: sort_rows(watermarks) })
    }

    /// Returns whether the segment revokes the fingerprint with this prefix.
    pub(crate) fn revokes(&self, prefix: u64) -> bool {
        self.revokes_at_or_after(prefix, 0)
    }

    /// Returns whether the segment has watermarks, of any scope.
    pub(crate) const fn has_watermarks(&self) -> bool {
        !self.watermarks.is_empty()
    }

    /// Returns the latest watermark of the scope, in seconds since the Unix epoch.
    pub(crate) fn instant(&self, scope: ScopeKey) -> Option<u64> {
        let [high, low] = scope.words();
        last_with_prefix(&self.watermarks, &[high, low, 0, 0], 2).map(|[_, _, instant, _]| *instant)
    }

    /// Returns whether an operation of this segment is in neither a checkpoint up to `covered_until` nor one of `others`.
    pub(crate) fn is_missing_from(&self, covered_until: u64, others: &[impl AsRef<Self>]) -> bool {
        let others = || others.iter().map(AsRef::as_ref);
        let revocations = self.revocations.iter().filter(|[_, number, ..]| *number > covered_until);
        let watermarks = self.watermarks.iter().filter(|[.., number]| *number > covered_until);
        revocations.copied().any(|[prefix, number, ..]| {
            !others().any(|other: &Self| other.revokes_at_or_after(prefix, number))
        }) || watermarks.copied().any(|row| !others().any(|other: &Self| other.raises_at_or_after(&row)))
    }

    /// Returns whether an operation with this number or a higher one revokes the prefix. A lower number does not count,
    /// because a checkpoint could appear to include it already.
    fn revokes_at_or_after(&self, prefix: u64, number: u64) -> bool {
        last_with_prefix(&self.revocations, &[prefix, number, 0, 0], 1).is_some()
    }

    /// Like [`revokes_at_or_after`](Self::revokes_at_or_after), for the watermark of `row` or a later one.
    fn raises_at_or_after(&self, row: &Row) -> bool {
        let [high, low, _, number] = *row;
        let from = self.watermarks.partition_point(|held| held < row);
        let later = self.watermarks.get(from..).unwrap_or_default().iter();
        let mut of_scope = later.take_while(|held| matches!(held, [a, b, ..] if (*a, *b) == (high, low)));
        of_scope.any(|[.., held]| *held >= number)
    }
}

impl fmt::Debug for TailSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TailSegment({} revocations, {} watermarks)", self.revocations.len(), self.watermarks.len())
    }
}
