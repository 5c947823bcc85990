use clap::Args;
use serde_json::json;
use token::Fingerprint;

use super::{Failure, Global, confirmed, hint};
use crate::{model::Actor, operations};

#[derive(Debug, Args)]
pub(super) struct Unrevoke {
    /// The SHA-256 of the credential as presented, in hex
    #[arg(long, value_name = "HEX")]
    fingerprint: Fingerprint,
    /// Take it back without asking back
    #[arg(long)]
    yes: bool,
}

impl Unrevoke {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let Self { fingerprint, yes } = self;
        confirmed(yes, format_args!("make the credential with fingerprint {fingerprint} good again"))?;
        let done = operations::unrevoke(&global.service().await?, &Actor::Admin, &fingerprint).await?;
        let data = json!({
            "version": done.version,
            "fingerprint": fingerprint.to_string(),
            "refused_by_watermark": done.watermark,
        });
        global.print(&data, || format!("no longer revoked: {fingerprint}"))?;
        if done.watermark {
            hint("A watermark of its subject, AuthKey, session or signing key refuses it all the same.");
        }
        Ok(())
    }
}
