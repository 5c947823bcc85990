//! One configuration: its worker threads, and what is due on the main thread.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use verdict::{Gate, InlineBundle, LogLine, Policy, RefreshError, Snapshot, StalenessWatch};

use crate::{
    abi::{Main, Stream},
    filter::Filter,
    log::{error, info, warn},
    metrics::{Counters, Metrics},
    source::{PluginId, Source, environment, now_ms, random},
    worker::{Edge, Routing, TICK_EVENT, Worker},
};

/// The number of the next configuration.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

pub(crate) struct Plugin {
    id: PluginId,
    edge: Arc<Edge>,
    workers: Vec<Arc<Worker>>,
    /// The counters of the main thread.
    counters: Counters,
    state: Mutex<MainState>,
}

/// What only the main thread uses.
struct MainState {
    metrics: Metrics,
    freshness: StalenessWatch,
}

// Implemented by hand so that no secret is printed.
impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plugin(..)")
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.edge.source.leave(self.id);
    }
}

impl Plugin {
    /// Returns `None`, and logs why, if the configuration is not valid. Starts nothing before the first event, because the
    /// configuration may only be validated.
    pub(crate) fn new(main: &Main<'_>, filter_name: &[u8], json: &[u8]) -> Option<Self> {
        let Some(routing) = Routing::from_filter_name(filter_name) else {
            error(
                "invalid `filter_name`: the module has the filters `keystile` and `keystile_route_by_identity`",
            );
            return None;
        };
        let mut policy = match Policy::from_json_with_env(json, &environment()) {
            Ok(policy) => policy,
            Err(problem) => {
                error(&format!("invalid plugin configuration at {problem}"));
                return None;
            }
        };
        if policy.has_inline_secrets() {
            warn(
                "the plugin configuration contains a secret, which the host's configuration dump shows; see \
                 `allow_inline_secrets` in the documentation for better places",
            );
        }
        let source = match (policy.take_bundle(), policy.take_control_plane()) {
            (Some(bundle), _) => Source::inline(open_inline_bundle(&policy, &bundle)?),
            (None, Some(control_plane)) => Source::find_or_create(&policy, control_plane),
            // The policy has one of them.
            (None, None) => return None,
        };
        if let Some(snapshot) = &*source.snapshot() {
            info(&format!("enforcing bundle version {}", snapshot.manifest().version()));
        }
        // Clients that could predict the hash of caches could choose credentials with the same hash.
        let Some(seed) = random() else {
            error("the system has no random numbers");
            return None;
        };
        let metrics = Metrics::define(main);
        let edge = Arc::new(Edge::new(Gate::new(policy), routing, source, main.wake()?, seed));
        let workers: Vec<Arc<Worker>> =
            (0..main.concurrency()).map(|index| Arc::new(Worker::new(Arc::clone(&edge), index))).collect();
        edge.source.join(&edge, &workers);
        edge.wake.commit(TICK_EVENT);
        Some(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            edge,
            workers,
            counters: Counters::new(),
            state: Mutex::new(MainState { metrics, freshness: StalenessWatch::default() }),
        })
    }

    /// Returns the filter of a new stream, or `None` if its thread is not one of the workers.
    pub(crate) fn filter(&self, stream: &Stream<'_>) -> Option<Filter> {
        let index = usize::try_from(stream.worker_index()).ok()?;
        Some(Filter::new(Arc::clone(self.workers.get(index)?), stream.id()))
    }

    /// Does what is due on the main thread.
    pub(crate) fn on_scheduled(&self, main: &Main<'_>) {
        let Some(now) = now_ms() else { return };
        let source = &self.edge.source;
        source.start_timer();
        source.on_tick(self.id, main, &self.counters, now);
        let snapshot = source.snapshot();
        let snapshot = snapshot.as_deref();
        let mut state = self.lock_state();
        if source.is_leader(self.id)
            && let Some(snapshot) = snapshot
        {
            log_freshness(&mut state.freshness, &self.edge.gate, snapshot, now);
        }
        let threads = self.workers.iter().map(|worker| &worker.counters).chain([&self.counters]);
        state.metrics.flush(main, threads, snapshot.map(Snapshot::manifest), now);
    }

    /// Handles the response to a request of this configuration.
    pub(crate) fn on_http_response(&self, main: &Main<'_>, id: u64, status: u16, chunks: &[&[u8]]) {
        self.edge.source.on_http_response(main, &self.counters, id, status, chunks);
    }

    /// Counts a panic of a hook on the main thread.
    pub(crate) fn on_panic(&self) {
        self.counters.count_panic();
    }

    fn lock_state(&self) -> MutexGuard<'_, MainState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs when a policy for an unreachable control plane begins and ceases to apply.
fn log_freshness(freshness: &mut StalenessWatch, gate: &Gate, snapshot: &Snapshot, now: u64) {
    for line in freshness.observe(gate, snapshot, now) {
        match line {
            LogLine::Info(text) => info(&text),
            LogLine::Warning(text) => warn(&text),
            LogLine::Error(text) => error(&text),
        }
    }
}

/// Verifies the bundle of the configuration like one that was fetched. Logs why it is refused.
fn open_inline_bundle(policy: &Policy, inline: &InlineBundle) -> Option<Arc<Snapshot>> {
    let opened = policy.open_bundle(inline, now_ms().unwrap_or_default());
    let log = |failure: &RefreshError| {
        error(&format!("the `bundle` of the configuration is refused: {failure} ({})", failure.code()));
    };
    opened.inspect_err(log).ok()
}
