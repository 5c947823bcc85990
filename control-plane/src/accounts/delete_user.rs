use super::{
    AccountError,
    queries::{grants, users},
};
use crate::{
    credentials::{
        api_keys::{self, revoke_key, revoke_keys_in_scope},
        auth_keys::{self, delete::end_auth_key},
        coverage,
        tokens::mint::MAX_ISSUE_SKEW_SECS,
    },
    db::{Executor, NEVER_EXPIRES},
    domain::{Actor, ApiKey, AuthKey, Event, Subject, Version},
    revocation::watermarks::raise_to_now,
    service::Service,
};

/// The keys that a user created for others.
#[derive(Debug, Default)]
pub struct CreatedKeys {
    /// AuthKeys of others.
    pub auth_keys: Vec<AuthKey>,
    /// API keys of others.
    pub api_keys: Vec<ApiKey>,
}

impl CreatedKeys {
    /// Returns the ids of all keys.
    pub fn ids(&self) -> Vec<String> {
        let auth_keys = self.auth_keys.iter().map(|key| key.id.to_string());
        auth_keys.chain(self.api_keys.iter().map(|key| key.id.to_string())).collect()
    }
}

/// How to treat the keys that a deleted user created for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreatedKeysPolicy {
    /// They stay valid.
    Keep,
    /// They are deleted like the user's own keys.
    Delete,
}

/// The result of deleting a user.
#[derive(Debug)]
pub struct DeletedUser {
    /// The first version with the change.
    pub version: Version,
    /// The keys that the user created for others. They are deleted or still valid, as requested.
    pub created: CreatedKeys,
}

/// Returns the existing keys that a user created for others.
pub async fn keys_created_by(service: &Service, subject: &Subject) -> Result<CreatedKeys, AccountError> {
    find_created_keys(&mut service.store.read().await?, subject).await
}

/// Deletes a user with its AuthKeys, API keys and grant, and revokes everything that was issued to it. Keys that it created
/// for others are deleted if requested.
pub async fn delete_user(
    service: &Service,
    actor: &Actor,
    subject: &Subject,
    created_by_user: CreatedKeysPolicy,
) -> Result<DeletedUser, AccountError> {
    let Subject { operator, user: Some(name) } = subject else {
        return Err(AccountError::RootUserImmutable(subject.operator.clone()));
    };
    let mut change = service.change(actor).await?;
    let (version, now) = (change.version(), change.now());
    // The lock prevents issuing for the user until the commit.
    coverage::lock_issuance(change.db()).await?;
    let created = find_created_keys(change.db(), subject).await?;
    let scope = subject.clone().into();
    // A later user of the same name is issued nothing before this instant has passed.
    let reach = now.seconds().saturating_add(MAX_ISSUE_SKEW_SECS);
    let refused = revoke_keys_in_scope(change.db(), &scope, NEVER_EXPIRES, "deleted", now, version).await?;
    for key in refused.keys {
        api_keys::delete(change.db(), key.id).await?;
    }
    let (watermark, _) = raise_to_now(service, change.db(), &scope, reach, now, version).await?;
    grants::set(change.db(), operator, name, None, version).await?;
    let keys = auth_keys::delete_all(change.db(), operator, Some(name)).await?;
    if created_by_user == CreatedKeysPolicy::Delete {
        for key in &created.auth_keys {
            end_auth_key(service, change.db(), &key.id, now, version).await?;
        }
        for key in &created.api_keys {
            revoke_key(change.db(), key, "its maker was deleted", now, version).await?;
            api_keys::delete(change.db(), key.id).await?;
        }
    }
    users::delete(change.db(), operator, Some(name)).await?;
    let event = Event::UserDeleted {
        subject: subject.clone(),
        auth_keys: keys,
        created: created.ids(),
        created_deleted: created_by_user == CreatedKeysPolicy::Delete,
        instant: watermark.instant,
    };
    let version = change.commit(event).await?;
    Ok(DeletedUser { version, created })
}

/// Finds the keys that were created by the user since it exists: an earlier user of the same name was another one.
async fn find_created_keys(
    executor: &mut impl Executor,
    subject: &Subject,
) -> Result<CreatedKeys, AccountError> {
    let Subject { operator, user: Some(name) } = subject else {
        return Err(AccountError::RootUserImmutable(subject.operator.clone()));
    };
    let user = users::find(executor, operator, name).await?;
    let since = user.ok_or_else(|| AccountError::UserUnknown(subject.clone()))?.created_at;
    let creator = Actor::name_of_subject(subject);
    let mut auth_keys = auth_keys::created_by(executor, &creator, since).await?;
    auth_keys.retain(|key| key.subject != *subject);
    let mut api_keys = api_keys::list_created_by(executor, &creator, since).await?;
    api_keys.retain(|key| key.owner != *subject);
    Ok(CreatedKeys { auth_keys, api_keys })
}
