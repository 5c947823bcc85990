//! Builds each structure over a universe, and its encoded objects.

use anyhow::{Result, anyhow};
use bundle::base;
use clubcard::builder::{ApproximateRibbon, ClubcardBuilder, ExactRibbon};
use sets::{Card, Item, Kind, Rice, Universe, fingerprint};
use token::Fingerprint;
use xorf::{BinaryFuse8, BinaryFuse16, DmaSerializable, Filter};

#[derive(Default)]
pub(super) struct Built {
    pub(super) objects: Vec<Vec<u8>>,
    /// The build time in seconds of CPU.
    pub(super) seconds: f64,
    /// The valid credentials for which the structure alone gives a false positive.
    pub(super) exceptions: usize,
}

impl Built {
    /// Returns the encoded size. Each object of several also takes 40 bytes in an index.
    pub(super) fn bytes(&self) -> usize {
        let index = if self.objects.len() > 2 { 40 * self.objects.len() } else { 0 };
        self.objects.iter().map(Vec::len).sum::<usize>() + index
    }
}

pub(super) fn build(kind: Kind, universe: Universe) -> Result<Built> {
    match kind {
        Kind::Nothing => Ok(Built::default()),
        Kind::Base => base(universe),
        Kind::Prefixes => measure_time(|| {
            let mut prefixes = prefixes(universe);
            prefixes.sort_unstable();
            Ok(Built { objects: vec![sets::bytes(&prefixes)], ..Built::default() })
        }),
        Kind::Fuse8 => measure_time(|| {
            let filter = BinaryFuse8::try_from(prefixes(universe)).map_err(|error| anyhow!(error))?;
            Ok(build_filter(universe, &filter))
        }),
        Kind::Fuse16 => measure_time(|| {
            let filter = BinaryFuse16::try_from(prefixes(universe)).map_err(|error| anyhow!(error))?;
            Ok(build_filter(universe, &filter))
        }),
        Kind::Rice => measure_time(|| {
            let rice = Rice::build(&prefixes(universe), rice_parameter(universe));
            let exceptions = exceptions(universe, |prefix| rice.contains(prefix));
            Ok(with_header([0; sets::DESCRIPTOR], &exceptions, rice.write()))
        }),
        Kind::Clubcard => measure_time(|| Ok(clubcard(universe))),
    }
}

fn measure_time(build: impl FnOnce() -> Result<Built>) -> Result<Built> {
    let start = cpu_seconds()?;
    let built = build()?;
    Ok(Built { seconds: cpu_seconds()? - start, ..built })
}

/// Returns the CPU time of this thread.
fn cpu_seconds() -> Result<f64> {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(statistics.split(' ').next().unwrap_or_default().parse::<f64>()? / 1e9)
}

fn base(universe: Universe) -> Result<Built> {
    let Universe { issued, revoked } = universe;
    let bits = base::shard_bits(revoked as usize, (issued - revoked) as usize);
    let shard_of = |number: u32| {
        let shard = fingerprint(number).prefix().checked_shr(64 - u32::from(bits)).unwrap_or(0);
        usize::try_from(shard).expect("at most 2^16 shards")
    };
    // A database returns this order from an index. The counting sort here is not measured.
    let mut ends = vec![0usize; 1 << bits];
    (0..issued).for_each(|number| ends[shard_of(number)] += 1);
    let mut end = 0;
    for count in &mut ends {
        (*count, end) = (end, end + *count);
    }
    let mut members = vec![0u32; issued as usize];
    for number in 0..issued {
        let at = &mut ends[shard_of(number)];
        members[*at] = number;
        *at += 1;
    }
    measure_time(|| {
        let mut rest = 0;
        let shards = (0..=u16::MAX).zip(ends).map(|(shard, end)| {
            let members = &members[std::mem::replace(&mut rest, end)..end];
            let (bad, good) = members.split_at(members.partition_point(|number| *number < revoked));
            let fingerprints =
                |numbers: &[u32]| numbers.iter().copied().map(fingerprint).collect::<Vec<Fingerprint>>();
            let shard = base::build_shard(bits, shard, b"measure", fingerprints(bad), fingerprints(good));
            shard.map(|shard| shard.bytes().to_vec()).map_err(|error| anyhow!("{error}"))
        });
        Ok(Built { objects: shards.collect::<Result<_>>()?, ..Built::default() })
    })
}

fn prefixes(universe: Universe) -> Vec<u64> {
    (0..universe.revoked).map(|number| fingerprint(number).prefix()).collect()
}

fn build_filter(universe: Universe, filter: &(impl Filter<u64> + DmaSerializable)) -> Built {
    let mut descriptor = [0; sets::DESCRIPTOR];
    filter.dma_copy_descriptor_to(&mut descriptor);
    let exceptions = exceptions(universe, |prefix| filter.contains(&prefix));
    with_header(descriptor, &exceptions, filter.dma_fingerprints().to_vec())
}

fn with_header(descriptor: [u8; sets::DESCRIPTOR], exceptions: &[u64], filter: Vec<u8>) -> Built {
    let objects = vec![sets::head(descriptor, exceptions), filter];
    Built { objects, exceptions: exceptions.len(), ..Built::default() }
}

/// Returns the valid credentials for which a filter gives a false positive.
fn exceptions(universe: Universe, contains: impl Fn(u64) -> bool) -> Vec<u64> {
    let prefixes = (universe.revoked..universe.issued).map(|number| fingerprint(number).prefix());
    let mut exceptions: Vec<u64> = prefixes.filter(|prefix| contains(*prefix)).collect();
    exceptions.sort_unstable();
    exceptions
}

/// Returns the parameter that minimizes the size of the list and its exceptions of 64 bits.
fn rice_parameter(universe: Universe) -> u32 {
    let Universe { issued, revoked } = universe;
    let expected = |k: &u32| {
        f64::from(revoked) * (f64::from(*k) + 1.5) + 64.0 * f64::from(issued) / f64::from(*k).exp2()
    };
    (1..40).min_by(|a, b| expected(a).total_cmp(&expected(b))).unwrap_or(1)
}

fn clubcard(universe: Universe) -> Built {
    let Universe { issued, revoked } = universe;
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
    let card = Card::new(builder.build::<Item>((), ()));
    Built { objects: vec![sets::flat(&card)], exceptions: card.exceptions(), ..Built::default() }
}
