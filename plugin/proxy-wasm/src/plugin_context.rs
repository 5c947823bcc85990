//! One plugin context: its configuration, its ticks, and the worker that its streams share.

use std::{rc::Rc, sync::Arc};

use proxy_wasm::{
    traits::{Context, HttpContext, RootContext},
    types::{BufferType, ContextType},
};
use verdict::{
    Cache, Checked, Ended, Enforcement, Environment, Gate, InlineBundle, LogLine, OpenStreams, Policy,
    RefreshError, Snapshot, StalenessWatch,
};

use crate::{
    bundle_fetcher::{BundleFetcher, Trigger},
    filter::{HttpFilter, send_response},
    header_map,
    host_verifier::HostVerifier,
    hostcalls::{self, HostError, StreamEnd},
    log::{LogThrottle, error, info, warn},
    metrics::Metrics,
    tick_period::{TickPeriod, Work},
    wake_queue,
    worker::{Clock, Worker, WorkerCell},
};

pub(crate) struct PluginContext {
    /// The ID that the host gave this context.
    id: u32,
    worker: Rc<WorkerCell>,
    /// `None` if the configuration has the bundle in it.
    fetcher: Option<BundleFetcher>,
    freshness: StalenessWatch,
    end_failure_log: LogThrottle,
    /// `None` without a configuration, and on a host without timers.
    tick_period: Option<TickPeriod>,
}

/// The SDK drops the context when the host deletes it.
impl Drop for PluginContext {
    fn drop(&mut self) {
        if let Ok(mut worker) = self.worker.try_borrow_mut() {
            *worker = None;
        }
    }
}

impl Context for PluginContext {
    fn on_http_call_response(&mut self, call_id: u32, header_count: usize, _: usize, _: usize) {
        let Self { worker, fetcher, tick_period, .. } = self;
        // The SDK lets no response interrupt a request, so the worker is not in use.
        let Ok(mut worker) = worker.try_borrow_mut() else { return };
        let (Some(worker), Some(fetcher)) = (&mut *worker, fetcher) else { return };
        // A response without headers means that there is none: the call failed or timed out.
        fetcher.on_http_response(call_id, header_count != 0, &worker.metrics);
        install_snapshot(worker, fetcher);
        // Open streams are checked when the entry in this worker's queue, or the next tick, makes it run. Without any, the
        // version is enforced now.
        let now = hostcalls::now_ms().unwrap_or_default();
        fetcher.report_and_dispatch(now, enforcement(worker), &worker.metrics);
        if let Some(tick_period) = tick_period
            && fetcher.needs_ticks(now)
        {
            tick_period.update(Work::Pending, now);
        }
    }
}

impl RootContext for PluginContext {
    /// Returns false if the configuration is not valid, or if the host cannot do what it needs.
    fn on_configure(&mut self, _size: usize) -> bool {
        let json = hostcalls::buffer(BufferType::PluginConfiguration, usize::MAX).unwrap_or_default();
        let environment = Environment::from_block(hostcalls::environment());
        let policy = match Policy::from_json_with_env(&json, &environment) {
            Ok(policy) => policy,
            Err(problem) => {
                error(&format!("invalid plugin configuration at {problem}"));
                return false;
            }
        };
        if policy.has_inline_secrets() {
            warn(
                "the plugin configuration contains a secret, which the host's configuration dump shows; see \
                 `allow_inline_secrets` in the documentation for better places",
            );
        }
        self.start(policy, &json)
    }

    fn on_tick(&mut self) {
        self.run(Trigger::Tick);
    }

    /// Another worker has shared a bundle, or waits for this one. Entries are removed even without a configuration.
    fn on_queue_ready(&mut self, queue: u32) {
        let _ = wake_queue::empty(queue);
        if let Some(fetcher) = &mut self.fetcher {
            fetcher.on_queue_ready(queue);
        }
        self.run(Trigger::Wake);
    }

    fn create_http_context(&self, stream: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(HttpFilter::new(Rc::clone(&self.worker), StreamEnd::new(stream))))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl PluginContext {
    pub(crate) fn new(id: u32) -> Self {
        Self {
            id,
            worker: Rc::default(),
            fetcher: None,
            freshness: StalenessWatch::default(),
            end_failure_log: LogThrottle::default(),
            tick_period: None,
        }
    }

    /// Does what is due: loads what another worker has shared, ends streams, and fetches.
    fn run(&mut self, trigger: Trigger) {
        let Self { id, worker, fetcher, freshness, end_failure_log, tick_period } = self;
        // Without the worker, the host has interrupted a request. The next tick does the work of this one.
        let Ok(mut worker) = worker.try_borrow_mut() else { return };
        let Some(worker) = &mut *worker else { return };
        let now = hostcalls::now_ms();
        if let Clock::LastTick(time) = &mut worker.clock {
            *time = now;
        }
        let Some(now) = now else { return };
        if let Some(fetcher) = fetcher {
            fetcher.load_shared(trigger, &worker.metrics);
            install_snapshot(worker, fetcher);
        }
        if end_refused_streams(worker, *id, now, end_failure_log).is_err() {
            // Further calls would apply to a stream.
            return;
        }
        if let Some(fetcher) = fetcher {
            fetcher.report_missing_keys(&worker.gate, &mut worker.cache, now);
            fetcher.check_lease(now);
            fetcher.report_and_dispatch(now, enforcement(worker), &worker.metrics);
        }
        // The worker that fetches logs for all of them.
        if fetcher.as_ref().is_none_or(BundleFetcher::is_fetching) {
            log_freshness(freshness, worker, now);
        }
        if let Some(tick_period) = tick_period {
            let needs_ticks = fetcher.as_ref().is_some_and(|fetcher| fetcher.needs_ticks(now));
            tick_period.update(next_work(worker, trigger, tick_period, needs_ticks), now);
            if fetcher.is_some() {
                worker.clock = if tick_period.is_short() { Clock::LastTick(Some(now)) } else { Clock::Host };
            }
        }
        if trigger == Trigger::Tick {
            let Worker { snapshot, cache, verifier, metrics, .. } = worker;
            metrics.flush(snapshot.as_deref().map(Snapshot::manifest), cache, verifier, now);
        }
    }

    /// Replaces the configuration. Returns false, and leaves the context without one, if the host cannot do what the
    /// configuration needs.
    fn start(&mut self, mut policy: Policy, json: &[u8]) -> bool {
        let Ok(mut worker) = self.worker.try_borrow_mut() else { return false };
        // Streams of the previous configuration stay watched.
        let open_streams = worker.take().and_then(|previous| previous.open_streams);
        self.freshness = StalenessWatch::default();
        let started_at = hostcalls::now_ns().unwrap_or_default();
        let inline = policy.take_bundle().map(|inline| open_inline_bundle(&policy, &inline));
        self.fetcher =
            policy.take_control_plane().map(|source| BundleFetcher::new(&policy, source, started_at));
        // No client knows the seed: it is made of random bytes, if the host has any, and of secrets in the
        // configuration.
        let random = hostcalls::random().unwrap_or_default();
        let seed = [json, &started_at.to_le_bytes(), &random].concat();
        let cache = Cache::new(policy.cache_entries, &seed);
        let max_open_streams = policy.max_open_streams;
        let gate = Gate::new(policy);
        let metrics = Metrics::define(&gate);
        let clock = match self.fetcher {
            Some(_) => Clock::LastTick(hostcalls::now_ms()),
            None => Clock::Host,
        };
        let verifier = HostVerifier::default();
        let claim_log = LogThrottle::default();
        let mut new =
            Worker { gate, cache, verifier, snapshot: None, clock, metrics, claim_log, open_streams: None };
        if let Some(fetcher) = &mut self.fetcher {
            // A VM that replaces one that crashed finds its bundle in shared data.
            fetcher.load_shared(Trigger::Start, &new.metrics);
            install_snapshot(&mut new, fetcher);
        } else {
            let Some(snapshot) = inline.flatten() else { return false };
            info(&format!("enforcing bundle version {}", snapshot.manifest().version()));
            new.snapshot = Some(snapshot);
        }
        // Does nothing more before the first tick: this VM may exist only to validate the configuration.
        self.tick_period = TickPeriod::start(started_at.div_euclid(1_000_000)).ok();
        if self.tick_period.is_none() && self.fetcher.is_some() {
            error(
                "this host has no timers, so the bundle cannot be fetched: put it into the configuration as `bundle`",
            );
            return false;
        }
        if self.tick_period.is_some() {
            let mut open_streams = open_streams.unwrap_or_else(|| OpenStreams::new(max_open_streams));
            open_streams.set_max(max_open_streams);
            new.open_streams = Some(open_streams);
        } else {
            warn("this host has no timers, so a stream is not ended when its credential expires");
        }
        *worker = Some(new);
        true
    }
}

/// Returns what the next tick is for. Only a tick can count requests, because the counts begin with the previous one.
fn next_work(worker: &Worker, trigger: Trigger, tick_period: &TickPeriod, needs_ticks: bool) -> Work {
    let Worker { open_streams, metrics, .. } = worker;
    if open_streams.as_ref().is_some_and(OpenStreams::has_more_to_end) {
        Work::Ending
    } else if needs_ticks
        || open_streams.as_ref().is_some_and(|streams| !streams.is_empty())
        || trigger == Trigger::Tick && tick_period.is_busy_with(metrics.pending_requests())
    {
        Work::Pending
    } else {
        Work::Idle
    }
}

/// Makes the worker decide by the fetcher's current bundle.
fn install_snapshot(worker: &mut Worker, fetcher: &BundleFetcher) {
    let Some(current) = fetcher.current() else { return };
    let version = current.manifest().version();
    let previous = worker.snapshot.replace(Arc::clone(current));
    if previous.is_none_or(|previous| previous.manifest().version() != version) {
        info(&format!("enforcing bundle version {version}"));
    }
}

/// Returns the version that the worker enforces for requests and open streams, and the number of streams that a rule
/// keeps open although their credential is refused.
fn enforcement(worker: &mut Worker) -> Enforcement {
    let version = worker.snapshot.as_ref().map_or(0, |snapshot| snapshot.manifest().version());
    match &mut worker.open_streams {
        Some(streams) => Enforcement {
            version: streams.enforced_version(version).unwrap_or_default(),
            kept_streams: u64::try_from(streams.kept()).unwrap_or(u64::MAX),
        },
        None => Enforcement { version, kept_streams: 0 },
    }
}

/// Checks the open streams that are due, and ends those whose credential would be refused now. Returns an error if the
/// effective context is that of a stream afterwards.
fn end_refused_streams(
    worker: &mut Worker,
    plugin_context: u32,
    now: u64,
    failure_log: &mut LogThrottle,
) -> Result<(), HostError> {
    let Worker { gate, snapshot: Some(snapshot), metrics, open_streams: Some(streams), .. } = worker else {
        return Ok(());
    };
    let Checked { ended, reported } = streams.check(gate, snapshot, now, header_map::decode);
    reported.into_iter().for_each(|reason| metrics.count_reported(reason));
    metrics.count_over_max(streams.take_over_max());
    if ended.is_empty() {
        return Ok(());
    }
    for stream in ended {
        let reason = stream.refusal.reason();
        let (stream, host_error) = match stream.handle.make_effective() {
            Ok(()) => match end_stream(gate, stream) {
                Ok(()) => {
                    metrics.count_ended(reason);
                    continue;
                }
                Err((stream, host_error)) => (Some(stream), host_error),
            },
            // The host does not know the stream any more.
            Err(host_error @ HostError::BAD_ARGUMENT) => (None, host_error),
            Err(host_error) => (Some(stream), host_error),
        };
        metrics.count_end_failure();
        if failure_log.allow(now) {
            error(&format!("the host did not end a stream whose credential is refused ({host_error})"));
        }
        if let Some(stream) = stream {
            streams.put_back(stream);
        }
    }
    hostcalls::set_effective_context(plugin_context)
}

/// Answers the request, or resets the stream if its response has begun. The stream is the effective context.
#[expect(
    clippy::result_large_err,
    reason = "a host fails here seldom, and the stream is needed for another attempt"
)]
fn end_stream(gate: &Gate, mut stream: Ended<StreamEnd>) -> Result<(), (Ended<StreamEnd>, HostError)> {
    for (name, value) in stream.filter_state() {
        // Filter state is for the access log only.
        let _ = hostcalls::set_property(name, value.as_bytes());
    }
    let response = stream.response(gate);
    match send_response(stream.handle, &response, stream.refusal.reason(), "keystile_ended_") {
        Ok(()) => Ok(()),
        Err((handle, error)) => {
            stream.handle = handle;
            Err((stream, error))
        }
    }
}

/// Logs when a policy for an unreachable control plane begins and ceases to apply.
fn log_freshness(freshness: &mut StalenessWatch, worker: &Worker, now: u64) {
    let Some(snapshot) = worker.snapshot.as_deref() else { return };
    for line in freshness.observe(&worker.gate, snapshot, now) {
        match line {
            LogLine::Info(text) => info(&text),
            LogLine::Warning(text) => warn(&text),
            LogLine::Error(text) => error(&text),
        }
    }
}

/// Verifies the bundle of the configuration like one that was fetched. Logs why it is refused.
fn open_inline_bundle(policy: &Policy, inline: &InlineBundle) -> Option<Arc<Snapshot>> {
    let opened = policy.open_bundle(inline, hostcalls::now_ms().unwrap_or_default());
    let log = |failure: &RefreshError| {
        error(&format!("the `bundle` of the configuration is refused: {failure} ({})", failure.code()));
    };
    opened.inspect_err(log).ok()
}
