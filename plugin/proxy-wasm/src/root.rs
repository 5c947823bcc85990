//! One worker: its configuration, its ticks, its calls to the control plane.

use alloc::{collections::BTreeMap, format, sync::Arc, vec::Vec};

use verdict::{Cache, Call, Gate, LEASE_RENEWAL_MS, Line, Policy, Refresh, Snapshot, Step, Watch};

use crate::{
    abi::{self, Buffer, LogLevel, Map},
    metrics::Metrics,
    pairs,
    sharing::{Sharing, Stamp},
    verifier::HostVerifier,
    worker::Worker,
};

pub(crate) struct Root {
    worker: Worker,
    sharing: Sharing,
    refresh: Refresh,
    calls: BTreeMap<u32, Call>,
    /// Tells this worker from the others of the process.
    me: u64,
    leads: bool,
    lease_due: u64,
    seen: Option<Stamp>,
    watch: Watch,
}

impl Root {
    /// None where the host cannot do what the configuration needs.
    pub(crate) fn new(policy: Policy, configuration: &[u8]) -> Option<Self> {
        let me = abi::current_time().unwrap_or_default();
        let sharing = Sharing::new(&policy);
        let refresh = Refresh::new(
            policy.publisher_keys.clone(),
            policy.audience.clone(),
            policy.control_plane.wait_seconds,
        );
        // The edge's credential is in it: no client can know that.
        let seed = [configuration, &me.to_le_bytes()].concat();
        let cache = Cache::new(policy.cache_entries, &seed);
        let gate = Gate::new(policy);
        let metrics = Metrics::define(&gate);
        let worker =
            Worker { gate, cache, verifier: HostVerifier::default(), snapshot: None, now: None, metrics };
        let mut root = Self {
            worker,
            sharing,
            refresh,
            calls: BTreeMap::new(),
            me,
            leads: false,
            lease_due: 0,
            seen: None,
            watch: Watch::default(),
        };
        root.worker.now = now();
        // A VM that comes back from a crash finds its bundle here.
        root.follow();
        // Nothing more yet: this may be a VM that only tries the configuration out.
        if abi::set_tick_period(TICK_MS).is_err() {
            error("keystile: this host has no timers, so that nothing can be fetched");
            return None;
        }
        Some(root)
    }

    pub(crate) const fn worker(&mut self) -> &mut Worker {
        &mut self.worker
    }

    /// Takes the answer to a call, or that there is none.
    pub(crate) fn answered(&mut self, token: u32, answered: bool) {
        let Some(call) = self.calls.remove(&token) else { return };
        let status = if answered { status() } else { 0 };
        let body = abi::buffer(Buffer::CallResponseBody, call.max_bytes());
        self.take(call, status, body.unwrap_or_default());
    }

    pub(crate) fn tick(&mut self) {
        self.worker.now = now();
        let Some(now) = self.worker.now else { return };
        self.follow();
        if now >= self.lease_due || self.lease_due.saturating_sub(now) > LEASE_RENEWAL_MS {
            self.lease_due = now.saturating_add(LEASE_RENEWAL_MS);
            let leads = self.sharing.lead(self.me, now);
            if self.leads && !leads {
                self.refresh.stand_down();
                self.calls.clear();
            }
            self.leads = leads;
        }
        self.ask(now);
        self.watch_freshness(now);
        let Worker { snapshot, cache, metrics, .. } = &mut self.worker;
        metrics.flush(snapshot.as_deref().map(Snapshot::manifest), cache, now);
    }

    /// Takes what the leader has shared since the last look.
    fn follow(&mut self) {
        let stamp = self.sharing.stamp();
        if stamp.is_none() || stamp == self.seen {
            return;
        }
        let Some(manifest) = self.sharing.manifest() else { return };
        match self.refresh.handle_shared(&manifest, |entry| self.sharing.object(entry)) {
            Ok(()) => self.swap(stamp),
            // The leader is in the middle of writing the next one: look again at the next tick.
            Err(verdict::Failure::Incomplete(_) | verdict::Failure::Object(_)) => {}
            Err(failure) => {
                self.seen = stamp;
                warn(&format!(
                    "keystile: what the leading worker shared is refused: {failure} ({})",
                    failure.code()
                ));
            }
        }
    }

    /// Makes the calls that are due.
    fn ask(&mut self, now: u64) {
        while let Some(call) = self.leads.then(|| self.refresh.poll(now)).flatten() {
            match self.dispatch(call) {
                Some(token) => {
                    self.calls.insert(token, call);
                }
                None => self.take(call, 0, Vec::new()),
            }
        }
    }

    fn dispatch(&self, call: Call) -> Option<u32> {
        let control_plane = &self.worker.gate.policy().control_plane;
        let (path, etag) = (call.path(), call.etag());
        let prefer = format!("wait={}", call.wait_seconds());
        let authorization = ["Bearer ", control_plane.credential.expose()].concat();
        let mut headers = Vec::from([
            (":method", "GET"),
            (":path", path.as_str()),
            (":authority", control_plane.authority.as_str()),
            ("authorization", authorization.as_str()),
            ("prefer", prefer.as_str()),
        ]);
        headers.extend(etag.as_deref().map(|etag| ("if-none-match", etag)));
        let headers = pairs::write(headers.iter().map(|(name, value)| (*name, value.as_bytes())));
        let wait = u32::try_from(call.wait_seconds()).unwrap_or(u32::MAX);
        let timeout_ms = wait.saturating_mul(1000).saturating_add(ANSWER_WITHIN_MS);
        abi::http_call(&control_plane.cluster, &headers, timeout_ms).ok()
    }

    fn take(&mut self, call: Call, status: u16, body: Vec<u8>) {
        let nanos = abi::current_time().unwrap_or_default();
        let now = milliseconds(nanos);
        match self.refresh.handle_answer(call, status, body, now, nanos ^ self.me) {
            Ok(Step::Pending) => {}
            Ok(Step::Ready(objects)) => {
                let stamp = self.refresh.current().map(|new| self.sharing.publish(new.manifest(), &objects));
                self.swap(stamp);
            }
            Err(failure) => {
                self.worker.metrics.refresh_failed();
                warn(&format!(
                    "keystile: refresh failed, what is held is kept: {failure} ({})",
                    failure.code()
                ));
            }
        }
        self.ask(now);
    }

    fn swap(&mut self, stamp: Option<Stamp>) {
        self.seen = stamp;
        let new = self.refresh.current().cloned();
        let old = core::mem::replace(&mut self.worker.snapshot, new);
        let version = |of: &Option<Arc<Snapshot>>| of.as_ref().map(|snapshot| snapshot.manifest().version());
        let new = version(&self.worker.snapshot);
        if version(&old) != new {
            info(&format!("keystile: enforcing bundle version {}", new.unwrap_or_default()));
        }
    }

    /// Says when a policy for a silent control plane starts and ends; one worker speaks for all.
    fn watch_freshness(&mut self, now: u64) {
        let Some(snapshot) = self.worker.snapshot.as_deref().filter(|_| self.leads) else { return };
        for line in self.watch.handle(&self.worker.gate, snapshot, now) {
            match line {
                Line::Info(text) => info(&format!("keystile: {text}")),
                Line::Warning(text) => warn(&format!("keystile: {text}")),
                Line::Error(text) => error(&format!("keystile: {text}")),
            }
        }
    }
}

/// Milliseconds since the Unix epoch. None where the host does not know: nothing then may pass.
fn now() -> Option<u64> {
    abi::current_time().ok().map(milliseconds)
}

const fn milliseconds(nanos: u64) -> u64 {
    nanos.div_euclid(1_000_000)
}

fn status() -> u16 {
    let status = abi::header(Map::CallResponseHeaders, ":status").unwrap_or_default();
    core::str::from_utf8(&status).ok().and_then(|status| status.parse().ok()).unwrap_or(0)
}

fn info(message: &str) {
    abi::log(LogLevel::Info, message);
}

fn warn(message: &str) {
    abi::log(LogLevel::Warn, message);
}

fn error(message: &str) {
    abi::log(LogLevel::Error, message);
}

/// How soon a worker sees what another has fetched. At 40 ticks a second, two host calls each, it costs some 0.02 % of
/// a core.
const TICK_MS: u32 = 25;

/// For an answer to come, beyond the time that the control plane may hold the request.
const ANSWER_WITHIN_MS: u32 = 5000;
