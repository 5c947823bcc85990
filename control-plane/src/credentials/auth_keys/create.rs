use token::secret::Secret;

use super::queries as auth_keys;
use crate::{
    accounts::{AccountError, users::ensure_user},
    db::StoreError,
    domain::{Actor, AuthKey, AuthKeyId, CoreError, ErrorKind, Event, Subject, UnixSeconds},
    limits::operator as operator_limits,
    platform::random,
    service::Service,
};

/// Why an AuthKey could not be created.
#[derive(Debug, thiserror::Error)]
pub enum CreateAuthKeyError {
    /// The operator does not exist, or the user cannot be created.
    #[error(transparent)]
    Account(AccountError),
    /// Only the root user may create AuthKeys of the root user.
    #[error("only the root user may create AuthKeys of the root user, regardless of permissions")]
    RootOnly,
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CoreError for CreateAuthKeyError {
    fn code(&self) -> &'static str {
        match self {
            Self::Account(error) => error.code(),
            Self::RootOnly => "root_only",
            Self::Store(error) => error.code(),
        }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Account(error) => error.kind(),
            Self::RootOnly => ErrorKind::Forbidden,
            Self::Store(error) => error.kind(),
        }
    }
}

impl From<AccountError> for CreateAuthKeyError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Store(error) => Self::Store(error),
            error => Self::Account(error),
        }
    }
}

/// A new AuthKey.
#[derive(Debug)]
pub struct CreatedAuthKey {
    /// The id.
    pub id: AuthKeyId,
    /// The secret. It is shown once.
    pub secret: Secret,
}

/// Creates an AuthKey. Creates the user, with the default permissions, if it does not exist.
pub async fn create_auth_key(
    service: &Service,
    actor: &Actor,
    subject: &Subject,
) -> Result<CreatedAuthKey, CreateAuthKeyError> {
    if !actor.may_manage(subject) {
        return Err(CreateAuthKeyError::RootOnly);
    }
    let mut draft = service.draft(actor).await?;
    ensure_user(service, &mut draft, subject).await?;
    let now = draft.now();
    let checked = operator_limits::check_auth_key_limit(service, draft.db(), subject, now).await;
    checked.map_err(AccountError::from)?;
    let (key, secret) = new_auth_key(subject, actor, now.seconds());
    auth_keys::insert(draft.db(), &key).await?;
    draft.commit(Event::AuthKeyCreated { auth_key: key.id.clone(), subject: subject.clone() }).await?;
    Ok(CreatedAuthKey { id: key.id, secret })
}

/// Generates an AuthKey with its secret.
pub(crate) fn new_auth_key(subject: &Subject, actor: &Actor, at: UnixSeconds) -> (AuthKey, Secret) {
    let secret = random::secret("secret-");
    let key = AuthKey {
        id: AuthKeyId::random(),
        subject: subject.clone(),
        secret_hash: secret.hash(),
        created_by: Some(actor.to_string()),
        created_at: at,
        last_used_at: None,
    };
    (key, secret)
}
