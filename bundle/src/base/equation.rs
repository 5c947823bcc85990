//! From a fingerprint to its equation: which 256 neighbouring columns of a layer it reads, and which of them it sums.
//!
//! A fingerprint is SHA-256, uniform already, so its words are only moved about by a seed: the start comes from the
//! first, which also chose the shard, the coefficients from the other three. The start goes through the finalizer of
//! MurmurHash3, since neighbours in a shard share leading bits; coefficients through one multiplication, whose carries
//! keep one seed's linear relations from being another's.
//!
//! Threat: someone who is issued many credentials, computes their fingerprints, and has revoked the ones that crowd
//! into one window or depend on each other, so that no system can be solved or an issued credential is misread.
//! The seed is a digest of every fingerprint to be encoded, other people's too, and of the publisher's own word: it is
//! known only when the set can no longer be chosen, and a change of one member draws all equations anew. What remains
//! is chance: an unlucky draw does not solve and is followed by the next, and nothing leaves the builder before every
//! member of the universe has been asked. So he can waste some milliseconds of the builder, not cause a wrong answer.

/// An equation is 4 words, 256 columns, wide: 2 need exceptions at the sizes we build (measured), 8 only cost time.
pub(crate) const WORDS: usize = 4;

pub(crate) const WIDTH: usize = 64 * WORDS;

/// What one seed makes of fingerprints in one layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys {
    start: u64,
    coefficients: [u64; WORDS],
}

impl Keys {
    /// Two layers, or two turns at one layer, never share their equations.
    pub(crate) fn of(seed: u64, turn: u16) -> Self {
        let key = |number: u64| scatter(seed ^ scatter((u64::from(turn) << 8) | number));
        Self { start: key(1), coefficients: [key(2), key(3), key(4), key(5)] }
    }
}

/// The sum of the columns start + i, for every bit i that is set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Equation {
    pub(crate) start: usize,
    pub(crate) coefficients: [u64; WORDS],
}

impl Equation {
    /// The first coefficient is always 1; none lies past the last column.
    #[inline]
    pub(crate) fn of([first, a, b, c]: [u64; 4], keys: &Keys, columns: usize) -> Self {
        let starts = columns.saturating_sub(WIDTH - 1).max(1);
        let [k0, k1, k2, k3] = keys.coefficients;
        let rest = a ^ b.rotate_left(21) ^ c.rotate_left(42);
        let mut coefficients = [spread(a ^ k0) | 1, spread(b ^ k1), spread(c ^ k2), spread(rest ^ k3)];
        if columns < WIDTH {
            for (word, at) in coefficients.iter_mut().zip((0..).step_by(64)) {
                let kept = u32::try_from(columns.saturating_sub(at)).unwrap_or(64);
                *word &= 1u64.checked_shl(kept).map_or(u64::MAX, |end| end.wrapping_sub(1));
            }
        }
        Self { start: scaled(scatter(first ^ keys.start), starts), coefficients }
    }
}

/// Where in 0..starts; a set has far fewer than 2^32 columns.
#[inline]
fn scaled(hash: u64, starts: usize) -> usize {
    let starts = u64::from(u32::try_from(starts).unwrap_or(u32::MAX));
    usize::try_from((hash >> 32).wrapping_mul(starts) >> 32).unwrap_or(0)
}

/// MurmurHash3's 64-bit finalizer.
pub(crate) const fn scatter(mut word: u64) -> u64 {
    word ^= word >> 33;
    word = word.wrapping_mul(0xff51_afd7_ed55_8ccd);
    word ^= word >> 33;
    word = word.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ (word >> 33)
}

/// The multiplier is 2^64 divided by the golden ratio.
#[inline]
const fn spread(word: u64) -> u64 {
    let word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word ^ (word >> 32)
}
