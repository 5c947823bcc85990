//! Undoes the revocation of a fingerprint.

use serde_json::json;
use token::Fingerprint;

use super::queries::{revocations, watermarks};
use crate::{
    audit::queries as audit,
    credentials::{api_keys::queries as api_keys, queries::issued},
    db::{StoreError, Write, versions},
    domain::{Actor, ApiKeyId, ApiKeyState, IssuedCredential, WatermarkScope},
    keys::keyring::is_tag_kid,
    service::Service,
};

/// How long the record of a watermark that was taken back is kept, in seconds: longer than any publisher is behind.
pub(crate) const TAKEN_BACK_RETENTION_SECS: u64 = 30 * 86_400;

/// Why a revocation could not be taken back.
#[derive(Debug, thiserror::Error)]
pub enum UnrevokeError {
    /// The fingerprint is not revoked.
    #[error(
        "no revocation of this fingerprint is known; `keystile audit` shows what was revoked. A watermark \
         cannot be taken back"
    )]
    NotRevoked,
    /// The session or token of another issuer is not revoked.
    #[error("no revocation of this {kind} is known; `keystile audit` shows what was revoked", kind = noun(.0))]
    ScopeNotRevoked(WatermarkScope),
    /// A watermark of several credentials cannot be taken back.
    #[error("only the revocation of one session or token of another issuer can be taken back")]
    NotOneCredential,
    /// The credential has expired.
    #[error("the credential has expired")]
    Expired,
    /// The API key is disabled. `keystile key enable` enables it.
    #[error("the fingerprint is that of the disabled API key {0}; `keystile key enable {0}` enables it")]
    Disabled(ApiKeyId),
    /// The API key was deleted or has expired.
    #[error("the API key was deleted or has expired, which is permanent")]
    ApiKeyEnded,
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The result of undoing a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unrevocation {
    /// The first bundle without the revocation.
    pub version: u64,
    /// True if a watermark still refuses the credential.
    pub watermark: bool,
}

/// Undoes the revocation of a fingerprint. A watermark that covers the credential stays in effect.
pub async fn unrevoke(
    service: &Service,
    actor: &Actor,
    fingerprint: &Fingerprint,
) -> Result<Unrevocation, UnrevokeError> {
    let now = service.now();
    let mut write = service.store.write().await?;
    let version = versions::allocate(&mut write, now).await?;
    let revocation = revocations::find(&mut write, fingerprint).await?.ok_or(UnrevokeError::NotRevoked)?;
    if revocation.expires_at <= now.seconds() {
        return Err(UnrevokeError::Expired);
    }
    let issuance = issued::find(&mut write, fingerprint).await?;
    match api_keys::find_by_fingerprint(&mut write, fingerprint).await? {
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
    revocations::unrevoke(&mut write, fingerprint, now.seconds(), version).await?;
    let watermark = is_under_watermark(&mut write, issuance).await?;
    audit::append(
        &mut write,
        audit::NewAuditEntry {
            at: now,
            actor,
            action: "unrevoke",
            target: &fingerprint.to_string(),
            detail: json!({ "version": version, "watermark": watermark }),
        },
    )
    .await?;
    write.commit().await?;
    service.wait_published(version).await;
    Ok(Unrevocation { version, watermark })
}

/// Undoes the revocation of a session or a token of another issuer. Returns the first version without it.
pub async fn unrevoke_scope(
    service: &Service,
    actor: &Actor,
    scope: &WatermarkScope,
) -> Result<u64, UnrevokeError> {
    if !scope.is_one_credential() {
        return Err(UnrevokeError::NotOneCredential);
    }
    let now = service.now();
    let mut write = service.store.write().await?;
    let version = versions::allocate(&mut write, now).await?;
    let kept_until = now.seconds().saturating_add(TAKEN_BACK_RETENTION_SECS);
    if !watermarks::take_back(&mut write, scope, kept_until, version).await? {
        return Err(UnrevokeError::ScopeNotRevoked(scope.clone()));
    }
    let detail = json!({ "version": version, "scope": [scope.kind(), scope.id()] });
    let target = &scope.to_string();
    audit::append(&mut write, audit::NewAuditEntry { at: now, actor, action: "unrevoke", target, detail })
        .await?;
    write.commit().await?;
    service.wait_published(version).await;
    Ok(version)
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
