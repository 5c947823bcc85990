use serde_json::json;

use super::{
    ApiKeyError,
    refuse::{DISABLED, refuse},
};
use crate::{
    clock::Time,
    model::{Actor, ApiKey, ApiKeyId, ApiKeyState},
    operations::{Authority, Service},
    store::{Write, api_keys, audit, revocations, tag_keys, versions, watermarks},
};

/// Refuses a key until it is enabled again. Returns the version that edges know it from.
pub async fn disable_api_key(
    service: &Service,
    actor: &Actor,
    authority: &Authority,
    id: ApiKeyId,
) -> Result<u64, ApiKeyError> {
    let (mut write, version, now) = begin(service).await?;
    let key = own(&mut write, actor, authority, id).await?;
    let changed = api_keys::change(&mut write, id, ApiKeyState::Active, ApiKeyState::Disabled).await?;
    // What is revoked already stays so: enabling the key would take that back.
    if !changed || !refuse(&mut write, &key, DISABLED, now, version).await? {
        return Err(ApiKeyError::NotActive(id));
    }
    finish(service, write, actor, "api_key.disable", &key, version, now).await
}

/// Admits a disabled key again. One that was refused in another way stays refused.
pub async fn enable_api_key(
    service: &Service,
    actor: &Actor,
    authority: &Authority,
    id: ApiKeyId,
) -> Result<u64, ApiKeyError> {
    let (mut write, version, now) = begin(service).await?;
    let key = own(&mut write, actor, authority, id).await?;
    if key.expires_at.is_some_and(|end| end <= now.seconds()) {
        return Err(ApiKeyError::Expired(id));
    }
    if !tag_keys::exists(&mut write, key.generation).await? {
        return Err(ApiKeyError::TagRetired(id));
    }
    let watermark = watermarks::applicable(&mut write, &key.kid(), &key.owner, None, None).await?;
    if watermark.is_some_and(|instant| key.issued_at <= instant) {
        return Err(ApiKeyError::UnderWatermark(id));
    }
    if !api_keys::change(&mut write, id, ApiKeyState::Disabled, ApiKeyState::Active).await? {
        return Err(ApiKeyError::NotDisabled(id));
    }
    revocations::restore(&mut write, &key.fingerprint, now.seconds(), version).await?;
    finish(service, write, actor, "api_key.enable", &key, version, now).await
}

/// Refuses a key for ever and forgets all but its fingerprint.
pub async fn delete_api_key(
    service: &Service,
    actor: &Actor,
    authority: &Authority,
    id: ApiKeyId,
) -> Result<u64, ApiKeyError> {
    let (mut write, version, now) = begin(service).await?;
    let key = own(&mut write, actor, authority, id).await?;
    refuse(&mut write, &key, "deleted", now, version).await?;
    api_keys::delete(&mut write, id).await?;
    finish(service, write, actor, "api_key.delete", &key, version, now).await
}

async fn begin(service: &Service) -> Result<(Write, u64, Time), ApiKeyError> {
    let now = service.now();
    let mut write = service.store.write().await?;
    let version = versions::next(&mut write, now).await?;
    Ok((write, version, now))
}

/// Another operator's key looks like one that is not there.
pub(super) async fn own(
    write: &mut Write,
    actor: &Actor,
    authority: &Authority,
    id: ApiKeyId,
) -> Result<ApiKey, ApiKeyError> {
    let found = api_keys::find(write, id).await?;
    let key = found.filter(|key| authority.covers(&key.owner.operator)).ok_or(ApiKeyError::Unknown(id))?;
    if actor.may_manage(&key.owner) { Ok(key) } else { Err(ApiKeyError::RootOnly) }
}

async fn finish(
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
    audit::append(&mut write, audit::Change { at: now, actor, action, target, detail }).await?;
    write.commit().await?;
    service.settle(version).await;
    Ok(version)
}
