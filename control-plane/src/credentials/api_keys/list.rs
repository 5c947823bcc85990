//! Lists API keys with their status.

use super::{ApiKeyError, queries as api_keys};
use crate::{
    db::{Executor, StoreError},
    domain::UnixMillis,
    domain::{ApiKey, ApiKeyId, ApiKeyState, OperatorId, Page, PageRequest, UserName},
    keys::tag_keys,
    revocation::revocations,
    service::Service,
};

/// The status of an API key at edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiKeyStatus {
    /// The key is valid.
    Active,
    /// The key is disabled and can be enabled.
    Disabled,
    /// The key has expired, or was replaced.
    Expired,
    /// The fingerprint or the owner is revoked, or the generation was retired.
    Revoked,
}

impl ApiKeyStatus {
    /// Returns the name in JSON and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// Returns a page of the API keys of a user, of an operator, or of all.
pub async fn list_api_keys(
    service: &Service,
    operator: Option<&OperatorId>,
    user: Option<&UserName>,
    page: &PageRequest,
) -> Result<Page<(ApiKey, ApiKeyStatus)>, StoreError> {
    let mut read = service.store.read().await?;
    let Page { items, next } = api_keys::page(&mut read, operator, user, page).await?;
    let mut keys = Vec::with_capacity(items.len());
    for key in items {
        let status = api_key_status(&mut read, &key, service.now()).await?;
        keys.push((key, status));
    }
    Ok(Page { items: keys, next })
}

/// Finds an API key.
pub async fn find_api_key(service: &Service, id: ApiKeyId) -> Result<(ApiKey, ApiKeyStatus), ApiKeyError> {
    let mut read = service.store.read().await?;
    let key = api_keys::find(&mut read, id).await?.ok_or(ApiKeyError::Unknown(id))?;
    let status = api_key_status(&mut read, &key, service.now()).await?;
    Ok((key, status))
}

/// Determines the status from what edges know: the revocations, the generations, and the expiry in the key.
async fn api_key_status(
    executor: &mut impl Executor,
    key: &ApiKey,
    now: UnixMillis,
) -> Result<ApiKeyStatus, StoreError> {
    if !tag_keys::exists(executor, key.generation).await? {
        return Ok(ApiKeyStatus::Revoked);
    }
    let revoked = revocations::find(executor, &key.fingerprint).await?.is_some();
    let ended = key.ends_at.is_some_and(|end| end <= now.seconds());
    Ok(match (revoked, key.state) {
        // The revocation of an expired key may have been purged.
        (false, _) if ended => ApiKeyStatus::Expired,
        (false, _) => ApiKeyStatus::Active,
        (true, ApiKeyState::Active) => ApiKeyStatus::Revoked,
        (true, ApiKeyState::Disabled) => ApiKeyStatus::Disabled,
        (true, ApiKeyState::Expired) => ApiKeyStatus::Expired,
    })
}
