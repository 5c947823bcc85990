//! Where the bundle comes from: one fetch per process, on the main thread, for all configurations that name the same control
//! plane, audience and keys. Workers read the current bundle through an atomic pointer.
//!
//! Requests belong to a configuration, the leader. When it is destroyed, Envoy cancels them, and another configuration
//! continues.

use std::{
    env,
    os::unix::ffi::OsStrExt as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak},
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::{ArcSwapOption, Guard};
use verdict::{
    ControlPlane, EDGE_STATUS_HEADER, Enforcement, Environment, FetchRequest, FetchStep, Fingerprint,
    MISSING_KEYS_HEADER, MISSING_KEYS_INTERVAL_MS, Policy, Refresh, Snapshot, WorkerSummary, failure_hint,
};

use crate::{
    abi::{CalloutError, Main},
    log::{info, warn},
    metrics::Counters,
    timer::{Members, Timer},
    worker::{Edge, Worker},
};

/// The body of an error response of the control plane has some hundred bytes.
const MAX_ERROR_BYTES: usize = 4096;

/// The time for a response to arrive, in addition to the time for which the control plane may hold the request.
const RESPONSE_TIMEOUT_SECONDS: u64 = 5;

/// By then workers have checked their open streams by a new bundle, so that one request reports all of them.
const REPORT_DELAY_MS: u64 = 50;

/// The sources of the process, for configurations that replace another.
static SOURCES: Mutex<Vec<(Fingerprint, Weak<Source>)>> = Mutex::new(Vec::new());

/// The number of a configuration.
pub(crate) type PluginId = u64;

pub(crate) struct Source {
    snapshot: ArcSwapOption<Snapshot>,
    members: Arc<Members>,
    /// `None` if the configuration has the bundle in it.
    fetcher: Option<Mutex<Fetcher>>,
    users: Mutex<Users>,
    /// Issuers whose tokens named a key that the bundle lacks.
    missing_keys: Mutex<Vec<Fingerprint>>,
}

#[derive(Default)]
struct Users {
    count: usize,
    timer: Option<Timer>,
}

struct Fetcher {
    control_plane: ControlPlane,
    refresh: Refresh,
    /// The requests in flight, by the IDs that Envoy gave them.
    in_flight: Vec<(u64, FetchRequest)>,
    leader: Option<PluginId>,
    /// Until when the next request waits for the workers.
    report_delay_until: u64,
    /// When keys of an issuer were last reported as missing.
    reported_keys: Vec<(Fingerprint, u64)>,
    /// Bundles that workers may still use. The main thread frees them.
    retired: Vec<Arc<Snapshot>>,
}

impl Source {
    /// Returns the source that an earlier configuration uses, or a new one.
    pub(crate) fn find_or_create(policy: &Policy, control_plane: ControlPlane) -> Arc<Self> {
        let key = source_key(policy, &control_plane);
        let mut sources = lock(&SOURCES);
        sources.retain(|(_, source)| source.strong_count() > 0);
        let found = sources.iter().find(|(known, _)| *known == key);
        if let Some(source) = found.and_then(|(_, source)| source.upgrade()) {
            return source;
        }
        let refresh = Refresh::new(
            policy.root_keys.clone(),
            policy.audience.clone(),
            control_plane.wait_seconds,
            policy.max_manifest_lifetime_seconds,
            policy.minimum_position(),
        );
        let source = Arc::new(Self::new(
            None,
            Some(Fetcher {
                control_plane,
                refresh,
                in_flight: Vec::new(),
                leader: None,
                report_delay_until: 0,
                reported_keys: Vec::new(),
                retired: Vec::new(),
            }),
        ));
        sources.push((key, Arc::downgrade(&source)));
        source
    }

    /// Returns a source that always has the same bundle.
    pub(crate) fn inline(snapshot: Arc<Snapshot>) -> Arc<Self> {
        Arc::new(Self::new(Some(snapshot), None))
    }

    fn new(snapshot: Option<Arc<Snapshot>>, fetcher: Option<Fetcher>) -> Self {
        Self {
            snapshot: ArcSwapOption::new(snapshot),
            members: Arc::default(),
            fetcher: fetcher.map(Mutex::new),
            users: Mutex::default(),
            missing_keys: Mutex::default(),
        }
    }

    /// Returns the current bundle.
    pub(crate) fn snapshot(&self) -> Guard<Option<Arc<Snapshot>>> {
        self.snapshot.load()
    }

    pub(crate) fn join(&self, edge: &Arc<Edge>, workers: &[Arc<Worker>]) {
        self.members.add(edge, workers);
        let mut users = lock(&self.users);
        users.count = users.count.saturating_add(1);
    }

    /// Starts the timer. Must be called in the first event of a configuration: one that is only validated gets none.
    pub(crate) fn start_timer(&self) {
        let mut users = lock(&self.users);
        if users.timer.is_none() {
            users.timer = Timer::start(&self.members);
        }
    }

    /// Ends the use of a configuration. Envoy has canceled its requests.
    pub(crate) fn leave(&self, plugin: PluginId) {
        if let Some(fetcher) = &self.fetcher {
            let mut fetcher = lock(fetcher);
            if fetcher.leader == Some(plugin) {
                fetcher.leader = None;
                fetcher.in_flight.clear();
                fetcher.refresh.abort();
            }
        }
        let mut users = lock(&self.users);
        users.count = users.count.saturating_sub(1);
        if users.count == 0 {
            users.timer = None;
        }
    }

    /// Reports an issuer whose tokens named a key that the bundle lacks. Worker threads call it.
    pub(crate) fn report_missing_keys(&self, issuer: Fingerprint) {
        let mut missing = lock(&self.missing_keys);
        if self.fetcher.is_some() && !missing.contains(&issuer) {
            missing.push(issuer);
        }
    }

    /// Returns whether the configuration leads, and so logs for all.
    pub(crate) fn is_leader(&self, plugin: PluginId) -> bool {
        self.fetcher.as_ref().is_none_or(|fetcher| lock(fetcher).leader == Some(plugin))
    }

    /// Does what is due. `now` is in milliseconds since the Unix epoch.
    pub(crate) fn on_tick(&self, plugin: PluginId, main: &Main<'_>, counters: &Counters, now: u64) {
        let Some(fetcher) = &self.fetcher else { return };
        let mut fetcher = lock(fetcher);
        fetcher.retired.retain(|retired| Arc::strong_count(retired) > 1);
        if *fetcher.leader.get_or_insert(plugin) != plugin {
            return;
        }
        self.send_missing_keys(&mut fetcher, main, now);
        self.dispatch_due(&mut fetcher, main, counters, now);
    }

    /// Handles the response to a request of the leader. The status is 0 if there is none.
    pub(crate) fn on_http_response(
        &self,
        main: &Main<'_>,
        counters: &Counters,
        id: u64,
        status: u16,
        chunks: &[&[u8]],
    ) {
        let (Some(fetcher), Some(now)) = (&self.fetcher, now_ms()) else { return };
        // An answer within the call that sends the request, which Envoy does not give, is ignored: the request times out.
        let mut fetcher = match fetcher.try_lock() {
            Ok(fetcher) => fetcher,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let Some(at) = fetcher.in_flight.iter().position(|(known, _)| *known == id) else { return };
        let (_, request) = fetcher.in_flight.swap_remove(at);
        let mut room = if status == 200 { request.max_bytes() } else { MAX_ERROR_BYTES };
        let mut body = Vec::new();
        for chunk in chunks {
            let chunk = chunk.get(..chunk.len().min(room)).unwrap_or_default();
            room = room.saturating_sub(chunk.len());
            body.extend_from_slice(chunk);
        }
        self.handle_response(&mut fetcher, request, Ok(status), body, counters, now);
        self.dispatch_due(&mut fetcher, main, counters, now);
    }

    /// Sends the requests that are due. A deadline that is further ahead than its delay was set before the clock was set
    /// back, and does not count.
    fn dispatch_due(&self, fetcher: &mut Fetcher, main: &Main<'_>, counters: &Counters, now: u64) {
        let report_delay = fetcher.report_delay_until.saturating_sub(now);
        if (1..=REPORT_DELAY_MS).contains(&report_delay) && self.worker_summary(fetcher).lagging > 0 {
            return;
        }
        while let Some(request) = fetcher.refresh.poll(now) {
            match self.dispatch(fetcher, request, None, main) {
                Ok(id) => fetcher.in_flight.push((id, request)),
                // The next attempt waits for the next tick.
                Err(error) => {
                    return self.handle_response(fetcher, request, Err(error), Vec::new(), counters, now);
                }
            }
        }
    }

    /// Reports missing keys, in a request for a manifest whose response is ignored: what the control plane then fetches comes
    /// as a newer bundle. The client chooses what a token names, so reports are rare, and contain nothing of a token.
    fn send_missing_keys(&self, fetcher: &mut Fetcher, main: &Main<'_>, now: u64) {
        let missing = std::mem::take(&mut *lock(&self.missing_keys));
        for issuer in missing {
            fetcher.reported_keys.retain(|(_, at)| now.abs_diff(*at) < MISSING_KEYS_INTERVAL_MS);
            if fetcher.reported_keys.iter().all(|(known, _)| *known != issuer) {
                let (request, text) = (fetcher.refresh.manifest_request(0), String::from(issuer));
                // A report that Envoy does not send is repeated when another token names such a key.
                if self.dispatch(fetcher, request, Some(&text), main).is_ok() {
                    fetcher.reported_keys.push((issuer, now));
                }
            }
        }
    }

    fn dispatch(
        &self,
        fetcher: &Fetcher,
        request: FetchRequest,
        missing_keys: Option<&str>,
        main: &Main<'_>,
    ) -> Result<u64, CalloutError> {
        let ControlPlane { cluster, authority, credential, .. } = &fetcher.control_plane;
        let (path, etag) = (request.path(), request.etag());
        let prefer = format!("wait={}", request.wait_seconds());
        let authorization = credential.as_ref().map(|credential| ["Bearer ", credential.expose()].concat());
        let status = matches!(request, FetchRequest::Manifest { .. })
            .then(|| self.worker_summary(fetcher).to_string());
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
        main.http_call(cluster, &headers, timeout.saturating_mul(1000))
    }

    /// Handles the outcome of a request: the status of the response, 0 if there is none, or why Envoy did not send the
    /// request.
    fn handle_response(
        &self,
        fetcher: &mut Fetcher,
        request: FetchRequest,
        status: Result<u16, CalloutError>,
        body: Vec<u8>,
        counters: &Counters,
        now: u64,
    ) {
        // It only spreads the retries of many edges.
        let random = random().map_or(now, u64::from_le_bytes);
        let outcome = fetcher.refresh.handle_response(request, status.unwrap_or_default(), body, now, random);
        match outcome {
            Ok(FetchStep::Pending | FetchStep::Share(_)) => {}
            Ok(FetchStep::Ready(_)) => {
                let current = fetcher.refresh.current().map(Arc::clone);
                let version = current.as_ref().map_or(0, |current| current.manifest().version());
                fetcher.retired.extend(self.snapshot.swap(current));
                fetcher.report_delay_until = now.saturating_add(REPORT_DELAY_MS);
                info(&format!("enforcing bundle version {version}"));
                self.members.wake_now();
            }
            Err(failure) => {
                counters.count_refresh_failure();
                let ControlPlane { cluster, credential, .. } = &fetcher.control_plane;
                let hint =
                    failure_hint(status, CalloutError::CLUSTER_NOT_FOUND, cluster, credential.is_some());
                warn(&format!(
                    "refresh failed, the current bundle stays in use: {failure} ({}){hint}",
                    failure.code()
                ));
            }
        }
    }

    fn worker_summary(&self, fetcher: &Fetcher) -> WorkerSummary {
        let version = fetcher.refresh.current().map_or(0, |held| held.manifest().version());
        let enforcements: Vec<Enforcement> =
            self.members.workers().iter().map(|worker| worker.enforcement(version)).collect();
        WorkerSummary {
            version,
            workers: enforcements.len(),
            oldest: enforcements.iter().map(|worker| worker.version).fold(version, u64::min),
            lagging: enforcements.iter().filter(|worker| worker.version < version).count(),
            kept_streams: enforcements.iter().map(|worker| worker.kept_streams).fold(0, u64::saturating_add),
        }
    }
}

/// Returns what a source depends on: where it gets bundles, and all that decides which of them it accepts.
fn source_key(policy: &Policy, control_plane: &ControlPlane) -> Fingerprint {
    let ControlPlane { cluster, authority, credential, wait_seconds, .. } = control_plane;
    let keys: Vec<String> = policy.root_keys.iter().map(ToString::to_string).collect();
    let credential =
        credential.as_ref().map(|credential| Fingerprint::digest(credential.expose().as_bytes()));
    let (minimum, lifetime) = (policy.minimum_position(), policy.max_manifest_lifetime_seconds);
    let key = (cluster, authority, credential, wait_seconds, &policy.audience, keys, minimum, lifetime);
    Fingerprint::digest(format!("{key:?}").as_bytes())
}

/// Returns milliseconds since the Unix epoch, or `None` if the clock is before it.
pub(crate) fn now_ms() -> Option<u64> {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

/// Returns random bytes, or `None` if the system has none.
pub(crate) fn random<const N: usize>() -> Option<[u8; N]> {
    use ring::rand::{SecureRandom as _, SystemRandom};
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}

/// Returns the environment of the process.
pub(crate) fn environment() -> Environment {
    let mut block = Vec::new();
    for (name, value) in env::vars_os() {
        block.extend_from_slice(&[name.as_bytes(), b"=", value.as_bytes(), b"\0"].concat());
    }
    Environment::from_block(block)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
