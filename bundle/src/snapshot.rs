//! The assembled bundle of an edge.

use alloc::{sync::Arc, vec::Vec};
use core::fmt;

use token::{Fingerprint, VerifyingKey, api_key::GenerationKey};

use crate::{
    Block, Checkpoint, Entry, Gap, Manifest, Object, Objects, Scope, ScopeKey, base, grants,
    keys::is_ambiguous, revocations, shards::Shards, tail, watermarks,
};

/// Everything that an edge knows at one version: a manifest and all objects that it names.
#[derive(Debug, Clone)]
pub struct Snapshot {
    manifest: Manifest,
    state: Arc<CheckpointState>,
    tail: Vec<Arc<tail::TailSegment>>,
    fresh_until: u64,
    refresh_due_at: u64,
}

/// The content of a checkpoint, which many manifests share.
#[derive(Debug)]
struct CheckpointState {
    entry: Entry,
    checkpoint: Arc<Checkpoint>,
    /// Sorted by issuer, then kid, then algorithm.
    keys: Vec<VerifyingKey>,
    /// Each generation once.
    generations: Vec<GenerationKey>,
    key_set: Fingerprint,
    revocations: Shards<revocations::PrefixShard>,
    watermarks: Shards<watermarks::WatermarkShard>,
    /// `None` if there are no un-revocations.
    unrevocations: Option<Shards<revocations::PrefixShard>>,
    /// Empty unless the database of the control plane was restored from a backup.
    gaps: Vec<Gap>,
    /// The known fingerprints of credentials that were issued in a gap.
    known: Option<Shards<revocations::PrefixShard>>,
    /// `None` if there are no grants.
    grants: Option<Shards<grants::GrantShard>>,
    /// Whether there are watermarks of holders of other issuers.
    has_holders: bool,
    blocks: Vec<(Arc<Block>, Shards<base::RibbonShard>)>,
    /// Blocks without shards, because their credentials have expired. If the clock is set back, it is unknown which of
    /// them are revoked, so all of them are refused until the shards are fetched again.
    expired_blocks: Vec<Arc<Block>>,
}

impl Snapshot {
    /// Assembles the first snapshot of an edge. `now` is in milliseconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// [`Incomplete`] if an object is missing or the objects contradict each other.
    pub fn assemble(manifest: Manifest, objects: &Objects, now: u64) -> Result<Self, Incomplete> {
        let state = Arc::new(CheckpointState::assemble(&manifest, objects, now)?);
        Self::with_state(state, manifest, objects)
    }

    /// Assembles the snapshot that replaces this one. `now` is in milliseconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// [`AdvanceError::Incomplete`] as in [`assemble`](Self::assemble), and [`AdvanceError::Regression`] if the edge would
    /// lose information.
    pub fn advance(&self, manifest: Manifest, objects: &Objects, now: u64) -> Result<Self, AdvanceError> {
        let same = self.state.entry == *manifest.checkpoint()
            && self.state.checkpoint.is_signed_under(manifest.delegation())
            && !self.state.blocks.iter().any(|(block, _)| block.expiry_range().has_expired(now))
            && self.state.expired_blocks.iter().all(|block| block.expiry_range().has_expired(now));
        let state = match same {
            true => Arc::clone(&self.state),
            false => Arc::new(CheckpointState::assemble(&manifest, objects, now)?),
        };
        let next = Self::with_state(state, manifest, objects)?;
        self.check_regression(&next)?;
        Ok(next)
    }

    fn with_state(
        state: Arc<CheckpointState>,
        manifest: Manifest,
        objects: &Objects,
    ) -> Result<Self, Incomplete> {
        let segment = |entry| match objects.object(entry) {
            Some(Object::Tail(segment)) => Some(Arc::clone(segment)),
            _ => None,
        };
        let tail = manifest.tail().iter().map(segment).collect::<Option<_>>();
        let tail = tail.ok_or(Incomplete("an object is missing"))?;
        let signed = [manifest.delegation().expires_at(), state.checkpoint.expires_at()];
        let fresh_until = signed.into_iter().fold(manifest.expires_at(), u64::min);
        let refresh_due_at = midpoint(manifest.issued_at(), fresh_until);
        Ok(Self { manifest, state, tail, fresh_until, refresh_due_at })
    }

    /// Bounds the freshness by the clock and the limit of this edge, regardless of the manifest's claim: a tail key, which is
    /// online, must not decide alone how long an edge accepts the absence of news about revocations.
    ///
    /// The lifetime is the one in the manifest, but at most `max_lifetime`. It starts at the time of signing or at
    /// `received_at`, whichever is earlier. Lifetimes are in milliseconds, instants in milliseconds since the Unix epoch.
    #[must_use]
    pub fn bound_freshness(mut self, received_at: u64, max_lifetime: u64) -> Self {
        let issued_at = self.manifest.issued_at();
        let lifetime = self.manifest.expires_at().saturating_sub(issued_at).min(max_lifetime);
        self.fresh_until = self.fresh_until.min(issued_at.min(received_at).saturating_add(lifetime));
        self.refresh_due_at = midpoint(received_at, self.fresh_until);
        self
    }

    /// Rejects a successor with which a stolen key, a cache or an attacker on the network would undo a revocation.
    fn check_regression(&self, next: &Self) -> Result<(), Regression> {
        next.manifest.check_successor_of(&self.manifest)?;
        if next.manifest.delegation().epoch() > self.manifest.delegation().epoch() {
            // The root key has authorized new keys, so the counters of the old ones no longer apply.
            return Ok(());
        }
        let [held, offered] = [self, next].map(|one| one.checkpoint().version());
        if offered < held {
            return Err(Regression::Checkpoint { held, offered });
        }
        let kept =
            |segment: &&Arc<tail::TailSegment>| next.tail.iter().any(|other| Arc::ptr_eq(segment, other));
        let mut changed = self.tail.iter().filter(|segment| !kept(segment));
        match changed.any(|segment| segment.is_missing_from(next.checkpoint().covered_until(), &next.tail)) {
            true => Err(Regression::Tail),
            false => Ok(()),
        }
    }

    /// Returns the manifest.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the checkpoint.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.state.checkpoint
    }

    /// Returns the end of freshness, in milliseconds since the Unix epoch: the earliest expiry of manifest, checkpoint and
    /// delegation, or the bound of [`bound_freshness`](Self::bound_freshness) if that is earlier.
    pub const fn expires_at(&self) -> u64 {
        self.fresh_until
    }

    /// Returns the middle of the period of freshness, in milliseconds since the Unix epoch. By then an edge should have
    /// received a newer manifest.
    pub const fn refresh_due_at(&self) -> u64 {
        self.refresh_due_at
    }

    /// Returns a hash of all keys and of what selects them. While it is the same, [`key`](Self::key),
    /// [`issuer_key`](Self::issuer_key) and [`generation_key`](Self::generation_key) return the same keys.
    pub fn key_set(&self) -> &Fingerprint {
        &self.state.key_set
    }

    /// Returns the token key of this deployment with this kid.
    pub fn key(&self, kid: &str) -> Option<&VerifyingKey> {
        let keys = &self.state.keys;
        let at = keys.binary_search_by(|key| (key.issuer(), key.kid()).cmp(&(None, kid))).ok()?;
        keys.get(at)
    }

    /// Returns the key of another issuer for a token with this kid, empty if the token has none, and this algorithm.
    ///
    /// A kid selects no key of another kid. The only key of the algorithm is for tokens without a kid, and, if it has no
    /// kid itself, for all tokens of the issuer.
    ///
    /// # Errors
    ///
    /// [`NoKey`] if there is none, or more than one.
    pub fn issuer_key(&self, issuer: &str, kid: &str, algorithm: &str) -> Result<&VerifyingKey, NoKey> {
        let keys = &self.state.keys;
        if !kid.is_empty()
            && let Ok(at) = keys.binary_search_by(|key| sort_key(key).cmp(&(Some(issuer), kid, algorithm)))
        {
            return keys.get(at).ok_or(NoKey::Unknown);
        }
        let (mut only, mut has_more, mut is_meant) = (None, false, false);
        for key in keys.iter().filter(|key| key.issuer() == Some(issuer)) {
            if key.algorithm().name() == algorithm {
                has_more |= only.replace(key).is_some();
            }
            is_meant |= kid.is_empty() || key.kid() == kid;
        }
        match only {
            Some(key) if !has_more && (kid.is_empty() || key.kid().is_empty()) => Ok(key),
            Some(_) if kid.is_empty() => Err(NoKey::Ambiguous),
            _ if is_meant => Err(NoKey::AlgorithmMismatch),
            _ => Err(NoKey::Unknown),
        }
    }

    /// Returns the key that verifies the API keys of this generation.
    pub fn generation_key(&self, generation: u8) -> Option<&GenerationKey> {
        self.state.generations.iter().find(|key| key.generation() == generation)
    }

    /// Returns the revocation status of a credential. `kid`, `iat` and `expiry` determine which blocks of the base cover it.
    /// Instants are in seconds since the Unix epoch; without `expiry` the credential never expires.
    ///
    /// The sources are consulted from the newest to the oldest, so the latest change decides.
    pub fn revocation_status(
        &self,
        fingerprint: &Fingerprint,
        kid: &str,
        iat: u64,
        expiry: Option<u64>,
    ) -> RevocationStatus {
        let CheckpointState { revocations, unrevocations, blocks, expired_blocks, .. } = &*self.state;
        let prefix = fingerprint.prefix();
        if self.tail.iter().any(|segment| segment.revokes(prefix))
            || revocations.get(prefix).is_none_or(|shard| shard.contains(prefix) != Some(false))
        {
            return RevocationStatus::Revoked;
        }
        let unrevoked = unrevocations.as_ref().and_then(|shards| shards.get(prefix)?.contains(prefix));
        if unrevoked == Some(true) {
            return RevocationStatus::Good;
        }
        if expired_blocks.iter().any(|block| block.covers(kid, iat, expiry)) {
            return RevocationStatus::Revoked;
        }
        let covering = blocks.iter().filter(|(block, _)| block.covers(kid, iat, expiry));
        let mut status = RevocationStatus::NotCovered;
        for (_, shards) in covering {
            match shards.get(prefix).is_none_or(|shard| shard.contains(fingerprint)) {
                true => return RevocationStatus::Revoked,
                false => status = RevocationStatus::Good,
            }
        }
        status
    }

    /// Returns whether a credential was issued in a [`Gap`] and is not among the known ones. Applies only to credentials of
    /// this deployment: those of another issuer are never recorded.
    pub fn is_issuance_unknown(&self, fingerprint: &Fingerprint, issued_at: u64) -> bool {
        let CheckpointState { gaps, known, .. } = &*self.state;
        if !gaps.iter().any(|gap| gap.contains(issued_at)) {
            return false;
        }
        let prefix = fingerprint.prefix();
        known.as_ref().and_then(|shards| shards.get(prefix)?.contains(prefix)) != Some(true)
    }

    /// Returns the latest watermark among the scopes of a credential, in seconds since the Unix epoch.
    pub fn watermark(&self, scopes: impl IntoIterator<Item = impl Into<ScopeKey>>) -> Option<u64> {
        // Most segments have no watermarks.
        let tail = self.tail.iter().filter(|segment| segment.has_watermarks());
        let instant = |key: ScopeKey| {
            let in_checkpoint = self.state.watermarks.get(key.word()).and_then(|shard| shard.instant(key));
            in_checkpoint.max(tail.clone().filter_map(|segment| segment.instant(key)).max())
        };
        scopes.into_iter().map(Into::into).filter_map(instant).max()
    }

    /// Returns whether the bundle can have a watermark of [`Scope::Issuer`], [`Scope::Client`], [`Scope::IssuerSession`] or
    /// [`Scope::TokenId`]. If not, these scopes need not be looked up.
    pub fn has_holders(&self) -> bool {
        self.state.has_holders || self.tail.iter().any(|segment| segment.has_watermarks())
    }

    /// Returns the permission statements of the subject, as they were passed to the builder, or `None` without a grant.
    pub fn grant(&self, subject: &str) -> Option<&[u8]> {
        self.grant_by_key(Scope::User(subject).into())
    }

    /// Like [`grant`](Self::grant), for the hashed scope of the subject.
    pub fn grant_by_key(&self, subject: ScopeKey) -> Option<&[u8]> {
        self.state.grants.as_ref()?.get(subject.word())?.get(subject)
    }
}

impl CheckpointState {
    fn assemble(manifest: &Manifest, objects: &Objects, now: u64) -> Result<Self, Incomplete> {
        if !objects.missing(manifest, now).is_empty() {
            return Err(Incomplete("an object is missing"));
        }
        let checkpoint = objects.checkpoint(manifest).ok_or(Incomplete("an object is missing"))?;
        let mut keys: Vec<VerifyingKey> = Vec::new();
        let mut generations: Vec<GenerationKey> = Vec::new();
        let mut blocks = Vec::new();
        let mut expired_blocks = Vec::new();
        let [mut revocations, mut unrevocations] = [Vec::new(), Vec::new()];
        let mut watermarks = Vec::new();
        let mut grants = Vec::new();
        let mut gaps = Vec::new();
        let mut known = Vec::new();
        let mut has_holders = false;
        let entries = checkpoint.entries().iter().flat_map(|entry| match objects.object(entry) {
            Some(Object::Index(entries)) => entries.as_slice(),
            _ => core::slice::from_ref(entry),
        });
        for entry in entries {
            match objects.object(entry) {
                Some(Object::Keys(held)) => {
                    for key in &held.verifying {
                        let at = keys.partition_point(|known| sort_key(known) < sort_key(key));
                        // The keys of one kid are beside each other.
                        let neighbors = keys.get(at.saturating_sub(1)..).unwrap_or_default().iter().take(2);
                        if neighbors.into_iter().any(|known| is_ambiguous(known, key)) {
                            return Err(Incomplete("duplicate kid"));
                        }
                        keys.insert(at, key.clone());
                    }
                    for key in &held.generations {
                        // Otherwise the order of the keys would decide between a signature and an HMAC tag.
                        if generations.iter().any(|known| known.generation() == key.generation()) {
                            return Err(Incomplete("duplicate generation"));
                        }
                        generations.push(key.clone());
                    }
                }
                Some(Object::Revocations(shard)) => revocations.push((entry.shard(), Arc::clone(shard))),
                Some(Object::Watermarks(shard)) => watermarks.push((entry.shard(), Arc::clone(shard))),
                Some(Object::Unrevocations(shard)) => unrevocations.push((entry.shard(), Arc::clone(shard))),
                Some(Object::Grants(shard)) => grants.push((entry.shard(), Arc::clone(shard))),
                Some(Object::Gaps(held)) => gaps.extend(held),
                Some(Object::Known(shard)) => known.push((entry.shard(), Arc::clone(shard))),
                Some(Object::Requirements(_)) => has_holders = true,
                Some(Object::Block(block)) if !block.expiry_range().has_expired(now) => {
                    blocks.push((Arc::clone(block), block_shards(block, objects)?));
                }
                Some(Object::Block(block)) => expired_blocks.push(Arc::clone(block)),
                // Kinds that a checkpoint or an index cannot name.
                Some(Object::Base(_) | Object::Tail(_) | Object::Checkpoint(_) | Object::Index(_)) | None => {
                }
            }
        }
        if keys.is_empty() {
            return Err(Incomplete("no keys"));
        }
        Ok(Self {
            entry: *manifest.checkpoint(),
            checkpoint: Arc::clone(checkpoint),
            key_set: hash_keys(&keys, &generations),
            keys,
            generations,
            revocations: Shards::from_all(revocations)
                .ok_or(Incomplete("invalid set of revocation shards"))?,
            watermarks: Shards::from_all(watermarks).ok_or(Incomplete("invalid set of watermark shards"))?,
            unrevocations: Shards::from_all_or_none(unrevocations)
                .ok_or(Incomplete("invalid set of un-revocation shards"))?,
            gaps,
            known: Shards::from_all_or_none(known)
                .ok_or(Incomplete("invalid set of shards of known fingerprints"))?,
            grants: Shards::from_all_or_none(grants).ok_or(Incomplete("invalid set of grant shards"))?,
            has_holders,
            blocks,
            expired_blocks,
        })
    }
}

/// Returns the middle of a period.
const fn midpoint(from: u64, to: u64) -> u64 {
    from.saturating_add(to.saturating_sub(from).div_euclid(2))
}

/// Returns the shards of a block.
fn block_shards(block: &Block, objects: &Objects) -> Result<Shards<base::RibbonShard>, Incomplete> {
    let shard = |entry: &Entry| match objects.object(entry) {
        Some(Object::Base(shard)) => Some((entry.shard(), Arc::clone(shard))),
        _ => None,
    };
    let shards = block.shards().iter().map(shard).collect::<Option<_>>();
    shards.and_then(Shards::from_all).ok_or(Incomplete("invalid set of block shards"))
}

/// Returns the sort key of the token keys.
fn sort_key(key: &VerifyingKey) -> (Option<&str>, &str, &str) {
    (key.issuer(), key.kid(), key.algorithm().name())
}

/// Returns a hash of keys. The number of keys and the length of every text are encoded, so that the encoding is
/// unambiguous.
fn hash_keys(keys: &[VerifyingKey], generations: &[GenerationKey]) -> Fingerprint {
    let mut encoded = Vec::from(u64::try_from(keys.len()).unwrap_or(u64::MAX).to_be_bytes());
    for key in keys {
        let issuer = key.issuer();
        encoded.push(u8::from(issuer.is_some()));
        for text in [issuer.unwrap_or_default(), key.kid(), key.algorithm().name()] {
            encoded.extend(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            encoded.extend(text.as_bytes());
        }
        encoded.extend(key.thumbprint());
    }
    for key in generations {
        encoded.push(key.generation());
        encoded.extend(key.thumbprint());
    }
    Fingerprint::digest(&encoded)
}

/// Why no key of another issuer is for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoKey {
    /// No key has the kid, and no key without a kid is the only one of its algorithm.
    Unknown,
    /// The keys that the token could mean have other algorithms.
    AlgorithmMismatch,
    /// The token names no key, and there is more than one of its algorithm.
    Ambiguous,
}

/// The revocation status of a credential at an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationStatus {
    /// The base covers the credential and it is not revoked, or it was un-revoked.
    Good,
    /// The credential is revoked.
    Revoked,
    /// No revocation is known, and no block of the base covers the credential.
    NotCovered,
}

/// The objects of a manifest do not form a snapshot. Contains the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incomplete(pub &'static str);

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the bundle is incomplete: {}", self.0)
    }
}

impl core::error::Error for Incomplete {}

/// The information that an edge would lose with a new manifest. Only a higher epoch, signed by a root key, allows that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Regression {
    /// The epoch is lower.
    Epoch {
        /// The epoch that the edge has.
        held: u64,
        /// The epoch of the new manifest.
        offered: u64,
    },
    /// The version is lower, or the same and not signed later.
    Version {
        /// The version that the edge has.
        held: u64,
        /// The version of the new manifest.
        offered: u64,
    },
    /// The version of the checkpoint is lower.
    Checkpoint {
        /// The version of the checkpoint that the edge has.
        held: u64,
        /// The version of the new checkpoint.
        offered: u64,
    },
    /// An operation of the tail is missing that the new checkpoint does not include.
    Tail,
}

impl Regression {
    /// Returns the stable code for metrics and logs.
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
            Self::Epoch { held, offered } => {
                write!(f, "epoch {offered} is older than the current epoch {held}")
            }
            Self::Version { held, offered } => {
                write!(f, "version {offered} is not newer than the current version {held}")
            }
            Self::Checkpoint { held, offered } => {
                write!(f, "checkpoint version {offered} is older than the current version {held}")
            }
            Self::Tail => {
                f.write_str("an operation of the tail is missing that the checkpoint does not include")
            }
        }
    }
}

impl core::error::Error for Regression {}

/// Why a manifest does not replace the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdvanceError {
    /// The objects do not form a snapshot.
    Incomplete(Incomplete),
    /// The edge would lose information.
    Regression(Regression),
}

impl From<Incomplete> for AdvanceError {
    fn from(incomplete: Incomplete) -> Self {
        Self::Incomplete(incomplete)
    }
}

impl From<Regression> for AdvanceError {
    fn from(regression: Regression) -> Self {
        Self::Regression(regression)
    }
}
