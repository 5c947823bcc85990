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
pub(crate) struct System(Vec<Row>);

#[derive(Clone, Copy, Default)]
struct Row {
    /// All zero if no row starts here: the column is a free variable.
    coefficients: [u64; EQUATION_WORDS],
    sum: bool,
}

/// An equation contradicts the ones added before it.
#[derive(Debug)]
pub(crate) struct Contradiction;

impl System {
    pub(crate) fn new(columns: usize) -> Self {
        Self(vec![Row::default(); columns])
    }

    /// Adds an equation. Fails if it contradicts the ones added before.
    pub(crate) fn add(&mut self, equation: Equation, mut sum: bool) -> Result<(), Contradiction> {
        let Equation { mut start, mut coefficients } = equation;
        loop {
            let row = &mut self.0[start];
            if row.coefficients[0] == 0 {
                *row = Row { coefficients, sum };
                return Ok(());
            }
            for (word, other) in coefficients.iter_mut().zip(row.coefficients) {
                *word ^= other;
            }
            sum ^= row.sum;
            while coefficients[0] == 0 {
                if coefficients == [0; EQUATION_WORDS] {
                    return if sum { Err(Contradiction) } else { Ok(()) };
                }
                coefficients.rotate_left(1);
                start += 64;
            }
            let shift = coefficients[0].trailing_zeros();
            start += shift as usize;
            for at in 0..EQUATION_WORDS {
                let next = coefficients.get(at + 1).copied().unwrap_or(0);
                coefficients[at] = (coefficients[at] >> shift) | (next << 1 << (63 - shift));
            }
        }
    }

    /// Solves the system by back substitution and calls `set` for every column that is 1. `free_variable` supplies the
    /// value of each free column.
    pub(crate) fn solve(&self, mut free_variable: impl FnMut() -> bool, mut set: impl FnMut(usize)) {
        // The solution of the columns after the current one.
        let mut after = [0u64; EQUATION_WORDS];
        for (column, row) in self.0.iter().enumerate().rev() {
            shift_in(&mut after, false);
            let bit = if row.coefficients[0] == 0 {
                free_variable()
            } else {
                let shared = row.coefficients.iter().zip(after).fold(0, |all, (a, b)| all ^ (a & b));
                (shared.count_ones() % 2 == 1) ^ row.sum
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
