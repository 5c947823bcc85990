use std::fmt;

use serde_json::json;

use super::{Authority, Service, mint::AHEAD, watermark::raise_to_now};
use crate::{
    model::{Actor, AuthKeyId, WatermarkScope},
    store::{StoreError, audit, auth_keys, versions},
};

#[derive(Debug)]
pub enum DeleteAuthKeyError {
    /// Unknown, or another operator's: which of both is not told.
    NotFound,
    Store(StoreError),
}

impl fmt::Display for DeleteAuthKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("there is no such AuthKey"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DeleteAuthKeyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotFound => None,
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
    // After the wait for the version: what was issued meanwhile is meant too.
    let now = service.now();
    let key = auth_keys::find(&mut write, id).await?.ok_or(DeleteAuthKeyError::NotFound)?;
    if !authority.covers(&key.subject.operator) || !auth_keys::delete(&mut write, id).await? {
        return Err(DeleteAuthKeyError::NotFound);
    }
    let scope = WatermarkScope::AuthKey(id.clone());
    // It never issues again, so the instant may lie as far ahead as an exchange that is under way can reach.
    let reach = now.seconds().saturating_add(AHEAD);
    let (watermark, _) = raise_to_now(service, &mut write, &scope, reach, now, version).await?;
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
