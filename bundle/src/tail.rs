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
};

/// Some operations in a row, sorted for asking.
pub struct Segment {
    /// Prefix and number.
    revoked: Vec<(u64, u64)>,
    /// Scope, instant, number.
    raised: Vec<(ScopeKey, u64, u64)>,
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
                revoked.push((rest.u64("prefix")?, number));
            } else {
                let scope = ScopeKey::from_bytes(rest.array("scope")?);
                raised.push((scope, rest.u64("instant")?, number));
            }
        }
        rest.end()?;
        revoked.sort_unstable();
        raised.sort_unstable();
        Ok(Self { revoked, raised })
    }

    pub(crate) fn revokes(&self, prefix: u64) -> bool {
        self.revokes_since(prefix, 0)
    }

    /// The latest of this scope.
    pub(crate) fn instant(&self, scope: ScopeKey) -> Option<u64> {
        let after = self.raised.partition_point(|(raised, ..)| *raised <= scope);
        let (raised, instant, _) = self.raised.get(after.checked_sub(1)?)?;
        (*raised == scope).then_some(*instant)
    }

    /// What of this segment neither a checkpoint up to `cut` has taken in nor one of `others` holds.
    pub(crate) fn is_lost(&self, cut: u64, others: &[impl AsRef<Self>]) -> bool {
        let others = || others.iter().map(AsRef::as_ref);
        let late_revoked = self.revoked.iter().filter(|(_, number)| *number > cut);
        let late_raised = self.raised.iter().filter(|(.., number)| *number > cut);
        late_revoked
            .copied()
            .any(|(prefix, number)| !others().any(|other| other.revokes_since(prefix, number)))
            || late_raised.copied().any(|(scope, instant, number)| {
                !others().any(|other| other.raises_since(scope, instant, number))
            })
    }

    /// Under this number or a higher one: under a lower one, the next checkpoint would seem to have taken it in.
    fn revokes_since(&self, prefix: u64, number: u64) -> bool {
        let after = self.revoked.partition_point(|(revoked, _)| *revoked <= prefix);
        let last = after.checked_sub(1).and_then(|at| self.revoked.get(at));
        last.is_some_and(|(revoked, held)| *revoked == prefix && *held >= number)
    }

    fn raises_since(&self, scope: ScopeKey, instant: u64, number: u64) -> bool {
        let from = self.raised.partition_point(|(raised, at, _)| (*raised, *at) < (scope, instant));
        let rest = self.raised.get(from..).unwrap_or_default();
        rest.iter().take_while(|(raised, ..)| *raised == scope).any(|(.., held)| *held >= number)
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tail::Segment({} revocations, {} watermarks)", self.revoked.len(), self.raised.len())
    }
}
