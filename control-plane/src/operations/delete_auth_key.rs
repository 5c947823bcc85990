use std::fmt;

use serde_json::json;

use super::{Authority, Service, mint::AHEAD, operator_limits, watermark::raise_to_now};
use crate::{
    clock::Time,
    model::{Actor, AuthKeyId, Watermark, WatermarkScope},
    store::{StoreError, Write, audit, auth_keys, coverage, versions},
};

#[derive(Debug)]
pub enum DeleteAuthKeyError {
    /// Unknown, or another operator's: which of both is not told.
    NotFound,
    /// Only the root user deletes AuthKeys of the root user.
    RootOnly,
    Store(StoreError),
}

impl fmt::Display for DeleteAuthKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("there is no such AuthKey"),
            Self::RootOnly => {
                f.write_str("only the root user deletes AuthKeys of the root user, whatever was granted")
            }
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DeleteAuthKeyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotFound | Self::RootOnly => None,
            Self::Store(error) => error.source(),
        }
    }
}

impl From<StoreError> for DeleteAuthKeyError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Deletes an AuthKey and refuses all it was exchanged for. Returns the version that edges know it from.
pub async fn delete_auth_key(
    service: &Service,
    actor: &Actor,
    authority: &Authority,
    id: &AuthKeyId,
) -> Result<u64, DeleteAuthKeyError> {
    let mut write = service.store.write().await?;
    let version = versions::next(&mut write, service.now()).await?;
    // Nothing is issued by what is deleted here, however long the commit takes.
    coverage::lock(&mut write).await?;
    // After the wait for the version: what was issued meanwhile is meant too.
    let now = service.now();
    let key = auth_keys::find(&mut write, id).await?.ok_or(DeleteAuthKeyError::NotFound)?;
    if !authority.covers(&key.subject.operator) {
        return Err(DeleteAuthKeyError::NotFound);
    }
    if !actor.may_manage(&key.subject) {
        return Err(DeleteAuthKeyError::RootOnly);
    }
    let is_new = operator_limits::counts_anew(&mut write, &WatermarkScope::AuthKey(id.clone())).await?;
    let watermark = end(service, &mut write, id, now, version).await?.ok_or(DeleteAuthKeyError::NotFound)?;
    if let Authority::Operator(operator) = authority
        && is_new
    {
        operator_limits::count_revocation(&mut write, operator, watermark.ends_at).await?;
    }
    let detail =
        json!({ "subject": key.subject.to_string(), "version": version, "instant": watermark.instant });
    audit::append(
        &mut write,
        audit::Change { at: now, actor, action: "auth_key.delete", target: id.as_str(), detail },
    )
    .await?;
    write.commit().await?;
    service.settle(version).await;
    Ok(version)
}

/// Deletes an AuthKey and refuses what it was exchanged for by a watermark, which is returned; `None` if there is none.
pub(super) async fn end(
    service: &Service,
    write: &mut Write,
    id: &AuthKeyId,
    now: Time,
    version: u64,
) -> Result<Option<Watermark>, StoreError> {
    if !auth_keys::delete(write, id).await? {
        return Ok(None);
    }
    let scope = WatermarkScope::AuthKey(id.clone());
    // It never issues again, so the instant may lie as far ahead as an exchange that is under way can reach.
    let reach = now.seconds().saturating_add(AHEAD);
    let (watermark, _) = raise_to_now(service, write, &scope, reach, now, version).await?;
    Ok(Some(watermark))
}
