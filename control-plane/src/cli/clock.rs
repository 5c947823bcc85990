use clap::Subcommand;
use serde_json::json;

use super::{Failure, Global, confirmed, hint, show};
use crate::{
    clock::Time,
    model::Actor,
    operations::{self, ClockRepaired},
};

#[derive(Debug, Subcommand)]
pub(super) enum Clock {
    /// Take back what a clock that was ahead has left: watermarks and a base that lie in the future, and keep everything
    /// they cover from being issued. What was issued by now stays refused
    Repair {
        /// Do it without asking back
        #[arg(long)]
        yes: bool,
        /// Although no other clock (the database server's, those of live edges) says that this one is right
        #[arg(long)]
        force: bool,
    },
}

impl Clock {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let Self::Repair { yes, force } = self;
        confirmed(yes, "bring watermarks that lie in the future back to now")?;
        let service = global.service().await?;
        let ClockRepaired { version, watermarks, revoked, covered, unexpired } =
            operations::repair_clock(&service, &Actor::Admin, force).await?;
        let lowered: Vec<_> = watermarks
            .iter()
            .map(|(scope, instant)| json!({ "scope": scope.to_string(), "instant": instant }))
            .collect();
        let data = json!({ "version": version, "watermarks": lowered, "revoked": revoked, "covered": covered, "unexpired": unexpired.iter().map(ToString::to_string).collect::<Vec<_>>() });
        global.print(&data, || {
            let mut lines: Vec<String> = watermarks
                .iter()
                .map(|(scope, instant)| {
                    format!("watermark of {scope}: from {} to now", show::time(Time::from_seconds(*instant)))
                })
                .collect();
            lines.extend(covered.iter().map(|kid| format!("base of {kid}: to be built anew")));
            lines.extend(unexpired.iter().map(|id| format!("API key {id}: not expired yet, and good again")));
            if lines.is_empty() {
                lines.push("nothing lies in the future".to_owned());
            }
            lines.join("\n")
        })?;
        if revoked > 0 {
            hint(format_args!("{revoked} credentials that are dated later are refused by fingerprint."));
        }
        hint(format_args!("Edges know it from version {version} on."));
        Ok(())
    }
}
