//! A banded linear system over GF(2) with incremental Gaussian elimination.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "does not run in the proxy; every column of an equation lies within the system"
)]

use alloc::{vec, vec::Vec};

use super::equation::{EQUATION_WORDS, Equation};

/// The system in row echelon form: the row at a column starts at that column. The pivot columns, and therefore the
/// solution, depend on the set of equations and not on their order.
pub(crate) struct System {
    /// The coefficients of each row. The first word is 0 if no row starts at the column, which is then a free variable.
    rows: Vec<[u64; EQUATION_WORDS]>,
    /// The sum of each row. It is not needed to find the next row, so it is kept apart.
    sums: Vec<bool>,
}

/// An equation contradicts the ones added before it.
#[derive(Debug)]
pub(crate) struct Contradiction;

impl System {
    pub(crate) fn new(columns: usize) -> Self {
        Self { rows: vec![[0; EQUATION_WORDS]; columns], sums: vec![false; columns] }
    }

    /// Adds an equation. Fails if it contradicts the ones added before.
    ///
    /// Most of the time that building a shard takes is spent in this loop.
    pub(crate) fn add(&mut self, equation: Equation, mut sum: bool) -> Result<(), Contradiction> {
        let Equation { mut start, coefficients: [mut a, mut b, mut c, mut d] } = equation;
        loop {
            let row = &mut self.rows[start];
            if row[0] == 0 {
                *row = [a, b, c, d];
                self.sums[start] = sum;
                return Ok(());
            }
            let [e, f, g, h] = *row;
            (a, b, c, d) = (a ^ e, b ^ f, c ^ g, d ^ h);
            sum ^= self.sums[start];
            while a == 0 {
                if (b | c | d) == 0 {
                    return if sum { Err(Contradiction) } else { Ok(()) };
                }
                (a, b, c, d) = (b, c, d, 0);
                start += 64;
            }
            let shift = a.trailing_zeros();
            start += shift as usize;
            // The bits that the shift leaves empty come from the next word.
            let joined = |low: u64, high: u64| (low >> shift) | ((high << 1) << (63 - shift));
            (a, b, c, d) = (joined(a, b), joined(b, c), joined(c, d), d >> shift);
        }
    }

    /// Solves the system by back substitution and calls `set` for every column that is 1. `free_variable` supplies the
    /// value of each free column.
    pub(crate) fn solve(&self, mut free_variable: impl FnMut() -> bool, mut set: impl FnMut(usize)) {
        // The solution of the columns after the current one.
        let mut after = [0u64; EQUATION_WORDS];
        for (column, (row, sum)) in self.rows.iter().zip(&self.sums).enumerate().rev() {
            shift_in(&mut after, false);
            let bit = if row[0] == 0 {
                free_variable()
            } else {
                let shared = row.iter().zip(after).fold(0, |all, (a, b)| all ^ (a & b));
                (shared.count_ones() % 2 == 1) ^ *sum
            };
            if bit {
                after[0] |= 1;
                set(column);
            }
        }
    }
}

fn shift_in(words: &mut [u64; EQUATION_WORDS], bit: bool) {
    let mut carry = u64::from(bit);
    for word in words {
        (*word, carry) = ((*word << 1) | carry, *word >> 63);
    }
}
