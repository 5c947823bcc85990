//! Counters and gauges. Requests count in the VM; a tick hands the sums to the host, so that no request pays for it.

use alloc::vec::Vec;
use core::cell::Cell;

use verdict::{Cache, Gate, Manifest, Reason, StalePolicy, Verdict};

use crate::{
    abi::{self, Metric},
    verifier::HostVerifier,
};

pub(crate) struct Metrics {
    admitted: Counter,
    /// Without a credential, where a rule lets them.
    passed: Counter,
    /// While the control plane was silent for too long, by one of the policies for that.
    stale_outage_grace: Counter,
    stale_issued_within: Counter,
    refused: Vec<(Reason, Counter)>,
    /// What would have been refused, where the policy has that.
    reported: Vec<(Reason, Counter)>,
    cache_hits: Counter,
    cache_misses: Counter,
    signatures_by_host: Counter,
    refresh_failed: Counter,
    version: Option<u32>,
    age_seconds: Option<u32>,
    memory: Option<u32>,
}

struct Counter {
    id: Option<u32>,
    pending: Cell<u64>,
}

impl Metrics {
    pub(crate) fn define(gate: &Gate) -> Self {
        let by_reason = |prefix: &str| {
            let counter = |reason: &Reason| (*reason, Counter::define(&[prefix, reason.code()].concat()));
            Reason::ALL.iter().map(counter).collect()
        };
        Self {
            admitted: Counter::define("keystile_admitted"),
            passed: Counter::define("keystile_passed"),
            stale_outage_grace: Counter::define("keystile_admitted_stale_outage_grace"),
            stale_issued_within: Counter::define("keystile_admitted_stale_issued_within"),
            refused: by_reason("keystile_refused_"),
            reported: if gate.reports() { by_reason("keystile_reported_") } else { Vec::new() },
            cache_hits: Counter::define("keystile_cache_hits"),
            cache_misses: Counter::define("keystile_cache_misses"),
            signatures_by_host: Counter::define("keystile_signatures_by_host"),
            refresh_failed: Counter::define("keystile_refresh_failed"),
            version: gauge("keystile_bundle_version"),
            age_seconds: gauge("keystile_bundle_age_seconds"),
            memory: gauge("keystile_vm_memory_bytes"),
        }
    }

    pub(crate) fn decided(&self, verdict: &Verdict) {
        match verdict {
            Verdict::Admit(admission) => {
                self.admitted.add(1);
                match admission.stale() {
                    Some(StalePolicy::OutageGraceSeconds(_)) => self.stale_outage_grace.add(1),
                    Some(StalePolicy::IssuedWithinSeconds(_)) => self.stale_issued_within.add(1),
                    Some(StalePolicy::Deny) | None => {}
                }
            }
            Verdict::Pass(_) => self.passed.add(1),
            Verdict::Refuse(_) => {}
        }
        if let Some(reason) = verdict.reason() {
            let counters = if verdict.is_reported() { &self.reported } else { &self.refused };
            counters.iter().filter(|(counted, _)| *counted == reason).for_each(|(_, counter)| counter.add(1));
        }
    }

    pub(crate) fn refresh_failed(&self) {
        self.refresh_failed.add(1);
    }

    pub(crate) fn flush(
        &self,
        manifest: Option<&Manifest>,
        cache: &mut Cache,
        verifier: &HostVerifier,
        now: u64,
    ) {
        let (hits, misses) = cache.counts();
        self.cache_hits.add(hits);
        self.cache_misses.add(misses);
        self.signatures_by_host.add(verifier.count());
        for counter in [
            &self.admitted,
            &self.passed,
            &self.stale_outage_grace,
            &self.stale_issued_within,
            &self.cache_hits,
            &self.cache_misses,
            &self.signatures_by_host,
            &self.refresh_failed,
        ] {
            counter.flush();
        }
        self.refused.iter().chain(&self.reported).for_each(|(_, counter)| counter.flush());
        record(self.memory, abi::memory_size());
        if let Some(manifest) = manifest {
            record(self.version, manifest.version());
            record(self.age_seconds, now.saturating_sub(manifest.issued_at()).div_euclid(1000));
        }
    }
}

impl Counter {
    fn define(name: &str) -> Self {
        Self { id: abi::define_metric(Metric::Counter, name).ok(), pending: Cell::new(0) }
    }

    fn add(&self, times: u64) {
        self.pending.set(self.pending.get().saturating_add(times));
    }

    fn flush(&self) {
        let pending = self.pending.take();
        if let (Some(id), 1..) = (self.id, pending) {
            // A host that forgot a metric it defined itself: nothing that a request should suffer for.
            let _ = abi::increment_metric(id, i64::try_from(pending).unwrap_or(i64::MAX));
        }
    }
}

fn gauge(name: &str) -> Option<u32> {
    abi::define_metric(Metric::Gauge, name).ok()
}

fn record(gauge: Option<u32>, value: u64) {
    if let Some(id) = gauge {
        let _ = abi::record_metric(id, value);
    }
}
