//! Counters and gauges, by the names of the filter for proxy-wasm hosts. Workers count in their own memory, and the main
//! thread passes the sums to Envoy, so that no request calls Envoy for them.

use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering},
};

use verdict::{Cache, Decision, Manifest, Reason, StalePolicy};

use crate::abi::{Main, MetricId};

/// The counters that are not by reason.
const NAMES: [&str; 12] = [
    "keystile_admitted",
    "keystile_passed",
    "keystile_admitted_stale_outage_grace",
    "keystile_admitted_stale_issued_within",
    "keystile_end_failed",
    "keystile_open_streams_over_max",
    "keystile_cache_hits",
    "keystile_cache_misses",
    "keystile_claims_omitted",
    "keystile_refresh_failed",
    "keystile_panics",
    "keystile_signatures_by_host",
];
const ADMITTED: usize = 0;
/// Requests that a rule lets pass without a credential.
const PASSED: usize = 1;
/// Requests admitted with a stale bundle, by the policy that admits them.
const STALE_OUTAGE_GRACE: usize = 2;
const STALE_ISSUED_WITHIN: usize = 3;
/// Streams that could not be woken to end them.
const END_FAILED: usize = 4;
/// Open streams that exceeded `max_open_streams`, so that they are checked less often.
const OVER_MAX: usize = 5;
const CACHE_HITS: usize = 6;
const CACHE_MISSES: usize = 7;
const CLAIMS_OMITTED: usize = 8;
const REFRESH_FAILED: usize = 9;
/// Hooks that panicked.
const PANICS: usize = 10;
/// Signatures that native code verified, of which the filter for WebAssembly leaves most to its host.
const SIGNATURES: usize = 11;

/// The counters by reason, which follow the others: refused requests, requests that would have been refused by a policy that
/// only reports, and open streams that were ended.
const PREFIXES: [&str; 3] = ["keystile_refused_", "keystile_reported_", "keystile_ended_"];
const REFUSED: usize = 0;
const REPORTED: usize = 1;
const ENDED: usize = 2;

/// The names of all counters.
static ALL_NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let by_reason =
        PREFIXES.iter().flat_map(|prefix| Reason::ALL.map(|reason| [*prefix, reason.code()].concat()));
    NAMES.iter().map(|name| (*name).to_owned()).chain(by_reason).collect()
});

/// The counters of one thread, which is the only one that writes them.
#[derive(Debug)]
pub(crate) struct Counters(Box<[AtomicU64]>);

impl Counters {
    pub(crate) fn new() -> Self {
        Self(ALL_NAMES.iter().map(|_| AtomicU64::new(0)).collect())
    }

    pub(crate) fn count(&self, decision: &Decision) {
        match decision {
            Decision::Admit(admission) => {
                self.add(ADMITTED, 1);
                match admission.stale() {
                    Some(StalePolicy::OutageGraceSeconds(_)) => self.add(STALE_OUTAGE_GRACE, 1),
                    Some(StalePolicy::IssuedWithinSeconds(_)) => self.add(STALE_ISSUED_WITHIN, 1),
                    Some(StalePolicy::Deny) | None => {}
                }
            }
            Decision::Pass(_) => self.add(PASSED, 1),
            Decision::Refuse(_) => {}
        }
        if let Some(reason) = decision.reason() {
            self.count_reason(if decision.is_reported() { REPORTED } else { REFUSED }, reason);
        }
    }

    pub(crate) fn count_cache(&self, cache: &mut Cache) {
        let (hits, misses) = cache.take_counts();
        self.add(CACHE_HITS, hits);
        self.add(CACHE_MISSES, misses);
        self.add(CLAIMS_OMITTED, cache.take_omitted_claims());
    }

    pub(crate) fn count_signatures(&self, signatures: u64) {
        self.add(SIGNATURES, signatures);
    }

    /// Counts an open stream that is ended.
    pub(crate) fn count_ended(&self, reason: Reason) {
        self.count_reason(ENDED, reason);
    }

    /// Counts an open stream that would be ended, but whose mode is `report`.
    pub(crate) fn count_reported(&self, reason: Reason) {
        self.count_reason(REPORTED, reason);
    }

    pub(crate) fn count_end_failure(&self) {
        self.add(END_FAILED, 1);
    }

    pub(crate) fn count_over_max(&self, streams: u64) {
        self.add(OVER_MAX, streams);
    }

    pub(crate) fn count_refresh_failure(&self) {
        self.add(REFRESH_FAILED, 1);
    }

    pub(crate) fn count_panic(&self) {
        self.add(PANICS, 1);
    }

    fn count_reason(&self, prefix: usize, reason: Reason) {
        let reason = reason.representative();
        if let Some(at) = Reason::ALL.iter().position(|known| *known == reason) {
            let before = prefix.saturating_mul(Reason::ALL.len());
            self.add(NAMES.len().saturating_add(before).saturating_add(at), 1);
        }
    }

    /// No other thread writes, so that a load and a store are enough.
    fn add(&self, counter: usize, count: u64) {
        if count > 0
            && let Some(counter) = self.0.get(counter)
        {
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
        }
    }
}

/// The counters of one configuration that Envoy has.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// The identifiers, and the sums that have been passed on.
    counters: Vec<(Option<MetricId>, u64)>,
    version: Option<MetricId>,
    age_seconds: Option<MetricId>,
}

impl Metrics {
    /// Defines them. This is possible only while the configuration is created.
    pub(crate) fn define(main: &Main<'_>) -> Self {
        Self {
            counters: ALL_NAMES.iter().map(|name| (main.define_counter(name), 0)).collect(),
            version: main.define_gauge("keystile_bundle_version"),
            age_seconds: main.define_gauge("keystile_bundle_age_seconds"),
        }
    }

    /// Passes the changes to Envoy. `now` is in milliseconds since the Unix epoch.
    pub(crate) fn flush<'c>(
        &mut self,
        main: &Main<'_>,
        threads: impl Iterator<Item = &'c Counters> + Clone,
        manifest: Option<&Manifest>,
        now: u64,
    ) {
        for (at, (id, passed)) in self.counters.iter_mut().enumerate() {
            let values = threads.clone().filter_map(|Counters(counters)| counters.get(at));
            let sum = values.fold(0_u64, |sum, counter| sum.wrapping_add(counter.load(Ordering::Relaxed)));
            let change = sum.wrapping_sub(*passed);
            *passed = sum;
            if let (Some(id), 1..) = (*id, change) {
                main.increment(id, change);
            }
        }
        if let Some(manifest) = manifest {
            let age = now.saturating_sub(manifest.issued_at()).div_euclid(1000);
            for (gauge, value) in [(self.version, manifest.version()), (self.age_seconds, age)] {
                if let Some(gauge) = gauge {
                    main.set_gauge(gauge, value);
                }
            }
        }
    }
}
