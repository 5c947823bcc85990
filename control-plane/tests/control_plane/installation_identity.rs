//! Commands detect whether a server publishes from the same store, and report only what is published.

use std::{fs, path::Path, process::Output};

use serde_json::Value;

use crate::{
    database_restore::copy_database,
    for_each_backend,
    test_env::{TestEnv, eventually, json_text},
};

for_each_backend! {
    async fn command_reports_whether_its_change_is_published(env: TestEnv) {
        let fingerprint = "1".repeat(64);
        let revoke = || env.run(&["revoke", "--fingerprint", &fingerprint, "--json"]);
        // No edge is enrolled yet.
        let output = revoke();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_publication(&output, false, "no server has published it");
        env.enroll_edge("one");
        let output = revoke();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert_publication(&output, false, "no server has published it");
        // The same for other changes of the bundle.
        let user = format!("{}/alice", env.operator);
        env.json(&["user", "create", &user]);
        let document = env.write_document("permission", &serde_json::json!({ "statements": [] }));
        let verbs: [&[&str]; 5] = [
            &["unrevoke", "--fingerprint", &fingerprint, "--yes"],
            &["user", "permission", "set", &user, &document],
            &["user", "delete", &user, "--yes"],
            &["key", "rotate", "tag"],
            &["authkey", "delete", &env.auth_key_id, "--yes"],
        ];
        for verb in verbs {
            let output = env.run(&[verb, &["--json"]].concat());
            assert_eq!(output.status.code(), Some(3), "{verb:?}: {output:?}");
            assert_publication(&output, false, "no server has published it");
        }
        let server = env.serve();
        let output = revoke();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_publication(&output, true, "Edges refuse it from version");
        // A repetition changes nothing, and is already published.
        assert_publication(&revoke(), true, "Edges refuse it from version");
        // Changes that are not part of the bundle are not reported.
        let output = env.run(&["edge", "enroll", "two", "--json"]);
        assert!(output.status.success());
        assert!(!String::from_utf8_lossy(&output.stdout).contains("published"), "{output:?}");
        drop(server);
        let output = env.run(&["revoke", "--fingerprint", &"2".repeat(64)]);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("the last publication was at"), "{output:?}");
    }

    async fn health_names_the_installation(env: TestEnv) {
        let server = env.serve();
        let health: Value = server.get("/healthz").send().await.unwrap().json().await.unwrap();
        let ready: Value = server.get("/readyz").send().await.unwrap().json().await.unwrap();
        assert_eq!((&health["status"], &ready["status"]), (&Value::from("ok"), &Value::from("ready")));
        assert_eq!(health["installation"], ready["installation"]);
        assert_eq!(json_text(&health["installation"]).len(), 36);
        env.json(&["revoke", "--fingerprint", &"1".repeat(64)]);
        let latest = env.json(&["bundle", "show"])["version"].as_u64();
        eventually("the latest version", async || {
            let health: Value = server.get("/healthz").send().await.unwrap().json().await.unwrap();
            (health["version"].as_u64() == latest).then_some(())
        })
        .await;
    }

    async fn doctor_recognizes_its_own_server(env: TestEnv) {
        let mut env = env;
        let (server, stranger) = (env.serve(), TestEnv::on_sqlite().await);
        let foreign = stranger.serve();
        env.set_setting("KEYSTILE_SERVER__LISTEN", server.address());
        let output = env.run(&["doctor"]);
        assert!(output.status.success(), "{output:?}");
        env.set_setting("KEYSTILE_SERVER__LISTEN", foreign.address());
        let output = env.run(&["doctor"]);
        assert_eq!(output.status.code(), Some(1));
        let message = String::from_utf8_lossy(&output.stdout);
        assert!(message.contains("BAD   server") && message.contains("another installation"), "{message}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("All checks passed"));
    }
}

/// Edges would refuse what such a server signs, and a revocation "up to now" would lock its scope out.
#[tokio::test]
async fn server_with_wrong_clock_is_not_ready() {
    for (theirs, code) in [("- interval '2 hours'", "clock_ahead"), ("+ interval '2 hours'", "clock_behind")]
    {
        let mut env = TestEnv::on_postgres().await;
        let server = env.serve();
        let ready = server.get("/readyz").send().await.unwrap();
        assert_eq!(ready.status(), 200);
        drop(server);
        // A test cannot set the system clock, so the database has the wrong time.
        let database = env.url.split(['/', '?']).nth(3).unwrap();
        crate::postgres::execute(
            &env.url,
            &format!(
                "CREATE SCHEMA wrong; \
                 CREATE FUNCTION wrong.clock_timestamp() RETURNS timestamptz LANGUAGE sql \
                 AS $$ SELECT pg_catalog.clock_timestamp() {theirs} $$; \
                 ALTER DATABASE {database} SET search_path = wrong, pg_catalog, public"
            ),
        );
        let server = env.serve();
        for _ in 0..2 {
            let ready = server.get("/readyz").send().await.unwrap();
            assert_eq!(ready.status(), 503);
            assert_eq!(ready.json::<Value>().await.unwrap()["code"], code);
        }
        assert_eq!(server.get("/healthz").send().await.unwrap().status(), 200);
        env.set_setting("KEYSTILE_SERVER__LISTEN", server.address());
        let output = env.run(&["doctor"]);
        assert_eq!(output.status.code(), Some(1));
        let message = String::from_utf8_lossy(&output.stdout);
        assert!(
            message.contains("BAD   clock") && message.contains(&format!("not ready: {code}")),
            "{message}"
        );
    }
}

/// Three ways to restore a backup without stopping the server.
#[tokio::test]
async fn server_ends_when_its_database_is_replaced() {
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
        let env = TestEnv::on_sqlite().await;
        let mut server = env.serve();
        server.exchange(&env.auth_key_id, &env.auth_key).await;
        replace(&env.data());
        let status = tokio::task::spawn_blocking(move || server.wait()).await.unwrap();
        assert_eq!(status.code(), Some(1), "way {way}");
        assert!(env.log().contains("store_replaced"), "way {way}: {}", env.log());
    }
}

/// A change by a command in the new file survives the end of the server, which could remove the log of the old file.
#[tokio::test]
async fn ending_server_leaves_replaced_database_intact() {
    let env = TestEnv::on_sqlite().await;
    let mut server = env.serve();
    let data = env.data();
    let folder = env.folder().join("copy");
    fs::create_dir(&folder).unwrap();
    copy_database(&data, &folder);
    copy_database(&folder, &data);
    // A separate connection keeps the write-ahead log until the server ends.
    let store = env.store().await;
    let open = store.reader().await.unwrap();
    let output = env.run(&["revoke", "--fingerprint", &"1".repeat(64), "--json"]);
    assert_publication(&output, false, "no server has published it");
    let status = tokio::task::spawn_blocking(move || server.wait()).await.unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(data.join("keystile.db-wal").exists());
    drop(open);
    store.close().await;
    let lines = env.json(&["audit"]);
    assert!(lines.as_array().unwrap().iter().any(|line| line["action"] == "revoke"), "{lines:#}");
}

fn assert_publication(output: &Output, published: bool, hint: &str) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains(hint), "{message}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["published"], Value::from(published), "{answer}");
}
