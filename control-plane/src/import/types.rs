//! What an import takes and gives.

use serde_json::{Map, Value};

use super::{report::Remark, source::SourceError};

/// How to read the source.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// The listener, if an Envoy configuration has several with `jwt_authn`.
    pub listener: Option<String>,
    /// The namespace of the workload, if Istio's policies have several.
    pub namespace: Option<String>,
    /// The namespace of Istio's policies for all workloads.
    pub root_namespace: String,
    /// The labels of the workload.
    pub labels: Vec<(String, String)>,
    /// Paths that get rules of their own, for requests to them and below them.
    pub paths: Vec<String>,
    /// Whether a prefix such as `/api` matches whole segments only, because no path such as `/apis` exists.
    pub whole_segments: bool,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            listener: None,
            namespace: None,
            root_namespace: "istio-system".to_owned(),
            labels: Vec::new(),
            paths: Vec::new(),
            whole_segments: false,
        }
    }
}

/// The result of an import.
#[derive(Debug)]
pub struct Imported {
    /// Members of the plugin configuration.
    pub policy: Map<String, Value>,
    /// `tokens.leeway_seconds` of the plugin configuration.
    pub leeway_seconds: u64,
    /// Whether the source compares paths ignoring case, so that the policy must have `path_case: "fold"`.
    pub ignores_case: bool,
    pub issuers: Vec<ImportedIssuer>,
    pub remarks: Vec<Remark>,
}

/// An issuer for the settings of the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedIssuer {
    pub issuer: String,
    pub keys: IssuerKeys,
}

/// Where the keys of an issuer are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssuerKeys {
    Url(String),
    File(String),
    /// The key set itself.
    Inline(String),
    /// OpenID Connect Discovery.
    Discovery,
}

/// The reason why a source cannot be imported at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(
        "the file has neither a `jwt_authn` filter nor an Istio RequestAuthentication or AuthorizationPolicy (for the \
         chosen listener or workload)"
    )]
    NothingFound,
    #[error("the file has several lists of filters with `jwt_authn`: {0}; choose one with --listener")]
    SeveralChains(String),
    #[error("the file has policies for {0}")]
    SeveralWorkloads(String),
    #[error("the file has both Kubernetes objects and other documents: import them one by one")]
    Mixed,
    #[error("the file has several documents that are not Kubernetes objects: import them one by one")]
    SeveralDocuments,
    #[error(
        "the file has too many different paths, hosts and methods: divide it by host, and import each part"
    )]
    TooLarge,
    #[error("`{0}` is not a path of literal segments, such as /static")]
    InvalidPath(String),
    #[error(
        "the policy is not valid ({0}): this is an error of the importer, please report it with the source"
    )]
    InvalidPolicy(String),
}
