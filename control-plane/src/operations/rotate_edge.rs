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

/// How long the earlier credentials may stay valid.
const MAX_OVERLAP: Duration = Duration::from_secs(30 * 86_400);

/// Why the credential of an edge could not be rotated.
#[derive(Debug)]
pub enum RotateEdgeError {
    /// The edge does not exist.
    NotFound,
    /// The overlap exceeds the limit.
    OverlapTooLong,
    /// The store cannot be written.
    Store(StoreError),
}

impl fmt::Display for RotateEdgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => {
                f.write_str("there is no such edge; `keystile edge list` shows the existing ones")
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
    EndsOnUse { overlap: Duration },
    /// After the overlap, for several processes that share the credential and get the new one at different times.
    EndsAfter { overlap: Duration },
    /// Immediately.
    EndsNow,
}

/// A new credential of an edge.
#[derive(Debug)]
pub struct RotatedEdge {
    /// The credential. It is shown once.
    pub credential: Secret,
    /// When the earlier credentials end at the latest. Seconds since the Unix epoch.
    pub old_ends_at: u64,
}

/// Generates another credential for an edge. If it is lost before it is used, call this again: the credentials in use stay
/// valid as this call requests.
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
    // The new version makes the journal record the change.
    let version = versions::allocate(&mut write, now).await?;
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
    service.wait_published(version).await;
    Ok(RotatedEdge { credential, old_ends_at })
}

/// Ends the earlier credentials of an edge that has used its new one. A second call changes nothing.
pub(super) async fn finish_rotation(service: &Service, id: &EdgeId) -> Result<(), StoreError> {
    let mut write = service.store.write().await?;
    let now = service.now();
    versions::allocate(&mut write, now).await?;
    if edges::end_credentials_that_end_on_use(&mut write, id, now.seconds()).await? {
        append(&mut write, now, &Actor::System, "edge.rotate.done", id, json!({})).await?;
        write.commit().await?;
    }
    Ok(())
}

/// Appends an audit entry about an edge.
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
