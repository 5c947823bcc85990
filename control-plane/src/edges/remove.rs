use super::queries as edges;
use crate::{
    db::StoreError,
    domain::{Actor, EdgeId, Event},
    service::Service,
};

/// Why an edge could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveEdgeError {
    /// The edge does not exist.
    #[error("there is no such edge")]
    NotFound,
    /// The store cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Removes an edge. Its credential is refused from now on, and its bundle goes stale.
pub async fn remove_edge(service: &Service, actor: &Actor, id: &EdgeId) -> Result<(), RemoveEdgeError> {
    // The new version makes the journal record the removal.
    let mut change = service.change(actor).await?;
    if !edges::delete(change.db(), id).await? {
        return Err(RemoveEdgeError::NotFound);
    }
    change.commit(Event::EdgeRemoved { edge: id.clone() }).await?;
    Ok(())
}
