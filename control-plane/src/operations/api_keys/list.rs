use super::ApiKeyError;
use crate::{
    clock::Time,
    model::{ApiKey, ApiKeyId, ApiKeyState, OperatorId, Page, Paged, UserName},
    operations::Service,
    store::{Lookup, StoreError, api_keys, revocations, tag_keys},
};

/// What edges make of a key, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiKeyStanding {
    Active,
    Disabled,
    Expired,
    /// Refused by a revocation of its fingerprint or of its owner, or for what it was made with.
    Revoked,
}

impl ApiKeyStanding {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// Those of a user, of everybody in an operator, or all.
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

pub async fn find_api_key(service: &Service, id: ApiKeyId) -> Result<(ApiKey, ApiKeyStanding), ApiKeyError> {
    let mut read = service.store.read().await?;
    let key = api_keys::find(&mut read, id).await?.ok_or(ApiKeyError::Unknown(id))?;
    let standing = standing(&mut read, &key, service.now()).await?;
    Ok((key, standing))
}

/// The revocation is what edges hear of, and which generations there are; the end in the key they see themselves.
async fn standing(lookup: &mut impl Lookup, key: &ApiKey, now: Time) -> Result<ApiKeyStanding, StoreError> {
    if !tag_keys::exists(lookup, key.generation).await? {
        return Ok(ApiKeyStanding::Revoked);
    }
    let revoked = revocations::find(lookup, &key.fingerprint).await?.is_some();
    let ended = key.ends_at.is_some_and(|end| end <= now.seconds());
    Ok(match (revoked, key.state) {
        // Of a revocation that is no longer needed nothing may be left.
        (false, _) if ended => ApiKeyStanding::Expired,
        (false, _) => ApiKeyStanding::Active,
        (true, ApiKeyState::Active) => ApiKeyStanding::Revoked,
        (true, ApiKeyState::Disabled) => ApiKeyStanding::Disabled,
        (true, ApiKeyState::Expired) => ApiKeyStanding::Expired,
    })
}
