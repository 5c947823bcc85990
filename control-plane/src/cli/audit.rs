use clap::Args;
use serde_json::{Value, json};

use super::{CliError, Global, output};
use crate::{audit, domain::UnixMillis};

#[derive(Debug, Args)]
pub(super) struct Audit {
    /// The maximum number of entries, newest first
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

impl Audit {
    pub(super) async fn run(self, global: &Global) -> Result<(), CliError> {
        let entries = audit::list_audit(&global.service().await?, self.limit).await?;
        let data: Vec<Value> = entries
            .iter()
            .map(|entry| {
                json!({
                    "seq": entry.seq,
                    "at": entry.at,
                    "actor": entry.actor,
                    "action": entry.action,
                    "target": entry.target,
                    "detail": entry.detail,
                })
            })
            .collect();
        global.print(&data, || {
            let rows = entries.iter().map(|entry| {
                [
                    entry.seq.to_string(),
                    output::format_time(UnixMillis::from_millis(entry.at)),
                    entry.actor.clone(),
                    entry.action.clone(),
                    entry.target.clone(),
                    entry.detail.to_string(),
                ]
            });
            output::table(["SEQ", "AT", "ACTOR", "ACTION", "TARGET", "DETAIL"], rows.collect())
        })
    }
}
