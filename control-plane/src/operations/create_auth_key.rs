use std::fmt;

use serde_json::json;
use token::secret::Secret;

use super::Service;
use crate::{
    clock::{self, Time},
    model::{Actor, AuthKey, AuthKeyId, Subject},
    random,
    store::{StoreError, Write, audit, auth_keys, operators},
};

#[derive(Debug)]
pub enum CreateAuthKeyError {
    OperatorUnknown,
    Store(StoreError),
}

impl fmt::Display for CreateAuthKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OperatorUnknown => {
                f.write_str("there is no such operator; `keystile authkey list` shows those there are")
            }
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CreateAuthKeyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::OperatorUnknown => None,
            Self::Store(error) => error.source(),
        }
    }
}

impl From<StoreError> for CreateAuthKeyError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

#[derive(Debug)]
pub struct CreatedAuthKey {
    pub id: AuthKeyId,
    /// Shown once.
    pub secret: Secret,
}

pub async fn create_auth_key(
    service: &Service,
    actor: &Actor,
    subject: &Subject,
) -> Result<CreatedAuthKey, CreateAuthKeyError> {
    let now = clock::now();
    let mut write = service.store.write().await?;
    if !operators::exists(&mut write, &subject.operator).await? {
        return Err(CreateAuthKeyError::OperatorUnknown);
    }
    ensure_user(&mut write, actor, subject, now).await?;
    let (key, secret) = new(subject, now.seconds());
    auth_keys::insert(&mut write, &key).await?;
    let detail = json!({ "subject": subject.to_string() });
    audit::append(
        &mut write,
        audit::Change { at: now, actor, action: "auth_key.create", target: key.id.as_str(), detail },
    )
    .await?;
    write.commit().await?;
    Ok(CreatedAuthKey { id: key.id, secret })
}

pub(super) fn new(subject: &Subject, at: u64) -> (AuthKey, Secret) {
    let secret = random::secret("secret-");
    let key = AuthKey {
        id: AuthKeyId::random(),
        subject: subject.clone(),
        secret_hash: secret.hash(),
        created_at: at,
        last_used_at: None,
    };
    (key, secret)
}

/// Makes a user that is named for the first time. Whether it did.
pub(super) async fn ensure_user(
    write: &mut Write,
    actor: &Actor,
    subject: &Subject,
    at: Time,
) -> Result<bool, StoreError> {
    let Subject { operator, user: Some(user) } = subject else { return Ok(false) };
    let new = operators::insert_user(write, operator, user, at.seconds()).await?;
    if new {
        let (action, target) = ("user.create", &subject.to_string());
        audit::append(write, audit::Change { at, actor, action, target, detail: json!({}) }).await?;
    }
    Ok(new)
}
