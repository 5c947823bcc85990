use super::issuer::{Issuer, OTHER_ISSUER};
use super::peers;
use super::{Tokens, millions};
use crate::plain::Plain;
use crate::{Scale, progress};
use anyhow::{Context, Result, anyhow, ensure};
use bundle::builder::SecretKey;
use harness::envoy::{FilterHost, Settings};
use harness::fake_control_plane::{TestSigner, now_ms, plugin_configuration};
use harness::{Envoy, FakeControlPlane, Scratch};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use token::api_key::{ApiKeyFields, Kind, MintingKey, Prefix};

/// An Envoy with one filter.
pub(super) struct Edge {
    pub(super) name: &'static str,
    /// If the filter is Keystile: its host, and the number of loaded revocations.
    pub(super) ours: Option<(FilterHost, u32)>,
    running: Running,
}

enum Running {
    Peer(Box<Peer>),
    /// With the control plane, which serves the module of the next edge, too.
    Wasm(Box<FakeControlPlane>),
    Module(Box<Peer>, String),
}

struct Peer {
    envoy: Envoy,
    scratch: Scratch,
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
            Running::Peer(peer) | Running::Module(peer, _) => &peer.envoy,
            Running::Wasm(fake) => &fake.envoy,
        }
    }

    /// Replaces the process by a new one, because each has a bias of its own of up to 1.5 microseconds (memory layout).
    pub(super) async fn restart(&mut self) -> Result<()> {
        match &mut self.running {
            Running::Peer(peer) => peer.envoy.restart(peer.scratch.folder()).await,
            Running::Module(peer, token) => {
                peer.envoy.restart(peer.scratch.folder()).await?;
                wait_loaded(&peer.envoy, token).await
            }
            Running::Wasm(fake) => {
                let folder = fake.folder().to_owned();
                fake.envoy.restart(&folder).await?;
                wait_loaded(&fake.envoy, &fake.token()).await
            }
        }
    }
}

/// Waits until the only worker has its bundle.
async fn wait_loaded(envoy: &Envoy, token: &str) -> Result<()> {
    let started = Instant::now();
    while harness::get(envoy.address(), token).await?.status != 200 {
        ensure!(started.elapsed() < LOADING, "the bundle is not loaded in {LOADING:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Starts all Envoys. The first has no filter.
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
        ("Lua that reads one header", vec![peers::lua()]),
        ("api_key_auth", vec![peers::api_key_auth(&tokens.api_keys)]),
        ("jwt_authn, cached", vec![peers::jwt_authn(issuers, Some(super::ROOM), &[])]),
        ("jwt_authn, no cache", vec![peers::jwt_authn(issuers, None, &[])]),
        (
            "jwt_authn with headers, cached",
            vec![peers::jwt_authn(issuers, Some(super::ROOM), &peers::CLAIMS)],
        ),
        ("jwt_authn with headers, no cache", vec![peers::jwt_authn(issuers, None, &peers::CLAIMS)]),
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
        let running = Running::Peer(Box::new(Peer { envoy, scratch, _service: service }));
        edges.push(Edge { name, ours: None, running });
    }
    for &revocations in revocations(scale) {
        let (fake, _) = start_ours(upstream, issuers, revocations).await?;
        let (envoy, scratch) = start_second(&fake, upstream, FilterHost::Module, 1).await?;
        let module = Peer { envoy, scratch, _service: None };
        let module = Running::Module(Box::new(module), fake.token());
        for (host, running) in
            [(FilterHost::Wasm, Running::Wasm(Box::new(fake))), (FilterHost::Module, module)]
        {
            edges.push(Edge { name: "Keystile", ours: Some((host, revocations)), running });
        }
    }
    Ok(edges)
}

/// Starts another Envoy with the bundle of a control plane, and waits until all workers have it.
pub(super) async fn start_second(
    fake: &FakeControlPlane,
    upstream: SocketAddr,
    host: FilterHost,
    workers: usize,
) -> Result<(Envoy, Scratch)> {
    let scratch = Scratch::new()?;
    let mut settings = Settings {
        workers,
        control_plane: fake.envoy.settings().control_plane,
        ..settings(&scratch, upstream, None)?
    };
    settings.use_filter_host(host)?;
    let envoy = Envoy::start(settings, scratch.folder()).await?;
    wait_loaded(&envoy, &fake.token()).await?;
    envoy.wait_admitting(&fake.token()).await?;
    Ok((envoy, scratch))
}

pub(super) const fn revocations(scale: Scale) -> &'static [u32] {
    match scale {
        Scale::Full => &[0, 1_000_000, 10_000_000],
        Scale::Quick => &[0, 1_000],
    }
}

/// Starts an Envoy with one worker on core 0. The benchmark uses the other core.
pub(super) fn settings(
    scratch: &Scratch,
    upstream: SocketAddr,
    filters_instead: Option<Vec<Value>>,
) -> Result<Settings> {
    let mut policy = plugin_configuration(&TestSigner::new(1));
    // The bundle is signed once, and the measurement takes longer than the default grace.
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
        ..Settings::for_scratch(scratch, policy)?
    })
}

/// Starts an Envoy with the keys of these issuers and a number of revocations. Returns the loading time of the latter.
pub(super) async fn start_ours(
    upstream: SocketAddr,
    issuers: &[Issuer],
    revocations: u32,
) -> Result<(FakeControlPlane, Duration)> {
    let scratch = Scratch::new()?;
    let mut settings = settings(&scratch, upstream, None)?;
    settings.use_filter_host(FilterHost::Wasm)?;
    let mut fake = FakeControlPlane::start_before_upstream(scratch, settings).await;
    let keys = issuers.iter().map(|issuer| &issuer.verifying);
    let own = fake.signing.verifying_key().clone();
    let minting = minting()?;
    let public = fake.content.set_public_keys(keys.chain([&own]), [minting.generation_key()]);
    public.map_err(|error| anyhow!("{error}"))?;
    let secrets = issuers
        .iter()
        .filter_map(|issuer| Some(SecretKey::from((issuer.algorithm, issuer.secret.as_ref()?.as_slice()))));
    fake.content.set_secret_keys(secrets).map_err(|error| anyhow!("{error}"))?;
    progress(&format!("requests: building a bundle, {}", millions(revocations)));
    for number in 0..revocations {
        fake.content
            .revoke(u64::from(number) + 1, sets::fingerprint(number))
            .map_err(|error| anyhow!("{error}"))?;
    }
    fake.version += 1;
    fake.content.checkpoint(fake.version).map_err(|error| anyhow!("{error}"))?;
    let built = fake.content.build().map_err(|error| anyhow!("{error}"))?;
    let objects = built.objects.len();
    let bytes: usize = built.objects.iter().map(|(_, bytes)| bytes.len()).sum();
    progress(&format!("requests: loading it: {objects} objects, {bytes} bytes"));
    let served = fake.sign(&built, |_| ());
    let started = Instant::now();
    fake.serve_until_taken_within(LOADING, served).await;
    let took = started.elapsed();
    progress(&format!("requests: loaded in {:.1} s", took.as_secs_f64()));
    // Frees the memory of the builder, because there are several.
    fake.content = Default::default();
    Ok((fake, took))
}

/// Creates API keys in the default format.
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

/// The number of shards, for ten million prefixes.
const LOADING: Duration = Duration::from_secs(300);
