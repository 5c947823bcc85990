use token::secret::{self, SecretHash};

use super::{enroll::CREDENTIAL_PREFIX, queries as edges, rotate::finish_rotation};
use crate::{
    db::StoreError,
    domain::{CoreError, EdgeId, EdgeReport, ErrorKind},
    service::Service,
};

/// Why an edge could not be authenticated.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticateEdgeError {
    /// The credential is malformed, unknown, or that of a removed edge.
    #[error("unknown edge credential")]
    Refused,
    /// The store cannot be read.
    #[error(transparent)]
    Store(StoreError),
}

impl CoreError for AuthenticateEdgeError {
    fn code(&self) -> &'static str {
        match self {
            Self::Refused => "edge_credential_refused",
            Self::Store(error) => error.code(),
        }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused => ErrorKind::Unauthenticated,
            Self::Store(error) => error.kind(),
        }
    }
}

/// Authenticates an edge by its credential. The credential is looked up for each request, so a removed edge is refused
/// immediately. The first use of a new credential ends those that it replaces.
pub async fn authenticate_edge(service: &Service, credential: &str) -> Result<EdgeId, AuthenticateEdgeError> {
    secret::check_format(CREDENTIAL_PREFIX, credential).map_err(|_| AuthenticateEdgeError::Refused)?;
    let mut reader = service.store.reader().await.map_err(AuthenticateEdgeError::Store)?;
    let hash = SecretHash::digest(credential);
    let found = edges::find(&mut reader, &hash, service.now().seconds()).await;
    let holder = found.map_err(AuthenticateEdgeError::Store)?.ok_or(AuthenticateEdgeError::Refused)?;
    drop(reader);
    if holder.ends_others
        && let Err(error) = finish_rotation(service, &holder.id, &hash).await
    {
        // The edge is authenticated anyway. The next request tries again, and the overlap ends in any case.
        tracing::warn!(edge.id = %holder.id, error = &error as &dyn std::error::Error, "cannot end the earlier credential of an edge");
    }
    Ok(holder.id)
}

impl Service {
    /// Records the report of an edge. It is written to the store after about a second.
    pub fn record_edge_report(&self, id: &EdgeId, report: EdgeReport) {
        self.usage.record_edge_report(id, self.now(), report);
    }
}
