use std::{collections::BTreeMap, fmt, time::Duration};

use bundle::{
    Coverage, ExpiryRange,
    builder::{BlockBuilder, BlockError, BuiltBlock},
};
use serde_json::json;
use token::Fingerprint;
use tokio::{
    sync::{Mutex, mpsc},
    task::spawn_blocking,
    time::sleep,
};

use super::Service;
use crate::{
    clock::Time,
    model::{Actor, BaseBlock},
    store::{NEVER, StoreError, audit, blocks, coverage, issued, revocations, signing_keys, versions},
};

#[derive(Debug)]
pub enum RebaseError {
    UnderWay,
    /// The building took a break so long that somebody else may have built meanwhile.
    ClaimLost,
    Block(BlockError),
    /// The thread that builds ended before its time.
    Ended,
    Store(StoreError),
}

impl RebaseError {
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnderWay => "rebase_under_way",
            Self::ClaimLost => "rebase_claim_lost",
            Self::Block(_) | Self::Ended => "base_not_built",
            Self::Store(error) => error.code(),
        }
    }
}

impl fmt::Display for RebaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnderWay => f.write_str("the base is being built already; wait for that to end"),
            Self::ClaimLost => {
                f.write_str("the building was suspended for so long that nothing was installed")
            }
            Self::Block(error) => write!(f, "the base can't be built: {error}"),
            Self::Ended => f.write_str("building the base was cut short"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RebaseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
            _ => None,
        }
    }
}

impl From<StoreError> for RebaseError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<BlockError> for RebaseError {
    fn from(error: BlockError) -> Self {
        Self::Block(error)
    }
}

/// The blocks that were built; those that had nothing to take in stay as they are.
#[derive(Debug)]
pub struct Rebased {
    /// The first bundle with them; none when nothing was built.
    pub version: Option<u64>,
    pub blocks: Vec<BaseBlock>,
    pub bytes: usize,
}

/// Builds the base anew where it has revocations to take in.
///
/// ```text
/// 1. claim            of several servers one builds
/// 2. coverage         durable: no token is issued at or before this second any more
/// 3. one moment       all that was issued, streamed in order of prefix; what is revoked by then
/// 4. install          blocks, version, checkpoint in one transaction
/// ```
/// The claim is short, renewed while the building goes on, and given back in the transaction of 4: who was suspended
/// until it ran out installs nothing over what another has built meanwhile.
///
/// A crash before 4 leaves the old base and a coverage that only makes tokens a second younger. What is revoked or taken
/// back meanwhile has a later version than the blocks speak of, so it goes on being said beside them.
pub async fn rebase(service: &Service, actor: &Actor) -> Result<Rebased, RebaseError> {
    let claim = Claim::take(service).await?;
    let done = tokio::select! {
        done = build(service, actor, &claim) => done,
        lost = claim.keep(service) => Err(lost),
    };
    if !matches!(done, Ok(Rebased { version: Some(_), .. })) {
        claim.release(service).await?;
    }
    if let Ok(Rebased { version: Some(version), .. }) = done {
        service.settle(version).await;
    }
    done
}

/// The right to build: of several servers one has it.
struct Claim {
    /// Until when it is held now. Whoever changes or uses it holds the lock until the commit.
    until: Mutex<Time>,
}

impl Claim {
    async fn take(service: &Service) -> Result<Self, RebaseError> {
        let now = service.now();
        let until = now.plus(CLAIM);
        let mut write = service.store.write().await?;
        if !versions::claim_rebase(&mut write, now, until).await? {
            return Err(RebaseError::UnderWay);
        }
        write.commit().await?;
        Ok(Self { until: Mutex::new(until) })
    }

    /// Renews it again and again; returns when it is lost.
    async fn keep(&self, service: &Service) -> RebaseError {
        loop {
            sleep(RENEWAL).await;
            match self.renew(service).await {
                Ok(true) => {}
                Ok(false) => return RebaseError::ClaimLost,
                // It holds for a while yet; whether it does is asked again when the blocks are installed.
                Err(error) => tracing::warn!(error.code = error.code(), "a claim could not be renewed"),
            }
        }
    }

    async fn renew(&self, service: &Service) -> Result<bool, StoreError> {
        let mut held = self.until.lock().await;
        let until = service.now().plus(CLAIM);
        let mut write = service.store.write().await?;
        let renewed = versions::renew_rebase(&mut write, *held, until).await?;
        write.commit().await?;
        if renewed {
            *held = until;
        }
        Ok(renewed)
    }

    async fn release(&self, service: &Service) -> Result<(), StoreError> {
        let held = self.until.lock().await;
        let mut write = service.store.write().await?;
        versions::release_rebase(&mut write, *held).await?;
        write.commit().await
    }
}

/// Does it if enough has gathered, and nobody else does.
pub async fn rebase_if_due(service: &Service) -> Result<Option<Rebased>, RebaseError> {
    let after = usize::try_from(service.config.publisher.rebase_after).unwrap_or(usize::MAX);
    if after == 0 {
        return Ok(None);
    }
    let kids = own_kids(service).await?;
    let gathered = revocations::outside_the_base(&mut service.store.reader().await?, &kids).await?;
    if gathered.len() < after {
        return Ok(None);
    }
    match rebase(service, &Actor::System).await {
        Err(RebaseError::UnderWay) => Ok(None),
        done => done.map(Some),
    }
}

async fn build(service: &Service, actor: &Actor, claim: &Claim) -> Result<Rebased, RebaseError> {
    let kids = own_kids(service).await?;
    let mut write = service.store.write().await?;
    // A second that is over: whoever issues right now is hardly ever in its way.
    let high = coverage::last_second(&mut write, service.now().seconds()).await?;
    coverage::raise(&mut write, &kids, high).await?;
    write.commit().await?;

    let mut read = service.store.read().await?;
    let as_of = versions::current(&mut read).await?.number;
    let now = service.now();
    let wanted = buckets(revocations::outside_the_base(&mut read, &kids).await?, now);
    if wanted.is_empty() {
        return Ok(Rebased { version: None, blocks: Vec::new(), bytes: 0 });
    }
    let coverage: Vec<Coverage> =
        kids.iter().map(|kid| Coverage { kid: kid.clone(), iat_low: 0, iat_high: high }).collect();
    // How many of which, so that shards get their size: a first walk, without the work.
    let mut sizes: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
    let is_covered = |kid: &String, issued_at: u64| issued_at <= high && kids.contains(kid);
    let mut from = Some(0);
    while let Some(prefix) = from {
        let (members, next) = issued::universe(&mut read, prefix).await?;
        for member in members.iter().filter(|member| is_covered(&member.kid, member.issued_at)) {
            let (revoked, good) = sizes.entry(bucket(member.expires_at)).or_default();
            *if member.revoked { revoked } else { good } += 1;
        }
        from = next;
    }
    let mut builders = BTreeMap::new();
    for expires_from in wanted {
        let (revoked, good) = sizes.get(&expires_from).copied().unwrap_or_default();
        // What never expires is in the last of all.
        let next = Some(expires_from.saturating_add(BUCKET)).filter(|next| *next <= NEVER);
        let span = ExpiryRange { expires_from, expires_before: next.unwrap_or(u64::MAX) };
        let seed = format!("{expires_from}-{as_of}");
        builders
            .insert(expires_from, BlockBuilder::new(span, coverage.clone(), revoked, good, seed.as_bytes())?);
    }
    // Solving equations is no work for the threads that answer requests.
    let (sender, receiver) = mpsc::channel(4);
    let building = spawn_blocking(move || fill(builders, receiver));
    let mut from = Some(0);
    while let Some(prefix) = from {
        let (members, next) = issued::universe(&mut read, prefix).await?;
        let members = members.into_iter().filter(|member| is_covered(&member.kid, member.issued_at));
        let portion: Portion =
            members.map(|member| (bucket(member.expires_at), member.fingerprint, member.revoked)).collect();
        if sender.send(portion).await.is_err() {
            break;
        }
        from = next;
    }
    drop((sender, read));
    let built = building.await.map_err(|_| RebaseError::Ended)??;
    install(service, actor, claim, built, (as_of, high), &kids).await
}

type Portion = Vec<(u64, Fingerprint, bool)>;

fn fill(
    mut builders: BTreeMap<u64, BlockBuilder>,
    mut receiver: mpsc::Receiver<Portion>,
) -> Result<Vec<BuiltBlock>, BlockError> {
    while let Some(portion) = receiver.blocking_recv() {
        for (bucket, fingerprint, revoked) in portion {
            if let Some(builder) = builders.get_mut(&bucket) {
                builder.add(fingerprint, revoked)?;
            }
        }
    }
    builders.into_values().map(BlockBuilder::finish).collect()
}

async fn install(
    service: &Service,
    actor: &Actor,
    claim: &Claim,
    built: Vec<BuiltBlock>,
    (as_of, high): (u64, u64),
    kids: &[String],
) -> Result<Rebased, RebaseError> {
    let coverage: Vec<(String, u64)> = kids.iter().map(|kid| (kid.clone(), high)).collect();
    let held = claim.until.lock().await;
    let now = service.now();
    let mut write = service.store.write().await?;
    let version = versions::next(&mut write, now).await?;
    if !versions::release_rebase(&mut write, *held).await? {
        return Err(RebaseError::ClaimLost);
    }
    versions::settle(&mut write, version).await?;
    let mut rows = Vec::new();
    let mut bytes = 0;
    for block in built {
        let ExpiryRange { expires_from, expires_before } = block.expiry_range();
        let row = BaseBlock {
            expires_from,
            expires_before,
            as_of,
            version,
            built_at: now.seconds(),
            members: block.member_count(),
            revoked: block.revoked_count(),
        };
        bytes += block.shard_bytes();
        blocks::replace(&mut write, &row, &coverage, &block.to_bytes()).await?;
        rows.push(row);
    }
    let members: u64 = rows.iter().map(|row| row.members).sum();
    let revoked: u64 = rows.iter().map(|row| row.revoked).sum();
    let detail = json!({ "version": version, "members": members, "revoked": revoked, "bytes": bytes });
    let blocks = rows.len().to_string();
    audit::append(
        &mut write,
        audit::Change { at: now, actor, action: "bundle.rebase", target: &blocks, detail },
    )
    .await?;
    write.commit().await?;
    Ok(Rebased { version: Some(version), blocks: rows, bytes })
}

/// Keys whose tokens are all in the ledger, each from the moment it is released. API keys are not among them: at the edge
/// nothing tells when one was issued, so no base could cover those that were and leave out those to come.
async fn own_kids(service: &Service) -> Result<Vec<String>, StoreError> {
    let mut reader = service.store.reader().await?;
    let mut kids: Vec<String> =
        signing_keys::list(&mut reader).await?.into_iter().map(|key| key.kid).collect();
    kids.sort_unstable();
    Ok(kids)
}

fn buckets(expiries: Vec<u64>, now: Time) -> std::collections::BTreeSet<u64> {
    // What expires within the hour is not worth a download.
    let soon = now.seconds().saturating_add(3600);
    let buckets = expiries.into_iter().map(bucket);
    buckets.filter(|expires_from| expires_from.saturating_add(BUCKET) > soon).collect()
}

const fn bucket(expires_at: u64) -> u64 {
    expires_at - expires_at % BUCKET
}

/// Six hours: the tokens of two days, which is the longest lifetime, take nine blocks; each goes without a download when
/// it expires, and is built anew only while somebody revokes what it covers.
const BUCKET: u64 = 6 * 3600;

/// A builder that crashed is in nobody's way for longer. 100 million take minutes, so it is renewed meanwhile.
const CLAIM: Duration = Duration::from_secs(60);
const RENEWAL: Duration = Duration::from_secs(15);
