//! Envoy agrees with a set of fingerprints after thousands of tokens are issued, some are revoked and un-revoked, the base
//! is built, and the control plane is restarted and killed.

use crate::fixture::{Fixture, Overrides};
use harness::{Store, client::Connection, eventually};
use hyper::Request;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_agrees_with_plain_set_on_sqlite() {
    check_agreement(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_agrees_with_plain_set_on_postgresql() {
    check_agreement(Store::Postgres).await;
}

async fn check_agreement(store: Store) {
    // The test issues more per minute than the default limit of an operator.
    let unlimited = [
        "KEYSTILE_LIMITS__TOKENS_PER_MINUTE",
        "KEYSTILE_LIMITS__REVOCATIONS_PER_MINUTE",
        "KEYSTILE_SERVER__REQUESTS_PER_SECOND",
    ];
    let settings = unlimited.map(|name| (name, "0".to_owned())).to_vec();
    let mut fixture =
        Fixture::start(Overrides { store: Some(store), settings, ..Overrides::default() }).await;
    let mut tokens = issue(&fixture, TOKENS).await;
    let mut revoked = BTreeSet::new();
    revoke(&fixture, &tokens, (0..TOKENS).step_by(9), &mut revoked).await;
    // The base does not cover the current second.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let built = fixture.control_plane.cli(["bundle", "compact"]).unwrap();
    assert_eq!(built["revoked"], json!(revoked.len()));
    assert!(built["members"].as_u64().unwrap() >= TOKENS.try_into().unwrap(), "{built}");
    compare(&mut fixture, &tokens, &revoked, "with a base").await;

    // Revoke and un-revoke in the tail, and un-revoke what the base contains.
    tokens.extend(issue(&fixture, 200).await);
    revoke(&fixture, &tokens, (5..TOKENS).step_by(31).chain(TOKENS..TOKENS + 60), &mut revoked).await;
    for at in (0..TOKENS).step_by(18) {
        fixture.unrevoke(&tokens[at]);
        revoked.remove(&at);
    }
    compare(&mut fixture, &tokens, &revoked, "with a tail").await;
    fixture.control_plane.kill().unwrap();
    fixture.control_plane.serve().await.unwrap();
    compare(&mut fixture, &tokens, &revoked, "after a restart between base and tail").await;

    // Kill the builder at a random step.
    let mut killed = 0;
    for (round, delay) in [0, 5, 15, 30, 60, 120].into_iter().enumerate() {
        let mut building = fixture.control_plane.spawn_cli(["bundle", "compact"]).unwrap();
        tokio::time::sleep(Duration::from_millis(delay)).await;
        // The builder may already have ended.
        killed += usize::from(building.end_with_signal(Signal::KILL).unwrap().signal() == Some(9));
        if round % 2 == 0 {
            fixture.control_plane.kill().unwrap();
            fixture.control_plane.serve().await.unwrap();
        }
        let victim = 7 + round;
        revoke(&fixture, &tokens, [victim], &mut revoked).await;
        fixture.wait_refused(&tokens[victim]).await;
    }
    assert!(killed >= 2, "only {killed} builders were killed before their end");
    compare(&mut fixture, &tokens, &revoked, "after builders were killed").await;
    let log = fixture.envoy.log();
    for regression in ["checkpoint_older", "tail_lost", "bundle_stale"] {
        assert!(!log.contains(regression), "{log}");
    }
}

async fn issue(fixture: &Fixture, count: usize) -> Vec<String> {
    let root = fixture.control_plane.root();
    let body = json!({ "authKeyId": root.auth_key_id, "authKey": root.auth_key }).to_string();
    let mut connection = Connection::open(fixture.control_plane.address()).await.unwrap();
    let mut tokens = Vec::new();
    for at in 0..count {
        // A server limits the number of requests on one connection.
        if at > 0 && at % 500 == 0 {
            connection = Connection::open(fixture.control_plane.address()).await.unwrap();
        }
        let request = Request::post("/v1/auth").body(body.clone()).unwrap();
        let session: Value = connection.send(request).await.unwrap().expect(200).unwrap().json().unwrap();
        tokens.push(session["token"].as_str().unwrap().to_owned());
    }
    tokens
}

async fn revoke(
    fixture: &Fixture,
    tokens: &[String],
    which: impl IntoIterator<Item = usize>,
    revoked: &mut BTreeSet<usize>,
) {
    for at in which {
        fixture.revoke(&tokens[at]).await;
        revoked.insert(at);
    }
}

/// Waits until the edge has the latest version, and checks every result.
async fn compare(fixture: &mut Fixture, tokens: &[String], revoked: &BTreeSet<usize>, when: &str) {
    eventually("the edge has the latest", async || {
        let edges = fixture.control_plane.cli(["edge", "list"])?;
        anyhow::ensure!(edges[0]["current"] == json!(true), "{when}: {edges}");
        Ok(())
    })
    .await;
    for worker in &mut fixture.workers {
        for (at, token) in tokens.iter().enumerate() {
            let expected = if revoked.contains(&at) { 401 } else { 200 };
            let response = worker.get(token).await.unwrap();
            assert_eq!(response.status, expected, "{when}: token {at}: {}", response.text());
        }
    }
}

const TOKENS: usize = 1500;
