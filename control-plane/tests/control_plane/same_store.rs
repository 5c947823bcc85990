//! Commands detect whether a server publishes from the same store, and report only what is published.

use std::{fs, path::Path, process::Output};

use serde_json::Value;

use crate::{
    on_both,
    restored::copy_database,
    world::{World, eventually, text},
};

on_both! {
    async fn a_command_promises_what_is_published(world: World) {
        let fingerprint = "1".repeat(64);
        let revoke = || world.run(&["revoke", "--fingerprint", &fingerprint, "--json"]);
        // No edge is enrolled yet.
        let output = revoke();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        says(&output, false, "no server has published it");
        world.edge("one");
        let output = revoke();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        says(&output, false, "no server has published it");
        // The same for other changes of the bundle.
        let user = format!("{}/alice", world.operator);
        world.json(&["user", "create", &user]);
        let document = world.document("permission", &serde_json::json!({ "statements": [] }));
        let verbs: [&[&str]; 5] = [
            &["unrevoke", "--fingerprint", &fingerprint, "--yes"],
            &["user", "permission", "set", &user, &document],
            &["user", "delete", &user, "--yes"],
            &["key", "rotate", "tag"],
            &["authkey", "delete", &world.auth_key_id, "--yes"],
        ];
        for verb in verbs {
            let output = world.run(&[verb, &["--json"]].concat());
            assert_eq!(output.status.code(), Some(3), "{verb:?}: {output:?}");
            says(&output, false, "no server has published it");
        }
        let server = world.serve();
        let output = revoke();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        says(&output, true, "Edges refuse it from version");
        // A repetition changes nothing, and is already published.
        says(&revoke(), true, "Edges refuse it from version");
        // Changes that are not part of the bundle are not reported.
        let output = world.run(&["edge", "enroll", "two", "--json"]);
        assert!(output.status.success());
        assert!(!String::from_utf8_lossy(&output.stdout).contains("published"), "{output:?}");
        drop(server);
        let output = world.run(&["revoke", "--fingerprint", &"2".repeat(64)]);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("the last publication was at"), "{output:?}");
    }

    async fn the_server_tells_which_installation_it_is(world: World) {
        let server = world.serve();
        let health: Value = server.get("/healthz").send().await.unwrap().json().await.unwrap();
        let ready: Value = server.get("/readyz").send().await.unwrap().json().await.unwrap();
        assert_eq!((&health["status"], &ready["status"]), (&Value::from("ok"), &Value::from("ready")));
        assert_eq!(health["installation"], ready["installation"]);
        assert_eq!(text(&health["installation"]).len(), 36);
        world.json(&["revoke", "--fingerprint", &"1".repeat(64)]);
        let latest = world.json(&["bundle", "show"])["version"].as_u64();
        eventually("the latest version", async || {
            let health: Value = server.get("/healthz").send().await.unwrap().json().await.unwrap();
            (health["version"].as_u64() == latest).then_some(())
        })
        .await;
    }

    async fn the_doctor_knows_its_own_server(world: World) {
        let mut world = world;
        let (server, stranger) = (world.serve(), World::on_sqlite().await);
        let foreign = stranger.serve();
        world.set("KEYSTILE_SERVER__LISTEN", server.address());
        let output = world.run(&["doctor"]);
        assert!(output.status.success(), "{output:?}");
        world.set("KEYSTILE_SERVER__LISTEN", foreign.address());
        let output = world.run(&["doctor"]);
        assert_eq!(output.status.code(), Some(1));
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(told.contains("BAD   server") && told.contains("another installation"), "{told}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("All checks passed"));
    }
}

/// Edges would refuse what such a server signs, and a revocation "up to now" would lock its scope out.
#[tokio::test]
async fn a_server_whose_clock_is_wrong_is_not_ready() {
    for (theirs, code) in [("- interval '2 hours'", "clock_ahead"), ("+ interval '2 hours'", "clock_behind")]
    {
        let mut world = World::on_postgres().await;
        let server = world.serve();
        let ready = server.get("/readyz").send().await.unwrap();
        assert_eq!(ready.status(), 200);
        drop(server);
        // A test cannot set the system clock, so the database has the wrong time.
        let database = world.url.split(['/', '?']).nth(3).unwrap();
        crate::postgres::execute(
            &world.url,
            &format!(
                "CREATE SCHEMA wrong; \
                 CREATE FUNCTION wrong.clock_timestamp() RETURNS timestamptz LANGUAGE sql \
                 AS $$ SELECT pg_catalog.clock_timestamp() {theirs} $$; \
                 ALTER DATABASE {database} SET search_path = wrong, pg_catalog, public"
            ),
        );
        let server = world.serve();
        for _ in 0..2 {
            let ready = server.get("/readyz").send().await.unwrap();
            assert_eq!(ready.status(), 503);
            assert_eq!(ready.json::<Value>().await.unwrap()["code"], code);
        }
        assert_eq!(server.get("/healthz").send().await.unwrap().status(), 200);
        world.set("KEYSTILE_SERVER__LISTEN", server.address());
        let output = world.run(&["doctor"]);
        assert_eq!(output.status.code(), Some(1));
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(told.contains("BAD   clock") && told.contains(&format!("not ready: {code}")), "{told}");
    }
}

/// Three ways to restore a backup without stopping the server.
#[tokio::test]
async fn a_server_whose_database_was_replaced_ends() {
    let ways: [fn(&Path); 4] = [
        |data| {
            let file = data.join("keystile.db");
            fs::copy(&file, data.join("backup")).unwrap();
            for suffix in ["", "-wal", "-shm"] {
                let _ = fs::remove_file(data.join(format!("keystile.db{suffix}")));
            }
            fs::copy(data.join("backup"), file).unwrap();
        },
        |data| {
            fs::copy(data.join("keystile.db"), data.join("backup")).unwrap();
            fs::rename(data.join("backup"), data.join("keystile.db")).unwrap();
        },
        |data| fs::rename(data.join("keystile.db"), data.join("elsewhere.db")).unwrap(),
        |data| fs::remove_file(data.join("keystile.db-wal")).unwrap(),
    ];
    for (way, replace) in ways.into_iter().enumerate() {
        let world = World::on_sqlite().await;
        let mut server = world.serve();
        server.exchange(&world.auth_key_id, &world.auth_key).await;
        replace(&world.data());
        let status = tokio::task::spawn_blocking(move || server.wait()).await.unwrap();
        assert_eq!(status.code(), Some(1), "way {way}");
        assert!(world.log().contains("store_replaced"), "way {way}: {}", world.log());
    }
}

/// A change by a command in the new file survives the end of the server, which could remove the log of the old file.
#[tokio::test]
async fn the_end_of_such_a_server_takes_nothing_away() {
    let world = World::on_sqlite().await;
    let mut server = world.serve();
    let data = world.data();
    let folder = world.folder().join("copy");
    fs::create_dir(&folder).unwrap();
    copy_database(&data, &folder);
    copy_database(&folder, &data);
    // A separate connection keeps the write-ahead log until the server ends.
    let store = world.store().await;
    let open = store.reader().await.unwrap();
    let output = world.run(&["revoke", "--fingerprint", &"1".repeat(64), "--json"]);
    says(&output, false, "no server has published it");
    let status = tokio::task::spawn_blocking(move || server.wait()).await.unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(data.join("keystile.db-wal").exists());
    drop(open);
    store.close().await;
    let lines = world.json(&["audit"]);
    assert!(lines.as_array().unwrap().iter().any(|line| line["action"] == "revoke"), "{lines:#}");
}

fn says(output: &Output, published: bool, hint: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains(hint), "{told}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["published"], Value::from(published), "{answer}");
}
