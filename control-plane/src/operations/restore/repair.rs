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
        mint::AHEAD, retire_key, revoke,
    },
    store::{
        Store, StoreError, api_keys, audit, auth_keys, gaps, revocations, signing_keys, tag_keys, versions,
    },
};

#[derive(Debug)]
pub enum RepairError {
    /// The time named lies in the future.
    InFuture,
    Journal(CatchUpError),
    Revoke(RevokeError),
    Keys(SigningKeyError),
    AuthKeys(DeleteAuthKeyError),
    Store(StoreError),
}

impl fmt::Display for RepairError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InFuture => f.write_str("--since lies in the future; name when the backup was made"),
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

/// What a database looks like to who has changed nothing yet.
#[derive(Debug)]
pub struct Examined {
    /// What the journal says that it does not know; None where there is no journal.
    pub missing: Option<Missing>,
    /// The gaps that are there, repaired or not.
    pub gaps: Vec<FoundGap>,
    /// How much is known of what was issued in those that are not repaired.
    pub known: u64,
}

impl Examined {
    /// Whether it was restored, and nobody has repaired that yet.
    pub fn needs_repair(&self) -> bool {
        self.missing.as_ref().is_some_and(|missing| missing.went_back.is_some())
            || self.gaps.iter().any(|gap| gap.version.is_none())
    }
}

/// Of a database as it is, which nothing is changed in: no key need be there.
pub async fn examine(home: &Home, config: &Config, now: Time) -> Result<Examined, RepairError> {
    let store = Store::attach(&config.store.url, home.folder()).await?;
    look(&store, home, now).await
}

async fn look(store: &Store, home: &Home, now: Time) -> Result<Examined, RepairError> {
    let recorded = Journal::of(home).read().await.map_err(RepairError::Journal)?;
    let mut read = store.read().await?;
    let missing = match &recorded {
        None => None,
        Some(recorded) => Some(compare(&mut read, recorded).await?),
    };
    let gaps = gaps::list(&mut read).await?;
    let open =
        gaps.iter().filter(|gap| gap.version.is_none()).map(|gap| (gap.issued_after, gap.issued_until));
    let found = missing.as_ref().and_then(|missing| missing.went_back);
    let found = found.map(|WentBack { issued_after }| (issued_after, now.seconds().saturating_add(AHEAD)));
    let mut known = 0;
    for (after, until) in open.chain(found) {
        known += gaps::count_known(&mut read, after, until).await?;
    }
    Ok(Examined { missing, gaps, known })
}

/// As [`examine`], of a service's own store.
pub async fn standing(service: &Service) -> Result<Examined, RepairError> {
    look(&service.store, &service.home, service.now()).await
}

/// From when on what is not known is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// As it was found out when the journal was merged.
    Found,
    /// This second, as somebody knows who made the backup.
    At(u64),
}

#[derive(Debug)]
pub struct Repaired {
    /// The first bundle that refuses it; None where there was nothing to repair.
    pub version: Option<u64>,
    /// What is refused from now on but for what is known.
    pub gaps: Vec<FoundGap>,
    /// How much of it is known.
    pub known: u64,
    pub unrevoked: Vec<Fingerprint>,
    /// Whose permissions changed after the backup.
    pub granted: Vec<String>,
    /// Files of keys that the database does not know.
    pub strange_keys: Vec<String>,
}

/// Refuses what was issued after the backup, of a store that was merged with the journal. Doing it again changes nothing.
pub async fn repair(service: &Service, actor: &Actor, started: Started) -> Result<Repaired, RepairError> {
    let now = service.now();
    let recorded = service.journal.read().await.map_err(RepairError::Journal)?;
    let mut write = service.store.write().await?;
    let version = versions::next(&mut write, now).await?;
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
            issued_until: now.seconds().saturating_add(AHEAD),
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
    // A clock that was ahead when they were found would keep everything from being issued.
    gaps::put_right(&mut write, now.seconds().saturating_add(AHEAD)).await?;
    gaps::close(&mut write, version).await?;
    // The tail can't say it.
    versions::settle(&mut write, version).await?;
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
    service.settle(version).await;
    let Missing { unrevoked, granted, .. } = missing;
    Ok(Repaired { version: Some(version), gaps: open, known, unrevoked, granted, strange_keys })
}

/// Files of private keys that tokens or API keys might be made with, and that the store does not know.
async fn strange_keys(
    service: &Service,
    lookup: &mut impl crate::store::Lookup,
) -> Result<Vec<String>, StoreError> {
    let mut known: Vec<String> = signing_keys::list(lookup).await?.into_iter().map(|key| key.kid).collect();
    known.extend(tag_keys::list(lookup).await?.into_iter().map(|generation| generation.kid()));
    let files = fs::read_dir(service.home.keys()).into_iter().flatten().filter_map(|file| {
        let name = file.ok()?.file_name().into_string().ok()?;
        let kid = name.strip_suffix(".jwk")?;
        (kid.starts_with("ks-") || kid.starts_with("tag-")).then(|| kid.to_owned())
    });
    let mut strange: Vec<String> = files.filter(|kid| !known.contains(kid)).collect();
    strange.sort_unstable();
    Ok(strange)
}

/// For who has no journal: nothing tells what was revoked, so everything that was ever issued is. Returns the version,
/// and how many AuthKeys went.
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
    // One of them may be that of a thief, and have been deleted.
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
