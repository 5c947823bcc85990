use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::{
    CliError, Global,
    edge_files::{self, Form},
    hint, output,
    paging::{Paging, print_next_page_hint},
    require_yes,
};
use crate::{
    config::ConfigDuration,
    domain::UnixMillis,
    domain::{Actor, EdgeId},
    edges::{self, CredentialSource, EdgeStatus, OldCredentialEnd},
    keys,
    platform::clock,
};

#[derive(Debug, Subcommand)]
pub(super) enum Edge {
    /// Enroll an edge: create its credential, which is shown once, and print the files that its Envoy needs
    ///
    /// By default Envoy itself adds the credential to the requests of the filter, from a file that only Envoy can read
    /// (`credential_injector`): neither the filter nor Envoy's configuration dump contains it, and Envoy reloads the
    /// file when it is replaced.
    Enroll {
        name: EdgeId,
        #[command(flatten)]
        form: Form,
    },
    /// Replace the credential of an edge; the old one stays valid until the new one is used
    ///
    /// The new credential is shown once. With --out it replaces the file, and a running Envoy uses it within about two
    /// seconds.
    Rotate {
        name: EdgeId,
        /// How long the old credential stays valid at most, if the new one is not used
        #[arg(long, default_value = "1h", value_name = "PERIOD")]
        overlap: ConfigDuration,
        /// Keep the old credential valid for the whole of --overlap, because several processes share it
        #[arg(long)]
        shared: bool,
        /// Revoke the old credential at once, because it was stolen
        #[arg(long, conflicts_with_all = ["overlap", "shared"])]
        now: bool,
        /// With --now: confirm the rotation
        #[arg(long)]
        yes: bool,
        /// Write the secret into this folder, like `enroll --out`, instead of printing it
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// List the edges with the version that each enforces, how far it is behind, its age and its workers
    List(Paging),
    /// Remove an edge and revoke its credentials
    ///
    /// A removed edge can fetch nothing more. It keeps what it has: public keys, revocations, and symmetric keys if
    /// there are any (HS256, tags of API keys). The thief of an edge can create credentials with symmetric keys: the
    /// command names them, and `keystile key retire` revokes each.
    Remove {
        name: EdgeId,
        /// Confirm the removal
        #[arg(long)]
        yes: bool,
    },
}

impl Edge {
    pub(super) async fn run(self, global: &Global) -> Result<(), CliError> {
        match self {
            Self::Enroll { name, form } => enroll(global, name, &form).await,
            Self::Rotate { name, overlap, shared, now, yes, out } => {
                let overlap = overlap.get();
                let old = match (now, shared) {
                    (true, _) => OldCredentialEnd::EndsNow,
                    (false, true) => OldCredentialEnd::EndsAfter { overlap },
                    (false, false) => OldCredentialEnd::EndsOnUse { overlap },
                };
                if now || overlap.is_zero() {
                    let what = format_args!("revoke the current credential of edge {name} at once");
                    require_yes(yes, what)?;
                }
                rotate(global, &name, old, out.as_deref()).await
            }
            Self::List(paging) => list(global, paging).await,
            Self::Remove { name, yes } => remove(global, name, yes).await,
        }
    }
}

async fn enroll(global: &Global, name: EdgeId, form: &Form) -> Result<(), CliError> {
    form.prepare()?;
    let enrolled = edges::enroll_edge(&global.service().await?, &Actor::Admin, name).await?;
    let (files, folder) = form.files(&enrolled)?;
    let data = json!({
        "id": enrolled.id.as_str(),
        "credential": enrolled.credential.expose(),
        "plugin_configuration": form.plugin_configuration(&enrolled),
        "files": files.iter().map(|(name, content)| ((*name).to_owned(), json!(content))).collect::<Map<_, _>>(),
        "folder": folder.as_deref().map(|folder| folder.display().to_string()),
    });
    global.print(&data, || match &folder {
        Some(folder) => files.iter().map(|(name, _)| format!("{}\n", folder.join(name).display())).collect(),
        None => files.iter().map(|(name, content)| format!("# --- {name}\n{content}\n")).collect(),
    })?;
    hint(match form.credential_from() {
        CredentialSource::Host => {
            "`credential` is the secret, shown only once: a file that only Envoy may read. `cluster.yaml` refers to \
             `sds.yaml`, which refers to it; `filter.json` is the configuration of the filter. Only `credential` is secret."
        }
        CredentialSource::Environment(_) => {
            "`credential.env` is the secret, shown only once: set that variable for the host, and name it in \
             `vm_config.environment_variables.host_env_keys`. Never use `key_values`, which the configuration dump \
             shows. The host reads it at start."
        }
        CredentialSource::Configuration => {
            "`filter.json` contains the credential, shown only once: anyone who can read the host's configuration or its \
             configuration dump can read it."
        }
    });
    Ok(())
}

async fn rotate(
    global: &Global,
    name: &EdgeId,
    old: OldCredentialEnd,
    out: Option<&Path>,
) -> Result<(), CliError> {
    if let Some(folder) = out.filter(|folder| !folder.is_dir()) {
        return Err(CliError::Message(format!("`{}` is not a folder", folder.display())));
    }
    let rotated = edges::rotate_edge(&global.service().await?, &Actor::Admin, name, old).await?;
    let file = out.map(|folder| edge_files::replace_secret(folder, &rotated.credential)).transpose();
    let file = file.map_err(|error| {
        CliError::Message(format!("cannot write the new secret, which is lost: {error}; rotate again"))
    })?;
    let data = json!({
        "id": name.as_str(),
        "credential": rotated.credential.expose(),
        "old_ends_at": rotated.old_ends_at,
        "old_ends_on_use": matches!(old, OldCredentialEnd::EndsOnUse { .. }),
        "file": file.as_deref().map(|file| file.display().to_string()),
    });
    global.print(&data, || match &file {
        Some(file) => file.display().to_string(),
        None => edge_files::header(&rotated.credential).trim_end().to_owned(),
    })?;
    let ends = output::format_time(UnixMillis::from_seconds(rotated.old_ends_at));
    if file.is_none() {
        hint(
            "This is the content of the credential file, shown only once. Write it to a new file in the same folder, and \
             rename that file over the old one.",
        );
    }
    match old {
        OldCredentialEnd::EndsNow => hint("The old credential is refused from now on."),
        OldCredentialEnd::EndsOnUse { .. } => {
            hint(format_args!(
                "The old credential is valid until the new one is used, at the latest until {ends}."
            ));
        }
        OldCredentialEnd::EndsAfter { .. } => hint(format_args!("The old credential is valid until {ends}.")),
    }
    Ok(())
}

async fn remove(global: &Global, name: EdgeId, yes: bool) -> Result<(), CliError> {
    require_yes(
        yes,
        format_args!("remove edge {name}; its bundle becomes stale, and then it refuses all requests"),
    )?;
    let service = global.service().await?;
    let symmetric = keys::symmetric_keys(&service).await?;
    edges::remove_edge(&service, &Actor::Admin, &name).await?;
    global
        .print(&json!({ "id": name.as_str(), "symmetric_keys": symmetric }), || format!("removed {name}"))?;
    hint("The edge can fetch nothing more; its own clock ends what it admits.");
    if symmetric.is_empty() {
        hint("It has no key that can create credentials.");
    } else {
        hint("It has keys that can create credentials for any user of any operator. Retire each with:");
        for kid in &symmetric {
            hint(format_args!("  keystile key retire {kid} --yes"));
        }
    }
    Ok(())
}

async fn list(global: &Global, paging: Paging) -> Result<(), CliError> {
    let list = edges::list_edges(&global.service().await?, &paging.page()?).await?;
    let now = clock::now();
    let age = |status: &EdgeStatus| {
        let signed = edges::bundle_time(status.edge.report?)?;
        Some(now.millis().saturating_sub(signed.millis()) / 1000)
    };
    // An edge without a bundle reports version 0.
    let held = |status: &EdgeStatus| status.edge.report.filter(|report| report.version.get() > 0);
    let data: Vec<Value> = list
        .edges
        .iter()
        .map(|status| {
            let report = status.edge.report;
            let workers = report.and_then(|report| report.workers);
            json!({
                "id": status.edge.id.as_str(),
                "enrolled_at": status.edge.enrolled_at,
                "last_seen_at": status.edge.last_seen_at,
                "rotated_at": status.edge.rotated_at,
                "old_credential_ends_at": status.edge.old_credential_ends_at.filter(|ends| *ends > now.seconds()),
                "state": status.state.name(),
                "version": held(status).map(|report| report.version),
                "enforces": held(status).map(|report| report.enforces()),
                "current": list.is_current(status),
                "behind": status.behind,
                "age_seconds": age(status),
                "workers": workers.map(|workers| workers.count),
                "workers_lagging": workers.map(|workers| workers.lagging),
                "kept_streams": workers.map(|workers| workers.kept_streams),
            })
        })
        .collect();
    global.print(&data, || {
        let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
        let rows = list.edges.iter().map(|status| {
            let report = status.edge.report;
            let workers = report.and_then(|report| report.workers).map_or("-".to_owned(), |workers| {
                match workers.lagging {
                    0 => workers.count.to_string(),
                    lagging => format!("{} ({lagging} behind)", workers.count),
                }
            });
            [
                status.edge.id.to_string(),
                status.state.name().to_owned(),
                number(held(status).map(|report| report.enforces().get())),
                number(status.behind),
                age(status).map_or("-".to_owned(), |age| format!("{age}s")),
                workers,
                output::format_optional_seconds(status.edge.last_seen_at),
            ]
        });
        output::table(["NAME", "STATE", "ENFORCES", "BEHIND", "AGE", "WORKERS", "LAST SEEN"], rows.collect())
    })?;
    print_next_page_hint(list.next.as_deref());
    Ok(())
}
