use std::fmt;

use serde_json::json;

use super::Service;
use crate::{
    model::{Actor, EdgeId},
    store::{StoreError, audit, edges, versions},
};

#[derive(Debug)]
pub enum RemoveEdgeError {
    NotFound,
    Store(StoreError),
}

impl fmt::Display for RemoveEdgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => {
                f.write_str("there is no such edge; `keystile edge list` shows those there are")
            }
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RemoveEdgeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotFound => None,
            Self::Store(error) => error.source(),
        }
    }
}

impl From<StoreError> for RemoveEdgeError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// From now on its credential gets it nothing; what it has goes stale.
pub async fn remove_edge(service: &Service, actor: &Actor, id: &EdgeId) -> Result<(), RemoveEdgeError> {
    let mut write = service.store.write().await?;
    // The journal beside the database takes up what has a later version than it knows.
    let version = versions::next(&mut write, service.now()).await?;
    if !edges::delete(&mut write, id).await? {
        return Err(RemoveEdgeError::NotFound);
    }
    audit::append(
        &mut write,
        audit::Change {
            at: service.now(),
            actor,
            action: "edge.remove",
            target: id.as_str(),
            detail: json!({ "version": version }),
        },
    )
    .await?;
    write.commit().await?;
    service.settle(version).await;
    Ok(())
}
