//! Where the bundle comes from: the control plane, asked by the worker that leads, and shared data for the others.

use alloc::{
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

use verdict::{
    Call, ControlPlane, FLEET_STATUS, Failure, FleetStatus, LEASE_RENEWAL_MS, Policy, Progress, Refresh,
    SIGN_OF_LIFE_MS, Snapshot, Step,
};

use crate::{
    abi::{self, Buffer, HostError, Map},
    log::warn,
    metrics::Metrics,
    pairs,
    sharing::{Sharing, Stamp, stamp_of},
};

pub(crate) struct Feed {
    control_plane: ControlPlane,
    sharing: Sharing,
    refresh: Refresh,
    /// Under way, by the tokens that the host gave them.
    calls: Vec<(u32, Call)>,
    /// Tells this worker from the others of the process.
    me: u64,
    leads: bool,
    lease_due: u64,
    seen: Option<Stamp>,
    /// Since when what is shared does not belong together.
    torn_since: Option<u64>,
    /// How long it may be so: longer each time, as whoever mends it may have much to fetch.
    torn_patience_ms: u64,
    /// Whether this worker, which leads, is fetching all of it to share it again.
    mending: bool,
    /// When it last began to, and how long until it may again: another filter may overwrite it all the time.
    mended_at: u64,
    mend_pause_ms: u64,
    /// Whether this worker fetches for itself, whoever has the lease: see [`Feed::go_alone`].
    alone: bool,
    /// Until when it does not ask, where it is alone and has asked in vain.
    alone_until: u64,
    /// The time of the first tick.
    started_at: Option<u64>,
    /// When the log last said that what is shared is refused.
    refused_at: u64,
    /// When it last said that a refresh failed.
    failure_at: u64,
    /// The version that the others know this worker to enforce, and when they were told.
    told: (u64, u64),
    /// Until when the leader waits for the others before it asks again.
    held_until: u64,
}

impl Feed {
    pub(crate) fn new(policy: &Policy, control_plane: ControlPlane, me: u64) -> Self {
        let wait_seconds = control_plane.wait_seconds;
        let sharing = Sharing::new(policy, &control_plane.cluster);
        Self {
            me: sharing.member(me),
            sharing,
            control_plane,
            refresh: Refresh::new(
                policy.root_keys.clone(),
                policy.audience.clone(),
                wait_seconds,
                policy.max_manifest_lifetime_seconds,
                policy.floor(),
            ),
            calls: Vec::new(),
            leads: false,
            lease_due: 0,
            seen: None,
            torn_since: None,
            torn_patience_ms: TORN_MS,
            mending: false,
            mended_at: 0,
            mend_pause_ms: TORN_MS,
            alone: false,
            alone_until: 0,
            started_at: None,
            refused_at: 0,
            failure_at: 0,
            told: (0, 0),
            held_until: 0,
        }
    }

    pub(crate) fn current(&self) -> Option<&Arc<Snapshot>> {
        self.refresh.current()
    }

    /// Whether this worker fetches, so that it knows what there is to say.
    pub(crate) const fn fetches(&self) -> bool {
        self.leads || self.alone
    }

    pub(crate) fn tick(&mut self, now: u64, metrics: &Metrics) {
        self.follow();
        if now >= self.lease_due || self.lease_due.saturating_sub(now) > LEASE_RENEWAL_MS {
            self.lease_due = now.saturating_add(LEASE_RENEWAL_MS);
            let leads = self.sharing.lead(self.me, now);
            self.lead(leads);
        }
        self.go_alone(now);
        self.mend(now);
        self.tell(now);
        self.ask(now, metrics);
    }

    /// Takes the answer to a call, or that there is none.
    pub(crate) fn answered(&mut self, token: u32, answered: bool, metrics: &Metrics) {
        let Some(place) = self.calls.iter().position(|(under_way, _)| *under_way == token) else { return };
        let (_, call) = self.calls.swap_remove(place);
        let status = if answered { status() } else { 0 };
        // An error has a text of its own, whatever was asked for.
        let max_bytes = if status == 200 { call.max_bytes() } else { MAX_ERROR_BYTES };
        let body = abi::buffer(Buffer::CallResponseBody, max_bytes);
        self.take(call, Ok(status), body.unwrap_or_default(), metrics);
    }

    /// Takes what the leader has shared since the last look, or some of it.
    pub(crate) fn follow(&mut self) {
        let stamp = self.sharing.stamp();
        if stamp.is_none() || stamp == self.seen {
            self.whole();
            return;
        }
        let Some(manifest) = self.sharing.manifest() else { return };
        let now = abi::now().unwrap_or_default();
        let mut step = || self.refresh.handle_shared(&manifest, now, |entry| self.sharing.object(entry));
        let mut progress = step();
        for _ in 1..STEPS_PER_TICK {
            if progress == Ok(Progress::More) {
                progress = step();
            }
        }
        match progress {
            Ok(Progress::More) => {}
            Ok(Progress::Done) => {
                self.seen = stamp;
                self.mending = false;
                self.whole();
                if self.alone && stamp == self.current().map(|held| stamp_of(held.manifest())) {
                    // Somebody shares what is as new as this: there is a leader again.
                    self.alone = false;
                    if !self.leads {
                        self.give_up();
                    }
                }
            }
            // The leader is in the middle of writing the next one: look again at the next tick.
            Err(Failure::Incomplete(_) | Failure::Object(_)) => {
                self.torn_since.get_or_insert(now);
            }
            Err(failure) => {
                self.seen = stamp;
                self.whole();
                if now.abs_diff(self.refused_at) >= SAID_EVERY_MS {
                    self.refused_at = now;
                    let code = failure.code();
                    warn(&format!("what the leading worker shared is refused: {failure} ({code})"));
                }
            }
        }
    }

    fn whole(&mut self) {
        self.torn_since = None;
        self.torn_patience_ms = TORN_MS;
    }

    fn lead(&mut self, leads: bool) {
        if self.leads && !leads && !self.alone {
            self.give_up();
        }
        self.leads = leads;
    }

    fn give_up(&mut self) {
        self.refresh.stand_down();
        self.calls.clear();
        self.mending = false;
    }

    /// Fetches for itself, and shares nothing, where nothing newer was shared for half the life of what is held. Shared
    /// data belongs to every filter with the same `vm_id`: one that keeps the lease, or overwrites what is shared, must
    /// not keep this worker from hearing of revocations.
    fn go_alone(&mut self, now: u64) {
        let started_at = *self.started_at.get_or_insert(now);
        let due = self.current().map_or(started_at.saturating_add(FIRST_BUNDLE_MS), |held| held.half_life());
        // Not all workers at once: the leader may only be slow.
        if self.fetches() || now < due.saturating_add(self.me % SPREAD_MS) {
            return;
        }
        warn("no other worker shares a newer bundle: this one fetches for itself");
        self.alone = true;
        self.alone_until = 0;
    }

    /// Between two requests of a worker that is alone: were the control plane away, all workers would ask.
    fn alone_pause_ms(&self) -> u64 {
        let half = self.current().map_or(0, |held| held.expires_at().saturating_sub(held.half_life()));
        let pause = half.div_euclid(3).clamp(MIN_ALONE_PAUSE_MS, MAX_ALONE_PAUSE_MS);
        pause.saturating_add(self.me % SPREAD_MS)
    }

    /// Whether nobody else has come to lead meanwhile: this worker may have been held up for longer than its lease.
    fn leads_still(&mut self, now: u64) -> bool {
        let leads = self.leads && self.sharing.lead(self.me, now);
        self.lead(leads);
        leads
    }

    /// Has all of it shared again where the others can't take it: the leader, when what is shared is not what it holds;
    /// and any worker, by leading itself, when what is shared has not belonged together for too long.
    fn mend(&mut self, now: u64) {
        let patience = self.torn_patience_ms.saturating_add(self.me % SPREAD_MS);
        if self.torn_since.is_some_and(|since| now.abs_diff(since) >= patience)
            && !(self.leads && self.mending)
        {
            self.torn_since = Some(now);
            self.torn_patience_ms = self.torn_patience_ms.saturating_mul(2);
            let leads = self.sharing.seize(self.me, now);
            self.lead(leads);
            self.mending = false;
        } else if self.seen.is_none() || self.seen == self.current().map(|held| stamp_of(held.manifest())) {
            return;
        }
        if self.leads && !self.mending && now.abs_diff(self.mended_at) >= self.mend_pause_ms {
            let is_calm = now.abs_diff(self.mended_at) >= MAX_MEND_PAUSE_MS.saturating_mul(2);
            let longer = self.mend_pause_ms.saturating_mul(2).min(MAX_MEND_PAUSE_MS);
            self.mend_pause_ms = if is_calm { TORN_MS } else { longer };
            self.mended_at = now;
            self.mending = true;
            warn("what the workers share is not what is held: all of it is fetched again");
            self.calls.clear();
            self.refresh.share_anew();
        }
    }

    /// Tells the others what this worker enforces: at once when it changes, else as a sign of life.
    fn tell(&mut self, now: u64) {
        let (version, at) = self.told;
        let current = self.version();
        if (version != current || now.abs_diff(at) >= SIGN_OF_LIFE_MS)
            && self.sharing.tell(self.me, current, now)
        {
            self.told = (current, now);
        }
    }

    fn version(&self) -> u64 {
        self.current().map_or(0, |held| held.manifest().version())
    }

    fn fleet(&self, now: u64) -> FleetStatus {
        self.sharing.fleet().status(self.me, self.version(), now)
    }

    /// Makes the calls that are due.
    fn ask(&mut self, now: u64, metrics: &Metrics) {
        let held = self.held_until.saturating_sub(now);
        if !self.fetches() || (1..=HOLD_MS).contains(&held) && self.fleet(now).lagging > 0 {
            return;
        }
        let pause = self.alone_until.saturating_sub(now);
        if !self.leads && (1..=MAX_ALONE_PAUSE_MS.saturating_add(SPREAD_MS)).contains(&pause) {
            return;
        }
        while let Some(call) = self.refresh.poll(now) {
            match self.dispatch(call, now) {
                Ok(token) => self.calls.push((token, call)),
                // Until the next tick: were the clock to fail as well, the back-off would be over at once, for ever.
                Err(error) => return self.take(call, Err(error), Vec::new(), metrics),
            }
        }
    }

    fn dispatch(&self, call: Call, now: u64) -> Result<u32, HostError> {
        let ControlPlane { cluster, authority, credential, .. } = &self.control_plane;
        let (path, etag) = (call.path(), call.etag());
        let prefer = format!("wait={}", call.wait_seconds());
        let authorization = credential.as_ref().map(|credential| ["Bearer ", credential.expose()].concat());
        let status = matches!(call, Call::Manifest { .. }).then(|| self.fleet(now).to_string());
        let mut headers = Vec::from([
            (":method", "GET"),
            (":path", path.as_str()),
            (":authority", authority.as_str()),
            ("prefer", prefer.as_str()),
        ]);
        headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
        headers.extend(etag.as_deref().map(|etag| ("if-none-match", etag)));
        headers.extend(status.as_deref().map(|status| (FLEET_STATUS, status)));
        let headers = pairs::write(headers.iter().map(|(name, value)| (*name, value.as_bytes())));
        let wait = u32::try_from(call.wait_seconds()).unwrap_or(u32::MAX);
        let timeout_ms = wait.saturating_mul(1000).saturating_add(ANSWER_WITHIN_MS);
        abi::http_call(cluster, &headers, timeout_ms)
    }

    /// Takes an answer: its status, 0 where there was none, or why the host did not even send the request.
    fn take(&mut self, call: Call, status: Result<u16, HostError>, body: Vec<u8>, metrics: &Metrics) {
        let nanos = abi::current_time().unwrap_or_default();
        let now = nanos.div_euclid(1_000_000);
        let code = status.unwrap_or_default();
        let outcome = self.refresh.handle_answer(call, code, body, now, nanos ^ self.me);
        let in_vain = code == NOT_MODIFIED && call.wait_seconds() == 0;
        if outcome.is_err() || in_vain {
            self.alone_until = now.saturating_add(self.alone_pause_ms());
        }
        match outcome {
            Ok(Step::Pending) => {}
            // Another leads now: what it shares is not to be mixed with this.
            Ok(Step::Share(_) | Step::Ready(_)) if !self.leads_still(now) => {}
            Ok(Step::Share(objects)) => self.sharing.put(&objects),
            Ok(Step::Ready(objects)) => {
                self.mending = false;
                self.alone = false;
                self.whole();
                self.seen = self.refresh.current().map(|new| self.sharing.publish(new.manifest(), &objects));
                self.held_until = now.saturating_add(HOLD_MS);
                self.tell(now);
            }
            Err(failure) => {
                metrics.refresh_failed();
                // While the control plane is away every worker asks: the leader says each failure, the others some.
                if !self.leads && now.abs_diff(self.failure_at) < SAID_EVERY_MS {
                    return self.ask(now, metrics);
                }
                self.failure_at = now;
                let ControlPlane { cluster, credential, .. } = &self.control_plane;
                let hint = hint_of(status, cluster, credential.is_some());
                warn(&format!("refresh failed, what is held is kept: {failure} ({}){hint}", failure.code()));
            }
        }
        self.ask(now, metrics);
    }
}

/// What to look at where a request was not sent, or not with a good credential.
fn hint_of(status: Result<u16, HostError>, cluster: &str, holds_credential: bool) -> String {
    match status {
        Err(error @ HostError::BAD_ARGUMENT) => {
            format!("; the host refused to send it ({error}): is there a cluster `{cluster}`?")
        }
        Err(error) => format!(
            "; the host did not send it ({error}): where it adds the edge credential, as Envoy's `credential_injector` \
             does, is the file with the secret there, and may the host read it?"
        ),
        Ok(401) if holds_credential => {
            "; the edge credential is wrong, or was removed or replaced: `keystile edge \
             rotate` makes another"
                .into()
        }
        Ok(401) => format!(
            "; the host adds no edge credential to requests for the cluster `{cluster}`, or one that is wrong, or was \
             removed or replaced: `keystile edge rotate` makes another"
        ),
        Ok(_) => String::new(),
    }
}

fn status() -> u16 {
    let status = abi::header(Map::CallResponseHeaders, ":status").unwrap_or_default();
    core::str::from_utf8(&status).ok().and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// What the control plane says of an error takes some hundred bytes.
const MAX_ERROR_BYTES: usize = 4096;

/// For an answer to come, beyond the time that the control plane may hold the request.
const ANSWER_WITHIN_MS: u32 = 5000;

/// Two ticks: by then the other workers have seen what was fetched, and one request tells of all of them.
const HOLD_MS: u64 = 50;

/// Three leases: whoever leads has written the rest by then, or will not.
const TORN_MS: u64 = 3000;

/// So that not all workers begin to mend at once: the first is done before most others try.
const SPREAD_MS: u64 = 2000;

/// All of it is fetched again each time.
const MAX_MEND_PAUSE_MS: u64 = 300_000;

/// A leader has fetched the first bundle by then, or there is none.
const FIRST_BUNDLE_MS: u64 = 5000;

const MIN_ALONE_PAUSE_MS: u64 = 1000;

/// A sixth of the lifetime of a manifest: twice more before it is over.
const MAX_ALONE_PAUSE_MS: u64 = 10_000;

const SAID_EVERY_MS: u64 = 60_000;

const NOT_MODIFIED: u16 = 304;

/// 64 KiB are hashed in each, 0.4 ms: a worker that takes over a base of 6 MB lets requests through in between, and has
/// it within a second.
const STEPS_PER_TICK: usize = 4;
