use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use token::secret::Secret;

use super::queries as edges;
use crate::{
    config::Server,
    db::StoreError,
    domain::{Actor, EdgeId, Event},
    platform::random,
    service::Service,
};

/// The prefix of edge credentials.
pub(crate) const CREDENTIAL_PREFIX: &str = "ks_edge_";

/// Why an edge could not be enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrollEdgeError {
    /// Another edge has the name.
    #[error("the edge name is already in use")]
    NameTaken,
    /// The store cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A newly enrolled edge.
#[derive(Debug)]
pub struct EnrolledEdge {
    /// The name of the edge.
    pub id: EdgeId,
    /// The credential. It is shown once.
    pub credential: Secret,
    root_key: String,
    config: crate::config::Config,
}

/// Where the filter gets its credential from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialSource {
    /// The host adds it to the requests of the filter, which has no credential itself.
    Host,
    /// The filter reads it from this environment variable.
    Environment(String),
    /// It is in the configuration of the filter, which hosts show in their configuration dump.
    Configuration,
}

impl EnrolledEdge {
    /// Returns the address that the server listens on according to the configuration.
    pub fn listen(&self) -> SocketAddr {
        self.config.server.listen
    }

    /// Returns how long the edge may keep an idle connection: half of the time that the server allows.
    pub fn idle_timeout(&self) -> Duration {
        let Server { idle_timeout, head_timeout, .. } = &self.config.server;
        idle_timeout.max(head_timeout).get() / 2
    }

    /// Returns the configuration of the filter. It contains the credential only with [`CredentialSource::Configuration`].
    pub fn plugin_configuration(&self, from: &CredentialSource) -> Value {
        let mut configuration = json!({
            "audience": self.config.publisher.audience,
            "root_keys": [self.root_key],
            "control_plane": { "cluster": "keystile", "authority": "keystile" },
            "tokens": {
                "issuer": self.config.tokens.issuer,
                "audiences": [self.config.tokens.audience],
            },
        });
        match from {
            CredentialSource::Host => {}
            CredentialSource::Environment(name) => {
                configuration["control_plane"]["credential_env"] = json!(name);
            }
            CredentialSource::Configuration => {
                configuration["control_plane"]["credential"] = json!(self.credential.expose());
                configuration["allow_inline_secrets"] = json!(true);
            }
        }
        configuration
    }
}

/// Enrolls an edge, and generates the credential with which it fetches bundles.
pub async fn enroll_edge(
    service: &Service,
    actor: &Actor,
    id: EdgeId,
) -> Result<EnrolledEdge, EnrollEdgeError> {
    let credential = random::secret(CREDENTIAL_PREFIX);
    let mut draft = service.draft(actor).await?;
    let now = draft.now();
    if !edges::insert(draft.db(), &id, &credential.hash(), now.seconds()).await? {
        return Err(EnrollEdgeError::NameTaken);
    }
    draft.commit(Event::EdgeEnrolled { edge: id.clone() }).await?;
    Ok(EnrolledEdge { id, credential, root_key: service.root_key.clone(), config: service.config.clone() })
}
