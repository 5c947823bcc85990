//! Two servers on one PostgreSQL.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    edges::wait_until_it_waits,
    world::{World, eventually, text, version},
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

/// An edge that moves between them never goes back.
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
