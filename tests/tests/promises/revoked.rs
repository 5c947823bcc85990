//! What is revoked is refused by every worker, and nothing else is, while traffic flows.

use harness::{Connection, Envoy, Options, Store, World};
use hyper::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use token::Fingerprint;
use tokio::task::JoinHandle;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_fingerprint() {
    check(async |stage| {
        let victim = stage.world.control_plane.token().await.unwrap();
        let fingerprint = Fingerprint::digest(victim.as_bytes()).to_string();
        stage.refused_after(&victim, json!({ "fingerprint": fingerprint }), "revoked").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_the_token_itself() {
    check(async |stage| {
        let victim = stage.world.control_plane.token().await.unwrap();
        stage.refused_after(&victim, json!({ "token": victim }), "revoked").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_a_watermark_for_a_user() {
    check(async |stage| {
        let issue = ["token", "issue", "--operator", &stage.operator.clone(), "--user", "alice"];
        let issue = || stage.world.control_plane.cli(issue).unwrap()["token"].as_str().unwrap().to_owned();
        let (victim, other_victim) = (issue(), issue());
        let subject = format!("{}/alice", stage.operator);
        stage.admitted(&other_victim).await;
        stage.refused_after(&victim, json!({ "subject": subject }), "watermark").await;
        stage.refused(&other_victim, "watermark").await;
        // What is issued afterwards is good at once, within the same second too.
        stage.admitted(&issue()).await;
    })
    .await;
}

/// The AuthKey's watermark: what it bought is refused, and so is what it could buy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_the_end_of_its_auth_key() {
    check(async |stage| {
        let path = format!("/v1/operators/{}/auth_keys", stage.operator);
        let api = &stage.world.control_plane;
        let made = api.api(Method::POST, &path, &stage.admin, json!({})).await.unwrap().expect(201).unwrap();
        let made = made.json().unwrap();
        let (id, key) = (made["authKeyId"].as_str().unwrap(), made["authKey"].as_str().unwrap());
        let victim = api.authenticate(id, key).await.unwrap().token;
        stage.admitted(&victim).await;
        let path = format!("{path}/{id}");
        api.api(Method::DELETE, &path, &stage.admin, Value::Null).await.unwrap().expect(204).unwrap();
        stage.refused(&victim, "watermark").await;
        api.authenticate(id, key).await.unwrap_err();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_its_api_key() {
    check(async |stage| {
        let root = stage.world.control_plane.root().clone();
        let victim = stage.world.control_plane.authenticate(&root.auth_key_id, &root.auth_key).await.unwrap();
        stage.refused_after(&victim.token, json!({ "keyId": victim.api_key }), "watermark").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_logging_out() {
    check(async |stage| {
        let victim = stage.world.control_plane.token().await.unwrap();
        stage.admitted(&victim).await;
        let api = &stage.world.control_plane;
        api.api(Method::POST, "/v1/auth/logout", &victim, Value::Null).await.unwrap().expect(204).unwrap();
        stage.refused(&victim, "revoked").await;
        let again = api.api(Method::POST, "/v1/auth/logout", &victim, Value::Null).await.unwrap();
        assert_eq!(again.status, 401, "the control plane believes what its edges refuse");
    })
    .await;
}

/// Beside a running server, and on the store that replicas share.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_a_command_on_postgresql() {
    let stage = Stage::set(Store::Postgres).await;
    let victim = stage.world.control_plane.token().await.unwrap();
    stage.admitted(&victim).await;
    stage.world.control_plane.cli(["revoke", "--token", &victim]).unwrap();
    stage.refused(&victim, "revoked").await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_a_command_on_sqlite() {
    check(async |stage| {
        let victim = stage.world.control_plane.token().await.unwrap();
        stage.admitted(&victim).await;
        stage.world.control_plane.cli(["revoke", "--token", &victim]).unwrap();
        stage.refused(&victim, "revoked").await;
    })
    .await;
}

async fn check(play: impl AsyncFnOnce(&Stage)) {
    let stage = Stage::set(Store::Sqlite).await;
    play(&stage).await;
    stage.end().await;
}

/// A world in which bystanders ask without pause on every worker, and must never be refused.
struct Stage {
    world: World,
    operator: String,
    /// A token of the root user, for the API.
    admin: String,
    workers: tokio::sync::Mutex<Vec<Connection>>,
    bystanders: Vec<JoinHandle<()>>,
    over: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
}

impl Stage {
    async fn set(store: Store) -> Self {
        let world = World::start(Options { store, ..Options::default() }).await.unwrap();
        let (admin, workers) = world.admitted().await.unwrap();
        let bystander = world.control_plane.token().await.unwrap();
        let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut bystanders = Vec::new();
        for mut worker in world.envoy.workers().await.unwrap() {
            let (bystander, over, asked) = (bystander.clone(), over.clone(), asked.clone());
            bystanders.push(tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let response = worker.get(&bystander).await.unwrap();
                    assert_eq!(response.status, 200, "a bystander was refused: {}", response.text());
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        let operator = world.control_plane.root().operator_id.clone();
        Self { world, operator, admin, workers: workers.into(), bystanders, over, asked }
    }

    /// Admitted by every worker before, refused by every worker after.
    async fn refused_after(&self, token: &str, revocation: Value, code: &str) {
        self.admitted(token).await;
        self.world.control_plane.revoke(&self.admin, revocation).await.unwrap();
        self.refused(token, code).await;
    }

    async fn admitted(&self, token: &str) {
        for worker in self.workers.lock().await.iter_mut() {
            worker.get(token).await.unwrap().expect(200).unwrap();
        }
    }

    async fn refused(&self, token: &str, code: &str) {
        Envoy::refusing(&mut self.workers.lock().await, token, 401, code).await;
    }

    async fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        for bystander in self.bystanders {
            bystander.await.unwrap();
        }
        assert!(self.asked.load(Ordering::Relaxed) > 0, "no traffic flowed");
    }
}
