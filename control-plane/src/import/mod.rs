//! Turns an Envoy configuration with `jwt_authn`, or Istio's policies, into members of the filter's policy and the
//! issuers of the control plane.
//!
//! The source and the policy are compared for *cells* of requests, for which every matcher of the source decides alike.
//! The policy never lets a request pass that the source refuses: what it cannot express, it refuses, and reports.

mod condition;
mod envoy;
mod istio;
mod needs;
mod paths;
mod policy;
mod provider;
mod report;
mod requirement;
mod source;
#[cfg(test)]
mod tests;
mod types;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

pub use report::{Remark, RemarkKind};
pub use source::SourceError;
pub use types::{ImportError, ImportOptions, Imported, ImportedIssuer, IssuerKeys};

use policy::Program;
use provider::{KeySource, Provider};
use report::Report;

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
