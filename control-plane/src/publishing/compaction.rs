//! Compaction: builds the blocks of the base from the issuance log and the revocations.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bundle::{
    Coverage, ExpiryRange,
    builder::{BlockBuilder, BlockError, BuiltBlock},
};
use token::Fingerprint;
use tokio::{
    sync::{Mutex, mpsc},
    task::spawn_blocking,
    time::sleep,
};

use super::queries as blocks;
use crate::{
    credentials::{coverage, issued},
    db::{NEVER_EXPIRES, StoreError, versions},
    domain::{Actor, BaseBlockRow, Event, UnixMillis, UnixSeconds, Version},
    keys::signing_keys,
    revocation::revocations,
    service::Service,
};

/// The width of a block in seconds of expiry. The tokens of two days, the longest lifetime, take nine blocks. A block is
/// dropped without a download when it expires, and built again only if credentials that it covers were revoked.
const BUCKET_SECS: u64 = 6 * 3600;

/// The duration of the build lease: a crashed builder blocks others for at most this. Building 100 million entries takes
/// minutes, so the lease is renewed.
const LEASE: Duration = Duration::from_secs(60);

/// How often the build lease is renewed.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(15);

/// Why the base could not be built.
#[derive(Debug, thiserror::Error)]
pub enum CompactBaseError {
    /// Another process is building it.
    #[error("another process is already building the base; retry when it has finished")]
    AlreadyRunning,
    /// The build lease expired during the build, so another process may have built the base in between.
    #[error("the build lease expired during the build; nothing was installed")]
    LeaseLost,
    /// A block cannot be built.
    #[error("cannot build the base: {0}")]
    Block(BlockError),
    /// The thread that builds the blocks panicked.
    #[error("the thread that builds the base panicked")]
    Panicked,
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CompactBaseError {
    /// Returns the error code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::AlreadyRunning => "rebase_under_way",
            Self::LeaseLost => "rebase_claim_lost",
            Self::Block(_) | Self::Panicked => "base_not_built",
            Self::Store(error) => error.code(),
        }
    }
}

impl From<BlockError> for CompactBaseError {
    fn from(error: BlockError) -> Self {
        Self::Block(error)
    }
}

/// The result of a compaction. Blocks without new revocations are not built again.
#[derive(Debug)]
pub struct Compaction {
    /// The first bundle with the new blocks; `None` if none was built.
    pub version: Option<Version>,
    /// The new blocks.
    pub blocks: Vec<BaseBlockRow>,
    /// The size of the new blocks.
    pub bytes: usize,
}

/// Builds the blocks of the base that have new revocations.
///
/// ```text
/// 1. lease            one of several servers builds
/// 2. coverage         durable: from now on no token is issued at or before this second
/// 3. read             one transaction streams all issued credentials by prefix, and which of them are revoked
/// 4. install          blocks, version, checkpoint in one transaction
/// ```
/// The lease is short, renewed during the build, and released in the transaction of step 4, so a builder whose lease
/// expired while it was paused cannot overwrite a newer build.
///
/// A crash before step 4 leaves the old base, and a coverage whose only effect is that tokens are dated a second later.
/// Revocations and un-revocations during the build have a later version than the blocks, so they stay in the revocation
/// list.
pub async fn compact_base(service: &Service, actor: &Actor) -> Result<Compaction, CompactBaseError> {
    let lease = BuildLease::acquire(service).await?;
    let done = tokio::select! {
        done = build_base(service, actor, &lease) => done,
        lost = lease.renew_until_lost(service) => Err(lost),
    };
    if !matches!(done, Ok(Compaction { version: Some(_), .. })) {
        lease.release(service).await?;
    }
    done
}

/// The exclusive right to build the base.
struct BuildLease {
    /// When the lease expires. The mutex is locked until the commit of each transaction that reads or changes it.
    until: Mutex<UnixMillis>,
}

impl BuildLease {
    async fn acquire(service: &Service) -> Result<Self, CompactBaseError> {
        let now = service.now();
        let until = now.plus(LEASE);
        let mut upkeep = service.upkeep().await?;
        if !versions::acquire_build_lease(upkeep.db(), now, until).await? {
            return Err(CompactBaseError::AlreadyRunning);
        }
        upkeep.commit().await?;
        Ok(Self { until: Mutex::new(until) })
    }

    /// Renews the lease periodically, and returns when it is lost.
    async fn renew_until_lost(&self, service: &Service) -> CompactBaseError {
        loop {
            sleep(RENEWAL_INTERVAL).await;
            match self.renew(service).await {
                Ok(true) => {}
                Ok(false) => return CompactBaseError::LeaseLost,
                // The lease is still valid for a while, and is checked again when the blocks are installed.
                Err(error) => tracing::warn!(error.code = error.code(), "cannot renew the build lease"),
            }
        }
    }

    /// Renews the lease. Returns `false` if it was lost.
    async fn renew(&self, service: &Service) -> Result<bool, StoreError> {
        let mut held = self.until.lock().await;
        let until = service.now().plus(LEASE);
        let mut upkeep = service.upkeep().await?;
        let renewed = versions::renew_build_lease(upkeep.db(), *held, until).await?;
        upkeep.commit().await?;
        if renewed {
            *held = until;
        }
        Ok(renewed)
    }

    async fn release(&self, service: &Service) -> Result<(), StoreError> {
        let held = self.until.lock().await;
        let mut upkeep = service.upkeep().await?;
        versions::release_build_lease(upkeep.db(), *held).await?;
        upkeep.commit().await
    }
}

/// Builds the base if enough revocations are outside it and no other process is building it.
pub async fn compact_base_if_due(service: &Service) -> Result<Option<Compaction>, CompactBaseError> {
    let after = usize::try_from(service.config.publisher.compact_after).unwrap_or(usize::MAX);
    if after == 0 {
        return Ok(None);
    }
    let kids = list_own_kids(service).await?;
    let outside = revocations::expiries_outside_base(&mut service.store.reader().await?, &kids).await?;
    if outside.len() < after {
        return Ok(None);
    }
    match compact_base(service, &Actor::System).await {
        Err(CompactBaseError::AlreadyRunning) => Ok(None),
        done => done.map(Some),
    }
}

/// Does steps 2 to 4 of [`compact_base`].
async fn build_base(
    service: &Service,
    actor: &Actor,
    lease: &BuildLease,
) -> Result<Compaction, CompactBaseError> {
    let kids = list_own_kids(service).await?;
    let mut upkeep = service.upkeep().await?;
    // The second is in the past, so tokens that are issued at this moment are rarely affected.
    let high = coverage::latest_issued_second(upkeep.db(), service.now().seconds()).await?;
    coverage::raise_floor(upkeep.db(), &kids, high).await?;
    upkeep.commit().await?;

    let mut read = service.store.read().await?;
    let as_of = versions::current(&mut read).await?.number;
    let now = service.now();
    let wanted = expiry_buckets(revocations::expiries_outside_base(&mut read, &kids).await?, now);
    if wanted.is_empty() {
        return Ok(Compaction { version: None, blocks: Vec::new(), bytes: 0 });
    }
    let coverage: Vec<Coverage> =
        kids.iter().map(|kid| Coverage { kid: kid.clone(), iat_low: 0, iat_high: high.get() }).collect();
    // The first pass counts the entries of each block, which determines the sizes of its shards.
    let mut sizes: BTreeMap<UnixSeconds, (usize, usize)> = BTreeMap::new();
    let is_covered = |kid: &String, issued_at: UnixSeconds| issued_at <= high && kids.contains(kid);
    let mut from = Some(0);
    while let Some(prefix) = from {
        let (members, next) = issued::page_by_prefix(&mut read, prefix).await?;
        for member in members.iter().filter(|member| is_covered(&member.kid, member.issued_at)) {
            let (revoked, good) = sizes.entry(expiry_bucket(member.expires_at)).or_default();
            *if member.revoked { revoked } else { good } += 1;
        }
        from = next;
    }
    let mut builders = BTreeMap::new();
    for expires_from in wanted {
        let (revoked, good) = sizes.get(&expires_from).copied().unwrap_or_default();
        // The last block contains what never expires.
        let next = Some(expires_from.saturating_add(BUCKET_SECS)).filter(|next| *next <= NEVER_EXPIRES);
        let span = ExpiryRange {
            expires_from: expires_from.get(),
            expires_before: next.map_or(u64::MAX, UnixSeconds::get),
        };
        let seed = format!("{expires_from}-{as_of}");
        builders
            .insert(expires_from, BlockBuilder::new(span, coverage.clone(), revoked, good, seed.as_bytes())?);
    }
    // Building is too much work for the threads that serve requests.
    let (sender, receiver) = mpsc::channel(4);
    let building = spawn_blocking(move || build_blocks(builders, receiver));
    let mut from = Some(0);
    while let Some(prefix) = from {
        let (members, next) = issued::page_by_prefix(&mut read, prefix).await?;
        let members = members.into_iter().filter(|member| is_covered(&member.kid, member.issued_at));
        let batch: CredentialBatch = members
            .map(|member| (expiry_bucket(member.expires_at), member.fingerprint, member.revoked))
            .collect();
        if sender.send(batch).await.is_err() {
            break;
        }
        from = next;
    }
    drop((sender, read));
    let built = building.await.map_err(|_| CompactBaseError::Panicked)??;
    install_blocks(service, actor, lease, built, (as_of, high), &kids).await
}

/// Expiry bucket, fingerprint, and whether it is revoked.
type CredentialBatch = Vec<(UnixSeconds, Fingerprint, bool)>;

/// Builds the blocks from batches.
fn build_blocks(
    mut builders: BTreeMap<UnixSeconds, BlockBuilder>,
    mut receiver: mpsc::Receiver<CredentialBatch>,
) -> Result<Vec<BuiltBlock>, BlockError> {
    while let Some(batch) = receiver.blocking_recv() {
        for (bucket, fingerprint, revoked) in batch {
            if let Some(builder) = builders.get_mut(&bucket) {
                builder.add(fingerprint, revoked)?;
            }
        }
    }
    builders.into_values().map(BlockBuilder::finish).collect()
}

/// Installs the blocks in one transaction, which also releases the lease.
async fn install_blocks(
    service: &Service,
    actor: &Actor,
    lease: &BuildLease,
    built: Vec<BuiltBlock>,
    (as_of, high): (Version, UnixSeconds),
    kids: &[String],
) -> Result<Compaction, CompactBaseError> {
    let coverage: Vec<(String, UnixSeconds)> = kids.iter().map(|kid| (kid.clone(), high)).collect();
    let held = lease.until.lock().await;
    let mut change = service.change(actor).await?;
    let (version, now) = (change.version(), change.now());
    if !versions::release_build_lease(change.db(), *held).await? {
        return Err(CompactBaseError::LeaseLost);
    }
    versions::mark_checkpoint(change.db(), version).await?;
    let mut rows = Vec::new();
    let mut bytes = 0;
    for block in built {
        let ExpiryRange { expires_from, expires_before } = block.expiry_range();
        let row = BaseBlockRow {
            expires_from: expires_from.into(),
            expires_before: expires_before.into(),
            as_of,
            version,
            built_at: now.seconds(),
            members: block.member_count(),
            revoked: block.revoked_count(),
        };
        bytes += block.shard_bytes();
        blocks::replace(change.db(), &row, &coverage, &block.to_bytes()).await?;
        rows.push(row);
    }
    let members: u64 = rows.iter().map(|row| row.members).sum();
    let revoked: u64 = rows.iter().map(|row| row.revoked).sum();
    let version = change.commit(Event::BaseCompacted { blocks: rows.len(), members, revoked, bytes }).await?;
    Ok(Compaction { version: Some(version), blocks: rows, bytes })
}

/// Returns the signing keys of own tokens, all of which are in the issuance log. API keys are not covered by the base: an
/// edge cannot determine when one was issued, so coverage up to a second would have no meaning.
async fn list_own_kids(service: &Service) -> Result<Vec<String>, StoreError> {
    let mut reader = service.store.reader().await?;
    let mut kids: Vec<String> =
        signing_keys::list(&mut reader).await?.into_iter().map(|key| key.kid).collect();
    kids.sort_unstable();
    Ok(kids)
}

/// Returns the start of each bucket that has new revocations.
fn expiry_buckets(expiries: Vec<UnixSeconds>, now: UnixMillis) -> BTreeSet<UnixSeconds> {
    // A block that expires within the hour is not worth a download.
    let soon = now.seconds().saturating_add(3600);
    let expiry_buckets = expiries.into_iter().map(expiry_bucket);
    expiry_buckets.filter(|expires_from| expires_from.saturating_add(BUCKET_SECS) > soon).collect()
}

/// Returns the start of the bucket that an expiry belongs to.
const fn expiry_bucket(expires_at: UnixSeconds) -> UnixSeconds {
    UnixSeconds::new(expires_at.get() - expires_at.get() % BUCKET_SECS)
}
