//! One worker: its configuration, its ticks, its calls to the control plane.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, UNIX_EPOCH},
};

use log::{error, info, warn};
use proxy_wasm::{
    hostcalls,
    traits::{Context, HttpContext, RootContext},
    types::ContextType,
};
use verdict::{Call, Freshness, Gate, LEASE_RENEWAL_MS, Policy, Refresh, Step};

use crate::{
    filter::Filter,
    metrics::Metrics,
    sharing::{Sharing, Stamp},
    worker::Worker,
};

/// Empty until it is configured.
#[derive(Default)]
pub(crate) struct Root {
    configured: Option<Configured>,
}

struct Configured {
    worker: Rc<Worker>,
    sharing: Sharing,
    refresh: Refresh,
    calls: BTreeMap<u32, Call>,
    /// Tells this worker from the others of the process.
    me: u64,
    leads: bool,
    lease_due: u64,
    seen: Option<Stamp>,
    freshness: Freshness,
    warned_at: u64,
}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let json = self.get_plugin_configuration().unwrap_or_default();
        match Policy::from_json(&json) {
            Ok(policy) => {
                let mut configured = Configured::new(policy);
                // A VM that comes back from a crash finds its bundle here.
                configured.follow();
                self.configured = Some(configured);
                // Nothing more yet: this may be a VM that only tries the configuration out.
                self.set_tick_period(TICK);
                true
            }
            Err(error) => {
                error!("keystile: the plugin configuration is wrong at {error}");
                false
            }
        }
    }

    fn on_tick(&mut self) {
        if let Some(configured) = &mut self.configured {
            configured.tick();
        }
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        let configured = self.configured.as_ref()?;
        Some(Box::new(Filter::new(Rc::clone(&configured.worker))))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, headers: usize, _: usize, _: usize) {
        let Some(configured) = &mut self.configured else { return };
        let Some(call) = configured.calls.remove(&token) else { return };
        // No headers mean no answer.
        let status = if headers == 0 { 0 } else { answered_status() };
        let body =
            hostcalls::get_buffer(proxy_wasm::types::BufferType::HttpCallResponseBody, 0, call.max_bytes());
        configured.answered(call, status, body.ok().flatten().unwrap_or_default());
    }
}

impl Configured {
    fn new(policy: Policy) -> Self {
        let (nanos, now) = clock();
        let sharing = Sharing::new(&policy);
        let refresh = Refresh::new(
            policy.publisher_keys.clone(),
            policy.audience.clone(),
            policy.control_plane.wait_seconds,
        );
        let worker = Rc::new(Worker {
            gate: Gate::new(policy),
            snapshot: RefCell::default(),
            now: Cell::new(now),
            metrics: Metrics::define(),
        });
        Self {
            worker,
            sharing,
            refresh,
            calls: BTreeMap::new(),
            me: nanos,
            leads: false,
            lease_due: 0,
            seen: None,
            freshness: Freshness::Fresh,
            warned_at: 0,
        }
    }

    fn tick(&mut self) {
        let (_, now) = clock();
        self.worker.now.set(now);
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
        self.ask();
        self.watch_freshness();
        let snapshot = self.worker.snapshot.borrow();
        self.worker.metrics.flush(snapshot.as_deref().map(|snapshot| snapshot.manifest()), now);
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
                warn!("keystile: what the leading worker shared is refused: {failure} ({})", failure.code());
            }
        }
    }

    /// Makes the calls that are due.
    fn ask(&mut self) {
        while let Some(call) = self.leads.then(|| self.refresh.poll(self.worker.now.get())).flatten() {
            match self.dispatch(call) {
                Some(token) => {
                    self.calls.insert(token, call);
                }
                None => self.answered(call, 0, Vec::new()),
            }
        }
    }

    fn dispatch(&self, call: Call) -> Option<u32> {
        let control_plane = &self.worker.gate.policy().control_plane;
        let (path, etag) = (call.path(), call.etag());
        let prefer = format!("wait={}", call.wait_seconds());
        let authorization = ["Bearer ", control_plane.credential.expose()].concat();
        let mut headers = vec![
            (":method", "GET"),
            (":path", path.as_str()),
            (":authority", control_plane.authority.as_str()),
            ("authorization", authorization.as_str()),
            ("prefer", prefer.as_str()),
        ];
        headers.extend(etag.as_deref().map(|etag| ("if-none-match", etag)));
        let timeout = Duration::from_secs(call.wait_seconds()).saturating_add(ANSWER_WITHIN);
        hostcalls::dispatch_http_call(&control_plane.cluster, headers, None, Vec::new(), timeout).ok()
    }

    fn answered(&mut self, call: Call, status: u16, body: Vec<u8>) {
        let (nanos, now) = clock();
        match self.refresh.handle_answer(call, status, body, now, nanos ^ self.me) {
            Ok(Step::Pending) => {}
            Ok(Step::Ready(objects)) => {
                let stamp = self.refresh.current().map(|new| self.sharing.publish(new.manifest(), &objects));
                self.swap(stamp);
            }
            Err(failure) => {
                self.worker.metrics.refresh_failed();
                warn!("keystile: refresh failed, what is held is kept: {failure} ({})", failure.code());
            }
        }
        self.ask();
    }

    fn swap(&mut self, stamp: Option<Stamp>) {
        self.seen = stamp;
        let new = self.refresh.current().cloned();
        let old = self.worker.snapshot.replace(new.clone());
        let version = |of: Option<&verdict::Snapshot>| of.map(|snapshot| snapshot.manifest().version());
        if version(old.as_deref()) != version(new.as_deref()) {
            info!("keystile: enforcing bundle version {}", version(new.as_deref()).unwrap_or_default());
        }
    }

    /// Says when the bundle goes stale, once a minute while it is, and when that is over; one worker speaks for all.
    fn watch_freshness(&mut self) {
        if !self.leads {
            return;
        }
        let now = self.worker.now.get();
        let snapshot = self.worker.snapshot.borrow();
        let Some(snapshot) = snapshot.as_deref() else { return };
        let freshness = self.worker.gate.freshness(snapshot, now);
        let silent = now.saturating_sub(snapshot.manifest().issued_at()).div_euclid(1000);
        let due = now.saturating_sub(self.warned_at) >= WARN_EVERY_MS;
        match freshness {
            Freshness::Fresh if self.freshness != Freshness::Fresh => {
                info!("keystile: the bundle is fresh again")
            }
            Freshness::Stale if due || self.freshness != freshness => {
                self.warned_at = now;
                warn!(
                    "keystile: no fresh bundle for {silent} s; going on with the last one until outage_grace ends"
                );
            }
            Freshness::Expired if due || self.freshness != freshness => {
                self.warned_at = now;
                error!(
                    "keystile: no fresh bundle for {silent} s and outage_grace has ended; refusing everything"
                );
            }
            _ => {}
        }
        self.freshness = freshness;
    }
}

/// Nanoseconds and milliseconds since the Unix epoch.
fn clock() -> (u64, u64) {
    let elapsed = hostcalls::get_current_time().ok().and_then(|now| now.duration_since(UNIX_EPOCH).ok());
    let elapsed = elapsed.unwrap_or_default();
    (
        u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX),
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
    )
}

fn answered_status() -> u16 {
    let map = proxy_wasm::types::MapType::HttpCallResponseHeaders;
    let status = hostcalls::get_map_value_bytes(map, ":status").ok().flatten().unwrap_or_default();
    str::from_utf8(&status).ok().and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// How soon a worker sees what another has fetched. At 40 ticks a second, two host calls each, it costs some 0.02 % of
/// a core.
const TICK: Duration = Duration::from_millis(25);

/// For an answer to come, beyond the time that the control plane may hold the request.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

const WARN_EVERY_MS: u64 = 60_000;
