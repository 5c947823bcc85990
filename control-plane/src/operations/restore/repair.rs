//! The repair of a restored database by an admin.

use std::{fmt, fs};

use serde_json::json;
use token::Fingerprint;

use super::compare::{Missing, WentBack, compare};
use crate::{
    clock::Time,
    config::Config,
    home::Home,
    journal::{CatchUpError, Journal},
    model::{Actor, ApiKeyState, FoundGap},
    operations::{
        Authority, DeleteAuthKeyError, RevokeError, Service, SigningKeyError, Target, delete_auth_key,
        mint::MAX_ISSUE_SKEW_SECS, retire_key, revoke,
    },
    store::{
        Store, StoreError, api_keys, audit, auth_keys, gaps, revocations, signing_keys, tag_keys, versions,
    },
};

/// Why a database could not be examined or repaired.
#[derive(Debug)]
pub enum RepairError {
    /// The given time of the backup is in the future.
    InFuture,
    /// The journal cannot be read.
    Journal(CatchUpError),
    /// Revoking everything failed.
    Revoke(RevokeError),
    /// Retiring a key failed.
    Keys(SigningKeyError),
    /// Deleting an AuthKey failed.
    AuthKeys(DeleteAuthKeyError),
    /// The store cannot be read or written.
    Store(StoreError),
}

impl fmt::Display for RepairError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InFuture => f.write_str("--since is in the future; give the time of the backup"),
            Self::Journal(error) => error.fmt(f),
            Self::Revoke(error) => error.fmt(f),
            Self::Keys(error) => error.fmt(f),
            Self::AuthKeys(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RepairError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::InFuture => None,
            Self::Journal(error) => error.source(),
            Self::Revoke(error) => error.source(),
            Self::Keys(error) => error.source(),
            Self::AuthKeys(error) => error.source(),
            Self::Store(error) => error.source(),
        }
    }
}

impl From<StoreError> for RepairError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The state of a database, compared with its journal.
#[derive(Debug)]
pub struct Examined {
    /// The journal entries that the store lacks; `None` if there is no journal.
    pub missing: Option<Missing>,
    /// All gaps, repaired or not.
    pub gaps: Vec<FoundGap>,
    /// The number of known credentials that were issued in gaps which are not repaired.
    pub known: u64,
}

impl Examined {
    /// Returns whether the database was restored and is not repaired yet.
    pub fn needs_repair(&self) -> bool {
        self.missing.as_ref().is_some_and(|missing| missing.went_back.is_some())
            || self.gaps.iter().any(|gap| gap.version.is_none())
    }
}

/// Examines a database without changing it. The key files need not exist.
pub async fn examine(home: &Home, config: &Config, now: Time) -> Result<Examined, RepairError> {
    let store = Store::attach(&config.store.url, home.folder()).await?;
    examine_store(&store, home, now).await
}

/// Compares a store with the journal of its folder.
async fn examine_store(store: &Store, home: &Home, now: Time) -> Result<Examined, RepairError> {
    let recorded = Journal::new(home).read().await.map_err(RepairError::Journal)?;
    let mut read = store.read().await?;
    let missing = match &recorded {
        None => None,
        Some(recorded) => Some(compare(&mut read, recorded).await?),
    };
    let gaps = gaps::list(&mut read).await?;
    let open =
        gaps.iter().filter(|gap| gap.version.is_none()).map(|gap| (gap.issued_after, gap.issued_until));
    let found = missing.as_ref().and_then(|missing| missing.went_back);
    let found = found
        .map(|WentBack { issued_after }| (issued_after, now.seconds().saturating_add(MAX_ISSUE_SKEW_SECS)));
    let mut known = 0;
    for (after, until) in open.chain(found) {
        known += gaps::count_known(&mut read, after, until).await?;
    }
    Ok(Examined { missing, gaps, known })
}

/// Examines the store of a service.
pub async fn standing(service: &Service) -> Result<Examined, RepairError> {
    examine_store(&service.store, &service.home, service.now()).await
}

/// Where the gap begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// At the time that the merge of the journal has found.
    Found,
    /// At this second, when the backup was made.
    At(u64),
}

/// The result of a repair.
#[derive(Debug)]
pub struct Repaired {
    /// The first bundle with the gaps; `None` if there was nothing to repair.
    pub version: Option<u64>,
    /// The gaps that were repaired. Unknown credentials that were issued in them are refused from now on.
    pub gaps: Vec<FoundGap>,
    /// The number of known credentials in these gaps.
    pub known: u64,
    /// Revocations that were undone after the backup, and are undone again.
    pub unrevoked: Vec<Fingerprint>,
    /// Subjects whose permissions changed after the backup.
    pub granted: Vec<String>,
    /// The `kid`s of key files that the database does not have.
    pub strange_keys: Vec<String>,
}

/// Refuses unknown credentials that were issued after the backup, in a store that was merged with the journal. A second
/// repair changes nothing.
pub async fn repair(service: &Service, actor: &Actor, started: Started) -> Result<Repaired, RepairError> {
    let now = service.now();
    let recorded = service.journal.read().await.map_err(RepairError::Journal)?;
    let mut write = service.store.write().await?;
    let version = versions::allocate(&mut write, now).await?;
    let missing = match &recorded {
        None => Missing::default(),
        Some(recorded) => compare(&mut write, recorded).await?,
    };
    if let Started::At(second) = started {
        if second > now.seconds() {
            return Err(RepairError::InFuture);
        }
        let gap = FoundGap {
            issued_after: second.saturating_sub(1),
            issued_until: now.seconds().saturating_add(MAX_ISSUE_SKEW_SECS),
            found_at: now.seconds(),
            version: None,
        };
        gaps::insert(&mut write, &gap).await?;
    }
    let open: Vec<FoundGap> =
        gaps::list(&mut write).await?.into_iter().filter(|gap| gap.version.is_none()).collect();
    let strange_keys = strange_keys(service, &mut write).await?;
    if open.is_empty() {
        let (unrevoked, granted) = (Vec::new(), missing.granted);
        return Ok(Repaired { version: None, gaps: open, known: 0, unrevoked, granted, strange_keys });
    }
    // A gap that a clock ahead has found would block issuing until its end.
    gaps::clamp_to_now(&mut write, now.seconds().saturating_add(MAX_ISSUE_SKEW_SECS)).await?;
    gaps::close(&mut write, version).await?;
    // The tail cannot express a gap.
    versions::mark_checkpoint(&mut write, version).await?;
    let mut known = 0;
    for gap in &open {
        known += gaps::count_known(&mut write, gap.issued_after, gap.issued_until).await?;
    }
    for fingerprint in &missing.unrevoked {
        revocations::restore(&mut write, fingerprint, now.seconds(), version).await?;
        if let Some(key) = api_keys::find_by_fingerprint(&mut write, fingerprint).await? {
            api_keys::change(&mut write, key.id, ApiKeyState::Disabled, ApiKeyState::Active).await?;
        }
    }
    let spans: Vec<_> = open.iter().map(|gap| [gap.issued_after, gap.issued_until]).collect();
    let detail = json!({
        "version": version,
        "gaps": spans,
        "known": known,
        "unrevoked": missing.unrevoked.len(),
    });
    let (action, target) = ("restore.repair", "database");
    audit::append(&mut write, audit::Change { at: now, actor, action, target, detail }).await?;
    write.commit().await?;
    service.wait_published(version).await;
    let Missing { unrevoked, granted, .. } = missing;
    Ok(Repaired { version: Some(version), gaps: open, known, unrevoked, granted, strange_keys })
}

/// Returns the `kid`s of private key files that the store does not have: tokens or API keys could be signed with them.
async fn strange_keys(
    service: &Service,
    executor: &mut impl crate::store::Executor,
) -> Result<Vec<String>, StoreError> {
    let mut known: Vec<String> = signing_keys::list(executor).await?.into_iter().map(|key| key.kid).collect();
    known.extend(tag_keys::list(executor).await?.into_iter().map(|generation| generation.kid()));
    let files = fs::read_dir(service.home.keys()).into_iter().flatten().filter_map(|file| {
        let name = file.ok()?.file_name().into_string().ok()?;
        let kid = name.strip_suffix(".jwk")?;
        (kid.starts_with("ks-") || kid.starts_with("tag-")).then(|| kid.to_owned())
    });
    let mut strange: Vec<String> = files.filter(|kid| !known.contains(kid)).collect();
    strange.sort_unstable();
    Ok(strange)
}

/// Revokes everything that was ever issued. This is the only safe repair without a journal, as nothing else records the
/// lost revocations. Returns the version, and the number of deleted AuthKeys.
pub async fn refuse_everything(service: &Service, actor: &Actor) -> Result<(u64, usize), RepairError> {
    let refused = revoke(service, actor, &Authority::Everything, Target::Everything, Some("restored"))
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
        match delete_auth_key(service, actor, &Authority::Everything, &key.id).await {
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
    repair(service, actor, Started::Found).await?;
    Ok((version, keys.len()))
}
