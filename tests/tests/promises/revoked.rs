//! Every worker refuses a revoked credential, and no other, under traffic.

use harness::{Connection, Deployment, Envoy, Options, Store};
use hyper::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use token::Fingerprint;
use tokio::task::JoinHandle;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_by_fingerprint() {
    check_revocation(async |fixture| {
        let victim = fixture.deployment.control_plane.token().await.unwrap();
        let fingerprint = Fingerprint::digest(victim.as_bytes()).to_string();
        fixture.check_refused_after(&victim, json!({ "fingerprint": fingerprint }), "revoked").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_by_token() {
    check_revocation(async |fixture| {
        let victim = fixture.deployment.control_plane.token().await.unwrap();
        fixture.check_refused_after(&victim, json!({ "token": victim }), "revoked").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_by_user_watermark() {
    check_revocation(async |fixture| {
        let issue = ["token", "issue", "--operator", &fixture.operator.clone(), "--user", "alice"];
        let issue =
            || fixture.deployment.control_plane.cli(issue).unwrap()["token"].as_str().unwrap().to_owned();
        let (victim, other_victim) = (issue(), issue());
        let subject = format!("{}/alice", fixture.operator);
        fixture.admitted(&other_victim).await;
        fixture.check_refused_after(&victim, json!({ "subject": subject }), "watermark").await;
        fixture.refused(&other_victim, "watermark").await;
        // A credential that is issued afterwards is valid at once, even within the same second.
        fixture.admitted(&issue()).await;
    })
    .await;
}

/// Deleting an AuthKey refuses its tokens, and its exchange.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_by_deleting_its_auth_key() {
    check_revocation(async |fixture| {
        let path = format!("/v1/operators/{}/auth_keys", fixture.operator);
        let api = &fixture.deployment.control_plane;
        let made =
            api.api(Method::POST, &path, &fixture.admin, json!({})).await.unwrap().expect(201).unwrap();
        let made = made.json().unwrap();
        let (id, key) = (made["authKeyId"].as_str().unwrap(), made["authKey"].as_str().unwrap());
        let victim = api.authenticate(id, key).await.unwrap().token;
        fixture.admitted(&victim).await;
        let path = format!("{path}/{id}");
        api.api(Method::DELETE, &path, &fixture.admin, Value::Null).await.unwrap().expect(204).unwrap();
        fixture.refused(&victim, "watermark").await;
        api.authenticate(id, key).await.unwrap_err();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_by_its_api_key() {
    check_revocation(async |fixture| {
        let root = fixture.deployment.control_plane.root().clone();
        let victim =
            fixture.deployment.control_plane.authenticate(&root.auth_key_id, &root.auth_key).await.unwrap();
        fixture.check_refused_after(&victim.token, json!({ "keyId": victim.api_key }), "watermark").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_by_logout() {
    check_revocation(async |fixture| {
        let victim = fixture.deployment.control_plane.token().await.unwrap();
        fixture.admitted(&victim).await;
        let api = &fixture.deployment.control_plane;
        api.api(Method::POST, "/v1/auth/logout", &victim, Value::Null).await.unwrap().expect(204).unwrap();
        fixture.refused(&victim, "revoked").await;
        let again = api.api(Method::POST, "/v1/auth/logout", &victim, Value::Null).await.unwrap();
        assert_eq!(again.status, 401, "the control plane accepts a token that its edges refuse");
    })
    .await;
}

/// A command revokes beside a running server, on both databases.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_by_command_on_postgresql() {
    let fixture = RevocationFixture::start(Store::Postgres).await;
    let victim = fixture.deployment.control_plane.token().await.unwrap();
    fixture.admitted(&victim).await;
    fixture.deployment.control_plane.cli(["revoke", "--token", &victim]).unwrap();
    fixture.refused(&victim, "revoked").await;
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_by_command_on_sqlite() {
    check_revocation(async |fixture| {
        let victim = fixture.deployment.control_plane.token().await.unwrap();
        fixture.admitted(&victim).await;
        fixture.deployment.control_plane.cli(["revoke", "--token", &victim]).unwrap();
        fixture.refused(&victim, "revoked").await;
    })
    .await;
}

async fn check_revocation(play: impl AsyncFnOnce(&RevocationFixture)) {
    let fixture = RevocationFixture::start(Store::Sqlite).await;
    play(&fixture).await;
    fixture.finish().await;
}

/// A deployment in which other clients send requests to every worker without a pause, and must never be refused.
struct RevocationFixture {
    deployment: Deployment,
    operator: String,
    /// A token of the root user, for the API.
    admin: String,
    workers: tokio::sync::Mutex<Vec<Connection>>,
    bystanders: Vec<JoinHandle<()>>,
    over: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
}

impl RevocationFixture {
    async fn start(store: Store) -> Self {
        let deployment = Deployment::start(Options { store, ..Options::default() }).await.unwrap();
        let (admin, workers) = deployment.admitted_token().await.unwrap();
        let bystander = deployment.control_plane.token().await.unwrap();
        let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut bystanders = Vec::new();
        for mut worker in deployment.envoy.workers().await.unwrap() {
            let (bystander, over, asked) = (bystander.clone(), over.clone(), asked.clone());
            bystanders.push(tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let response = worker.get(&bystander).await.unwrap();
                    assert_eq!(response.status, 200, "another client was refused: {}", response.text());
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        let operator = deployment.control_plane.root().operator_id.clone();
        Self { deployment, operator, admin, workers: workers.into(), bystanders, over, asked }
    }

    /// Checks that every worker admits the token before and refuses it after.
    async fn check_refused_after(&self, token: &str, revocation: Value, code: &str) {
        self.admitted(token).await;
        self.deployment.control_plane.revoke(&self.admin, revocation).await.unwrap();
        self.refused(token, code).await;
    }

    async fn admitted(&self, token: &str) {
        for worker in self.workers.lock().await.iter_mut() {
            worker.get(token).await.unwrap().expect(200).unwrap();
        }
    }

    async fn refused(&self, token: &str, code: &str) {
        Envoy::wait_refusing(&mut self.workers.lock().await, token, 401, code).await;
    }

    async fn finish(self) {
        self.over.store(true, Ordering::Relaxed);
        for bystander in self.bystanders {
            bystander.await.unwrap();
        }
        assert!(self.asked.load(Ordering::Relaxed) > 0, "there was no traffic");
    }
}
