use serde_json::json;

use super::{
    AccountError,
    error::check_description,
    grants::{GrantTargets, recompute_grants},
    queries::{operators, roles, users},
};
use crate::{
    audit::queries as audit,
    credentials::api_keys::queries as api_keys,
    db::{StoreError, Write, versions},
    domain::{Actor, OperatorId, Page, PageRequest, RoleId, Subject, User},
    limits::operator::{self as operator_limits, LimitKind},
    platform::clock::Time,
    service::Service,
};

/// Creates a user with the default permissions of the operator.
pub async fn create_user(
    service: &Service,
    actor: &Actor,
    subject: &Subject,
    description: Option<&str>,
) -> Result<(), AccountError> {
    check_description(description)?;
    let mut write = service.store.write().await?;
    versions::lock_version(&mut write).await?;
    let now = service.now();
    let Subject { operator, user: Some(name) } = subject else {
        return Err(AccountError::RootUserImmutable(subject.operator.clone()));
    };
    let version = ensure_user(service, &mut write, actor, subject, now).await?;
    let version = version.ok_or_else(|| AccountError::UserExists(subject.clone()))?;
    users::set_description(&mut write, operator, name, description).await?;
    write.commit().await?;
    service.wait_published(version).await;
    Ok(())
}

/// Creates the user if it does not exist. The transaction must have the version lock; otherwise the user might be deleted
/// before the commit. Returns the first version with the user, or `None` if the user exists.
pub(crate) async fn ensure_user(
    service: &Service,
    write: &mut Write,
    actor: &Actor,
    subject: &Subject,
    at: Time,
) -> Result<Option<u64>, AccountError> {
    let Subject { operator, user } = subject;
    if !operators::exists(write, operator).await? {
        return Err(AccountError::OperatorUnknown);
    }
    let Some(user) = user else { return Ok(None) };
    if operators::user_exists(write, operator, user).await? {
        return Ok(None);
    }
    // The key would become a key of the user.
    if let Some(key) = api_keys::list_by_name(write, operator, user).await? {
        return Err(AccountError::NameIsUsernameOfApiKey(subject.clone(), key));
    }
    operator_limits::check_limit(service, write, operator, LimitKind::Users).await??;
    let version = versions::allocate(write, at).await?;
    operators::insert_user(write, operator, user, at.seconds()).await?;
    recompute_grants(write, operator, GrantTargets::User(user), version).await?;
    let (action, target) = ("user.create", &subject.to_string());
    audit::append(write, audit::NewAuditEntry { at, actor, action, target, detail: json!({}) }).await?;
    Ok(Some(version))
}

/// Returns a page of the users of an operator, or of all.
pub async fn list_users(
    service: &Service,
    of: Option<&OperatorId>,
    page: &PageRequest,
) -> Result<Page<User>, StoreError> {
    users::page(&mut service.store.reader().await?, of, page).await
}

/// Finds a user with its roles.
pub async fn find_user(service: &Service, subject: &Subject) -> Result<(User, Vec<RoleId>), AccountError> {
    let Subject { operator, user: Some(name) } = subject else {
        return Err(AccountError::RootUserImmutable(subject.operator.clone()));
    };
    let mut read = service.store.read().await?;
    let user = users::find(&mut read, operator, name).await?;
    let user = user.ok_or_else(|| AccountError::UserUnknown(subject.clone()))?;
    let held = roles::attached(&mut read, operator, Some(name)).await?;
    Ok((user, held.into_iter().map(|(_, role)| role).collect()))
}
