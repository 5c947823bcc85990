//! What only the native module has: hooks that catch panics, policies of routes, and dynamic metadata.

use harness::client::{bearer, request_without_credential, send};
use harness::envoy::{FilterHost, Settings};
use harness::fake_control_plane::{FakeControlPlane, TestSigner, plugin_configuration};
use harness::{eventually, tools};
use hyper::header::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// The port of a listener beside that of the reference configuration.
const PORT: u16 = 10_000;

const UPDATES: u64 = 40;

/// A configuration has a cache of 4,096 entries per worker: 20 that remain would take more.
const MAX_GROWTH_BYTES: u64 = 4 << 20;

/// A panic refuses the request. The proxy and its workers continue with the same bundle.
#[tokio::test]
async fn panic_refuses_the_request_and_no_other() {
    let control_plane = FakeControlPlane::start_with(|settings| {
        settings.filter_host = FilterHost::Module;
        settings.module = tools::panicking_module().unwrap();
    })
    .await;
    let token = control_plane.token();
    let mut panicking = bearer(&token);
    panicking
        .headers_mut()
        .insert(HeaderName::from_static("x-keystile-test-panic"), HeaderValue::from_static("a-secret"));
    for worker in &mut control_plane.envoy.workers().await.unwrap() {
        for _ in 0..10 {
            worker.send(panicking.clone()).await.unwrap().expect(503).unwrap();
            worker.get(&token).await.unwrap().expect(200).unwrap();
        }
    }
    eventually("the panics are counted", async || {
        let counted = control_plane.envoy.metric("keystile_panics").await?;
        anyhow::ensure!(counted == 20, "{counted}");
        Ok(())
    })
    .await;
    let log = control_plane.envoy.log();
    assert!(log.contains("keystile: panicked at plugin/envoy-module/src/abi.rs"), "{log}");
    assert!(!log.contains("a-secret"));
}

/// A route can have a policy of its own, which the bundle of the listener decides by. RBAC behind the filter reads what it
/// found out from dynamic metadata.
#[tokio::test]
async fn route_has_its_own_policy_and_rbac_reads_metadata() {
    let mut address = None;
    let control_plane = FakeControlPlane::start_with(|settings| {
        settings.use_filter_host(FilterHost::Module).unwrap();
        settings.plugin_configuration["filter_state"] = json!(["subject"]);
        address = Some(SocketAddr::new(settings.listen.ip(), PORT));
        settings.more_listeners.push(listener(settings, address.unwrap()));
    })
    .await;
    let address = address.unwrap();
    let alice = token::Claims { sub: "OP0000000001/alice".into(), ..control_plane.claims() };
    let (root, alice) = (control_plane.token(), control_plane.mint(&alice));
    for (path, token, status) in [
        ("/strict", "x", 401),
        ("/strict", &root, 403),
        ("/strict", &alice, 200),
        ("/public", "x", 403),
        ("/other", &alice, 503),
    ] {
        let mut request = bearer(token);
        *request.uri_mut() = path.parse().unwrap();
        let response = send(address, request).await.unwrap();
        assert_eq!(response.status, status, "{path}: {}", response.text());
        // The filter lets the public path pass. Without metadata, RBAC does not.
        assert_eq!(response.text() == "RBAC: access denied", status == 403, "{path}");
    }
    assert!(control_plane.envoy.log().contains("the configuration of their route has another audience"));
}

/// Forty configurations replace each other while requests continue: each enforces the bundle of the previous one at once,
/// one thread remains, and the memory does not grow.
#[tokio::test]
async fn configuration_updates_refuse_no_request_and_leak_nothing() {
    let mut control_plane = FakeControlPlane::start_with(|settings| {
        settings.use_filter_host(FilterHost::Module).unwrap();
        settings.has_listener_file = true;
    })
    .await;
    let folder = control_plane.folder().to_owned();
    let (address, token) = (control_plane.envoy.address(), control_plane.token());
    let mut configuration = control_plane.envoy.settings().plugin_configuration.clone();
    let mut settled = 0;
    for number in 0..UPDATES {
        configuration["realm"] = json!(format!("realm-{number}"));
        control_plane.envoy.push_plugin_configuration(configuration.clone(), &folder).unwrap();
        eventually("the new configuration", async || {
            // A new connection belongs to the new listener.
            let refused = send(address, request_without_credential()).await?.expect(401)?;
            let challenge = refused.headers["www-authenticate"].to_str()?.to_owned();
            harness::get(address, &token).await?.expect(200)?;
            anyhow::ensure!(challenge.contains(&format!("realm-{number}\"")), "{challenge}");
            Ok(())
        })
        .await;
        control_plane.publish();
        if number == UPDATES / 2 {
            settled = drained_resident_bytes(&control_plane).await;
        }
    }
    eventually("one thread of the module", async || {
        let names = std::fs::read_dir(format!("/proc/{}/task", control_plane.envoy.id()))?
            .map(|task| std::fs::read_to_string(task?.path().join("comm")))
            .collect::<Result<Vec<_>, _>>()?;
        let count = names.iter().filter(|name| name.trim() == "keystile").count();
        anyhow::ensure!(count == 1, "{names:?}");
        Ok(())
    })
    .await;
    let grown = drained_resident_bytes(&control_plane).await.saturating_sub(settled);
    assert!(grown < MAX_GROWTH_BYTES, "{grown} bytes after {UPDATES} updates");
}

/// Returns the resident memory when the configurations that were replaced are gone.
async fn drained_resident_bytes(control_plane: &FakeControlPlane) -> u64 {
    eventually("the old filter chains are drained", async || {
        let draining = control_plane.envoy.stats("^listener_manager.total_filter_chains_draining$").await?;
        anyhow::ensure!(draining.values().eq([&0]), "{draining:?}");
        Ok(())
    })
    .await;
    let pages = std::fs::read_to_string(format!("/proc/{}/statm", control_plane.envoy.id())).unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn listener(settings: &Settings, address: SocketAddr) -> Value {
    let kind = |name: &str| format!("type.googleapis.com/envoy.extensions.filters.{name}");
    let module = settings.filter(&settings.plugin_configuration);
    let route = |path: &str, policy: Option<Value>| {
        let per_filter = policy.map(|policy| {
            json!({ "keystile": {
                "@type": kind("http.dynamic_modules.v3.DynamicModuleFilterPerRoute"),
                "dynamic_module_config": module["typed_config"]["dynamic_module_config"],
                "per_route_config_name": "keystile",
                "filter_config": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": policy.to_string(),
                },
            } })
        });
        json!({
            "match": { "prefix": path },
            "route": { "cluster": "upstream" },
            "typed_per_filter_config": per_filter.unwrap_or(json!({})),
        })
    };
    let mut public = plugin_configuration(&TestSigner::new(1));
    public["unmatched"] = json!("public");
    let mut other = plugin_configuration(&TestSigner::new(1));
    other["audience"] = json!("other");
    let rbac = json!({
        "name": "rbac",
        "typed_config": {
            "@type": kind("http.rbac.v3.RBAC"),
            "rules": { "policies": { "alice": {
                "permissions": [{ "any": true }],
                "principals": [{ "metadata": {
                    "filter": "keystile",
                    "path": [{ "key": "subject" }],
                    "value": { "string_match": { "exact": "OP0000000001/alice" } },
                } }],
            } } },
        },
    });
    json!({
        "name": "routes",
        "address": { "socket_address": { "address": address.ip(), "port_value": address.port() } },
        "filter_chains": [{ "filters": [{
            "name": "http",
            "typed_config": {
                "@type": kind("network.http_connection_manager.v3.HttpConnectionManager"),
                "stat_prefix": "routes",
                "route_config": { "virtual_hosts": [{
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        route("/strict", None),
                        route("/public", Some(public)),
                        route("/other", Some(other)),
                    ],
                }] },
                "http_filters": [module, rbac, {
                    "name": "router",
                    "typed_config": { "@type": kind("http.router.v3.Router") },
                }],
            },
        }] }],
    })
}
