use serde_json::json;

use super::{
    AccountError, Service,
    account_error::check_description,
    operator_limits::{self, Limited},
    regrant::{Whose, regrant},
};
use crate::{
    clock::Time,
    model::{Actor, OperatorId, Page, Paged, RoleId, Subject, User},
    store::{StoreError, Write, api_keys, audit, operators, roles, users, versions},
};

/// A new user, who may do what the default permissions of the operator allow.
pub async fn create_user(
    service: &Service,
    actor: &Actor,
    subject: &Subject,
    description: Option<&str>,
) -> Result<(), AccountError> {
    check_description(description)?;
    let mut write = service.store.write().await?;
    versions::lock(&mut write).await?;
    let now = service.now();
    let Subject { operator, user: Some(name) } = subject else {
        return Err(AccountError::Root(subject.operator.clone()));
    };
    let version = ensure_user(service, &mut write, actor, subject, now).await?;
    let version = version.ok_or_else(|| AccountError::UserTaken(subject.clone()))?;
    users::describe(&mut write, operator, name, description).await?;
    write.commit().await?;
    service.settle(version).await;
    Ok(())
}

/// Makes a user that is named for the first time, in a transaction that holds the version: else the user, or all that
/// it is issued, might go between this look and the commit. Returns the version that edges know it from, if it did.
pub(super) async fn ensure_user(
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
    // It would become the user's.
    if let Some(key) = api_keys::named(write, operator, user).await? {
        return Err(AccountError::NameOfApiKey(subject.clone(), key));
    }
    operator_limits::allow(service, write, operator, Limited::Users).await??;
    let version = versions::next(write, at).await?;
    operators::insert_user(write, operator, user, at.seconds()).await?;
    regrant(write, operator, Whose::User(user), version).await?;
    let (action, target) = ("user.create", &subject.to_string());
    audit::append(write, audit::Change { at, actor, action, target, detail: json!({}) }).await?;
    Ok(Some(version))
}

/// Those of an operator, or all.
pub async fn list_users(
    service: &Service,
    of: Option<&OperatorId>,
    page: &Page,
) -> Result<Paged<User>, StoreError> {
    users::page(&mut service.store.reader().await?, of, page).await
}

/// A user and its roles.
pub async fn find_user(service: &Service, subject: &Subject) -> Result<(User, Vec<RoleId>), AccountError> {
    let Subject { operator, user: Some(name) } = subject else {
        return Err(AccountError::Root(subject.operator.clone()));
    };
    let mut read = service.store.read().await?;
    let user = users::find(&mut read, operator, name).await?;
    let user = user.ok_or_else(|| AccountError::UserUnknown(subject.clone()))?;
    let held = roles::attached(&mut read, operator, Some(name)).await?;
    Ok((user, held.into_iter().map(|(_, role)| role).collect()))
}
