//! Counters and gauges. Requests are counted in the VM, and a tick passes the sums to the host, so that no request
//! makes a host call for them.

use std::cell::Cell;

use proxy_wasm::types::MetricType;
use verdict::{Cache, Decision, Gate, Manifest, Reason, StalePolicy};

use crate::{bundle_fetcher::Trigger, host_verifier::HostVerifier, hostcalls};

#[cfg(target_family = "wasm")]
const PAGE_BYTES: u64 = 64 * 1024;

pub(crate) struct Metrics {
    admitted: Counter,
    /// Requests that a rule lets pass without a credential.
    passed: Counter,
    /// Requests admitted with a stale bundle, by the policy that admits them.
    stale_outage_grace: Counter,
    stale_issued_within: Counter,
    refused: Vec<(Reason, Counter)>,
    /// Requests that would have been refused, by a policy that only reports.
    reported: Vec<(Reason, Counter)>,
    /// Open streams that were ended.
    ended: Vec<(Reason, Counter)>,
    /// Attempts to end a stream that the host did not carry out.
    end_failed: Counter,
    /// Open streams that exceeded `max_open_streams`, so that they are checked less often.
    over_max: Counter,
    cache_hits: Counter,
    cache_misses: Counter,
    claims_omitted: Counter,
    signatures_by_host: Counter,
    refresh_failed: Counter,
    /// Bundles that another worker had shared, by what made this worker load them.
    loads_by_wake: Counter,
    loads_by_tick: Counter,
    version: Gauge,
    age_seconds: Gauge,
    memory: Gauge,
}

struct Counter {
    /// `None` on a host without metrics.
    id: Option<u32>,
    /// The increments that have not been passed to the host yet.
    pending: Cell<u64>,
}

struct Gauge {
    /// `None` on a host without metrics.
    id: Option<u32>,
}

impl Metrics {
    pub(crate) fn define(gate: &Gate) -> Self {
        let by_reason = |prefix: &str, reasons: &[Reason]| {
            let counter = |reason: &Reason| (*reason, Counter::define(&[prefix, reason.code()].concat()));
            reasons.iter().map(counter).collect()
        };
        Self {
            admitted: Counter::define("keystile_admitted"),
            passed: Counter::define("keystile_passed"),
            stale_outage_grace: Counter::define("keystile_admitted_stale_outage_grace"),
            stale_issued_within: Counter::define("keystile_admitted_stale_issued_within"),
            refused: by_reason("keystile_refused_", &Reason::ALL),
            reported: if gate.has_report_mode() {
                by_reason("keystile_reported_", &Reason::ALL)
            } else {
                Vec::new()
            },
            ended: by_reason("keystile_ended_", &Reason::OF_ENDED_STREAMS),
            end_failed: Counter::define("keystile_end_failed"),
            over_max: Counter::define("keystile_open_streams_over_max"),
            cache_hits: Counter::define("keystile_cache_hits"),
            cache_misses: Counter::define("keystile_cache_misses"),
            claims_omitted: Counter::define("keystile_claims_omitted"),
            signatures_by_host: Counter::define("keystile_signatures_by_host"),
            refresh_failed: Counter::define("keystile_refresh_failed"),
            loads_by_wake: Counter::define("keystile_bundle_loads_by_wake"),
            loads_by_tick: Counter::define("keystile_bundle_loads_by_tick"),
            version: Gauge::define("keystile_bundle_version"),
            age_seconds: Gauge::define("keystile_bundle_age_seconds"),
            memory: Gauge::define("keystile_vm_memory_bytes"),
        }
    }

    pub(crate) fn count(&self, decision: &Decision) {
        match decision {
            Decision::Admit(admission) => {
                self.admitted.add(1);
                match admission.stale() {
                    Some(StalePolicy::OutageGraceSeconds(_)) => self.stale_outage_grace.add(1),
                    Some(StalePolicy::IssuedWithinSeconds(_)) => self.stale_issued_within.add(1),
                    Some(StalePolicy::Deny) | None => {}
                }
            }
            Decision::Pass(_) => self.passed.add(1),
            Decision::Refuse(_) => {}
        }
        if let Some(reason) = decision.reason() {
            let counters = if decision.is_reported() { &self.reported } else { &self.refused };
            increment(counters, reason);
        }
    }

    /// Counts an open stream that is ended.
    pub(crate) fn count_ended(&self, reason: Reason) {
        increment(&self.ended, reason);
    }

    /// Counts an open stream that would be ended, but whose mode is `report`.
    pub(crate) fn count_reported(&self, reason: Reason) {
        increment(&self.reported, reason);
    }

    pub(crate) fn count_end_failure(&self) {
        self.end_failed.add(1);
    }

    pub(crate) fn count_over_max(&self, streams: u64) {
        self.over_max.add(streams);
    }

    pub(crate) fn count_refresh_failure(&self) {
        self.refresh_failed.add(1);
    }

    /// Counts a bundle that was loaded from shared data.
    pub(crate) fn count_shared_load(&self, trigger: Trigger) {
        match trigger {
            Trigger::Start => {}
            Trigger::Tick => self.loads_by_tick.add(1),
            Trigger::Wake => self.loads_by_wake.add(1),
        }
    }

    /// Returns the number of requests since the values were last passed to the host.
    pub(crate) fn pending_requests(&self) -> u64 {
        let refused = self.refused.iter().map(|(_, counter)| counter);
        let counters = [&self.admitted, &self.passed].into_iter().chain(refused);
        counters.map(|counter| counter.pending.get()).fold(0, u64::saturating_add)
    }

    /// Passes the changed values to the host.
    pub(crate) fn flush(
        &self,
        manifest: Option<&Manifest>,
        cache: &mut Cache,
        verifier: &HostVerifier,
        now: u64,
    ) {
        let (hits, misses) = cache.take_counts();
        self.cache_hits.add(hits);
        self.cache_misses.add(misses);
        self.claims_omitted.add(cache.take_omitted_claims());
        self.signatures_by_host.add(verifier.take_count());
        for counter in [
            &self.admitted,
            &self.passed,
            &self.stale_outage_grace,
            &self.stale_issued_within,
            &self.cache_hits,
            &self.cache_misses,
            &self.claims_omitted,
            &self.signatures_by_host,
            &self.refresh_failed,
            &self.loads_by_wake,
            &self.loads_by_tick,
            &self.end_failed,
            &self.over_max,
        ] {
            counter.flush();
        }
        self.refused.iter().chain(&self.reported).chain(&self.ended).for_each(|(_, counter)| counter.flush());
        self.memory.record(memory_bytes());
        if let Some(manifest) = manifest {
            self.version.record(manifest.version());
            self.age_seconds.record(now.saturating_sub(manifest.issued_at()).div_euclid(1000));
        }
    }
}

/// Several reasons can have the same code.
fn increment(counters: &[(Reason, Counter)], reason: Reason) {
    let reason = reason.representative();
    if let Some((_, counter)) = counters.iter().find(|(counted, _)| *counted == reason) {
        counter.add(1);
    }
}

impl Counter {
    fn define(name: &str) -> Self {
        Self { id: hostcalls::define_metric(MetricType::Counter, name).ok(), pending: Cell::new(0) }
    }

    fn add(&self, count: u64) {
        self.pending.set(self.pending.get().saturating_add(count));
    }

    fn flush(&self) {
        let pending = self.pending.take();
        if let (Some(id), 1..) = (self.id, pending) {
            // A count that the host rejects is lost. No request depends on it.
            let _ = hostcalls::increment_metric(id, i64::try_from(pending).unwrap_or(i64::MAX));
        }
    }
}

impl Gauge {
    fn define(name: &str) -> Self {
        Self { id: hostcalls::define_metric(MetricType::Gauge, name).ok() }
    }

    fn record(&self, value: u64) {
        if let Some(id) = self.id {
            let _ = hostcalls::record_metric(id, value);
        }
    }
}

/// Returns the size of the VM's memory, which never shrinks.
fn memory_bytes() -> u64 {
    #[cfg(target_family = "wasm")]
    return u64::try_from(core::arch::wasm32::memory_size(0)).unwrap_or_default().saturating_mul(PAGE_BYTES);
    #[cfg(not(target_family = "wasm"))]
    0
}
