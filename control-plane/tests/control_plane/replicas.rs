//! Two servers on one PostgreSQL.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    edges::wait_until_polling,
    test_env::{Server, TestEnv, entity_tag_version, eventually, json_text},
};

#[tokio::test]
async fn replica_publishes_changes_of_another() {
    let env = TestEnv::on_postgres().await;
    let credential = env.enroll_edge("one");
    let (here, there) = (env.serve(), env.serve());
    let root = json_text(&here.exchange(&env.auth_key_id, &env.auth_key).await["token"]);
    for _ in 0..5 {
        let victim = json_text(&here.exchange(&env.auth_key_id, &env.auth_key).await["token"]);
        let have = entity_tag_version(there.manifest(&credential, 0, 0).send().await.unwrap().headers());
        let waiting = tokio::spawn(there.manifest(&credential, have, 20).send());
        wait_until_polling(&there).await;
        assert_eq!(here.revoke(&root, json!({ "token": victim })).await.status(), 200);
        let acknowledged = Instant::now();
        let response = waiting.await.unwrap().unwrap();
        assert!(acknowledged.elapsed() < Duration::from_millis(500), "{:?}", acknowledged.elapsed());
        assert!(entity_tag_version(response.headers()) > have);
        assert_eq!(there.own_api_decision(&env, &victim).await, (401, "revoked".to_owned()));
        assert_eq!(there.own_api_decision(&env, &root).await.0, 200);
    }
}

/// An edge that changes between them never gets an earlier version.
#[tokio::test]
async fn versions_of_replicas_never_decrease() {
    let env = TestEnv::on_postgres().await;
    let credential = env.enroll_edge("one");
    let servers = [env.serve(), env.serve()];
    let mut have = 0;
    for round in 0..40 {
        let server = &servers[round % 2];
        if round % 4 == 0 {
            env.json(&["revoke", "--fingerprint", &format!("{round:016x}{}", "0".repeat(48))]);
        }
        let response = server.manifest(&credential, have, 0).send().await.unwrap();
        if response.status() == 200 {
            assert!(entity_tag_version(response.headers()) >= have);
            have = entity_tag_version(response.headers());
        }
    }
    let last = env.json(&["bundle", "show"])["version"].as_u64().unwrap();
    for server in &servers {
        eventually("the last version", async || {
            let response = server.manifest(&credential, 0, 0).send().await.unwrap();
            (entity_tag_version(response.headers()) == last).then_some(())
        })
        .await;
    }
}

/// A replica without the key file publishes, and loads the key when the file appears.
#[tokio::test]
async fn replica_without_signing_key_is_not_ready() {
    let env = TestEnv::on_postgres().await;
    let replica = env.replica();
    let (here, there) = (env.serve(), replica.serve());
    let ready = async |server: &Server| {
        let response = server.get("/readyz").send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!((ready(&here).await.0, ready(&there).await.0), (200, 200));
    let token = json_text(&here.exchange(&env.auth_key_id, &env.auth_key).await["token"]);
    let old = token::Unverified::parse(token.as_bytes()).unwrap().kid().to_owned();
    env.json(&["key", "retire", &old, "--yes"]);
    let message = eventually("not being ready", async || {
        let (status, message) = ready(&there).await;
        (status == 503).then_some(message)
    })
    .await;
    assert!(message.contains("signing_key_missing"), "{message}");
    assert_eq!(ready(&here).await.0, 200);
    let revoked = env.json(&["revoke", "--fingerprint", &"1".repeat(64)]);
    eventually("the revocation from both", async || {
        for server in [&here, &there] {
            let health: Value = server.get("/healthz").send().await.unwrap().json().await.unwrap();
            if health["version"].as_u64() < revoked["version"].as_u64() {
                return None;
            }
        }
        Some(())
    })
    .await;
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([env.data().join("keys"), replica.data()])
        .status()
        .unwrap();
    assert!(copied.success());
    eventually("being ready", async || (ready(&there).await.0 == 200).then_some(())).await;
    there.exchange(&env.auth_key_id, &env.auth_key).await;
}
