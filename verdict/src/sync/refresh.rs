//! Fetching of bundles.

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};
use core::fmt;

use bundle::{Entry, Incomplete, InlineBundle, Manifest, ObjectKind, Objects, PublicKey, Snapshot};

mod error;
mod fetch_request;
mod wait;

pub use error::{ProblemDocument, ProxyResponse, RefreshError, SignedPart, failure_hint};
pub use fetch_request::FetchRequest;
use wait::Wait;

/// Minimum retry delay, in milliseconds, before jitter.
const MIN_RETRY_DELAY_MS: u64 = 250;

/// Maximum retry delay, in milliseconds: a sixth of the lifetime of a manifest, so that a restarted control plane is
/// found before any bundle is stale.
const MAX_RETRY_DELAY_MS: u64 = 10_000;

/// Minimum time between two requests that are not held, in milliseconds.
const MIN_POLL_MS: u64 = 1000;

/// Maximum time between two requests that are not held, in milliseconds.
const MAX_POLL_MS: u64 = 5000;

/// Time for a response in addition to `wait_seconds`, in milliseconds: twice the timeout of the host.
const RESPONSE_TIMEOUT_MS: u64 = 10_000;

/// Minimum duration of a request that the control plane held, in milliseconds. It answers after 250 ms while workers
/// lag behind.
const MIN_HELD_MS: u64 = 200;

/// Maximum time that a manifest may be issued ahead of this edge's clock, in milliseconds. A later one would count as
/// fresh for too long.
const MAX_SKEW_MS: u64 = 60_000;

/// Maximum number of concurrent requests: 16 objects of 64 KiB take 1 MiB of buffers in the proxy.
const MAX_IN_FLIGHT: usize = 16;

/// The state machine that fetches bundles. It keeps the last valid bundle until a newer one is complete.
///
/// The host sends the requests:
/// * The leader calls [`poll`](Self::poll) at every tick, sends the returned [`FetchRequest`]s and passes the
///   responses to [`handle_response`](Self::handle_response). It shares the objects in the returned [`FetchStep`] with
///   the other workers.
/// * Every other worker passes what the leader shares to [`handle_shared`](Self::handle_shared).
///
/// No call hashes more than one object, and shards are read in place, so that no call takes more than one or two
/// milliseconds, regardless of the size of the bundle.
pub struct Refresh {
    roots: Vec<PublicKey>,
    audience: String,
    wait: Wait,
    /// The maximum time for which a bundle is fresh, in milliseconds, even if its manifest permits more.
    max_lifetime_ms: u64,
    minimum: MinimumPosition,
    current: Option<Arc<Snapshot>>,
    objects: Objects,
    /// Objects that were fetched and parsed and have not been shared yet. The other workers need their bytes.
    unshared: Vec<(Entry, Vec<u8>)>,
    /// The manifest whose objects this worker is loading from shared data.
    loading: Option<Manifest>,
    phase: Phase,
    /// Whether all objects are fetched and shared again.
    refetch_all: bool,
    failures: u32,
}

/// The minimum epoch and version that an edge accepts when it has no bundle to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MinimumPosition {
    /// The minimum epoch of the delegation.
    pub epoch: u64,
    /// The minimum version of the manifest.
    pub version: u64,
}

enum Phase {
    Idle {
        until: u64,
    },
    /// The manifest was requested at this time, in milliseconds. The control plane may hold the request for
    /// `wait_seconds`.
    Requested {
        at: u64,
        wait_seconds: u64,
    },
    Fetching {
        manifest: Box<Manifest>,
        received_at: u64,
        pending: Vec<Entry>,
        in_flight: Vec<Entry>,
    },
}

/// The result of handling a response.
#[derive(PartialEq, Eq)]
pub enum FetchStep {
    /// There is nothing to share: no newer bundle, or objects are missing.
    Pending,
    /// Objects are missing. The host shares these objects now, since they do not replace any object in use.
    Share(Vec<(Entry, Vec<u8>)>),
    /// A newer bundle is complete. The host shares these objects, then the manifest.
    Ready(Vec<(Entry, Vec<u8>)>),
}

/// The progress of loading a shared bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Call again with the same manifest. The worker can handle requests between the calls.
    Continue,
    /// The bundle is installed, or is not newer than the current one.
    Done,
}

// Implemented by hand so that symmetric keys are not printed.
impl fmt::Debug for Refresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refresh")
            .field("current", &self.current)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for FetchStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, objects) = match self {
            Self::Pending => return f.write_str("Pending"),
            Self::Share(objects) => ("Share ", objects),
            Self::Ready(objects) => ("Ready ", objects),
        };
        f.write_str(name)?;
        f.debug_list().entries(objects.iter().map(|(entry, _)| entry)).finish()
    }
}

impl Refresh {
    /// Creates the state machine. The control plane may hold a request for `wait_seconds`, and a bundle is fresh for at
    /// most `max_lifetime_seconds`.
    pub fn new(
        roots: Vec<PublicKey>,
        audience: String,
        wait_seconds: u64,
        max_lifetime_seconds: u64,
        minimum: MinimumPosition,
    ) -> Self {
        Self {
            roots,
            audience,
            wait: Wait::new(wait_seconds),
            max_lifetime_ms: max_lifetime_seconds.saturating_mul(1000),
            minimum,
            current: None,
            objects: Objects::default(),
            unshared: Vec::new(),
            loading: None,
            phase: Phase::Idle { until: 0 },
            refetch_all: false,
            failures: 0,
        }
    }

    /// Returns the current bundle, if any.
    pub fn current(&self) -> Option<&Arc<Snapshot>> {
        self.current.as_ref()
    }

    /// Returns the entries of all objects that the current bundle or the one being fetched requires. A host that keeps
    /// the bytes of objects drops those of all others.
    pub fn objects(&self) -> impl Iterator<Item = &Entry> {
        self.objects.entries()
    }

    /// Returns the next request to send, if any is due. `now` is in milliseconds since the Unix epoch.
    pub fn poll(&mut self, now: u64) -> Option<FetchRequest> {
        if matches!(self.phase, Phase::Requested { at, .. } if now.saturating_sub(at) > self.timeout_ms()) {
            self.abort();
        }
        match &mut self.phase {
            Phase::Idle { until } if now >= *until || until.saturating_sub(now) > MAX_RETRY_DELAY_MS => {
                let wait_seconds = self.wait_seconds(now);
                self.phase = Phase::Requested { at: now, wait_seconds };
                Some(self.manifest_request(wait_seconds))
            }
            Phase::Idle { .. } | Phase::Requested { .. } => None,
            Phase::Fetching { pending, in_flight, .. } if in_flight.len() < MAX_IN_FLIGHT => {
                let entry = pending.pop()?;
                in_flight.push(entry);
                Some(FetchRequest::Object(entry))
            }
            Phase::Fetching { .. } => None,
        }
    }

    /// Returns a request for a newer manifest than the current one. [`poll`](Self::poll) returns the one that is due; the
    /// response to another one is ignored.
    pub fn manifest_request(&self, wait_seconds: u64) -> FetchRequest {
        let held = if self.refetch_all { None } else { self.held_manifest() };
        FetchRequest::Manifest {
            epoch: held.map_or(0, |held| held.delegation().epoch()),
            have: held.map_or(0, Manifest::version),
            issued_at: held.map_or(0, Manifest::issued_at),
            wait_seconds,
        }
    }

    /// Handles the response to a request. `status` 0 means that there was no response. `now` is in milliseconds since
    /// the Unix epoch, and `random` is the jitter of the retry delay.
    ///
    /// # Errors
    ///
    /// Returns why the refresh failed. The current bundle is kept, and the next request is due after a retry delay.
    pub fn handle_response(
        &mut self,
        request: FetchRequest,
        status: u16,
        body: Vec<u8>,
        now: u64,
        random: u64,
    ) -> Result<FetchStep, RefreshError> {
        if !self.is_expected(request) {
            // The request was aborted, so its response is ignored.
            return Ok(FetchStep::Pending);
        }
        let asked = match self.phase {
            Phase::Requested { at, wait_seconds } => Some((at, wait_seconds)),
            Phase::Idle { .. } | Phase::Fetching { .. } => None,
        };
        let outcome = match (request, status) {
            (FetchRequest::Manifest { .. }, 200) => self.handle_manifest(&body, now),
            (FetchRequest::Manifest { .. }, 304) => self.handle_unchanged(now),
            (FetchRequest::Object(entry), 200) => self.handle_object(entry, body, now),
            (_, status) => Err(RefreshError::from_status(status, &body)),
        };
        if let Some((at, wait_seconds @ 1..)) = asked {
            match &outcome {
                Err(failure) if failure.is_timeout(now.saturating_sub(at)) => {
                    self.wait.record_timeout(wait_seconds, now)
                }
                Err(_) => {}
                Ok(_) => self.wait.record_response(wait_seconds),
            }
        }
        match outcome {
            Ok(FetchStep::Pending | FetchStep::Share(_)) => {}
            Ok(FetchStep::Ready(_)) => self.failures = 0,
            Err(_) => {
                self.phase = Phase::Idle { until: now.saturating_add(retry_delay(self.failures, random)) };
                self.failures = self.failures.saturating_add(1);
            }
        }
        outcome
    }

    /// Loads what the leader shared, a part at each call. Expired bundles are loaded too: the stale policy decides
    /// about them, and a VM that restarts after a crash must not know less than before.
    ///
    /// # Errors
    ///
    /// Returns why the shared bundle was rejected. The current bundle is kept.
    pub fn handle_shared(
        &mut self,
        manifest: &[u8],
        now: u64,
        mut object: impl FnMut(&Entry) -> Option<Vec<u8>>,
    ) -> Result<Progress, RefreshError> {
        let manifest = match self.loading.take() {
            Some(loading) if loading.bytes() == manifest => loading,
            _ => {
                let manifest = self.open(manifest)?;
                if !self.is_newer(&manifest) {
                    return Ok(Progress::Done);
                }
                self.retain_only(&manifest, now);
                manifest
            }
        };
        let mut hashed = 0u32;
        loop {
            // Checked again after each round, because a parsed checkpoint, index or block names further objects.
            let missing = self.objects.missing(&manifest, now);
            if missing.is_empty() {
                self.install(manifest, now, now)?;
                self.refetch_all = false;
                return Ok(Progress::Done);
            }
            for entry in missing {
                if hashed > 0 && hashed.saturating_add(entry.size()) > bundle::MAX_OBJECT_BYTES {
                    self.loading = Some(manifest);
                    return Ok(Progress::Continue);
                }
                hashed = hashed.saturating_add(entry.size().max(1));
                let bytes =
                    object(&entry).ok_or(RefreshError::Incomplete(Incomplete("an object is not shared")))?;
                self.objects.open(&manifest, entry, bytes)?;
            }
        }
    }

    /// Loads a bundle that a host has as a whole. Expired bundles are loaded too, as by
    /// [`handle_shared`](Self::handle_shared).
    ///
    /// # Errors
    ///
    /// Returns why the bundle was rejected. The current bundle is kept.
    pub fn load_inline(&mut self, bundle: &InlineBundle, now: u64) -> Result<(), RefreshError> {
        let object = |entry: &Entry| bundle.object(entry).map(Into::into);
        while self.handle_shared(bundle.manifest(), now, object)? == Progress::Continue {}
        Ok(())
    }

    /// Aborts the requests in progress, because another worker has become leader.
    pub fn abort(&mut self) {
        self.phase = Phase::Idle { until: 0 };
    }

    /// Fetches all objects again to share them together, because the shared bundle is incomplete or differs from the
    /// current one. The current bundle stays in use, and no older one is accepted.
    pub fn reshare_all(&mut self) {
        self.refetch_all = true;
        self.objects = Objects::default();
        self.unshared.clear();
        self.loading = None;
        self.abort();
    }

    fn is_expected(&self, request: FetchRequest) -> bool {
        match (request, &self.phase) {
            (FetchRequest::Manifest { .. }, Phase::Requested { .. }) => true,
            (FetchRequest::Object(entry), Phase::Fetching { in_flight, .. }) => in_flight.contains(&entry),
            _ => false,
        }
    }

    /// Returns the time in milliseconds after which a manifest request counts as lost, for hosts that lose requests.
    const fn timeout_ms(&self) -> u64 {
        self.wait.configured_seconds().saturating_mul(1000).saturating_add(RESPONSE_TIMEOUT_MS)
    }

    /// Returns for how long the next request may be held, in seconds: at most until half the lifetime of the current
    /// bundle has passed, and 0 afterwards.
    fn wait_seconds(&mut self, now: u64) -> u64 {
        match &self.current {
            Some(held) if !self.refetch_all => {
                let fresh_seconds = held.refresh_due_at().saturating_sub(now).div_euclid(1000);
                self.wait.seconds(now).min(fresh_seconds)
            }
            _ => 0,
        }
    }

    /// Handles a response that the control plane has no newer bundle.
    fn handle_unchanged(&mut self, now: u64) -> Result<FetchStep, RefreshError> {
        match &self.current {
            Some(held) if now >= held.expires_at() => {
                Err(RefreshError::NotRenewed(held.manifest().version()))
            }
            _ => {
                self.schedule_poll(now);
                Ok(FetchStep::Pending)
            }
        }
    }

    fn handle_manifest(&mut self, bytes: &[u8], now: u64) -> Result<FetchStep, RefreshError> {
        let manifest = self.open(bytes)?;
        check_not_expired(SignedPart::Delegation, manifest.delegation().expires_at(), now)?;
        let bound = manifest.issued_at().saturating_add(self.max_lifetime_ms);
        check_not_expired(SignedPart::Manifest, manifest.expires_at().min(bound), now)?;
        if manifest.issued_at() > now.saturating_add(MAX_SKEW_MS) {
            return Err(RefreshError::FromFuture(seconds_between(now, manifest.issued_at())));
        }
        if let Some(held) = self.held_manifest() {
            if *held != manifest {
                manifest.check_successor_of(held)?;
            } else if !self.refetch_all {
                return self.handle_unchanged(now);
            }
        }
        self.retain_only(&manifest, now);
        let pending = self.objects.missing(&manifest, now);
        let manifest = Box::new(manifest);
        self.phase = Phase::Fetching { manifest, received_at: now, pending, in_flight: Vec::new() };
        self.finish_if_complete(now)
    }

    fn open(&self, bytes: &[u8]) -> Result<Manifest, RefreshError> {
        let manifest = Manifest::open(bytes, &self.roots, &self.audience)?;
        let MinimumPosition { epoch, version } = self.minimum;
        for (what, minimum, offered) in
            [("epoch", epoch, manifest.delegation().epoch()), ("version", version, manifest.version())]
        {
            if offered < minimum {
                return Err(RefreshError::BelowMinimum { what, minimum, offered });
            }
        }
        Ok(manifest)
    }

    fn handle_object(&mut self, entry: Entry, bytes: Vec<u8>, now: u64) -> Result<FetchStep, RefreshError> {
        let Phase::Fetching { manifest, pending, in_flight, .. } = &mut self.phase else {
            // The request was aborted, so its response is ignored.
            return Ok(FetchStep::Pending);
        };
        let Some(at) = in_flight.iter().position(|asked| *asked == entry) else {
            return Ok(FetchStep::Pending);
        };
        // Checked before the object is parsed: afterwards the object itself occupies the slot.
        let is_free = !self.objects.contains_other_in_slot(&entry);
        self.objects.open(manifest, entry, bytes.clone())?;
        in_flight.swap_remove(at);
        self.unshared.push((entry, bytes));
        if matches!(entry.kind(), ObjectKind::Checkpoint | ObjectKind::Index | ObjectKind::Block) {
            let is_requested = |entry: &Entry| pending.contains(entry) || in_flight.contains(entry);
            let missing = self.objects.missing(manifest, now);
            let more: Vec<Entry> = missing.into_iter().filter(|entry| !is_requested(entry)).collect();
            pending.extend(more);
        }
        match self.finish_if_complete(now)? {
            FetchStep::Pending if is_free => Ok(FetchStep::Share(self.unshared.pop().into_iter().collect())),
            step => Ok(step),
        }
    }

    fn finish_if_complete(&mut self, now: u64) -> Result<FetchStep, RefreshError> {
        match &self.phase {
            Phase::Fetching { manifest, received_at, pending, in_flight }
                if pending.is_empty() && in_flight.is_empty() =>
            {
                let (manifest, received_at) = (Manifest::clone(manifest), *received_at);
                if let Some(checkpoint) = self.objects.checkpoint(&manifest) {
                    check_not_expired(SignedPart::Checkpoint, checkpoint.expires_at(), now)?;
                }
                // The manifest is the current one if its objects were fetched only to be shared.
                if self.held_manifest() != Some(&manifest) {
                    self.install(manifest, received_at, now)?;
                }
                self.refetch_all = false;
                self.phase = Phase::Idle { until: now };
                Ok(FetchStep::Ready(core::mem::take(&mut self.unshared)))
            }
            _ => Ok(FetchStep::Pending),
        }
    }

    fn install(&mut self, manifest: Manifest, received_at: u64, now: u64) -> Result<(), RefreshError> {
        let snapshot = match &self.current {
            Some(held) => held.advance(manifest, &self.objects, now)?,
            None => Snapshot::assemble(manifest, &self.objects, now)?,
        };
        let snapshot = Arc::new(snapshot.bound_freshness(received_at, self.max_lifetime_ms));
        self.current = Some(Arc::clone(&snapshot));
        self.retain_only(snapshot.manifest(), now);
        Ok(())
    }

    /// Drops objects that no current, in-flight or new manifest names. Otherwise a stolen tail key could exhaust
    /// memory.
    fn retain_only(&mut self, manifest: &Manifest, now: u64) {
        let held = self.current.as_deref().map(Snapshot::manifest);
        let fetched = match &self.phase {
            Phase::Fetching { manifest, .. } => Some(&**manifest),
            Phase::Idle { .. } | Phase::Requested { .. } => None,
        };
        self.objects.retain_named_by(held.into_iter().chain(fetched).chain([manifest]), now);
        self.unshared.retain(|(entry, _)| self.objects.contains(entry));
    }

    fn held_manifest(&self) -> Option<&Manifest> {
        self.current.as_deref().map(Snapshot::manifest)
    }

    fn is_newer(&self, manifest: &Manifest) -> bool {
        self.held_manifest().is_none_or(|held| manifest.check_successor_of(held).is_ok())
    }

    /// Schedules the next poll after a response without a newer bundle: immediately if the control plane held the
    /// request, otherwise after a pause, because a cache or a control plane that was asked not to wait responds at
    /// once.
    fn schedule_poll(&mut self, now: u64) {
        self.failures = 0;
        let (asked, waits) = match self.phase {
            Phase::Requested { at, wait_seconds } => (at, wait_seconds > 0),
            _ => (now, false),
        };
        let was_held = waits && now.saturating_sub(asked) >= MIN_HELD_MS;
        let until = if was_held { now } else { now.max(asked.saturating_add(self.pause_ms(now))) };
        self.phase = Phase::Idle { until };
    }

    /// Returns the time in milliseconds between two requests that are not held. After half the lifetime of the bundle
    /// the control plane has no newer manifest, and all edges poll. A twelfth of the lifetime (5 s for one minute) is
    /// then often enough.
    fn pause_ms(&self, now: u64) -> u64 {
        match &self.current {
            Some(held) if now >= held.refresh_due_at() => {
                let half = held.expires_at().saturating_sub(held.refresh_due_at());
                half.div_euclid(6).clamp(MIN_POLL_MS, MAX_POLL_MS)
            }
            _ => MIN_POLL_MS,
        }
    }
}

const fn check_not_expired(part: SignedPart, expires_at: u64, now: u64) -> Result<(), RefreshError> {
    if now < expires_at { Ok(()) } else { Err(RefreshError::Expired(part, seconds_between(expires_at, now))) }
}

const fn seconds_between(earlier: u64, later: u64) -> u64 {
    later.saturating_sub(earlier).div_ceil(1000)
}

/// Returns the retry delay in milliseconds: exponential from 250 ms to 10 s, of which half is random, so that edges do
/// not retry at the same time.
fn retry_delay(failures: u32, random: u64) -> u64 {
    let delay = MIN_RETRY_DELAY_MS.saturating_mul(1 << failures.min(6)).min(MAX_RETRY_DELAY_MS);
    let half = delay.div_euclid(2);
    half.saturating_add(random.checked_rem(half).unwrap_or_default())
}
