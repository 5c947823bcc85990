//! Undoes the revocation of a fingerprint.

use serde_json::json;
use token::Fingerprint;

use super::Service;
use crate::{
    keys::is_tag_kid,
    model::{Actor, ApiKeyId, ApiKeyState, IssuedCredential},
    store::{StoreError, Write, api_keys, audit, issued, revocations, versions, watermarks},
};

/// Why a revocation could not be taken back.
#[derive(Debug, thiserror::Error)]
pub enum UnrevokeError {
    /// The fingerprint is not revoked.
    #[error(
        "no revocation of this fingerprint is known; `keystile audit` shows what was revoked. A watermark \
         cannot be taken back"
    )]
    NotRevoked,
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
