use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ::bundle::{Entry, Manifest, PublicKey};
use clap::Subcommand;
use serde_json::{Value, json};
use token::Fingerprint;

use super::{CliError, Global, hint, output};
use crate::{
    config::{self, ConfigDuration},
    domain::Actor,
    domain::UnixMillis,
    platform::clock,
    publishing::{self, Compaction},
    service::Service,
};

#[derive(Debug, Subcommand)]
pub(super) enum Bundle {
    /// Show the current bundle as the server publishes it
    Show {
        /// Write the manifest to this file
        #[arg(long, value_name = "FILE")]
        manifest: Option<PathBuf>,
    },
    /// Compact the base: include the revocations since the last compaction, as the server does automatically
    #[command(alias = "rebase")]
    Compact,
    /// Print the current bundle as one string, for the member `bundle` of a plugin configuration
    Export {
        /// How long the bundle is fresh, at most 1h; its host must install a newer one before that
        #[arg(long, default_value = "1h", value_name = "PERIOD")]
        lifetime: ConfigDuration,
    },
    /// Verify a manifest as an edge does
    Verify {
        file: PathBuf,
        /// The trusted root key; by default the one of this installation
        #[arg(long, value_name = "BASE64URL")]
        root_key: Option<PublicKey>,
    },
}

impl Bundle {
    pub(super) async fn run(self, global: &Global) -> Result<(), CliError> {
        match self {
            Self::Show { manifest } => {
                let publication = publishing::preview(&global.service().await?).await?;
                if let Some(file) = manifest {
                    fs::write(&file, &publication.manifest)
                        .map_err(|error| io_failure(&file, "write", &error))?;
                }
                print(global, publication.snapshot.manifest())
            }
            Self::Compact => compact(global).await,
            Self::Export { lifetime } => export(global, lifetime).await,
            Self::Verify { file, root_key } => {
                let config = global.settings()?;
                let key = match root_key {
                    Some(key) => key,
                    None => crate::keys::publisher_keys::root_key(&global.data_dir())?,
                };
                let bytes = fs::read(&file).map_err(|error| io_failure(&file, "read", &error))?;
                let manifest = Manifest::open(&bytes, &[key], &config.publisher.audience)?;
                print(global, &manifest)
            }
        }
    }
}

async fn compact(global: &Global) -> Result<(), CliError> {
    let Compaction { version, blocks, bytes } =
        publishing::compact_base(&global.service().await?, &Actor::Admin).await?;
    let (members, revoked) = blocks
        .iter()
        .fold((0, 0), |(members, revoked), block| (members + block.members, revoked + block.revoked));
    let data = json!({
        "version": version,
        "blocks": blocks.len(),
        "members": members,
        "revoked": revoked,
        "bytes": bytes,
    });
    global.print(&data, || match version {
        None => "the base is up to date".to_owned(),
        Some(version) => format!(
            "version {version}: {revoked} revoked of {members} in {} blocks, {bytes} bytes",
            blocks.len()
        ),
    })
}

async fn export(global: &Global, lifetime: ConfigDuration) -> Result<(), CliError> {
    let mut config = global.settings()?;
    config.publisher.lifetime = lifetime;
    config::validate(&config)?;
    let service = Service::attach(global.data_dir(), config).await?;
    let text = publishing::export_inline(&service).await?;
    global.print(&json!({ "bundle": text }), || text.clone())?;
    hint("The bundle may contain HS256 and API-key secrets: store it where only the proxy can read it.");
    Ok(())
}

fn io_failure(file: &Path, action: &str, error: &io::Error) -> CliError {
    CliError::Message(format!("cannot {action} `{}`: {error}", file.display()))
}

fn print(global: &Global, manifest: &Manifest) -> Result<(), CliError> {
    let fresh = clock::now().millis() < manifest.expires_at();
    let hash = |entry: &Entry| Fingerprint::from(*entry.sha256()).to_string();
    let entries = || [manifest.checkpoint()].into_iter().chain(manifest.tail());
    let objects: Vec<Value> = entries()
        .map(|entry| {
            json!({
                "kind": format!("{:?}", entry.kind()),
                "shard": entry.shard(),
                "size": entry.size(),
                "sha256": hash(entry),
            })
        })
        .collect();
    let data = json!({
        "audience": manifest.audience(),
        "epoch": manifest.delegation().epoch(),
        "version": manifest.version(),
        "issued_at": manifest.issued_at(),
        "expires_at": manifest.expires_at(),
        "fresh": fresh,
        "objects": objects,
    });
    global.print(&data, || {
        let rows = entries().map(|entry| {
            [format!("{:?}", entry.kind()), entry.shard().to_string(), entry.size().to_string(), hash(entry)]
        });
        format!(
            "audience  {}\nepoch     {}\nversion   {}\nissued    {}\nexpires   {}{}\n\n{}",
            manifest.audience(),
            manifest.delegation().epoch(),
            manifest.version(),
            output::format_time(UnixMillis::from_millis(manifest.issued_at())),
            output::format_time(UnixMillis::from_millis(manifest.expires_at())),
            if fresh { "" } else { " (expired)" },
            output::table(["KIND", "SHARD", "SIZE", "SHA256"], rows.collect()),
        )
    })
}
