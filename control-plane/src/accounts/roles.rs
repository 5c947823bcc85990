pub use super::queries::roles::count;
use super::{
    AccountError,
    error::check_description,
    foreign_subjects::recompute_foreign_grants,
    grants::{GrantTargets, compile, recompute_grants},
    permissions::permission_json,
    queries::{foreign_subjects, operators, roles},
};
use crate::{
    db::StoreError,
    domain::{
        Actor, Event, ForeignName, OperatorId, Page, PageRequest, Role, RoleId, RoleName, Subject, UserName,
        Version,
    },
    limits::{LimitKind, operator as operator_limits},
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
    let mut draft = service.draft(actor).await?;
    if !operators::exists(draft.db(), operator).await? {
        return Err(AccountError::OperatorUnknown);
    }
    operator_limits::check_limit(service, draft.db(), operator, LimitKind::Roles).await?;
    let now = draft.now();
    let role = Role {
        operator: operator.clone(),
        id: id.clone(),
        description: description.map(str::to_owned),
        permission: permission.to_owned(),
        created_at: now.seconds(),
        updated_at: now.seconds(),
    };
    if !roles::insert(draft.db(), &role).await? {
        return Err(AccountError::RoleExists(id.clone()));
    }
    let document = permission_json(Some(permission));
    let role = RoleName { operator: operator.clone(), id: id.clone() };
    let description = description.map(str::to_owned);
    Ok(draft.commit(Event::RoleCreated { role, document, description }).await?)
}

/// Replaces the permissions of a role, and its description if one is given. Returns the first version with the change.
pub async fn update_role(
    service: &Service,
    actor: &Actor,
    operator: &OperatorId,
    id: &RoleId,
    permission: &str,
    description: Option<&str>,
) -> Result<Version, AccountError> {
    compile(permission)?;
    check_description(description)?;
    let mut change = service.change(actor).await?;
    let (version, now) = (change.version(), change.now());
    if !roles::update(change.db(), operator, id, description, permission, now.seconds()).await? {
        return Err(AccountError::RoleUnknown(id.clone()));
    }
    let mut grants = recompute_grants(change.db(), operator, GrantTargets::RoleHolders(id), version).await?;
    let foreign = foreign_subjects::with_role(change.db(), operator, Some(id)).await?;
    grants += recompute_foreign_grants(change.db(), foreign, version).await?;
    let role = RoleName { operator: operator.clone(), id: id.clone() };
    let document = permission_json(Some(permission));
    Ok(change.commit(Event::RoleUpdated { role, document, grants }).await?)
}

/// Deletes a role, and detaches it from all users. Returns the first version with the change.
pub async fn delete_role(
    service: &Service,
    actor: &Actor,
    operator: &OperatorId,
    id: &RoleId,
) -> Result<Version, AccountError> {
    let mut change = service.change(actor).await?;
    let version = change.version();
    let foreign = foreign_subjects::detach_all(change.db(), operator, Some(id)).await?;
    if roles::delete(change.db(), operator, Some(id)).await? == 0 {
        return Err(AccountError::RoleUnknown(id.clone()));
    }
    let mut grants = recompute_grants(change.db(), operator, GrantTargets::AllUsers, version).await?;
    grants += recompute_foreign_grants(change.db(), foreign, version).await?;
    let role = RoleName { operator: operator.clone(), id: id.clone() };
    Ok(change.commit(Event::RoleDeleted { role, grants }).await?)
}

/// Attaches a role to a user. A second call changes nothing and succeeds.
pub async fn attach_role(
    service: &Service,
    actor: &Actor,
    subject: &Subject,
    id: &RoleId,
) -> Result<(), AccountError> {
    let (operator, user) = require_user(subject)?;
    let mut change = service.change(actor).await?;
    let version = change.version();
    if !operators::user_exists(change.db(), operator, user).await? {
        return Err(AccountError::UserUnknown(subject.clone()));
    }
    if roles::list(change.db(), operator, Some(id)).await?.is_empty() {
        return Err(AccountError::RoleUnknown(id.clone()));
    }
    if !roles::attach(change.db(), operator, user, id).await? {
        return Ok(());
    }
    recompute_grants(change.db(), operator, GrantTargets::User(user), version).await?;
    let role = RoleName { operator: operator.clone(), id: id.clone() };
    change.commit(Event::RoleAttached { role, user: subject.to_string() }).await?;
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
    let mut change = service.change(actor).await?;
    let version = change.version();
    if !roles::detach(change.db(), operator, user, id).await? {
        return Err(AccountError::NotAttached);
    }
    recompute_grants(change.db(), operator, GrantTargets::User(user), version).await?;
    let role = RoleName { operator: operator.clone(), id: id.clone() };
    change.commit(Event::RoleDetached { role, user: subject.to_string() }).await?;
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
