use super::queries as auth_keys;
use crate::{
    credentials::{queries::coverage, tokens::mint::MAX_ISSUE_SKEW_SECS},
    db::{StoreError, Write},
    domain::UnixMillis,
    domain::{Actor, AuthKeyId, CoreError, ErrorKind, Event, Version, Watermark, WatermarkScope},
    limits::operator as operator_limits,
    revocation::{AccessScope, watermarks::raise_to_now},
    service::Service,
};

/// Why an AuthKey could not be deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteAuthKeyError {
    /// The AuthKey is unknown, or another operator's. The error does not reveal which.
    #[error("unknown AuthKey")]
    NotFound,
    /// Only the root user may delete AuthKeys of the root user.
    #[error("only the root user may delete AuthKeys of the root user, regardless of permissions")]
    RootOnly,
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CoreError for DeleteAuthKeyError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::RootOnly => "root_only",
            Self::Store(error) => error.code(),
        }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound => ErrorKind::NotFound,
            Self::RootOnly => ErrorKind::Forbidden,
            Self::Store(error) => error.kind(),
        }
    }
}

/// Deletes an AuthKey, and revokes everything that was issued for it. Returns the first version with the change.
pub async fn delete_auth_key(
    service: &Service,
    actor: &Actor,
    authority: &AccessScope,
    id: &AuthKeyId,
) -> Result<Version, DeleteAuthKeyError> {
    let mut change = service.change(actor).await?;
    let (version, now) = (change.version(), change.now());
    // The lock prevents issuing for the AuthKey until the commit.
    coverage::lock_issuance(change.db()).await?;
    let key = auth_keys::find(change.db(), id).await?.ok_or(DeleteAuthKeyError::NotFound)?;
    if !authority.includes(&key.subject.operator) {
        return Err(DeleteAuthKeyError::NotFound);
    }
    if !actor.may_manage(&key.subject) {
        return Err(DeleteAuthKeyError::RootOnly);
    }
    let is_new = operator_limits::counts_as_new(change.db(), &WatermarkScope::AuthKey(id.clone())).await?;
    let watermark =
        end_auth_key(service, change.db(), id, now, version).await?.ok_or(DeleteAuthKeyError::NotFound)?;
    if let AccessScope::Operator(operator) = authority
        && is_new
    {
        operator_limits::count_revocation(change.db(), operator, watermark.ends_at).await?;
    }
    let event =
        Event::AuthKeyDeleted { auth_key: id.clone(), subject: key.subject, instant: watermark.instant };
    Ok(change.commit(event).await?)
}

/// Deletes an AuthKey, and raises its watermark, which is returned; `None` if the AuthKey does not exist.
pub(crate) async fn end_auth_key(
    service: &Service,
    write: &mut Write,
    id: &AuthKeyId,
    now: UnixMillis,
    version: Version,
) -> Result<Option<Watermark>, StoreError> {
    if !auth_keys::delete(write, id).await? {
        return Ok(None);
    }
    let scope = WatermarkScope::AuthKey(id.clone());
    // The AuthKey is never used again, so the instant may be as far ahead as a concurrent exchange can be dated.
    let reach = now.seconds().saturating_add(MAX_ISSUE_SKEW_SECS);
    let (watermark, _) = raise_to_now(service, write, &scope, reach, now, version).await?;
    Ok(Some(watermark))
}
