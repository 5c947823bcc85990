use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ::bundle::{Entry, Manifest, PublicKey};
use clap::Subcommand;
use serde_json::{Value, json};
use token::Fingerprint;

use super::{Failure, Global, hint, show};
use crate::{
    clock::{self, Time},
    config::{self, Period},
    model::Actor,
    operations::{self, Rebased, Service},
    publisher,
};

#[derive(Debug, Subcommand)]
pub(super) enum Bundle {
    /// Show the bundle of this moment, as the server publishes it
    Show {
        /// Write its manifest to this file
        #[arg(long, value_name = "FILE")]
        manifest: Option<PathBuf>,
    },
    /// Build the base anew where it has revocations to take in, as the server does by itself
    Rebase,
    /// Print the bundle of this moment as one text, for the member `bundle` of a plugin configuration
    Export {
        /// How long it is fresh, at most 1h: until then its host must have got a newer one
        #[arg(long, default_value = "1h", value_name = "PERIOD")]
        lifetime: Period,
    },
    /// Verify a manifest, as an edge would
    Verify {
        file: PathBuf,
        /// Whose delegation to accept; this installation's without it
        #[arg(long, value_name = "BASE64URL")]
        root_key: Option<PublicKey>,
    },
}

impl Bundle {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Show { manifest } => {
                let publication = publisher::preview(&global.service().await?).await?;
                if let Some(file) = manifest {
                    fs::write(&file, &publication.manifest)
                        .map_err(|error| of(&file, "can't be written", &error))?;
                }
                print(global, publication.snapshot.manifest())
            }
            Self::Rebase => rebase(global).await,
            Self::Export { lifetime } => export(global, lifetime).await,
            Self::Verify { file, root_key } => {
                let config = global.settings()?;
                let key = match root_key {
                    Some(key) => key,
                    None => crate::authority::root_key(&global.home())?,
                };
                let bytes = fs::read(&file).map_err(|error| of(&file, "can't be read", &error))?;
                let manifest = Manifest::open(&bytes, &[key], &config.publisher.audience)?;
                print(global, &manifest)
            }
        }
    }
}

async fn rebase(global: &Global) -> Result<(), Failure> {
    let Rebased { version, blocks, bytes } =
        operations::rebase(&global.service().await?, &Actor::Admin).await?;
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
        None => "the base has nothing to take in".to_owned(),
        Some(version) => format!(
            "version {version}: {revoked} revoked of {members} in {} blocks, {bytes} bytes",
            blocks.len()
        ),
    })
}

async fn export(global: &Global, lifetime: Period) -> Result<(), Failure> {
    let mut config = global.settings()?;
    config.publisher.lifetime = lifetime;
    config::check(&config)?;
    let service = Service::attach(global.home(), config).await?;
    let text = publisher::export(&service).await?;
    global.print(&json!({ "bundle": text }), || text.clone())?;
    hint("It may hold secrets of HS256 and of API keys: keep it where only the proxy reads.");
    Ok(())
}

fn of(file: &Path, what: &str, error: &io::Error) -> Failure {
    Failure::Because(format!("`{}` {what}: {error}", file.display()))
}

fn print(global: &Global, manifest: &Manifest) -> Result<(), Failure> {
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
            show::time(Time::from_millis(manifest.issued_at())),
            show::time(Time::from_millis(manifest.expires_at())),
            if fresh { "" } else { " (out of date)" },
            show::table(["KIND", "SHARD", "SIZE", "SHA256"], rows.collect()),
        )
    })
}
