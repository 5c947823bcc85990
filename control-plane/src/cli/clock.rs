use clap::Subcommand;
use serde_json::json;

use super::{CliError, Global, hint, output, require_yes};
use crate::{
    domain::Actor,
    domain::UnixMillis,
    maintenance::{self, ClockRepair},
};

#[derive(Debug, Subcommand)]
pub(super) enum Clock {
    /// Repair the effects of a clock that was ahead
    ///
    /// Moves watermarks and base coverage from the future back to now; they would keep credentials from being issued.
    /// Credentials that were issued until now stay refused.
    Repair {
        /// Confirm the repair
        #[arg(long)]
        yes: bool,
        /// Repair even if no other clock (the database server's or a live edge's) confirms the clock of this machine
        #[arg(long)]
        force: bool,
    },
}

impl Clock {
    pub(super) async fn run(self, global: &Global) -> Result<(), CliError> {
        let Self::Repair { yes, force } = self;
        require_yes(yes, "move watermarks from the future back to now")?;
        let service = global.service().await?;
        let ClockRepair { version, watermarks, revoked, covered, unexpired } =
            maintenance::repair_clock(&service, &Actor::Admin, force).await?;
        let lowered: Vec<_> = watermarks
            .iter()
            .map(|(scope, instant)| json!({ "scope": scope.to_string(), "instant": instant }))
            .collect();
        let data = json!({ "version": version, "watermarks": lowered, "revoked": revoked, "covered": covered, "unexpired": unexpired.iter().map(ToString::to_string).collect::<Vec<_>>() });
        global.print(&data, || {
            let mut lines: Vec<String> = watermarks
                .iter()
                .map(|(scope, instant)| {
                    format!(
                        "watermark of {scope}: from {} to now",
                        output::format_time(UnixMillis::from_seconds(*instant))
                    )
                })
                .collect();
            lines.extend(covered.iter().map(|kid| format!("base of {kid}: will be rebuilt")));
            lines.extend(unexpired.iter().map(|id| format!("API key {id}: not expired yet, valid again")));
            if lines.is_empty() {
                lines.push("no watermark or base coverage is in the future".to_owned());
            }
            lines.join("\n")
        })?;
        if revoked > 0 {
            hint(format_args!("{revoked} credentials with a later issue time are refused by fingerprint."));
        }
        hint(format_args!("Edges apply this from version {version} on."));
        Ok(())
    }
}
