//! Two servers on one PostgreSQL.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    edges::wait_until_it_waits,
    world::{Server, World, eventually, text, version},
};

#[tokio::test]
async fn what_one_acknowledges_the_other_publishes() {
    let world = World::on_postgres().await;
    let credential = world.edge("one");
    let (here, there) = (world.serve(), world.serve());
    let root = text(&here.exchange(&world.auth_key_id, &world.auth_key).await["token"]);
    for _ in 0..5 {
        let victim = text(&here.exchange(&world.auth_key_id, &world.auth_key).await["token"]);
        let have = version(there.manifest(&credential, 0, 0).send().await.unwrap().headers());
        let waiting = tokio::spawn(there.manifest(&credential, have, 20).send());
        wait_until_it_waits(&there).await;
        assert_eq!(here.revoke(&root, json!({ "token": victim })).await.status(), 200);
        let acknowledged = Instant::now();
        let response = waiting.await.unwrap().unwrap();
        assert!(acknowledged.elapsed() < Duration::from_millis(500), "{:?}", acknowledged.elapsed());
        assert!(version(response.headers()) > have);
        assert_eq!(there.verdict(&world, &victim).await, (401, "revoked".to_owned()));
        assert_eq!(there.verdict(&world, &root).await.0, 200);
    }
}

/// An edge that changes between them never gets an earlier version.
#[tokio::test]
async fn versions_never_go_back_between_them() {
    let world = World::on_postgres().await;
    let credential = world.edge("one");
    let servers = [world.serve(), world.serve()];
    let mut have = 0;
    for round in 0..40 {
        let server = &servers[round % 2];
        if round % 4 == 0 {
            world.json(&["revoke", "--fingerprint", &format!("{round:016x}{}", "0".repeat(48))]);
        }
        let response = server.manifest(&credential, have, 0).send().await.unwrap();
        if response.status() == 200 {
            assert!(version(response.headers()) >= have);
            have = version(response.headers());
        }
    }
    let last = world.json(&["bundle", "show"])["version"].as_u64().unwrap();
    for server in &servers {
        eventually("the last version", async || {
            let response = server.manifest(&credential, 0, 0).send().await.unwrap();
            (version(response.headers()) == last).then_some(())
        })
        .await;
    }
}

/// A replica without the key file publishes, and loads the key when the file appears.
#[tokio::test]
async fn a_replica_without_the_signing_key_is_not_ready() {
    let world = World::on_postgres().await;
    let replica = world.replica();
    let (here, there) = (world.serve(), replica.serve());
    let ready = async |server: &Server| {
        let response = server.get("/readyz").send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!((ready(&here).await.0, ready(&there).await.0), (200, 200));
    let token = text(&here.exchange(&world.auth_key_id, &world.auth_key).await["token"]);
    let old = token::Unverified::parse(token.as_bytes()).unwrap().kid().to_owned();
    world.json(&["key", "retire", &old, "--yes"]);
    let told = eventually("not being ready", async || {
        let (status, told) = ready(&there).await;
        (status == 503).then_some(told)
    })
    .await;
    assert!(told.contains("signing_key_missing"), "{told}");
    assert_eq!(ready(&here).await.0, 200);
    let revoked = world.json(&["revoke", "--fingerprint", &"1".repeat(64)]);
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
        .args([world.data().join("keys"), replica.data()])
        .status()
        .unwrap();
    assert!(copied.success());
    eventually("being ready", async || (ready(&there).await.0 == 200).then_some(())).await;
    there.exchange(&world.auth_key_id, &world.auth_key).await;
}
