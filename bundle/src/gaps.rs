//! Gaps: ranges of issuance of which the control plane has only partial records, because its database was restored from
//! a backup. A credential that it issued in a gap is refused unless its fingerprint is among the known ones.
//!
//! ```text
//!     each, ascending: 8  issued after, seconds since the Unix epoch, exclusive
//!                      8  issued until, likewise, inclusive
//! ```

use alloc::vec::Vec;

use crate::codec::Malformed;

/// Bytes of one gap.
const ROW_LEN: usize = 16;

/// A range of issuance times, in seconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap {
    /// The start, exclusive.
    pub issued_after: u64,
    /// The end, inclusive.
    pub issued_until: u64,
}

impl Gap {
    /// Returns whether a credential issued at `issued_at` falls into the gap.
    pub const fn contains(&self, issued_at: u64) -> bool {
        self.issued_after < issued_at && issued_at <= self.issued_until
    }
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<Gap>, Malformed> {
    let (rows, []) = bytes.as_chunks::<ROW_LEN>() else { return Err(Malformed("length of the gaps")) };
    let gaps: Vec<Gap> = rows.iter().map(decode_row).collect();
    if gaps.iter().any(|gap| gap.issued_after >= gap.issued_until) {
        return Err(Malformed("empty gap"));
    }
    if gaps.is_sorted_by(|before, after| before < after) {
        Ok(gaps)
    } else {
        Err(Malformed("order of the gaps"))
    }
}

fn decode_row(row: &[u8; ROW_LEN]) -> Gap {
    let [a, b, c, d, e, f, g, h, until @ ..] = *row;
    Gap {
        issued_after: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        issued_until: u64::from_be_bytes(until),
    }
}

/// Encodes gaps, which must be in ascending order.
#[cfg(feature = "builder")]
pub(crate) fn encode(gaps: &[Gap]) -> Vec<u8> {
    gaps.iter()
        .flat_map(|gap| [gap.issued_after.to_be_bytes(), gap.issued_until.to_be_bytes()].concat())
        .collect()
}
