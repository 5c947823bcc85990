//! Turns an Envoy configuration with `jwt_authn`, or Istio's policies, into members of the filter's policy and the
//! issuers of the control plane.
//!
//! The source and the policy are compared for *cells* of requests, for which every matcher of the source decides alike.
//! The policy never lets a request pass that the source refuses: what it cannot express, it refuses, and reports.

mod condition;
mod envoy;
mod istio;
mod paths;
mod policy;
mod report;
mod requirement;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

pub use report::{Remark, RemarkKind};
pub use source::SourceError;

use condition::{Condition, Lost, Needs, Test, TokenTest};
use policy::Program;
use report::Report;
use requirement::{KeySource, Provider};

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

/// Imports a YAML or JSON text.
///
/// # Errors
///
/// The path and what is wrong there if the source is not valid, or if it is not clear what to import.
pub fn import(text: &str, options: &ImportOptions) -> Result<Imported, ImportError> {
    let documents = source::parse_documents(text)?;
    let mut report = Report::default();
    let objects = documents.iter().filter(|document| istio::is_object(document)).count();
    let mut program = match (documents.as_slice(), objects) {
        ([], _) => return Err(ImportError::NothingFound),
        ([document], 0) => envoy::read(document, options, &mut report)?,
        (_, 0) => return Err(ImportError::SeveralDocuments),
        (all, objects) if objects == all.len() => istio::read(all, options, &mut report)?,
        _ => return Err(ImportError::Mixed),
    };
    for path in &options.paths {
        let template = paths::Template::below(path.trim_end_matches('/'));
        program.templates.push(template.ok_or_else(|| ImportError::InvalidPath(path.clone()))?);
    }
    if options.whole_segments {
        report.note(
            "",
            "prefixes match whole segments, as --whole-segments demands",
            "paths such as `/apis` and `/api.json` beside a prefix `/api` are treated as other paths",
            "make sure that no such path exists, nor that a framework reads one as `/api`",
        );
    }
    let policy = program.policy(&mut report)?;
    let leeway_seconds = program.leeway_seconds().unwrap_or(envoy::DEFAULT_LEEWAY_SECONDS);
    check(&policy)?;
    let issuers = issuers(&program, &policy);
    let ignores_case = program.ignores_case;
    Ok(Imported { policy, leeway_seconds, ignores_case, issuers, remarks: report.into_remarks() })
}

/// Checks the policy with the parser of the filter.
fn check(policy: &Map<String, Value>) -> Result<(), ImportError> {
    let mut whole = policy.clone();
    let required = json!({
        "audience": "import",
        "root_keys": ["11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"],
        "control_plane": { "cluster": "keystile" },
        "tokens": { "issuer": "urn:keystile:import", "audiences": ["import"] },
    });
    whole.extend(required.as_object().cloned().unwrap_or_default());
    let text = Value::Object(whole).to_string();
    verdict::Policy::from_json(text.as_bytes())
        .map_err(|error| ImportError::InvalidPolicy(error.to_string()))?;
    Ok(())
}

/// Returns the issuers that the policy has, once each.
fn issuers(program: &Program, policy: &Map<String, Value>) -> Vec<ImportedIssuer> {
    let used: BTreeSet<&str> = policy
        .get("issuers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|issuer| issuer.get("issuer")?.as_str())
        .collect();
    let mut seen = BTreeSet::new();
    let is_first = |provider: &&Provider| {
        !provider.subjects.is_empty()
            && used.contains(provider.issuer.as_str())
            && seen.insert(provider.issuer.clone())
    };
    let providers = program.providers.iter().filter(is_first);
    providers
        .map(|provider| ImportedIssuer {
            issuer: provider.issuer.clone(),
            keys: match &provider.keys {
                KeySource::Url(url) => IssuerKeys::Url(url.clone()),
                KeySource::File(file) => IssuerKeys::File(file.clone()),
                KeySource::Inline(text) => IssuerKeys::Inline(text.clone()),
                KeySource::Discovery => IssuerKeys::Discovery,
            },
        })
        .collect()
}

/// Returns alternatives of what a token must have so that its subject matches, or none if the policy cannot express it.
fn subject_needs(at: &str, test: TokenTest, report: &mut Report) -> Vec<Needs> {
    let any = Provider::for_subjects();
    let path = paths::Template::everything();
    let cell = condition::Cell { path: &path, host: &None, method: None };
    let needs = Condition::test(at, Test::Token(test)).needs(true, cell, Some(&any), &mut Lost::new());
    if needs.is_empty() {
        report.dropped(
            at,
            "a form of subject that the policy cannot express",
            "the policy refuses the tokens of this provider",
            "use `exact`, or a prefix that ends with `/`, `:` or another character that is not a letter or digit",
        );
    }
    needs
}
