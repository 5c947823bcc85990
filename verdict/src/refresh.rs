use alloc::{string::String, sync::Arc, vec::Vec};
use core::fmt;

use bundle::{
    Entry, Incomplete, Kind, Manifest, ManifestError, ObjectError, Objects, PublisherKey, Snapshot,
};

/// What to fetch when, and what to keep: the last good bundle, until a better one is complete.
///
/// The host drives it and does what it says:
/// * the leader calls [`poll`](Self::poll) at every tick, makes the [`Call`]s it returns and hands the answers to
///   [`handle_answer`](Self::handle_answer); when a [`Step::Ready`] comes, it shares the manifest and the objects;
/// * every other worker hands what the leader shared to [`handle_shared`](Self::handle_shared).
pub struct Refresh {
    trusted: Vec<PublisherKey>,
    audience: String,
    wait_seconds: u64,
    current: Option<Arc<Snapshot>>,
    objects: Objects,
    /// Fetched and opened, not yet shared: the other workers need the bytes, this one only what they say.
    unshared: Vec<(Entry, Vec<u8>)>,
    phase: Phase,
    failures: u32,
}

enum Phase {
    Idle {
        until: u64,
    },
    /// The manifest was asked for, at this time.
    Asked {
        at: u64,
    },
    Fetching {
        manifest: Manifest,
        wanted: Vec<Entry>,
        under_way: Vec<Entry>,
    },
}

/// What the leader is to ask the control plane for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `have` is the version, `issued_at` the time of the manifest that is held.
    Manifest {
        have: u64,
        issued_at: u64,
        wait_seconds: u64,
    },
    Object(Entry),
}

impl Call {
    /// The path, its query included.
    pub fn path(&self) -> String {
        match self {
            Self::Manifest { have, .. } => alloc::format!("/edge/v1/manifest?have={have}"),
            Self::Object(entry) => {
                let hash = token::Fingerprint::from(*entry.sha256());
                match entry.kind() {
                    Kind::SecretKeys => alloc::format!("/edge/v1/keys?sha256={hash}"),
                    _ => alloc::format!("/edge/v1/objects/{hash}"),
                }
            }
        }
    }

    /// The `If-None-Match` of a manifest.
    pub fn etag(&self) -> Option<String> {
        match self {
            Self::Manifest { have, issued_at, .. } => Some(alloc::format!("\"{have}-{issued_at}\"")),
            Self::Object(_) => None,
        }
    }

    /// How many seconds the control plane may hold the request.
    pub const fn wait_seconds(&self) -> u64 {
        match self {
            Self::Manifest { wait_seconds, .. } => *wait_seconds,
            Self::Object(_) => 0,
        }
    }

    /// How many bytes of the answer to take: more are refused anyway.
    pub fn max_bytes(&self) -> usize {
        match self {
            Self::Manifest { .. } => bundle::MAX_MANIFEST_BYTES.saturating_add(1),
            Self::Object(entry) => {
                usize::try_from(entry.size()).map_or(usize::MAX, |size| size.saturating_add(1))
            }
        }
    }
}

/// What came of an answer.
#[derive(PartialEq, Eq)]
pub enum Step {
    /// Nothing new, or more to come.
    Pending,
    /// There is a new bundle: share these objects, then the manifest.
    Ready(Vec<(Entry, Vec<u8>)>),
}

/// Why a refresh failed; what was held is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No answer.
    Unreachable,
    Status(u16),
    Manifest(ManifestError),
    /// Expired by so many seconds.
    Expired(u64),
    /// Issued so many seconds from now.
    FromFuture(u64),
    /// Its version is lower than the one held, or it was issued earlier.
    Older {
        held: u64,
        offered: u64,
    },
    Object(ObjectError),
    Incomplete(Incomplete),
}

impl Failure {
    pub const fn code(self) -> &'static str {
        match self {
            Self::Unreachable => "control_plane_unreachable",
            Self::Status(_) => "control_plane_status",
            Self::Manifest(error) => error.code(),
            Self::Expired(_) => "manifest_expired",
            Self::FromFuture(_) => "manifest_from_future",
            Self::Older { .. } => "manifest_older",
            Self::Object(error) => error.code(),
            Self::Incomplete(_) => "bundle_incomplete",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => f.write_str("the control plane did not answer"),
            Self::Status(status) => write!(f, "the control plane answered {status}"),
            Self::Manifest(error) => error.fmt(f),
            Self::Expired(ago) => write!(f, "the manifest expired {ago} s ago by this edge's clock"),
            Self::FromFuture(ahead) => {
                write!(f, "the manifest was issued {ahead} s ahead of this edge's clock")
            }
            Self::Older { held, offered } => write!(f, "version {offered} was offered where {held} is held"),
            Self::Object(error) => error.fmt(f),
            Self::Incomplete(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Failure {}

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
        match self {
            Self::Pending => f.write_str("Pending"),
            Self::Ready(objects) => f.debug_list().entries(objects.iter().map(|(entry, _)| entry)).finish(),
        }
    }
}

impl Refresh {
    pub fn new(trusted: Vec<PublisherKey>, audience: String, wait_seconds: u64) -> Self {
        Self {
            trusted,
            audience,
            wait_seconds,
            current: None,
            objects: Objects::default(),
            unshared: Vec::new(),
            phase: Phase::Idle { until: 0 },
            failures: 0,
        }
    }

    pub fn current(&self) -> Option<&Arc<Snapshot>> {
        self.current.as_ref()
    }

    /// What to ask for now, if anything. `now` in milliseconds since the Unix epoch.
    pub fn poll(&mut self, now: u64) -> Option<Call> {
        match &mut self.phase {
            Phase::Idle { until } if now >= *until || until.saturating_sub(now) > MAX_BACK_OFF_MS => {
                self.phase = Phase::Asked { at: now };
                let held = self.current.as_ref().map(|snapshot| snapshot.manifest());
                Some(Call::Manifest {
                    have: held.map_or(0, Manifest::version),
                    issued_at: held.map_or(0, Manifest::issued_at),
                    wait_seconds: if held.is_some() { self.wait_seconds } else { 0 },
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
    pub fn handle_answer(
        &mut self,
        call: Call,
        status: u16,
        body: Vec<u8>,
        now: u64,
        random: u64,
    ) -> Result<Step, Failure> {
        let outcome = match (call, status) {
            (_, 0) => Err(Failure::Unreachable),
            (Call::Manifest { .. }, 200) => self.handle_manifest(&body, now),
            (Call::Manifest { .. }, 304) => {
                self.rest(now);
                Ok(Step::Pending)
            }
            (Call::Object(entry), 200) => self.handle_object(entry, body, now),
            (_, status) => Err(Failure::Status(status)),
        };
        match outcome {
            Ok(Step::Pending) => {}
            Ok(Step::Ready(_)) => self.failures = 0,
            Err(_) => {
                self.phase = Phase::Idle { until: now.saturating_add(back_off(self.failures, random)) };
                self.failures = self.failures.saturating_add(1);
            }
        }
        outcome
    }

    /// Takes what the leader shared. A manifest that has expired is taken too: the policy for a silent control plane
    /// decides what follows, and a VM that comes back from a crash must not know less than before.
    pub fn handle_shared(
        &mut self,
        manifest: &[u8],
        mut object: impl FnMut(&Entry) -> Option<Vec<u8>>,
    ) -> Result<(), Failure> {
        let manifest = Manifest::open(manifest, &self.trusted, &self.audience).map_err(Failure::Manifest)?;
        if !self.is_newer(&manifest) {
            return Ok(());
        }
        // Twice: what an index names comes to light when it is opened.
        for _ in 0..2 {
            for entry in self.objects.missing(&manifest) {
                let bytes =
                    object(&entry).ok_or(Failure::Incomplete(Incomplete("an object is not shared")))?;
                self.objects.open(entry, bytes).map_err(Failure::Object)?;
            }
        }
        self.install(manifest)
    }

    /// Gives up what is under way: another worker leads now.
    pub fn stand_down(&mut self) {
        self.phase = Phase::Idle { until: 0 };
    }

    fn handle_manifest(&mut self, bytes: &[u8], now: u64) -> Result<Step, Failure> {
        let manifest = Manifest::open(bytes, &self.trusted, &self.audience).map_err(Failure::Manifest)?;
        if now >= manifest.expires_at() {
            return Err(Failure::Expired(seconds_between(manifest.expires_at(), now)));
        }
        if manifest.issued_at() > now.saturating_add(MAX_SKEW_MS) {
            return Err(Failure::FromFuture(seconds_between(now, manifest.issued_at())));
        }
        if !self.is_newer(&manifest) {
            let held = self.current.as_ref().map(|snapshot| snapshot.manifest());
            if held == Some(&manifest) {
                self.rest(now);
                return Ok(Step::Pending);
            }
            let held = held.map_or(0, Manifest::version);
            return Err(Failure::Older { held, offered: manifest.version() });
        }
        let wanted = self.objects.missing(&manifest);
        self.phase = Phase::Fetching { manifest, wanted, under_way: Vec::new() };
        self.finish_if_complete(now)
    }

    fn handle_object(&mut self, entry: Entry, bytes: Vec<u8>, now: u64) -> Result<Step, Failure> {
        let Phase::Fetching { manifest, wanted, under_way } = &mut self.phase else {
            // An answer to something that was given up.
            return Ok(Step::Pending);
        };
        let Some(at) = under_way.iter().position(|asked| *asked == entry) else { return Ok(Step::Pending) };
        self.objects.open(entry, bytes.clone()).map_err(Failure::Object)?;
        under_way.swap_remove(at);
        self.unshared.push((entry, bytes));
        if entry.kind() == Kind::Index {
            let known = |entry: &Entry| wanted.contains(entry) || under_way.contains(entry);
            let more: Vec<Entry> =
                self.objects.missing(manifest).into_iter().filter(|entry| !known(entry)).collect();
            wanted.extend(more);
        }
        self.finish_if_complete(now)
    }

    fn finish_if_complete(&mut self, now: u64) -> Result<Step, Failure> {
        match &self.phase {
            Phase::Fetching { manifest, wanted, under_way } if wanted.is_empty() && under_way.is_empty() => {
                self.install(manifest.clone())?;
                self.phase = Phase::Idle { until: now };
                Ok(Step::Ready(core::mem::take(&mut self.unshared)))
            }
            _ => Ok(Step::Pending),
        }
    }

    fn install(&mut self, manifest: Manifest) -> Result<(), Failure> {
        let snapshot = Snapshot::assemble(manifest, &self.objects).map_err(Failure::Incomplete)?;
        self.objects.keep_only(snapshot.manifest());
        self.unshared.retain(|(entry, _)| self.objects.holds(entry));
        self.current = Some(Arc::new(snapshot));
        Ok(())
    }

    fn is_newer(&self, manifest: &Manifest) -> bool {
        self.current.as_ref().is_none_or(|held| manifest.supersedes(held.manifest()))
    }

    /// Nothing new. Ask again at once if the control plane held the request, else after a while: a cache in between
    /// does not wait.
    fn rest(&mut self, now: u64) {
        self.failures = 0;
        let asked = match self.phase {
            Phase::Asked { at } => at,
            _ => now,
        };
        self.phase = Phase::Idle { until: now.max(asked.saturating_add(MIN_POLL_MS)) };
    }
}

fn seconds_between(earlier: u64, later: u64) -> u64 {
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

/// A manifest from further in the future would stay fresh too long for this edge's clock.
const MAX_SKEW_MS: u64 = 60_000;

/// Calls at once: 16 objects of 64 KiB are 1 MiB of buffers in the proxy.
const MAX_UNDER_WAY: usize = 16;
