use serde_json::json;

use super::{
    AccountError,
    foreign_subjects::recompute_foreign_grants,
    queries::{foreign_subjects, grants, operators, roles, users},
};
use crate::{
    audit::queries as audit,
    credentials::{
        api_keys::{queries as api_keys, revoke_keys_in_scope},
        auth_keys::queries as auth_keys,
        queries::coverage,
        tokens::mint::MAX_ISSUE_SKEW_SECS,
    },
    db::{NEVER_EXPIRES, versions},
    domain::{Actor, OperatorId, WatermarkScope},
    revocation::watermarks::raise_to_now,
    service::Service,
};

/// Deletes an operator with its users, roles and AuthKeys, and revokes everything that was issued to it. Returns the first
/// version with the change.
pub async fn delete_operator(service: &Service, actor: &Actor, id: &OperatorId) -> Result<u64, AccountError> {
    let mut write = service.store.write().await?;
    let version = versions::allocate(&mut write, service.now()).await?;
    // The lock prevents issuing for the operator until the commit.
    coverage::lock_issuance(&mut write).await?;
    // The time is taken after the wait for the version lock, so credentials that were issued in between are covered.
    let now = service.now();
    if !operators::exists(&mut write, id).await? {
        return Err(AccountError::OperatorUnknown);
    }
    let scope = WatermarkScope::Operator(id.clone());
    // The operator is never used again, so the instant may be as far ahead as a concurrent exchange can be dated.
    let reach = now.seconds().saturating_add(MAX_ISSUE_SKEW_SECS);
    let refused = revoke_keys_in_scope(&mut write, &scope, NEVER_EXPIRES, "deleted", now, version).await?;
    for key in refused.keys {
        api_keys::delete(&mut write, key.id).await?;
    }
    let (watermark, _) = raise_to_now(service, &mut write, &scope, reach, now, version).await?;
    grants::clear(&mut write, id, version).await?;
    let keys = auth_keys::delete_all(&mut write, id, None).await?;
    let gone = users::delete(&mut write, id, None).await?;
    let foreign = foreign_subjects::detach_all(&mut write, id, None).await?;
    recompute_foreign_grants(&mut write, foreign, version).await?;
    roles::delete(&mut write, id, None).await?;
    operators::delete(&mut write, id).await?;
    let detail =
        json!({ "users": gone, "auth_keys": keys, "version": version, "instant": watermark.instant });
    audit::append(
        &mut write,
        audit::NewAuditEntry { at: now, actor, action: "operator.delete", target: id.as_str(), detail },
    )
    .await?;
    write.commit().await?;
    service.wait_published(version).await;
    Ok(version)
}
