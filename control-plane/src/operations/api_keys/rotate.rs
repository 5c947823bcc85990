use serde_json::json;
use token::api_key::Kind;

use super::{
    ApiKeyError, CreatedApiKey,
    change::own,
    create::{Draft, Entered, enter, new_generation, wait},
    refuse::{ROTATED, refuse},
};
use crate::{
    model::{Actor, ApiKey, ApiKeyId, ApiKeyState, Generation, Username},
    operations::{Authority, Service},
    store::{api_keys, audit, versions},
};

/// Makes a key like this one: same owner, prefix, name, metadata, and the same end; the same username too, unless
/// another is given. The old one is good for `grace` more seconds, though never longer than it would have been.
///
/// The new end of the old one is not in it: edges refuse it when they are told, which is bounded by their freshness.
pub async fn rotate_api_key(
    service: &Service,
    actor: &Actor,
    authority: &Authority,
    id: ApiKeyId,
    username: Option<&str>,
    grace: u64,
) -> Result<CreatedApiKey, ApiKeyError> {
    let mut waits = 0;
    loop {
        let now = service.now();
        let mut write = service.store.write().await?;
        let version = versions::next(&mut write, now).await?;
        let old = own(&mut write, actor, authority, id).await?;
        if old.state != ApiKeyState::Active || old.expires_at.is_some_and(|end| end <= now.seconds()) {
            return Err(ApiKeyError::NotActive(id));
        }
        let username = match username {
            Some(username) => Username::of(&old.owner, Some(username)).map_err(ApiKeyError::Username)?,
            None => carried(&old)?,
        };
        let draft = Draft {
            owner: &old.owner,
            username: &username,
            prefix: &old.prefix,
            name: old.name.as_deref(),
            metadata: old.metadata.as_ref(),
            expires_at: old.expires_at,
        };
        let (key, secret) = match enter(service, &mut write, &draft, &mut Some(version), now).await? {
            Entered::Yes(entered) => *entered,
            Entered::Blocked(watermark) => {
                drop(write);
                wait(&watermark, now, &mut waits).await?;
                continue;
            }
        };
        api_keys::set_creator(&mut write, key.id, &actor.to_string()).await?;
        let end = now.seconds().saturating_add(grace);
        api_keys::expire_at(&mut write, id, end).await?;
        if grace == 0 {
            api_keys::change(&mut write, id, ApiKeyState::Active, ApiKeyState::Expired).await?;
            refuse(&mut write, &old, ROTATED, now, version).await?;
        }
        let detail = json!({ "owner": old.owner.to_string(), "new": key.id.to_string(), "until": end, "version": version });
        let (action, target) = ("api_key.rotate", &id.to_string());
        audit::append(&mut write, audit::Change { at: now, actor, action, target, detail }).await?;
        write.commit().await?;
        service.settle(version).await;
        return Ok(CreatedApiKey { key, secret });
    }
}

/// What the client sends beside the old key, if it means the same beside the new one, or nothing more.
fn carried(old: &ApiKey) -> Result<Username, ApiKeyError> {
    // Without a username a key of format 1 was nobody's; one of format 2 is the root user's.
    if old.kind == Kind::Format1 && old.username.as_str().is_empty() {
        return Err(ApiKeyError::UsernameNotCarried(old.id));
    }
    Username::of(&old.owner, Some(old.username.as_str())).map_err(|_| ApiKeyError::UsernameNotCarried(old.id))
}

/// Begins a new generation of API keys: new keys are made with it, the older generations are still good. Returns it.
pub async fn rotate_tag_key(service: &Service, actor: &Actor, kind: Kind) -> Result<Generation, ApiKeyError> {
    let now = service.now();
    let mut write = service.store.write().await?;
    let version = versions::next(&mut write, now).await?;
    let next = new_generation(service, &mut write, kind, version, now).await?;
    let (action, target) = ("tag_key.rotate", &next.kid());
    let detail = json!({ "format": kind.name(), "version": version });
    audit::append(&mut write, audit::Change { at: now, actor, action, target, detail }).await?;
    write.commit().await?;
    service.settle(version).await;
    Ok(next)
}
