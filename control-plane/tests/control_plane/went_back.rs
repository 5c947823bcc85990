//! A database that went back under running servers, by a restored backup or a failover that lost a commit, is published from
//! at once by all of them, and the log names what is missing.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    on_both, postgres,
    trust_anchor::execute,
    world::{Server, World, eventually, tag, text, version},
};

on_both! {
    /// Over two servers on PostgreSQL.
    async fn every_server_publishes_what_is_left_under_a_new_version(world: World) {
        let credential = world.edge("one");
        let servers = serve(&world);
        let (kept, lost) = (world.token(), world.token());
        world.json(&["revoke", "--token", &kept]);
        save(&world).await;
        world.json(&["revoke", "--token", &lost]);
        let have = all_publish(&servers, &credential, None).await;
        go_back(&world, "").await;
        let latest = all_publish(&servers, &credential, Some(have)).await;
        assert!(latest > have, "{latest} after {have}");
        for server in &servers {
            server.eventually(&world, &kept, 401, "revoked").await;
            assert_eq!(server.get("/readyz").send().await.unwrap().status(), 200);
        }
        told(&world, servers.len(), have);
        // What is revoked from now on reaches edges that have the lost version.
        let next = world.token();
        world.json(&["revoke", "--token", &next]);
        for server in &servers {
            server.eventually(&world, &next, 401, "revoked").await;
            let response = server.manifest(&credential, latest, 5).send().await.unwrap();
            assert_eq!(response.status(), 200);
        }
        settled(&world, &servers, &credential).await;
    }

    /// The next commit came before any server looked: the version is higher than ever, and what it says is not the whole.
    async fn a_later_commit_hides_nothing(world: World) {
        let credential = world.edge("one");
        let servers = serve(&world);
        let token = world.token();
        save(&world).await;
        world.json(&["revoke", "--fingerprint", &"1".repeat(64)]);
        let have = all_publish(&servers, &credential, None).await;
        // As another server's commit after the failover would.
        let fingerprint = token::Fingerprint::of(token.as_bytes());
        let (version, prefix) = (have + 1_000, fingerprint.prefix().cast_signed());
        let later = format!(
            "UPDATE bundle_state SET version = {version}, mark = 7; INSERT INTO version_log VALUES ({version}, 7); \
             INSERT INTO revocations (prefix, fingerprint, expires_at, version, revoked_at) \
             VALUES ({prefix}, '{fingerprint}', {}, {version}, 0);",
            i64::MAX
        );
        go_back(&world, &later).await;
        let latest = all_publish(&servers, &credential, Some(have)).await;
        assert!(latest >= version);
        for server in &servers {
            server.eventually(&world, &token, 401, "revoked").await;
        }
        told(&world, servers.len(), have);
        settled(&world, &servers, &credential).await;
    }

    /// The clock of the server that published last was ahead.
    async fn versions_from_a_clock_that_was_ahead_are_risen_above(world: World) {
        let credential = world.edge("one");
        let servers = serve(&world);
        save(&world).await;
        execute(&world, "UPDATE bundle_state SET version = version + 86400000").await;
        world.json(&["revoke", "--fingerprint", &"1".repeat(64)]);
        let have = all_publish(&servers, &credential, None).await;
        go_back(&world, "").await;
        let latest = all_publish(&servers, &credential, Some(have)).await;
        assert!(latest > have);
        settled(&world, &servers, &credential).await;
    }
}

/// The real tools, with two servers that nobody stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_is_restored_under_running_servers() {
    let world = World::on_postgres().await;
    let credential = world.edge("one");
    let servers = serve(&world);
    let dump = world.folder().join("dump");
    let file = dump.to_str().unwrap();
    let dumped = ["-Fc", "-f", file];
    tokio::task::block_in_place(|| postgres::tool(&world.url, "pg_dump", &dumped));
    world.json(&["revoke", "--fingerprint", &"1".repeat(64)]);
    let have = all_publish(&servers, &credential, None).await;
    tokio::task::block_in_place(|| {
        postgres::tool(&world.url, "pg_restore", &["--clean", "--single-transaction", file])
    });
    let latest = all_publish(&servers, &credential, Some(have)).await;
    assert!(latest > have);
    told(&world, servers.len(), have);
    settled(&world, &servers, &credential).await;
    assert!(fs::metadata(&dump).unwrap().len() > 0);
}

fn serve(world: &World) -> Vec<Server> {
    let count = if world.url.starts_with("postgres") { 2 } else { 1 };
    (0..count).map(|_| world.serve()).collect()
}

/// The tables that say what was revoked, put aside in the database itself.
async fn save(world: &World) {
    for table in SAVED {
        execute(world, &format!("CREATE TABLE saved_{table} AS SELECT * FROM {table}")).await;
    }
}

/// In one transaction, and `later` with it.
async fn go_back(world: &World, later: &str) {
    let restored = SAVED.iter().fold(String::new(), |text, table| {
        text + &format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM saved_{table};")
    });
    execute(world, &format!("BEGIN; {restored} {later} COMMIT;")).await;
}

/// The version that all of them publish, once it is the same; and later than one that an edge has.
async fn all_publish(servers: &[Server], credential: &str, above: Option<u64>) -> u64 {
    eventually("the same version everywhere", async || {
        let mut published = Vec::new();
        for server in servers {
            let have = above.unwrap_or_default();
            let response = server.manifest(credential, have, 0).send().await.unwrap();
            if response.status() != 200 {
                return None;
            }
            published.push(version(response.headers()));
        }
        let first = published[0];
        let enough =
            published.iter().all(|version| *version == first) && above.is_none_or(|above| first > above);
        enough.then_some(first)
    })
    .await
}

/// Each server says so once, with the versions that are missing.
fn told(world: &World, servers: usize, lost: u64) {
    let log = world.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("store_went_back")).collect();
    assert_eq!(lines.len(), servers, "{lines:#?}");
    for line in lines {
        assert!(line.contains(&format!(" to {lost} are missing")), "{line}");
    }
    let audited = world.json(&["audit"]);
    let went_back = audited.as_array().unwrap().iter().filter(|line| line["action"] == "store.went_back");
    let went_back: Vec<&Value> = went_back.collect();
    assert_eq!(went_back.len(), 1, "{went_back:#?}");
    assert_eq!(went_back[0]["detail"]["missing_to"], json!(lost));
}

/// No server takes versions for the sake of another.
async fn settled(world: &World, servers: &[Server], credential: &str) {
    let latest = all_publish(servers, credential, None).await;
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        for server in servers {
            let response = server.manifest(credential, 0, 0).send().await.unwrap();
            assert_eq!(version(response.headers()), latest, "{}", tag(response.headers()));
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(text(&json!(world.json(&["bundle", "show"])["version"].to_string())), latest.to_string());
}

const SAVED: [&str; 4] = ["bundle_state", "version_log", "revocations", "watermarks"];
