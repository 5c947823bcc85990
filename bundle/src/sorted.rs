//! Sorting, once for everything: each type that `sort_unstable` is called with adds some 15 KB to the filter.

use alloc::{collections::BTreeSet, vec::Vec};

/// Compared word by word.
pub(crate) type Row = [u64; 4];

/// In ascending order, each once.
pub(crate) fn sorted(rows: Vec<Row>) -> Vec<Row> {
    let mut set = BTreeSet::new();
    for row in rows {
        set.insert(row);
    }
    set.into_iter().collect()
}

/// The last of those that begin like `least` and are not less.
pub(crate) fn last_in<'r>(rows: &'r [Row], least: &Row, words: usize) -> Option<&'r Row> {
    let begins_alike = |row: &Row| row.iter().zip(least).take(words).all(|(a, b)| a == b);
    let after = rows.partition_point(|row| row <= least || begins_alike(row));
    rows.get(after.checked_sub(1)?).filter(|row| begins_alike(row) && *row >= least)
}

/// 32 bytes as a row.
pub(crate) fn row(bytes: &[u8; 32]) -> Row {
    let mut row = [0; 4];
    for (word, bytes) in row.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_be_bytes(*bytes);
    }
    row
}
