use clap::Args;
use serde_json::json;

use super::{CliError, Global, hint};
use crate::{
    config,
    installation::{ExistingKeysPolicy, NewInstallation, initialize_new},
    platform::clock::Clock,
};

#[derive(Debug, Args)]
pub(super) struct Init {
    /// The algorithm that signs tokens; by default `tokens.algorithm` of the settings (EdDSA)
    #[arg(long)]
    algorithm: Option<config::Algorithm>,
    /// Create a new database even if keys exist; revocations of the old database are lost
    #[arg(long)]
    yes: bool,
}

impl Init {
    pub(super) async fn run(self, global: &Global) -> Result<(), CliError> {
        let data_dir = global.data_dir();
        let mut config = global.settings()?;
        config.tokens.algorithm = self.algorithm.unwrap_or(config.tokens.algorithm);
        let beside_keys = if self.yes { ExistingKeysPolicy::Accepted } else { ExistingKeysPolicy::Refused };
        let NewInstallation { operator, auth_key, secret, root_key } =
            initialize_new(&data_dir, &config, &Clock::System, beside_keys).await?;
        let data = json!({
            "operator_id": operator.as_str(),
            "auth_key_id": auth_key.as_str(),
            "auth_key": secret.expose(),
            "root_key": root_key,
        });
        global.print(&data, || {
            format!(
                "operator       {operator}\nAuthKey id     {auth_key}\nAuthKey        {}\nroot key       {root_key}",
                secret.expose()
            )
        })?;
        hint("The AuthKey is shown only once: store it. Next: `keystile serve`.");
        Ok(())
    }
}
