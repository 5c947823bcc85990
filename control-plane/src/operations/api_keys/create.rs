use std::time::Duration;

use serde_json::{Value, json};
use token::{
    Fingerprint,
    api_key::{Prefix, TagKey},
    secret::Secret,
};
use tokio::time::sleep;

use super::{
    ApiKeyError,
    error::{LONGEST_METADATA, LONGEST_NAME},
};
use crate::{
    clock::Time,
    keys,
    model::{Actor, ApiKey, ApiKeyState, Issuance, Subject, Username},
    operations::{Service, mint::AHEAD, users::ensure_user},
    store::{
        NEVER, Write, api_keys, audit,
        issued::{self, Inserted},
        key_set, tag_keys, versions, watermarks,
    },
};

/// What kind of key is wanted.
#[derive(Debug, Clone)]
pub struct ApiKeyOrder {
    pub owner: Subject,
    /// The owner's subject, unless another name is given.
    pub username: Option<String>,
    pub prefix: Prefix,
    pub name: Option<String>,
    pub metadata: Option<Value>,
    /// Seconds since the Unix epoch.
    pub expires_at: Option<u64>,
}

#[derive(Debug)]
pub struct CreatedApiKey {
    pub key: ApiKey,
    /// Shown once.
    pub secret: Secret,
}

/// Makes an API key; its fingerprint is durable before the key is released. A user that is named for the first time is
/// made too.
pub async fn create_api_key(
    service: &Service,
    actor: &Actor,
    order: ApiKeyOrder,
) -> Result<CreatedApiKey, ApiKeyError> {
    let ApiKeyOrder { owner, username, prefix, name, metadata, expires_at } = order;
    check(name.as_deref(), metadata.as_ref())?;
    let username = Username::of(&owner, username.as_deref()).map_err(ApiKeyError::Username)?;
    loop {
        let mut write = service.store.write().await?;
        versions::lock(&mut write).await?;
        let now = service.now();
        let mut version = ensure_user(&mut write, actor, &owner, now).await?;
        let draft = Draft {
            owner: &owner,
            username: &username,
            prefix: &prefix,
            name: name.as_deref(),
            metadata: metadata.as_ref(),
            expires_at,
        };
        let Some((key, secret)) = enter(service, &mut write, &draft, &mut version, now).await? else {
            drop(write);
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let detail = json!({
            "owner": owner.to_string(),
            "username": username.as_str(),
            "name": name,
            "fingerprint": key.fingerprint.to_string(),
            "expires_at": expires_at,
        });
        let (action, target) = ("api_key.create", &key.id.to_string());
        audit::append(&mut write, audit::Change { at: now, actor, action, target, detail }).await?;
        write.commit().await?;
        if let Some(version) = version {
            service.settle(version).await;
        }
        return Ok(CreatedApiKey { key, secret });
    }
}

pub(super) struct Draft<'a> {
    pub(super) owner: &'a Subject,
    pub(super) username: &'a Username,
    pub(super) prefix: &'a Prefix,
    pub(super) name: Option<&'a str>,
    pub(super) metadata: Option<&'a Value>,
    pub(super) expires_at: Option<u64>,
}

/// Mints a key and enters it. None where a watermark still lies too far ahead: wait, and try again.
///
/// `version` is set when edges have something to hear of: the first key brings its tag key with it.
pub(super) async fn enter(
    service: &Service,
    write: &mut Write,
    draft: &Draft<'_>,
    version: &mut Option<u64>,
    now: Time,
) -> Result<Option<(ApiKey, Secret)>, ApiKeyError> {
    let Draft { owner, username, prefix, name, metadata, expires_at } = *draft;
    let generation = match tag_keys::list(write).await?.first() {
        Some(generation) => *generation,
        None => new_generation(service, write, FIRST, version, now).await?,
    };
    let tag = TagKey::new(generation, &*keys::open_tag_key(&service.home, generation)?)
        .map_err(|error| ApiKeyError::Keys(keys::KeyError::Unusable(error)))?;
    let kid = format!("tag-{generation}");
    let watermark = watermarks::applicable(write, &kid, owner, None, None).await?;
    let mut issued_at = watermark.map_or(0, |instant| instant.saturating_add(1)).max(now.seconds());
    if issued_at > now.seconds().saturating_add(AHEAD) {
        return Ok(None);
    }
    for _ in 0..ATTEMPTS {
        let id = api_keys::next_number(write).await?;
        let secret = tag.mint(prefix, id.0, issued_at, username.as_str()).ok_or(ApiKeyError::NoNumber)?;
        let fingerprint = Fingerprint::of(secret.expose().as_bytes());
        let issuance = Issuance {
            fingerprint,
            kid: kid.clone(),
            subject: owner.clone(),
            auth_key: None,
            session: None,
            issued_at,
            expires_at: NEVER,
        };
        // One chance in 2^64 per pair: another number and second give another fingerprint.
        if issued::insert(write, &issuance).await? != Inserted::Yes {
            issued_at = issued_at.saturating_add(1);
            continue;
        }
        let key = ApiKey {
            id,
            fingerprint,
            generation,
            owner: owner.clone(),
            username: username.clone(),
            prefix: prefix.clone(),
            name: name.map(str::to_owned),
            metadata: metadata.cloned(),
            state: ApiKeyState::Active,
            issued_at,
            expires_at,
            last_used_at: None,
        };
        api_keys::insert(write, &key).await?;
        return Ok(Some((key, secret)));
    }
    Err(ApiKeyError::NoNumber)
}

/// The file first: what the database names must be there.
pub(in crate::operations) async fn new_generation(
    service: &Service,
    write: &mut Write,
    generation: u8,
    version: &mut Option<u64>,
    now: Time,
) -> Result<u8, ApiKeyError> {
    let version = match version {
        Some(version) => *version,
        None => *version.insert(versions::next(write, now).await?),
    };
    // Whoever waited for the version finds what another made meanwhile.
    if tag_keys::list(write).await?.contains(&generation) {
        return Ok(generation);
    }
    keys::create_tag_key(&service.home, generation)?;
    tag_keys::insert(write, generation, now.seconds()).await?;
    key_set::changed(write, version).await?;
    Ok(generation)
}

fn check(name: Option<&str>, metadata: Option<&Value>) -> Result<(), ApiKeyError> {
    if name.is_some_and(|name| name.len() > LONGEST_NAME) {
        return Err(ApiKeyError::NameTooLong);
    }
    match metadata {
        None => Ok(()),
        Some(Value::Object(_))
            if metadata.is_some_and(|value| value.to_string().len() <= LONGEST_METADATA) =>
        {
            Ok(())
        }
        Some(_) => Err(ApiKeyError::Metadata),
    }
}

const FIRST: u8 = 1;

const ATTEMPTS: usize = 3;
