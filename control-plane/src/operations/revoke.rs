use std::fmt;

use serde_json::json;
use token::{Fingerprint, Unverified};

use super::{
    Service,
    api_keys::{hold, refuse_all},
    watermark::{raise, raise_to_now},
};
use crate::{
    clock::Time,
    model::{Actor, KeyId, OperatorId, Revocation, Subject, Watermark, WatermarkScope},
    store::{
        NEVER, StoreError, Write, api_keys, audit, auth_keys, issued, operators, revocations, signing_keys,
        tag_keys, versions,
    },
};

#[derive(Debug)]
pub enum RevokeError {
    /// Unknown, or another operator's: which of both is not told.
    NotFound,
    /// The text presented as a token is none of ours.
    Token(token::Error),
    TokenKeyUnknown,
    InstantInFuture,
    ReasonTooLong,
    /// The first 64 bits of the fingerprint are those of another credential, which would be refused too.
    PrefixTaken,
    Store(StoreError),
}

impl RevokeError {
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Token(error) => error.code(),
            Self::TokenKeyUnknown => "token_key_unknown",
            Self::InstantInFuture => "instant_in_future",
            Self::ReasonTooLong => "request_invalid",
            Self::PrefixTaken => "fingerprint_prefix_taken",
            Self::Store(error) => error.code(),
        }
    }
}

impl fmt::Display for RevokeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("nothing of that name was issued, or it has expired"),
            Self::Token(error) => error.fmt(f),
            Self::TokenKeyUnknown => f.write_str("the token is signed with a key that is not ours"),
            Self::InstantInFuture => f.write_str("the instant lies in the future"),
            Self::ReasonTooLong => write!(f, "`reason`: expected at most {LONGEST_REASON} bytes"),
            Self::PrefixTaken => {
                f.write_str("the first 64 bits of the fingerprint belong to another credential")
            }
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RevokeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
            _ => None,
        }
    }
}

impl From<StoreError> for RevokeError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What is to be refused from now on.
#[derive(Clone)]
pub enum Target {
    Fingerprint(Fingerprint),
    /// The token itself, in whose stead its fingerprint is kept.
    Token(String),
    Key(KeyId),
    /// Everything that the subject was issued up to the instant; up to now without one.
    Subject {
        subject: Subject,
        instant: Option<u64>,
    },
    /// Everything that a key signed up to now: a signing key, or the tag key of API keys.
    SigningKey(String),
    /// Everything that was ever issued.
    Everything,
}

impl Target {
    /// Whether the clock says what is refused.
    pub const fn is_up_to_now(&self) -> bool {
        match self {
            Self::Fingerprint(_) | Self::Token(_) | Self::Key(KeyId::ApiKey(_)) => false,
            Self::Subject { instant, .. } => instant.is_none(),
            Self::Key(_) | Self::SigningKey(_) | Self::Everything => true,
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fingerprint(fingerprint) => fingerprint.fmt(f),
            Self::Token(_) => f.write_str("Token(..)"),
            Self::Key(id) => write!(f, "Key({id})"),
            Self::SigningKey(kid) => write!(f, "SigningKey({kid})"),
            Self::Everything => f.write_str("Everything"),
            Self::Subject { subject, instant } => write!(f, "Subject({subject}, {instant:?})"),
        }
    }
}

/// What the actor may revoke.
#[derive(Debug, Clone)]
pub enum Authority {
    Operator(OperatorId),
    /// Someone beside the data folder: also what the store does not know, such as what a restored backup lost.
    Everything,
}

impl Authority {
    pub(super) fn covers(&self, operator: &OperatorId) -> bool {
        match self {
            Self::Operator(own) => own == operator,
            Self::Everything => true,
        }
    }
}

/// The refusal is durable, and part of every bundle from `version` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    pub version: u64,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Fingerprint(Fingerprint),
    Scope(Watermark),
}

/// Refuses a credential, or all of a scope. Doing it again changes nothing and succeeds.
pub async fn revoke(
    service: &Service,
    actor: &Actor,
    authority: &Authority,
    target: Target,
    reason: Option<&str>,
) -> Result<Revoked, RevokeError> {
    if reason.is_some_and(|reason| reason.len() > LONGEST_REASON) {
        return Err(RevokeError::ReasonTooLong);
    }
    let mut write = service.store.write().await?;
    let version = versions::next(&mut write, service.now()).await?;
    // After the wait for the version: what was issued meanwhile is meant too.
    let now = service.now();
    let (what, changed) = match target {
        Target::Fingerprint(fingerprint) => {
            one(&mut write, authority, fingerprint, NEVER, reason, now, version).await?
        }
        Target::Key(KeyId::ApiKey(id)) => {
            let key = api_keys::find(&mut write, id).await?.ok_or(RevokeError::NotFound)?;
            one(&mut write, authority, key.fingerprint, NEVER, reason, now, version).await?
        }
        Target::Token(text) => {
            let fingerprint = Fingerprint::of(text.as_bytes());
            // An API key is a text that only its fingerprint tells us of.
            let (fingerprint, expires_at) = match issued::find(&mut write, &fingerprint).await? {
                Some(issuance) => (fingerprint, issuance.expires_at),
                None => verify(service, &text)?,
            };
            one(&mut write, authority, fingerprint, expires_at, reason, now, version).await?
        }
        Target::Key(id) => {
            let scope = owned_key(&mut write, authority, id).await?;
            all(service, &mut write, scope, None, now, version).await?
        }
        Target::Subject { subject, instant } => {
            owned_subject(&mut write, authority, &subject).await?;
            all(service, &mut write, subject.into(), instant, now, version).await?
        }
        Target::SigningKey(kid) => {
            let known = matches!(authority, Authority::Everything) && is_own(&mut write, &kid).await?;
            let kid = if known { kid } else { return Err(RevokeError::NotFound) };
            all(service, &mut write, WatermarkScope::SigningKey(kid), None, now, version).await?
        }
        Target::Everything if matches!(authority, Authority::Everything) => {
            all(service, &mut write, WatermarkScope::Global, None, now, version).await?
        }
        Target::Everything => return Err(RevokeError::NotFound),
    };
    if !changed {
        drop(write);
        let version = versions::current(&mut service.store.reader().await?).await?.number;
        service.settle(version).await;
        return Ok(Revoked { version, what });
    }
    let (target, instant) = match &what {
        What::Fingerprint(fingerprint) => (fingerprint.to_string(), None),
        What::Scope(watermark) => (watermark.scope.to_string(), Some(watermark.instant)),
    };
    let detail = json!({ "version": version, "instant": instant, "reason": reason });
    audit::append(&mut write, audit::Change { at: now, actor, action: "revoke", target: &target, detail })
        .await?;
    write.commit().await?;
    service.settle(version).await;
    Ok(Revoked { version, what })
}

/// One fingerprint. What the store does not know is refused until `unknown`: it may be an API key that a restored backup
/// lost, or a token of another issuer, and nothing tells when it ends.
async fn one(
    write: &mut Write,
    authority: &Authority,
    fingerprint: Fingerprint,
    unknown: u64,
    reason: Option<&str>,
    now: Time,
    version: u64,
) -> Result<(What, bool), RevokeError> {
    let issuance = issued::find(write, &fingerprint).await?;
    let expires_at = match (issuance, authority) {
        (Some(issuance), _) if authority.covers(&issuance.subject.operator) => issuance.expires_at,
        (None, Authority::Everything) => unknown,
        _ => return Err(RevokeError::NotFound),
    };
    let revocation =
        Revocation { fingerprint, expires_at, reason: reason.map(str::to_owned), revoked_at: now.seconds() };
    let inserted = match revocations::insert(write, &revocation, version).await? {
        revocations::Inserted::Yes => true,
        revocations::Inserted::Before => false,
        revocations::Inserted::PrefixTaken => return Err(RevokeError::PrefixTaken),
    };
    let held = hold(write, &fingerprint).await?;
    Ok((What::Fingerprint(fingerprint), inserted || held))
}

/// Everything of a scope up to an instant.
async fn all(
    service: &Service,
    write: &mut Write,
    scope: WatermarkScope,
    instant: Option<u64>,
    now: Time,
    version: u64,
) -> Result<(What, bool), RevokeError> {
    let (until, (watermark, raised)) = match instant {
        Some(instant) if instant > now.seconds() => return Err(RevokeError::InstantInFuture),
        Some(instant) => (instant, raise(service, write, &scope, instant, now, version).await?),
        None => (NEVER, raise_to_now(service, write, &scope, now.seconds(), now, version).await?),
    };
    // Also where the watermark was there before: a key may have been disabled since, to be enabled later.
    let refused = refuse_all(write, &watermark.scope, until, "revoked with its owner", now, version).await?;
    Ok((What::Scope(watermark), raised || refused.changed))
}

fn verify(service: &Service, text: &str) -> Result<(Fingerprint, u64), RevokeError> {
    let token = Unverified::parse(text.as_bytes()).map_err(RevokeError::Token)?;
    let keyring = service.keys.current();
    let key = keyring.verifying().iter().find(|key| key.kid() == token.kid());
    let authentic = token.verify(key.ok_or(RevokeError::TokenKeyUnknown)?).map_err(RevokeError::Token)?;
    Ok((authentic.fingerprint(), authentic.expires_at().unwrap_or(NEVER)))
}

async fn is_own(write: &mut Write, kid: &str) -> Result<bool, StoreError> {
    Ok(signing_keys::list(write).await?.iter().any(|key| key.kid == kid)
        || tag_keys::list(write).await?.iter().any(|generation| generation.kid() == kid))
}

async fn owned_key(
    write: &mut Write,
    authority: &Authority,
    id: KeyId,
) -> Result<WatermarkScope, RevokeError> {
    let (operator, scope) = match id {
        KeyId::AuthKey(id) => {
            let key = auth_keys::find(write, &id).await?.ok_or(RevokeError::NotFound)?;
            (key.subject.operator, WatermarkScope::AuthKey(id))
        }
        KeyId::Session(id) => {
            let issuance = issued::find_session(write, &id).await?.ok_or(RevokeError::NotFound)?;
            (issuance.subject.operator, WatermarkScope::Session(id))
        }
        // It is one credential, revoked by its fingerprint.
        KeyId::ApiKey(_) => return Err(RevokeError::NotFound),
    };
    if authority.covers(&operator) { Ok(scope) } else { Err(RevokeError::NotFound) }
}

async fn owned_subject(
    write: &mut Write,
    authority: &Authority,
    subject: &Subject,
) -> Result<(), RevokeError> {
    let Subject { operator, user } = subject;
    let known = authority.covers(operator)
        && match user {
            None => operators::exists(write, operator).await?,
            Some(user) => operators::user_exists(write, operator, user).await?,
        };
    if known { Ok(()) } else { Err(RevokeError::NotFound) }
}

/// Of UTF-8: a remark, kept with each revocation and in the audit log.
const LONGEST_REASON: usize = 500;
