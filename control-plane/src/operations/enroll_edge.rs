use std::{fmt, net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use token::secret::Secret;

use super::Service;
use crate::{
    config::Server,
    model::{Actor, EdgeId},
    random,
    store::{StoreError, audit, edges},
};

#[derive(Debug)]
pub enum EnrollEdgeError {
    NameTaken,
    Store(StoreError),
}

impl fmt::Display for EnrollEdgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameTaken => f.write_str(
                "an edge of that name is enrolled; take another, or `keystile edge remove` it first",
            ),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for EnrollEdgeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NameTaken => None,
            Self::Store(error) => error.source(),
        }
    }
}

impl From<StoreError> for EnrollEdgeError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

#[derive(Debug)]
pub struct EnrolledEdge {
    pub id: EdgeId,
    /// Shown once.
    pub credential: Secret,
    root_key: String,
    config: crate::config::Config,
}

/// How an edge comes by its credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialFrom {
    /// The host adds it to what the filter sends, so that the filter has none.
    Host,
    /// The filter reads it from this environment variable.
    Environment(String),
    /// It stands in the filter's configuration, which hosts show in their configuration dump.
    Configuration,
}

impl EnrolledEdge {
    /// Where the server listens, by the settings.
    pub fn listen(&self) -> SocketAddr {
        self.config.server.listen
    }

    /// How long the edge may keep a connection without a request: half of what the server allows, by the settings.
    pub fn idle_timeout(&self) -> Duration {
        let Server { idle_timeout, head_timeout, .. } = &self.config.server;
        idle_timeout.max(head_timeout).get() / 2
    }

    /// Returns the configuration of the filter. It holds the credential with [`CredentialFrom::Configuration`] only.
    pub fn plugin_configuration(&self, from: &CredentialFrom) -> Value {
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
            CredentialFrom::Host => {}
            CredentialFrom::Environment(name) => {
                configuration["control_plane"]["credential_env"] = json!(name);
            }
            CredentialFrom::Configuration => {
                configuration["control_plane"]["credential"] = json!(self.credential.expose());
                configuration["allow_inline_secrets"] = json!(true);
            }
        }
        configuration
    }
}

/// Gives an edge the credential with which it fetches bundles.
pub async fn enroll_edge(
    service: &Service,
    actor: &Actor,
    id: EdgeId,
) -> Result<EnrolledEdge, EnrollEdgeError> {
    let now = service.now();
    let credential = random::secret(CREDENTIAL_PREFIX);
    let mut write = service.store.write().await?;
    if !edges::insert(&mut write, &id, &credential.hash(), now.seconds()).await? {
        return Err(EnrollEdgeError::NameTaken);
    }
    audit::append(
        &mut write,
        audit::Change { at: now, actor, action: "edge.enroll", target: id.as_str(), detail: json!({}) },
    )
    .await?;
    write.commit().await?;
    Ok(EnrolledEdge { id, credential, root_key: service.root_key.clone(), config: service.config.clone() })
}

pub(super) const CREDENTIAL_PREFIX: &str = "ks_edge_";
