use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};
use core::fmt;

use bundle::{Entry, Incomplete, Manifest, ObjectKind, Objects, PublicKey, Snapshot};

mod call;
mod failure;
mod wait;

pub use call::Call;
pub use failure::{Failure, Problem, Signed, Substitute};
use wait::Wait;

/// What to fetch when, and what to keep: the last good bundle, until a better one is complete.
///
/// The host drives it and does what it says:
/// * the leader calls [`poll`](Self::poll) at every tick, makes the [`Call`]s it returns and hands the answers to
///   [`handle_answer`](Self::handle_answer); objects that a [`Step`] hands out it shares;
/// * every other worker hands what the leader shared to [`handle_shared`](Self::handle_shared).
///
/// No call hashes more than one object, and a shard is read where it lies, so that none takes more than a millisecond
/// or two, however large the bundle.
pub struct Refresh {
    roots: Vec<PublicKey>,
    audience: String,
    wait: Wait,
    /// How long a bundle is fresh at most, whatever its manifest claims.
    max_lifetime_ms: u64,
    floor: Floor,
    current: Option<Arc<Snapshot>>,
    objects: Objects,
    /// Fetched and opened, not yet shared: the other workers need the bytes, this one only what they say.
    unshared: Vec<(Entry, Vec<u8>)>,
    /// What this worker is taking over from the leader.
    following: Option<Manifest>,
    phase: Phase,
    /// Whether all of it is to be fetched, and shared, again.
    anew: bool,
    failures: u32,
}

/// What an edge that starts afresh, and so knows of nothing newer, believes at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Floor {
    /// Of the delegation: keys that were replaced before it are not believed.
    pub epoch: u64,
    /// Of the manifest.
    pub version: u64,
}

enum Phase {
    Idle {
        until: u64,
    },
    /// The manifest was asked for, at this time; the control plane may hold the request for that long.
    Asked {
        at: u64,
        wait_seconds: u64,
    },
    Fetching {
        manifest: Box<Manifest>,
        received_at: u64,
        wanted: Vec<Entry>,
        under_way: Vec<Entry>,
    },
}

/// What came of an answer.
#[derive(PartialEq, Eq)]
pub enum Step {
    /// Nothing new, or more to come.
    Pending,
    /// More to come. Share these meanwhile: nothing that is in use has their slots.
    Share(Vec<(Entry, Vec<u8>)>),
    /// There is a new bundle: share these objects, then the manifest.
    Ready(Vec<(Entry, Vec<u8>)>),
}

/// How far taking over has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Call again with the same manifest: a request may want to be answered in between.
    More,
    /// It is the current bundle, or was no better.
    Done,
}

// By hand, so that no bytes of symmetric keys are printed.
impl fmt::Debug for Refresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refresh")
            .field("current", &self.current)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Step {
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
    /// The control plane may hold a request for `wait_seconds`; a bundle is fresh for `max_lifetime_seconds` at most.
    pub fn new(
        roots: Vec<PublicKey>,
        audience: String,
        wait_seconds: u64,
        max_lifetime_seconds: u64,
        floor: Floor,
    ) -> Self {
        Self {
            roots,
            audience,
            wait: Wait::new(wait_seconds),
            max_lifetime_ms: max_lifetime_seconds.saturating_mul(1000),
            floor,
            current: None,
            objects: Objects::default(),
            unshared: Vec::new(),
            following: None,
            phase: Phase::Idle { until: 0 },
            anew: false,
            failures: 0,
        }
    }

    /// Returns the bundle that is held, if any.
    pub fn current(&self) -> Option<&Arc<Snapshot>> {
        self.current.as_ref()
    }

    /// What to ask for now, if anything. `now` in milliseconds since the Unix epoch.
    pub fn poll(&mut self, now: u64) -> Option<Call> {
        if matches!(self.phase, Phase::Asked { at, .. } if now.saturating_sub(at) > self.patience_ms()) {
            self.stand_down();
        }
        match &mut self.phase {
            Phase::Idle { until } if now >= *until || until.saturating_sub(now) > MAX_BACK_OFF_MS => {
                let wait_seconds = self.wait_seconds(now);
                self.phase = Phase::Asked { at: now, wait_seconds };
                let held = if self.anew { None } else { self.held() };
                Some(Call::Manifest {
                    epoch: held.map_or(0, |held| held.delegation().epoch()),
                    have: held.map_or(0, Manifest::version),
                    issued_at: held.map_or(0, Manifest::issued_at),
                    wait_seconds,
                })
            }
            Phase::Idle { .. } | Phase::Asked { .. } => None,
            Phase::Fetching { wanted, under_way, .. } if under_way.len() < MAX_UNDER_WAY => {
                let entry = wanted.pop()?;
                under_way.push(entry);
                Some(Call::Object(entry))
            }
            Phase::Fetching { .. } => None,
        }
    }

    /// Takes the answer to a call; `status` 0 is no answer. `random` is for the jitter of the back-off.
    ///
    /// # Errors
    ///
    /// Returns why the refresh failed; what is held is kept, and the next call is due after a back-off.
    pub fn handle_answer(
        &mut self,
        call: Call,
        status: u16,
        body: Vec<u8>,
        now: u64,
        random: u64,
    ) -> Result<Step, Failure> {
        if !self.expects(call) {
            // Of something that was given up: neither its success nor its failure says anything any more.
            return Ok(Step::Pending);
        }
        let asked = match self.phase {
            Phase::Asked { at, wait_seconds } => Some((at, wait_seconds)),
            Phase::Idle { .. } | Phase::Fetching { .. } => None,
        };
        let outcome = match (call, status) {
            (Call::Manifest { .. }, 200) => self.handle_manifest(&body, now),
            (Call::Manifest { .. }, 304) => self.handle_unchanged(now),
            (Call::Object(entry), 200) => self.handle_object(entry, body, now),
            (_, status) => Err(Failure::of_status(status, &body)),
        };
        if let Some((at, wait_seconds @ 1..)) = asked {
            match &outcome {
                Err(failure) if failure.is_cut(now.saturating_sub(at)) => self.wait.cut(wait_seconds, now),
                Err(_) => {}
                Ok(_) => self.wait.answered(wait_seconds),
            }
        }
        match outcome {
            Ok(Step::Pending | Step::Share(_)) => {}
            Ok(Step::Ready(_)) => self.failures = 0,
            Err(_) => {
                self.phase = Phase::Idle { until: now.saturating_add(back_off(self.failures, random)) };
                self.failures = self.failures.saturating_add(1);
            }
        }
        outcome
    }

    /// Takes over what the leader shared, some of it at each call. What has expired is taken too: the policy for a
    /// silent control plane decides what follows, and a VM that comes back from a crash must not know less than before.
    ///
    /// # Errors
    ///
    /// Returns why what was shared is not taken; what is held is kept.
    pub fn handle_shared(
        &mut self,
        manifest: &[u8],
        now: u64,
        mut object: impl FnMut(&Entry) -> Option<Vec<u8>>,
    ) -> Result<Progress, Failure> {
        let manifest = match self.following.take() {
            Some(following) if following.bytes() == manifest => following,
            _ => {
                let manifest = self.open(manifest)?;
                if !self.is_newer(&manifest) {
                    return Ok(Progress::Done);
                }
                self.forget_all_but(&manifest, now);
                manifest
            }
        };
        let mut hashed = 0u32;
        loop {
            // Again after each round: what a checkpoint, an index or a block names comes to light when it is opened.
            let missing = self.objects.missing(&manifest, now);
            if missing.is_empty() {
                self.install(manifest, now, now)?;
                self.anew = false;
                return Ok(Progress::Done);
            }
            for entry in missing {
                if hashed > 0 && hashed.saturating_add(entry.size()) > bundle::MAX_OBJECT_BYTES {
                    self.following = Some(manifest);
                    return Ok(Progress::More);
                }
                hashed = hashed.saturating_add(entry.size().max(1));
                let bytes =
                    object(&entry).ok_or(Failure::Incomplete(Incomplete("an object is not shared")))?;
                self.objects.open(&manifest, entry, bytes)?;
            }
        }
    }

    /// Gives up what is under way: another worker leads now.
    pub fn stand_down(&mut self) {
        self.phase = Phase::Idle { until: 0 };
    }

    /// What the other workers find is not what this one holds, or not whole: all objects are fetched again, to be shared
    /// together. What is held stays in use, and nothing older than it is taken.
    pub fn share_anew(&mut self) {
        self.anew = true;
        self.objects = Objects::default();
        self.unshared.clear();
        self.following = None;
        self.stand_down();
    }

    fn expects(&self, call: Call) -> bool {
        match (call, &self.phase) {
            (Call::Manifest { .. }, Phase::Asked { .. }) => true,
            (Call::Object(entry), Phase::Fetching { under_way, .. }) => under_way.contains(&entry),
            _ => false,
        }
    }

    /// For a host that loses calls.
    const fn patience_ms(&self) -> u64 {
        self.wait.configured().saturating_mul(1000).saturating_add(ANSWER_WITHIN_MS)
    }

    /// For how long the next request may be held: never beyond the half-life of what is held, and not at all past it.
    fn wait_seconds(&mut self, now: u64) -> u64 {
        match &self.current {
            Some(held) if !self.anew => {
                let young = held.refresh_due_at().saturating_sub(now).div_euclid(1000);
                self.wait.seconds(now).min(young)
            }
            _ => 0,
        }
    }

    /// The control plane has nothing newer than what is held.
    fn handle_unchanged(&mut self, now: u64) -> Result<Step, Failure> {
        match &self.current {
            Some(held) if now >= held.expires_at() => Err(Failure::NotRenewed(held.manifest().version())),
            _ => {
                self.rest(now);
                Ok(Step::Pending)
            }
        }
    }

    fn handle_manifest(&mut self, bytes: &[u8], now: u64) -> Result<Step, Failure> {
        let manifest = self.open(bytes)?;
        alive(Signed::Delegation, manifest.delegation().expires_at(), now)?;
        let bound = manifest.issued_at().saturating_add(self.max_lifetime_ms);
        alive(Signed::Manifest, manifest.expires_at().min(bound), now)?;
        if manifest.issued_at() > now.saturating_add(MAX_SKEW_MS) {
            return Err(Failure::FromFuture(seconds_between(now, manifest.issued_at())));
        }
        if let Some(held) = self.held() {
            if *held != manifest {
                manifest.check_successor_of(held)?;
            } else if !self.anew {
                return self.handle_unchanged(now);
            }
        }
        self.forget_all_but(&manifest, now);
        let wanted = self.objects.missing(&manifest, now);
        let manifest = Box::new(manifest);
        self.phase = Phase::Fetching { manifest, received_at: now, wanted, under_way: Vec::new() };
        self.finish_if_complete(now)
    }

    fn open(&self, bytes: &[u8]) -> Result<Manifest, Failure> {
        let manifest = Manifest::open(bytes, &self.roots, &self.audience)?;
        let Floor { epoch, version } = self.floor;
        for (what, floor, offered) in
            [("epoch", epoch, manifest.delegation().epoch()), ("version", version, manifest.version())]
        {
            if offered < floor {
                return Err(Failure::BelowFloor { what, floor, offered });
            }
        }
        Ok(manifest)
    }

    fn handle_object(&mut self, entry: Entry, bytes: Vec<u8>, now: u64) -> Result<Step, Failure> {
        let Phase::Fetching { manifest, wanted, under_way, .. } = &mut self.phase else {
            // An answer to something that was given up.
            return Ok(Step::Pending);
        };
        let Some(at) = under_way.iter().position(|asked| *asked == entry) else { return Ok(Step::Pending) };
        // Before it is opened: after that it is itself what has the slot.
        let is_free = !self.objects.contains_other_in_slot(&entry);
        self.objects.open(manifest, entry, bytes.clone())?;
        under_way.swap_remove(at);
        self.unshared.push((entry, bytes));
        if matches!(entry.kind(), ObjectKind::Checkpoint | ObjectKind::Index | ObjectKind::Block) {
            let known = |entry: &Entry| wanted.contains(entry) || under_way.contains(entry);
            let missing = self.objects.missing(manifest, now);
            let more: Vec<Entry> = missing.into_iter().filter(|entry| !known(entry)).collect();
            wanted.extend(more);
        }
        match self.finish_if_complete(now)? {
            Step::Pending if is_free => Ok(Step::Share(self.unshared.pop().into_iter().collect())),
            step => Ok(step),
        }
    }

    fn finish_if_complete(&mut self, now: u64) -> Result<Step, Failure> {
        match &self.phase {
            Phase::Fetching { manifest, received_at, wanted, under_way }
                if wanted.is_empty() && under_way.is_empty() =>
            {
                let (manifest, received_at) = (Manifest::clone(manifest), *received_at);
                if let Some(checkpoint) = self.objects.checkpoint(&manifest) {
                    alive(Signed::Checkpoint, checkpoint.expires_at(), now)?;
                }
                // The same one again where it was only to be shared.
                if self.held() != Some(&manifest) {
                    self.install(manifest, received_at, now)?;
                }
                self.anew = false;
                self.phase = Phase::Idle { until: now };
                Ok(Step::Ready(core::mem::take(&mut self.unshared)))
            }
            _ => Ok(Step::Pending),
        }
    }

    fn install(&mut self, manifest: Manifest, received_at: u64, now: u64) -> Result<(), Failure> {
        let snapshot = match &self.current {
            Some(held) => held.advance(manifest, &self.objects, now)?,
            None => Snapshot::assemble(manifest, &self.objects, now)?,
        };
        let snapshot = Arc::new(snapshot.bound_freshness(received_at, self.max_lifetime_ms));
        self.current = Some(Arc::clone(&snapshot));
        self.forget_all_but(snapshot.manifest(), now);
        Ok(())
    }

    /// What earlier attempts left that neither this one, nor what is being fetched, nor the current bundle names: else the
    /// thief of a tail key could fill the memory with operations that lead nowhere.
    fn forget_all_but(&mut self, manifest: &Manifest, now: u64) {
        let held = self.current.as_deref().map(Snapshot::manifest);
        let fetched = match &self.phase {
            Phase::Fetching { manifest, .. } => Some(&**manifest),
            Phase::Idle { .. } | Phase::Asked { .. } => None,
        };
        self.objects.retain_named_by(held.into_iter().chain(fetched).chain([manifest]), now);
        self.unshared.retain(|(entry, _)| self.objects.contains(entry));
    }

    fn held(&self) -> Option<&Manifest> {
        self.current.as_deref().map(Snapshot::manifest)
    }

    fn is_newer(&self, manifest: &Manifest) -> bool {
        self.held().is_none_or(|held| manifest.check_successor_of(held).is_ok())
    }

    /// Nothing new. Ask again at once if the control plane held the request, else after a while: a cache in between
    /// does not wait, and neither does a control plane that was asked not to.
    fn rest(&mut self, now: u64) {
        self.failures = 0;
        let (asked, waits) = match self.phase {
            Phase::Asked { at, wait_seconds } => (at, wait_seconds > 0),
            _ => (now, false),
        };
        let was_held = waits && now.saturating_sub(asked) >= HELD_MS;
        let until = if was_held { now } else { now.max(asked.saturating_add(self.pause_ms(now))) };
        self.phase = Phase::Idle { until };
    }

    /// Between two requests that nothing holds. Past half its life the control plane has no newer manifest, so that all
    /// edges come: a twelfth of the lifetime, 5 s of a minute, is soon enough.
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

const fn alive(signed: Signed, expires_at: u64, now: u64) -> Result<(), Failure> {
    if now < expires_at { Ok(()) } else { Err(Failure::Expired(signed, seconds_between(expires_at, now))) }
}

const fn seconds_between(earlier: u64, later: u64) -> u64 {
    later.saturating_sub(earlier).div_ceil(1000)
}

/// Doubles from a quarter of a second up to ten, then half of it is left to chance, so that edges do not come all at
/// once when the control plane is back.
fn back_off(failures: u32, random: u64) -> u64 {
    let most = FIRST_BACK_OFF_MS.saturating_mul(1 << failures.min(6)).min(MAX_BACK_OFF_MS);
    let half = most.div_euclid(2);
    half.saturating_add(random.checked_rem(half).unwrap_or_default())
}

const FIRST_BACK_OFF_MS: u64 = 250;

/// A sixth of the lifetime of a manifest: a control plane that comes back is found before anything is stale.
const MAX_BACK_OFF_MS: u64 = 10_000;

/// At most so often where nothing waits.
const MIN_POLL_MS: u64 = 1000;

const MAX_POLL_MS: u64 = 5000;

/// Beyond the time that the control plane may hold the request; twice what a host waits.
const ANSWER_WITHIN_MS: u64 = 10_000;

/// An answer that took longer came from a control plane that waited: it answers early, after 250 ms, while workers lag.
const HELD_MS: u64 = 200;

/// A manifest from further in the future would stay fresh too long for this edge's clock.
const MAX_SKEW_MS: u64 = 60_000;

/// Calls at once: 16 objects of 64 KiB are 1 MiB of buffers in the proxy.
const MAX_UNDER_WAY: usize = 16;
