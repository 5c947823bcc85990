//! Undoes the revocation of a fingerprint.

use token::Fingerprint;

use super::queries::{revocations, watermarks};
use crate::{
    credentials::{api_keys, issued},
    db::{StoreError, Write},
    domain::{
        Actor, ApiKeyId, ApiKeyState, CoreError, ErrorKind, Event, IssuedCredential, Version, WatermarkScope,
        is_tag_kid,
    },
    service::Service,
};

/// How long the record of a watermark that was taken back is kept, in seconds: longer than any publisher is behind.
pub(crate) const TAKEN_BACK_RETENTION_SECS: u64 = 30 * 86_400;

/// Why a revocation could not be taken back.
#[derive(Debug, thiserror::Error)]
pub enum UnrevokeError {
    /// The fingerprint is not revoked.
    #[error("no revocation of this fingerprint is known")]
    NotRevoked,
    /// The session or token of another issuer is not revoked.
    #[error("no revocation of this {kind} is known", kind = noun(.0))]
    ScopeNotRevoked(WatermarkScope),
    /// A watermark of several credentials cannot be taken back.
    #[error("only the revocation of one session or token of another issuer can be taken back")]
    NotOneCredential,
    /// The credential has expired.
    #[error("the credential has expired")]
    Expired,
    /// The API key is disabled. `keystile key enable` enables it.
    #[error("the fingerprint is that of the disabled API key {0}")]
    Disabled(ApiKeyId),
    /// The API key was deleted or has expired.
    #[error("the API key was deleted or has expired, which is permanent")]
    ApiKeyEnded,
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CoreError for UnrevokeError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotRevoked | Self::ScopeNotRevoked(_) => "not_found",
            Self::NotOneCredential => "request_invalid",
            Self::Expired => "credential_expired",
            Self::Disabled(_) | Self::ApiKeyEnded => "api_key_state",
            Self::Store(error) => error.code(),
        }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotRevoked | Self::ScopeNotRevoked(_) => ErrorKind::NotFound,
            Self::NotOneCredential => ErrorKind::Invalid,
            Self::Expired | Self::Disabled(_) | Self::ApiKeyEnded => ErrorKind::Conflict,
            Self::Store(error) => error.kind(),
        }
    }
}

/// The result of undoing a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unrevocation {
    /// The first bundle without the revocation.
    pub version: Version,
    /// True if a watermark still refuses the credential.
    pub watermark: bool,
}

/// Undoes the revocation of a fingerprint. A watermark that covers the credential stays in effect.
pub async fn unrevoke(
    service: &Service,
    actor: &Actor,
    fingerprint: &Fingerprint,
) -> Result<Unrevocation, UnrevokeError> {
    let mut change = service.change(actor).await?;
    let (version, now) = (change.version(), change.now());
    let revocation = revocations::find(change.db(), fingerprint).await?.ok_or(UnrevokeError::NotRevoked)?;
    if revocation.expires_at <= now.seconds() {
        return Err(UnrevokeError::Expired);
    }
    let issuance = issued::find(change.db(), fingerprint).await?;
    match api_keys::find_by_fingerprint(change.db(), fingerprint).await? {
        Some(key) => match key.state {
            ApiKeyState::Active => {}
            ApiKeyState::Disabled => return Err(UnrevokeError::Disabled(key.id)),
            ApiKeyState::Expired => return Err(UnrevokeError::ApiKeyEnded),
        },
        // A deleted API key leaves only its entry in the issuance log.
        None if issuance.as_ref().is_some_and(|issuance| is_tag_kid(&issuance.kid)) => {
            return Err(UnrevokeError::ApiKeyEnded);
        }
        None => {}
    }
    revocations::unrevoke(change.db(), fingerprint, now.seconds(), version).await?;
    let watermark = is_under_watermark(change.db(), issuance).await?;
    let event = Event::FingerprintUnrevoked { fingerprint: *fingerprint, watermark };
    let version = change.commit(event).await?;
    Ok(Unrevocation { version, watermark })
}

/// Undoes the revocation of a session or a token of another issuer. Returns the first version without it.
pub async fn unrevoke_scope(
    service: &Service,
    actor: &Actor,
    scope: &WatermarkScope,
) -> Result<Version, UnrevokeError> {
    if !scope.is_one_credential() {
        return Err(UnrevokeError::NotOneCredential);
    }
    let mut change = service.change(actor).await?;
    let (version, now) = (change.version(), change.now());
    let kept_until = now.seconds().saturating_add(TAKEN_BACK_RETENTION_SECS);
    if !watermarks::take_back(change.db(), scope, kept_until, version).await? {
        return Err(UnrevokeError::ScopeNotRevoked(scope.clone()));
    }
    Ok(change.commit(Event::ScopeUnrevoked { scope: scope.clone() }).await?)
}

/// Returns what the error text calls the scope.
fn noun(scope: &WatermarkScope) -> &'static str {
    match scope {
        WatermarkScope::IssuerSession(_) => "session",
        _ => "token",
    }
}

/// Returns whether a watermark covers the credential.
async fn is_under_watermark(
    write: &mut Write,
    issuance: Option<IssuedCredential>,
) -> Result<bool, StoreError> {
    let Some(issuance) = issuance else { return Ok(false) };
    let session = issuance.session.as_ref().map(|session| session.as_str());
    let instant = watermarks::highest_applicable(
        write,
        &issuance.kid,
        &issuance.subject,
        issuance.auth_key.as_ref(),
        session,
    )
    .await?;
    Ok(instant.is_some_and(|instant| issuance.issued_at <= instant))
}
