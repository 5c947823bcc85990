use serde_json::json;

use super::{AccountError, Service, api_keys::refuse_all, mint::AHEAD, watermark::raise_to_now};
use crate::{
    model::{Actor, Subject},
    store::{NEVER, api_keys, audit, auth_keys, grants, operators, users, versions},
};

/// Deletes a user with its AuthKeys, takes its grant, and refuses all it was issued. Returns the version that edges
/// know it from.
pub async fn delete_user(service: &Service, actor: &Actor, subject: &Subject) -> Result<u64, AccountError> {
    let Subject { operator, user: Some(name) } = subject else {
        return Err(AccountError::Root(subject.operator.clone()));
    };
    let mut write = service.store.write().await?;
    let version = versions::next(&mut write, service.now()).await?;
    // After the wait for the version: what was issued meanwhile is meant too.
    let now = service.now();
    if !operators::user_exists(&mut write, operator, name).await? {
        return Err(AccountError::UserUnknown(subject.clone()));
    }
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
    users::delete(&mut write, operator, Some(name)).await?;
    let detail = json!({ "auth_keys": keys, "version": version, "instant": watermark.instant });
    let target = &subject.to_string();
    audit::append(&mut write, audit::Change { at: now, actor, action: "user.delete", target, detail })
        .await?;
    write.commit().await?;
    service.settle(version).await;
    Ok(version)
}
