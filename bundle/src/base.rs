//! The base: exactly which of all issued, unexpired fingerprints are revoked, near the least number of bits that can
//! tell.
//!
//! It answers for its universe alone, the fingerprints it was built over: of those no answer is wrong. Any other
//! fingerprint gets a random one, so whoever asks must know first that the universe covers it.
//!
//! The set kept, E, is the revoked, or the others if they are fewer. Two layers after Mozilla's Clubcard
//! (<https://eprint.iacr.org/2025/610>), both ribbon systems (arXiv 2103.02515, 2109.01892):
//!
//! 1. A *filter*, `rank` solutions of one homogeneous system: every member of E sums to 0 in each, any other
//!    fingerprint in all of them with probability 2^-rank. The rank leaves about as many of these as E has members.
//! 2. An *exact* layer over what passes the filter: 1 for a member of E, 0 for the rest. Absent when nothing else of
//!    the universe passes.
//!
//! ```text
//!  0   1  layout: 1
//!  1   1  bits: the universe is cut into 2^bits shards by leading bits
//!  2   1  0: E is the revoked; 1: E is the others
//!  3   1  rank, at most 32
//!  4   1  turn of the filter   (which of its seed's draws could be solved)
//!  5   1  turn of the exact layer
//!  6   4  F: columns of the filter; 0 if the rank is
//! 10   4  X: columns of the exact layer; 0 if there is none
//! 14   8  seed
//! 22      solutions, as bits: rank times F, then X, with no gap; bit i is bit i % 8 of byte i / 8, so that 64
//!         neighbours are a little-endian word wherever they start; the bits left of the last byte are 0
//! ```
//! Numbers are big-endian. Nothing is unpacked: a look-up reads 33 bytes for each solution that it needs, which for
//! most fingerprints is one or two.

use alloc::vec::Vec;
use core::fmt;

use token::Fingerprint;

use crate::{
    codec::{Malformed, Reader},
    shards::{Bits, checked_bits},
};

#[cfg(feature = "builder")]
mod build;
mod equation;
#[cfg(feature = "builder")]
mod system;

#[cfg(feature = "builder")]
pub use build::{BuildError, build, shard_bits};

use equation::{Equation, Keys, WIDTH, WORDS};

/// One shard, checked through to its last bit, in the bytes it came in.
#[derive(Clone)]
pub struct Shard {
    bytes: Vec<u8>,
    bits: u8,
    inverted: bool,
    filter: Layer,
    exact: Option<Layer>,
}

impl Shard {
    pub fn read(bytes: Vec<u8>, shard: u16) -> Result<Self, Malformed> {
        let mut rest = Reader(&bytes);
        if rest.u8("layout")? != LAYOUT {
            return Err(Malformed("layout"));
        }
        let bits = checked_bits(rest.u8("shard bits")?, shard)?;
        let inverted = match rest.u8("inversion")? {
            0 => false,
            1 => true,
            _ => return Err(Malformed("inversion")),
        };
        let rank = rest.u8("rank")?;
        let [filter_turn, exact_turn] = rest.array("turns")?;
        let filter_columns = columns(&mut rest)?;
        let exact_columns = columns(&mut rest)?;
        let seed = rest.u64("seed")?;
        if rank > MAX_RANK || (rank == 0) != (filter_columns == 0) {
            return Err(Malformed("rank"));
        }
        // One spelling: what is not there has no turn, and nothing at all has no seed.
        let none = filter_columns == 0 && exact_columns == 0 && seed != 0;
        if none || (filter_columns == 0 && filter_turn != 0) || (exact_columns == 0 && exact_turn != 0) {
            return Err(Malformed("seed"));
        }
        let filter = Layer::filter(seed, filter_turn, rank, filter_columns);
        let exact = Layer::exact(seed, exact_turn, &filter, exact_columns);
        let end = if exact_columns == 0 { filter.end() } else { exact.end() };
        let body = rest.bytes(end.div_ceil(8), "solutions")?;
        rest.end()?;
        let used = u32::try_from(end % 8).map_err(|_| Malformed("solutions"))?;
        if used > 0 && body.last().is_some_and(|last| last >> used != 0) {
            return Err(Malformed("bits past the solutions"));
        }
        let exact = (exact_columns > 0).then_some(exact);
        Ok(Self { bytes, bits, inverted, filter, exact })
    }

    /// Whether a member of the universe is revoked. Of any other fingerprint the answer says nothing.
    #[inline]
    pub fn contains(&self, fingerprint: &Fingerprint) -> bool {
        let words = words(fingerprint);
        let body = self.bytes.get(HEADER..).unwrap_or_default();
        let kept = self.filter.all_zero(body, words)
            && self.exact.as_ref().is_none_or(|exact| !exact.all_zero(body, words));
        kept != self.inverted
    }

    /// As it travels, and all that it takes in memory beside less than 200 bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Bits for Shard {
    fn bits(&self) -> u8 {
        self.bits
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "base::Shard({} bytes)", self.bytes.len())
    }
}

/// Where in the body the solutions of a system lie, one behind the other, and how fingerprints ask them.
#[derive(Debug, Clone, Copy)]
struct Layer {
    keys: Keys,
    rank: u8,
    columns: usize,
    /// First bit.
    at: usize,
}

impl Layer {
    fn filter(seed: u64, turn: u8, rank: u8, columns: usize) -> Self {
        Self { keys: Keys::of(seed, turn.into()), rank, columns, at: 0 }
    }

    fn exact(seed: u64, turn: u8, filter: &Self, columns: usize) -> Self {
        Self { keys: Keys::of(seed, u16::from(turn) | 1 << 8), rank: 1, columns, at: filter.end() }
    }

    /// The bit after the last. At most 33 * 2^24, so that it fits 32 bits.
    fn end(&self) -> usize {
        self.at.saturating_add(self.columns.saturating_mul(self.rank.into()))
    }

    #[inline]
    fn all_zero(&self, body: &[u8], words: [u64; 4]) -> bool {
        if self.rank == 0 {
            return true;
        }
        let Equation { start, coefficients } = Equation::of(words, &self.keys, self.columns);
        let mut at = self.at.saturating_add(start);
        for _ in 0..self.rank {
            if sum(body, at, &coefficients) {
                return false;
            }
            at = at.saturating_add(self.columns);
        }
        true
    }
}

/// The sum over GF(2) of those of the 256 bits from `at` on whose coefficient is 1.
#[inline]
fn sum(body: &[u8], at: usize, coefficients: &[u64; WORDS]) -> bool {
    let window = match body.get(at >> 3..).and_then(<[u8]>::first_chunk) {
        Some(window) => *window,
        None => last_window(body, at >> 3),
    };
    let [words @ .., last] = window;
    let mut shared = 0;
    // What a shift leaves over of a word is made up from the one after it.
    let mut next = u64::from(last);
    let shift = at & 7;
    for (word, coefficient) in words.as_chunks().0.iter().zip(coefficients).rev() {
        let word = u64::from_le_bytes(*word);
        shared ^= coefficient & ((word >> shift) | ((next << 1) << (63 ^ shift)));
        next = word;
    }
    shared.count_ones() & 1 == 1
}

/// Past the end all is 0.
#[cold]
fn last_window(body: &[u8], from: usize) -> [u8; WIDTH / 8 + 1] {
    let mut window = [0; WIDTH / 8 + 1];
    for (byte, there) in window.iter_mut().zip(body.get(from..).unwrap_or_default()) {
        *byte = *there;
    }
    window
}

#[inline]
fn words(fingerprint: &Fingerprint) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(fingerprint.as_bytes().as_chunks().0) {
        *word = u64::from_be_bytes(*bytes);
    }
    words
}

fn columns(from: &mut Reader<'_>) -> Result<usize, Malformed> {
    let columns = from.u32("columns")?;
    usize::try_from(columns).ok().filter(|columns| *columns <= MAX_COLUMNS).ok_or(Malformed("columns"))
}

const LAYOUT: u8 = 1;

const HEADER: usize = 22;

/// Enough for one revoked among 2^32: each step halves what passes.
const MAX_RANK: u8 = 32;

/// 2 MiB, far more than an object may have.
const MAX_COLUMNS: usize = 1 << 24;
