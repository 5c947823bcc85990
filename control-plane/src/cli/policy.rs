use std::{
    fs, io,
    path::{self, Path, PathBuf},
};

use clap::Subcommand;
use serde_json::{Map, Value, json};
use toml::{Table, Value as TomlValue};

use super::{CliError, EXIT_NOT_CARRIED_OVER, Global, hint, output, write_stdout};
use crate::{
    import::{self, ImportOptions, Imported, ImportedIssuer, IssuerKeys, Remark, RemarkKind},
    platform::data_dir,
};

#[derive(Debug, Subcommand)]
pub(super) enum Policy {
    /// Turn an Envoy configuration with jwt_authn, or Istio's policies, into a policy of the filter
    Import(Import),
}

#[derive(Debug, clap::Args)]
pub(super) struct Import {
    /// YAML or JSON: an Envoy configuration or a part of it, or Istio's RequestAuthentication and AuthorizationPolicy;
    /// `-` for stdin
    file: PathBuf,
    /// Write the policy to this file instead of stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Add the policy to this plugin configuration, such as the filter.json of `keystile edge enroll`
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// Write the `[[issuers]]` sections for keystile.toml to this file instead of stderr
    #[arg(long, value_name = "FILE")]
    issuers: Option<PathBuf>,
    /// Exit with 0 even if something is not carried over
    #[arg(long)]
    allow_partial: bool,
    /// The listener, if the configuration has several with jwt_authn
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// The namespace of the workload, if the policies have several
    #[arg(long)]
    namespace: Option<String>,
    /// The namespace of policies for all workloads
    #[arg(long, value_name = "NAMESPACE", default_value = "istio-system")]
    root_namespace: String,
    /// A label of the workload, if the policies have several selectors
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// A path that gets a rule of its own, with all paths below it, beside prefixes that end within a segment
    #[arg(long = "path", value_name = "PATH")]
    paths: Vec<String>,
    /// Let prefixes such as /api match whole segments only: declares that no path such as /apis or /api.json exists
    #[arg(long)]
    whole_segments: bool,
}

impl Policy {
    pub(super) fn run(self, global: &Global) -> Result<(), CliError> {
        match self {
            Self::Import(import) => import.run(global),
        }
    }
}

impl Import {
    fn run(self, global: &Global) -> Result<(), CliError> {
        let Self { file, output, base, issuers, allow_partial, listener, namespace, .. } = self;
        let (root_namespace, labels, paths) = (self.root_namespace, self.labels, self.paths);
        let whole_segments = self.whole_segments;
        let text = if file == Path::new("-") {
            io::read_to_string(io::stdin())?
        } else {
            fs::read_to_string(&file).map_err(|error| failure(&file, "read", &error))?
        };
        let options = ImportOptions { listener, namespace, root_namespace, labels, paths, whole_segments };
        let imported = import::import(&text, &options)?;
        let mut remarks = imported.remarks.clone();
        let toml = issuer_sections(&imported.issuers, &mut remarks)?;
        let policy = match &base {
            Some(file) => merged(file, &imported)?,
            None => {
                remarks.push(note_on_base(&imported));
                imported.policy
            }
        };
        let text = serde_json::to_string_pretty(&policy)? + "\n";
        for (file, text) in [(&output, &text), (&issuers, &toml)] {
            if let Some(file) = file {
                let written = path::absolute(file)
                    .and_then(|file| data_dir::replace_atomically(&file, text.as_bytes()));
                written.map_err(|error| failure(file, "write", &error))?;
            }
        }
        if global.json {
            let data = json!({ "policy": policy, "issuers": toml, "remarks": remarks });
            global.print(&data, String::new)?;
        } else if output.is_none() {
            write_stdout(&text)?;
        }
        for remark in &remarks {
            hint(output::printable(&remark.to_string()));
        }
        if issuers.is_none() && !global.json && !toml.is_empty() {
            hint(format_args!("\nAdd to keystile.toml:\n\n{}", toml.trim_end()));
        }
        let dropped = remarks.iter().filter(|remark| remark.kind == RemarkKind::NotCarriedOver).count();
        if dropped > 0 && !allow_partial {
            return Err(CliError::Incomplete {
                code: EXIT_NOT_CARRIED_OVER,
                message: format!(
                    "{dropped} parts of the source are not carried over. The policy refuses the requests for which they \
                     decide; --allow-partial accepts that."
                ),
            });
        }
        Ok(())
    }
}

fn failure(file: &Path, action: &str, error: &io::Error) -> CliError {
    CliError::Message(format!("cannot {action} `{}`: {error}", file.display()))
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn note_on_base(imported: &Imported) -> Remark {
    Remark {
        path: ".".to_owned(),
        kind: RemarkKind::Note,
        what: "the policy has no `audience`, `root_keys`, `control_plane` and `tokens`".to_owned(),
        effect: format!(
            "a plugin configuration needs them, and `tokens.leeway_seconds` must be {} for the clock skew of the source",
            imported.leeway_seconds
        ),
        advice: "name the filter.json of `keystile edge enroll` with --base, or add the members to it"
            .to_owned(),
    }
}

/// Adds the policy to a plugin configuration.
fn merged(file: &Path, imported: &Imported) -> Result<Map<String, Value>, CliError> {
    let text = fs::read_to_string(file).map_err(|error| failure(file, "read", &error))?;
    let invalid = || CliError::Message(format!("`{}` is not a JSON object", file.display()));
    let Ok(Value::Object(mut members)) = serde_json::from_str(&text) else { return Err(invalid()) };
    if imported.ignores_case && members.get("path_case").is_some_and(|case| case != "fold") {
        return Err(CliError::Message(format!(
            "`{}` has `path_case: \"exact\"`, but the source compares paths ignoring case: remove the member, so that the \
             policy refuses other spellings",
            file.display()
        )));
    }
    for (name, value) in &imported.policy {
        match members.get(name) {
            None => {
                members.insert(name.clone(), value.clone());
            }
            Some(known) if known == value => {}
            Some(_) => {
                return Err(CliError::Message(format!(
                    "`{}` has the member `{name}` already: remove it, or merge the policy by hand",
                    file.display()
                )));
            }
        }
    }
    if let Some(tokens) = members.get_mut("tokens").and_then(Value::as_object_mut) {
        tokens.insert("leeway_seconds".to_owned(), json!(imported.leeway_seconds));
    }
    Ok(members)
}

/// Returns the `[[issuers]]` sections. A section that the control plane would refuse is commented out.
fn issuer_sections(issuers: &[ImportedIssuer], remarks: &mut Vec<Remark>) -> Result<String, CliError> {
    let mut sections = String::new();
    for ImportedIssuer { issuer, keys } in issuers {
        let mut section = Table::new();
        section.insert("issuer".to_owned(), TomlValue::from(issuer.as_str()));
        let (member, fetched) = match keys {
            IssuerKeys::Discovery => (None, Some(issuer)),
            IssuerKeys::Url(url) => (Some(("jwks_url", url)), Some(url)),
            IssuerKeys::File(file) => (Some(("jwks_file", file)), None),
            IssuerKeys::Inline(set) => (Some(("jwks", set)), None),
        };
        section.extend(member.map(|(name, value)| (name.to_owned(), TomlValue::from(value.as_str()))));
        let mut text = format!("[[issuers]]\n{}", toml::to_string(&section)?);
        if fetched.is_some_and(|url| !crate::config::is_allowed_url(url, false)) {
            text = text.lines().map(|line| format!("# {line}\n")).collect();
            remarks.push(Remark {
                path: issuer.clone(),
                kind: RemarkKind::NotCarriedOver,
                what: "its keys are not at an https URL".to_owned(),
                effect: "the section is commented out, the control plane has no keys of the issuer, and edges refuse its \
                         tokens"
                    .to_owned(),
                advice: "name an https URL in `jwks_url`, or set `allow_http = true` if the network is trusted".to_owned(),
            });
        }
        sections += &text;
        sections.push('\n');
    }
    Ok(sections)
}
