use serde_json::json;

use super::{
    AccountError, Service,
    api_keys::{refuse, refuse_all},
    delete_auth_key::end,
    mint::AHEAD,
    watermark::raise_to_now,
};
use crate::{
    model::{Actor, ApiKey, AuthKey, Subject},
    store::{Lookup, NEVER, api_keys, audit, auth_keys, coverage, grants, users, versions},
};

/// What a user made for others.
#[derive(Debug, Default)]
pub struct CreatedKeys {
    pub auth_keys: Vec<AuthKey>,
    pub api_keys: Vec<ApiKey>,
}

impl CreatedKeys {
    /// The ids of both kinds.
    pub fn ids(&self) -> Vec<String> {
        let auth_keys = self.auth_keys.iter().map(|key| key.id.to_string());
        auth_keys.chain(self.api_keys.iter().map(|key| key.id.to_string())).collect()
    }
}

/// What becomes of the keys that a deleted user made for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreatedByUser {
    /// They stay good.
    Keep,
    /// They end like the user's own.
    Delete,
}

#[derive(Debug)]
pub struct DeletedUser {
    /// The version that edges know it from.
    pub version: u64,
    /// What it made for others: deleted as well, or still good.
    pub created: CreatedKeys,
}

/// Returns the keys that a user made for others and that are still there.
pub async fn keys_created_by(service: &Service, subject: &Subject) -> Result<CreatedKeys, AccountError> {
    created(&mut service.store.read().await?, subject).await
}

/// Deletes a user with its AuthKeys and API keys, takes its grant, and refuses all it was issued. What it made for others
/// is returned, and ends too if that is wanted.
pub async fn delete_user(
    service: &Service,
    actor: &Actor,
    subject: &Subject,
    created_by_user: CreatedByUser,
) -> Result<DeletedUser, AccountError> {
    let Subject { operator, user: Some(name) } = subject else {
        return Err(AccountError::Root(subject.operator.clone()));
    };
    let mut write = service.store.write().await?;
    let version = versions::next(&mut write, service.now()).await?;
    // Nothing is issued by what is deleted here, however long the commit takes.
    coverage::lock(&mut write).await?;
    // After the wait for the version: what was issued meanwhile is meant too.
    let now = service.now();
    let created = created(&mut write, subject).await?;
    let scope = subject.clone().into();
    // Whoever has the name later is issued nothing before this instant has passed.
    let reach = now.seconds().saturating_add(AHEAD);
    let refused = refuse_all(&mut write, &scope, NEVER, "deleted", now, version).await?;
    for key in refused.keys {
        api_keys::delete(&mut write, key.id).await?;
    }
    let (watermark, _) = raise_to_now(service, &mut write, &scope, reach, now, version).await?;
    grants::set(&mut write, operator, name, None, version).await?;
    let keys = auth_keys::delete_all(&mut write, operator, Some(name)).await?;
    if created_by_user == CreatedByUser::Delete {
        for key in &created.auth_keys {
            end(service, &mut write, &key.id, now, version).await?;
        }
        for key in &created.api_keys {
            refuse(&mut write, key, "its maker was deleted", now, version).await?;
            api_keys::delete(&mut write, key.id).await?;
        }
    }
    users::delete(&mut write, operator, Some(name)).await?;
    let detail = json!({
        "auth_keys": keys,
        "created": created.ids(),
        "created_deleted": created_by_user == CreatedByUser::Delete,
        "version": version,
        "instant": watermark.instant,
    });
    let target = &subject.to_string();
    audit::append(&mut write, audit::Change { at: now, actor, action: "user.delete", target, detail })
        .await?;
    write.commit().await?;
    service.settle(version).await;
    Ok(DeletedUser { version, created })
}

/// Since the user was made: one of the same name before it was somebody else.
async fn created(lookup: &mut impl Lookup, subject: &Subject) -> Result<CreatedKeys, AccountError> {
    let Subject { operator, user: Some(name) } = subject else {
        return Err(AccountError::Root(subject.operator.clone()));
    };
    let user = users::find(lookup, operator, name).await?;
    let since = user.ok_or_else(|| AccountError::UserUnknown(subject.clone()))?.created_at;
    let creator = Actor::of_subject(subject);
    let mut auth_keys = auth_keys::created_by(lookup, &creator, since).await?;
    auth_keys.retain(|key| key.subject != *subject);
    let mut api_keys = api_keys::created_by(lookup, &creator, since).await?;
    api_keys.retain(|key| key.owner != *subject);
    Ok(CreatedKeys { auth_keys, api_keys })
}
