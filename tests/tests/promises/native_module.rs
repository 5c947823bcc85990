//! What only the native module has: hooks that catch panics, policies of routes, and dynamic metadata.

use harness::client::{bearer, send};
use harness::envoy::{FilterHost, Settings};
use harness::fake_control_plane::{FakeControlPlane, TestSigner, plugin_configuration};
use harness::{eventually, tools};
use hyper::header::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// The port of a listener beside that of the reference configuration.
const PORT: u16 = 10_000;

/// A panic refuses the request. The proxy and its workers go on, with the same bundle.
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
