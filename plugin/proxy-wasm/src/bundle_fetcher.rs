//! Where the bundle comes from: one worker of the process, the leader, fetches it from the control plane, writes it to
//! shared data and wakes the others, which load it from there.

use std::{mem, sync::Arc, time::Duration};

use proxy_wasm::types::{BufferType, MapType};
use verdict::{
    Cache, ControlPlane, EDGE_STATUS_HEADER, Enforcement, FetchRequest, FetchStep, Fingerprint, Gate,
    HEARTBEAT_INTERVAL_MS, LEASE_RENEWAL_MS, MISSING_KEYS_HEADER, Policy, Progress, Refresh, RefreshError,
    Snapshot, WorkerSummary, failure_hint,
};

use crate::{
    hostcalls::{self, HostError},
    log::{LogThrottle, warn},
    metrics::Metrics,
    shared_store::{SharedStore, Stamp, manifest_stamp},
    wake_queue::WakeQueue,
};

/// The body of an error response of the control plane has some hundred bytes.
const MAX_ERROR_BYTES: usize = 4096;

/// The time for a response to arrive, in addition to the time for which the control plane may hold the request.
const RESPONSE_TIMEOUT_SECONDS: u64 = 5;

/// Two ticks: by then the other workers have loaded what was fetched, so that one request reports all of them. The last one
/// wakes the leader, which need not wait any longer.
const REPORT_DELAY_MS: u64 = 50;

/// Three leases: a leader that is still alive has completed what it writes by then.
const INCONSISTENCY_TIMEOUT_MS: u64 = 3000;

/// Spreads the workers, by their IDs. The first one has repaired shared data before most others begin.
const JITTER_MS: u64 = 2000;

/// A repair fetches the whole bundle.
const MAX_REPAIR_INTERVAL_MS: u64 = 300_000;

/// A leader, if there is one, has fetched the first bundle by then.
const FIRST_BUNDLE_TIMEOUT_MS: u64 = 5000;

const MIN_RETRY_INTERVAL_MS: u64 = 1000;

/// A sixth of the lifetime of a manifest: there are two more attempts before it ends.
const MAX_RETRY_INTERVAL_MS: u64 = 10_000;

const STATUS_NOT_MODIFIED: u16 = 304;

/// Each step hashes up to 64 KiB, which takes 0.4 ms: a worker that loads a base of 6 MB decides requests in between,
/// and has loaded it within a second.
const LOAD_STEPS_PER_TICK: usize = 4;

/// Why a worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// Its configuration.
    Start,
    /// A tick.
    Tick,
    /// Another worker.
    Wake,
}

/// What [`BundleFetcher::load_shared`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loading {
    /// The bundle of this worker, or one that it refuses.
    Nothing,
    /// A bundle of which it has loaded a part, and what made it begin.
    Part(Trigger),
}

pub(crate) struct BundleFetcher {
    control_plane: ControlPlane,
    shared: SharedStore,
    queue: WakeQueue,
    refresh: Refresh,
    /// The requests in flight, by the IDs that the host gave them.
    in_flight: Vec<(u32, FetchRequest)>,
    /// Distinguishes this worker from the others of the process.
    worker_id: u64,
    is_leader: bool,
    lease_check_at: u64,
    /// The stamp of the manifest that was last loaded, refused or written.
    last_stamp: Option<Stamp>,
    loading: Loading,
    /// When the manifest and the objects in shared data were first seen not to match.
    inconsistent_since: Option<u64>,
    /// How long they may stay so. It doubles with each attempt, because another worker's repair may have much to fetch.
    inconsistency_timeout_ms: u64,
    /// True while this worker, as the leader, fetches the whole bundle to write it to shared data again.
    is_repairing: bool,
    last_repair_at: u64,
    /// The minimum time between two repairs. It grows, because another filter may overwrite shared data all the time.
    repair_interval_ms: u64,
    /// True while this worker fetches without the lease: see [`Self::fetch_alone_when_due`].
    fetches_alone: bool,
    /// When a worker that fetches alone may try again, after an attempt that brought nothing new.
    retry_alone_at: u64,
    first_tick_at: Option<u64>,
    refusal_log: LogThrottle,
    failure_log: LogThrottle,
    /// What this worker enforces.
    enforcement: Enforcement,
    /// What this worker last reported to the others, and when.
    last_report: (Enforcement, u64),
    /// Until when the leader waits for the other workers before it sends the next request.
    report_delay_until: u64,
    /// When this worker may report missing keys again.
    missing_keys_due_at: u64,
}

impl BundleFetcher {
    /// `started_at` is in nanoseconds since the Unix epoch.
    pub(crate) fn new(policy: &Policy, control_plane: ControlPlane, started_at: u64) -> Self {
        let shared = SharedStore::new(policy, &control_plane.cluster);
        let refresh = Refresh::new(
            policy.root_keys.clone(),
            policy.audience.clone(),
            control_plane.wait_seconds,
            policy.max_manifest_lifetime_seconds,
            policy.minimum_position(),
        );
        Self {
            worker_id: shared.register_worker(started_at),
            queue: shared.wake_queue(),
            shared,
            control_plane,
            refresh,
            in_flight: Vec::new(),
            is_leader: false,
            lease_check_at: 0,
            last_stamp: None,
            loading: Loading::Nothing,
            inconsistent_since: None,
            inconsistency_timeout_ms: INCONSISTENCY_TIMEOUT_MS,
            is_repairing: false,
            last_repair_at: 0,
            repair_interval_ms: INCONSISTENCY_TIMEOUT_MS,
            fetches_alone: false,
            retry_alone_at: 0,
            first_tick_at: None,
            refusal_log: LogThrottle::default(),
            failure_log: LogThrottle::default(),
            enforcement: Enforcement::default(),
            last_report: (Enforcement::default(), 0),
            report_delay_until: 0,
            missing_keys_due_at: 0,
        }
    }

    pub(crate) fn current(&self) -> Option<&Arc<Snapshot>> {
        self.refresh.current()
    }

    /// Returns true if this worker fetches, as the leader or alone. It then logs for all workers.
    pub(crate) const fn is_fetching(&self) -> bool {
        self.is_leader || self.fetches_alone
    }

    /// Returns whether the next tick continues something, or may be the first to notice what other workers have shared.
    pub(crate) fn needs_ticks(&self, now: u64) -> bool {
        !self.queue.is_confirmed()
            || self.current().is_none()
            || matches!(self.loading, Loading::Part(_))
            || self.inconsistent_since.is_some()
            || self.is_fetching() && self.waits_for_reports(now)
    }

    /// To be called when the host reports an entry in a queue.
    pub(crate) fn on_queue_ready(&mut self, queue: u32) {
        self.queue.on_ready(queue);
    }

    /// Acquires or renews the lease, and repairs what is wrong. To be called after [`Self::load_shared`], and before
    /// [`Self::report_and_dispatch`].
    pub(crate) fn check_lease(&mut self, now: u64) {
        // A check that is further ahead than the interval was scheduled before the clock was set back.
        if now >= self.lease_check_at || self.lease_check_at.saturating_sub(now) > LEASE_RENEWAL_MS {
            self.lease_check_at = now.saturating_add(LEASE_RENEWAL_MS);
            let is_leader = self.shared.acquire_lease(self.worker_id, now);
            self.set_leader(is_leader);
        }
        self.fetch_alone_when_due(now);
        self.repair_shared(now);
    }

    /// Reports what this worker enforces, and makes the calls that are due.
    pub(crate) fn report_and_dispatch(&mut self, now: u64, enforcement: Enforcement, metrics: &Metrics) {
        self.enforcement = enforcement;
        self.report_enforcement(now);
        self.dispatch_due(now, metrics);
    }

    /// Reports an issuer whose tokens named a key that the bundle lacks, in a request for a manifest whose response is
    /// ignored: what the control plane then fetches comes as a newer bundle. The client chooses what a token names, so
    /// reports are rare, and contain nothing of a token.
    pub(crate) fn report_missing_keys(&mut self, gate: &Gate, cache: &mut Cache, now: u64) {
        if (1..=MIN_RETRY_INTERVAL_MS).contains(&self.missing_keys_due_at.saturating_sub(now)) {
            return;
        }
        while let Some(issuer) = gate.take_issuer_with_missing_key(cache) {
            let issuer = String::from(Fingerprint::digest(issuer.as_bytes()));
            if self.shared.claim_missing_keys_report(&issuer, now) {
                self.missing_keys_due_at = now.saturating_add(MIN_RETRY_INTERVAL_MS);
                // A report that the host does not send is repeated when another token names such a key.
                let _ = self.dispatch(self.refresh.manifest_request(0), Some(&issuer), now);
                return;
            }
        }
    }

    /// Handles the response to a call. `has_response` is false if there is none.
    pub(crate) fn on_http_response(&mut self, call_id: u32, has_response: bool, metrics: &Metrics) {
        let Some(index) = self.in_flight.iter().position(|(id, _)| *id == call_id) else { return };
        let (_, request) = self.in_flight.swap_remove(index);
        let status = if has_response { response_status() } else { 0 };
        let max_bytes = if status == 200 { request.max_bytes() } else { MAX_ERROR_BYTES };
        let body = hostcalls::buffer(BufferType::HttpCallResponseBody, max_bytes);
        self.handle_response(request, Ok(status), body.unwrap_or_default(), metrics);
    }

    /// Loads what the leader has written since the last call, or a part of it.
    pub(crate) fn load_shared(&mut self, trigger: Trigger, metrics: &Metrics) {
        let stamp = self.shared.stamp();
        if stamp.is_none() || stamp == self.last_stamp {
            self.loading = Loading::Nothing;
            self.clear_inconsistency();
            return;
        }
        let trigger = match mem::replace(&mut self.loading, Loading::Nothing) {
            Loading::Part(first) => first,
            Loading::Nothing => trigger,
        };
        if trigger == Trigger::Tick && self.inconsistent_since.is_none() {
            self.queue.on_missed();
        }
        let Some(manifest) = self.shared.manifest() else { return };
        let now = hostcalls::now_ms().unwrap_or_default();
        let mut step = || self.refresh.handle_shared(&manifest, now, |entry| self.shared.object(entry));
        let mut progress = step();
        for _ in 1..LOAD_STEPS_PER_TICK {
            if progress == Ok(Progress::Continue) {
                progress = step();
            }
        }
        match progress {
            Ok(Progress::Continue) => self.loading = Loading::Part(trigger),
            Ok(Progress::Done) => {
                self.last_stamp = stamp;
                self.is_repairing = false;
                self.clear_inconsistency();
                let is_current = stamp == self.current().map(|held| manifest_stamp(held.manifest()));
                if is_current {
                    metrics.count_shared_load(trigger);
                }
                if self.fetches_alone && is_current {
                    // Another worker writes a bundle as new as this worker's, so there is a leader again.
                    self.fetches_alone = false;
                    if !self.is_leader {
                        self.stop_fetching();
                    }
                }
            }
            // The leader is writing the next bundle. The next tick tries again.
            Err(RefreshError::Incomplete(_) | RefreshError::Object(_)) => {
                self.inconsistent_since.get_or_insert(now);
            }
            Err(failure) => {
                self.last_stamp = stamp;
                self.clear_inconsistency();
                if self.refusal_log.allow(now) {
                    let code = failure.code();
                    warn(&format!("the bundle in shared data is refused: {failure} ({code})"));
                }
            }
        }
    }

    fn clear_inconsistency(&mut self) {
        self.inconsistent_since = None;
        self.inconsistency_timeout_ms = INCONSISTENCY_TIMEOUT_MS;
    }

    fn set_leader(&mut self, is_leader: bool) {
        if self.is_leader && !is_leader && !self.fetches_alone {
            self.stop_fetching();
        }
        self.is_leader = is_leader;
    }

    fn stop_fetching(&mut self) {
        self.refresh.abort();
        self.in_flight.clear();
        self.is_repairing = false;
    }

    /// Makes this worker fetch for itself, without writing to shared data, if nothing newer has been shared for half
    /// the lifetime of its bundle. Shared data belongs to every filter with the same `vm_id`: a filter that
    /// keeps the lease, or overwrites the bundle, must not keep this worker from learning of revocations.
    fn fetch_alone_when_due(&mut self, now: u64) {
        let first_tick_at = *self.first_tick_at.get_or_insert(now);
        let first_due_at = first_tick_at.saturating_add(FIRST_BUNDLE_TIMEOUT_MS);
        let due_at = self.current().map_or(first_due_at, |held| held.refresh_due_at());
        // Spread, because the leader may only be slow.
        if self.is_fetching() || now < due_at.saturating_add(self.jitter_ms()) {
            return;
        }
        warn("no other worker shares a newer bundle: this one fetches for itself");
        self.fetches_alone = true;
        self.retry_alone_at = 0;
    }

    /// Returns the time between two requests of a worker that fetches alone. While the control plane is unreachable,
    /// all workers may do so.
    fn retry_interval_ms(&self) -> u64 {
        let half = self.current().map_or(0, |held| held.expires_at().saturating_sub(held.refresh_due_at()));
        let interval = half.div_euclid(3).clamp(MIN_RETRY_INTERVAL_MS, MAX_RETRY_INTERVAL_MS);
        interval.saturating_add(self.jitter_ms())
    }

    const fn jitter_ms(&self) -> u64 {
        self.worker_id % JITTER_MS
    }

    /// Returns true if this worker still holds the lease. It may have been suspended for longer than its lease.
    fn is_still_leader(&mut self, now: u64) -> bool {
        let is_leader = self.is_leader && self.shared.acquire_lease(self.worker_id, now);
        self.set_leader(is_leader);
        is_leader
    }

    /// Fetches the whole bundle, and writes it to shared data, if that is inconsistent or not the leader's bundle.
    /// Any worker becomes the leader for this once shared data has been inconsistent for too long.
    fn repair_shared(&mut self, now: u64) {
        let timeout = self.inconsistency_timeout_ms.saturating_add(self.jitter_ms());
        if self.inconsistent_since.is_some_and(|since| now.abs_diff(since) >= timeout)
            && !(self.is_leader && self.is_repairing)
        {
            self.inconsistent_since = Some(now);
            self.inconsistency_timeout_ms = self.inconsistency_timeout_ms.saturating_mul(2);
            let is_leader = self.shared.force_lease(self.worker_id, now);
            self.set_leader(is_leader);
            self.is_repairing = false;
        } else if self.last_stamp.is_none()
            || self.last_stamp == self.current().map(|held| manifest_stamp(held.manifest()))
        {
            return;
        }
        let since_last = now.abs_diff(self.last_repair_at);
        if self.is_leader && !self.is_repairing && since_last >= self.repair_interval_ms {
            let is_rare = since_last >= MAX_REPAIR_INTERVAL_MS.saturating_mul(2);
            let doubled = self.repair_interval_ms.saturating_mul(2).min(MAX_REPAIR_INTERVAL_MS);
            self.repair_interval_ms = if is_rare { INCONSISTENCY_TIMEOUT_MS } else { doubled };
            self.last_repair_at = now;
            self.is_repairing = true;
            warn("the bundle in shared data is not the one of this worker: all of it is fetched again");
            self.in_flight.clear();
            self.refresh.reshare_all();
        }
    }

    /// Reports to the other workers what this one enforces: at once if it has changed, else as a heartbeat. The last worker
    /// that reports a version wakes the leader, which waits for it.
    fn report_enforcement(&mut self, now: u64) {
        let (reported, reported_at) = self.last_report;
        let current = self.enforcement;
        if reported == current && now.abs_diff(reported_at) < HEARTBEAT_INTERVAL_MS {
            return;
        }
        let Some((row, table)) = self.shared.report(self.worker_id, current, now) else { return };
        self.last_report = (current, now);
        self.queue.register(row);
        let is_last = || table.summary(self.worker_id, self.version(), current, now).lagging == 0;
        if reported.version != current.version
            && !self.is_leader
            && is_last()
            && let Some(leader) = self.shared.leader()
            && let Some(row) = table.row_of(leader)
        {
            self.queue.wake(row);
        }
    }

    /// Makes all workers load what this one has published, and check their open streams. This one does so in a callback of
    /// its own.
    fn wake_all(&self, now: u64) {
        self.shared.worker_table().live_rows(now).for_each(|row| self.queue.wake(row));
    }

    fn version(&self) -> u64 {
        self.current().map_or(0, |held| held.manifest().version())
    }

    fn worker_summary(&self, now: u64) -> WorkerSummary {
        self.shared.worker_table().summary(self.worker_id, self.version(), self.enforcement, now)
    }

    /// Returns whether it is too soon to report which workers have loaded the last bundle.
    fn waits_for_reports(&self, now: u64) -> bool {
        (1..=REPORT_DELAY_MS).contains(&self.report_delay_until.saturating_sub(now))
    }

    /// Sends the requests that are due. A deadline that is further ahead than its delay was set before the clock was set
    /// back, and does not count.
    fn dispatch_due(&mut self, now: u64, metrics: &Metrics) {
        if !self.is_fetching() || self.waits_for_reports(now) && self.worker_summary(now).lagging > 0 {
            return;
        }
        let retry_delay = self.retry_alone_at.saturating_sub(now);
        let max_delay = MAX_RETRY_INTERVAL_MS.saturating_add(JITTER_MS);
        if !self.is_leader && (1..=max_delay).contains(&retry_delay) {
            return;
        }
        while let Some(request) = self.refresh.poll(now) {
            match self.dispatch(request, None, now) {
                Ok(call_id) => self.in_flight.push((call_id, request)),
                // The next attempt waits for the next tick. If the host had no clock either, the back-off
                // would be over at once, and the loop would never end.
                Err(error) => return self.handle_response(request, Err(error), Vec::new(), metrics),
            }
        }
    }

    fn dispatch(
        &self,
        request: FetchRequest,
        missing_keys: Option<&str>,
        now: u64,
    ) -> Result<u32, HostError> {
        let ControlPlane { cluster, authority, credential, .. } = &self.control_plane;
        let (path, etag) = (request.path(), request.etag());
        let prefer = format!("wait={}", request.wait_seconds());
        let authorization = credential.as_ref().map(|credential| ["Bearer ", credential.expose()].concat());
        let status =
            matches!(request, FetchRequest::Manifest { .. }).then(|| self.worker_summary(now).to_string());
        let mut headers = Vec::from([
            (":method", "GET"),
            (":path", path.as_str()),
            (":authority", authority.as_str()),
            ("prefer", prefer.as_str()),
        ]);
        headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
        headers.extend(etag.as_deref().map(|etag| ("if-none-match", etag)));
        headers.extend(status.as_deref().map(|status| (EDGE_STATUS_HEADER, status)));
        headers.extend(missing_keys.map(|issuers| (MISSING_KEYS_HEADER, issuers)));
        let timeout = request.wait_seconds().saturating_add(RESPONSE_TIMEOUT_SECONDS);
        hostcalls::http_call(cluster, headers, Duration::from_secs(timeout))
    }

    /// Handles the outcome of a request: the status of the response, 0 if there is none, or why the host did not send the
    /// request.
    fn handle_response(
        &mut self,
        request: FetchRequest,
        status: Result<u16, HostError>,
        body: Vec<u8>,
        metrics: &Metrics,
    ) {
        let nanos = hostcalls::now_ns().unwrap_or_default();
        let now = nanos.div_euclid(1_000_000);
        let code = status.unwrap_or_default();
        let outcome = self.refresh.handle_response(request, code, body, now, nanos ^ self.worker_id);
        let brought_nothing = code == STATUS_NOT_MODIFIED && request.wait_seconds() == 0;
        if outcome.is_err() || brought_nothing {
            self.retry_alone_at = now.saturating_add(self.retry_interval_ms());
        }
        match outcome {
            Ok(FetchStep::Pending) => {}
            // Another worker leads now. What it writes must not be mixed with this.
            Ok(FetchStep::Share(_) | FetchStep::Ready(_)) if !self.is_still_leader(now) => {}
            Ok(FetchStep::Share(objects)) => self.shared.write_objects(&objects),
            Ok(FetchStep::Ready(objects)) => {
                self.is_repairing = false;
                self.fetches_alone = false;
                self.clear_inconsistency();
                self.last_stamp =
                    self.refresh.current().map(|new| self.shared.publish(new.manifest(), &objects));
                self.report_delay_until = now.saturating_add(REPORT_DELAY_MS);
                self.wake_all(now);
            }
            Err(failure) => {
                metrics.count_refresh_failure();
                // While the control plane is unreachable, every worker fetches. The leader logs each failure, the
                // others some.
                if self.is_leader {
                    self.failure_log.restart(now);
                } else if !self.failure_log.allow(now) {
                    return;
                }
                let ControlPlane { cluster, credential, .. } = &self.control_plane;
                let hint = failure_hint(status, HostError::BAD_ARGUMENT, cluster, credential.is_some());
                warn(&format!(
                    "refresh failed, the current bundle stays in use: {failure} ({}){hint}",
                    failure.code()
                ));
            }
        }
    }
}

/// Returns 0 if the response has no status.
fn response_status() -> u16 {
    let status = hostcalls::header(MapType::HttpCallResponseHeaders, ":status").unwrap_or_default();
    str::from_utf8(&status).ok().and_then(|status| status.parse().ok()).unwrap_or(0)
}
