//! Encoding a shard, and asking it about every member of its universe before anyone else can.

#![expect(clippy::arithmetic_side_effects, reason = "does not run in the proxy; sizes are below 2^32")]

use alloc::vec::Vec;
use core::fmt;

use sha2::{Digest, Sha256};
use token::Fingerprint;

use super::{
    HEADER, LAYOUT, Layer, MAX_COLUMNS, MAX_RANK, Shard,
    equation::{Equation, scatter},
    system::{Contradiction, System},
    words,
};
use crate::{
    MAX_OBJECT_BYTES,
    shards::{MAX_BITS, checked_bits, shard_of},
};

/// Encodes shard `shard` of a universe that is cut into 2^`bits`.
///
/// `revoked` and `good` together are its universe, in any order; the bytes depend on `seed` and the two sets alone, so
/// that a second builder can confirm them. Takes 32 bytes of memory for each fingerprint, and some 230 more for each
/// revoked one.
pub fn build(
    bits: u8,
    shard: u16,
    seed: &[u8],
    revoked: impl IntoIterator<Item = Fingerprint>,
    good: impl IntoIterator<Item = Fingerprint>,
) -> Result<Shard, BuildError> {
    checked_bits(bits, shard).map_err(|_| BuildError::NoSuchShard)?;
    let revoked = set(revoked, bits, shard)?;
    let good = set(good, bits, shard)?;
    if let Some(both) = first_of_both(&revoked, &good) {
        return Err(BuildError::Contradiction(both));
    }
    let inverted = good.len() < revoked.len();
    let (kept, others) = if inverted { (&good, &revoked) } else { (&revoked, &good) };
    let encoding = if kept.is_empty() {
        // The empty E is the complement of the whole universe: what has neither layer holds everything.
        Encoding { inverted: !inverted, ..Encoding::default() }
    } else {
        Encoding { inverted, ..encode(digest(bits, shard, seed, inverted, kept, others), kept, others)? }
    };
    let bytes = encoding.write(bits);
    if bytes.len() > MAX_BYTES {
        return Err(BuildError::TooLarge);
    }
    let built = Shard::read(bytes, shard).map_err(|_| BuildError::Unfaithful)?;
    let faithful = revoked.iter().all(|member| built.contains(member))
        && !good.iter().any(|other| built.contains(other));
    if faithful { Ok(built) } else { Err(BuildError::Unfaithful) }
}

/// Into how many shards, 2 to this power, a universe is best cut.
///
/// A fixed part of a shard is overhead, and so is its entry of 40 bytes: 16k to 32k members keep both near 1 %. Beyond
/// that the gain ends, and what a change costs on the wire grows.
pub fn shard_bits(revoked: usize, good: usize) -> u8 {
    let (kept, others) = (revoked.min(good), revoked.max(good));
    let fits = |bits: u8| {
        let (kept, others) = ((kept >> bits) + 1, (others >> bits) + 1);
        // An eighth is left for shards that chance makes larger.
        let least = |rank| expected_bits(kept, others, rank) / 7 < MAX_BYTES;
        kept <= MEMBERS && others <= UNIVERSE && (0..=MAX_RANK).any(least)
    };
    (0..MAX_BITS).find(|bits| fits(*bits)).unwrap_or(MAX_BITS)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildError {
    /// Not among 2^bits, or more than 2^16 of them.
    NoSuchShard,
    /// Of another shard.
    Stray(Fingerprint),
    /// Revoked and not revoked.
    Contradiction(Fingerprint),
    /// More than an object may have: cut the universe finer.
    TooLarge,
    /// No turn of the seed could be solved.
    Unsolvable,
    /// The encoding does not say what it was built from.
    Unfaithful,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchShard => f.write_str("there is no such shard"),
            Self::Stray(fingerprint) => write!(f, "the fingerprint {fingerprint} belongs to another shard"),
            Self::Contradiction(fingerprint) => {
                write!(f, "the fingerprint {fingerprint} is listed as revoked and as not revoked")
            }
            Self::TooLarge => {
                write!(f, "the shard takes more than {MAX_BYTES} bytes; cut the universe finer")
            }
            Self::Unsolvable => f.write_str("no turn of this seed could be solved; try another seed"),
            Self::Unfaithful => f.write_str("the encoded shard does not say what it was built from"),
        }
    }
}

impl core::error::Error for BuildError {}

#[derive(Default)]
struct Encoding {
    inverted: bool,
    seed: u64,
    filter_turn: u8,
    exact_turn: u8,
    rank: u8,
    filter_columns: usize,
    exact_columns: usize,
    body: Vec<u8>,
}

impl Encoding {
    fn write(&self, bits: u8) -> Vec<u8> {
        let Self { inverted, seed, filter_turn, exact_turn, rank, filter_columns, exact_columns, body } =
            self;
        let mut out = Vec::with_capacity(HEADER + body.len());
        out.extend([LAYOUT, bits, u8::from(*inverted), *rank, *filter_turn, *exact_turn]);
        for columns in [filter_columns, exact_columns] {
            out.extend(u32::try_from(*columns).unwrap_or(u32::MAX).to_be_bytes());
        }
        out.extend(seed.to_be_bytes());
        out.extend(body);
        out
    }
}

fn encode(seed: u64, kept: &[Fingerprint], others: &[Fingerprint]) -> Result<Encoding, BuildError> {
    let rank = (0..=MAX_RANK).min_by_key(|rank| expected_bits(kept.len(), others.len(), *rank)).unwrap_or(0);
    if expected_bits(kept.len(), others.len(), rank).div_ceil(8) + HEADER > MAX_BYTES {
        return Err(BuildError::TooLarge);
    }
    let mut encoding = Encoding { seed, rank, ..Encoding::default() };
    let (filter, passed) = if rank == 0 {
        (Layer::filter(seed, 0, 0, 0), others.to_vec())
    } else {
        let solved = (0..=u8::MAX).find_map(|turn| {
            let columns = filter_columns(kept.len(), rank, turn);
            let filter = Layer::filter(seed, turn, rank, columns);
            let body = solve_filter(seed, &filter, kept);
            let passed = passing(&body, &filter, others)?;
            encoding.filter_turn = turn;
            encoding.filter_columns = columns;
            encoding.body = body;
            Some((filter, passed))
        });
        solved.ok_or(BuildError::Unsolvable)?
    };
    if passed.is_empty() {
        return Ok(encoding);
    }
    for turn in 0..=u8::MAX {
        let columns = exact_columns(kept.len() + passed.len(), turn);
        let exact = Layer::exact(seed, turn, &filter, columns);
        if solve_exact(&mut encoding.body, &exact, kept, &passed).is_ok() {
            encoding.exact_turn = turn;
            encoding.exact_columns = columns;
            return Ok(encoding);
        }
    }
    Err(BuildError::Unsolvable)
}

fn solve_filter(seed: u64, filter: &Layer, kept: &[Fingerprint]) -> Vec<u8> {
    let mut system = System::new(filter.columns);
    for (equation, _) in equations(filter, kept.iter().map(|member| (member, false))) {
        let Ok(()) = system.add(equation, false) else { continue }; // All sums are 0: nothing can contradict.
    }
    let mut body = Vec::new();
    let mut drawn = 0;
    for number in 0..usize::from(filter.rank) {
        // Free columns at random: the solutions must differ, or they would let the same fingerprints pass.
        let free = || {
            drawn += 1;
            scatter(seed ^ scatter(drawn | FREE)) & 1 == 1
        };
        let at = filter.at + number * filter.columns;
        resize(&mut body, at + filter.columns);
        system.solve(free, |column| set_bit(&mut body, at + column));
    }
    body
}

/// Of the others those that pass the filter; None if they are more than chance would let pass: where too many
/// equations fell on one place, a solution is 0 there and before, and the filter lets everything through.
fn passing(body: &[u8], filter: &Layer, others: &[Fingerprint]) -> Option<Vec<Fingerprint>> {
    let expected = others.len() >> filter.rank;
    // Six standard deviations, and a sixty-fourth that is not worth another turn.
    let most = expected + 6 * expected.isqrt() + expected / 64 + 6;
    let mut passed = Vec::with_capacity(most);
    for other in others.iter().filter(|other| filter.all_zero(body, words(other))) {
        if passed.len() == most {
            return None;
        }
        passed.push(*other);
    }
    Some(passed)
}

fn solve_exact(
    body: &mut Vec<u8>,
    exact: &Layer,
    kept: &[Fingerprint],
    passed: &[Fingerprint],
) -> Result<(), Contradiction> {
    let mut system = System::new(exact.columns);
    let kept = kept.iter().map(|member| (member, true));
    for (equation, sum) in equations(exact, kept.chain(passed.iter().map(|other| (other, false)))) {
        system.add(equation, sum)?;
    }
    resize(body, exact.end());
    system.solve(|| false, |column| set_bit(body, exact.at + column));
    Ok(())
}

/// In order of their starts, which keeps elimination in the cache.
fn equations<'a>(
    layer: &Layer,
    members: impl Iterator<Item = (&'a Fingerprint, bool)>,
) -> Vec<(Equation, bool)> {
    let equation = |(member, sum)| (Equation::of(words(member), &layer.keys, layer.columns), sum);
    let mut equations: Vec<_> = members.map(equation).collect();
    equations.sort_unstable_by_key(|(equation, _)| equation.start);
    equations
}

fn resize(body: &mut Vec<u8>, bits: usize) {
    body.resize(bits.div_ceil(8), 0);
}

fn set_bit(body: &mut [u8], bit: usize) {
    if let Some(byte) = body.get_mut(bit / 8) {
        *byte |= 1 << (bit % 8);
    }
}

/// Sorted, each once.
fn set(
    members: impl IntoIterator<Item = Fingerprint>,
    bits: u8,
    shard: u16,
) -> Result<Vec<Fingerprint>, BuildError> {
    let mut set: Vec<Fingerprint> = members.into_iter().collect();
    if let Some(stray) = set.iter().find(|member| shard_of(member.prefix(), bits) != shard) {
        return Err(BuildError::Stray(*stray));
    }
    // As all of it would be sorted, in half the time: the first word decides nearly always.
    set.sort_unstable_by(|a, b| a.prefix().cmp(&b.prefix()).then_with(|| a.cmp(b)));
    set.dedup();
    Ok(set)
}

/// Both are sorted.
fn first_of_both(revoked: &[Fingerprint], good: &[Fingerprint]) -> Option<Fingerprint> {
    let mut good = good.iter().peekable();
    revoked.iter().copied().find(|member| {
        while good.next_if(|other| *other < member).is_some() {}
        good.peek() == Some(&member)
    })
}

/// The seed of a shard: nobody knows it before he knows all that is kept, see [`super::equation`].
fn digest(
    bits: u8,
    shard: u16,
    seed: &[u8],
    inverted: bool,
    kept: &[Fingerprint],
    others: &[Fingerprint],
) -> u64 {
    let mut digest = Sha256::new_with_prefix(b"keystile base v1\0");
    digest.update([bits, u8::from(inverted)]);
    digest.update(shard.to_be_bytes());
    for length in [seed.len(), kept.len(), others.len()] {
        digest.update((length as u64).to_be_bytes());
    }
    digest.update(seed);
    kept.iter().for_each(|member| digest.update(member.as_bytes()));
    let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(digest.finalize());
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Columns beyond the equations, over a homogeneous system: an n-th part for the starts, which are 256 fewer than the
/// columns and stray from their mean by the square root of n; and where few are free, another fingerprint's equation
/// follows from the members' with probability 2^-free, which must not outweigh 2^-rank. A turn that was unlucky is
/// followed by one with more room. The figures are the least that mostly solve within a few turns, measured for n from
/// 1 to 500,000.
fn filter_columns(members: usize, rank: u8, turn: u8) -> usize {
    members + 8 + usize::from(rank) + members / 128 + usize::from(turn) * (1 + members / 512)
}

/// As above; here a turn that does not solve is noticed at once, so that it can be tried with less room.
fn exact_columns(members: usize, turn: u8) -> usize {
    members + 8 + members / 256 + usize::from(turn) * (1 + members / 1024)
}

fn expected_bits(kept: usize, others: usize, rank: u8) -> usize {
    let filter = if rank == 0 { 0 } else { usize::from(rank) * filter_columns(kept, rank, 0) };
    filter + exact_columns(kept + (others >> rank), 0)
}

/// Keeps the draws of free columns apart from those of equations.
const FREE: u64 = 1 << 63;

const MEMBERS: usize = 32_768;

/// A builder holds 128 MB of fingerprints at most.
const UNIVERSE: usize = 1 << 22;

const MAX_BYTES: usize = MAX_OBJECT_BYTES as usize;

const _: () = assert!(MAX_BYTES * 8 < MAX_COLUMNS);
