//! Creates API keys.

use serde_json::Value;
use token::{
    Fingerprint,
    api_key::{ApiKeyFields, Kind, Prefix},
    secret::Secret,
};

use super::{
    ApiKeyError,
    error::{MAX_METADATA_BYTES, MAX_NAME_BYTES},
    queries as api_keys,
};
use crate::{
    accounts::{AccountError, operators, users::ensure_user},
    credentials::{
        queries::issued::{self, IssueOutcome},
        tokens::{
            IssuanceBlock,
            mint::{IssueBackoff, MAX_ISSUE_SKEW_SECS},
        },
    },
    db::{Draft, NEVER_EXPIRES, StoreError, Write},
    domain::{
        Actor, ApiKey, ApiKeyState, Event, Generation, IssuedCredential, PresentedUsername, Subject,
        UnixMillis, UnixSeconds, Version, Watermark, WatermarkScope,
    },
    keys::{key_set, keyring as keys, tag_keys},
    limits::{LimitKind, operator as operator_limits},
    platform::random,
    restore::gaps,
    revocation::watermarks,
    service::Service,
};

/// How often a key is minted again after its fingerprint prefix was taken.
const MAX_ATTEMPTS: usize = 3;

/// The API key to create.
#[derive(Debug, Clone)]
pub struct CreateApiKey {
    /// The owner. The user is created if it does not exist.
    pub owner: Subject,
    /// The username that clients present with the key; `None` for the owner's subject.
    pub username: Option<String>,
    /// The prefix of the key.
    pub prefix: Prefix,
    /// A name for display.
    pub name: Option<String>,
    /// A JSON object.
    pub metadata: Option<Value>,
    /// Seconds since the Unix epoch; `None` if the key never expires.
    pub expires_at: Option<UnixSeconds>,
}

/// A new API key.
#[derive(Debug)]
pub struct CreatedApiKey {
    /// The record of the key.
    pub key: ApiKey,
    /// The key. It is shown once.
    pub secret: Secret,
}

/// Creates an API key, and its owner if the user does not exist. The fingerprint is durable before the key is returned.
pub async fn create_api_key(
    service: &Service,
    actor: &Actor,
    order: CreateApiKey,
) -> Result<CreatedApiKey, ApiKeyError> {
    let CreateApiKey { owner, username, prefix, name, metadata, expires_at } = order;
    check_name_and_metadata(name.as_deref(), metadata.as_ref())?;
    if !actor.may_manage(&owner) {
        return Err(ApiKeyError::RootOnly);
    }
    let username =
        PresentedUsername::parse_for(&owner, username.as_deref()).map_err(ApiKeyError::Username)?;
    let mut backoff = IssueBackoff::default();
    loop {
        let mut draft = service.draft(actor).await?;
        let now = draft.now();
        ensure_user(service, &mut draft, &owner).await?;
        let checked =
            operator_limits::check_limit(service, draft.db(), &owner.operator, LimitKind::ApiKeys).await;
        checked.map_err(AccountError::from)?;
        let new = NewApiKey {
            owner: &owner,
            username: &username,
            prefix: &prefix,
            name: name.as_deref(),
            metadata: metadata.as_ref(),
            expires_at,
        };
        let (key, secret) = match mint_and_insert(service, &mut draft, &new).await? {
            MintOutcome::Minted(minted) => *minted,
            MintOutcome::Blocked(watermark) => {
                drop(draft);
                wait_for_watermark(&watermark, now, &mut backoff).await?;
                continue;
            }
        };
        api_keys::set_creator(draft.db(), key.id, &actor.to_string()).await?;
        draft.commit(Event::ApiKeyCreated { key: Box::new(key.clone()) }).await?;
        return Ok(CreatedApiKey { key, secret });
    }
}

/// The attributes of a key before it is minted.
pub(crate) struct NewApiKey<'a> {
    pub(crate) owner: &'a Subject,
    pub(crate) username: &'a PresentedUsername,
    pub(crate) prefix: &'a Prefix,
    pub(crate) name: Option<&'a str>,
    pub(crate) metadata: Option<&'a Value>,
    pub(crate) expires_at: Option<UnixSeconds>,
}

/// The result of [`mint_and_insert`].
pub(crate) enum MintOutcome {
    /// The key was inserted.
    Minted(Box<(ApiKey, Secret)>),
    /// The watermark is ahead of the clock: the caller must call [`wait_for_watermark`] and try again.
    Blocked(Watermark),
}

/// Pauses until the next attempt. Fails if the watermark is too far ahead of the clock, or the attempts are used up.
pub(crate) async fn wait_for_watermark(
    watermark: &Watermark,
    now: UnixMillis,
    backoff: &mut IssueBackoff,
) -> Result<(), ApiKeyError> {
    let earliest = watermark.instant.saturating_add(1);
    if backoff.wait(earliest, now.seconds()).await {
        return Ok(());
    }
    Err(ApiKeyError::Blocked(IssuanceBlock::Watermark(watermark.scope.clone()), earliest))
}

/// Mints a key and inserts it.
///
/// The change gets a version if the bundle changes: the first key of a generation publishes the key of the generation.
pub(crate) async fn mint_and_insert(
    service: &Service,
    draft: &mut Draft<'_>,
    new: &NewApiKey<'_>,
) -> Result<MintOutcome, ApiKeyError> {
    let NewApiKey { owner, username, prefix, name, metadata, expires_at } = *new;
    let now = draft.now();
    let generation = current_generation(service, draft).await?;
    let write = draft.db();
    let minting = match keys::open_generation(&service.data_dir, &generation) {
        Ok(minting) => minting,
        Err(error) if error.is_absent() => {
            let kid = generation.kid();
            return Err(ApiKeyError::KeyFileElsewhere { path: keys::path(&service.data_dir, &kid), kid });
        }
        Err(error) => return Err(error.into()),
    };
    let kid = generation.kid();
    // The subject that edges assign to the key, whose watermarks apply.
    let subject = username.subject(owner);
    if generation.kind == Kind::Short && subject.is_root() {
        return Err(ApiKeyError::ShortFormForRoot(kid));
    }
    if let (None, Subject { operator, user: Some(name) }) = (&owner.user, &subject)
        && operators::user_exists(write, operator, name).await?
    {
        return Err(ApiKeyError::UsernameIsUser(subject));
    }
    let watermark = watermarks::latest_instant(write, &kid, &subject, None, None).await?;
    // A repaired gap is like a global watermark.
    let gap = gaps::latest_end(write).await?.map(|instant| Watermark {
        scope: WatermarkScope::Global,
        instant,
        ends_at: NEVER_EXPIRES,
    });
    let latest = watermark.into_iter().chain(gap).max_by_key(|watermark| watermark.instant);
    let earliest =
        latest.as_ref().map_or(UnixSeconds::EPOCH, |watermark| watermark.instant.saturating_add(1));
    let mut issued_at = earliest.max(now.seconds());
    if let Some(watermark) = latest.filter(|_| issued_at > now.seconds().saturating_add(MAX_ISSUE_SKEW_SECS))
    {
        return Ok(MintOutcome::Blocked(watermark));
    }
    for _ in 0..MAX_ATTEMPTS {
        let id = api_keys::next_number(write, now).await?;
        let contents = ApiKeyFields {
            prefix,
            operator: owner.operator.as_str(),
            number: id.0,
            issued_at: issued_at.get(),
            expires_at: expires_at.map(UnixSeconds::get),
            random: *random::bytes(),
            username: username.as_str(),
        };
        let secret = minting.mint(&contents).ok_or(ApiKeyError::NoFreeNumber)?;
        let fingerprint = Fingerprint::digest(secret.expose().as_bytes());
        let issuance = IssuedCredential {
            fingerprint,
            kid: kid.clone(),
            subject: owner.clone(),
            auth_key: None,
            session: None,
            issued_at,
            expires_at: expires_at.unwrap_or(NEVER_EXPIRES),
        };
        // The probability is 2^-64 per pair. Another number and second give another fingerprint.
        if issued::insert(write, &issuance).await? != IssueOutcome::Inserted {
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
        return Ok(MintOutcome::Minted(Box::new((key, secret))));
    }
    Err(ApiKeyError::NoFreeNumber)
}

/// Returns the newest generation, or creates one if there is none or if it is of format 1.
async fn current_generation(service: &Service, draft: &mut Draft<'_>) -> Result<Generation, ApiKeyError> {
    if let Some(newest) = newest_usable_generation(draft.db()).await? {
        return Ok(newest);
    }
    let (version, now) = (draft.version().await?, draft.now());
    create_tag_key_generation(service, draft.db(), Kind::Signed, version, now).await
}

/// Returns the newest generation unless it is of format 1, with which no key is created any more.
async fn newest_usable_generation(write: &mut Write) -> Result<Option<Generation>, StoreError> {
    let newest = tag_keys::list(write).await?.first().copied();
    Ok(newest.filter(|newest| newest.kind != Kind::Format1))
}

/// Creates a generation in a transaction that has allocated a version. The key file is written before the database row, so
/// that every row has a file.
pub(crate) async fn create_tag_key_generation(
    service: &Service,
    write: &mut Write,
    kind: Kind,
    version: Version,
    now: UnixMillis,
) -> Result<Generation, ApiKeyError> {
    let last = tag_keys::list(write).await?.first().map_or(0, |newest| newest.number);
    let number = keys::unused_generation(&service.data_dir, last)?.ok_or(ApiKeyError::NoGeneration)?;
    let generation = keys::create_generation(&service.data_dir, number, kind)?;
    tag_keys::insert(write, &generation, now.seconds()).await?;
    key_set::set_version(write, version).await?;
    Ok(generation)
}

fn check_name_and_metadata(name: Option<&str>, metadata: Option<&Value>) -> Result<(), ApiKeyError> {
    if name.is_some_and(|name| name.len() > MAX_NAME_BYTES) {
        return Err(ApiKeyError::NameTooLong);
    }
    match metadata {
        None => Ok(()),
        Some(Value::Object(_))
            if metadata.is_some_and(|value| value.to_string().len() <= MAX_METADATA_BYTES) =>
        {
            Ok(())
        }
        Some(_) => Err(ApiKeyError::Metadata),
    }
}
