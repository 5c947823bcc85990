//! The tail: operations since the checkpoint, in the order they were committed. There are only such as refuse more.
//!
//! ```text
//!  8  number of the first operation
//!  2  count, at least 1
//!     each: LEB128 of 2 * (its number - the one before) + what it is; of the first, its number - the number above, so 0
//!           0, a revocation:    8  first 64 bits of the fingerprint
//!           1, a watermark:    16  scope
//!                               8  instant, seconds since the Unix epoch
//! ```
//! Equal numbers are operations of one transaction.

use alloc::vec::Vec;
use core::fmt;

use crate::{
    ScopeKey,
    codec::{Malformed, Reader},
    sorted::{Row, last_in, sorted},
};

/// Some operations in a row, sorted for asking.
pub struct Segment {
    /// Prefix, number, and nothing.
    revoked: Vec<Row>,
    /// Scope in two words, instant, number.
    raised: Vec<Row>,
}

impl Segment {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut rest = Reader(bytes);
        let mut number = rest.u64("number of the first operation")?;
        let count = rest.u16("number of operations")?;
        if count == 0 {
            return Err(Malformed("number of operations"));
        }
        let (mut revoked, mut raised) = (Vec::new(), Vec::new());
        for at in 0..count {
            let head = rest.varint("number of an operation")?;
            let distance = head >> 1;
            if at == 0 && distance != 0 {
                return Err(Malformed("number of an operation"));
            }
            number = number.checked_add(distance).ok_or(Malformed("number of an operation"))?;
            if head & 1 == 0 {
                revoked.push([rest.u64("prefix")?, number, 0, 0]);
            } else {
                raised.push([rest.u64("scope")?, rest.u64("scope")?, rest.u64("instant")?, number]);
            }
        }
        rest.end()?;
        Ok(Self { revoked: sorted(revoked), raised: sorted(raised) })
    }

    pub(crate) fn revokes(&self, prefix: u64) -> bool {
        self.revokes_since(prefix, 0)
    }

    /// The latest of this scope.
    pub(crate) fn instant(&self, scope: ScopeKey) -> Option<u64> {
        let [high, low] = scope.words();
        last_in(&self.raised, &[high, low, 0, 0], 2).map(|[_, _, instant, _]| *instant)
    }

    /// What of this segment neither a checkpoint up to `cut` has taken in nor one of `others` holds.
    pub(crate) fn is_lost(&self, cut: u64, others: &[impl AsRef<Self>]) -> bool {
        let others = || others.iter().map(AsRef::as_ref);
        let revoked = self.revoked.iter().filter(|[_, number, ..]| *number > cut);
        let raised = self.raised.iter().filter(|[.., number]| *number > cut);
        revoked
            .copied()
            .any(|[prefix, number, ..]| !others().any(|other: &Self| other.revokes_since(prefix, number)))
            || raised.copied().any(|row| !others().any(|other: &Self| other.raises_since(&row)))
    }

    /// Under this number or a higher one: under a lower one, the next checkpoint would seem to have taken it in.
    fn revokes_since(&self, prefix: u64, number: u64) -> bool {
        last_in(&self.revoked, &[prefix, number, 0, 0], 1).is_some()
    }

    fn raises_since(&self, row: &Row) -> bool {
        let [high, low, _, number] = *row;
        let from = self.raised.partition_point(|held| held < row);
        let later = self.raised.get(from..).unwrap_or_default().iter();
        let mut of_scope = later.take_while(|held| matches!(held, [a, b, ..] if (*a, *b) == (high, low)));
        of_scope.any(|[.., held]| *held >= number)
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tail::Segment({} revocations, {} watermarks)", self.revoked.len(), self.raised.len())
    }
}
