//! Compaction: builds the blocks of the base from the issuance log and the revocations.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bundle::{
    ExpiryRange,
    builder::{BlockError, BuiltBlock},
};
use tokio::{sync::Mutex, task::spawn_blocking, time::sleep};

use super::{
    queries::{self as blocks, CompactionMark},
    universe::{Extent, Index, NewRows, Universe, UpdateError, expiry_bucket},
};
use crate::{
    credentials::{coverage, issued},
    db::{StoreError, Write, versions},
    domain::{Actor, BaseBlockRow, Event, UnixMillis, UnixSeconds, Version},
    keys::signing_keys,
    platform::random,
    revocation::revocations,
    service::Service,
};

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
/// 3. read             the tokens and the changes of revocations since the last compaction of this server
/// 4. build            the blocks that have new revocations; of these, the shards that are no longer right
/// 5. install          blocks, version, checkpoint in one transaction
/// 6. keep             what was read, for the next compaction: see [`super::universe`]
/// ```
/// The lease is short, renewed during the build and in the transaction of step 5, so a builder whose lease expired while
/// it was paused cannot overwrite a newer build. It is released after step 6.
///
/// A crash before step 5 leaves the old base, and a coverage whose only effect is that tokens are dated a second later.
/// Revocations and un-revocations during the build have a later version than the blocks, so they stay in the revocation
/// list.
pub async fn compact_base(service: &Service, actor: &Actor) -> Result<Compaction, CompactBaseError> {
    let lease = BuildLease::acquire(service).await?;
    let done = tokio::select! {
        done = build_base(service, actor, &lease) => done,
        lost = lease.renew_until_lost(service) => Err(lost),
    };
    if let Err(error) = lease.release(service).await {
        tracing::warn!(error.code = error.code(), "cannot release the build lease; it expires by itself");
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

/// Builds the base if enough tokens were revoked since the last compaction and no other process is building it.
pub async fn compact_base_if_due(service: &Service) -> Result<Option<Compaction>, CompactBaseError> {
    let after = service.config.publisher.compact_after;
    if after == 0 {
        return Ok(None);
    }
    let mut reader = service.store.reader().await?;
    let since = blocks::last_compaction(&mut reader).await?;
    let is_due = revocations::count_own_since(&mut reader, since, after).await? >= after;
    drop(reader);
    if !is_due {
        return Ok(None);
    }
    match compact_base(service, &Actor::System).await {
        Err(CompactBaseError::AlreadyRunning) => Ok(None),
        done => done.map(Some),
    }
}

/// Does steps 2 to 6 of [`compact_base`].
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

    let universe = Universe::new(service.data_dir.cache().join("universe"));
    let mut held = blocking({
        let universe = universe.clone();
        move || universe.index()
    })
    .await?
    .map(Arc::new);
    let (mark, (built, index)) = loop {
        let (rows, extent) = read_new_rows(service, &mut held, &kids, high).await?;
        // Building is too much work for the threads that serve requests.
        let (universe, kept, mark) = (universe.clone(), held.clone(), extent.compaction);
        match blocking(move || universe.update(kept.as_deref(), rows, extent)).await? {
            Ok(done) => break (mark, done),
            Err(UpdateError::Block(error)) => return Err(error.into()),
            // Without the cache nothing can be damaged, so this ends.
            Err(error @ UpdateError::Damaged) => {
                tracing::warn!("{error}: all tokens are read from the database again");
                held = None;
            }
        }
    };
    let compaction = install_blocks(service, actor, lease, built, mark).await?;
    blocking(move || universe.keep(index.as_ref())).await?;
    Ok(compaction)
}

/// Runs a function that takes long, on a thread for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CompactBaseError> {
    spawn_blocking(work).await.map_err(|_| CompactBaseError::Panicked)
}

/// Reads what the universe of `held` lacks, or everything if that is not in the history of this database: then `held` is
/// `None` afterwards.
async fn read_new_rows(
    service: &Service,
    held: &mut Option<Arc<Index>>,
    kids: &[String],
    high: UnixSeconds,
) -> Result<(NewRows, Extent), CompactBaseError> {
    let now = service.now().seconds();
    let earliest = expiry_bucket(now);
    let mut read = service.store.read().await?;
    if let Some(index) = held {
        // After the clock was set back, buckets may be needed that the universe no longer contains.
        let is_valid = index.covered_until <= high
            && index.earliest <= earliest
            && blocks::has_compaction(&mut read, index.compaction).await?;
        if !is_valid {
            *held = None;
        }
    }
    let version = versions::current(&mut read).await?;
    let since = held.as_ref().map_or(Version::ZERO, |index| index.compaction.as_of);
    let mut rows =
        NewRows { statuses: revocations::statuses_since(&mut read, since).await?, ..NewRows::default() };
    for row in blocks::list(&mut read).await?.into_iter().filter(|row| row.expires_from >= earliest) {
        let bytes = blocks::read_bytes(&mut read, row.expires_from).await?;
        // A block that cannot be read is built again.
        if let Ok(block) = BuiltBlock::from_bytes(&bytes) {
            rows.blocks.insert(row.expires_from, block);
        }
    }
    drop(read);
    // No token can be added to this range, so each page may see another state of the database. One long transaction would
    // keep SQLite from reusing its write-ahead log.
    let mut from = held.as_ref().map_or(UnixSeconds::EPOCH, |index| index.covered_until.saturating_add(1));
    let covered_from = cover_keys(held.as_deref(), kids, high);
    while from <= high {
        let mut reader = service.store.reader().await?;
        let (tokens, until) = issued::own_tokens(&mut reader, (from, high), earliest).await?;
        for (fingerprint, expires_at) in tokens {
            rows.tokens.entry(expiry_bucket(expires_at)).or_default().push(fingerprint);
        }
        from = until.saturating_add(1);
    }
    let mark = i64::from_be_bytes(*random::bytes());
    let compaction = CompactionMark { as_of: version.number, mark };
    let extent = Extent {
        compaction,
        covered_until: high,
        covered_from,
        purged_before: version.collected_before,
        now,
    };
    Ok((rows, extent))
}

/// Returns the first second of issue that the universe covers of each key.
fn cover_keys(held: Option<&Index>, kids: &[String], high: UnixSeconds) -> BTreeMap<String, UnixSeconds> {
    let covered_from = |kid: &String| match held {
        None => UnixSeconds::EPOCH,
        // Earlier tokens of a key that is newer than the universe were not read.
        Some(index) => index.covered_from.get(kid).copied().unwrap_or(index.covered_until.saturating_add(1)),
    };
    kids.iter().map(|kid| (kid.clone(), covered_from(kid))).filter(|(_, from)| *from <= high).collect()
}

/// Installs the blocks in one transaction, which also proves that the lease is held.
async fn install_blocks(
    service: &Service,
    actor: &Actor,
    lease: &BuildLease,
    built: Vec<BuiltBlock>,
    compaction: CompactionMark,
) -> Result<Compaction, CompactBaseError> {
    let mut held = lease.until.lock().await;
    let until = service.now().plus(LEASE);
    if built.is_empty() {
        let mut upkeep = service.upkeep().await?;
        record_compaction(upkeep.db(), (*held, until), compaction).await?;
        upkeep.commit().await?;
        *held = until;
        return Ok(Compaction { version: None, blocks: Vec::new(), bytes: 0 });
    }
    let mut change = service.change(actor).await?;
    let (version, now) = (change.version(), change.now());
    record_compaction(change.db(), (*held, until), compaction).await?;
    versions::mark_checkpoint(change.db(), version).await?;
    let mut rows = Vec::new();
    let mut bytes = 0;
    for block in built {
        let ExpiryRange { expires_from, expires_before } = block.expiry_range();
        let row = BaseBlockRow {
            expires_from: expires_from.into(),
            expires_before: expires_before.into(),
            as_of: compaction.as_of,
            version,
            built_at: now.seconds(),
            members: block.member_count(),
            revoked: block.revoked_count(),
        };
        bytes += block.shard_bytes();
        blocks::replace(change.db(), &row, block.coverage(), &block.to_bytes()).await?;
        rows.push(row);
    }
    let members: u64 = rows.iter().map(|row| row.members).sum();
    let revoked: u64 = rows.iter().map(|row| row.revoked).sum();
    let version = change.commit(Event::BaseCompacted { blocks: rows.len(), members, revoked, bytes }).await?;
    *held = until;
    Ok(Compaction { version: Some(version), blocks: rows, bytes })
}

/// Records the compaction, and renews the lease.
async fn record_compaction(
    write: &mut Write,
    (held, until): (UnixMillis, UnixMillis),
    compaction: CompactionMark,
) -> Result<(), CompactBaseError> {
    if !versions::renew_build_lease(write, held, until).await? {
        return Err(CompactBaseError::LeaseLost);
    }
    Ok(blocks::record_compaction(write, compaction).await?)
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
