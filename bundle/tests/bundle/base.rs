//! The base is exact for its universe and close to the information-theoretic minimum, or it is not built.

use std::collections::BTreeMap;

use base16ct::lower::encode_string as hex;
use bundle::base::{BuildError, RibbonShard, build_shard, shard_bits};
use clubcard::{
    AsQuery, Clubcard, Equation, Filterable, Queryable,
    builder::{ApproximateRibbon, ClubcardBuilder, ExactRibbon},
};
use proptest::prelude::*;
use token::Fingerprint;

use crate::fixtures::assert_vectors;

const SEED: &[u8] = b"epoch 7";

fn fingerprints(numbers: std::ops::Range<u64>) -> impl Iterator<Item = Fingerprint> {
    numbers.map(|number| Fingerprint::digest(&number.to_be_bytes()))
}

/// Builds one shard in which the first `revoked` members of `universe` are revoked.
fn shard_of_first(revoked: u64, universe: u64) -> RibbonShard {
    build_shard(0, 0, SEED, fingerprints(0..revoked), fingerprints(revoked..universe)).unwrap()
}

/// Returns the information-theoretic minimum in bits: log2 of the number of subsets of this size.
fn min_bits(revoked: u64, universe: u64) -> f64 {
    let log_factorial = |n: u64| (1..=n).map(|i| (i as f64).log2()).sum::<f64>();
    log_factorial(universe) - log_factorial(revoked) - log_factorial(universe - revoked)
}

#[test]
fn base_is_exact_and_compact_at_every_density() {
    for (revoked, universe) in [
        (0, 0),
        (0, 1),
        (1, 1),
        (1, 2),
        (2, 3),
        (7, 10),
        (0, 10_000),
        (10_000, 10_000),
        (1, 100_000),
        (99_999, 100_000),
        (3, 70_000),
        (60, 300),
        (255, 600),
        (256, 600),
        (257, 600),
        (250, 100_000),
        (1_000, 100_000),
        (10_000, 100_000),
        (20_000, 100_000),
        (49_999, 100_000),
        (50_000, 100_000),
        (50_001, 100_000),
        (80_000, 100_000),
        (99_000, 100_000),
    ] {
        // The builder has verified the shard already; this check is independent and includes decoding.
        let shard = RibbonShard::decode(shard_of_first(revoked, universe).bytes().to_vec(), 0).unwrap();
        for (number, fingerprint) in fingerprints(0..universe).enumerate() {
            let expected = (number as u64) < revoked;
            assert_eq!(shard.contains(&fingerprint), expected, "{number} of {revoked}/{universe}");
        }
        // The header, and the spare columns that even a single member needs for each solution.
        let least = min_bits(revoked, universe);
        let most = 22.0 * 8.0 + 400.0 + 1.15 * least;
        let bits = shard.bytes().len() as f64 * 8.0;
        assert!(bits <= most, "{revoked}/{universe}: {bits} bits, bound {least:.0}");
    }
}

#[test]
fn empty_base_has_only_a_header() {
    for (revoked, universe) in [(0, 0), (0, 1_000), (1_000, 1_000)] {
        assert_eq!(shard_of_first(revoked, universe).bytes().len(), 22);
    }
}

#[test]
fn large_shard_is_within_1_12_of_the_bound() {
    let shard = shard_of_first(16_384, 163_840);
    let ratio = shard.bytes().len() as f64 * 8.0 / min_bits(16_384, 163_840);
    assert!(ratio < 1.12, "{ratio}");
}

#[test]
fn fingerprints_of_another_shard_are_rejected() {
    let of_shard = |shard: u64| fingerprints(0..1_000).filter(move |f| f.prefix() >> 62 == shard);
    let stray = of_shard(2).next().unwrap();
    assert!(build_shard(2, 1, SEED, of_shard(1), []).is_ok());
    assert_eq!(build_shard(2, 1, SEED, [stray], of_shard(1)).unwrap_err(), BuildError::WrongShard(stray));
    assert_eq!(build_shard(2, 1, SEED, of_shard(1), [stray]).unwrap_err(), BuildError::WrongShard(stray));
    assert_eq!(build_shard(2, 4, SEED, [], []).unwrap_err(), BuildError::InvalidShardNumber);
    assert_eq!(build_shard(17, 0, SEED, [], []).unwrap_err(), BuildError::InvalidShardNumber);
    let bytes = build_shard(2, 1, SEED, of_shard(1), []).unwrap().bytes().to_vec();
    assert!(RibbonShard::decode(bytes, 4).is_err());
}

#[test]
fn conflicting_status_is_rejected() {
    let both = fingerprints(70..71).next().unwrap();
    let error = build_shard(0, 0, SEED, fingerprints(0..100), fingerprints(70..71)).unwrap_err();
    assert_eq!(error, BuildError::ConflictingStatus(both));
}

#[test]
fn oversized_shard_is_rejected() {
    let error =
        build_shard(0, 0, SEED, fingerprints(0..300_000), fingerprints(300_000..900_000)).unwrap_err();
    assert_eq!(error, BuildError::TooLarge);
}

/// An attacker who chooses some of the revoked members cannot predict their equations.
#[test]
fn changed_member_changes_the_seed() {
    let seed = |revoked, universe| shard_of_first(revoked, universe).bytes()[14..22].to_vec();
    let seeds = [seed(100, 1_000), seed(101, 1_000), seed(100, 1_001), seed(99, 1_000)];
    for (at, one) in seeds.iter().enumerate() {
        assert!(seeds.iter().skip(at + 1).all(|other| other != one));
    }
}

/// Fingerprints that differ in one word only, which SHA-256 does not produce. If all equations have the same start or the
/// same coefficients, there may be no solution, but never a wrong one.
#[test]
fn clustered_fingerprints_are_unsolvable_or_exact() {
    for word in 0..4 {
        let alike = |number: u64| {
            let mut bytes = [7; 32];
            bytes[8 * word..8 * word + 8].copy_from_slice(&number.to_be_bytes());
            Fingerprint::from(bytes)
        };
        // 99 times as many fingerprints are good as are revoked, or equally many.
        for universe in [200_000, 4_000] {
            match build_shard(0, 0, SEED, (0..2_000).map(alike), (2_000..universe).map(alike)) {
                Ok(shard) => {
                    assert!((0..universe).all(|number| shard.contains(&alike(number)) == (number < 2_000)))
                }
                Err(error) => assert_eq!(error, BuildError::Unsolvable, "word {word} of {universe}"),
            }
        }
    }
}

#[test]
fn shard_bits_are_the_recommended_ones() {
    for (revoked, good, bits) in [
        (0, 0, 0),
        (1, 0, 0),
        (1, 1_000_000, 0),
        (1, 100_000_000, 5),
        (1_000_000, 9_000_000, 5),
        (1_000_000, 99_000_000, 5),
        (10_000_000, 90_000_000, 9),
        (90_000_000, 10_000_000, 9),
        (50_000_000, 50_000_000, 11),
    ] {
        assert_eq!(shard_bits(revoked, good), bits, "{revoked} and {good}");
    }
}

#[test]
fn malformed_shards_are_rejected_or_harmless() {
    for (revoked, universe) in [(0, 10), (40, 90), (500, 6_000)] {
        let bytes = shard_of_first(revoked, universe).bytes().to_vec();
        for end in 0..bytes.len() {
            assert!(RibbonShard::decode(bytes[..end].to_vec(), 0).is_err(), "truncated to {end} bytes");
        }
        assert!(RibbonShard::decode([&bytes[..], &[0]].concat(), 0).is_err(), "one byte too many");
        for at in 0..bytes.len() {
            for change in [1, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] ^= change;
                if let Ok(shard) = RibbonShard::decode(bytes, 0) {
                    let extremes = [[0; 32], [255; 32]].map(Fingerprint::from);
                    for fingerprint in fingerprints(0..20).chain(extremes) {
                        let _ = shard.contains(&fingerprint);
                    }
                }
            }
        }
    }
    let head = |change: &dyn Fn(&mut [u8])| {
        let mut bytes = shard_of_first(0, 10).bytes().to_vec();
        change(&mut bytes);
        RibbonShard::decode(bytes, 0).map(drop).map_err(|malformed| malformed.0)
    };
    assert_eq!(head(&|_| {}), Ok(()));
    assert_eq!(head(&|bytes| bytes[0] = 2), Err("layout"));
    assert_eq!(head(&|bytes| bytes[1] = 17), Err("shard"));
    assert_eq!(head(&|bytes| bytes[2] = 2), Err("inversion"));
    assert_eq!(head(&|bytes| bytes[3] = 1), Err("rank"));
    assert_eq!(head(&|bytes| bytes[3] = 33), Err("rank"));
    assert_eq!(head(&|bytes| bytes[4] = 1), Err("seed"), "attempt of an absent layer");
    assert_eq!(head(&|bytes| bytes[5] = 1), Err("seed"), "attempt of an absent layer");
    assert_eq!(head(&|bytes| bytes[6..10].fill(0xff)), Err("columns"));
    assert_eq!(head(&|bytes| bytes[13] = 1), Err("solutions"));
    assert_eq!(head(&|bytes| bytes[21] = 1), Err("seed"), "seed of an empty shard");
}

#[test]
fn padding_bits_must_be_zero() {
    let mut refused = 0;
    for universe in 100..140 {
        let mut bytes = shard_of_first(30, universe).bytes().to_vec();
        *bytes.last_mut().unwrap() |= 0x80;
        refused +=
            u32::from(RibbonShard::decode(bytes, 0).is_err_and(|malformed| malformed.0.contains("past")));
    }
    assert!(refused > 20, "seven of eight lengths have padding: {refused}");
}

/// A second builder must produce the same bytes, and edges read the bytes of older builders. A change of the format must
/// change its version, never these vectors.
#[test]
fn base_matches_the_committed_vectors() {
    let mut lines = String::new();
    for (revoked, universe) in
        [(0, 5), (5, 5), (1, 1_000), (100, 1_000), (500, 1_000), (900, 1_000), (640, 9_000)]
    {
        lines += &format!("{revoked}/{universe} {}\n", hex(shard_of_first(revoked, universe).bytes()));
    }
    assert_vectors("base-v1.txt", &lines);
}

/// Compares with an independent implementation, by Mozilla, over the same universe.
#[test]
fn base_agrees_with_clubcard() {
    for (revoked, universe) in [(500, 20_000), (5_000, 50_000), (16_384, 163_840), (30_000, 40_000)] {
        let shard = shard_of_first(revoked, universe);
        let card = clubcard(revoked, universe);
        for fingerprint in fingerprints(0..universe) {
            let item = Item { fingerprint, revoked: false };
            assert_eq!(shard.contains(&fingerprint), card.unchecked_contains(&item), "{fingerprint}");
        }
    }
}

fn clubcard(revoked: u64, universe: u64) -> Clubcard<4, (), ()> {
    let inverted = revoked > universe / 2;
    let items = || {
        let numbered = fingerprints(0..universe).zip(0..);
        numbered.map(|(fingerprint, number)| Item { fingerprint, revoked: number < revoked })
    };
    let mut builder = ClubcardBuilder::<4, Item>::new();
    let mut approximate = builder.new_approx_builder(&[]);
    approximate.set_universe_size(usize::try_from(universe).unwrap());
    approximate.set_inverted(inverted);
    items().filter(|item| item.revoked != inverted).for_each(|item| approximate.insert(item));
    builder.collect_approx_ribbons(vec![ApproximateRibbon::from(approximate)]);
    let mut exact = builder.new_exact_builder(&[]);
    items().for_each(|item| exact.insert(item));
    let exact = ExactRibbon::from(exact);
    builder.collect_exact_ribbons(vec![exact]);
    builder.build::<Item>((), ())
}

struct Item {
    fingerprint: Fingerprint,
    revoked: bool,
}

impl AsQuery<4> for Item {
    fn as_query(&self, columns: usize) -> Equation<4> {
        let word = |at| u64::from_le_bytes(*self.fingerprint.as_bytes()[at..].first_chunk().unwrap());
        let start = usize::try_from(word(4) % u64::try_from(columns.max(1)).unwrap()).unwrap();
        Equation::homogeneous(start, [word(0) | 1, word(8), word(16), word(24)])
    }

    fn block(&self) -> &[u8] {
        &[]
    }

    fn discriminant(&self) -> &[u8] {
        self.fingerprint.as_bytes()
    }
}

impl Filterable<4> for Item {
    fn included(&self) -> bool {
        self.revoked
    }
}

impl Queryable<4> for Item {
    type UniverseMetadata = ();
    type PartitionMetadata = ();

    fn in_universe(&self, (): &()) -> bool {
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_subset_of_arbitrary_universe_is_exact(
        salt in any::<u64>(),
        size in prop_oneof![0..40u64, 0..700u64, 0..6_000u64],
        density in prop_oneof![Just(0), Just(256), 0..=256u64, 0..6u64],
        bits in 0..4u8,
        seed in any::<[u8; 4]>(),
    ) {
        let mut shards: BTreeMap<u16, [Vec<Fingerprint>; 2]> = BTreeMap::new();
        for number in 0..size {
            let fingerprint = Fingerprint::digest(&[salt, number].map(u64::to_be_bytes).concat());
            let shard = u16::from(fingerprint.as_bytes()[0]) << bits >> 8;
            let revoked = u64::from(fingerprint.as_bytes()[31]) < density;
            shards.entry(shard).or_default()[usize::from(revoked)].push(fingerprint);
        }
        for (shard, [good, revoked]) in shards {
            let built = build_shard(bits, shard, &seed, revoked.iter().copied(), good.iter().copied()).unwrap();
            let read = RibbonShard::decode(built.bytes().to_vec(), shard).unwrap();
            prop_assert!(revoked.iter().all(|member| read.contains(member)));
            prop_assert!(!good.iter().any(|other| read.contains(other)));
            // Order and duplicates of the members do not matter.
            let repeated = revoked.iter().chain(&revoked).rev().copied();
            let again = build_shard(bits, shard, &seed, repeated, good.iter().rev().copied()).unwrap();
            prop_assert_eq!(again.bytes(), read.bytes());
            let other = build_shard(bits, shard, b"another", revoked.iter().copied(), good.iter().copied()).unwrap();
            let is_empty = read.bytes().len() == 22;
            prop_assert!(is_empty == (other.bytes() == read.bytes()), "another seed gives other bytes");
        }
    }
}
