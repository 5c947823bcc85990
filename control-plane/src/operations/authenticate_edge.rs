use std::fmt;

use token::secret::{self, SecretHash};

use super::{Service, enroll_edge::CREDENTIAL_PREFIX, rotate_edge::finish_rotation};
use crate::{
    model::{EdgeId, EdgeReport},
    store::{StoreError, edges},
};

#[derive(Debug)]
pub enum AuthenticateEdgeError {
    /// Mistyped, never issued, or removed.
    Refused,
    Store(StoreError),
}

impl fmt::Display for AuthenticateEdgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => {
                f.write_str("this is no credential of an enrolled edge; `keystile edge enroll` makes one")
            }
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AuthenticateEdgeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused => None,
            Self::Store(error) => error.source(),
        }
    }
}

/// Looks the credential up each time: a removed edge is refused at once. The first use of a new credential ends those
/// that it replaces.
pub async fn authenticate_edge(service: &Service, credential: &str) -> Result<EdgeId, AuthenticateEdgeError> {
    secret::check(CREDENTIAL_PREFIX, credential).map_err(|_| AuthenticateEdgeError::Refused)?;
    let mut reader = service.store.reader().await.map_err(AuthenticateEdgeError::Store)?;
    let found = edges::find(&mut reader, &SecretHash::of(credential), service.now().seconds()).await;
    let holder = found.map_err(AuthenticateEdgeError::Store)?.ok_or(AuthenticateEdgeError::Refused)?;
    drop(reader);
    if holder.ends_others
        && let Err(error) = finish_rotation(service, &holder.id).await
    {
        // The edge is who it says; the next request tries again, and the overlap ends in any case.
        tracing::warn!(edge.id = %holder.id, error = &error as &dyn std::error::Error, "an edge's earlier credential could not be ended");
    }
    Ok(holder.id)
}

impl Service {
    /// What an edge tells of itself with a request; written within a second or so.
    pub fn edge_seen(&self, id: &EdgeId, report: EdgeReport) {
        self.usage.edge_seen(id, self.now(), report);
    }
}
