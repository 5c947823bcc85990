use super::{
    AccountError,
    foreign_subjects::recompute_foreign_grants,
    queries::{foreign_subjects, grants, operators, roles, users},
};
use crate::{
    credentials::{
        api_keys::{self, revoke_keys_in_scope},
        auth_keys, coverage,
        tokens::mint::MAX_ISSUE_SKEW_SECS,
    },
    db::NEVER_EXPIRES,
    domain::{Actor, Event, OperatorId, Version, WatermarkScope},
    revocation::watermarks::raise_to_now,
    service::Service,
};

/// Deletes an operator with its users, roles and AuthKeys, and revokes everything that was issued to it. Returns the first
/// version with the change.
pub async fn delete_operator(
    service: &Service,
    actor: &Actor,
    id: &OperatorId,
) -> Result<Version, AccountError> {
    let mut change = service.change(actor).await?;
    let (version, now) = (change.version(), change.now());
    // The lock prevents issuing for the operator until the commit.
    coverage::lock_issuance(change.db()).await?;
    if !operators::exists(change.db(), id).await? {
        return Err(AccountError::OperatorUnknown);
    }
    let scope = WatermarkScope::Operator(id.clone());
    // The operator is never used again, so the instant may be as far ahead as a concurrent exchange can be dated.
    let reach = now.seconds().saturating_add(MAX_ISSUE_SKEW_SECS);
    let refused = revoke_keys_in_scope(change.db(), &scope, NEVER_EXPIRES, "deleted", now, version).await?;
    for key in refused.keys {
        api_keys::delete(change.db(), key.id).await?;
    }
    let (watermark, _) = raise_to_now(service, change.db(), &scope, reach, now, version).await?;
    grants::clear(change.db(), id, version).await?;
    let keys = auth_keys::delete_all(change.db(), id, None).await?;
    let gone = users::delete(change.db(), id, None).await?;
    let foreign = foreign_subjects::detach_all(change.db(), id, None).await?;
    recompute_foreign_grants(change.db(), foreign, version).await?;
    roles::delete(change.db(), id, None).await?;
    operators::delete(change.db(), id).await?;
    let event = Event::OperatorDeleted {
        operator: id.clone(),
        users: gone,
        auth_keys: keys,
        instant: watermark.instant,
    };
    Ok(change.commit(event).await?)
}
