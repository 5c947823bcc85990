use super::issuer::{Issuer, OTHER_ISSUER};
use super::peers;
use super::{Tokens, millions};
use crate::plain::Plain;
use crate::{Scale, progress};
use anyhow::{Context, Result, anyhow};
use bundle::builder::SecretKey;
use harness::envoy::Settings;
use harness::forge::{Authority, now_ms, plugin_configuration};
use harness::{Envoy, Forge, Scratch};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use token::api_key::{ApiKeyFields, Kind, MintingKey, Prefix};

/// An Envoy with one filter.
pub(super) struct Edge {
    pub(super) name: &'static str,
    /// How many are loaded, if it is ours.
    pub(super) revocations: Option<u32>,
    running: Running,
}

enum Running {
    Peer(Box<Peer>),
    Ours(Box<Forge>),
}

struct Peer {
    envoy: Envoy,
    _scratch: Scratch,
    _service: Option<Plain>,
}

impl Edge {
    pub(super) fn address(&self) -> SocketAddr {
        self.envoy().address()
    }

    pub(super) fn id(&self) -> u32 {
        self.envoy().id()
    }

    fn envoy(&self) -> &Envoy {
        match &self.running {
            Running::Peer(peer) => &peer.envoy,
            Running::Ours(forge) => &forge.envoy,
        }
    }
}

/// All of them; the first has no filter.
pub(super) async fn start(
    scratch: &Scratch,
    upstream: SocketAddr,
    issuers: &[Issuer],
    tokens: &Tokens,
    scale: Scale,
) -> Result<Vec<Edge>> {
    let peers = [
        (super::NO_FILTER, vec![]),
        ("wasm that does nothing", vec![peers::empty_wasm(scratch.folder())?]),
        ("wasm that only edits headers", vec![peers::headers_wasm(scratch.folder())?]),
        ("Lua, reads one header", vec![peers::lua()]),
        ("api_key_auth", vec![peers::api_key_auth(&tokens.api_keys)]),
        ("jwt_authn, cached", vec![peers::jwt_authn(issuers, Some(super::ROOM))]),
        ("jwt_authn, no cache", vec![peers::jwt_authn(issuers, None)]),
        ("ext_authz", vec![peers::ext_authz()]),
    ];
    let mut edges = Vec::new();
    for (name, filters) in peers {
        let scratch = Scratch::new()?;
        let settings = settings(&scratch, upstream, Some(filters))?;
        let service = match name {
            "ext_authz" => Some(Plain::start(settings.control_plane).await?),
            _ => None,
        };
        let envoy = Envoy::start(settings, scratch.folder()).await?;
        let peer = Peer { envoy, _scratch: scratch, _service: service };
        let running = Running::Peer(Box::new(peer));
        edges.push(Edge { name, revocations: None, running });
    }
    for &revocations in revocations(scale) {
        let (forge, _) = ours(upstream, issuers, revocations).await?;
        edges.push(Edge {
            name: "Keystile",
            revocations: Some(revocations),
            running: Running::Ours(Box::new(forge)),
        });
    }
    Ok(edges)
}

pub(super) const fn revocations(scale: Scale) -> &'static [u32] {
    match scale {
        Scale::Full => &[0, 1_000_000, 10_000_000],
        Scale::Quick => &[0, 1_000],
    }
}

/// One worker on core 0; the benchmark has the other.
pub(super) fn settings(
    scratch: &Scratch,
    upstream: SocketAddr,
    filters_instead: Option<Vec<Value>>,
) -> Result<Settings> {
    let mut policy = plugin_configuration(&Authority::new(1));
    // The bundle is signed once, and the whole measurement takes longer than the usual grace.
    policy["outage_grace_seconds"] = json!(86_400);
    policy["api_keys"] = json!({});
    policy["issuers"] = json!([{ "issuer": OTHER_ISSUER, "audiences": ["api"] }]);
    policy["credentials"] =
        json!([{ "header": "authorization", "scheme": "Bearer" }, { "header": "x-api-key" }]);
    Ok(Settings {
        upstream,
        workers: 1,
        access_log: false,
        core: Some(0),
        filters_instead,
        ..Settings::on(scratch, policy)?
    })
}

/// With these issuers' keys and so many revocations, and how long those took to load.
pub(super) async fn ours(
    upstream: SocketAddr,
    issuers: &[Issuer],
    revocations: u32,
) -> Result<(Forge, Duration)> {
    let scratch = Scratch::new()?;
    let settings = settings(&scratch, upstream, None)?;
    let mut forge = Forge::behind(scratch, settings).await;
    let keys = issuers.iter().map(|issuer| &issuer.verifying);
    let own = forge.signing.verifying_key().clone();
    let minting = minting()?;
    let public = forge.content.set_public_keys(keys.chain([&own]), [minting.generation_key()]);
    public.map_err(|error| anyhow!("{error}"))?;
    let secrets = issuers
        .iter()
        .filter_map(|issuer| Some(SecretKey::from((issuer.algorithm, issuer.secret.as_ref()?.as_slice()))));
    forge.content.set_secret_keys(secrets).map_err(|error| anyhow!("{error}"))?;
    progress(&format!("requests: building a bundle, {}", millions(revocations)));
    for number in 0..revocations {
        forge
            .content
            .revoke(u64::from(number) + 1, sets::fingerprint(number))
            .map_err(|error| anyhow!("{error}"))?;
    }
    forge.version += 1;
    forge.content.checkpoint(forge.version).map_err(|error| anyhow!("{error}"))?;
    let built = forge.content.build().map_err(|error| anyhow!("{error}"))?;
    let objects = built.objects.len();
    let bytes: usize = built.objects.iter().map(|(_, bytes)| bytes.len()).sum();
    progress(&format!("requests: loading it: {objects} objects, {bytes} bytes"));
    let served = forge.sign(&built, |_| ());
    let started = Instant::now();
    forge.serve_taken_within(LOADING, served).await;
    let took = started.elapsed();
    progress(&format!("requests: loaded in {:.1} s", took.as_secs_f64()));
    // The builder's memory is not needed any more, and there are several.
    forge.content = Default::default();
    Ok((forge, took))
}

/// API keys of ours, in the default format.
pub(super) fn api_keys(count: usize) -> Result<Vec<String>> {
    let (minting, prefix, now) = (minting()?, Prefix::default(), now_ms() / 1000);
    let one = |number: u64| {
        let contents = ApiKeyFields {
            prefix: &prefix,
            operator: "OP0000000001",
            number,
            issued_at: now,
            expires_at: None,
            random: [0; 4],
            username: "",
        };
        Some(minting.mint(&contents)?.expose().to_owned())
    };
    (0..count as u64).map(|number| one(number).context("a number too large")).collect()
}

fn minting() -> Result<MintingKey> {
    MintingKey::new(1, Kind::Signed, &[5; 32]).map_err(|error| anyhow!("{error}"))
}

/// Ten million prefixes are 4,096 objects.
const LOADING: Duration = Duration::from_secs(300);
