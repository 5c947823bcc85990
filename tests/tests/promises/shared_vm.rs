//! Envoy separates shared data only by `vm_id`, so another filter with the same `vm_id` can overwrite Keystile's.

use harness::envoy::Settings;
use harness::{Deployment, Envoy, Options, eventually};
use serde_json::{Value, json};
use token::base64url;

/// The other filter keeps the lease, so that no worker would fetch.
#[tokio::test]
async fn foreign_lease_holder_stops_no_revocation() {
    check_beside_hostile_filter(|settings| {
        settings.filters_behind.push(hostile_filter(settings, &["lease"]))
    })
    .await;
}

/// The other filter overwrites everything that workers share, as often as it can.
#[tokio::test]
async fn overwritten_shared_data_stops_no_revocation() {
    check_beside_hostile_filter(|settings| {
        settings
            .filters_behind
            .push(hostile_filter(settings, &["lease", "stamp", "manifest", "workers", "members"]))
    })
    .await;
}

async fn check_beside_hostile_filter(envoy: fn(&mut Settings)) {
    let deployment = Deployment::start(Options {
        settings: vec![
            ("KEYSTILE_PUBLISHER__LIFETIME", "12s".into()),
            ("KEYSTILE_PUBLISHER__RESIGN", "1s".into()),
        ],
        plugin: |configuration| {
            configuration["outage_grace_seconds"] = json!(0);
            configuration["control_plane"]["wait_seconds"] = json!(2);
        },
        envoy,
        ..Options::default()
    })
    .await
    .unwrap();
    let (admin, mut workers) = deployment.admitted_token().await.unwrap();
    for _ in 0..4 {
        let victim = deployment.control_plane.token().await.unwrap();
        for worker in &mut workers {
            worker.get(&victim).await.unwrap().expect(200).unwrap();
        }
        deployment.control_plane.revoke(&admin, json!({ "token": victim })).await.unwrap();
        for worker in &mut workers {
            eventually("a revoked token is refused", async || {
                // The bundle is never stale, without any grace.
                let admitted = worker.get(&admin).await?;
                assert_eq!(admitted.status, 200, "{}", admitted.text());
                let refused = worker.get(&victim).await?.expect(401)?;
                anyhow::ensure!(refused.code() == "revoked", "{}", refused.code());
                Ok(())
            })
            .await;
        }
    }
    let log = deployment.envoy.log();
    assert!(log.contains("this one fetches for itself"), "the other filter had no effect");
    let lines = log.lines().filter(|line| line.contains("wasm log")).count();
    assert!(lines < 200, "{lines} lines");
}

/// Two Keystile filters in one chain share the VM, the lease and the data, and each uses its own policy.
#[tokio::test]
async fn two_filters_in_one_vm_have_separate_policies() {
    let deployment = Deployment::start(Options {
        plugin: |configuration| {
            configuration["control_plane"]["wait_seconds"] = json!(2);
            configuration["strip_credential"] = json!(false);
        },
        envoy: |settings| {
            // The first filter only reports, so the second one refuses.
            let behind = settings.plugin_configuration.clone();
            settings.plugin_configuration["mode"] = json!("report");
            settings.plugin_configuration["identity_prefix"] = json!("x-first-");
            let code = json!({ "local": { "filename": settings.wasm } });
            settings.filters_behind.push(filter("second", code, &behind.to_string()));
        },
        ..Options::default()
    })
    .await
    .unwrap();
    let (admin, mut workers) = deployment.admitted_token().await.unwrap();
    for _ in 0..3 {
        let victim = deployment.control_plane.token().await.unwrap();
        for worker in &mut workers {
            let echo = worker.get(&victim).await.unwrap().expect(200).unwrap().json().unwrap();
            for name in ["x-first-subject", "x-keystile-subject"] {
                assert!(echo["headers"][name].is_array(), "{name}: {echo}");
            }
        }
        deployment.control_plane.revoke(&admin, json!({ "token": victim })).await.unwrap();
        Envoy::wait_refusing(&mut workers, &victim, 401, "revoked").await;
    }
    eventually("the first filter reports it as well", async || {
        anyhow::ensure!(deployment.envoy.metric("keystile_reported_revoked").await? > 0);
        Ok(())
    })
    .await;
}

/// Returns a filter that ignores requests, and writes these keys of Keystile all the time.
fn hostile_filter(settings: &Settings, keys: &[&str]) -> Value {
    let root = settings.plugin_configuration["root_keys"][0].as_str().unwrap().to_owned();
    let prefix =
        format!("keystile/keystile/{}/{root}/", settings.plugin_configuration["audience"].as_str().unwrap());
    let mut data = String::new();
    let mut writes = String::new();
    for (number, key) in keys.iter().enumerate() {
        let (name, at) = (format!("{prefix}{key}"), 1024 + 512 * number);
        assert!(name.len() < 512, "{name}");
        data.push_str(&format!("(data (i32.const {at}) \"{name}\")\n"));
        let size = name.len();
        writes.push_str(&format!(
            "(drop (call $set (i32.const {at}) (i32.const {size}) (i32.const 16) (i32.const 16) (i32.const 0)))\n"
        ));
    }
    let module = HOSTILE.replace(";; DATA", &data).replace(";; WRITES", &writes);
    let code = base64url::encode(&wat::parse_str(module).unwrap());
    let padded = format!("{code}{}", "=".repeat((4 - code.len() % 4) % 4));
    filter("hostile", json!({ "local": { "inline_bytes": padded.replace('-', "+").replace('_', "/") } }), "")
}

/// Returns its configuration, with Keystile's `vm_id`.
fn filter(name: &str, code: Value, configuration: &str) -> Value {
    json!({
        "name": name,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": name,
                "root_id": name,
                "failure_policy": "FAIL_RELOAD",
                "vm_config": { "vm_id": "keystile", "runtime": "envoy.wasm.runtime.v8", "code": code },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": configuration,
                },
            },
        },
    })
}

/// At each tick it writes a lease of an unknown worker until 900 ms from now. The same bytes are an unknown stamp and an
/// invalid manifest.
const HOSTILE: &str = r#"(module
  (import "env" "proxy_set_shared_data" (func $set (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_current_time_nanoseconds" (func $now (param i32) (result i32)))
  (import "env" "proxy_set_tick_period_milliseconds" (func $period (param i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 16) "stranger")
  ;; DATA
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 65536))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_configure") (param i32 i32) (result i32)
    (drop (call $period (i32.const 5)))
    (i32.const 1))
  (func (export "proxy_on_tick") (param i32)
    (local $until i64) (local $at i32)
    (drop (call $now (i32.const 0)))
    (local.set $until (i64.add (i64.div_u (i64.load (i32.const 0)) (i64.const 1000000)) (i64.const 900)))
    (local.set $at (i32.const 31))
    (loop $byte
      (i64.store8 (local.get $at) (local.get $until))
      (local.set $until (i64.shr_u (local.get $until) (i64.const 8)))
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (br_if $byte (i32.gt_u (local.get $at) (i32.const 23))))
    ;; WRITES
  )
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0)))"#;
