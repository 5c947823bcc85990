//! The rotation and retirement of signing keys of tokens and of generations of API keys, while servers run.
//!
//! ```text
//! rotate     a new key is published, and does not sign yet
//! promote    a manifest's lifetime later, when every live edge has the new key, it becomes the active one
//! forget     when all tokens of the old key have expired, it is deleted
//! retire     a stolen key is replaced and revoked at once; an edge without its successor refuses new tokens meanwhile
//! ```
//! A key that no longer signs has unlimited coverage, so no server can insert a token of it, even with the key in memory.

use std::{error::Error as _, path::PathBuf, time::Duration};

use token::api_key::Kind;

use super::{
    keyring::{self as keys, KeyError},
    queries::{key_set, signing_keys, tag_keys},
};
use crate::{
    credentials::{
        api_keys::{ApiKeyError, create_tag_key_generation},
        coverage, issued,
        tokens::Lifetime,
    },
    db::{Change, NEVER_EXPIRES, StoreError, Write},
    domain::UnixMillis,
    domain::{Actor, Event, SigningKeyRecord, SigningKeyState, Version, WatermarkScope},
    edges::await_live_edges,
    revocation::watermarks::raise_at,
    service::Service,
};

/// Why an operation on a signing key failed.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    /// The key does not exist, or was retired.
    #[error("unknown or retired key `{0}`")]
    Unknown(String),
    /// The new key of the last rotation does not sign yet.
    #[error(
        "`{0}` does not sign yet: a running server activates it when every live edge has it, a manifest's \
         lifetime after its creation"
    )]
    NotActiveYet(String),
    /// The new generation of API keys cannot be created.
    #[error(transparent)]
    Tag(#[from] ApiKeyError),
    /// A key file cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Creates a signing key with the same algorithm. It signs after edges have it. Returns its `kid`.
pub async fn rotate_signing_key(service: &Service, actor: &Actor) -> Result<String, SigningKeyError> {
    let mut change = service.change(actor).await?;
    let now = change.now();
    let records = signing_keys::list(change.db()).await?;
    if let Some(next) = find_pending_key(&records) {
        return Err(SigningKeyError::NotActiveYet(next.kid.clone()));
    }
    let key = insert_pending_key(service, change.db(), &records, SigningKeyState::Verifying, now).await?;
    commit_change(change, Event::SigningKeyRotated { kid: key.kid.clone() }).await?;
    Ok(key.kid)
}

/// Activates the pending signing key if every live edge has it. Returns its `kid`, or `None` if none was activated.
pub async fn activate_pending_signing_key(service: &Service) -> Result<Option<String>, SigningKeyError> {
    let mut read = service.store.read().await?;
    let Some(next) = find_pending_key(&signing_keys::list(&mut read).await?).cloned() else {
        return Ok(None);
    };
    let made =
        UnixMillis::from_seconds(signing_keys::newest_created_at(&mut read).await?.unwrap_or_default());
    let known = key_set::version(&mut read).await?;
    drop(read);
    // After that time an edge without the key has a stale manifest, so it is not live.
    if service.now() < made.plus(service.config.publisher.lifetime.get())
        || !await_live_edges(service, known, Duration::ZERO).await?.is_complete_for_live_edges()
    {
        return Ok(None);
    }
    let mut change = service.change(&Actor::System).await?;
    let mut records = signing_keys::list(change.db()).await?;
    // Another server may have activated it before this one got the version lock.
    if find_pending_key(&records) != Some(&next) {
        return Ok(None);
    }
    activate_key(change.db(), &records, &next.kid).await?;
    for record in &mut records {
        let signs = record.kid == next.kid;
        record.state = if signs { SigningKeyState::Active } else { SigningKeyState::Verifying };
    }
    // If the new key cannot be opened, the old one stays active.
    keys::Keyring::open(&service.data_dir, &records)?;
    commit_change(change, Event::SigningKeyActivated { kid: next.kid.clone() }).await?;
    Ok(Some(next.kid))
}

/// Retires a signing key or a tag key (`tag-N`) immediately, revokes everything that it signed, and activates another key if
/// necessary. Returns the first version with the change.
pub async fn retire_key(service: &Service, actor: &Actor, kid: &str) -> Result<Version, SigningKeyError> {
    let mut change = service.change(actor).await?;
    let (version, now) = (change.version(), change.now());
    let records = signing_keys::list(change.db()).await?;
    let tags = tag_keys::list(change.db()).await?;
    if let Some(record) = records.iter().find(|record| record.kid == kid) {
        if record.state == SigningKeyState::Active {
            let next = match find_pending_key(&records).filter(|next| can_sign(service, next)) {
                Some(next) => next.clone(),
                None => {
                    insert_pending_key(service, change.db(), &records, SigningKeyState::Active, now).await?
                }
            };
            activate_key(change.db(), &records, &next.kid).await?;
        }
        signing_keys::delete(change.db(), kid).await?;
    } else if let Some(generation) = tags.iter().find(|generation| generation.kid() == kid) {
        if tags.first() == Some(generation) {
            // Generation numbers are never reused, so the retired generation needs a successor.
            let kind = match generation.kind {
                Kind::Format1 => Kind::Signed,
                kind => kind,
            };
            create_tag_key_generation(service, change.db(), kind, version, now).await?;
        }
        tag_keys::delete(change.db(), generation.number).await?;
    } else {
        return Err(SigningKeyError::Unknown(kid.to_owned()));
    }
    coverage::raise_floor(change.db(), &[kid.to_owned()], NEVER_EXPIRES).await?;
    // The watermark covers credentials that a thief dates in the future, even if a backup brings the key back.
    let scope = WatermarkScope::SigningKey(kid.to_owned());
    raise_at(service, change.db(), &scope, NEVER_EXPIRES, now, version).await?;
    commit_change(change, Event::KeyRetired { kid: kid.to_owned() }).await?;
    discard_key_file(service, kid);
    Ok(version)
}

/// Returns the file of a retired key if it could not be deleted.
pub fn retired_key_file(service: &Service, kid: &str) -> Option<PathBuf> {
    Some(keys::path(&service.data_dir, kid)).filter(|file| file.exists())
}

/// Deletes the files of retired and pruned keys: those that could not be deleted before, and those of keys that another
/// replica has retired. Returns their number.
pub async fn discard_key_files(service: &Service) -> Result<usize, SigningKeyError> {
    // The files are listed before the database is read: a key that is created in between is then not in the list of files.
    let kept = keys::list_key_files(&service.data_dir)?;
    let mut read = service.store.read().await?;
    let records = signing_keys::list(&mut read).await?;
    let generations = tag_keys::list(&mut read).await?;
    let mut discarded = 0;
    for kid in kept {
        let is_listed = records.iter().any(|record| record.kid == kid)
            || generations.iter().any(|generation| generation.kid() == kid);
        // An unknown key may belong to a restored database or be in creation. Only retired keys have this coverage.
        if !is_listed && coverage::floor_for(&mut read, &kid).await? == Some(NEVER_EXPIRES) {
            discarded += usize::from(discard_key_file(service, &kid));
        }
    }
    Ok(discarded)
}

/// Deletes the file of a key that is no longer part of the bundle. A failure is only logged, as the retirement is durable
/// already; [`discard_key_files`] tries again.
fn discard_key_file(service: &Service, kid: &str) -> bool {
    match keys::remove(&service.data_dir, kid) {
        Ok(()) => true,
        Err(error) => {
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(
                key.id = kid,
                error.cause = cause,
                "cannot delete the file of a retired key: {error}"
            );
            false
        }
    }
}

/// Deletes the signing keys whose tokens have all expired. Returns their number.
pub async fn prune_signing_keys(service: &Service) -> Result<usize, SigningKeyError> {
    let mut read = service.store.read().await?;
    let newest =
        UnixMillis::from_seconds(signing_keys::newest_created_at(&mut read).await?.unwrap_or_default());
    let all_expired = service.now() >= newest.plus(Duration::from_secs(Lifetime::MAX.seconds()));
    let mut prunable = Vec::new();
    for record in replaced_keys(&signing_keys::list(&mut read).await?) {
        if all_expired && !issued::has_any_of_key(&mut read, &record.kid).await? {
            prunable.push(record.kid.clone());
        }
    }
    drop(read);
    for kid in &prunable {
        let mut change = service.change(&Actor::System).await?;
        signing_keys::delete(change.db(), kid).await?;
        commit_change(change, Event::SigningKeyPruned { kid: kid.clone() }).await?;
        discard_key_file(service, kid);
    }
    Ok(prunable.len())
}

/// Returns the newest key if it does not sign yet.
fn find_pending_key(records: &[SigningKeyRecord]) -> Option<&SigningKeyRecord> {
    records.first().filter(|newest| newest.state == SigningKeyState::Verifying)
}

/// Returns the keys that signed before the active one.
fn replaced_keys(records: &[SigningKeyRecord]) -> impl Iterator<Item = &SigningKeyRecord> {
    records.iter().skip_while(|record| record.state == SigningKeyState::Verifying).skip(1)
}

/// Returns whether the file of a key can be used here.
fn can_sign(service: &Service, key: &SigningKeyRecord) -> bool {
    let active = SigningKeyRecord { state: SigningKeyState::Active, ..key.clone() };
    keys::Keyring::open(&service.data_dir, &[active]).is_ok()
}

/// Creates a signing key. The file is written before the database row, so that every row has a file.
async fn insert_pending_key(
    service: &Service,
    write: &mut Write,
    records: &[SigningKeyRecord],
    state: SigningKeyState,
    now: UnixMillis,
) -> Result<SigningKeyRecord, SigningKeyError> {
    let algorithm = records.first().ok_or(KeyError::NoSigner)?.algorithm;
    let key = keys::create_signing_key(&service.data_dir, algorithm, state)?;
    let newest = signing_keys::newest_created_at(write).await?.unwrap_or_default();
    signing_keys::insert(write, &key, now.seconds().max(newest.saturating_add(1))).await?;
    Ok(key)
}

/// Makes a key the active one. The other keys sign no more.
async fn activate_key(write: &mut Write, records: &[SigningKeyRecord], kid: &str) -> Result<(), StoreError> {
    signing_keys::activate(write, kid).await?;
    let others: Vec<String> =
        records.iter().map(|record| record.kid.clone()).filter(|other| other != kid).collect();
    coverage::raise_floor(write, &others, NEVER_EXPIRES).await
}

/// Commits a change of the keys that edges have.
async fn commit_change(mut change: Change<'_>, event: Event) -> Result<(), StoreError> {
    let version = change.version();
    key_set::set_version(change.db(), version).await?;
    change.commit(event).await.map(drop)
}
