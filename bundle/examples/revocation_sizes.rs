//! What the base takes beside its rivals, over one universe, with every answer checked.
//!
//! `cargo run --release -p keystile-bundle --example revocation_sizes -- N R [NAME..]`: R revoked of N issued, for the
//! named structures or for all. Members are a counter put through a mixer, so that every run sees the same ones.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a measurement on a 64-bit machine, of at most 2^32 members"
)]

use std::{collections::BTreeMap, hint::black_box, ops::Range, time::Instant};

use bundle::{
    Kind, Manifest, Objects, Snapshot, Standing,
    base::{self, Shard},
    builder::{self, Builder, CheckpointDraft, Delegates, Draft, Root, SnapshotKey, TailKey},
};
use clubcard::{
    AsQuery, Clubcard, Equation, Filterable, Queryable,
    builder::{ApproximateRibbon, ClubcardBuilder, ExactRibbon},
};
use token::{Fingerprint, mint::SigningKey};
use xorf::{BinaryFuse8, BinaryFuse16, Filter};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = || arguments.next().and_then(|text| text.replace('_', "").parse().ok());
    let (Some(issued), Some(revoked)) = (number(), number()) else {
        eprintln!("usage: revocation_sizes N R [{}]", STRUCTURES.map(|(name, _)| name).join("|"));
        std::process::exit(2)
    };
    let named: Vec<String> = arguments.collect();
    let universe = Universe { issued, revoked };
    println!("{revoked} revoked of {issued}: N * H(r / N) is {:.0} bytes", universe.bound() / 8.0);
    println!(
        "{:<22}{:>12}{:>9}{:>8}{:>9}{:>8}{:>8}{:>11}{:>11}{:>11}",
        "",
        "bytes",
        "bits/r",
        "bound",
        "cpu s",
        "ns good",
        "ns rev.",
        "wrong rev.",
        "wrong good",
        "exceptions"
    );
    for (name, measure) in STRUCTURES {
        if named.is_empty() || named.iter().any(|asked| asked == name) {
            measure(&universe);
        }
    }
}

type Measure = fn(&Universe);

const STRUCTURES: [(&str, Measure); 6] = [
    ("base", base),
    ("prefixes", prefixes),
    ("fuse8", fuse8),
    ("fuse16", fuse16),
    ("rice", rice),
    ("clubcard", clubcard),
];

/// Members 0..revoked are the revoked.
struct Universe {
    issued: u32,
    revoked: u32,
}

impl Universe {
    fn bound(&self) -> f64 {
        let part = f64::from(self.revoked) / f64::from(self.issued);
        let term = |p: f64| if p > 0.0 { -p * p.log2() } else { 0.0 };
        f64::from(self.issued) * (term(part) + term(1.0 - part))
    }

    /// Checks every member, times some, prints the line.
    fn report(&self, built: &Built<'_>) {
        let Built { name, bytes, seconds, exceptions, contains } = built;
        let wrongly_good = (0..self.revoked).filter(|at| !contains(&fingerprint(*at))).count();
        let wrongly_revoked = (self.revoked..self.issued).filter(|at| contains(&fingerprint(*at))).count();
        println!(
            "{name:<22}{bytes:>12}{:>9.3}{:>8.4}{seconds:>9.2}{:>8.1}{:>8.1}{wrongly_revoked:>11}{wrongly_good:>11}{exceptions:>11}",
            *bytes as f64 * 8.0 / f64::from(self.revoked),
            *bytes as f64 * 8.0 / self.bound(),
            nanoseconds(self.revoked..self.issued, contains),
            nanoseconds(0..self.revoked, contains),
        );
    }
}

struct Built<'a> {
    name: &'a str,
    bytes: usize,
    seconds: f64,
    exceptions: usize,
    contains: &'a dyn Fn(&Fingerprint) -> bool,
}

fn fingerprint(number: u32) -> Fingerprint {
    let mut bytes = [0; 32];
    for (chunk, word) in bytes.as_chunks_mut().0.iter_mut().zip(0..) {
        *chunk = mixed(u64::from(number) << 2 | word).to_be_bytes();
    }
    Fingerprint::from(bytes)
}

/// SplitMix64.
fn mixed(number: u64) -> u64 {
    let mut word = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Over members from all over the range, in pieces of some 0.2 ms, the best of five passes over each: the machine has
/// other work to do.
fn nanoseconds(range: Range<u32>, contains: &dyn Fn(&Fingerprint) -> bool) -> f64 {
    let sample = range.len().min(200_000);
    if sample == 0 {
        return f64::NAN;
    }
    let asked: Vec<Fingerprint> =
        range.clone().step_by(range.len() / sample).take(sample).map(fingerprint).collect();
    let mut best = vec![f64::INFINITY; sample.div_ceil(PIECE)];
    for _ in 0..5 {
        for (piece, best) in asked.chunks(PIECE).zip(&mut best) {
            let start = Instant::now();
            for fingerprint in piece {
                black_box(contains(black_box(fingerprint)));
            }
            *best = best.min(start.elapsed().as_secs_f64());
        }
    }
    best.iter().sum::<f64>() * 1e9 / sample as f64
}

const PIECE: usize = 4_000;

/// Seconds that this thread has run, whatever else the machine does.
fn cpu_seconds() -> f64 {
    let statistics =
        std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells the time of a thread");
    let nanoseconds = statistics.split_whitespace().next().and_then(|first| first.parse::<f64>().ok());
    nanoseconds.expect("nanoseconds first") / 1e9
}

fn base(universe: &Universe) {
    let Universe { issued, revoked } = *universe;
    let bits = base::shard_bits(revoked as usize, (issued - revoked) as usize);
    let shard_of =
        |number: u32| (fingerprint(number).prefix().checked_shr(64 - u32::from(bits))).unwrap_or(0);
    // What a database gives in the order of an index: the members of each shard, here by a counting sort.
    let mut ends = vec![0usize; 1 << bits];
    (0..issued).for_each(|number| ends[shard_of(number) as usize] += 1);
    let mut end = 0;
    for count in &mut ends {
        (*count, end) = (end, end + *count);
    }
    let mut members = vec![0u32; issued as usize];
    for number in 0..issued {
        let at = &mut ends[shard_of(number) as usize];
        members[*at] = number;
        *at += 1;
    }
    let start = cpu_seconds();
    let mut rest = 0;
    let mut slowest = 0f64;
    let shards: Vec<Shard> = (0..=u16::MAX)
        .zip(ends)
        .map(|(shard, end)| {
            let members = &members[std::mem::replace(&mut rest, end)..end];
            let revoked_first = members.partition_point(|number| *number < revoked);
            let (revoked, good) = members.split_at(revoked_first);
            let fingerprints = |numbers: &[u32]| numbers.iter().copied().map(fingerprint).collect::<Vec<_>>();
            let since = cpu_seconds();
            let shard =
                base::build(bits, shard, b"measure", fingerprints(revoked), fingerprints(good)).unwrap();
            slowest = slowest.max(cpu_seconds() - since);
            shard
        })
        .collect();
    let seconds = cpu_seconds() - start;
    let sizes = || shards.iter().map(|shard| shard.bytes().len());
    let bytes = sizes().sum();
    let contains = |fingerprint: &Fingerprint| {
        let shard = fingerprint.prefix().checked_shr(64 - u32::from(bits)).unwrap_or(0);
        shards[shard as usize].contains(fingerprint)
    };
    universe.report(&Built { name: "base", bytes, seconds, exceptions: 0, contains: &contains });
    println!(
        "    {} shards of at most {} bytes, {:.0} ms the slowest to build; with 40 bytes each in an index {:.4} of the bound",
        shards.len(),
        sizes().max().unwrap_or_default(),
        slowest * 1e3,
        (bytes + 40 * shards.len()) as f64 * 8.0 / universe.bound(),
    );
    let mut turns = BTreeMap::<[u8; 3], usize>::new();
    for shard in &shards {
        if let [_, _, _, rank, filter, exact, ..] = *shard.bytes() {
            *turns.entry([rank, filter, exact]).or_default() += 1;
        }
    }
    let turns: Vec<_> =
        turns.iter().map(|([rank, f, x], shards)| format!("{rank}/{f}/{x}: {shards}")).collect();
    println!("    shards by rank/turn/turn: {}", turns.join(", "));
}

fn prefixes(universe: &Universe) {
    let start = cpu_seconds();
    let mut builder = Builder::default();
    builder.keys([SigningKey::ed25519("k1", &[2; 32]).unwrap().verifying_key()]).unwrap();
    for number in 0..universe.revoked {
        builder.revoke(1, fingerprint(number)).unwrap();
    }
    builder.settle(1).unwrap();
    let built = builder.build().unwrap();
    let seconds = cpu_seconds() - start;
    drop(builder);
    let revocations = built.objects.iter().filter(|(entry, _)| entry.kind() == Kind::Revocations);
    let bytes = revocations.map(|(_, bytes)| bytes.len()).sum();
    let snapshot = snapshot(&built);
    let contains =
        |fingerprint: &Fingerprint| snapshot.standing(fingerprint, "", 0, None) == Standing::Revoked;
    universe.report(&Built {
        name: "sorted 64-bit prefixes",
        bytes,
        seconds,
        exceptions: 0,
        contains: &contains,
    });
}

/// As an edge makes it of what it fetched.
fn snapshot(built: &builder::Built) -> Snapshot {
    let (root, snapshot_key, tail_key) =
        (Root::new(&[1; 32]), SnapshotKey::new(&[2; 32]), TailKey::new(&[3; 32]));
    let (audience, issued_at, expires_at) = ("a", 1, 2);
    let delegation = root
        .delegate(&Delegates {
            audience,
            epoch: 1,
            issued_at,
            expires_at,
            snapshot_keys: &[snapshot_key.public_key()],
            tail_keys: &[tail_key.public_key()],
        })
        .unwrap();
    let draft = CheckpointDraft {
        audience,
        version: 1,
        issued_at,
        expires_at,
        cut: built.cut,
        entries: &built.checkpoint,
    };
    let checkpoint = snapshot_key.sign(&draft).unwrap();
    let draft = Draft {
        delegation: &delegation,
        version: 1,
        issued_at,
        expires_at,
        checkpoint: checkpoint.0,
        tail: &built.tail,
    };
    let manifest = Manifest::open(&tail_key.sign(&draft).unwrap(), &[root.public_key()], audience).unwrap();
    let mut objects = Objects::default();
    for (entry, bytes) in built.objects.iter().chain([&checkpoint]) {
        objects.open(&manifest, *entry, bytes.to_vec()).unwrap();
    }
    Snapshot::assemble(manifest, &objects, 1).unwrap()
}

fn fuse8(universe: &Universe) {
    let build = |keys: &[u64]| BinaryFuse8::try_from(keys).unwrap();
    fuse(universe, "binary fuse 8 + exc.", build, |filter| filter.fingerprints.len());
}

fn fuse16(universe: &Universe) {
    let build = |keys: &[u64]| BinaryFuse16::try_from(keys).unwrap();
    fuse(universe, "binary fuse 16 + exc.", build, |filter| 2 * filter.fingerprints.len());
}

fn fuse<F: Filter<u64>>(
    universe: &Universe,
    name: &str,
    build: impl Fn(&[u64]) -> F,
    bytes: impl Fn(&F) -> usize,
) {
    let start = cpu_seconds();
    let keys: Vec<u64> = (0..universe.revoked).map(|number| fingerprint(number).prefix()).collect();
    let filter = build(&keys);
    let exceptions = exceptions(universe, |prefix| filter.contains(&prefix));
    let seconds = cpu_seconds() - start;
    let contains = |fingerprint: &Fingerprint| {
        let prefix = fingerprint.prefix();
        filter.contains(&prefix) && exceptions.binary_search(&prefix).is_err()
    };
    let bytes = bytes(&filter) + 8 * exceptions.len();
    universe.report(&Built { name, bytes, seconds, exceptions: exceptions.len(), contains: &contains });
}

/// The good that a filter takes for revoked, as 64-bit prefixes.
fn exceptions(universe: &Universe, contains: impl Fn(u64) -> bool) -> Vec<u64> {
    let prefixes = (universe.revoked..universe.issued).map(|number| fingerprint(number).prefix());
    let mut exceptions: Vec<u64> = prefixes.filter(|prefix| contains(*prefix)).collect();
    exceptions.sort_unstable();
    exceptions
}

/// Hashes of log2(r) + k bits, their sorted distances Rice-coded with k bits below the unary part, in buckets of 48
/// that an index of 32 bits finds. Asked as a sorted list here: the size is what is measured.
fn rice(universe: &Universe) {
    let Universe { issued, revoked } = *universe;
    let expected =
        |k: u32| f64::from(revoked) * (f64::from(k) + 1.5) + 64.0 * f64::from(issued) / f64::from(k).exp2();
    let k = (1..40).min_by(|a, b| expected(*a).total_cmp(&expected(*b))).unwrap_or(1);
    let start = cpu_seconds();
    let range = u128::from(revoked) << k;
    let hash = |prefix: u64| ((u128::from(prefix) * range) >> 64) as u64;
    let mut hashes: Vec<u64> = (0..revoked).map(|number| hash(fingerprint(number).prefix())).collect();
    hashes.sort_unstable();
    let mut bits = 32 * hashes.len().div_ceil(48) as u64;
    let mut last = 0;
    for hash in &hashes {
        bits += ((hash - last) >> k) + 1 + u64::from(k);
        last = *hash;
    }
    // One entry for each 2^k hashes: on average one of the list lies there.
    let mut starts = vec![0u32; revoked as usize + 2];
    hashes.iter().for_each(|hash| starts[(hash >> k) as usize + 1] += 1);
    (1..starts.len()).for_each(|at| starts[at] += starts[at - 1]);
    let within = |prefix: u64| {
        let hash = hash(prefix);
        let at = (hash >> k) as usize;
        hashes[starts[at] as usize..starts[at + 1] as usize].contains(&hash)
    };
    let exceptions = exceptions(universe, within);
    let seconds = cpu_seconds() - start;
    let contains = |fingerprint: &Fingerprint| {
        let prefix = fingerprint.prefix();
        within(prefix) && exceptions.binary_search(&prefix).is_err()
    };
    let bytes = bits.div_ceil(8) as usize + 8 * exceptions.len();
    universe.report(&Built {
        name: "Rice + exc. (no decode)",
        bytes,
        seconds,
        exceptions: exceptions.len(),
        contains: &contains,
    });
}

fn clubcard(universe: &Universe) {
    let Universe { issued, revoked } = *universe;
    let start = cpu_seconds();
    let item = |number| Item { fingerprint: fingerprint(number), revoked: number < revoked };
    let mut builder = ClubcardBuilder::<4, Item>::new();
    let mut approximate = builder.new_approx_builder(&[]);
    approximate.set_universe_size(issued as usize);
    (0..revoked).for_each(|number| approximate.insert(item(number)));
    builder.collect_approx_ribbons(vec![ApproximateRibbon::from(approximate)]);
    let mut exact = builder.new_exact_builder(&[]);
    (0..issued).for_each(|number| exact.insert(item(number)));
    let exact = ExactRibbon::from(exact);
    builder.collect_exact_ribbons(vec![exact]);
    let card: Clubcard<4, (), ()> = builder.build::<Item>((), ());
    let seconds = cpu_seconds() - start;
    let exceptions: usize = card.index().values().map(|entry| entry.exceptions.len()).sum();
    let words = card.approx_filter.iter().map(Vec::len).sum::<usize>() + card.exact_filter.len();
    let contains = |fingerprint: &Fingerprint| {
        card.unchecked_contains(&Item { fingerprint: *fingerprint, revoked: false })
    };
    let bytes = 8 * words + 32 * exceptions;
    universe.report(&Built { name: "clubcard 0.3", bytes, seconds, exceptions, contains: &contains });
}

struct Item {
    fingerprint: Fingerprint,
    revoked: bool,
}

impl AsQuery<4> for Item {
    fn as_query(&self, columns: usize) -> Equation<4> {
        let word = |at| u64::from_le_bytes(*self.fingerprint.as_bytes()[at..].first_chunk().unwrap());
        Equation::homogeneous(word(4) as usize % columns.max(1), [word(0) | 1, word(8), word(16), word(24)])
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
