use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::{
    Failure, Global, confirmed,
    edge_files::{self, Form},
    hint,
    paging::{Paging, more},
    show,
};
use crate::{
    clock::{self, Time},
    config::Period,
    model::{Actor, EdgeId},
    operations::{self, CredentialFrom, Member, OldCredential},
};

#[derive(Debug, Subcommand)]
pub(super) enum Edge {
    /// Give an edge its credential, shown once, and print what its Envoy needs
    ///
    /// By default Envoy itself adds the credential to what the filter sends, from a file that only Envoy reads
    /// (`credential_injector`): neither the filter nor Envoy's configuration dump has it, and a new file in its place is
    /// used at once.
    Enroll {
        name: EdgeId,
        #[command(flatten)]
        form: Form,
    },
    /// Give an edge another credential, shown once; the old one is good until the new one is used
    ///
    /// With --out the new file takes the place of the old one, and a running Envoy uses it within a second or two.
    Rotate {
        name: EdgeId,
        /// How long the old credential is good at most, if the new one is not used
        #[arg(long, default_value = "1h", value_name = "PERIOD")]
        overlap: Period,
        /// Several processes share the credential: the old one is good for the whole of --overlap
        #[arg(long)]
        shared: bool,
        /// The old credential ends at once: it was stolen
        #[arg(long, conflicts_with_all = ["overlap", "shared"])]
        now: bool,
        /// With --now: rotate without asking back
        #[arg(long)]
        yes: bool,
        /// Write the secret into this folder, as `enroll --out` did, instead of printing it
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// List the edges: which version each enforces, how many changes behind, how old, with how many workers
    List(Paging),
    /// Refuse an edge from now on
    ///
    /// Its credentials end at once. If it was stolen, that ends all it can fetch. What it holds already are public keys
    /// and revocations, and the symmetric keys there are (HS256, tags of API keys), with which its thief can make
    /// credentials: the command names them, and `keystile key retire` ends each.
    Remove {
        name: EdgeId,
        /// Remove without asking back
        #[arg(long)]
        yes: bool,
    },
}

impl Edge {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Enroll { name, form } => enroll(global, name, &form).await,
            Self::Rotate { name, overlap, shared, now, yes, out } => {
                let overlap = overlap.get();
                let old = match (now, shared) {
                    (true, _) => OldCredential::EndsNow,
                    (false, true) => OldCredential::EndsAfter { overlap },
                    (false, false) => OldCredential::EndsOnUse { overlap },
                };
                if now || overlap.is_zero() {
                    let what = format_args!("refuse the credential that edge {name} has, at once");
                    confirmed(yes, what)?;
                }
                rotate(global, &name, old, out.as_deref()).await
            }
            Self::List(paging) => list(global, paging).await,
            Self::Remove { name, yes } => remove(global, name, yes).await,
        }
    }
}

async fn enroll(global: &Global, name: EdgeId, form: &Form) -> Result<(), Failure> {
    form.prepare()?;
    let enrolled = operations::enroll_edge(&global.service().await?, &Actor::Admin, name).await?;
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
        CredentialFrom::Host => {
            "`credential` is the secret, shown this once: a file that only Envoy reads. Envoy finds it by `sds.yaml`, \
             which `cluster.yaml` names; `filter.json` is the configuration of the filter. The last three hold no secret."
        }
        CredentialFrom::Environment(_) => {
            "`credential.env` is the secret, shown this once: set that variable for the host, and name it in \
             `vm_config.environment_variables.host_env_keys`. Never use `key_values`, which the configuration dump \
             shows. It is read when the host starts."
        }
        CredentialFrom::Configuration => {
            "`filter.json` holds the credential, shown this once: whoever reads the host's configuration, or its \
             configuration dump, has it."
        }
    });
    Ok(())
}

async fn rotate(
    global: &Global,
    name: &EdgeId,
    old: OldCredential,
    out: Option<&Path>,
) -> Result<(), Failure> {
    if let Some(folder) = out.filter(|folder| !folder.is_dir()) {
        return Err(Failure::Because(format!("`{}` is no folder", folder.display())));
    }
    let rotated = operations::rotate_edge(&global.service().await?, &Actor::Admin, name, old).await?;
    let file = out.map(|folder| edge_files::replace_secret(folder, &rotated.credential)).transpose();
    let file = file.map_err(|error| {
        Failure::Because(format!("the new secret could not be written, and is lost: {error}; rotate again"))
    })?;
    let data = json!({
        "id": name.as_str(),
        "credential": rotated.credential.expose(),
        "old_ends_at": rotated.old_ends_at,
        "old_ends_on_use": matches!(old, OldCredential::EndsOnUse { .. }),
        "file": file.as_deref().map(|file| file.display().to_string()),
    });
    global.print(&data, || match &file {
        Some(file) => file.display().to_string(),
        None => edge_files::header(&rotated.credential).trim_end().to_owned(),
    })?;
    let ends = show::time(Time::from_seconds(rotated.old_ends_at));
    if file.is_none() {
        hint(
            "This is the content of the file with the secret, shown this once. Write it to another file in the same \
             folder, and rename that over the old one.",
        );
    }
    match old {
        OldCredential::EndsNow => hint("The old one is refused from now on."),
        OldCredential::EndsOnUse { .. } => {
            hint(format_args!("The old one is good until the new one is used, {ends} at the latest."));
        }
        OldCredential::EndsAfter { .. } => hint(format_args!("The old one is good until {ends}.")),
    }
    Ok(())
}

async fn remove(global: &Global, name: EdgeId, yes: bool) -> Result<(), Failure> {
    confirmed(yes, format_args!("refuse edge {name}; what it has goes stale, and then it admits nobody"))?;
    let service = global.service().await?;
    let symmetric = operations::symmetric_keys(&service).await?;
    operations::remove_edge(&service, &Actor::Admin, &name).await?;
    global
        .print(&json!({ "id": name.as_str(), "symmetric_keys": symmetric }), || format!("removed {name}"))?;
    hint("If it was stolen: it fetches nothing any more, and its own clock ends what it admits.");
    if symmetric.is_empty() {
        hint("Nothing that it holds can make a credential.");
    } else {
        hint("It holds keys that can make credentials for any user of any operator. Each ends with:");
        for kid in &symmetric {
            hint(format_args!("  keystile key retire {kid} --yes"));
        }
    }
    Ok(())
}

async fn list(global: &Global, paging: Paging) -> Result<(), Failure> {
    let fleet = operations::list_edges(&global.service().await?, &paging.page()?).await?;
    let now = clock::now();
    let age = |member: &Member| {
        let signed = operations::bundle_of(member.edge.report?)?;
        Some(now.millis().saturating_sub(signed.millis()) / 1000)
    };
    // One that has no bundle yet holds version 0.
    let held = |member: &Member| member.edge.report.filter(|report| report.version > 0);
    let data: Vec<Value> = fleet
        .members
        .iter()
        .map(|member| {
            let report = member.edge.report;
            let workers = report.and_then(|report| report.workers);
            json!({
                "id": member.edge.id.as_str(),
                "enrolled_at": member.edge.enrolled_at,
                "last_seen_at": member.edge.last_seen_at,
                "rotated_at": member.edge.rotated_at,
                "old_credential_ends_at": member.edge.old_credential_ends_at.filter(|ends| *ends > now.seconds()),
                "state": member.state.name(),
                "version": held(member).map(|report| report.version),
                "enforces": held(member).map(|report| report.enforces()),
                "current": fleet.is_current(member),
                "behind": member.behind,
                "age_seconds": age(member),
                "workers": workers.map(|workers| workers.count),
                "workers_lagging": workers.map(|workers| workers.lagging),
            })
        })
        .collect();
    global.print(&data, || {
        let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
        let rows = fleet.members.iter().map(|member| {
            let report = member.edge.report;
            let workers = report.and_then(|report| report.workers).map_or("-".to_owned(), |workers| {
                match workers.lagging {
                    0 => workers.count.to_string(),
                    lagging => format!("{} ({lagging} behind)", workers.count),
                }
            });
            [
                member.edge.id.to_string(),
                member.state.name().to_owned(),
                number(held(member).map(|report| report.enforces())),
                number(member.behind),
                age(member).map_or("-".to_owned(), |age| format!("{age}s")),
                workers,
                show::optional_seconds(member.edge.last_seen_at),
            ]
        });
        show::table(["NAME", "STATE", "ENFORCES", "BEHIND", "AGE", "WORKERS", "LAST SEEN"], rows.collect())
    })?;
    more(fleet.next.as_deref());
    Ok(())
}
