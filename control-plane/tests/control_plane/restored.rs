//! A restored backup does not keep edges from what is revoked afterwards.

use std::{fs, path::Path};

use serde_json::json;

use crate::{
    postgres,
    world::{Server, World, text, version},
};

#[tokio::test]
async fn edges_take_what_a_restored_database_publishes() {
    let world = World::on_sqlite().await;
    let credential = world.edge("one");
    let backup = world.folder().join("backup");
    fs::create_dir(&backup).unwrap();
    copy_database(&world.data(), &backup);

    let server = world.serve();
    for _ in 0..3 {
        world.json(&["revoke", "--token", &world.token()]);
    }
    let before = server.manifest(&credential, 0, 0).send().await.unwrap();
    let have = version(before.headers());
    end(server);
    copy_database(&backup, &world.data());

    takes_the_next_revocation(&world, &credential, have).await;
}

/// The same of a database whose versions were counted, by an earlier release or a hand.
#[tokio::test]
async fn edges_take_what_a_database_with_an_older_version_publishes() {
    let world = World::on_postgres().await;
    let credential = world.edge("one");
    let server = world.serve();
    let have = version(server.manifest(&credential, 0, 0).send().await.unwrap().headers());
    end(server);
    postgres::execute(&world.url, "UPDATE bundle_state SET version = 1");
    takes_the_next_revocation(&world, &credential, have).await;
}

async fn takes_the_next_revocation(world: &World, credential: &str, have: u64) {
    let server = world.serve();
    let response = server.manifest(credential, have, 0).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let healed = version(response.headers());
    assert!(healed > have, "{healed} after {have}");
    let root = text(&server.exchange(&world.auth_key_id, &world.auth_key).await["token"]);
    let revoked = server.revoke(&root, json!({ "token": world.token() })).await;
    assert_eq!(revoked.status(), 200);
    let response = server.manifest(credential, healed, 5).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(version(response.headers()) > healed);
    assert!(!world.log().contains("holds a version above the latest"));
}

fn end(mut server: Server) {
    server.signal("TERM");
    assert!(server.wait().success());
}

/// With the write-ahead log, while no server runs.
pub(crate) fn copy_database(from: &Path, to: &Path) {
    for file in ["keystile.db", "keystile.db-wal", "keystile.db-shm"] {
        let _ = fs::remove_file(to.join(file));
        if from.join(file).exists() {
            fs::copy(from.join(file), to.join(file)).unwrap();
        }
    }
}
