use std::{fmt, time::Duration};

use serde_json::json;
use token::secret::Secret;

use super::{Service, enroll_edge::CREDENTIAL_PREFIX};
use crate::{
    clock::Time,
    model::{Actor, EdgeId},
    random,
    store::{StoreError, Write, audit, edges, versions},
};

#[derive(Debug)]
pub enum RotateEdgeError {
    NotFound,
    OverlapTooLong,
    Store(StoreError),
}

impl fmt::Display for RotateEdgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => {
                f.write_str("there is no such edge; `keystile edge list` shows those there are")
            }
            Self::OverlapTooLong => {
                write!(f, "expected an overlap of at most {} days", MAX_OVERLAP.as_secs() / 86_400)
            }
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RotateEdgeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotFound | Self::OverlapTooLong => None,
            Self::Store(error) => error.source(),
        }
    }
}

impl From<StoreError> for RotateEdgeError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// When the earlier credentials of an edge end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldCredential {
    /// When the new one is used for the first time, and after the overlap at the latest.
    EndsOnUse {
        overlap: Duration,
    },
    /// After the overlap: several processes share the credential, and take the new one up one after another.
    EndsAfter {
        overlap: Duration,
    },
    EndsNow,
}

#[derive(Debug)]
pub struct RotatedEdge {
    /// Shown once.
    pub credential: Secret,
    /// When the earlier ones end at the latest, in seconds since the Unix epoch.
    pub old_ends_at: u64,
}

/// Gives an edge another credential. Where the new one was lost before it was used, another call makes one more: those
/// that are in use stay good as long as this call says.
pub async fn rotate_edge(
    service: &Service,
    actor: &Actor,
    id: &EdgeId,
    old: OldCredential,
) -> Result<RotatedEdge, RotateEdgeError> {
    let (overlap, ends_on_use) = match old {
        OldCredential::EndsOnUse { overlap } => (overlap, true),
        OldCredential::EndsAfter { overlap } => (overlap, false),
        OldCredential::EndsNow => (Duration::ZERO, true),
    };
    if overlap > MAX_OVERLAP {
        return Err(RotateEdgeError::OverlapTooLong);
    }
    let credential = random::secret(CREDENTIAL_PREFIX);
    let mut write = service.store.write().await?;
    let now = service.now();
    // The journal takes up what has a later version than it knows.
    let version = versions::next(&mut write, now).await?;
    let old_ends_at = now.plus(overlap).seconds();
    if !edges::replace_credential(&mut write, id, &credential.hash(), now.seconds()).await? {
        return Err(RotateEdgeError::NotFound);
    }
    if overlap.is_zero() {
        edges::end_old_credentials(&mut write, id, now.seconds()).await?;
    } else {
        edges::keep_old_credentials_until(&mut write, id, old_ends_at, ends_on_use).await?;
    }
    let detail = json!({ "old_ends_at": old_ends_at, "old_ends_on_use": ends_on_use });
    append(&mut write, now, actor, "edge.rotate", id, detail).await?;
    write.commit().await?;
    service.settle(version).await;
    Ok(RotatedEdge { credential, old_ends_at })
}

/// Ends the earlier credentials of an edge that was just seen with its new one. Whoever comes second finds nothing to
/// do.
pub(super) async fn finish_rotation(service: &Service, id: &EdgeId) -> Result<(), StoreError> {
    let mut write = service.store.write().await?;
    let now = service.now();
    versions::next(&mut write, now).await?;
    if edges::end_credentials_that_end_on_use(&mut write, id, now.seconds()).await? {
        append(&mut write, now, &Actor::System, "edge.rotate.done", id, json!({})).await?;
        write.commit().await?;
    }
    Ok(())
}

async fn append(
    write: &mut Write,
    at: Time,
    actor: &Actor,
    action: &'static str,
    id: &EdgeId,
    detail: serde_json::Value,
) -> Result<(), StoreError> {
    audit::append(write, audit::Change { at, actor, action, target: id.as_str(), detail }).await
}

/// Longer than anybody needs to hand a file out.
const MAX_OVERLAP: Duration = Duration::from_secs(30 * 86_400);
