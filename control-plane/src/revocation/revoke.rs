//! Revokes credentials by fingerprint or by watermark.

use std::{fmt, time::Duration};

use token::{Fingerprint, Unverified};

use super::{
    queries::{revocations, watermarks},
    watermarks::{raise_at, raise_to_now},
};
use crate::{
    accounts::operators,
    credentials::{
        api_keys::{self, RESERVED_REASONS, make_revocation_permanent, revoke_keys_in_scope},
        auth_keys, issued,
    },
    db::{NEVER_EXPIRES, StoreError, Write},
    domain::{
        Actor, CoreError, ErrorKind, Event, IssuedCredential, OperatorId, RevocableKeyId, Revocation,
        Subject, UnixMillis, UnixSeconds, Version, Watermark, WatermarkScope,
    },
    keys::{signing_keys, tag_keys},
    limits::operator as operator_limits,
    service::Service,
};

/// The limit of a reason, which is stored with each revocation and in the audit log. Bytes of UTF-8.
const MAX_REASON_BYTES: usize = 500;

/// Why a revocation failed.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// The credential is unknown, or another operator's. The error does not reveal which.
    #[error("unknown or expired credential")]
    NotFound,
    /// The text is not a valid token of this installation.
    #[error("{0}")]
    Token(token::Error),
    /// The token is signed with a key of another installation.
    #[error("the token is signed with an unknown key")]
    TokenKeyUnknown,
    /// The scope of another issuer names the issuer of this installation.
    #[error(
        "this is the issuer of this installation: `subject` is OPERATOR or OPERATOR/NAME, and a session or an AuthKey is \
         revoked by its key id"
    )]
    OwnIssuer,
    /// The instant is in the future.
    #[error("the instant is in the future")]
    InstantInFuture,
    /// The reason exceeds the limit.
    #[error("`reason`: expected at most {max} bytes", max = MAX_REASON_BYTES)]
    ReasonTooLong,
    /// Keystile uses this reason for revocations that can be taken back: see [`RESERVED_REASONS`].
    #[error(
"`reason`: {} are reserved for revocations that Keystile makes itself; use another reason",
RESERVED_REASONS.map(|reason| format!("`{reason}`")).join(", ")
)]
    ReasonReserved,
    /// The credential is the root user's. Only the root user, or a caller that presents the credential, may revoke it.
    #[error(
        "only the root user may revoke credentials of the root user, regardless of permissions; any \
         caller may revoke a token that it presents as `token`"
    )]
    RootOnly,
    /// Another credential has the same first 64 bits of the fingerprint, and would be refused too.
    #[error("the first 64 bits of the fingerprint belong to another credential")]
    PrefixTaken,
    /// The operator has reached its limit of revocations a minute. The next attempt can succeed after this time.
    #[error(
        "the operator has reached its limit of revocations a minute; `subject` revokes all credentials of a \
         user at once"
    )]
    RateLimited(Duration),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RevokeError {
    /// Returns the error code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Token(error) => error.code(),
            Self::TokenKeyUnknown => "token_key_unknown",
            Self::InstantInFuture => "instant_in_future",
            Self::ReasonTooLong | Self::ReasonReserved | Self::OwnIssuer => "request_invalid",
            Self::RootOnly => "root_only",
            Self::PrefixTaken => "fingerprint_prefix_taken",
            Self::RateLimited(_) => "operator_revocations_exceeded",
            Self::Store(error) => error.code(),
        }
    }
}

impl CoreError for RevokeError {
    fn code(&self) -> &'static str {
        self.code()
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound => ErrorKind::NotFound,
            Self::Token(_)
            | Self::TokenKeyUnknown
            | Self::InstantInFuture
            | Self::OwnIssuer
            | Self::ReasonTooLong
            | Self::ReasonReserved => ErrorKind::Invalid,
            Self::RootOnly => ErrorKind::Forbidden,
            Self::PrefixTaken => ErrorKind::Conflict,
            Self::RateLimited(wait) => ErrorKind::Limited(Some(*wait)),
            Self::Store(error) => error.kind(),
        }
    }
}

/// What to revoke.
#[derive(Clone)]
pub enum RevocationTarget {
    /// The credential of a fingerprint.
    Fingerprint(Fingerprint),
    /// A full token or API key. Only its fingerprint is stored.
    Token(String),
    /// An API key, or everything that was issued for an AuthKey or a session up to now.
    Key(RevocableKeyId),
    /// Everything that was issued to a subject up to an instant, or up to now.
    Subject { subject: Subject, instant: Option<UnixSeconds> },
    /// What another issuer issued, up to an instant, or up to now. What is one credential is revoked regardless of its date.
    Foreign { scope: WatermarkScope, instant: Option<UnixSeconds> },
    /// Everything that a signing key or tag key signed up to now.
    SigningKey(String),
    /// Everything that was issued up to now.
    Everything,
}

impl RevocationTarget {
    /// Returns whether the revocation depends on the present time.
    pub const fn is_up_to_now(&self) -> bool {
        match self {
            Self::Fingerprint(_) | Self::Token(_) | Self::Key(RevocableKeyId::ApiKey(_)) => false,
            Self::Subject { instant, .. } => instant.is_none(),
            Self::Foreign { scope, instant } => instant.is_none() && !scope.is_one_credential(),
            Self::Key(_) | Self::SigningKey(_) | Self::Everything => true,
        }
    }
}

impl fmt::Debug for RevocationTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fingerprint(fingerprint) => fingerprint.fmt(f),
            Self::Token(_) => f.write_str("Token(..)"),
            Self::Key(id) => write!(f, "Key({id})"),
            Self::SigningKey(kid) => write!(f, "SigningKey({kid})"),
            Self::Everything => f.write_str("Everything"),
            Self::Subject { subject, instant } => write!(f, "Subject({subject}, {instant:?})"),
            Self::Foreign { scope, instant } => write!(f, "Foreign({scope}, {instant:?})"),
        }
    }
}

/// The credentials that an actor may revoke.
#[derive(Debug, Clone)]
pub enum AccessScope {
    /// The credentials of an operator.
    Operator(OperatorId),
    /// All credentials, even those that the store lacks, as after a restored backup. For admins with access to the data
    /// folder.
    Everything,
}

impl AccessScope {
    /// Returns whether credentials of the operator are included.
    pub(crate) fn includes(&self, operator: &OperatorId) -> bool {
        match self {
            Self::Operator(own) => own == operator,
            Self::Everything => true,
        }
    }
}

/// A durable revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurableRevocation {
    /// The first bundle with the revocation.
    pub version: Version,
    /// What was revoked.
    pub outcome: RevocationOutcome,
}

/// What was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevocationOutcome {
    /// One credential.
    Fingerprint(Fingerprint),
    /// All credentials of a scope up to an instant.
    Scope(Watermark),
}

/// Revokes a credential, or all credentials of a scope. A second call changes nothing and succeeds.
///
/// A revocation is never rejected because of the limit on an operator's revocations. Beyond the limit, revoking a token
/// revokes everything that was issued for its AuthKey up to then, which needs one entry for all of them.
pub async fn revoke(
    service: &Service,
    actor: &Actor,
    authority: &AccessScope,
    target: RevocationTarget,
    reason: Option<&str>,
) -> Result<DurableRevocation, RevokeError> {
    if let Actor::Token { subject, .. } = actor {
        service.rates.revocations.check(&subject.into()).map_err(|wait| {
            let error = RevokeError::RateLimited(wait);
            service.metrics().count_limited(error.code());
            error
        })?;
    }
    revoke_unmetered(service, actor, authority, target, reason).await
}

/// Revokes without counting against the limit of revocations a minute. A logout was counted when its token was issued.
pub(crate) async fn revoke_unmetered(
    service: &Service,
    actor: &Actor,
    authority: &AccessScope,
    target: RevocationTarget,
    reason: Option<&str>,
) -> Result<DurableRevocation, RevokeError> {
    if reason.is_some_and(|reason| reason.len() > MAX_REASON_BYTES) {
        return Err(RevokeError::ReasonTooLong);
    }
    if reason.is_some_and(|reason| RESERVED_REASONS.contains(&reason)) {
        return Err(RevokeError::ReasonReserved);
    }
    let mut change = service.change(actor).await?;
    let (version, now) = (change.version(), change.now());
    let (what, changed) = match target {
        RevocationTarget::Fingerprint(fingerprint) => {
            let revoker = Revoker { actor, authority, presents_credential: false };
            revoke_fingerprint(
                service,
                change.db(),
                revoker,
                fingerprint,
                NEVER_EXPIRES,
                reason,
                now,
                version,
            )
            .await?
        }
        RevocationTarget::Key(RevocableKeyId::ApiKey(id)) => {
            let key = api_keys::find(change.db(), id).await?.ok_or(RevokeError::NotFound)?;
            let revoker = Revoker { actor, authority, presents_credential: false };
            revoke_fingerprint(
                service,
                change.db(),
                revoker,
                key.fingerprint,
                NEVER_EXPIRES,
                reason,
                now,
                version,
            )
            .await?
        }
        RevocationTarget::Token(text) => {
            let fingerprint = Fingerprint::digest(text.as_bytes());
            // The text of an API key is recognized by its fingerprint only.
            let (fingerprint, expires_at) = match issued::find(change.db(), &fingerprint).await? {
                Some(issuance) => (fingerprint, issuance.expires_at),
                None => verify_own_token(service, &text)?,
            };
            let revoker = Revoker { actor, authority, presents_credential: true };
            revoke_fingerprint(service, change.db(), revoker, fingerprint, expires_at, reason, now, version)
                .await?
        }
        RevocationTarget::Key(id) => {
            let (scope, session) = owned_key(change.db(), actor, authority, id).await?;
            let merged = match session {
                Some(issuance) if watermarks::find(change.db(), &scope).await?.is_none() => {
                    merge_into_watermark(service, change.db(), authority, &issuance, now, version).await?
                }
                _ => None,
            };
            match merged {
                Some(merged) => merged,
                None => raise_watermark(service, change.db(), authority, scope, None, now, version).await?,
            }
        }
        RevocationTarget::Subject { subject, instant } => {
            owned_subject(change.db(), authority, &subject).await?;
            if !actor.may_manage(&subject) {
                return Err(RevokeError::RootOnly);
            }
            raise_watermark(service, change.db(), authority, subject.into(), instant, now, version).await?
        }
        RevocationTarget::Foreign { scope, instant } => {
            if !matches!(authority, AccessScope::Everything) {
                return Err(RevokeError::NotFound);
            }
            match scope.issuer() {
                None => return Err(RevokeError::NotFound),
                Some(issuer) if issuer == service.config.tokens.issuer => return Err(RevokeError::OwnIssuer),
                Some(_) if scope.is_one_credential() => {
                    // Another token of the session, or one that is dated ahead, is refused too.
                    let (watermark, raised) =
                        raise_at(service, change.db(), &scope, NEVER_EXPIRES, now, version).await?;
                    (RevocationOutcome::Scope(watermark), raised)
                }
                Some(_) => {
                    raise_watermark(service, change.db(), authority, scope, instant, now, version).await?
                }
            }
        }
        RevocationTarget::SigningKey(kid) => {
            let known = matches!(authority, AccessScope::Everything) && is_own_key(change.db(), &kid).await?;
            let kid = if known { kid } else { return Err(RevokeError::NotFound) };
            let scope = WatermarkScope::SigningKey(kid);
            raise_watermark(service, change.db(), authority, scope, None, now, version).await?
        }
        RevocationTarget::Everything if matches!(authority, AccessScope::Everything) => {
            raise_watermark(service, change.db(), authority, WatermarkScope::Global, None, now, version)
                .await?
        }
        RevocationTarget::Everything => return Err(RevokeError::NotFound),
    };
    if !changed {
        drop(change);
        let version = service.acknowledge_revocation().await?;
        return Ok(DurableRevocation { version, outcome: what });
    }
    let reason = reason.map(str::to_owned);
    let event = match &what {
        RevocationOutcome::Fingerprint(fingerprint) => {
            Event::FingerprintRevoked { fingerprint: *fingerprint, reason }
        }
        RevocationOutcome::Scope(watermark) => Event::ScopeRevoked { watermark: watermark.clone(), reason },
    };
    let version = change.commit(event).await?;
    Ok(DurableRevocation { version, outcome: what })
}

/// Who revokes a single credential.
#[derive(Clone, Copy)]
struct Revoker<'a> {
    actor: &'a Actor,
    authority: &'a AccessScope,
    /// True if the actor presented the credential itself, which always permits to revoke it.
    presents_credential: bool,
}

/// Returns whether the fingerprint is that of the token which the actor is authenticated by.
fn is_own_token(actor: &Actor, fingerprint: &Fingerprint) -> bool {
    matches!(actor, Actor::Token { fingerprint: own, .. } if own == fingerprint)
}

/// Revokes one fingerprint. The revocation of a credential that the store lacks is kept until `unknown_expiry`: it may be an
/// API key that a restored backup has lost, or a token of another issuer.
#[expect(clippy::too_many_arguments, reason = "they are the state of one transaction")]
async fn revoke_fingerprint(
    service: &Service,
    write: &mut Write,
    revoker: Revoker<'_>,
    fingerprint: Fingerprint,
    unknown_expiry: UnixSeconds,
    reason: Option<&str>,
    now: UnixMillis,
    version: Version,
) -> Result<(RevocationOutcome, bool), RevokeError> {
    let Revoker { actor, authority, presents_credential } = revoker;
    let issuance = issued::find(write, &fingerprint).await?;
    let expires_at = match (issuance, authority) {
        (Some(issuance), _) if authority.includes(&issuance.subject.operator) => {
            let manages = actor.may_manage(&issuance.subject);
            if !manages && !presents_credential && !is_own_token(actor, &fingerprint) {
                return Err(RevokeError::RootOnly);
            }
            // A caller that only presents the credential may revoke no other credential.
            if manages
                && revocations::find(write, &fingerprint).await?.is_none()
                && let Some(merged) =
                    merge_into_watermark(service, write, authority, &issuance, now, version).await?
            {
                return Ok(merged);
            }
            issuance.expires_at
        }
        (None, AccessScope::Everything) => unknown_expiry,
        _ => return Err(RevokeError::NotFound),
    };
    let revocation =
        Revocation { fingerprint, expires_at, reason: reason.map(str::to_owned), revoked_at: now.seconds() };
    let inserted = match revocations::insert(write, &revocation, version).await? {
        revocations::RevokeOutcome::Revoked => true,
        revocations::RevokeOutcome::AlreadyRevoked => false,
        revocations::RevokeOutcome::PrefixTaken => return Err(RevokeError::PrefixTaken),
    };
    if let AccessScope::Operator(operator) = authority
        && inserted
    {
        operator_limits::count_revocation(write, operator, expires_at).await?;
    }
    let was_disabled = make_revocation_permanent(write, &fingerprint, reason, now, version).await?;
    Ok((RevocationOutcome::Fingerprint(fingerprint), inserted || was_disabled))
}

/// If the operator has reached its limit of revocations, raises the watermark of the AuthKey that the token was exchanged
/// for. Returns `None` if the token must be revoked by itself, as are all tokens that an admin issued.
async fn merge_into_watermark(
    service: &Service,
    write: &mut Write,
    authority: &AccessScope,
    issuance: &IssuedCredential,
    now: UnixMillis,
    version: Version,
) -> Result<Option<(RevocationOutcome, bool)>, StoreError> {
    let (AccessScope::Operator(operator), Some(auth_key)) = (authority, &issuance.auth_key) else {
        return Ok(None);
    };
    if !operator_limits::is_share_used_up(service, write, operator, now).await? {
        return Ok(None);
    }
    let scope = WatermarkScope::AuthKey(auth_key.clone());
    let (watermark, raised) = raise_at(service, write, &scope, issuance.issued_at, now, version).await?;
    Ok(Some((RevocationOutcome::Scope(watermark), raised)))
}

/// Revokes everything of a scope up to an instant, or up to now. Returns whether anything has changed.
async fn raise_watermark(
    service: &Service,
    write: &mut Write,
    authority: &AccessScope,
    scope: WatermarkScope,
    instant: Option<UnixSeconds>,
    now: UnixMillis,
    version: Version,
) -> Result<(RevocationOutcome, bool), RevokeError> {
    let is_new = operator_limits::counts_as_new(write, &scope).await?;
    let (until, (watermark, raised)) = match instant {
        Some(instant) if instant > now.seconds() => return Err(RevokeError::InstantInFuture),
        Some(instant) => (instant, raise_at(service, write, &scope, instant, now, version).await?),
        None => (NEVER_EXPIRES, raise_to_now(service, write, &scope, now.seconds(), now, version).await?),
    };
    if let AccessScope::Operator(operator) = authority
        && is_new
    {
        operator_limits::count_revocation(write, operator, watermark.ends_at).await?;
    }
    // This applies even if the watermark was not raised: a key may have been disabled since, and could be enabled later.
    let refused =
        revoke_keys_in_scope(write, &watermark.scope, until, "revoked with its owner", now, version).await?;
    Ok((RevocationOutcome::Scope(watermark), raised || refused.changed))
}

/// Verifies a token that the store lacks. Returns its fingerprint and expiry.
fn verify_own_token(service: &Service, text: &str) -> Result<(Fingerprint, UnixSeconds), RevokeError> {
    let token = Unverified::parse(text.as_bytes()).map_err(RevokeError::Token)?;
    let keyring = service.keys.current();
    let key = keyring.verifying_keys().iter().find(|key| key.kid() == token.kid());
    let authentic = token.verify(key.ok_or(RevokeError::TokenKeyUnknown)?).map_err(RevokeError::Token)?;
    Ok((authentic.fingerprint(), authentic.expires_at().map_or(NEVER_EXPIRES, UnixSeconds::new)))
}

/// Returns whether the `kid` is that of a signing key or tag key.
async fn is_own_key(write: &mut Write, kid: &str) -> Result<bool, StoreError> {
    Ok(signing_keys::list(write).await?.iter().any(|key| key.kid == kid)
        || tag_keys::list(write).await?.iter().any(|generation| generation.kid() == kid))
}

/// Returns the scope of an AuthKey or session that the actor may revoke, with the latest token of a session.
async fn owned_key(
    write: &mut Write,
    actor: &Actor,
    authority: &AccessScope,
    id: RevocableKeyId,
) -> Result<(WatermarkScope, Option<IssuedCredential>), RevokeError> {
    let (owner, scope, session) = match id {
        RevocableKeyId::AuthKey(id) => {
            let key = auth_keys::find(write, &id).await?.ok_or(RevokeError::NotFound)?;
            (key.subject, WatermarkScope::AuthKey(id), None)
        }
        RevocableKeyId::Session(id) => {
            let issuance = issued::find_session(write, &id).await?.ok_or(RevokeError::NotFound)?;
            (issuance.subject.clone(), WatermarkScope::Session(id), Some(issuance))
        }
        // An API key is one credential, which is revoked by its fingerprint.
        RevocableKeyId::ApiKey(_) => return Err(RevokeError::NotFound),
    };
    if !authority.includes(&owner.operator) {
        return Err(RevokeError::NotFound);
    }
    if actor.may_manage(&owner) { Ok((scope, session)) } else { Err(RevokeError::RootOnly) }
}

/// Checks that the subject exists and is included in the authority.
async fn owned_subject(
    write: &mut Write,
    authority: &AccessScope,
    subject: &Subject,
) -> Result<(), RevokeError> {
    let Subject { operator, user } = subject;
    let known = authority.includes(operator)
        && match user {
            None => operators::exists(write, operator).await?,
            Some(user) => operators::user_exists(write, operator, user).await?,
        };
    if known { Ok(()) } else { Err(RevokeError::NotFound) }
}
