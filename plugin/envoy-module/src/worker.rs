//! What the streams of one worker thread share, for one configuration.
//!
//! Only hooks on this thread use the state of the worker, so its lock is never contended. The beacon is the exception: it
//! is the right to wake one of the open streams, so that the thread checks all of them.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use verdict::{
    Admitted, Cache, Checked, Ended, Enforcement, Fingerprint, Gate, Headers, OpenStreams, Snapshot,
};

use crate::{
    abi::{ConfigWake, StreamId, StreamWake, WorkerThread},
    filter::END_EVENT,
    log::{self, LogThrottle},
    metrics::Counters,
    route::Route,
    source::{Source, now_ms},
};

/// Makes a stream check all streams of its worker.
const CHECK_EVENT: u64 = 0;

/// Makes the configuration do what is due.
pub(crate) const TICK_EVENT: u64 = 0;

/// The minimum time between two reports of missing keys by one worker, in milliseconds. Clients can cause them.
const MISSING_KEYS_INTERVAL_MS: u64 = 1000;

/// When Envoy selects the route of a request again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Routing {
    /// If the client sent headers that it may not send: a route must not be selected by them.
    WithoutIdentity,
    /// If any header was changed, so that routes can be selected by identity headers. This takes Envoy 3 to 4 microseconds.
    ByIdentity,
}

impl Routing {
    /// Returns what the name of the filter in Envoy's configuration selects, or `None` if there is no such filter.
    pub(crate) fn from_filter_name(name: &[u8]) -> Option<Self> {
        match name {
            b"keystile" => Some(Self::WithoutIdentity),
            b"keystile_route_by_identity" => Some(Self::ByIdentity),
            _ => None,
        }
    }
}

/// How often a thread is woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Period {
    /// There are no open streams.
    Idle,
    Streams,
    /// Many streams are being ended.
    Ending,
}

/// What all threads share, for one configuration.
pub(crate) struct Edge {
    pub(crate) gate: Gate,
    routing: Routing,
    pub(crate) source: Arc<Source>,
    pub(crate) wake: ConfigWake,
    /// Keys the hash of caches. No client knows it.
    seed: [u8; 32],
}

impl Edge {
    pub(crate) const fn new(
        gate: Gate,
        routing: Routing,
        source: Arc<Source>,
        wake: ConfigWake,
        seed: [u8; 32],
    ) -> Self {
        Self { gate, routing, source, wake, seed }
    }
}

pub(crate) struct Worker {
    edge: Arc<Edge>,
    pub(crate) counters: Counters,
    state: Mutex<State>,
    beacon: Mutex<Option<Beacon>>,
    has_streams: AtomicBool,
    /// Whether many streams are ended, a few in each check.
    is_ending: AtomicBool,
    /// The version by which all open streams have been checked, if there are any.
    enforced: AtomicU64,
    kept: AtomicU64,
}

struct State {
    listener: Lane,
    /// One for each configuration of a route that requests had.
    routes: Vec<(Arc<Route>, Lane)>,
    /// Streams that are being ended.
    ended: Vec<Ended<StreamId>>,
    claim_log: LogThrottle,
    route_log: LogThrottle,
    missing_keys_at: u64,
}

/// What belongs to one policy.
struct Lane {
    cache: Cache,
    streams: OpenStreams<StreamId>,
}

/// The open stream that is woken for the worker.
struct Beacon {
    stream: StreamId,
    wake: StreamWake,
    /// Whether an event is on its way.
    is_pending: bool,
}

// Implemented by hand so that no identity is printed.
impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Worker(..)")
    }
}

impl Lane {
    fn new(gate: &Gate, seed: &[u8]) -> Self {
        let policy = gate.policy();
        Self {
            cache: Cache::new(policy.cache_entries, seed),
            streams: OpenStreams::new(policy.max_open_streams),
        }
    }
}

impl State {
    fn lane(&mut self, route: Option<&Arc<Route>>, seed: &[u8]) -> &mut Lane {
        let Self { listener, routes, .. } = self;
        let Some(route) = route else { return listener };
        let at = routes.iter().position(|(known, _)| Arc::ptr_eq(known, route)).unwrap_or_else(|| {
            routes.push((Arc::clone(route), Lane::new(route.gate(), seed)));
            routes.len().saturating_sub(1)
        });
        routes.get_mut(at).map_or(listener, |(_, lane)| lane)
    }

    fn lanes(&mut self) -> impl Iterator<Item = &mut Lane> {
        [&mut self.listener].into_iter().chain(self.routes.iter_mut().map(|(_, lane)| lane))
    }
}

impl Worker {
    pub(crate) fn new(edge: Arc<Edge>, index: u32) -> Self {
        let listener = Lane::new(&edge.gate, &[&edge.seed[..], &index.to_le_bytes()].concat());
        Self {
            counters: Counters::new(),
            state: Mutex::new(State {
                listener,
                routes: Vec::new(),
                ended: Vec::new(),
                claim_log: LogThrottle::default(),
                route_log: LogThrottle::default(),
                missing_keys_at: 0,
            }),
            beacon: Mutex::new(None),
            has_streams: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
            enforced: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            edge,
        }
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.edge.gate
    }

    pub(crate) fn routing(&self) -> Routing {
        self.edge.routing
    }

    pub(crate) fn snapshot(&self) -> arc_swap::Guard<Option<Arc<Snapshot>>> {
        self.edge.source.snapshot()
    }

    /// Calls a function with the cache of a policy.
    pub(crate) fn with_cache<T>(
        &self,
        route: Option<&Arc<Route>>,
        gate: &Gate,
        decide: impl FnOnce(&mut Cache) -> T,
    ) -> T {
        let mut state = self.lock_state();
        let missing_keys_at = state.missing_keys_at;
        let Lane { cache, .. } = state.lane(route, &self.edge.seed);
        let decision = decide(cache);
        self.counters.count_cache(cache);
        if let Some(issuer) = gate.take_issuer_with_missing_key(cache) {
            let now = now_ms().unwrap_or_default();
            if now.abs_diff(missing_keys_at) >= MISSING_KEYS_INTERVAL_MS {
                self.edge.source.report_missing_keys(Fingerprint::digest(issuer.as_bytes()));
                state.missing_keys_at = now;
            }
        }
        decision
    }

    /// Returns true if a line about a claim may be logged.
    pub(crate) fn allows_claim_log(&self, now: u64) -> bool {
        self.lock_state().claim_log.allow(now)
    }

    pub(crate) fn log_other_route(&self) {
        if self.lock_state().route_log.allow(now_ms().unwrap_or_default()) {
            log::error(
                "a request is refused: its route without the identity headers of the client, or with those of the filter, has \
                 another configuration than the route that it was decided by",
            );
        }
    }

    pub(crate) fn log_foreign_route(&self) {
        if self.lock_state().route_log.allow(now_ms().unwrap_or_default()) {
            log::error(
                "requests are refused: the configuration of their route has another audience, or other root keys, than \
                 that of the listener",
            );
        }
    }

    /// Adds a stream that was admitted by a version of the bundle. Returns its number.
    pub(crate) fn open(
        &self,
        route: Option<&Arc<Route>>,
        admitted: Admitted<StreamId>,
        version: u64,
        thread: &WorkerThread<'_>,
    ) -> u64 {
        let stream = admitted.handle;
        let mut state = self.lock_state();
        let Lane { streams, .. } = state.lane(route, &self.edge.seed);
        let is_first = !self.has_streams.load(Ordering::Acquire);
        if is_first {
            // Without streams, the version that was enforced last is forgotten.
            let _ = streams.enforced_version(version);
        }
        let number = streams.add(admitted);
        if is_first {
            self.has_streams.store(true, Ordering::Release);
            self.enforced.store(version, Ordering::Release);
            self.set_beacon(Some(stream), thread);
        }
        number
    }

    /// Removes a stream, which must not be used afterwards.
    pub(crate) fn close(
        &self,
        route: Option<&Arc<Route>>,
        number: u64,
        stream: StreamId,
        thread: &WorkerThread<'_>,
    ) {
        let mut state = self.lock_state();
        state.lane(route, &self.edge.seed).streams.forget(number);
        state.ended.retain(|ended| ended.handle != stream);
        let is_beacon = self.lock_beacon().as_ref().is_none_or(|beacon| beacon.stream == stream);
        if is_beacon {
            let next = state.lanes().find_map(|lane| lane.streams.any_handle().copied());
            self.set_beacon(next, thread);
            self.has_streams.store(next.is_some() || !state.ended.is_empty(), Ordering::Release);
        }
    }

    /// Wakes the thread if it has open streams. Returns when to do so again.
    pub(crate) fn wake(&self) -> Period {
        let mut beacon = self.lock_beacon();
        if let Some(Beacon { wake, is_pending, .. }) = &mut *beacon
            && !std::mem::replace(is_pending, true)
        {
            wake.commit(CHECK_EVENT);
        }
        match (beacon.is_some(), self.is_ending.load(Ordering::Acquire)) {
            (false, _) => Period::Idle,
            (true, false) => Period::Streams,
            (true, true) => Period::Ending,
        }
    }

    /// Checks the open streams that are due. Those whose credential would be refused now get an event that ends them.
    pub(crate) fn check(&self, thread: &WorkerThread<'_>) {
        if let Some(beacon) = &mut *self.lock_beacon() {
            beacon.is_pending = false;
        }
        let (Some(now), Some(snapshot)) = (now_ms(), &*self.snapshot()) else { return };
        let mut state = self.lock_state();
        let State { listener, routes, ended, .. } = &mut *state;
        let lanes = routes.iter_mut().map(|(route, lane)| (route.gate(), lane));
        let mut has_more = false;
        for (gate, Lane { streams, .. }) in [(self.gate(), listener)].into_iter().chain(lanes) {
            let Checked { ended: refused, reported } =
                streams.check(gate, snapshot, now, StoredHeaders::decode);
            reported.into_iter().for_each(|reason| self.counters.count_reported(reason));
            self.counters.count_over_max(streams.take_over_max());
            for stream in &refused {
                match StreamWake::new(stream.handle, thread) {
                    Some(wake) => wake.commit(END_EVENT),
                    None => self.counters.count_end_failure(),
                }
            }
            ended.extend(refused);
            has_more |= streams.has_more_to_end();
        }
        // Configurations of routes that Envoy has destroyed.
        routes.retain(|(route, lane)| Arc::strong_count(route) > 1 || !lane.streams.is_empty());
        self.publish_enforcement(&mut state, snapshot);
        self.is_ending.store(has_more, Ordering::Release);
    }

    /// Returns why a stream that gets [`END_EVENT`] ends.
    pub(crate) fn take_ended(&self, stream: StreamId) -> Option<Ended<StreamId>> {
        let mut state = self.lock_state();
        let at = state.ended.iter().position(|ended| ended.handle == stream)?;
        let ended = state.ended.swap_remove(at);
        if let Some(snapshot) = &*self.snapshot() {
            self.publish_enforcement(&mut state, snapshot);
        }
        Some(ended)
    }

    /// Returns what the worker enforces, if the current version is `version`.
    pub(crate) fn enforcement(&self, version: u64) -> Enforcement {
        if self.has_streams.load(Ordering::Acquire) {
            let (enforced, kept) = (&self.enforced, &self.kept);
            Enforcement {
                version: enforced.load(Ordering::Acquire).min(version),
                kept_streams: kept.load(Ordering::Acquire),
            }
        } else {
            Enforcement { version, kept_streams: 0 }
        }
    }

    /// Counts a panic. What it may have left inconsistent is replaced.
    pub(crate) fn on_panic(&self) {
        self.counters.count_panic();
        drop(self.lock_state());
    }

    fn publish_enforcement(&self, state: &mut State, snapshot: &Snapshot) {
        let current = snapshot.manifest().version();
        let (mut version, mut kept) = (current, 0_u64);
        for Lane { streams, .. } in state.lanes() {
            version = version.min(streams.enforced_version(current).unwrap_or_default());
            kept = kept.saturating_add(u64::try_from(streams.kept()).unwrap_or(u64::MAX));
        }
        if !state.ended.is_empty() {
            version = version.min(self.enforced.load(Ordering::Acquire));
        }
        self.kept.store(kept, Ordering::Release);
        let before = self.enforced.swap(version, Ordering::AcqRel);
        if before != version {
            // The control plane waits for it.
            self.edge.wake.commit(TICK_EVENT);
        }
    }

    fn set_beacon(&self, stream: Option<StreamId>, thread: &WorkerThread<'_>) {
        let beacon = stream.and_then(|stream| {
            let wake = StreamWake::new(stream, thread)?;
            Some(Beacon { stream, wake, is_pending: false })
        });
        *self.lock_beacon() = beacon;
    }

    fn lock_beacon(&self) -> MutexGuard<'_, Option<Beacon>> {
        self.beacon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a panic, replaces what it may have left inconsistent. Open streams are kept: they must still end.
    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| {
            self.state.clear_poison();
            let mut state = poisoned.into_inner();
            state.listener.cache = Lane::new(&self.edge.gate, &self.edge.seed).cache;
            for (route, lane) in &mut state.routes {
                lane.cache = Lane::new(route.gate(), &self.edge.seed).cache;
            }
            state
        })
    }
}

/// The headers of a request, as [`OpenStreams`] keeps them until a stream is checked for the first time:
///
/// ```text
/// count * (name length u32, value length u32, name, value), little-endian
/// ```
pub(crate) struct StoredHeaders;

impl StoredHeaders {
    pub(crate) fn encode(headers: &Headers<'_>) -> Vec<u8> {
        let sizes = headers.iter().map(|(name, value)| name.len().saturating_add(value.len()));
        let mut bytes =
            Vec::with_capacity(sizes.fold(0, |sum, size| sum.saturating_add(size).saturating_add(8)));
        for (name, value) in headers {
            for length in [name.len(), value.len()] {
                bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
            }
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(value);
        }
        bytes
    }

    fn decode(mut bytes: &[u8]) -> Option<Vec<(&str, &[u8])>> {
        let mut headers = Vec::new();
        while let Some((lengths, rest)) = bytes.split_first_chunk::<8>() {
            let (lengths, _) = lengths.as_chunks();
            let [name, value] = *lengths else { return None };
            let (name, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(name)).ok()?)?;
            let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(value)).ok()?)?;
            headers.push((str::from_utf8(name).ok()?, value));
            bytes = rest;
        }
        bytes.is_empty().then_some(headers)
    }
}
