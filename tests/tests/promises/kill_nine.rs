//! Acknowledged changes survive a `kill -9` of the control plane during writes.

use harness::{Deployment, Envoy, Options, Store};
use hyper::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Barrier, Mutex};
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_kill_on_sqlite() {
    nothing_is_lost(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_kill_on_postgresql() {
    nothing_is_lost(Store::Postgres).await;
}

async fn nothing_is_lost(store: Store) {
    // A fast machine makes more AuthKeys before the kill than one operator may have by default.
    let settings = vec![("KEYSTILE_LIMITS__AUTH_KEYS", "100000".to_owned())];
    let mut deployment = Deployment::start(Options { store, settings, ..Options::default() }).await.unwrap();
    let (admin, mut workers) = deployment.admitted_token().await.unwrap();
    let mut auth_keys = BTreeSet::new();
    let mut revoked = Vec::new();
    for round in 0..ROUNDS {
        // Issue the tokens first, so that only revocations run during the kill.
        let mut victims = Vec::new();
        for _ in 0..VICTIMS {
            victims.push(deployment.control_plane.token().await.unwrap());
        }
        let acknowledged = write_until_killed(&mut deployment, &admin, victims).await;
        assert!(acknowledged.any_of_both(), "round {round}: no change was acknowledged before the kill");
        auth_keys.extend(acknowledged.auth_keys);
        revoked.extend(acknowledged.revoked);

        deployment.control_plane.serve().await.unwrap();
        let path = format!("/v1/operators/{}/auth_keys", deployment.control_plane.root().operator_id);
        let listed = deployment.control_plane.api(Method::GET, &path, &admin, Value::Null).await.unwrap();
        let listed = listed.expect(200).unwrap().text();
        let lost: Vec<_> = auth_keys.iter().filter(|id| !listed.contains(*id)).collect();
        assert!(lost.is_empty(), "round {round}: acknowledged AuthKeys are lost: {lost:?}");
        for token in &revoked {
            Envoy::wait_refusing(&mut workers, token, 401, "revoked").await;
        }
    }
}

#[derive(Default)]
struct Acknowledged {
    auth_keys: Vec<String>,
    revoked: Vec<String>,
}

impl Acknowledged {
    fn any_of_both(&self) -> bool {
        !self.auth_keys.is_empty() && !self.revoked.is_empty()
    }
}

/// Runs several independent writers until the server has ended.
async fn write_until_killed(deployment: &mut Deployment, admin: &str, victims: Vec<String>) -> Acknowledged {
    let address = deployment.control_plane.address();
    let path = format!("/v1/operators/{}/auth_keys", deployment.control_plane.root().operator_id);
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    let victims = Arc::new(Mutex::new(victims));
    let start = Arc::new(Barrier::new(2 * WRITERS + 1));
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let (start, acknowledged, path, admin) =
            (start.clone(), acknowledged.clone(), path.clone(), admin.to_owned());
        writers.spawn(async move {
            start.wait().await;
            while let Some(made) = post(address, &path, &admin, json!({}), 201).await {
                let id = made["authKeyId"].as_str().unwrap().to_owned();
                acknowledged.lock().await.auth_keys.push(id);
            }
        });
    }
    for _ in 0..WRITERS {
        let (start, acknowledged, victims, admin) =
            (start.clone(), acknowledged.clone(), victims.clone(), admin.to_owned());
        writers.spawn(async move {
            start.wait().await;
            while let Some(token) = { victims.lock().await.pop() } {
                if post(address, "/revocations", &admin, json!({ "token": token }), 200).await.is_none() {
                    break;
                }
                acknowledged.lock().await.revoked.push(token);
            }
        });
    }
    start.wait().await;
    // Kill the server after some of each are acknowledged, while the others are in progress.
    harness::eventually("some writes are acknowledged", async || {
        if acknowledged.lock().await.any_of_both() { Ok(()) } else { Err("none") }
    })
    .await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    deployment.control_plane.kill().unwrap();
    writers.join_all().await;
    std::mem::take(&mut *acknowledged.lock().await)
}

/// Returns `None` if the server has ended.
async fn post(
    address: std::net::SocketAddr,
    path: &str,
    token: &str,
    body: Value,
    expected: u16,
) -> Option<Value> {
    let mut request = harness::client::bearer(token);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = path.parse().unwrap();
    *request.body_mut() = body.to_string();
    let response = harness::client::send(address, request).await.ok()?;
    Some(response.expect(expected).unwrap().json().unwrap())
}

const ROUNDS: usize = 3;
const WRITERS: usize = 4;
const VICTIMS: usize = 60;
