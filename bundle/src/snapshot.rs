use alloc::{sync::Arc, vec::Vec};
use core::fmt;

use token::{Fingerprint, VerifyingKey, api_key::GenerationKey};

use crate::{
    Block, Checkpoint, Entry, Gap, Manifest, Object, Objects, Scope, ScopeKey, base, grants, revocations,
    shards::Shards, tail, watermarks,
};

/// Everything an edge knows at one version: a manifest and all the objects it names.
#[derive(Debug, Clone)]
pub struct Snapshot {
    manifest: Manifest,
    settled: Arc<Settled>,
    tail: Vec<Arc<tail::Segment>>,
    fresh_until: u64,
    half_life: u64,
}

/// What the checkpoint names: the same for many manifests.
#[derive(Debug)]
struct Settled {
    entry: Entry,
    checkpoint: Arc<Checkpoint>,
    /// Sorted by issuer, then kid.
    keys: Vec<VerifyingKey>,
    /// Each generation once.
    generations: Vec<GenerationKey>,
    revocations: Shards<revocations::Shard>,
    watermarks: Shards<watermarks::Shard>,
    /// None where nothing was restored.
    restorations: Option<Shards<revocations::Shard>>,
    /// None in nearly every bundle: no database was ever restored.
    gaps: Vec<Gap>,
    /// Issued in a gap, and known.
    known: Option<Shards<revocations::Shard>>,
    /// None where nobody was granted anything.
    grants: Option<Shards<grants::Shard>>,
    blocks: Vec<(Arc<Block>, Shards<base::Shard>)>,
    /// Blocks whose shards were let go because their credentials have expired. A clock may be set back again: which of
    /// them are revoked is not known then, so all are refused until the shards are back.
    over: Vec<Arc<Block>>,
}

impl Snapshot {
    /// What is known without a predecessor. `now` in milliseconds.
    pub fn assemble(manifest: Manifest, objects: &Objects, now: u64) -> Result<Self, Incomplete> {
        let settled = Arc::new(Settled::assemble(&manifest, objects, now)?);
        Self::over(settled, manifest, objects)
    }

    /// What is known after this one. Refused if this edge would forget what it knows, see [`Regression`]. `now` in
    /// milliseconds.
    pub fn follow(&self, manifest: Manifest, objects: &Objects, now: u64) -> Result<Self, Rejected> {
        let same = self.settled.entry == *manifest.checkpoint()
            && self.settled.checkpoint.is_by(manifest.delegation())
            && !self.settled.blocks.iter().any(|(block, _)| block.span().is_over(now))
            && self.settled.over.iter().all(|block| block.span().is_over(now));
        let settled = match same {
            true => Arc::clone(&self.settled),
            false => Arc::new(Settled::assemble(&manifest, objects, now)?),
        };
        let next = Self::over(settled, manifest, objects)?;
        self.check(&next)?;
        Ok(next)
    }

    fn over(settled: Arc<Settled>, manifest: Manifest, objects: &Objects) -> Result<Self, Incomplete> {
        let segment = |entry| match objects.object(entry) {
            Some(Object::Tail(segment)) => Some(Arc::clone(segment)),
            _ => None,
        };
        let tail = manifest.tail().iter().map(segment).collect::<Option<_>>();
        let tail = tail.ok_or(Incomplete("an object is missing"))?;
        let signed = [manifest.delegation().expires_at(), settled.checkpoint.expires_at()];
        let fresh_until = signed.into_iter().fold(manifest.expires_at(), u64::min);
        let half_life = middle(manifest.issued_at(), fresh_until);
        Ok(Self { manifest, settled, tail, fresh_until, half_life })
    }

    /// Bounds freshness by this edge's own clock and its own limit, whatever the manifest claims: a tail key, which is
    /// online, does not decide alone how long an edge goes on without hearing of revocations.
    ///
    /// The lifetime that the manifest claims, `max_lifetime` at most, counts from when it was issued or from when it was
    /// received, whichever is earlier. All in milliseconds, instants since the Unix epoch.
    #[must_use]
    pub fn received(mut self, received_at: u64, max_lifetime: u64) -> Self {
        let issued_at = self.manifest.issued_at();
        let lifetime = self.manifest.expires_at().saturating_sub(issued_at).min(max_lifetime);
        self.fresh_until = self.fresh_until.min(issued_at.min(received_at).saturating_add(lifetime));
        self.half_life = middle(received_at, self.fresh_until);
        self
    }

    /// What a key that was stolen, a cache or somebody on the way could take back.
    fn check(&self, next: &Self) -> Result<(), Regression> {
        next.manifest.may_follow(&self.manifest)?;
        if next.manifest.delegation().epoch() > self.manifest.delegation().epoch() {
            // The root vouches for other keys: what the old ones may have counted up binds nobody.
            return Ok(());
        }
        let [held, offered] = [self, next].map(|one| one.checkpoint().version());
        if offered < held {
            return Err(Regression::Checkpoint { held, offered });
        }
        let kept = |segment: &&Arc<tail::Segment>| next.tail.iter().any(|other| Arc::ptr_eq(segment, other));
        let mut changed = self.tail.iter().filter(|segment| !kept(segment));
        match changed.any(|segment| segment.is_lost(next.checkpoint().cut(), &next.tail)) {
            true => Err(Regression::Tail),
            false => Ok(()),
        }
    }

    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn checkpoint(&self) -> &Checkpoint {
        &self.settled.checkpoint
    }

    /// When it stops being fresh: the earliest end of manifest, checkpoint and delegation, and of what
    /// [`received`](Self::received) allows. Milliseconds since the Unix epoch.
    pub const fn expires_at(&self) -> u64 {
        self.fresh_until
    }

    /// The middle of the time that it is fresh at this edge: a newer one should have come by then. Milliseconds since the
    /// Unix epoch.
    pub const fn half_life(&self) -> u64 {
        self.half_life
    }

    /// A key of our own.
    pub fn key(&self, kid: &str) -> Option<&VerifyingKey> {
        self.named((None, kid))
    }

    /// A key of another issuer.
    pub fn key_of(&self, issuer: &str, kid: &str) -> Option<&VerifyingKey> {
        self.named((Some(issuer), kid))
    }

    /// What the API keys of this generation are checked with.
    pub fn generation_key(&self, generation: u8) -> Option<&GenerationKey> {
        self.settled.generations.iter().find(|key| key.generation() == generation)
    }

    fn named(&self, wanted: (Option<&str>, &str)) -> Option<&VerifyingKey> {
        let keys = &self.settled.keys;
        let at = keys.binary_search_by(|key| name(key).cmp(&wanted)).ok()?;
        keys.get(at)
    }

    /// What is known of a credential by its fingerprint; the rest says whether a base covers it. Instants in seconds;
    /// no expiry is never.
    ///
    /// The order is that of their age, youngest first, so that the last word counts.
    pub fn standing(&self, fingerprint: &Fingerprint, kid: &str, iat: u64, expiry: Option<u64>) -> Standing {
        let Settled { revocations, restorations, blocks, over, .. } = &*self.settled;
        let prefix = fingerprint.prefix();
        if self.tail.iter().any(|segment| segment.revokes(prefix))
            || revocations.of(prefix).is_none_or(|shard| shard.find(prefix) != Some(false))
        {
            return Standing::Revoked;
        }
        let restored = restorations.as_ref().and_then(|shards| shards.of(prefix)?.find(prefix));
        if restored == Some(true) {
            return Standing::Good;
        }
        if over.iter().any(|block| block.covers(kid, iat, expiry)) {
            return Standing::Revoked;
        }
        let covering = blocks.iter().filter(|(block, _)| block.covers(kid, iat, expiry));
        let mut standing = Standing::NotCovered;
        for (_, shards) in covering {
            match shards.of(prefix).is_none_or(|shard| shard.contains(fingerprint)) {
                true => return Standing::Revoked,
                false => standing = Standing::Good,
            }
        }
        standing
    }

    /// Whether a credential of ours was issued in a gap and is not known. Ours alone: what another issuer issues is never
    /// known here.
    pub fn is_lost(&self, fingerprint: &Fingerprint, issued_at: u64) -> bool {
        let Settled { gaps, known, .. } = &*self.settled;
        if !gaps.iter().any(|gap| gap.holds(issued_at)) {
            return false;
        }
        let prefix = fingerprint.prefix();
        known.as_ref().and_then(|shards| shards.of(prefix)?.find(prefix)) != Some(true)
    }

    /// The latest instant of all the scopes a credential belongs to: none may shadow another.
    pub fn watermark(&self, scopes: impl IntoIterator<Item = impl Into<ScopeKey>>) -> Option<u64> {
        let instant = |key: ScopeKey| {
            let settled = self.settled.watermarks.of(key.word()).and_then(|shard| shard.instant(key));
            settled.max(self.tail.iter().filter_map(|segment| segment.instant(key)).max())
        };
        scopes.into_iter().map(Into::into).filter_map(instant).max()
    }

    /// What the subject was granted, as it was handed to the builder; None when nothing was.
    pub fn grant(&self, subject: &str) -> Option<&[u8]> {
        self.grant_of(Scope::User(subject).into())
    }

    /// As [`Self::grant`], for a subject whose scope was hashed before.
    pub fn grant_of(&self, subject: ScopeKey) -> Option<&[u8]> {
        self.settled.grants.as_ref()?.of(subject.word())?.of(subject)
    }
}

impl Settled {
    fn assemble(manifest: &Manifest, objects: &Objects, now: u64) -> Result<Self, Incomplete> {
        if !objects.missing(manifest, now).is_empty() {
            return Err(Incomplete("an object is missing"));
        }
        let checkpoint = objects.checkpoint(manifest).ok_or(Incomplete("an object is missing"))?;
        let mut keys: Vec<VerifyingKey> = Vec::new();
        let mut generations: Vec<GenerationKey> = Vec::new();
        let mut blocks = Vec::new();
        let mut over = Vec::new();
        let [mut revocations, mut restorations] = [Vec::new(), Vec::new()];
        let mut watermarks = Vec::new();
        let mut grants = Vec::new();
        let mut gaps = Vec::new();
        let mut known = Vec::new();
        let entries = checkpoint.entries().iter().flat_map(|entry| match objects.object(entry) {
            Some(Object::Index(entries)) => entries.as_slice(),
            _ => core::slice::from_ref(entry),
        });
        for entry in entries {
            match objects.object(entry) {
                Some(Object::Keys(held)) => {
                    for key in &held.verifying {
                        match keys.binary_search_by(|known| name(known).cmp(&name(key))) {
                            Ok(_) => return Err(Incomplete("a kid stands twice")),
                            Err(at) => keys.insert(at, key.clone()),
                        }
                    }
                    for key in &held.generations {
                        // Else it depended on their order whether a signature is asked for or a tag.
                        if generations.iter().any(|known| known.generation() == key.generation()) {
                            return Err(Incomplete("a generation stands twice"));
                        }
                        generations.push(key.clone());
                    }
                }
                Some(Object::Revocations(shard)) => revocations.push((entry.shard(), Arc::clone(shard))),
                Some(Object::Watermarks(shard)) => watermarks.push((entry.shard(), Arc::clone(shard))),
                Some(Object::Restorations(shard)) => restorations.push((entry.shard(), Arc::clone(shard))),
                Some(Object::Grants(shard)) => grants.push((entry.shard(), Arc::clone(shard))),
                Some(Object::Gaps(held)) => gaps.extend(held),
                Some(Object::Known(shard)) => known.push((entry.shard(), Arc::clone(shard))),
                Some(Object::Block(block)) if !block.span().is_over(now) => {
                    blocks.push((Arc::clone(block), shards_of(block, objects)?));
                }
                Some(Object::Block(block)) => over.push(Arc::clone(block)),
                // What none of these lists may name.
                Some(Object::Base(_) | Object::Tail(_) | Object::Checkpoint(_) | Object::Index(_)) | None => {
                }
            }
        }
        if keys.is_empty() {
            return Err(Incomplete("there are no keys"));
        }
        Ok(Self {
            entry: *manifest.checkpoint(),
            checkpoint: Arc::clone(checkpoint),
            keys,
            generations,
            revocations: Shards::complete(revocations).ok_or(Incomplete("the shards of the revocations"))?,
            watermarks: Shards::complete(watermarks).ok_or(Incomplete("the shards of the watermarks"))?,
            restorations: Shards::any(restorations).ok_or(Incomplete("the shards of the restorations"))?,
            gaps,
            known: Shards::any(known).ok_or(Incomplete("the shards of what is known"))?,
            grants: Shards::any(grants).ok_or(Incomplete("the shards of the grants"))?,
            blocks,
            over,
        })
    }
}

const fn middle(from: u64, to: u64) -> u64 {
    from.saturating_add(to.saturating_sub(from).div_euclid(2))
}

fn shards_of(block: &Block, objects: &Objects) -> Result<Shards<base::Shard>, Incomplete> {
    let shard = |entry: &Entry| match objects.object(entry) {
        Some(Object::Base(shard)) => Some((entry.shard(), Arc::clone(shard))),
        _ => None,
    };
    let shards = block.shards().iter().map(shard).collect::<Option<_>>();
    shards.and_then(Shards::complete).ok_or(Incomplete("the shards of a block"))
}

fn name(key: &VerifyingKey) -> (Option<&str>, &str) {
    (key.issuer(), key.kid())
}

/// What the edge knows of a fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Good,
    Revoked,
    /// No revocation is known, and no base covers it.
    NotCovered,
}

/// What keeps a manifest from becoming a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incomplete(pub &'static str);

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the bundle is incomplete: {}", self.0)
    }
}

impl core::error::Error for Incomplete {}

/// What an edge that goes on running would forget. Only a higher epoch, which a root signs, may do that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Regression {
    Epoch {
        held: u64,
        offered: u64,
    },
    /// Or the same, issued earlier.
    Version {
        held: u64,
        offered: u64,
    },
    Checkpoint {
        held: u64,
        offered: u64,
    },
    /// An operation of the tail is gone that the checkpoint has not taken in.
    Tail,
}

impl Regression {
    pub const fn code(self) -> &'static str {
        match self {
            Self::Epoch { .. } => "epoch_older",
            Self::Version { .. } => "manifest_older",
            Self::Checkpoint { .. } => "checkpoint_older",
            Self::Tail => "tail_lost",
        }
    }
}

impl fmt::Display for Regression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epoch { held, offered } => write!(f, "epoch {offered} was offered where {held} is held"),
            Self::Version { held, offered } => {
                write!(f, "version {offered} was offered where {held} is held")
            }
            Self::Checkpoint { held, offered } => {
                write!(f, "a checkpoint of version {offered} was offered where {held} is held")
            }
            Self::Tail => f.write_str("the tail has lost an operation that no checkpoint has taken in"),
        }
    }
}

impl core::error::Error for Regression {}

/// Why a manifest does not follow the one that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    Incomplete(Incomplete),
    Regression(Regression),
}

impl From<Incomplete> for Rejected {
    fn from(incomplete: Incomplete) -> Self {
        Self::Incomplete(incomplete)
    }
}

impl From<Regression> for Rejected {
    fn from(regression: Regression) -> Self {
        Self::Regression(regression)
    }
}
