use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::{
    ApiKeyError, CreatedApiKey,
    change::own,
    create::{Draft, enter, new_generation},
    refuse::refuse,
};
use crate::{
    model::{Actor, ApiKeyId, ApiKeyState},
    operations::{Authority, Service},
    store::{api_keys, audit, tag_keys, versions},
};

/// Makes a key like this one: same owner, username, prefix, name, metadata, and the same end. The old one is good for
/// `grace` more seconds, though never longer than it would have been.
pub async fn rotate_api_key(
    service: &Service,
    actor: &Actor,
    authority: &Authority,
    id: ApiKeyId,
    grace: u64,
) -> Result<CreatedApiKey, ApiKeyError> {
    loop {
        let now = service.now();
        let mut write = service.store.write().await?;
        let version = versions::next(&mut write, now).await?;
        let old = own(&mut write, authority, id).await?;
        if old.state != ApiKeyState::Active || old.expires_at.is_some_and(|end| end <= now.seconds()) {
            return Err(ApiKeyError::NotActive(id));
        }
        let draft = Draft {
            owner: &old.owner,
            username: &old.username,
            prefix: &old.prefix,
            name: old.name.as_deref(),
            metadata: old.metadata.as_ref(),
            expires_at: old.expires_at,
        };
        let Some((key, secret)) = enter(service, &mut write, &draft, &mut Some(version), now).await? else {
            drop(write);
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let end = now.seconds().saturating_add(grace);
        api_keys::expire_at(&mut write, id, end).await?;
        if grace == 0 {
            api_keys::change(&mut write, id, ApiKeyState::Active, ApiKeyState::Expired).await?;
            refuse(&mut write, &old, "rotated", now, version).await?;
        }
        let detail = json!({ "owner": old.owner.to_string(), "new": key.id.to_string(), "until": end, "version": version });
        let (action, target) = ("api_key.rotate", &id.to_string());
        audit::append(&mut write, audit::Change { at: now, actor, action, target, detail }).await?;
        write.commit().await?;
        service.settle(version).await;
        return Ok(CreatedApiKey { key, secret });
    }
}

/// Begins a new generation of tags: new keys are made with it, the older generations are still good. Returns it.
pub async fn rotate_tag_key(service: &Service, actor: &Actor) -> Result<u8, ApiKeyError> {
    let now = service.now();
    let mut write = service.store.write().await?;
    let version = versions::next(&mut write, now).await?;
    let last = tag_keys::list(&mut write).await?.first().copied().unwrap_or(0);
    let next = last.checked_add(1).ok_or(ApiKeyError::NoGeneration)?;
    new_generation(service, &mut write, next, &mut Some(version), now).await?;
    let (action, target) = ("tag_key.rotate", &format!("tag-{next}"));
    let detail = json!({ "version": version });
    audit::append(&mut write, audit::Change { at: now, actor, action, target, detail }).await?;
    write.commit().await?;
    service.settle(version).await;
    Ok(next)
}
