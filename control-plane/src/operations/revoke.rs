use std::{fmt, time::Duration};

use serde_json::json;
use token::{Fingerprint, Unverified};

use super::{
    Service,
    api_keys::{RESERVED_REASONS, hold, refuse_all},
    operator_limits,
    watermark::{raise, raise_to_now},
};
use crate::{
    clock::Time,
    model::{Actor, Issuance, KeyId, OperatorId, Revocation, Subject, Watermark, WatermarkScope},
    store::{
        NEVER, StoreError, Write, api_keys, audit, auth_keys, issued, operators, revocations, signing_keys,
        tag_keys, versions, watermarks,
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
    /// The reason is one that Keystile gives itself, and later takes back: see [`RESERVED_REASONS`].
    ReasonReserved,
    /// It is the root user's, which only the root user refuses, or whoever holds the credential itself.
    RootOnly,
    /// The first 64 bits of the fingerprint are those of another credential, which would be refused too.
    PrefixTaken,
    /// The operator has revoked as often as it may in a minute; how long until the next.
    TooMany(Duration),
    Store(StoreError),
}

impl RevokeError {
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Token(error) => error.code(),
            Self::TokenKeyUnknown => "token_key_unknown",
            Self::InstantInFuture => "instant_in_future",
            Self::ReasonTooLong | Self::ReasonReserved => "request_invalid",
            Self::RootOnly => "root_only",
            Self::PrefixTaken => "fingerprint_prefix_taken",
            Self::TooMany(_) => "operator_revocations_exceeded",
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
            Self::ReasonReserved => write!(
                f,
                "`reason`: {} are reserved for what Keystile does by itself; use other words",
                RESERVED_REASONS.map(|reason| format!("`{reason}`")).join(", ")
            ),
            Self::RootOnly => f.write_str(
                "only the root user refuses what is the root user's, whatever was granted; a token may be refused by \
                 whoever presents it as `token`",
            ),
            Self::PrefixTaken => {
                f.write_str("the first 64 bits of the fingerprint belong to another credential")
            }
            Self::TooMany(_) => f.write_str(
                "this operator has revoked as often as it may in a minute; `subject` revokes all of a user at once",
            ),
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
///
/// A revocation is never lost for want of room. An operator whose revocations are as many as edges are to hold of it
/// gets what it asks for, and more: instead of the token, all that its AuthKey was exchanged for until then.
pub async fn revoke(
    service: &Service,
    actor: &Actor,
    authority: &Authority,
    target: Target,
    reason: Option<&str>,
) -> Result<Revoked, RevokeError> {
    if let Actor::Token { subject, .. } = actor {
        service.rates.revocations.take(&subject.into()).map_err(RevokeError::TooMany)?;
    }
    unmetered(service, actor, authority, target, reason).await
}

/// However often: who logs out has been counted when the token was issued.
pub(super) async fn unmetered(
    service: &Service,
    actor: &Actor,
    authority: &Authority,
    target: Target,
    reason: Option<&str>,
) -> Result<Revoked, RevokeError> {
    if reason.is_some_and(|reason| reason.len() > LONGEST_REASON) {
        return Err(RevokeError::ReasonTooLong);
    }
    if reason.is_some_and(|reason| RESERVED_REASONS.contains(&reason)) {
        return Err(RevokeError::ReasonReserved);
    }
    let mut write = service.store.write().await?;
    let version = versions::next(&mut write, service.now()).await?;
    // After the wait for the version: what was issued meanwhile is meant too.
    let now = service.now();
    let (what, changed) = match target {
        Target::Fingerprint(fingerprint) => {
            let scope = Scope { actor, authority, holds: false };
            one(service, &mut write, scope, fingerprint, NEVER, reason, now, version).await?
        }
        Target::Key(KeyId::ApiKey(id)) => {
            let key = api_keys::find(&mut write, id).await?.ok_or(RevokeError::NotFound)?;
            let scope = Scope { actor, authority, holds: false };
            one(service, &mut write, scope, key.fingerprint, NEVER, reason, now, version).await?
        }
        Target::Token(text) => {
            let fingerprint = Fingerprint::of(text.as_bytes());
            // An API key is a text that only its fingerprint tells us of.
            let (fingerprint, expires_at) = match issued::find(&mut write, &fingerprint).await? {
                Some(issuance) => (fingerprint, issuance.expires_at),
                None => verify(service, &text)?,
            };
            let scope = Scope { actor, authority, holds: true };
            one(service, &mut write, scope, fingerprint, expires_at, reason, now, version).await?
        }
        Target::Key(id) => {
            let (scope, session) = owned_key(&mut write, actor, authority, id).await?;
            let merged = match session {
                Some(issuance) if !watermarks::exists(&mut write, &scope).await? => {
                    merge(service, &mut write, authority, &issuance, now, version).await?
                }
                _ => None,
            };
            match merged {
                Some(merged) => merged,
                None => all(service, &mut write, authority, scope, None, now, version).await?,
            }
        }
        Target::Subject { subject, instant } => {
            owned_subject(&mut write, authority, &subject).await?;
            if !actor.may_manage(&subject) {
                return Err(RevokeError::RootOnly);
            }
            all(service, &mut write, authority, subject.into(), instant, now, version).await?
        }
        Target::SigningKey(kid) => {
            let known = matches!(authority, Authority::Everything) && is_own(&mut write, &kid).await?;
            let kid = if known { kid } else { return Err(RevokeError::NotFound) };
            all(service, &mut write, authority, WatermarkScope::SigningKey(kid), None, now, version).await?
        }
        Target::Everything if matches!(authority, Authority::Everything) => {
            all(service, &mut write, authority, WatermarkScope::Global, None, now, version).await?
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

/// Who refuses a single credential.
#[derive(Clone, Copy)]
struct Scope<'a> {
    actor: &'a Actor,
    authority: &'a Authority,
    /// Whether it presented the credential itself: whoever holds one may end it, whosever it is.
    holds: bool,
}

fn is_own_token(actor: &Actor, fingerprint: &Fingerprint) -> bool {
    matches!(actor, Actor::Token { fingerprint: own, .. } if own == fingerprint)
}

/// One fingerprint. What the store does not know is refused until `unknown`: it may be an API key that a restored backup
/// lost, or a token of another issuer, and nothing tells when it ends.
#[expect(clippy::too_many_arguments, reason = "what a transaction of this one operation knows")]
async fn one(
    service: &Service,
    write: &mut Write,
    scope: Scope<'_>,
    fingerprint: Fingerprint,
    unknown: u64,
    reason: Option<&str>,
    now: Time,
    version: u64,
) -> Result<(What, bool), RevokeError> {
    let Scope { actor, authority, holds } = scope;
    let issuance = issued::find(write, &fingerprint).await?;
    let expires_at = match (issuance, authority) {
        (Some(issuance), _) if authority.covers(&issuance.subject.operator) => {
            let manages = actor.may_manage(&issuance.subject);
            if !manages && !holds && !is_own_token(actor, &fingerprint) {
                return Err(RevokeError::RootOnly);
            }
            // Whoever only holds a credential ends that one, and no other.
            if manages
                && revocations::find(write, &fingerprint).await?.is_none()
                && let Some(merged) = merge(service, write, authority, &issuance, now, version).await?
            {
                return Ok(merged);
            }
            issuance.expires_at
        }
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
    if let Authority::Operator(operator) = authority
        && inserted
    {
        operator_limits::count_revocation(write, operator, expires_at).await?;
    }
    let held = hold(write, &fingerprint, reason, now, version).await?;
    Ok((What::Fingerprint(fingerprint), inserted || held))
}

/// Where edges hold as much of the operator as they are to: a watermark of the AuthKey that the token was exchanged for,
/// of which there are few. None where the token is to be revoked by itself, as all are that an admin issued.
async fn merge(
    service: &Service,
    write: &mut Write,
    authority: &Authority,
    issuance: &Issuance,
    now: Time,
    version: u64,
) -> Result<Option<(What, bool)>, StoreError> {
    let (Authority::Operator(operator), Some(auth_key)) = (authority, &issuance.auth_key) else {
        return Ok(None);
    };
    if !operator_limits::share_used_up(service, write, operator, now).await? {
        return Ok(None);
    }
    let scope = WatermarkScope::AuthKey(auth_key.clone());
    let (watermark, raised) = raise(service, write, &scope, issuance.issued_at, now, version).await?;
    Ok(Some((What::Scope(watermark), raised)))
}

/// Everything of a scope up to an instant.
async fn all(
    service: &Service,
    write: &mut Write,
    authority: &Authority,
    scope: WatermarkScope,
    instant: Option<u64>,
    now: Time,
    version: u64,
) -> Result<(What, bool), RevokeError> {
    let is_new = operator_limits::counts_anew(write, &scope).await?;
    let (until, (watermark, raised)) = match instant {
        Some(instant) if instant > now.seconds() => return Err(RevokeError::InstantInFuture),
        Some(instant) => (instant, raise(service, write, &scope, instant, now, version).await?),
        None => (NEVER, raise_to_now(service, write, &scope, now.seconds(), now, version).await?),
    };
    if let Authority::Operator(operator) = authority
        && is_new
    {
        operator_limits::count_revocation(write, operator, watermark.ends_at).await?;
    }
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

/// The scope; of a session, its latest token too.
async fn owned_key(
    write: &mut Write,
    actor: &Actor,
    authority: &Authority,
    id: KeyId,
) -> Result<(WatermarkScope, Option<Issuance>), RevokeError> {
    let (owner, scope, session) = match id {
        KeyId::AuthKey(id) => {
            let key = auth_keys::find(write, &id).await?.ok_or(RevokeError::NotFound)?;
            (key.subject, WatermarkScope::AuthKey(id), None)
        }
        KeyId::Session(id) => {
            let issuance = issued::find_session(write, &id).await?.ok_or(RevokeError::NotFound)?;
            (issuance.subject.clone(), WatermarkScope::Session(id), Some(issuance))
        }
        // It is one credential, revoked by its fingerprint.
        KeyId::ApiKey(_) => return Err(RevokeError::NotFound),
    };
    if !authority.covers(&owner.operator) {
        return Err(RevokeError::NotFound);
    }
    if actor.may_manage(&owner) { Ok((scope, session)) } else { Err(RevokeError::RootOnly) }
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
