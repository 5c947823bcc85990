//! A real control plane and a real Envoy, with a proxy between them that can inject faults.

use harness::envoy::Settings;
use harness::proxy::Proxy;
use harness::{Connection, ControlPlane, Envoy, Scratch, Store, Upstream, eventually};
use serde_json::json;
use std::path::PathBuf;
use token::Fingerprint;

pub(crate) struct Fixture {
    pub(crate) envoy: Envoy,
    pub(crate) proxy: Proxy,
    pub(crate) control_plane: ControlPlane,
    /// A second server with the same store.
    pub(crate) second: Option<ControlPlane>,
    pub(crate) workers: Vec<Connection>,
    /// A token that is valid for the duration of the test.
    pub(crate) admin: String,
    _upstream: Upstream,
    scratch: Scratch,
}

/// The settings that a test changes.
#[derive(Default)]
pub(crate) struct Overrides {
    pub(crate) store: Option<Store>,
    pub(crate) servers: usize,
    pub(crate) wasm: Option<PathBuf>,
    pub(crate) settings: Vec<(&'static str, String)>,
    pub(crate) outage_grace: Option<u64>,
    pub(crate) max_manifest_lifetime: Option<u64>,
    pub(crate) wait_seconds: Option<u64>,
}

impl Fixture {
    pub(crate) async fn start(different: Overrides) -> Self {
        let Overrides { store, servers, wasm, settings, outage_grace, max_manifest_lifetime, wait_seconds } =
            different;
        let scratch = Scratch::new().unwrap();
        let upstream = Upstream::start(scratch.address(8081)).await.unwrap();
        let store = store.unwrap_or(Store::Sqlite);
        let control_plane = ControlPlane::start(&scratch, store, &settings).await.unwrap();
        let mut addresses = vec![control_plane.address()];
        let mut second = None;
        if servers > 1 {
            let other = control_plane.start_second(scratch.address(8782)).await.unwrap();
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
        let mut envoy = Settings::for_scratch(&scratch, plugin).unwrap();
        envoy.control_plane = scratch.address(8790);
        envoy.edge_files = Some(edge);
        if let Some(wasm) = wasm {
            envoy.wasm = wasm;
        }
        let envoy = Envoy::start(envoy, scratch.folder()).await.unwrap();
        let admin = control_plane.token().await.unwrap();
        let workers = envoy.wait_admitting(&admin).await.unwrap();
        Self { envoy, proxy, control_plane, second, workers, admin, _upstream: upstream, scratch }
    }

    pub(crate) async fn token(&self) -> String {
        self.control_plane.token().await.unwrap()
    }

    pub(crate) async fn revoke(&self, token: &str) {
        self.control_plane.revoke(&self.admin, json!({ "token": token })).await.unwrap();
    }

    /// Revokes with a command, which works without the server.
    pub(crate) fn unrevoke(&self, token: &str) {
        let fingerprint = Fingerprint::digest(token.as_bytes()).to_string();
        self.control_plane.cli(["unrevoke", "--yes", "--fingerprint", &fingerprint]).unwrap();
    }

    /// Waits until every worker refuses the token, and checks that valid tokens stay valid.
    pub(crate) async fn wait_refused(&mut self, token: &str) {
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

    pub(crate) async fn wait_admitted(&mut self, token: &str) {
        for worker in &mut self.workers {
            eventually("a good token is admitted", async || worker.get(token).await?.expect(200)).await;
        }
    }

    /// Waits until the log of the edge contains a text.
    pub(crate) async fn wait_for_log(&self, what: &str) {
        eventually(what, async || {
            anyhow::ensure!(self.envoy.log().contains(what), "the log does not contain it");
            Ok(())
        })
        .await;
    }

    pub(crate) fn scratch(&self) -> &Scratch {
        &self.scratch
    }
}
