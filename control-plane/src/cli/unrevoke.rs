use clap::Args;
use serde_json::json;
use token::Fingerprint;

use super::{CliError, Global, hint, require_yes};
use crate::{model::Actor, operations};

#[derive(Debug, Args)]
pub(super) struct Unrevoke {
    /// The SHA-256 of the credential as presented, in hex
    #[arg(long, value_name = "HEX")]
    fingerprint: Fingerprint,
    /// Confirm the command
    #[arg(long)]
    yes: bool,
}

impl Unrevoke {
    pub(super) async fn run(self, global: &Global) -> Result<(), CliError> {
        let Self { fingerprint, yes } = self;
        require_yes(
            yes,
            format_args!("undo the revocation of the credential with fingerprint {fingerprint}"),
        )?;
        let done = operations::unrevoke(&global.service().await?, &Actor::Admin, &fingerprint).await?;
        let data = json!({
            "version": done.version,
            "fingerprint": fingerprint.to_string(),
            "refused_by_watermark": done.watermark,
        });
        global.print(&data, || format!("no longer revoked: {fingerprint}"))?;
        if done.watermark {
            hint("A watermark of its subject, AuthKey, session or signing key still refuses it.");
        }
        Ok(())
    }
}
