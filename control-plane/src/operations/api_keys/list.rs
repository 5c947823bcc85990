//! Lists API keys with their status.

use super::ApiKeyError;
use crate::{
    clock::Time,
    model::{ApiKey, ApiKeyId, ApiKeyState, OperatorId, Page, Paged, UserName},
    operations::Service,
    store::{Executor, StoreError, api_keys, revocations, tag_keys},
};

/// The status of an API key at edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiKeyStanding {
    /// The key is valid.
    Active,
    /// The key is disabled and can be enabled.
    Disabled,
    /// The key has expired, or was replaced.
    Expired,
    /// The fingerprint or the owner is revoked, or the generation was retired.
    Revoked,
}

impl ApiKeyStanding {
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
    page: &Page,
) -> Result<Paged<(ApiKey, ApiKeyStanding)>, StoreError> {
    let mut read = service.store.read().await?;
    let Paged { items, next } = api_keys::page(&mut read, operator, user, page).await?;
    let mut keys = Vec::with_capacity(items.len());
    for key in items {
        let standing = standing(&mut read, &key, service.now()).await?;
        keys.push((key, standing));
    }
    Ok(Paged { items: keys, next })
}

/// Finds an API key.
pub async fn find_api_key(service: &Service, id: ApiKeyId) -> Result<(ApiKey, ApiKeyStanding), ApiKeyError> {
    let mut read = service.store.read().await?;
    let key = api_keys::find(&mut read, id).await?.ok_or(ApiKeyError::Unknown(id))?;
    let standing = standing(&mut read, &key, service.now()).await?;
    Ok((key, standing))
}

/// Determines the status from what edges know: the revocations, the generations, and the expiry in the key.
async fn standing(
    executor: &mut impl Executor,
    key: &ApiKey,
    now: Time,
) -> Result<ApiKeyStanding, StoreError> {
    if !tag_keys::exists(executor, key.generation).await? {
        return Ok(ApiKeyStanding::Revoked);
    }
    let revoked = revocations::find(executor, &key.fingerprint).await?.is_some();
    let ended = key.ends_at.is_some_and(|end| end <= now.seconds());
    Ok(match (revoked, key.state) {
        // The revocation of an expired key may have been purged.
        (false, _) if ended => ApiKeyStanding::Expired,
        (false, _) => ApiKeyStanding::Active,
        (true, ApiKeyState::Active) => ApiKeyStanding::Revoked,
        (true, ApiKeyState::Disabled) => ApiKeyStanding::Disabled,
        (true, ApiKeyState::Expired) => ApiKeyStanding::Expired,
    })
}
