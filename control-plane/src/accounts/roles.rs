use serde_json::{Value, json};

use super::{
    AccountError,
    error::check_description,
    foreign_subjects::recompute_foreign_grants,
    grants::{GrantTargets, compile, recompute_grants},
    permissions::permission_json,
    queries::{foreign_subjects, operators, roles},
};
use crate::{
    audit::queries as audit,
    db::{StoreError, Write, versions},
    domain::{Actor, ForeignName, OperatorId, Page, PageRequest, Role, RoleId, Subject, UserName},
    limits::operator::{self as operator_limits, LimitKind},
    platform::clock::Time,
    service::Service,
};

/// Creates a role.
pub async fn create_role(
    service: &Service,
    actor: &Actor,
    operator: &OperatorId,
    id: &RoleId,
    permission: &str,
    description: Option<&str>,
) -> Result<(), AccountError> {
    compile(permission)?;
    check_description(description)?;
    let now = service.now();
    let mut write = service.store.write().await?;
    // The lock serializes the check of the limit.
    versions::lock_version(&mut write).await?;
    if !operators::exists(&mut write, operator).await? {
        return Err(AccountError::OperatorUnknown);
    }
    operator_limits::check_limit(service, &mut write, operator, LimitKind::Roles).await??;
    let role = Role {
        operator: operator.clone(),
        id: id.clone(),
        description: description.map(str::to_owned),
        permission: permission.to_owned(),
        created_at: now.seconds(),
        updated_at: now.seconds(),
    };
    if !roles::insert(&mut write, &role).await? {
        return Err(AccountError::RoleExists(id.clone()));
    }
    let detail = json!({ "permission": permission_json(Some(permission)), "description": description });
    append_audit(&mut write, now, actor, "role.create", operator, id, detail).await?;
    Ok(write.commit().await?)
}

/// Replaces the permissions of a role, and its description if one is given. Returns the first version with the change.
pub async fn update_role(
    service: &Service,
    actor: &Actor,
    operator: &OperatorId,
    id: &RoleId,
    permission: &str,
    description: Option<&str>,
) -> Result<u64, AccountError> {
    compile(permission)?;
    check_description(description)?;
    let now = service.now();
    let mut write = service.store.write().await?;
    let version = versions::allocate(&mut write, now).await?;
    if !roles::update(&mut write, operator, id, description, permission, now.seconds()).await? {
        return Err(AccountError::RoleUnknown(id.clone()));
    }
    let mut changed = recompute_grants(&mut write, operator, GrantTargets::RoleHolders(id), version).await?;
    let foreign = foreign_subjects::with_role(&mut write, operator, Some(id)).await?;
    changed += recompute_foreign_grants(&mut write, foreign, version).await?;
    let detail =
        json!({ "permission": permission_json(Some(permission)), "grants": changed, "version": version });
    append_audit(&mut write, now, actor, "role.update", operator, id, detail).await?;
    write.commit().await?;
    service.wait_published(version).await;
    Ok(version)
}

/// Deletes a role, and detaches it from all users. Returns the first version with the change.
pub async fn delete_role(
    service: &Service,
    actor: &Actor,
    operator: &OperatorId,
    id: &RoleId,
) -> Result<u64, AccountError> {
    let now = service.now();
    let mut write = service.store.write().await?;
    let version = versions::allocate(&mut write, now).await?;
    let foreign = foreign_subjects::detach_all(&mut write, operator, Some(id)).await?;
    if roles::delete(&mut write, operator, Some(id)).await? == 0 {
        return Err(AccountError::RoleUnknown(id.clone()));
    }
    let mut changed = recompute_grants(&mut write, operator, GrantTargets::AllUsers, version).await?;
    changed += recompute_foreign_grants(&mut write, foreign, version).await?;
    let detail = json!({ "grants": changed, "version": version });
    append_audit(&mut write, now, actor, "role.delete", operator, id, detail).await?;
    write.commit().await?;
    service.wait_published(version).await;
    Ok(version)
}

/// Attaches a role to a user. A second call changes nothing and succeeds.
pub async fn attach_role(
    service: &Service,
    actor: &Actor,
    subject: &Subject,
    id: &RoleId,
) -> Result<(), AccountError> {
    let (operator, user) = require_user(subject)?;
    let now = service.now();
    let mut write = service.store.write().await?;
    let version = versions::allocate(&mut write, now).await?;
    if !operators::user_exists(&mut write, operator, user).await? {
        return Err(AccountError::UserUnknown(subject.clone()));
    }
    if roles::list(&mut write, operator, Some(id)).await?.is_empty() {
        return Err(AccountError::RoleUnknown(id.clone()));
    }
    if !roles::attach(&mut write, operator, user, id).await? {
        return Ok(());
    }
    recompute_grants(&mut write, operator, GrantTargets::User(user), version).await?;
    let detail = json!({ "user": subject.to_string(), "version": version });
    append_audit(&mut write, now, actor, "role.attach", operator, id, detail).await?;
    write.commit().await?;
    service.wait_published(version).await;
    Ok(())
}

/// Detaches a role from a user.
pub async fn detach_role(
    service: &Service,
    actor: &Actor,
    subject: &Subject,
    id: &RoleId,
) -> Result<(), AccountError> {
    let (operator, user) = require_user(subject)?;
    let now = service.now();
    let mut write = service.store.write().await?;
    let version = versions::allocate(&mut write, now).await?;
    if !roles::detach(&mut write, operator, user, id).await? {
        return Err(AccountError::NotAttached);
    }
    recompute_grants(&mut write, operator, GrantTargets::User(user), version).await?;
    let detail = json!({ "user": subject.to_string(), "version": version });
    append_audit(&mut write, now, actor, "role.detach", operator, id, detail).await?;
    write.commit().await?;
    service.wait_published(version).await;
    Ok(())
}

/// Returns a page of the roles of an operator.
pub async fn list_roles(
    service: &Service,
    operator: &OperatorId,
    page: &PageRequest,
) -> Result<Page<Role>, StoreError> {
    roles::page(&mut service.store.reader().await?, operator, page).await
}

/// Finds a role with the users and the subjects of other issuers that have it.
pub async fn find_role(
    service: &Service,
    operator: &OperatorId,
    id: &RoleId,
) -> Result<(Role, Vec<UserName>, Vec<ForeignName>), AccountError> {
    let mut read = service.store.read().await?;
    let role = roles::list(&mut read, operator, Some(id)).await?.pop();
    let role = role.ok_or_else(|| AccountError::RoleUnknown(id.clone()))?;
    let attached = roles::attached(&mut read, operator, None).await?;
    let users = attached.into_iter().filter(|(_, held)| held == id).map(|(user, _)| user).collect();
    Ok((role, users, foreign_subjects::with_role(&mut read, operator, Some(id)).await?))
}

/// Returns operator and user, or an error for the root user.
fn require_user(subject: &Subject) -> Result<(&OperatorId, &UserName), AccountError> {
    let Subject { operator, user } = subject;
    Ok((operator, user.as_ref().ok_or_else(|| AccountError::RootUserImmutable(operator.clone()))?))
}

/// Appends an audit entry about a role.
pub(crate) async fn append_audit(
    write: &mut Write,
    at: Time,
    actor: &Actor,
    action: &'static str,
    operator: &OperatorId,
    id: &RoleId,
    detail: Value,
) -> Result<(), StoreError> {
    let target = &format!("{operator}:{id}");
    audit::append(write, audit::NewAuditEntry { at, actor, action, target, detail }).await
}
