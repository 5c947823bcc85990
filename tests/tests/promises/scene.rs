//! A real control plane and a real Envoy, with a proxy between them that can do everything wrong.

use harness::envoy::Settings;
use harness::proxy::Proxy;
use harness::{Connection, ControlPlane, Envoy, Scratch, Store, Upstream, eventually};
use serde_json::json;
use std::path::PathBuf;
use token::Fingerprint;

pub(crate) struct Scene {
    pub(crate) envoy: Envoy,
    pub(crate) proxy: Proxy,
    pub(crate) control_plane: ControlPlane,
    /// A second server over the same store.
    pub(crate) second: Option<ControlPlane>,
    pub(crate) workers: Vec<Connection>,
    /// Good for as long as the scene stands.
    pub(crate) admin: String,
    _upstream: Upstream,
    scratch: Scratch,
}

/// What is not as usual.
#[derive(Default)]
pub(crate) struct Different {
    pub(crate) store: Option<Store>,
    pub(crate) servers: usize,
    pub(crate) wasm: Option<PathBuf>,
    pub(crate) settings: Vec<(&'static str, String)>,
    pub(crate) outage_grace: Option<u64>,
    pub(crate) max_manifest_lifetime: Option<u64>,
    pub(crate) wait_seconds: Option<u64>,
}

impl Scene {
    pub(crate) async fn set(different: Different) -> Self {
        let Different { store, servers, wasm, settings, outage_grace, max_manifest_lifetime, wait_seconds } =
            different;
        let scratch = Scratch::new().unwrap();
        let upstream = Upstream::start(scratch.address(8081)).await.unwrap();
        let store = store.unwrap_or(Store::Sqlite);
        let control_plane = ControlPlane::start(&scratch, store, &settings).await.unwrap();
        let mut addresses = vec![control_plane.address()];
        let mut second = None;
        if servers > 1 {
            let other = control_plane.beside(scratch.address(8782)).await.unwrap();
            addresses.push(other.address());
            second = Some(other);
        }
        let proxy = Proxy::start(scratch.address(8790), addresses).await.unwrap();
        let edge = scratch.folder().join("edge");
        let mut plugin = control_plane.enroll_into("edge", &edge).unwrap().plugin_configuration;
        plugin["control_plane"]["wait_seconds"] = json!(wait_seconds.unwrap_or(2));
        if let Some(lifetime) = max_manifest_lifetime {
            plugin["max_manifest_lifetime_seconds"] = json!(lifetime);
        }
        if let Some(grace) = outage_grace {
            plugin["outage_grace_seconds"] = json!(grace);
        }
        let mut envoy = Settings::on(&scratch, plugin).unwrap();
        envoy.control_plane = scratch.address(8790);
        envoy.edge_files = Some(edge);
        if let Some(wasm) = wasm {
            envoy.wasm = wasm;
        }
        let envoy = Envoy::start(envoy, scratch.folder()).await.unwrap();
        let admin = control_plane.token().await.unwrap();
        let workers = envoy.admitting(&admin).await.unwrap();
        Self { envoy, proxy, control_plane, second, workers, admin, _upstream: upstream, scratch }
    }

    pub(crate) async fn token(&self) -> String {
        self.control_plane.token().await.unwrap()
    }

    pub(crate) async fn revoke(&self, token: &str) {
        self.control_plane.revoke(&self.admin, json!({ "token": token })).await.unwrap();
    }

    /// By a command beside the server, which may be down.
    pub(crate) fn unrevoke(&self, token: &str) {
        let fingerprint = Fingerprint::digest(token.as_bytes()).to_string();
        self.control_plane.cli(["unrevoke", "--yes", "--fingerprint", &fingerprint]).unwrap();
    }

    /// Every worker refuses it, sooner or later; what is good stays so all the while.
    pub(crate) async fn refused(&mut self, token: &str) {
        let admin = self.admin.clone();
        for worker in &mut self.workers {
            eventually("a revoked token is refused", async || {
                worker.get(&admin).await?.expect(200)?;
                let response = worker.get(token).await?.expect(401)?;
                anyhow::ensure!(response.code() == "revoked", "{}", response.code());
                Ok(())
            })
            .await;
        }
    }

    pub(crate) async fn admitted(&mut self, token: &str) {
        for worker in &mut self.workers {
            eventually("a good token is admitted", async || worker.get(token).await?.expect(200)).await;
        }
    }

    /// The edge's log tells it, sooner or later.
    pub(crate) async fn told(&self, what: &str) {
        eventually(what, async || {
            anyhow::ensure!(self.envoy.log().contains(what), "the log does not say it");
            Ok(())
        })
        .await;
    }

    pub(crate) fn scratch(&self) -> &Scratch {
        &self.scratch
    }
}
