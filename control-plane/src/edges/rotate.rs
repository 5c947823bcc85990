use std::time::Duration;

use token::secret::{Secret, SecretHash};

use super::{enroll::CREDENTIAL_PREFIX, queries as edges};
use crate::{
    db::StoreError,
    domain::{Actor, EdgeId, Event, UnixSeconds},
    platform::random,
    service::Service,
};

/// How long the earlier credentials may stay valid.
const MAX_OVERLAP: Duration = Duration::from_secs(30 * 86_400);

/// Why the credential of an edge could not be rotated.
#[derive(Debug, thiserror::Error)]
pub enum RotateEdgeError {
    /// The edge does not exist.
    #[error("there is no such edge")]
    NotFound,
    /// The overlap exceeds the limit.
    #[error("expected an overlap of at most {} days", MAX_OVERLAP.as_secs() / 86_400)]
    OverlapTooLong,
    /// The store cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// When the earlier credentials of an edge end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldCredentialEnd {
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
    pub old_ends_at: UnixSeconds,
}

/// Generates another credential for an edge. If it is lost before it is used, call this again: the credentials in use stay
/// valid as this call requests.
pub async fn rotate_edge(
    service: &Service,
    actor: &Actor,
    id: &EdgeId,
    old: OldCredentialEnd,
) -> Result<RotatedEdge, RotateEdgeError> {
    let (overlap, ends_on_use) = match old {
        OldCredentialEnd::EndsOnUse { overlap } => (overlap, true),
        OldCredentialEnd::EndsAfter { overlap } => (overlap, false),
        OldCredentialEnd::EndsNow => (Duration::ZERO, false),
    };
    if overlap > MAX_OVERLAP {
        return Err(RotateEdgeError::OverlapTooLong);
    }
    let credential = random::secret(CREDENTIAL_PREFIX);
    // The new version makes the journal record the change.
    let mut change = service.change(actor).await?;
    let now = change.now();
    let old_ends_at = now.plus(overlap).seconds();
    if !edges::replace_credential(change.db(), id, &credential.hash(), now.seconds()).await? {
        return Err(RotateEdgeError::NotFound);
    }
    if overlap.is_zero() {
        edges::end_old_credentials(change.db(), id, now.seconds()).await?;
    } else {
        edges::keep_old_credentials_until(change.db(), id, old_ends_at, ends_on_use).await?;
    }
    change.commit(Event::EdgeRotated { edge: id.clone(), old_ends_at, old_ends_on_use: ends_on_use }).await?;
    Ok(RotatedEdge { credential, old_ends_at })
}

/// Ends the earlier credentials of an edge that end when its new one is used. Changes nothing if the credential with the
/// hash `used` has been replaced itself, or if it was called before.
pub(crate) async fn finish_rotation(
    service: &Service,
    id: &EdgeId,
    used: &SecretHash,
) -> Result<(), StoreError> {
    // The edge must not wait until the end of its earlier credentials is published.
    let mut change = service.unobserved_change(&Actor::System).await?;
    let now = change.now();
    if edges::end_credentials_on_use(change.db(), id, used, now.seconds()).await? {
        change.commit(Event::EdgeRotationDone { edge: id.clone() }).await?;
    }
    Ok(())
}
