//! Encodes a shard and verifies it for every member of its universe before returning it.

#![expect(clippy::arithmetic_side_effects, reason = "does not run in the proxy; sizes are below 2^32")]

use alloc::vec::Vec;
use core::fmt;

use sha2::{Digest, Sha256};
use token::Fingerprint;

use super::{
    HEADER_LEN, LAYOUT, Layer, MAX_COLUMNS, MAX_RANK, RibbonShard,
    equation::{Equation, mix64},
    fingerprint_words,
    system::{Contradiction, System},
};
use crate::{
    MAX_OBJECT_BYTES,
    shards::{MAX_BITS, check_bits, shard_of},
};

/// Separates the random values of free variables from those of equations.
const FREE_VARIABLE_DOMAIN: u64 = 1 << 63;

/// Members of the smaller set in one shard, see [`shard_bits`].
const MAX_INCLUDED_MEMBERS: usize = 32_768;

/// Members of the larger set in one shard: a builder needs at most 128 MB of fingerprints.
const MAX_SHARD_MEMBERS: usize = 1 << 22;

/// Size of the largest shard.
const MAX_BYTES: usize = MAX_OBJECT_BYTES as usize;

const _: () = assert!(MAX_BYTES * 8 < MAX_COLUMNS);

/// Encodes shard `shard` of a universe that is divided into 2^`bits` shards.
///
/// `revoked` and `good` together are the universe of the shard, in any order. The bytes depend only on `seed` and the two
/// sets, so a second builder can reproduce them. Needs 32 bytes of memory for each fingerprint, and about 230 more for
/// each revoked one.
///
/// # Errors
///
/// See [`BuildError`].
pub fn build_shard(
    bits: u8,
    shard: u16,
    seed: &[u8],
    revoked: impl IntoIterator<Item = Fingerprint>,
    good: impl IntoIterator<Item = Fingerprint>,
) -> Result<RibbonShard, BuildError> {
    check_bits(bits, shard).map_err(|_| BuildError::InvalidShardNumber)?;
    let revoked = sorted_members(revoked, bits, shard)?;
    let good = sorted_members(good, bits, shard)?;
    if let Some(both) = first_common_member(&revoked, &good) {
        return Err(BuildError::ConflictingStatus(both));
    }
    let inverted = good.len() < revoked.len();
    let (included, excluded) = if inverted { (&good, &revoked) } else { (&revoked, &good) };
    let encoding = if included.is_empty() {
        // Without layers every fingerprint is included. An empty E is therefore the inverse of that.
        Encoding { inverted: !inverted, ..Encoding::default() }
    } else {
        Encoding {
            inverted,
            ..encode(derive_seed(bits, shard, seed, inverted, included, excluded), included, excluded)?
        }
    };
    let bytes = encoding.encode(bits);
    if bytes.len() > MAX_BYTES {
        return Err(BuildError::TooLarge);
    }
    let built = RibbonShard::decode(bytes, shard).map_err(|_| BuildError::VerificationFailed)?;
    let faithful = revoked.iter().all(|member| built.contains(member))
        && !good.iter().any(|other| built.contains(other));
    if faithful { Ok(built) } else { Err(BuildError::VerificationFailed) }
}

/// Returns the recommended number of shard bits: a universe of this size is best divided into 2^n shards.
///
/// A fixed part of each shard is overhead, and so is its entry of 40 bytes. With 16k to 32k members in the smaller set,
/// both are about 1 %. Larger shards save nothing, and make a change more expensive to transfer.
pub fn shard_bits(revoked: usize, good: usize) -> u8 {
    let (included, excluded) = (revoked.min(good), revoked.max(good));
    let fits = |bits: u8| {
        let (included, excluded) = ((included >> bits) + 1, (excluded >> bits) + 1);
        // One eighth is left for shards that are larger by chance.
        let least = |rank| expected_bits(included, excluded, rank) / 7 < MAX_BYTES;
        included <= MAX_INCLUDED_MEMBERS && excluded <= MAX_SHARD_MEMBERS && (0..=MAX_RANK).any(least)
    };
    (0..MAX_BITS).find(|bits| fits(*bits)).unwrap_or(MAX_BITS)
}

/// Why [`build_shard`] fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildError {
    /// The shard number is not below 2^bits, or `bits` is greater than 16.
    InvalidShardNumber,
    /// This fingerprint belongs to another shard.
    WrongShard(Fingerprint),
    /// This fingerprint is listed as revoked and as not revoked.
    ConflictingStatus(Fingerprint),
    /// The shard is larger than an object may be. More shard bits are needed.
    TooLarge,
    /// None of the 256 attempts for this seed has a solution.
    Unsolvable,
    /// The encoded shard gives a wrong answer for a member of its universe.
    VerificationFailed,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidShardNumber => {
                f.write_str("the shard number or the number of shard bits is out of range")
            }
            Self::WrongShard(fingerprint) => {
                write!(f, "the fingerprint {fingerprint} belongs to another shard")
            }
            Self::ConflictingStatus(fingerprint) => {
                write!(f, "the fingerprint {fingerprint} is listed as revoked and as not revoked")
            }
            Self::TooLarge => {
                write!(f, "the shard is larger than {MAX_BYTES} bytes; more shard bits are needed")
            }
            Self::Unsolvable => {
                f.write_str("no system derived from this seed has a solution; use another seed")
            }
            Self::VerificationFailed => {
                f.write_str("the encoded shard gives a wrong answer for one of its members")
            }
        }
    }
}

impl core::error::Error for BuildError {}

/// A shard before it is serialized; the fields are those of the format.
#[derive(Default)]
struct Encoding {
    inverted: bool,
    seed: u64,
    filter_attempt: u8,
    exact_attempt: u8,
    rank: u8,
    filter_columns: usize,
    exact_columns: usize,
    body: Vec<u8>,
}

impl Encoding {
    fn encode(&self, bits: u8) -> Vec<u8> {
        let Self { inverted, seed, filter_attempt, exact_attempt, rank, filter_columns, exact_columns, body } =
            self;
        let mut out = Vec::with_capacity(HEADER_LEN + body.len());
        out.extend([LAYOUT, bits, u8::from(*inverted), *rank, *filter_attempt, *exact_attempt]);
        for columns in [filter_columns, exact_columns] {
            out.extend(u32::try_from(*columns).unwrap_or(u32::MAX).to_be_bytes());
        }
        out.extend(seed.to_be_bytes());
        out.extend(body);
        out
    }
}

/// Chooses the rank, then solves the filter and the exact layer, each with as many attempts as it needs.
fn encode(seed: u64, included: &[Fingerprint], excluded: &[Fingerprint]) -> Result<Encoding, BuildError> {
    let rank =
        (0..=MAX_RANK).min_by_key(|rank| expected_bits(included.len(), excluded.len(), *rank)).unwrap_or(0);
    if expected_bits(included.len(), excluded.len(), rank).div_ceil(8) + HEADER_LEN > MAX_BYTES {
        return Err(BuildError::TooLarge);
    }
    let mut encoding = Encoding { seed, rank, ..Encoding::default() };
    let (filter, false_positives) = if rank == 0 {
        (Layer::filter(seed, 0, 0, 0), excluded.to_vec())
    } else {
        let solved = (0..=u8::MAX).find_map(|attempt| {
            let columns = filter_columns(included.len(), rank, attempt);
            let filter = Layer::filter(seed, attempt, rank, columns);
            let body = solve_filter(seed, &filter, included);
            let false_positives = filter_false_positives(&body, &filter, excluded)?;
            encoding.filter_attempt = attempt;
            encoding.filter_columns = columns;
            encoding.body = body;
            Some((filter, false_positives))
        });
        solved.ok_or(BuildError::Unsolvable)?
    };
    if false_positives.is_empty() {
        return Ok(encoding);
    }
    for attempt in 0..=u8::MAX {
        let columns = exact_columns(included.len() + false_positives.len(), attempt);
        let exact = Layer::exact(seed, attempt, &filter, columns);
        if solve_exact(&mut encoding.body, &exact, included, &false_positives).is_ok() {
            encoding.exact_attempt = attempt;
            encoding.exact_columns = columns;
            return Ok(encoding);
        }
    }
    Err(BuildError::Unsolvable)
}

fn solve_filter(seed: u64, filter: &Layer, included: &[Fingerprint]) -> Vec<u8> {
    let mut system = System::new(filter.columns);
    for (equation, _) in equations(filter, included.iter().map(|member| (member, false))) {
        let Ok(()) = system.add(equation, false) else { continue }; // A homogeneous system has no contradictions.
    }
    let mut body = Vec::new();
    let mut drawn = 0;
    for number in 0..usize::from(filter.rank) {
        // Free variables are random: equal solutions would have the same false positives.
        let free_variable = || {
            drawn += 1;
            mix64(seed ^ mix64(drawn | FREE_VARIABLE_DOMAIN)) & 1 == 1
        };
        let at = filter.first_bit + number * filter.columns;
        resize(&mut body, at + filter.columns);
        system.solve(free_variable, |column| set_bit(&mut body, at + column));
    }
    body
}

/// Returns the excluded fingerprints that pass the filter, or `None` if they are more than chance explains: where too
/// many equations start close together, a solution is 0 there and before, and every fingerprint passes.
fn filter_false_positives(body: &[u8], filter: &Layer, excluded: &[Fingerprint]) -> Option<Vec<Fingerprint>> {
    let expected = excluded.len() >> filter.rank;
    // Six standard deviations, plus 1/64 because another attempt would cost more than it saves.
    let limit = expected + 6 * expected.isqrt() + expected / 64 + 6;
    let mut false_positives = Vec::with_capacity(limit);
    for other in excluded.iter().filter(|other| filter.all_zero(body, fingerprint_words(other))) {
        if false_positives.len() == limit {
            return None;
        }
        false_positives.push(*other);
    }
    Some(false_positives)
}

fn solve_exact(
    body: &mut Vec<u8>,
    exact: &Layer,
    included: &[Fingerprint],
    false_positives: &[Fingerprint],
) -> Result<(), Contradiction> {
    let mut system = System::new(exact.columns);
    let included = included.iter().map(|member| (member, true));
    for (equation, sum) in
        equations(exact, included.chain(false_positives.iter().map(|other| (other, false))))
    {
        system.add(equation, sum)?;
    }
    resize(body, exact.end());
    system.solve(|| false, |column| set_bit(body, exact.first_bit + column));
    Ok(())
}

/// Returns the equations in order of their start columns, which keeps the elimination within the CPU cache.
fn equations<'a>(
    layer: &Layer,
    members: impl Iterator<Item = (&'a Fingerprint, bool)>,
) -> Vec<(Equation, bool)> {
    let equation =
        |(member, sum)| (Equation::new(fingerprint_words(member), &layer.keys, layer.columns), sum);
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

/// Returns the members sorted and without duplicates.
fn sorted_members(
    members: impl IntoIterator<Item = Fingerprint>,
    bits: u8,
    shard: u16,
) -> Result<Vec<Fingerprint>, BuildError> {
    let mut set: Vec<Fingerprint> = members.into_iter().collect();
    if let Some(stray) = set.iter().find(|member| shard_of(member.prefix(), bits) != shard) {
        return Err(BuildError::WrongShard(*stray));
    }
    // The same order as a plain sort in half the time: the first 64 bits nearly always decide.
    set.sort_unstable_by(|a, b| a.prefix().cmp(&b.prefix()).then_with(|| a.cmp(b)));
    set.dedup();
    Ok(set)
}

/// Returns the first fingerprint that both sorted lists contain.
fn first_common_member(revoked: &[Fingerprint], good: &[Fingerprint]) -> Option<Fingerprint> {
    let mut good = good.iter().peekable();
    revoked.iter().copied().find(|member| {
        while good.next_if(|other| *other < member).is_some() {}
        good.peek() == Some(&member)
    })
}

/// Derives the seed of a shard from its complete content, so that it is unknown until the content is fixed, see
/// [`super::equation`].
fn derive_seed(
    bits: u8,
    shard: u16,
    seed: &[u8],
    inverted: bool,
    included: &[Fingerprint],
    excluded: &[Fingerprint],
) -> u64 {
    let mut digest = Sha256::new_with_prefix(b"keystile base v1\0");
    digest.update([bits, u8::from(inverted)]);
    digest.update(shard.to_be_bytes());
    for length in [seed.len(), included.len(), excluded.len()] {
        digest.update((length as u64).to_be_bytes());
    }
    digest.update(seed);
    included.iter().for_each(|member| digest.update(member.as_bytes()));
    let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(digest.finalize());
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Returns the number of columns of a filter. A homogeneous system needs more columns than equations for two reasons:
/// start columns are 256 fewer than columns and deviate from their mean by the square root of n; and with k free
/// variables, the equation of an excluded fingerprint follows from those of the members with probability 2^-k, which must
/// not dominate 2^-rank. Each further attempt has more columns. The constants are the smallest that usually have a
/// solution within a few attempts, measured for n from 1 to 500,000.
fn filter_columns(members: usize, rank: u8, attempt: u8) -> usize {
    members + 8 + usize::from(rank) + members / 128 + usize::from(attempt) * (1 + members / 512)
}

/// Returns the number of columns of the exact layer. Fewer spare columns than for a filter suffice, because an attempt
/// without a solution is detected at once.
fn exact_columns(members: usize, attempt: u8) -> usize {
    members + 8 + members / 256 + usize::from(attempt) * (1 + members / 1024)
}

/// Returns the expected size of both layers, in bits.
fn expected_bits(included: usize, excluded: usize, rank: u8) -> usize {
    let filter = if rank == 0 { 0 } else { usize::from(rank) * filter_columns(included, rank, 0) };
    filter + exact_columns(included + (excluded >> rank), 0)
}
