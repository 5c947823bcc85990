//! One sort for all types of rows: every type that `sort_unstable` is instantiated with adds about 15 KB to the filter.

use alloc::{collections::BTreeSet, vec::Vec};

/// A row of four words, compared word by word.
pub(crate) type Row = [u64; 4];

/// Returns the rows in ascending order, without duplicates.
pub(crate) fn sort_rows(rows: Vec<Row>) -> Vec<Row> {
    let mut set = BTreeSet::new();
    for row in rows {
        set.insert(row);
    }
    set.into_iter().collect()
}

/// Returns the last row that shares the first `words` words with `least` and is not less than it.
pub(crate) fn last_with_prefix<'r>(rows: &'r [Row], least: &Row, words: usize) -> Option<&'r Row> {
    let begins_alike = |row: &Row| row.iter().zip(least).take(words).all(|(a, b)| a == b);
    let after = rows.partition_point(|row| row <= least || begins_alike(row));
    rows.get(after.checked_sub(1)?).filter(|row| begins_alike(row) && *row >= least)
}

/// Converts 32 bytes to a row.
pub(crate) fn to_row(bytes: &[u8; 32]) -> Row {
    let mut row = [0; 4];
    for (word, bytes) in row.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_be_bytes(*bytes);
    }
    row
}
