use serde_json::json;

use super::queries as edges;
use crate::{
    audit::queries as audit,
    db::{StoreError, versions},
    domain::{Actor, EdgeId},
    service::Service,
};

/// Why an edge could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveEdgeError {
    /// The edge does not exist.
    #[error("there is no such edge; `keystile edge list` shows the existing ones")]
    NotFound,
    /// The store cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Removes an edge. Its credential is refused from now on, and its bundle goes stale.
pub async fn remove_edge(service: &Service, actor: &Actor, id: &EdgeId) -> Result<(), RemoveEdgeError> {
    let mut write = service.store.write().await?;
    // The new version makes the journal record the removal.
    let version = versions::allocate(&mut write, service.now()).await?;
    if !edges::delete(&mut write, id).await? {
        return Err(RemoveEdgeError::NotFound);
    }
    audit::append(
        &mut write,
        audit::NewAuditEntry {
            at: service.now(),
            actor,
            action: "edge.remove",
            target: id.as_str(),
            detail: json!({ "version": version }),
        },
    )
    .await?;
    write.commit().await?;
    service.wait_published(version).await;
    Ok(())
}
