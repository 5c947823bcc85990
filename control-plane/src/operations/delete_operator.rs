use serde_json::json;

use super::{AccountError, Service, api_keys::refuse_all, mint::AHEAD, watermark::raise_to_now};
use crate::{
    model::{Actor, OperatorId, WatermarkScope},
    store::{NEVER, api_keys, audit, auth_keys, coverage, grants, operators, roles, users, versions},
};

/// Deletes an operator with its users, roles and AuthKeys, and refuses all that was ever issued inside it. Returns the
/// version that edges know it from.
pub async fn delete_operator(service: &Service, actor: &Actor, id: &OperatorId) -> Result<u64, AccountError> {
    let mut write = service.store.write().await?;
    let version = versions::next(&mut write, service.now()).await?;
    // Nothing is issued by what is deleted here, however long the commit takes.
    coverage::lock(&mut write).await?;
    // After the wait for the version: what was issued meanwhile is meant too.
    let now = service.now();
    if !operators::exists(&mut write, id).await? {
        return Err(AccountError::OperatorUnknown);
    }
    let scope = WatermarkScope::Operator(id.clone());
    // It never issues again, so the instant may lie as far ahead as an exchange that is under way can reach.
    let reach = now.seconds().saturating_add(AHEAD);
    let refused = refuse_all(&mut write, &scope, NEVER, "deleted", now, version).await?;
    for key in refused.keys {
        api_keys::delete(&mut write, key.id).await?;
    }
    let (watermark, _) = raise_to_now(service, &mut write, &scope, reach, now, version).await?;
    grants::clear(&mut write, id, version).await?;
    let keys = auth_keys::delete_all(&mut write, id, None).await?;
    let gone = users::delete(&mut write, id, None).await?;
    roles::delete(&mut write, id, None).await?;
    operators::delete(&mut write, id).await?;
    let detail =
        json!({ "users": gone, "auth_keys": keys, "version": version, "instant": watermark.instant });
    audit::append(
        &mut write,
        audit::Change { at: now, actor, action: "operator.delete", target: id.as_str(), detail },
    )
    .await?;
    write.commit().await?;
    service.settle(version).await;
    Ok(version)
}
