pub use super::queries::users::{count, delete, find};
use super::{
    AccountError,
    error::check_description,
    grants::{GrantTargets, recompute_grants},
    queries::{operators, roles, users},
};
use crate::{
    credentials::api_keys,
    db::{Draft, StoreError},
    domain::{Actor, Event, OperatorId, Page, PageRequest, RoleId, Subject, User},
    limits::{LimitKind, operator as operator_limits},
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
    let mut draft = service.draft(actor).await?;
    let Subject { operator, user: Some(name) } = subject else {
        return Err(AccountError::RootUserImmutable(subject.operator.clone()));
    };
    if ensure_user(service, &mut draft, subject).await? == UserPresence::Existing {
        return Err(AccountError::UserExists(subject.clone()));
    }
    users::set_description(draft.db(), operator, name, description).await?;
    Ok(draft.commit_recorded().await?)
}

/// Whether a user existed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UserPresence {
    /// The user exists already, or it is the root user.
    Existing,
    /// The user was created.
    Created,
}

/// Creates the user if it does not exist, and records the event.
pub(crate) async fn ensure_user(
    service: &Service,
    draft: &mut Draft<'_>,
    subject: &Subject,
) -> Result<UserPresence, AccountError> {
    let Subject { operator, user } = subject;
    if !operators::exists(draft.db(), operator).await? {
        return Err(AccountError::OperatorUnknown);
    }
    let Some(user) = user else { return Ok(UserPresence::Existing) };
    if operators::user_exists(draft.db(), operator, user).await? {
        return Ok(UserPresence::Existing);
    }
    // The key would become a key of the user.
    if let Some(key) = api_keys::list_by_name(draft.db(), operator, user).await? {
        return Err(AccountError::NameIsUsernameOfApiKey(subject.clone(), key));
    }
    operator_limits::check_limit(service, draft.db(), operator, LimitKind::Users).await?;
    let (version, now) = (draft.version().await?, draft.now());
    operators::insert_user(draft.db(), operator, user, now.seconds()).await?;
    recompute_grants(draft.db(), operator, GrantTargets::User(user), version).await?;
    draft.record(Event::UserCreated { subject: subject.clone() });
    Ok(UserPresence::Created)
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
