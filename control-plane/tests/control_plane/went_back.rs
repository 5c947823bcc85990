//! A database that went back under running servers, by a restored backup or a failover that lost a commit, is published from
//! at once by all of them, and the log names what is missing.

use std::{fs, sync::Arc, time::Duration};

use control_plane::{
    clock::{self, Clock},
    config::{self, Config},
    home::Home,
    model::{Actor, Subject},
    operations::{
        Authority, ExchangeError, Lifetime, Service, Started, StoreError, Target, create_auth_key,
        delete_auth_key, exchange, repair, revoke, standing,
    },
    publisher::OnDemand,
};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    on_both, postgres,
    restored::Edge,
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
        let fingerprint = token::Fingerprint::digest(token.as_bytes());
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
        let ahead = "UPDATE bundle_state SET version = version + 86400000; \
                     INSERT INTO version_log (version, mark) SELECT version, mark FROM bundle_state";
        execute(&world, ahead).await;
        world.json(&["revoke", "--fingerprint", &"1".repeat(64)]);
        let have = all_publish(&servers, &credential, None).await;
        go_back(&world, "").await;
        let latest = all_publish(&servers, &credential, Some(have)).await;
        assert!(latest > have);
        settled(&world, &servers, &credential).await;
    }
}

on_both! {
    /// What was deleted is there again for a moment: it buys nothing in it.
    async fn nothing_is_changed_before_the_journal_is_merged(world: World) {
        let service = world.service().await;
        let mut press = OnDemand::start(&service).await.unwrap();
        let root = Subject { operator: world.operator.parse().unwrap(), user: None };
        let key = create_auth_key(&service, &Actor::Admin, &root).await.unwrap();
        let (id, secret) = (key.id.to_string(), key.secret.expose().to_owned());
        let exchanged = async || exchange(&service, &id, &secret, Lifetime::default()).await;
        exchanged().await.unwrap();
        save(&world).await;
        delete_auth_key(&service, &Actor::Admin, &Authority::Everything, &key.id).await.unwrap();
        press.publish().await.unwrap();
        assert!(matches!(exchanged().await, Err(ExchangeError::Refused)));

        go_back(&world, "").await;
        assert!(matches!(exchanged().await, Err(ExchangeError::Mint(_))), "before the publisher looks");
        let error = create_auth_key(&service, &Actor::Admin, &root).await.unwrap_err();
        assert!(error.to_string().contains("a backup was restored"), "{error}");
        let ready = service.writable().await;
        assert!(matches!(ready, Err(StoreError::WentBack)), "{ready:?}");
        press.publish().await.unwrap();
        assert!(matches!(exchanged().await, Err(ExchangeError::Refused)), "after it");
        create_auth_key(&service, &Actor::Admin, &root).await.unwrap();
    }

    /// A journal that can't be merged keeps what it knows from being forgotten: edges go on with what they have.
    async fn nothing_is_published_before_the_journal_is_merged(world: World) {
        let service = world.service().await;
        let mut press = OnDemand::start(&service).await.unwrap();
        let (token, root) = (world.token(), Authority::Everything);
        save(&world).await;
        revoke(&service, &Actor::Admin, &root, Target::Token(token.clone()), None).await.unwrap();
        let published = press.publish().await.unwrap().latest().version;
        let journal = world.data().join("keys/journal");
        let text = fs::read_to_string(&journal).unwrap();
        fs::write(&journal, format!("{{\"version\":1,\"kind\":\"of a later release\"}}\n{text}")).unwrap();
        go_back(&world, "").await;
        for _ in 0..2 {
            let error = press.publish().await.unwrap_err();
            assert_eq!(error.code(), "journal_not_merged", "{error}");
        }
        fs::write(&journal, text).unwrap();
        let publications = press.publish().await.unwrap();
        let latest = publications.latest();
        assert!(latest.version > published);
        let fingerprint = token::Fingerprint::digest(token.as_bytes());
        let kid = service.keys().current().signer().kid().to_owned();
        let standing = latest.snapshot.revocation_status(&fingerprint, &kid, clock::now().seconds(), None);
        assert_eq!(standing, bundle::RevocationStatus::Revoked);
    }

    /// After a long silence several changes may come before a server looks: that is no loss.
    async fn a_long_silence_is_not_taken_for_a_loss(world: World) {
        let clock = Clock::manual(clock::now());
        let open = async || {
            let store = config::Store { url: world.url.clone() };
            let config = Config { store, ..Config::default() };
            Service::open_at(Home::new(world.data()), config, clock.clone()).await.unwrap()
        };
        let (service, other) = (open().await, open().await);
        let mut press = OnDemand::start(&service).await.unwrap();
        clock.advance(Duration::from_secs(86_400));
        let root = Subject { operator: world.operator.parse().unwrap(), user: None };
        for number in 0..9 {
            let target = Target::Fingerprint(token::Fingerprint::from([number; 32]));
            revoke(&other, &Actor::Admin, &Authority::Everything, target, None).await.unwrap();
        }
        create_auth_key(&service, &Actor::Admin, &root).await.unwrap();
        press.publish().await.unwrap();
        assert!(!world.json(&["audit"]).to_string().contains("store.went_back"));
    }

    /// Only tokens were issued since the backup: the version of the bundle is the same.
    async fn what_was_only_issued_is_missed_too(world: World) {
        let service = world.service().await;
        let mut press = OnDemand::start(&service).await.unwrap();
        save(&world).await;
        let lost = world.token();
        let newest = world.json(&["audit", "--limit", "1"])[0]["seq"].as_u64().unwrap();
        // The journal gets marks of what was only issued at most every two seconds.
        let marked = format!("\"seq\":{newest},");
        eventually("the mark", async || {
            press.publish().await.unwrap();
            fs::read_to_string(world.data().join("keys/journal")).unwrap().contains(&marked).then_some(())
        })
        .await;
        go_back(&world, "").await;
        let examined = standing(&service).await.unwrap();
        assert!(examined.needs_repair());
        eventually("the gap", async || {
            press.publish().await.unwrap();
            (!standing(&service).await.unwrap().gaps.is_empty()).then_some(())
        })
        .await;
        assert!(standing(&service).await.unwrap().needs_repair());
        let done = repair(&service, &Actor::Admin, Started::Found).await.unwrap();
        assert!(done.version.is_some());
        execute(&world, "DELETE FROM issued").await;
        assert_eq!(Edge::of(&service).await.ask(&lost, ""), "issuance_unknown");
    }
}

/// A deletion that waits for its commit: what is issued meanwhile is not issued by what was deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_deletion_that_takes_long_to_commit_leaves_no_token_behind() {
    let world = World::on_postgres().await;
    let clock = Clock::manual(clock::now());
    let store = config::Store { url: world.url.clone() };
    let config = Config { store, ..Config::default() };
    let service = Arc::new(Service::open_at(Home::new(world.data()), config, clock.clone()).await.unwrap());
    let root = Subject { operator: world.operator.parse().unwrap(), user: None };
    let key = create_auth_key(&service, &Actor::Admin, &root).await.unwrap();
    let (id, secret) = (key.id.clone(), key.secret.expose().to_owned());
    // What every change writes last.
    let mut lock = postgres::session(&world.url);
    lock.send("BEGIN; SELECT seq FROM audit_state WHERE id = 1 FOR UPDATE;");
    let holds = "SELECT COUNT(*) FROM pg_stat_activity WHERE state = 'idle in transaction' \
                 AND query LIKE '%FOR UPDATE%' AND datname = current_database()";
    eventually("the lock", async || (postgres::value(&world.url, holds) == "1").then_some(())).await;
    let deleting = {
        let (service, id) = (Arc::clone(&service), id.clone());
        tokio::spawn(
            async move { delete_auth_key(&service, &Actor::Admin, &Authority::Everything, &id).await },
        )
    };
    let waits = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    eventually("the deletion waits", async || (postgres::value(&world.url, waits) == "1").then_some(()))
        .await;
    clock.advance(Duration::from_secs(10));
    let exchanging = {
        let service = Arc::clone(&service);
        tokio::spawn(async move { exchange(&service, id.as_str(), &secret, Lifetime::default()).await })
    };
    eventually("the exchange waits", async || (postgres::value(&world.url, waits) == "2").then_some(()))
        .await;
    lock.send("COMMIT;");
    deleting.await.unwrap().unwrap();
    let exchanged = exchanging.await.unwrap();
    assert!(matches!(exchanged, Err(ExchangeError::Refused)), "{exchanged:?}");
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
        assert!(line.contains(&format!(" to {lost}: a backup was restored")), "{line}");
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

const SAVED: [&str; 8] = [
    "bundle_state",
    "version_log",
    "revocations",
    "watermarks",
    "audit",
    "audit_state",
    "auth_keys",
    "tombstones",
];
