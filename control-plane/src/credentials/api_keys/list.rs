//! Lists API keys with their status.

use std::collections::HashSet;

use token::Fingerprint;

use super::{ApiKeyError, queries as api_keys};
use crate::{
    db::{Executor, StoreError},
    domain::{
        ApiKey, ApiKeyId, ApiKeyState, Generation, OperatorId, Page, PageRequest, UnixMillis, UserName,
    },
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
    let known = KnownToEdges::read(&mut read, &items, service.now()).await?;
    let with_status = |key| {
        let status = known.status(&key);
        (key, status)
    };
    let keys = items.into_iter().map(with_status).collect();
    Ok(Page { items: keys, next })
}

/// Finds an API key.
pub async fn find_api_key(service: &Service, id: ApiKeyId) -> Result<(ApiKey, ApiKeyStatus), ApiKeyError> {
    let mut read = service.store.read().await?;
    let key = api_keys::find(&mut read, id).await?.ok_or(ApiKeyError::Unknown(id))?;
    let known = KnownToEdges::read(&mut read, std::slice::from_ref(&key), service.now()).await?;
    let status = known.status(&key);
    Ok((key, status))
}

/// What edges know of some API keys, besides the expiry in the key.
struct KnownToEdges {
    generations: Vec<Generation>,
    revoked: HashSet<Fingerprint>,
    now: UnixMillis,
}

impl KnownToEdges {
    async fn read(
        executor: &mut impl Executor,
        keys: &[ApiKey],
        now: UnixMillis,
    ) -> Result<Self, StoreError> {
        let fingerprints: Vec<Fingerprint> = keys.iter().map(|key| key.fingerprint).collect();
        Ok(Self {
            generations: tag_keys::list(executor).await?,
            revoked: revocations::find_revoked(executor, &fingerprints).await?,
            now,
        })
    }

    fn status(&self, key: &ApiKey) -> ApiKeyStatus {
        if !self.generations.iter().any(|generation| generation.number == key.generation) {
            return ApiKeyStatus::Revoked;
        }
        let is_ended = key.ends_at.is_some_and(|end| end <= self.now.seconds());
        match (self.revoked.contains(&key.fingerprint), key.state) {
            // The revocation of an expired key may have been purged.
            (false, _) if is_ended => ApiKeyStatus::Expired,
            (false, _) => ApiKeyStatus::Active,
            (true, ApiKeyState::Active) => ApiKeyStatus::Revoked,
            (true, ApiKeyState::Disabled) => ApiKeyStatus::Disabled,
            (true, ApiKeyState::Expired) => ApiKeyStatus::Expired,
        }
    }
}
