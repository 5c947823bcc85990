//! Gaps: spans of issue of which the control plane knows only a part, as its database was restored from a backup. A
//! credential of ours that was issued in one is refused, unless it is among those that are known.
//!
//! ```text
//!     each, ascending: 8  issued after, seconds since the Unix epoch
//!                      8  issued at the latest, likewise
//! ```

use alloc::vec::Vec;

use crate::codec::Malformed;

/// A span of issue, in seconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap {
    /// Not part of it.
    pub issued_after: u64,
    /// Part of it.
    pub issued_until: u64,
}

impl Gap {
    pub const fn holds(&self, issued_at: u64) -> bool {
        self.issued_after < issued_at && issued_at <= self.issued_until
    }
}

pub(crate) fn read(bytes: &[u8]) -> Result<Vec<Gap>, Malformed> {
    let (rows, []) = bytes.as_chunks::<ROW>() else { return Err(Malformed("length of the gaps")) };
    let gaps: Vec<Gap> = rows.iter().map(split).collect();
    if gaps.iter().any(|gap| gap.issued_after >= gap.issued_until) {
        return Err(Malformed("a gap that holds nothing"));
    }
    if gaps.is_sorted_by(|before, after| before < after) {
        Ok(gaps)
    } else {
        Err(Malformed("order of the gaps"))
    }
}

fn split(row: &[u8; ROW]) -> Gap {
    let [a, b, c, d, e, f, g, h, until @ ..] = *row;
    Gap {
        issued_after: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        issued_until: u64::from_be_bytes(until),
    }
}

/// They must ascend.
#[cfg(feature = "builder")]
pub(crate) fn write(gaps: &[Gap]) -> Vec<u8> {
    gaps.iter()
        .flat_map(|gap| [gap.issued_after.to_be_bytes(), gap.issued_until.to_be_bytes()].concat())
        .collect()
}

const ROW: usize = 16;
