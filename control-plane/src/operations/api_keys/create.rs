use serde_json::{Value, json};
use token::{
    Fingerprint,
    api_key::{Contents, Kind, Prefix},
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
    model::{Actor, ApiKey, ApiKeyState, Generation, Issuance, Subject, Username, Watermark, WatermarkScope},
    operations::{
        AccountError, Blocked, Service,
        mint::{AHEAD, WAIT, WAITS},
        operator_limits::{self, Limited},
        users::ensure_user,
    },
    random,
    store::{
        NEVER, StoreError, Write, api_keys, audit, gaps,
        issued::{self, Inserted},
        key_set, operators, tag_keys, versions, watermarks,
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
    if !actor.may_manage(&owner) {
        return Err(ApiKeyError::RootOnly);
    }
    let username = Username::of(&owner, username.as_deref()).map_err(ApiKeyError::Username)?;
    let mut waits = 0;
    loop {
        let mut write = service.store.write().await?;
        versions::lock(&mut write).await?;
        let now = service.now();
        let mut version = ensure_user(service, &mut write, actor, &owner, now).await?;
        let allowed = operator_limits::allow(service, &mut write, &owner.operator, Limited::ApiKeys).await?;
        allowed.map_err(AccountError::LimitReached)?;
        let draft = Draft {
            owner: &owner,
            username: &username,
            prefix: &prefix,
            name: name.as_deref(),
            metadata: metadata.as_ref(),
            expires_at,
        };
        let (key, secret) = match enter(service, &mut write, &draft, &mut version, now).await? {
            Entered::Yes(entered) => *entered,
            Entered::Blocked(watermark) => {
                drop(write);
                wait(&watermark, now, &mut waits).await?;
                continue;
            }
        };
        api_keys::set_creator(&mut write, key.id, &actor.to_string()).await?;
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

/// What became of a draft.
pub(super) enum Entered {
    Yes(Box<(ApiKey, Secret)>),
    /// The watermark lies ahead: [`wait`], and try again.
    Blocked(Watermark),
}

/// For a watermark that lies ahead, though no longer than issuing and revoking in turn can bring about.
pub(super) async fn wait(watermark: &Watermark, now: Time, waits: &mut usize) -> Result<(), ApiKeyError> {
    *waits = waits.saturating_add(1);
    let earliest = watermark.instant.saturating_add(1);
    if *waits > WAITS || earliest > now.seconds().saturating_add(AHEAD.saturating_mul(3)) {
        return Err(ApiKeyError::Blocked(Blocked::By(watermark.scope.clone()), earliest));
    }
    sleep(WAIT).await;
    Ok(())
}

/// Mints a key and enters it.
///
/// `version` is set when edges have something to hear of: the first key brings the key of its generation with it.
pub(super) async fn enter(
    service: &Service,
    write: &mut Write,
    draft: &Draft<'_>,
    version: &mut Option<u64>,
    now: Time,
) -> Result<Entered, ApiKeyError> {
    let Draft { owner, username, prefix, name, metadata, expires_at } = *draft;
    let generation = current_generation(service, write, version, now).await?;
    let minting = match keys::open_generation(&service.home, &generation) {
        Ok(minting) => minting,
        Err(error) if error.is_absent() => {
            let kid = generation.kid();
            return Err(ApiKeyError::MadeElsewhere { path: keys::path(&service.home, &kid), kid });
        }
        Err(error) => return Err(error.into()),
    };
    let kid = generation.kid();
    // What edges take it for, so what watermarks there may stand in its way.
    let subject = username.subject(owner);
    if generation.kind == Kind::Short && subject.is_root() {
        return Err(ApiKeyError::ShortRoot(kid));
    }
    if let (None, Subject { operator, user: Some(name) }) = (&owner.user, &subject)
        && operators::user_exists(write, operator, name).await?
    {
        return Err(ApiKeyError::NameOfUser(subject));
    }
    let watermark = watermarks::latest(write, &kid, &subject, None, None).await?;
    // A closed gap is as a watermark of all.
    let gap = gaps::end(write).await?.map(|instant| Watermark {
        scope: WatermarkScope::Global,
        instant,
        ends_at: NEVER,
    });
    let latest = watermark.into_iter().chain(gap).max_by_key(|watermark| watermark.instant);
    let earliest = latest.as_ref().map_or(0, |watermark| watermark.instant.saturating_add(1));
    let mut issued_at = earliest.max(now.seconds());
    if let Some(watermark) = latest.filter(|_| issued_at > now.seconds().saturating_add(AHEAD)) {
        return Ok(Entered::Blocked(watermark));
    }
    for _ in 0..ATTEMPTS {
        let id = api_keys::next_number(write, now).await?;
        let contents = Contents {
            prefix,
            operator: owner.operator.as_str(),
            number: id.0,
            issued_at,
            expires_at,
            random: *random::bytes(),
            username: username.as_str(),
        };
        let secret = minting.mint(&contents).ok_or(ApiKeyError::NoNumber)?;
        let fingerprint = Fingerprint::of(secret.expose().as_bytes());
        let issuance = Issuance {
            fingerprint,
            kid: kid.clone(),
            subject: owner.clone(),
            auth_key: None,
            session: None,
            issued_at,
            expires_at: expires_at.unwrap_or(NEVER),
        };
        // One chance in 2^64 per pair: another number and second give another fingerprint.
        if issued::insert(write, &issuance).await? != Inserted::Yes {
            issued_at = issued_at.saturating_add(1);
            continue;
        }
        let key = ApiKey {
            id,
            fingerprint,
            generation: generation.number,
            kind: generation.kind,
            owner: owner.clone(),
            username: username.clone(),
            prefix: prefix.clone(),
            name: name.map(str::to_owned),
            metadata: metadata.cloned(),
            state: ApiKeyState::Active,
            issued_at,
            ends_at: expires_at,
            expires_at,
            last_used_at: None,
        };
        api_keys::insert(write, &key).await?;
        return Ok(Entered::Yes(Box::new((key, secret))));
    }
    Err(ApiKeyError::NoNumber)
}

/// The newest, unless it is of format 1: of that none is made any more.
async fn current_generation(
    service: &Service,
    write: &mut Write,
    version: &mut Option<u64>,
    now: Time,
) -> Result<Generation, ApiKeyError> {
    if let Some(newest) = making(write).await? {
        return Ok(newest);
    }
    let version = match version {
        Some(version) => *version,
        None => *version.insert(versions::next(write, now).await?),
    };
    // Whoever waited for the version finds what another made meanwhile.
    match making(write).await? {
        Some(newest) => Ok(newest),
        None => new_generation(service, write, Kind::Signed, version, now).await,
    }
}

async fn making(write: &mut Write) -> Result<Option<Generation>, StoreError> {
    let newest = tag_keys::list(write).await?.first().copied();
    Ok(newest.filter(|newest| newest.kind != Kind::Format1))
}

/// In a transaction that has the version. The file first: what the database names must be there.
pub(in crate::operations) async fn new_generation(
    service: &Service,
    write: &mut Write,
    kind: Kind,
    version: u64,
    now: Time,
) -> Result<Generation, ApiKeyError> {
    let last = tag_keys::list(write).await?.first().map_or(0, |newest| newest.number);
    let number = keys::free_generation(&service.home, last)?.ok_or(ApiKeyError::NoGeneration)?;
    let generation = keys::create_generation(&service.home, number, kind)?;
    tag_keys::insert(write, &generation, now.seconds()).await?;
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

const ATTEMPTS: usize = 3;
