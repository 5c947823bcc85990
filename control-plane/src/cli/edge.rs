use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    Failure, Global, confirmed, hint,
    paging::{Paging, more},
    show,
};
use crate::{
    clock,
    model::{Actor, EdgeId},
    operations::{self, Member},
};

#[derive(Debug, Subcommand)]
pub(super) enum Edge {
    /// Give an edge its credential, shown once in the configuration of its filter
    Enroll { name: EdgeId },
    /// List the edges: which version each enforces, how many changes behind, how old, with how many workers
    List(Paging),
    /// Refuse an edge from now on
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
            Self::Enroll { name } => enroll(global, name).await,
            Self::List(paging) => list(global, paging).await,
            Self::Remove { name, yes } => {
                confirmed(
                    yes,
                    format_args!("refuse edge {name}; what it has goes stale, and then it admits nobody"),
                )?;
                operations::remove_edge(&global.service().await?, &Actor::Admin, &name).await?;
                global.print(&json!({ "id": name.as_str() }), || format!("removed {name}"))
            }
        }
    }
}

async fn enroll(global: &Global, name: EdgeId) -> Result<(), Failure> {
    let enrolled = operations::enroll_edge(&global.service().await?, &Actor::Admin, name).await?;
    let configuration = enrolled.plugin_configuration();
    let data = json!({
        "id": enrolled.id.as_str(),
        "credential": enrolled.credential.expose(),
        "plugin_configuration": configuration,
    });
    global.print(&data, || serde_json::to_string_pretty(&configuration).unwrap_or_default())?;
    hint(
        "This is the configuration of the filter. Its credential is shown this once: keep it where only the proxy reads.",
    );
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
