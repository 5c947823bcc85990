//! The repair of a restored database by an admin.

use std::fs;

use token::Fingerprint;

use super::{
    compare::{MissingEntries, StoreRollback, find_missing_entries},
    queries as gaps,
};
use crate::{
    config::Config,
    credentials::{
        api_keys,
        auth_keys::{self, DeleteAuthKeyError, delete_auth_key},
        tokens::mint::MAX_ISSUE_SKEW_SECS,
    },
    db::{Store, StoreError, versions},
    domain::{Actor, ApiKeyState, Event, IssuanceGap, UnixMillis, UnixSeconds, Version, WatermarkScope},
    journal::{CatchUpError, Journal},
    keys::{SigningKeyError, retire_key, signing_keys, tag_keys},
    platform::data_dir::DataDir,
    revocation::{
        AccessScope, RevocationTarget, RevokeError, revocations, revoke, unrevoke::TAKEN_BACK_RETENTION_SECS,
        watermarks,
    },
    service::Service,
};

/// Why a database could not be examined or repaired.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The given time of the backup is in the future.
    #[error("the time of the backup is in the future")]
    InFuture,
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(CatchUpError),
    /// Revoking everything failed.
    #[error(transparent)]
    Revoke(RevokeError),
    /// Retiring a key failed.
    #[error(transparent)]
    Keys(SigningKeyError),
    /// Deleting an AuthKey failed.
    #[error(transparent)]
    AuthKeys(DeleteAuthKeyError),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The state of a database, compared with its journal.
#[derive(Debug)]
pub struct DatabaseExamination {
    /// The journal entries that the store lacks; `None` if there is no journal.
    pub missing: Option<MissingEntries>,
    /// All gaps, repaired or not.
    pub gaps: Vec<IssuanceGap>,
    /// The number of known credentials that were issued in gaps which are not repaired.
    pub known: u64,
}

impl DatabaseExamination {
    /// Returns whether the database was restored and is not repaired yet.
    pub fn needs_repair(&self) -> bool {
        self.missing.as_ref().is_some_and(|missing| missing.rollback.is_some())
            || self.gaps.iter().any(|gap| gap.version.is_none())
    }
}

/// Examines a database without changing it. The key files need not exist.
pub async fn examine_database(
    data_dir: &DataDir,
    config: &Config,
    now: UnixMillis,
) -> Result<DatabaseExamination, RepairError> {
    let store = Store::attach(&config.store.url, data_dir.path()).await?;
    examine_store(&store, data_dir, now).await
}

/// Compares a store with the journal of its folder.
async fn examine_store(
    store: &Store,
    data_dir: &DataDir,
    now: UnixMillis,
) -> Result<DatabaseExamination, RepairError> {
    let recorded = Journal::new(data_dir).read().await.map_err(RepairError::Journal)?;
    let mut read = store.read().await?;
    let missing = match &recorded {
        None => None,
        Some(recorded) => Some(find_missing_entries(&mut read, recorded).await?),
    };
    let gaps = gaps::list(&mut read).await?;
    let open =
        gaps.iter().filter(|gap| gap.version.is_none()).map(|gap| (gap.issued_after, gap.issued_until));
    let found = missing.as_ref().and_then(|missing| missing.rollback);
    let found = found.map(|StoreRollback { issued_after }| {
        (issued_after, now.seconds().saturating_add(MAX_ISSUE_SKEW_SECS))
    });
    let mut known = 0;
    for (after, until) in open.chain(found) {
        known += gaps::count_known(&mut read, after, until).await?;
    }
    Ok(DatabaseExamination { missing, gaps, known })
}

/// Examines the store of a service.
pub async fn examine_service(service: &Service) -> Result<DatabaseExamination, RepairError> {
    examine_store(&service.store, &service.data_dir, service.now()).await
}

/// Where the gap begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapStart {
    /// At the time that the merge of the journal has found.
    AsFound,
    /// At this second, when the backup was made.
    At(UnixSeconds),
}

/// The result of a repair.
#[derive(Debug)]
pub struct RepairOutcome {
    /// The first bundle with the gaps; `None` if there was nothing to repair.
    pub version: Option<Version>,
    /// The gaps that were repaired. Unknown credentials that were issued in them are refused from now on.
    pub gaps: Vec<IssuanceGap>,
    /// The number of known credentials in these gaps.
    pub known: u64,
    /// Revocations that were undone after the backup, and are undone again.
    pub unrevoked: Vec<Fingerprint>,
    /// Sessions and tokens of other issuers whose watermarks were taken back after the backup, and are again.
    pub taken_back: Vec<WatermarkScope>,
    /// Subjects whose permissions changed after the backup.
    pub granted: Vec<String>,
    /// The `kid`s of key files that the database does not have.
    pub unknown_key_files: Vec<String>,
}

/// Refuses unknown credentials that were issued after the backup, in a store that was merged with the journal. A second
/// repair changes nothing.
pub async fn repair_database(
    service: &Service,
    actor: &Actor,
    started: GapStart,
) -> Result<RepairOutcome, RepairError> {
    let recorded = service.journal.read().await.map_err(RepairError::Journal)?;
    let mut change = service.change(actor).await?;
    let (version, now) = (change.version(), change.now());
    let missing = match &recorded {
        None => MissingEntries::default(),
        Some(recorded) => find_missing_entries(change.db(), recorded).await?,
    };
    if let GapStart::At(second) = started {
        if second > now.seconds() {
            return Err(RepairError::InFuture);
        }
        let gap = IssuanceGap {
            issued_after: second.saturating_sub(1),
            issued_until: now.seconds().saturating_add(MAX_ISSUE_SKEW_SECS),
            found_at: now.seconds(),
            version: None,
        };
        gaps::insert(change.db(), &gap).await?;
    }
    let open: Vec<IssuanceGap> =
        gaps::list(change.db()).await?.into_iter().filter(|gap| gap.version.is_none()).collect();
    let unknown_key_files = unknown_key_files(service, change.db()).await?;
    if open.is_empty() {
        let (unrevoked, granted) = (Vec::new(), missing.granted);
        return Ok(RepairOutcome {
            version: None,
            gaps: open,
            known: 0,
            unrevoked,
            taken_back: Vec::new(),
            granted,
            unknown_key_files,
        });
    }
    // A gap that a clock ahead has found would block issuing until its end.
    gaps::clamp_to_now(change.db(), now.seconds().saturating_add(MAX_ISSUE_SKEW_SECS)).await?;
    gaps::repair_gaps(change.db(), version).await?;
    // The tail cannot express a gap.
    versions::mark_checkpoint(change.db(), version).await?;
    let mut known = 0;
    for gap in &open {
        known += gaps::count_known(change.db(), gap.issued_after, gap.issued_until).await?;
    }
    for fingerprint in &missing.unrevoked {
        revocations::unrevoke(change.db(), fingerprint, now.seconds(), version).await?;
        if let Some(key) = api_keys::find_by_fingerprint(change.db(), fingerprint).await? {
            api_keys::set_state(change.db(), key.id, ApiKeyState::Disabled, ApiKeyState::Active).await?;
        }
    }
    for scope in &missing.taken_back {
        watermarks::take_back(
            change.db(),
            scope,
            now.seconds().saturating_add(TAKEN_BACK_RETENTION_SECS),
            version,
        )
        .await?;
    }
    let event = Event::DatabaseRepaired {
        gaps: open.iter().map(|gap| [gap.issued_after, gap.issued_until]).collect(),
        known,
        unrevoked: missing.unrevoked.len().saturating_add(missing.taken_back.len()),
    };
    let version = change.commit(event).await?;
    let MissingEntries { unrevoked, taken_back, granted, .. } = missing;
    let version = Some(version);
    Ok(RepairOutcome { version, gaps: open, known, unrevoked, taken_back, granted, unknown_key_files })
}

/// Returns the `kid`s of private key files that the store does not have: tokens or API keys could be signed with them.
async fn unknown_key_files(
    service: &Service,
    executor: &mut impl crate::db::Executor,
) -> Result<Vec<String>, StoreError> {
    let mut known: Vec<String> = signing_keys::list(executor).await?.into_iter().map(|key| key.kid).collect();
    known.extend(tag_keys::list(executor).await?.into_iter().map(|generation| generation.kid()));
    let files = fs::read_dir(service.data_dir.keys()).into_iter().flatten().filter_map(|file| {
        let name = file.ok()?.file_name().into_string().ok()?;
        let kid = name.strip_suffix(".jwk")?;
        (kid.starts_with("ks-") || kid.starts_with("tag-")).then(|| kid.to_owned())
    });
    let mut unknown: Vec<String> = files.filter(|kid| !known.contains(kid)).collect();
    unknown.sort_unstable();
    Ok(unknown)
}

/// Revokes everything that was ever issued. This is the only safe repair without a journal, as nothing else records the
/// lost revocations. Returns the version, and the number of deleted AuthKeys.
pub async fn refuse_everything(service: &Service, actor: &Actor) -> Result<(Version, usize), RepairError> {
    let refused =
        revoke(service, actor, &AccessScope::Everything, RevocationTarget::Everything, Some("restored"))
            .await
            .map_err(RepairError::Revoke)?;
    let mut version = refused.version;
    let mut reader = service.store.reader().await?;
    let mut kids: Vec<String> =
        signing_keys::list(&mut reader).await?.into_iter().map(|key| key.kid).collect();
    kids.extend(tag_keys::list(&mut reader).await?.into_iter().map(|generation| generation.kid()));
    let keys = auth_keys::list(&mut reader, None).await?;
    drop(reader);
    // A stolen AuthKey may have been deleted after the backup.
    for key in &keys {
        match delete_auth_key(service, actor, &AccessScope::Everything, &key.id).await {
            Ok(later) => version = version.max(later),
            Err(DeleteAuthKeyError::NotFound) => {}
            Err(error) => return Err(RepairError::AuthKeys(error)),
        }
    }
    for kid in &kids {
        match retire_key(service, actor, kid).await {
            Ok(later) => version = version.max(later),
            Err(SigningKeyError::Unknown(_)) => {}
            Err(error) => return Err(RepairError::Keys(error)),
        }
    }
    repair_database(service, actor, GapStart::AsFound).await?;
    Ok((version, keys.len()))
}
