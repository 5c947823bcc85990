//! Maps a fingerprint to its equation: which 256 neighboring columns of a layer it reads, and which of them it sums.
//!
//! A fingerprint is a SHA-256 digest and therefore uniform, so a seed only has to permute its words. The start column
//! comes from the first word, which also selects the shard; the coefficients come from the other three. The start goes
//! through the finalizer of MurmurHash3, because neighbors in a shard share leading bits. The coefficients go through
//! one multiplication, whose carries keep the linear relations of one seed from applying to another.
//!
//! Threat: an attacker obtains many credentials, computes their fingerprints, and has those revoked that crowd into one
//! window or depend linearly on each other, so that no system has a solution or an issued credential is misread.
//! The seed is a digest of every fingerprint to be encoded, including those of other users, and of the seed that the
//! publisher passes. It is known only when the set is fixed, and changing one member redraws all equations. An unlucky
//! draw that has no solution is followed by the next attempt, and the builder queries every member of the universe
//! before it returns a shard. The attacker can thus cost the builder some milliseconds, but cannot cause a wrong answer.

/// 64-bit words per equation. Four words are 256 columns: with two, systems of the sizes that occur have no solution
/// too often (measured); eight only cost time.
pub(crate) const EQUATION_WORDS: usize = 4;

/// Columns that an equation spans.
pub(crate) const EQUATION_BITS: usize = 64 * EQUATION_WORDS;

/// The keys that turn fingerprints into equations, for one seed and one layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EquationKeys {
    start: u64,
    coefficients: [u64; EQUATION_WORDS],
}

impl EquationKeys {
    /// Derives the keys. Two layers, or two attempts at one layer, never share keys.
    pub(crate) fn new(seed: u64, attempt: u16) -> Self {
        let key = |number: u64| mix64(seed ^ mix64((u64::from(attempt) << 8) | number));
        Self { start: key(1), coefficients: [key(2), key(3), key(4), key(5)] }
    }
}

/// The sum over GF(2) of the columns `start + i`, for every set bit `i` of `coefficients`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Equation {
    pub(crate) start: usize,
    pub(crate) coefficients: [u64; EQUATION_WORDS],
}

impl Equation {
    /// Derives the equation of a fingerprint, given as words. The first coefficient is always 1, and no coefficient lies
    /// past the last column.
    #[inline]
    pub(crate) fn new([first, a, b, c]: [u64; 4], keys: &EquationKeys, columns: usize) -> Self {
        let starts = columns.saturating_sub(EQUATION_BITS - 1).max(1);
        let [k0, k1, k2, k3] = keys.coefficients;
        let rest = a ^ b.rotate_left(21) ^ c.rotate_left(42);
        let mut coefficients =
            [multiply_mix(a ^ k0) | 1, multiply_mix(b ^ k1), multiply_mix(c ^ k2), multiply_mix(rest ^ k3)];
        if columns < EQUATION_BITS {
            for (word, at) in coefficients.iter_mut().zip((0..).step_by(64)) {
                let kept = u32::try_from(columns.saturating_sub(at)).unwrap_or(64);
                *word &= 1u64.checked_shl(kept).map_or(u64::MAX, |end| end.wrapping_sub(1));
            }
        }
        Self { start: scale_to_range(mix64(first ^ keys.start), starts), coefficients }
    }
}

/// Maps a hash to `0..starts`, which is far below 2^32.
#[inline]
fn scale_to_range(hash: u64, starts: usize) -> usize {
    let starts = u64::from(u32::try_from(starts).unwrap_or(u32::MAX));
    usize::try_from((hash >> 32).wrapping_mul(starts) >> 32).unwrap_or(0)
}

/// The 64-bit finalizer of MurmurHash3.
pub(crate) const fn mix64(mut word: u64) -> u64 {
    word ^= word >> 33;
    word = word.wrapping_mul(0xff51_afd7_ed55_8ccd);
    word ^= word >> 33;
    word = word.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ (word >> 33)
}

/// Multiplicative (Fibonacci) hashing: the multiplier is 2^64 divided by the golden ratio.
#[inline]
const fn multiply_mix(word: u64) -> u64 {
    let word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word ^ (word >> 32)
}
