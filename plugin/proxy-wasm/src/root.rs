//! One worker: its configuration and its ticks.

use alloc::{format, sync::Arc};

use verdict::{Cache, Carried, Gate, Line, Policy, Progress, Refresh, Snapshot, Watch};

use crate::{
    abi,
    feed::Feed,
    log::{error, info, warn},
    metrics::Metrics,
    verifier::HostVerifier,
    worker::{Clock, Worker},
};

pub(crate) struct Root {
    worker: Worker,
    /// None where the bundle came with the configuration.
    feed: Option<Feed>,
    watch: Watch,
}

impl Root {
    /// None where the host cannot do what the configuration needs.
    pub(crate) fn new(mut policy: Policy, configuration: &[u8]) -> Option<Self> {
        let me = abi::current_time().unwrap_or_default();
        let carried = policy.bundle.take().map(|carried| open(&policy, &carried));
        let feed = policy.control_plane.take().map(|from| Feed::new(&policy, from, me));
        // What no client can know: random bytes, where the host has some, and secrets of the configuration.
        let random = abi::random().unwrap_or_default();
        let seed = [configuration, &me.to_le_bytes(), &random].concat();
        let cache = Cache::new(policy.cache_entries, &seed);
        let gate = Gate::new(policy);
        let metrics = Metrics::define(&gate);
        let verifier = HostVerifier::default();
        let clock = if feed.is_some() { Clock::Ticks(abi::now()) } else { Clock::Requests };
        let worker = Worker { gate, cache, verifier, snapshot: None, clock, metrics };
        let mut root = Self { worker, feed, watch: Watch::default() };
        match &mut root.feed {
            // A VM that comes back from a crash finds its bundle here.
            Some(feed) => feed.follow(),
            None => root.worker.snapshot = Some(carried??),
        }
        root.swap();
        // Nothing more yet: this may be a VM that only tries the configuration out.
        if abi::set_tick_period(TICK_MS).is_err() && root.feed.is_some() {
            error("this host has no timers, so that nothing can be fetched: give it a `bundle`");
            return None;
        }
        Some(root)
    }

    pub(crate) const fn worker(&mut self) -> &mut Worker {
        &mut self.worker
    }

    /// Takes the answer to a call, or that there is none.
    pub(crate) fn answered(&mut self, token: u32, answered: bool) {
        if let Some(feed) = &mut self.feed {
            feed.answered(token, answered, &self.worker.metrics);
        }
        self.swap();
    }

    pub(crate) fn tick(&mut self) {
        let now = abi::now();
        if let Clock::Ticks(last) = &mut self.worker.clock {
            *last = now;
        }
        let Some(now) = now else { return };
        if let Some(feed) = &mut self.feed {
            feed.tick(now, &self.worker.metrics);
        }
        self.swap();
        self.watch_freshness(now);
        let Worker { snapshot, cache, verifier, metrics, .. } = &mut self.worker;
        metrics.flush(snapshot.as_deref().map(Snapshot::manifest), cache, verifier, now);
    }

    /// Requests are decided by what the feed holds.
    fn swap(&mut self) {
        let Some(new) = self.feed.as_ref().and_then(Feed::current) else { return };
        let version = new.manifest().version();
        let old = self.worker.snapshot.replace(Arc::clone(new));
        if old.is_none_or(|old| old.manifest().version() != version) {
            info(&format!("enforcing bundle version {version}"));
        }
    }

    /// Says when a policy for a silent control plane starts and ends; one worker speaks for all.
    fn watch_freshness(&mut self, now: u64) {
        let speaks = self.feed.as_ref().is_none_or(Feed::fetches);
        let Some(snapshot) = self.worker.snapshot.as_deref().filter(|_| speaks) else { return };
        for line in self.watch.handle(&self.worker.gate, snapshot, now) {
            match line {
                Line::Info(text) => info(&text),
                Line::Warning(text) => warn(&text),
                Line::Error(text) => error(&text),
            }
        }
    }
}

/// A bundle in the configuration is as good as one that was fetched, or the configuration is refused.
fn open(policy: &Policy, carried: &Carried) -> Option<Arc<Snapshot>> {
    let lifetime = policy.max_manifest_lifetime_seconds;
    let (roots, audience) = (policy.root_keys.clone(), policy.audience.clone());
    let mut refresh = Refresh::new(roots, audience, 0, lifetime, policy.floor());
    let now = abi::now().unwrap_or_default();
    let mut step =
        || refresh.handle_shared(carried.manifest(), now, |entry| carried.object(entry).map(Into::into));
    // All of it at once: no request waits yet.
    let mut progress = step();
    while progress == Ok(Progress::More) {
        progress = step();
    }
    match progress {
        Ok(_) => refresh.current().cloned(),
        Err(failure) => {
            error(&format!("the `bundle` of the configuration is refused: {failure} ({})", failure.code()));
            None
        }
    }
}

/// How soon a worker sees what another has fetched. At 40 ticks a second, two host calls each, it costs some 0.02 % of
/// a core.
const TICK_MS: u32 = 25;
