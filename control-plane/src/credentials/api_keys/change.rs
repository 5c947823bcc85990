//! Disables, enables and deletes API keys.

use serde_json::json;

use super::{
    ApiKeyError, queries as api_keys,
    revocation::{DISABLED, revoke_key},
};
use crate::{
    audit::queries as audit,
    db::{Write, versions},
    domain::{Actor, ApiKey, ApiKeyId, ApiKeyState},
    keys::queries::tag_keys,
    platform::clock::Time,
    revocation::{
        AccessScope,
        queries::{revocations, watermarks},
    },
    service::Service,
};

/// Disables a key until it is enabled again. Returns the first version with the change.
pub async fn disable_api_key(
    service: &Service,
    actor: &Actor,
    authority: &AccessScope,
    id: ApiKeyId,
) -> Result<u64, ApiKeyError> {
    let (mut write, version, now) = begin_change(service).await?;
    let key = find_owned(&mut write, actor, authority, id).await?;
    let changed = api_keys::set_state(&mut write, id, ApiKeyState::Active, ApiKeyState::Disabled).await?;
    // A key that is revoked already cannot be disabled, as enabling it would take the revocation back.
    if !changed || !revoke_key(&mut write, &key, DISABLED, now, version).await? {
        return Err(ApiKeyError::NotActive(id));
    }
    commit_change(service, write, actor, "api_key.disable", &key, version, now).await
}

/// Enables a disabled key. Returns the first version with the change. A key that was revoked otherwise stays revoked.
pub async fn enable_api_key(
    service: &Service,
    actor: &Actor,
    authority: &AccessScope,
    id: ApiKeyId,
) -> Result<u64, ApiKeyError> {
    let (mut write, version, now) = begin_change(service).await?;
    let key = find_owned(&mut write, actor, authority, id).await?;
    if key.expires_at.is_some_and(|end| end <= now.seconds()) {
        return Err(ApiKeyError::Expired(id));
    }
    if !tag_keys::exists(&mut write, key.generation).await? {
        return Err(ApiKeyError::TagRetired(id));
    }
    let watermark = watermarks::highest_applicable(&mut write, &key.kid(), &key.owner, None, None).await?;
    if watermark.is_some_and(|instant| key.issued_at <= instant) {
        return Err(ApiKeyError::UnderWatermark(id));
    }
    if !api_keys::set_state(&mut write, id, ApiKeyState::Disabled, ApiKeyState::Active).await? {
        return Err(ApiKeyError::NotDisabled(id));
    }
    revocations::unrevoke(&mut write, &key.fingerprint, now.seconds(), version).await?;
    commit_change(service, write, actor, "api_key.enable", &key, version, now).await
}

/// Revokes a key permanently, and deletes everything but its fingerprint. Returns the first version with the change.
pub async fn delete_api_key(
    service: &Service,
    actor: &Actor,
    authority: &AccessScope,
    id: ApiKeyId,
) -> Result<u64, ApiKeyError> {
    let (mut write, version, now) = begin_change(service).await?;
    let key = find_owned(&mut write, actor, authority, id).await?;
    revoke_key(&mut write, &key, "deleted", now, version).await?;
    api_keys::delete(&mut write, id).await?;
    commit_change(service, write, actor, "api_key.delete", &key, version, now).await
}

/// Begins a transaction with a new version.
async fn begin_change(service: &Service) -> Result<(Write, u64, Time), ApiKeyError> {
    let now = service.now();
    let mut write = service.store.write().await?;
    let version = versions::allocate(&mut write, now).await?;
    Ok((write, version, now))
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

/// Commits a change with its audit entry, and waits until it is published.
async fn commit_change(
    service: &Service,
    mut write: Write,
    actor: &Actor,
    action: &'static str,
    key: &ApiKey,
    version: u64,
    now: Time,
) -> Result<u64, ApiKeyError> {
    let detail = json!({
        "owner": key.owner.to_string(),
        "fingerprint": key.fingerprint.to_string(),
        "version": version,
    });
    let target = &key.id.to_string();
    audit::append(&mut write, audit::NewAuditEntry { at: now, actor, action, target, detail }).await?;
    write.commit().await?;
    service.wait_published(version).await;
    Ok(version)
}
