//! Clients cannot exhaust the control plane: during an attack by clients without a credential or by a tenant, an edge
//! enforces the revocations of another operator, and the memory of the server stays bounded.

use anyhow::{Context, Result, ensure};
use harness::{
    Attack, Attackers, Connection, ControlPlane, Deployment, Envoy, Options, Store, client, eventually,
};
use hyper::Request;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_read() {
    check_withstands(Attack::NoReading).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_read_slowly() {
    check_withstands(Attack::SlowReading).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_send_incomplete_requests() {
    check_withstands(Attack::HalfRequests).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_send_bodies_slowly() {
    check_withstands(Attack::SlowBodies).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_only_connect() {
    check_withstands(Attack::Silence).await;
}

/// Each address has a rate, and a wrong AuthKey counts as several requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_guess_auth_keys() {
    let deployment = start_deployment().await;
    let attackers = Attack::SignIns.start(deployment.control_plane.address(), 20, 2);
    let limited = r#"requests_limited_total{code="address_rate_exceeded"}"#;
    eventually("the attack is limited", async || {
        ensure!(metric_or_zero(&deployment.control_plane, limited).await? > 100.0);
        anyhow::Ok(())
    })
    .await;
    check_enforcement(&deployment, &attackers).await;
    let refused = metric_or_zero(&deployment.control_plane, "keystile_sign_ins_refused_total").await.unwrap();
    ensure_limited(&attackers, refused);
}

/// A tenant revokes as much as it can. Its share of revocations at edges is small here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenant_that_issues_and_revokes_without_limit() {
    let deployment = start_deployment().await;
    let tenant = deployment.control_plane.cli(["operator", "create"]).unwrap()["operator_id"].clone();
    let tenant = tenant.as_str().unwrap();
    let made = deployment.control_plane.cli(["authkey", "create", "--operator", tenant]).unwrap();
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    let attack = Attack::Logouts { auth_key_id: text("auth_key_id"), auth_key: text("auth_key") };
    let attackers = attack.start(deployment.control_plane.address(), 20, 4);
    let limited = r#"requests_limited_total{code="operator_tokens_exceeded"}"#;
    eventually("the attack is limited", async || {
        ensure!(metric_or_zero(&deployment.control_plane, limited).await? > 20.0);
        anyhow::Ok(())
    })
    .await;
    let before = metric_or_zero(&deployment.control_plane, "keystile_bundle_revocations").await.unwrap();
    check_enforcement(&deployment, &attackers).await;
    let held = metric_or_zero(&deployment.control_plane, "keystile_bundle_revocations").await.unwrap();
    // The share of the tenant, and the revocations of this test.
    assert!(before >= 20.0, "the tenant has revoked {before}");
    assert!(held <= 20.0 + ROUNDS as f64, "edges have {held} revocations");
}

/// An attack from as many addresses as there are connections: clients without a credential may have to retry, edges not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_from_many_addresses() {
    let deployment = start_deployment().await;
    let (_, mut workers) = deployment.admitted_token().await.unwrap();
    let tokens =
        [deployment.control_plane.token().await.unwrap(), deployment.control_plane.token().await.unwrap()];
    for token in &tokens {
        for worker in &mut workers {
            eventually("admitted", async || worker.get(token).await?.expect(200)).await;
        }
    }
    let attackers = Attack::NoReading.start(deployment.control_plane.address(), 200, 200);
    eventually("the attack is on", async || {
        ensure!(attackers.connections_made() > 400, "{attackers:?}");
        anyhow::Ok(())
    })
    .await;
    for token in &tokens {
        deployment.control_plane.cli(["revoke", "--token", token]).unwrap();
        Envoy::wait_refusing(&mut workers, token, 401, "revoked").await;
        assert!(attackers.open_connections() > 0);
    }
    assert_memory_below(&deployment.control_plane);
}

/// An attack at the default limits, with as many clients as there are connections. Run it by hand:
/// `cargo test -p keystile-tests --test promises clients_at_default_limits -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute, both cores, and 17,000 open files each for the server and the test"]
async fn clients_at_default_limits() {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: files.maximum, ..files };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    for attack in [Attack::NoReading, Attack::HalfRequests, Attack::Silence] {
        let deployment = Deployment::start(Options::default()).await.unwrap();
        let (_, mut workers) = deployment.admitted_token().await.unwrap();
        let kernel = sockstat();
        println!("{attack:?}: before: {} MB resident, {kernel}", megabytes(&deployment.control_plane));
        let attackers = attack.start(deployment.control_plane.address(), 16_384, 64);
        // The attack lasts longer than any timeout of the server.
        for second in (5..=30).step_by(5) {
            sleep(Duration::from_secs(5)).await;
            let open =
                metric_or_zero(&deployment.control_plane, r#"keystile_connections{of="anonymous"}"#).await;
            println!(
                "  after {second} s: {} connections made, the server has {open:?}, {} MB resident, {}",
                attackers.connections_made(),
                megabytes(&deployment.control_plane),
                sockstat()
            );
        }
        for _ in 0..5 {
            let token = deployment.control_plane.cli([
                "token",
                "issue",
                "--auth-key-id",
                &deployment.control_plane.root().auth_key_id,
            ]);
            let token = token.unwrap()["token"].as_str().unwrap().to_owned();
            for worker in &mut workers {
                eventually("admitted", async || worker.get(&token).await?.expect(200)).await;
            }
            deployment.control_plane.cli(["revoke", "--token", &token]).unwrap();
            let acknowledged = Instant::now();
            Envoy::wait_refusing(&mut workers, &token, 401, "revoked").await;
            println!("  refused by every worker {} ms after the command", acknowledged.elapsed().as_millis());
        }
        assert_memory_below(&deployment.control_plane);
    }
}

async fn check_withstands(attack: Attack) {
    let deployment = start_deployment().await;
    // Several times as many clients as there are connections for them.
    let attackers = attack.start(deployment.control_plane.address(), 200, 5);
    eventually("the attack is on", async || {
        // New connections close older ones, because there are more clients than connections.
        let ended = r#"connections_closed_total{reason="crowded_out"}"#;
        ensure!(metric_or_zero(&deployment.control_plane, ended).await? > 50.0, "{attackers:?}");
        anyhow::Ok(())
    })
    .await;
    check_enforcement(&deployment, &attackers).await;
    let open =
        metric_or_zero(&deployment.control_plane, r#"keystile_connections{of="anonymous"}"#).await.unwrap();
    assert!(open <= 25.0, "clients without a credential have {open} connections");
    assert!(
        metric_or_zero(&deployment.control_plane, r#"keystile_connections{of="edges"}"#).await.unwrap()
            >= 1.0
    );
}

/// Starts a server with a hundred connections, a quarter of them for clients without a credential.
async fn start_deployment() -> Deployment {
    let settings = [
        ("KEYSTILE_SERVER__MAX_CONNECTIONS", "100"),
        ("KEYSTILE_SERVER__ANONYMOUS_CONNECTIONS", "25"),
        ("KEYSTILE_SERVER__CONNECTIONS_PER_ADDRESS", "20"),
        ("KEYSTILE_SERVER__WRITE_TIMEOUT", "500ms"),
        ("KEYSTILE_LIMITS__TOKENS_PER_MINUTE", "100"),
        ("KEYSTILE_LIMITS__REVOCATIONS", "20"),
        ("KEYSTILE_LOG__LEVEL", "info"),
    ];
    let settings = settings.map(|(name, value)| (name, value.to_owned())).to_vec();
    Deployment::start(Options { store: Store::Sqlite, settings, ..Options::default() }).await.unwrap()
}

/// Revokes and checks during the attack. Without reserved connections the edge would not get the revocations.
async fn check_enforcement(deployment: &Deployment, attackers: &Attackers) {
    let control_plane = &deployment.control_plane;
    let (admin, mut workers) =
        eventually("a client gets through", async || deployment.admitted_token().await).await;
    for _ in 0..ROUNDS {
        let token = eventually("a token", async || control_plane.token().await).await;
        wait_admitted(&mut workers, &token).await;
        let (made, requests) = (attackers.connections_made(), attackers.requests());
        eventually("the revocation is acknowledged", async || {
            control_plane.revoke(&admin, json!({ "token": token })).await
        })
        .await;
        Envoy::wait_refusing(&mut workers, &token, 401, "revoked").await;
        wait_admitted(&mut workers, &admin).await;
        assert!(
            attackers.open_connections() > 0
                || attackers.connections_made() > made
                || attackers.requests() > requests
        );
    }
    assert_memory_below(control_plane);
}

async fn wait_admitted(workers: &mut [Connection], token: &str) {
    for worker in workers {
        eventually("a good token is admitted", async || worker.get(token).await?.expect(200)).await;
    }
}

/// Returns the value of a metric, or 0 if it does not exist yet.
async fn metric_or_zero(control_plane: &ControlPlane, metric: &str) -> Result<f64> {
    let request = Request::get("/metrics").body(String::new())?;
    let text = client::send(control_plane.address(), request).await?.expect(200)?.text();
    let line = text.lines().find(|line| !line.starts_with('#') && line.contains(metric));
    line.map_or(Ok(0.0), |line| Ok(line.rsplit(' ').next().context("no value")?.parse()?))
}

fn assert_memory_below(control_plane: &ControlPlane) {
    let megabytes = megabytes(control_plane);
    assert!(megabytes < MAX_RESIDENT_MB, "the server uses {megabytes} MB");
}

fn megabytes(control_plane: &ControlPlane) -> u64 {
    let file = format!("/proc/{}/status", control_plane.id().unwrap());
    let status = std::fs::read_to_string(file).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    resident.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// Returns the memory of all TCP sockets of this machine.
fn sockstat() -> String {
    let text = std::fs::read_to_string("/proc/net/sockstat").unwrap();
    text.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default().to_owned()
}

/// Checks that the rate limited most sign-ins, because a wrong AuthKey counts as ten requests of its address.
fn ensure_limited(attackers: &Attackers, refused: f64) {
    let answered = attackers.requests();
    assert!(
        refused * 2.0 < answered as f64,
        "{refused} of {answered} sign-ins were checked instead of limited"
    );
}

const ROUNDS: usize = 3;

/// The maximum memory in MB: ten times what a debug build uses without an attack.
const MAX_RESIDENT_MB: u64 = 400;
