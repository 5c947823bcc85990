//! After a database is restored from a backup, no worker admits a credential that was revoked since. After the repair,
//! credentials that were issued since are refused too.

use harness::client::bearer;
use harness::{Deployment, Envoy, Options};
use hyper::Request;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restored_database_admits_no_revoked_credential() {
    let plugin = |plugin: &mut Value| plugin["api_keys"] = json!({});
    let mut deployment = Deployment::start(Options { plugin, ..Options::default() }).await.unwrap();
    let operator = deployment.control_plane.root().operator_id.clone();
    let victim = deployment.control_plane.token().await.unwrap();
    let known = api_key(&deployment, &operator);
    let (good, _) = deployment.admitted_token().await.unwrap();
    deployment.control_plane.stop().unwrap();
    let backup = deployment.scratch.folder().join("backup");
    fs::create_dir(&backup).unwrap();
    copy_database(deployment.control_plane.data(), &backup);

    deployment.control_plane.serve().await.unwrap();
    deployment.control_plane.cli(["revoke", "--token", &victim]).unwrap();
    let lost = api_key(&deployment, &operator);
    let lost_token = deployment.control_plane.token().await.unwrap();
    let mut workers = deployment.envoy.wait_admitting(&lost_token).await.unwrap();
    Envoy::wait_refusing(&mut workers, &victim, 401, "revoked").await;
    for worker in &mut workers {
        worker.send(with_username(&lost, &operator)).await.unwrap().expect(200).unwrap();
    }
    deployment.control_plane.kill().unwrap();
    copy_database(&backup, deployment.control_plane.data());

    // The running edge continues, and a new one gets the revocations that the database lacks.
    deployment.control_plane.serve().await.unwrap();
    Envoy::wait_refusing(&mut workers, &victim, 401, "revoked").await;
    let folder = deployment.scratch.folder().join("afresh");
    fs::create_dir(&folder).unwrap();
    let mut settings = deployment.envoy.settings().clone();
    (settings.listen, settings.admin) = (deployment.scratch.address(8090), deployment.scratch.address(9911));
    let afresh = Envoy::start(settings, &folder).await.unwrap();
    let mut others = afresh.wait_admitting(&good).await.unwrap();
    Envoy::wait_refusing(&mut others, &victim, 401, "revoked").await;

    let done = deployment.control_plane.cli(["restore", "--repair", "--yes"]).unwrap();
    assert_eq!(done["repaired"], true, "{done}");
    let (new, new_token) = (api_key(&deployment, &operator), deployment.control_plane.token().await.unwrap());
    for envoy in [&deployment.envoy, &afresh] {
        let mut workers = envoy.wait_admitting(&new_token).await.unwrap();
        Envoy::wait_refusing(&mut workers, &lost_token, 401, "issuance_unknown").await;
        Envoy::wait_refusing(&mut workers, &victim, 401, "revoked").await;
        for worker in &mut workers {
            worker.get(&good).await.unwrap().expect(200).unwrap();
            for (key, status) in [(&lost, 401), (&known, 200), (&new, 200)] {
                let answer = worker.send(with_username(key, &operator)).await.unwrap();
                answer.expect(status).unwrap();
            }
        }
    }
}

fn api_key(deployment: &Deployment, owner: &str) -> String {
    let made = deployment.control_plane.cli(["key", "create", "--user", owner]).unwrap();
    made["api_key"].as_str().unwrap().to_owned()
}

fn with_username(key: &str, username: &str) -> Request<String> {
    let mut request = bearer(key);
    request.headers_mut().insert("x-username", username.parse().unwrap());
    request
}

/// With the write-ahead log, while no server runs.
fn copy_database(from: &Path, to: &Path) {
    for file in ["keystile.db", "keystile.db-wal", "keystile.db-shm"] {
        let _ = fs::remove_file(to.join(file));
        if from.join(file).exists() {
            fs::copy(from.join(file), to.join(file)).unwrap();
        }
    }
}
