use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde_json::json;

use super::{CliError, Global, hint, output};
use crate::{
    domain::Actor,
    domain::UnixMillis,
    keys::{
        self,
        publisher_keys::{self, DelegatedKey},
    },
};

#[derive(Debug, Subcommand)]
pub(super) enum Authority {
    /// Show the root key that edges pin, and the keys it has delegated to
    Show,
    /// Replace a delegated key; running servers and edges continue without interruption
    Rotate {
        key: KeyToRotate,
        /// The file of the root key, if it is not in the data folder
        #[arg(long, value_name = "FILE")]
        root_key: Option<PathBuf>,
    },
    /// Sign a new delegation for the same keys, before the old one expires or for another audience
    Renew {
        /// The file of the root key, if it is not in the data folder
        #[arg(long, value_name = "FILE")]
        root_key: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum KeyToRotate {
    /// The key that signs checkpoints: the base, un-revocations, the removal of watermarks
    Snapshot,
    /// The key that signs manifests: new revocations and watermarks
    Tail,
}

impl Authority {
    pub(super) async fn run(self, global: &Global) -> Result<(), CliError> {
        match self {
            Self::Show => {
                let audience = global.settings()?.publisher.audience;
                print(global, &publisher_keys::PublisherKeys::open(&global.data_dir(), &audience)?)
            }
            Self::Rotate { key, root_key } => {
                let role = match key {
                    KeyToRotate::Snapshot => DelegatedKey::Snapshot,
                    KeyToRotate::Tail => DelegatedKey::Tail,
                };
                renew(global, Some(role), root_key).await
            }
            Self::Renew { root_key } => renew(global, None, root_key).await,
        }
    }
}

async fn renew(
    global: &Global,
    replace: Option<DelegatedKey>,
    root_key: Option<PathBuf>,
) -> Result<(), CliError> {
    let service = global.service().await?;
    let renewed = keys::renew_authority(&service, &Actor::Admin, replace, root_key.as_deref()).await?;
    print(global, &renewed)?;
    hint("Running servers use it from the next manifest on.");
    Ok(())
}

fn print(global: &Global, authority: &publisher_keys::PublisherKeys) -> Result<(), CliError> {
    let delegation = &authority.delegation;
    let has_root_private_key = publisher_keys::has_root_private_key(&global.data_dir());
    let (root, snapshot, tail) =
        (&authority.root, authority.snapshot.public_key(), authority.tail.public_key());
    let data = json!({
        "root_key": root.to_string(),
        "root_key_is_here": has_root_private_key,
        "audience": delegation.audience(),
        "epoch": delegation.epoch(),
        "issued_at": delegation.issued_at(),
        "expires_at": delegation.expires_at(),
        "snapshot_key": snapshot.to_string(),
        "tail_key": tail.to_string(),
    });
    global.print(&data, || {
        format!(
            "root key      {root}{}\naudience      {}\nepoch         {}\nexpires       {}\nsnapshot key  {snapshot}\ntail key      {tail}",
            if has_root_private_key { "" } else { " (kept elsewhere)" },
            delegation.audience(),
            delegation.epoch(),
            output::format_time(UnixMillis::from_millis(delegation.expires_at())),
        )
    })
}
