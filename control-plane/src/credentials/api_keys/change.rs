//! Disables, enables and deletes API keys.

use super::{
    ApiKeyError, queries as api_keys,
    revocation::{DISABLED, revoke_key},
};
use crate::{
    db::Write,
    domain::{Actor, ApiKey, ApiKeyId, ApiKeyState, Event, Version},
    keys::tag_keys,
    revocation::{AccessScope, revocations, watermarks},
    service::Service,
};

/// Disables a key until it is enabled again. Returns the first version with the change.
pub async fn disable_api_key(
    service: &Service,
    actor: &Actor,
    authority: &AccessScope,
    id: ApiKeyId,
) -> Result<Version, ApiKeyError> {
    let mut change = service.change(actor).await?;
    let (version, now) = (change.version(), change.now());
    let key = find_owned(change.db(), actor, authority, id).await?;
    let changed = api_keys::set_state(change.db(), id, ApiKeyState::Active, ApiKeyState::Disabled).await?;
    // A key that is revoked already cannot be disabled, as enabling it would take the revocation back.
    if !changed || !revoke_key(change.db(), &key, DISABLED, now, version).await? {
        return Err(ApiKeyError::NotActive(id));
    }
    let ApiKey { owner, fingerprint, .. } = key;
    Ok(change.commit(Event::ApiKeyDisabled { id, owner, fingerprint }).await?)
}

/// Enables a disabled key. Returns the first version with the change. A key that was revoked otherwise stays revoked.
pub async fn enable_api_key(
    service: &Service,
    actor: &Actor,
    authority: &AccessScope,
    id: ApiKeyId,
) -> Result<Version, ApiKeyError> {
    let mut change = service.change(actor).await?;
    let (version, now) = (change.version(), change.now());
    let key = find_owned(change.db(), actor, authority, id).await?;
    if key.expires_at.is_some_and(|end| end <= now.seconds()) {
        return Err(ApiKeyError::Expired(id));
    }
    if !tag_keys::exists(change.db(), key.generation).await? {
        return Err(ApiKeyError::TagRetired(id));
    }
    let watermark = watermarks::highest_applicable(change.db(), &key.kid(), &key.owner, None, None).await?;
    if watermark.is_some_and(|instant| key.issued_at <= instant) {
        return Err(ApiKeyError::UnderWatermark(id));
    }
    if !api_keys::set_state(change.db(), id, ApiKeyState::Disabled, ApiKeyState::Active).await? {
        return Err(ApiKeyError::NotDisabled(id));
    }
    revocations::unrevoke(change.db(), &key.fingerprint, now.seconds(), version).await?;
    let ApiKey { owner, fingerprint, .. } = key;
    Ok(change.commit(Event::ApiKeyEnabled { id, owner, fingerprint }).await?)
}

/// Revokes a key permanently, and deletes everything but its fingerprint. Returns the first version with the change.
pub async fn delete_api_key(
    service: &Service,
    actor: &Actor,
    authority: &AccessScope,
    id: ApiKeyId,
) -> Result<Version, ApiKeyError> {
    let mut change = service.change(actor).await?;
    let (version, now) = (change.version(), change.now());
    let key = find_owned(change.db(), actor, authority, id).await?;
    revoke_key(change.db(), &key, "deleted", now, version).await?;
    api_keys::delete(change.db(), id).await?;
    let ApiKey { owner, fingerprint, .. } = key;
    Ok(change.commit(Event::ApiKeyDeleted { id, owner, fingerprint }).await?)
}

/// Finds a key that the actor may manage. Another operator's key is reported as unknown.
pub(crate) async fn find_owned(
    write: &mut Write,
    actor: &Actor,
    authority: &AccessScope,
    id: ApiKeyId,
) -> Result<ApiKey, ApiKeyError> {
    let found = api_keys::find(write, id).await?;
    let key = found.filter(|key| authority.includes(&key.owner.operator)).ok_or(ApiKeyError::Unknown(id))?;
    if actor.may_manage(&key.owner) { Ok(key) } else { Err(ApiKeyError::RootOnly) }
}
