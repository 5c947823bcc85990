use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde_json::json;

use super::{Failure, Global, hint, show};
use crate::{
    authority::{self, Role},
    clock::Time,
    model::Actor,
    operations,
};

#[derive(Debug, Subcommand)]
pub(super) enum Authority {
    /// Show the root key that edges pin, and to whom it has delegated until when
    Show,
    /// Make a new key in place of one; running servers and edges go on without a gap
    Rotate {
        key: Rotated,
        /// The file of the root key, if it is kept elsewhere
        #[arg(long, value_name = "FILE")]
        root_key: Option<PathBuf>,
    },
    /// Delegate anew to the same keys: before the delegation expires, or for another audience
    Renew {
        /// The file of the root key, if it is kept elsewhere
        #[arg(long, value_name = "FILE")]
        root_key: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Rotated {
    /// Signs checkpoints: the base, un-revocations, the removal of watermarks
    Snapshot,
    /// Signs manifests: revocations and watermarks as they come
    Tail,
}

impl Authority {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Show => {
                let audience = global.settings()?.publisher.audience;
                print(global, &authority::Authority::open(&global.home(), &audience)?)
            }
            Self::Rotate { key, root_key } => {
                let role = match key {
                    Rotated::Snapshot => Role::Snapshot,
                    Rotated::Tail => Role::Tail,
                };
                renew(global, Some(role), root_key).await
            }
            Self::Renew { root_key } => renew(global, None, root_key).await,
        }
    }
}

async fn renew(global: &Global, replace: Option<Role>, root_key: Option<PathBuf>) -> Result<(), Failure> {
    let service = global.service().await?;
    let renewed = operations::renew_authority(&service, &Actor::Admin, replace, root_key.as_deref()).await?;
    print(global, &renewed)?;
    hint("Running servers sign with it from the next manifest on.");
    Ok(())
}

fn print(global: &Global, authority: &authority::Authority) -> Result<(), Failure> {
    let delegation = &authority.delegation;
    let root_is_here = authority::root_is_here(&global.home());
    let (root, snapshot, tail) =
        (&authority.root, authority.snapshot.public_key(), authority.tail.public_key());
    let data = json!({
        "root_key": root.to_string(),
        "root_key_is_here": root_is_here,
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
            if root_is_here { "" } else { " (kept elsewhere)" },
            delegation.audience(),
            delegation.epoch(),
            show::time(Time::from_millis(delegation.expires_at())),
        )
    })
}
