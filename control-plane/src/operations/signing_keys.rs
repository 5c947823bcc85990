//! The keys that tokens are signed with, and what API keys are made with: replaced while servers run.
//!
//! ```text
//! rotate     a new key is published, and does not sign yet
//! promote    a manifest's lifetime later, when every live edge has it: it signs, and the old one signs no more
//! forget     when all that the old one signed has expired, it is published no more
//! retire     a stolen one: all of it at once; edges that do not have its successor yet refuse new tokens so long
//! ```
//! A key that signs no more is covered for ever: no server, whatever it has in memory, enters a token of it.

use std::{error::Error as _, fmt, path::PathBuf, time::Duration};

use serde_json::json;
use token::api_key::Kind;

use super::{ApiKeyError, Lifetime, Service, api_keys::new_generation, await_fleet, watermark::raise};
use crate::{
    clock::Time,
    keys::{self, KeyError},
    model::{Actor, SigningKeyRecord, SigningKeyState, WatermarkScope},
    store::{NEVER, StoreError, Write, audit, coverage, issued, key_set, signing_keys, tag_keys, versions},
};

#[derive(Debug)]
pub enum SigningKeyError {
    Unknown(String),
    /// The last rotation has not come to its end.
    UnderWay(String),
    Tag(ApiKeyError),
    Keys(KeyError),
    Store(StoreError),
}

impl fmt::Display for SigningKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(kid) => write!(f, "there is no key `{kid}`, or it was retired before"),
            Self::UnderWay(kid) => write!(
                f,
                "`{kid}` does not sign yet: it begins when every live edge knows it, a manifest's lifetime after it was \
                 made, and a server must run for that"
            ),
            Self::Tag(error) => error.fmt(f),
            Self::Keys(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SigningKeyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unknown(_) | Self::UnderWay(_) => None,
            Self::Tag(error) => error.source(),
            Self::Keys(error) => error.source(),
            Self::Store(error) => error.source(),
        }
    }
}

impl From<StoreError> for SigningKeyError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<KeyError> for SigningKeyError {
    fn from(error: KeyError) -> Self {
        Self::Keys(error)
    }
}

impl From<ApiKeyError> for SigningKeyError {
    fn from(error: ApiKeyError) -> Self {
        Self::Tag(error)
    }
}

/// A new key of the same algorithm, for edges to know before it signs. Returns its name.
pub async fn rotate_signing_key(service: &Service, actor: &Actor) -> Result<String, SigningKeyError> {
    let (mut write, version, now) = begin(service).await?;
    let records = signing_keys::list(&mut write).await?;
    if let Some(next) = upcoming(&records) {
        return Err(SigningKeyError::UnderWay(next.kid.clone()));
    }
    let key = add(service, &mut write, &records, SigningKeyState::Verifying, now).await?;
    finish(service, write, actor, "signing_key.rotate", &key.kid, version, now).await?;
    Ok(key.kid)
}

/// Has the newest key sign, if it does not yet and every live edge knows it. Returns its name.
pub async fn promote_signing_key(service: &Service) -> Result<Option<String>, SigningKeyError> {
    let mut read = service.store.read().await?;
    let Some(next) = upcoming(&signing_keys::list(&mut read).await?).cloned() else { return Ok(None) };
    let made = Time::from_seconds(signing_keys::newest_at(&mut read).await?.unwrap_or_default());
    let known = key_set::version(&mut read).await?;
    drop(read);
    // Whoever has no manifest that names it by then holds a stale one, and is not live.
    if service.now() < made.plus(service.config.publisher.lifetime.get())
        || !await_fleet(service, known, Duration::ZERO).await?.by_all()
    {
        return Ok(None);
    }
    let (mut write, version, now) = begin(service).await?;
    let mut records = signing_keys::list(&mut write).await?;
    // Another server may have been first.
    if upcoming(&records) != Some(&next) {
        return Ok(None);
    }
    promote(&mut write, &records, &next.kid).await?;
    for record in &mut records {
        let signs = record.kid == next.kid;
        record.state = if signs { SigningKeyState::Active } else { SigningKeyState::Verifying };
    }
    // Where the new key can't be opened the old one had better go on.
    keys::Keyring::open(&service.home, &records)?;
    finish(service, write, &Actor::System, "signing_key.promote", &next.kid, version, now).await?;
    Ok(Some(next.kid))
}

/// Takes a key away at once, and refuses all that it signed; another one signs. `kid`: of a signing key, or `tag-N`.
/// Returns the version that edges know it from.
pub async fn retire_key(service: &Service, actor: &Actor, kid: &str) -> Result<u64, SigningKeyError> {
    let (mut write, version, now) = begin(service).await?;
    let records = signing_keys::list(&mut write).await?;
    let tags = tag_keys::list(&mut write).await?;
    if let Some(record) = records.iter().find(|record| record.kid == kid) {
        if record.state == SigningKeyState::Active {
            let next = match upcoming(&records).filter(|next| can_sign(service, next)) {
                Some(next) => next.clone(),
                None => add(service, &mut write, &records, SigningKeyState::Active, now).await?,
            };
            promote(&mut write, &records, &next.kid).await?;
        }
        signing_keys::delete(&mut write, kid).await?;
    } else if let Some(generation) = tags.iter().find(|generation| generation.kid() == kid) {
        if tags.first() == Some(generation) {
            // Generations are never counted anew: there always is a later one.
            let kind = match generation.kind {
                Kind::Format1 => Kind::Signed,
                kind => kind,
            };
            new_generation(service, &mut write, kind, version, now).await?;
        }
        tag_keys::delete(&mut write, generation.number).await?;
    } else {
        return Err(SigningKeyError::Unknown(kid.to_owned()));
    }
    coverage::raise(&mut write, &[kid.to_owned()], NEVER).await?;
    // Whatever date its thief gives a credential; and should it ever be back, from a backup, that admits nobody.
    let scope = WatermarkScope::SigningKey(kid.to_owned());
    raise(service, &mut write, &scope, NEVER, now, version).await?;
    finish(service, write, actor, "key.retire", kid, version, now).await?;
    discard_key_file(service, kid);
    Ok(version)
}

/// The file of a key that was retired, if it could not be deleted.
pub fn retired_key_file(service: &Service, kid: &str) -> Option<PathBuf> {
    Some(keys::path(&service.home, kid)).filter(|file| file.exists())
}

/// Deletes the files of keys that were retired or forgotten: those that could not be deleted then, and those in the
/// folders of other replicas. Returns how many.
pub async fn discard_key_files(service: &Service) -> Result<usize, SigningKeyError> {
    // The files first: a key that is made meanwhile is in the database before it signs anything.
    let kept = keys::kept(&service.home)?;
    let mut read = service.store.read().await?;
    let records = signing_keys::list(&mut read).await?;
    let generations = tag_keys::list(&mut read).await?;
    let mut discarded = 0;
    for kid in kept {
        let is_listed = records.iter().any(|record| record.kid == kid)
            || generations.iter().any(|generation| generation.kid() == kid);
        // What is unknown may be of a database that was restored, or in the making; a covered key signs nothing more.
        if !is_listed && coverage::of(&mut read, &kid).await? == Some(NEVER) {
            discarded += usize::from(discard_key_file(service, &kid));
        }
    }
    Ok(discarded)
}

/// Deletes the file of a key that no bundle will ever have again. The change that needs it is durable already, so a
/// failure is no failure of that: it is logged, and [`discard_key_files`] tries again.
fn discard_key_file(service: &Service, kid: &str) -> bool {
    match keys::remove(&service.home, kid) {
        Ok(()) => true,
        Err(error) => {
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(
                key.id = kid,
                error.cause = cause,
                "the file of a retired key can't be deleted: {error}"
            );
            false
        }
    }
}

/// Takes away the keys whose tokens have all expired. Returns how many.
pub async fn forget_signing_keys(service: &Service) -> Result<usize, SigningKeyError> {
    let mut read = service.store.read().await?;
    let newest = Time::from_seconds(signing_keys::newest_at(&mut read).await?.unwrap_or_default());
    let over = service.now() >= newest.plus(Duration::from_secs(Lifetime::LONGEST.seconds()));
    let mut moot = Vec::new();
    for record in replaced(&signing_keys::list(&mut read).await?) {
        if over && !issued::any_of(&mut read, &record.kid).await? {
            moot.push(record.kid.clone());
        }
    }
    drop(read);
    for kid in &moot {
        let (mut write, version, now) = begin(service).await?;
        signing_keys::delete(&mut write, kid).await?;
        finish(service, write, &Actor::System, "signing_key.forget", kid, version, now).await?;
        discard_key_file(service, kid);
    }
    Ok(moot.len())
}

/// The one that is to sign, where that is not the one that does.
fn upcoming(records: &[SigningKeyRecord]) -> Option<&SigningKeyRecord> {
    records.first().filter(|newest| newest.state == SigningKeyState::Verifying)
}

/// Those that signed before the one that does.
fn replaced(records: &[SigningKeyRecord]) -> impl Iterator<Item = &SigningKeyRecord> {
    records.iter().skip_while(|record| record.state == SigningKeyState::Verifying).skip(1)
}

fn can_sign(service: &Service, key: &SigningKeyRecord) -> bool {
    let active = SigningKeyRecord { state: SigningKeyState::Active, ..key.clone() };
    keys::Keyring::open(&service.home, &[active]).is_ok()
}

/// The file first: what the database names must be there.
async fn add(
    service: &Service,
    write: &mut Write,
    records: &[SigningKeyRecord],
    state: SigningKeyState,
    now: Time,
) -> Result<SigningKeyRecord, SigningKeyError> {
    let algorithm = records.first().ok_or(KeyError::NoSigner)?.algorithm;
    let key = keys::create_signing_key(&service.home, algorithm, state)?;
    let newest = signing_keys::newest_at(write).await?.unwrap_or_default();
    signing_keys::insert(write, &key, now.seconds().max(newest.saturating_add(1))).await?;
    Ok(key)
}

async fn promote(write: &mut Write, records: &[SigningKeyRecord], kid: &str) -> Result<(), StoreError> {
    signing_keys::activate(write, kid).await?;
    let others: Vec<String> =
        records.iter().map(|record| record.kid.clone()).filter(|other| other != kid).collect();
    coverage::raise(write, &others, NEVER).await
}

async fn begin(service: &Service) -> Result<(Write, u64, Time), StoreError> {
    let mut write = service.store.write().await?;
    let version = versions::next(&mut write, service.now()).await?;
    Ok((write, version, service.now()))
}

async fn finish(
    service: &Service,
    mut write: Write,
    actor: &Actor,
    action: &'static str,
    kid: &str,
    version: u64,
    now: Time,
) -> Result<(), StoreError> {
    key_set::changed(&mut write, version).await?;
    let detail = json!({ "version": version });
    audit::append(&mut write, audit::Change { at: now, actor, action, target: kid, detail }).await?;
    write.commit().await?;
    service.settle(version).await;
    Ok(())
}
