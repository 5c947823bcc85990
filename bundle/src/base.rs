//! The base: the exact set of revoked fingerprints among all issued, unexpired ones, close to the information-theoretic
//! minimum of bits.
//!
//! The answers are exact for the *universe*, the fingerprints that the base was built over. For any other fingerprint
//! the answer is arbitrary, so a caller must first check that the universe covers it (see [`Coverage`](crate::Coverage)).
//!
//! The included set E is the revoked fingerprints, or the others if they are fewer. It is encoded in two layers, as in
//! Clubcard by Mozilla (<https://eprint.iacr.org/2025/610>), both of them ribbon systems (arXiv 2103.02515, 2109.01892):
//!
//! 1. A *filter*: `rank` solutions of one homogeneous system. Every member of E sums to 0 in each of them; any other
//!    fingerprint sums to 0 in all of them with probability 2^-rank. The rank is chosen so that the number of false
//!    positives is about the size of E.
//! 2. An *exact* layer over everything that passes the filter: 1 for a member of E, 0 for a false positive. It is absent
//!    if there are no false positives in the universe.
//!
//! ```text
//!  0   1  layout: 1
//!  1   1  bits: the universe is divided into 2^bits shards by leading bits
//!  2   1  0: E is the revoked fingerprints; 1: E is the others
//!  3   1  rank, at most 32
//!  4   1  attempt of the filter   (the number of the draw, derived from the seed, that has a solution)
//!  5   1  attempt of the exact layer
//!  6   4  F: columns of the filter; 0 if the rank is 0
//! 10   4  X: columns of the exact layer; 0 if it is absent
//! 14   8  seed
//! 22      solutions, as bits: rank times F, then X, without padding; bit i is bit i % 8 of byte i / 8, so that 64
//!         neighbors are a little-endian word at any offset; the remaining bits of the last byte are 0
//! ```
//! Numbers are big-endian. Nothing is unpacked: a look-up reads 33 bytes for each solution that it needs, which for
//! most fingerprints is one or two.

use alloc::vec::Vec;
use core::fmt;

use token::Fingerprint;

use crate::{
    codec::{Malformed, Reader},
    shards::{Sharded, check_bits},
};

#[cfg(feature = "builder")]
mod build;
mod equation;
#[cfg(feature = "builder")]
mod system;

#[cfg(feature = "builder")]
pub use build::{BuildError, build_shard, shard_bits};

use equation::{EQUATION_BITS, EQUATION_WORDS, Equation, EquationKeys};

/// Version of the layout.
const LAYOUT: u8 = 1;

/// Bytes before the solutions.
const HEADER_LEN: usize = 22;

/// Enough for one revoked fingerprint among 2^32, because each solution halves the false positives.
const MAX_RANK: u8 = 32;

/// 2 MiB, far more than an object can hold.
const MAX_COLUMNS: usize = 1 << 24;

/// One shard of the base: the encoded bytes, validated completely.
#[derive(Clone)]
pub struct RibbonShard {
    bytes: Vec<u8>,
    bits: u8,
    inverted: bool,
    filter: Layer,
    exact: Option<Layer>,
}

impl RibbonShard {
    /// Validates the bytes of the shard with number `shard`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the bytes are not a canonical encoding, or if `shard` is not below the number of shards.
    pub fn decode(bytes: Vec<u8>, shard: u16) -> Result<Self, Malformed> {
        let mut rest = Reader(&bytes);
        if rest.u8("layout")? != LAYOUT {
            return Err(Malformed("layout"));
        }
        let bits = check_bits(rest.u8("shard bits")?, shard)?;
        let inverted = match rest.u8("inversion")? {
            0 => false,
            1 => true,
            _ => return Err(Malformed("inversion")),
        };
        let rank = rest.u8("rank")?;
        let [filter_attempt, exact_attempt] = rest.array("attempts")?;
        let filter_columns = decode_columns(&mut rest)?;
        let exact_columns = decode_columns(&mut rest)?;
        let seed = rest.u64("seed")?;
        if rank > MAX_RANK || (rank == 0) != (filter_columns == 0) {
            return Err(Malformed("rank"));
        }
        // The encoding is canonical: an absent layer has attempt 0, and an empty shard has seed 0.
        let none = filter_columns == 0 && exact_columns == 0 && seed != 0;
        if none || (filter_columns == 0 && filter_attempt != 0) || (exact_columns == 0 && exact_attempt != 0)
        {
            return Err(Malformed("seed"));
        }
        let filter = Layer::filter(seed, filter_attempt, rank, filter_columns);
        let exact = Layer::exact(seed, exact_attempt, &filter, exact_columns);
        let end = if exact_columns == 0 { filter.end() } else { exact.end() };
        let body = rest.bytes(end.div_ceil(8), "solutions")?;
        rest.finish()?;
        let used = u32::try_from(end % 8).map_err(|_| Malformed("solutions"))?;
        if used > 0 && body.last().is_some_and(|last| last >> used != 0) {
            return Err(Malformed("bits past the solutions"));
        }
        let exact = (exact_columns > 0).then_some(exact);
        Ok(Self { bytes, bits, inverted, filter, exact })
    }

    /// Returns whether a member of the universe is revoked. For any other fingerprint the result is arbitrary.
    #[inline]
    pub fn contains(&self, fingerprint: &Fingerprint) -> bool {
        let words = fingerprint_words(fingerprint);
        let body = self.bytes.get(HEADER_LEN..).unwrap_or_default();
        let is_included = self.filter.all_zero(body, words)
            && self.exact.as_ref().is_none_or(|exact| !exact.all_zero(body, words));
        is_included != self.inverted
    }

    /// Returns the encoded bytes. The shard needs less than 200 bytes of memory in addition.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Sharded for RibbonShard {
    fn bits(&self) -> u8 {
        self.bits
    }
}

impl fmt::Debug for RibbonShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RibbonShard({} bytes)", self.bytes.len())
    }
}

/// The position of the consecutive solutions of one system in the body, and the keys of its equations.
#[derive(Debug, Clone, Copy)]
struct Layer {
    keys: EquationKeys,
    rank: u8,
    columns: usize,
    /// Offset of the first solution in the body, in bits.
    first_bit: usize,
}

impl Layer {
    /// Returns the first layer, with `rank` solutions: the included members sum to 0 in all of them, and of the others one in
    /// 2^rank.
    fn filter(seed: u64, attempt: u8, rank: u8, columns: usize) -> Self {
        Self { keys: EquationKeys::new(seed, attempt.into()), rank, columns, first_bit: 0 }
    }

    /// Returns the second layer, with one solution after those of `filter`: it distinguishes the included members from those
    /// that only `filter` reports as included.
    fn exact(seed: u64, attempt: u8, filter: &Self, columns: usize) -> Self {
        Self {
            keys: EquationKeys::new(seed, u16::from(attempt) | 1 << 8),
            rank: 1,
            columns,
            first_bit: filter.end(),
        }
    }

    /// Returns the offset of the bit after the last solution: at most 33 * 2^24, which fits 32 bits.
    fn end(&self) -> usize {
        self.first_bit.saturating_add(self.columns.saturating_mul(self.rank.into()))
    }

    /// Returns whether the fingerprint sums to 0 in every solution.
    #[inline]
    fn all_zero(&self, body: &[u8], words: [u64; 4]) -> bool {
        if self.rank == 0 {
            return true;
        }
        let Equation { start, coefficients } = Equation::new(words, &self.keys, self.columns);
        let mut at = self.first_bit.saturating_add(start);
        for _ in 0..self.rank {
            if parity(body, at, &coefficients) {
                return false;
            }
            at = at.saturating_add(self.columns);
        }
        true
    }
}

/// Returns the sum over GF(2) of those of the 256 bits at bit offset `at` whose coefficient is 1.
#[inline]
fn parity(body: &[u8], at: usize, coefficients: &[u64; EQUATION_WORDS]) -> bool {
    let window = match body.get(at >> 3..).and_then(<[u8]>::first_chunk) {
        Some(window) => *window,
        None => zero_padded_window(body, at >> 3),
    };
    let [words @ .., last] = window;
    let mut shared = 0;
    // The bits that the shift leaves empty come from the next word.
    let mut next = u64::from(last);
    let shift = at & 7;
    for (word, coefficient) in words.as_chunks().0.iter().zip(coefficients).rev() {
        let word = u64::from_le_bytes(*word);
        shared ^= coefficient & ((word >> shift) | ((next << 1) << (63 ^ shift)));
        next = word;
    }
    shared.count_ones() & 1 == 1
}

/// Returns the window at byte offset `from`, with zeros past the end of the body.
#[cold]
fn zero_padded_window(body: &[u8], from: usize) -> [u8; EQUATION_BITS / 8 + 1] {
    let mut window = [0; EQUATION_BITS / 8 + 1];
    for (byte, source) in window.iter_mut().zip(body.get(from..).unwrap_or_default()) {
        *byte = *source;
    }
    window
}

#[inline]
fn fingerprint_words(fingerprint: &Fingerprint) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(fingerprint.as_bytes().as_chunks().0) {
        *word = u64::from_be_bytes(*bytes);
    }
    words
}

fn decode_columns(from: &mut Reader<'_>) -> Result<usize, Malformed> {
    let columns = from.u32("columns")?;
    usize::try_from(columns).ok().filter(|columns| *columns <= MAX_COLUMNS).ok_or(Malformed("columns"))
}
