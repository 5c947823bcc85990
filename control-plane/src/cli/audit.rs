use clap::Args;
use serde_json::{Value, json};

use super::{Failure, Global, show};
use crate::{clock::Time, operations};

#[derive(Debug, Args)]
pub(super) struct Audit {
    /// How many lines, the newest first
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

impl Audit {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let lines = operations::list_audit(&global.service().await?, self.limit).await?;
        let data: Vec<Value> = lines
            .iter()
            .map(|line| {
                json!({
                    "seq": line.seq,
                    "at": line.at,
                    "actor": line.actor,
                    "action": line.action,
                    "target": line.target,
                    "detail": line.detail,
                })
            })
            .collect();
        global.print(&data, || {
            let rows = lines.iter().map(|line| {
                [
                    line.seq.to_string(),
                    show::time(Time::from_millis(line.at)),
                    line.actor.clone(),
                    line.action.clone(),
                    line.target.clone(),
                    line.detail.to_string(),
                ]
            });
            show::table(["SEQ", "AT", "ACTOR", "ACTION", "TARGET", "DETAIL"], rows.collect())
        })
    }
}
