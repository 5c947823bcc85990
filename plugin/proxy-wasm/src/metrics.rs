//! Counters and gauges. Requests count in the VM; a tick hands the sums to the host, so that no request pays for it.

use alloc::vec::Vec;
use core::cell::Cell;

use verdict::{Manifest, Reason};

use crate::abi::{self, Metric};

pub(crate) struct Metrics {
    admitted: Counter,
    /// Without a credential, where a rule lets them.
    passed: Counter,
    refused: Vec<(Reason, Counter)>,
    refresh_failed: Counter,
    version: Option<u32>,
    age_seconds: Option<u32>,
}

struct Counter {
    id: Option<u32>,
    pending: Cell<i64>,
}

impl Metrics {
    pub(crate) fn define() -> Self {
        let refused =
            |reason: &Reason| (*reason, Counter::define(&["keystile_refused_", reason.code()].concat()));
        Self {
            admitted: Counter::define("keystile_admitted"),
            passed: Counter::define("keystile_passed"),
            refused: Reason::ALL.iter().map(refused).collect(),
            refresh_failed: Counter::define("keystile_refresh_failed"),
            version: gauge("keystile_bundle_version"),
            age_seconds: gauge("keystile_bundle_age_seconds"),
        }
    }

    pub(crate) fn admitted(&self) {
        self.admitted.add();
    }

    pub(crate) fn passed(&self) {
        self.passed.add();
    }

    pub(crate) fn refused(&self, reason: Reason) {
        self.refused.iter().filter(|(counted, _)| *counted == reason).for_each(|(_, counter)| counter.add());
    }

    pub(crate) fn refresh_failed(&self) {
        self.refresh_failed.add();
    }

    pub(crate) fn flush(&self, manifest: Option<&Manifest>, now: u64) {
        self.admitted.flush();
        self.passed.flush();
        self.refused.iter().for_each(|(_, counter)| counter.flush());
        self.refresh_failed.flush();
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

    fn add(&self) {
        self.pending.set(self.pending.get().saturating_add(1));
    }

    fn flush(&self) {
        let pending = self.pending.take();
        if let (Some(id), 1..) = (self.id, pending) {
            // A host that forgot a metric it defined itself: nothing that a request should suffer for.
            let _ = abi::increment_metric(id, pending);
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
