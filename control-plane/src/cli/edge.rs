use clap::Subcommand;
use serde_json::{Value, json};

use super::{Failure, Global, confirmed, hint, show};
use crate::{
    clock::Time,
    model::{Actor, EdgeId},
    operations,
};

#[derive(Debug, Subcommand)]
pub(super) enum Edge {
    /// Give an edge its credential, shown once in the configuration of its filter
    Enroll { name: EdgeId },
    /// List the edges, when they were last seen and what they have
    List,
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
            Self::List => list(global).await,
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

async fn list(global: &Global) -> Result<(), Failure> {
    let edges = operations::list_edges(&global.service().await?).await?;
    let data: Vec<Value> = edges
        .iter()
        .map(|edge| {
            json!({
                "id": edge.id.as_str(),
                "enrolled_at": edge.enrolled_at,
                "last_seen_at": edge.last_seen_at,
                "version": edge.version,
                "status": edge.status,
            })
        })
        .collect();
    global.print(&data, || {
        let rows = edges.iter().map(|edge| {
            [
                edge.id.to_string(),
                show::time(Time::from_seconds(edge.enrolled_at)),
                show::optional_seconds(edge.last_seen_at),
                edge.version.map_or(String::new(), |version| version.to_string()),
                edge.status.clone().unwrap_or_default(),
            ]
        });
        show::table(["NAME", "ENROLLED", "LAST SEEN", "VERSION", "STATUS"], rows.collect())
    })
}
