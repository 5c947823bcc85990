//! Pages by the unsigned fingerprint prefix. SQL stores it as a signed number, so a page does not cross the sign.

use token::Fingerprint;

pub(crate) const PAGE_SIZE: u64 = 4096;

const MAX_OF_FIRST_HALF: u64 = i64::MAX.cast_unsigned();

/// Returns the first and last number of a page, as stored.
pub(crate) fn prefix_range(from: u64) -> (i64, i64) {
    let from = from.cast_signed();
    (from, if from < 0 { -1 } else { i64::MAX })
}

/// Returns the start of the next page after a page of `found` rows that ended with `last`.
pub(crate) fn next(from: u64, last: Option<&Fingerprint>, found: usize) -> Option<u64> {
    let is_full = u64::try_from(found).is_ok_and(|found| found >= PAGE_SIZE);
    match last {
        Some(last) if is_full => last.prefix().checked_add(1),
        _ if from <= MAX_OF_FIRST_HALF => Some(MAX_OF_FIRST_HALF + 1),
        _ => None,
    }
}
