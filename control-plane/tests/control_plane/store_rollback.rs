//! If a database is rolled back under running servers, by a backup or a failover that loses a commit, all servers publish
//! from it at once, and the log names the missing versions.

use std::{fs, sync::Arc, time::Duration};

use control_plane::{
    config::{self, Config},
    credentials::{
        auth_keys::{create_auth_key, delete_auth_key},
        tokens::{ExchangeError, Lifetime, exchange_auth_key},
    },
    db::StoreError,
    domain::{Actor, Subject},
    platform::{
        clock::{self, Clock},
        data_dir::DataDir,
    },
    publishing::OnDemandPublisher,
    restore::{GapStart, examine_service, repair_database},
    revocation::{AccessScope, RevocationTarget, revoke},
    service::Service,
};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    database_restore::Edge,
    for_each_backend, postgres,
    test_env::{Server, TestEnv, entity_tag, entity_tag_version, eventually, json_text},
    trust_anchor::execute,
};

for_each_backend! {
    /// Uses two servers on PostgreSQL.
    async fn rolled_back_store_is_published_under_new_version(env: TestEnv) {
        let credential = env.enroll_edge("one");
        let servers = serve(&env);
        let (kept, lost) = (env.issue_root_token(), env.issue_root_token());
        env.json(&["revoke", "--token", &kept]);
        save(&env).await;
        env.json(&["revoke", "--token", &lost]);
        let have = wait_all_publish(&servers, &credential, None).await;
        roll_back(&env, "").await;
        let latest = wait_all_publish(&servers, &credential, Some(have)).await;
        assert!(latest > have, "{latest} after {have}");
        for server in &servers {
            server.wait_for_decision(&env, &kept, 401, "revoked").await;
            assert_eq!(server.get("/readyz").send().await.unwrap().status(), 200);
        }
        wait_for_rollback_log(&env, servers.len(), have);
        // Later revocations reach edges that have the lost version.
        let next = env.issue_root_token();
        env.json(&["revoke", "--token", &next]);
        for server in &servers {
            server.wait_for_decision(&env, &next, 401, "revoked").await;
            let response = server.manifest(&credential, latest, 5).send().await.unwrap();
            assert_eq!(response.status(), 200);
        }
        assert_versions_stay(&env, &servers, &credential).await;
    }

    /// The next commit happens before any server detects the rollback: the version is higher, but changes are missing.
    async fn rollback_is_detected_despite_later_commit(env: TestEnv) {
        let credential = env.enroll_edge("one");
        let servers = serve(&env);
        let token = env.issue_root_token();
        save(&env).await;
        env.json(&["revoke", "--fingerprint", &"1".repeat(64)]);
        let have = wait_all_publish(&servers, &credential, None).await;
        // This is what another server commits after the failover.
        let fingerprint = token::Fingerprint::digest(token.as_bytes());
        let (version, prefix) = (have + 1_000, fingerprint.prefix().cast_signed());
        let later = format!(
            "UPDATE bundle_state SET version = {version}, mark = 7; INSERT INTO version_log VALUES ({version}, 7); \
             INSERT INTO revocations (prefix, fingerprint, expires_at, version, revoked_at) \
             VALUES ({prefix}, '{fingerprint}', {}, {version}, 0);",
            i64::MAX
        );
        roll_back(&env, &later).await;
        let latest = wait_all_publish(&servers, &credential, Some(have)).await;
        assert!(latest >= version);
        for server in &servers {
            server.wait_for_decision(&env, &token, 401, "revoked").await;
        }
        wait_for_rollback_log(&env, servers.len(), have);
        assert_versions_stay(&env, &servers, &credential).await;
    }

    /// The clock of the last publisher was ahead.
    async fn rolled_back_store_allocates_version_above_lost_ones(env: TestEnv) {
        let credential = env.enroll_edge("one");
        let servers = serve(&env);
        save(&env).await;
        let ahead = "UPDATE bundle_state SET version = version + 86400000; \
                     INSERT INTO version_log (version, mark) SELECT version, mark FROM bundle_state";
        execute(&env, ahead).await;
        env.json(&["revoke", "--fingerprint", &"1".repeat(64)]);
        let have = wait_all_publish(&servers, &credential, None).await;
        roll_back(&env, "").await;
        let latest = wait_all_publish(&servers, &credential, Some(have)).await;
        assert!(latest > have);
        assert_versions_stay(&env, &servers, &credential).await;
    }
}

for_each_backend! {
    /// A deleted AuthKey exists again for a moment, and cannot be exchanged in that time.
    async fn operations_fail_before_journal_merge(env: TestEnv) {
        let service = env.service().await;
        let mut press = OnDemandPublisher::start(&service).await.unwrap();
        let root = Subject { operator: env.operator.parse().unwrap(), user: None };
        let key = create_auth_key(&service, &Actor::Admin, &root).await.unwrap();
        let (id, secret) = (key.id.to_string(), key.secret.expose().to_owned());
        let exchanged = async || exchange_auth_key(&service, &id, &secret, Lifetime::default()).await;
        exchanged().await.unwrap();
        save(&env).await;
        delete_auth_key(&service, &Actor::Admin, &AccessScope::Everything, &key.id).await.unwrap();
        press.publish().await.unwrap();
        assert!(matches!(exchanged().await, Err(ExchangeError::Refused)));

        roll_back(&env, "").await;
        assert!(matches!(exchanged().await, Err(ExchangeError::Mint(_))), "before the publisher detects it");
        let error = create_auth_key(&service, &Actor::Admin, &root).await.unwrap_err();
        assert!(error.to_string().contains("a backup was restored"), "{error}");
        let ready = service.check_writable().await;
        assert!(matches!(ready, Err(StoreError::RolledBack)), "{ready:?}");
        press.publish().await.unwrap();
        assert!(matches!(exchanged().await, Err(ExchangeError::Refused)), "after it");
        create_auth_key(&service, &Actor::Admin, &root).await.unwrap();
    }

    /// If the journal cannot be merged, nothing is published, and edges keep their bundle.
    async fn publisher_waits_for_journal_merge(env: TestEnv) {
        let service = env.service().await;
        let mut press = OnDemandPublisher::start(&service).await.unwrap();
        let (token, root) = (env.issue_root_token(), AccessScope::Everything);
        save(&env).await;
        revoke(&service, &Actor::Admin, &root, RevocationTarget::Token(token.clone()), None).await.unwrap();
        let published = press.publish().await.unwrap().latest().version;
        let journal = env.data().join("keys/journal");
        let text = fs::read_to_string(&journal).unwrap();
        fs::write(&journal, format!("{{\"version\":1,\"kind\":\"of a later release\"}}\n{text}")).unwrap();
        roll_back(&env, "").await;
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
        let status = latest.snapshot.revocation_status(&fingerprint, &kid, clock::now().seconds().get(), None);
        assert_eq!(status, bundle::RevocationStatus::Revoked);
    }

    /// Several changes between two checks of a server are not a rollback.
    async fn long_pause_is_not_reported_as_rollback(env: TestEnv) {
        let clock = Clock::manual(clock::now());
        let open = async || {
            let store = config::Store { url: env.url.clone() };
            let config = Config { store, ..Config::default() };
            Service::open_at(DataDir::new(env.data()), config, clock.clone()).await.unwrap()
        };
        let (service, other) = (open().await, open().await);
        let mut press = OnDemandPublisher::start(&service).await.unwrap();
        clock.advance(Duration::from_secs(86_400));
        let root = Subject { operator: env.operator.parse().unwrap(), user: None };
        for number in 0..9 {
            let target = RevocationTarget::Fingerprint(token::Fingerprint::from([number; 32]));
            revoke(&other, &Actor::Admin, &AccessScope::Everything, target, None).await.unwrap();
        }
        create_auth_key(&service, &Actor::Admin, &root).await.unwrap();
        press.publish().await.unwrap();
        assert!(!env.json(&["audit"]).to_string().contains("store.went_back"));
    }

    /// Only tokens were issued since the backup, so the version of the bundle is the same.
    async fn rollback_of_issued_tokens_only_is_detected(env: TestEnv) {
        let service = env.service().await;
        let mut press = OnDemandPublisher::start(&service).await.unwrap();
        save(&env).await;
        let lost = env.issue_root_token();
        let newest = env.json(&["audit", "--limit", "1"])[0]["seq"].as_u64().unwrap();
        // The journal gets marks of issuance at most every two seconds.
        let marked = format!("\"seq\":{newest},");
        eventually("the mark", async || {
            press.publish().await.unwrap();
            fs::read_to_string(env.data().join("keys/journal")).unwrap().contains(&marked).then_some(())
        })
        .await;
        roll_back(&env, "").await;
        let examined = examine_service(&service).await.unwrap();
        assert!(examined.needs_repair());
        eventually("the gap", async || {
            press.publish().await.unwrap();
            (!examine_service(&service).await.unwrap().gaps.is_empty()).then_some(())
        })
        .await;
        assert!(examine_service(&service).await.unwrap().needs_repair());
        let done = repair_database(&service, &Actor::Admin, GapStart::AsFound).await.unwrap();
        assert!(done.version.is_some());
        execute(&env, "DELETE FROM issued").await;
        assert_eq!(Edge::of(&service).await.ask(&lost, ""), "issuance_unknown");
    }
}

/// While a deletion waits for its commit, the deleted AuthKey issues nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slow_deletion_leaves_no_valid_token() {
    let env = TestEnv::on_postgres().await;
    let clock = Clock::manual(clock::now());
    let store = config::Store { url: env.url.clone() };
    let config = Config { store, ..Config::default() };
    let service = Arc::new(Service::open_at(DataDir::new(env.data()), config, clock.clone()).await.unwrap());
    let root = Subject { operator: env.operator.parse().unwrap(), user: None };
    let key = create_auth_key(&service, &Actor::Admin, &root).await.unwrap();
    let (id, secret) = (key.id.clone(), key.secret.expose().to_owned());
    // Every change writes this row last.
    let mut lock = postgres::session(&env.url);
    lock.send("BEGIN; SELECT seq FROM audit_state WHERE id = 1 FOR UPDATE;");
    let holds = "SELECT COUNT(*) FROM pg_stat_activity WHERE state = 'idle in transaction' \
                 AND query LIKE '%FOR UPDATE%' AND datname = current_database()";
    eventually("the lock", async || (postgres::value(&env.url, holds) == "1").then_some(())).await;
    let deleting = {
        let (service, id) = (Arc::clone(&service), id.clone());
        tokio::spawn(
            async move { delete_auth_key(&service, &Actor::Admin, &AccessScope::Everything, &id).await },
        )
    };
    let waits = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    eventually("the deletion waits", async || (postgres::value(&env.url, waits) == "1").then_some(())).await;
    clock.advance(Duration::from_secs(10));
    let exchanging = {
        let service = Arc::clone(&service);
        tokio::spawn(
            async move { exchange_auth_key(&service, id.as_str(), &secret, Lifetime::default()).await },
        )
    };
    eventually("the exchange waits", async || (postgres::value(&env.url, waits) == "2").then_some(())).await;
    lock.send("COMMIT;");
    deleting.await.unwrap().unwrap();
    let exchanged = exchanging.await.unwrap();
    assert!(matches!(exchanged, Err(ExchangeError::Refused)), "{exchanged:?}");
}

/// Uses `pg_dump` and `pg_restore` with two running servers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dump_restored_under_running_servers_is_detected() {
    let env = TestEnv::on_postgres().await;
    let credential = env.enroll_edge("one");
    let servers = serve(&env);
    let dump = env.folder().join("dump");
    let file = dump.to_str().unwrap();
    let dumped = ["-Fc", "-f", file];
    tokio::task::block_in_place(|| postgres::tool(&env.url, "pg_dump", &dumped));
    env.json(&["revoke", "--fingerprint", &"1".repeat(64)]);
    let have = wait_all_publish(&servers, &credential, None).await;
    tokio::task::block_in_place(|| {
        postgres::tool(&env.url, "pg_restore", &["--clean", "--single-transaction", file])
    });
    let latest = wait_all_publish(&servers, &credential, Some(have)).await;
    assert!(latest > have);
    wait_for_rollback_log(&env, servers.len(), have);
    assert_versions_stay(&env, &servers, &credential).await;
    assert!(fs::metadata(&dump).unwrap().len() > 0);
}

fn serve(env: &TestEnv) -> Vec<Server> {
    let count = if env.url.starts_with("postgres") { 2 } else { 1 };
    (0..count).map(|_| env.serve()).collect()
}

/// Copies the tables of revocations within the database.
async fn save(env: &TestEnv) {
    for table in SAVED {
        execute(env, &format!("CREATE TABLE saved_{table} AS SELECT * FROM {table}")).await;
    }
}

/// Restores the tables and runs `later` in one transaction.
async fn roll_back(env: &TestEnv, later: &str) {
    let restored = SAVED.iter().fold(String::new(), |text, table| {
        text + &format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM saved_{table};")
    });
    execute(env, &format!("BEGIN; {restored} {later} COMMIT;")).await;
}

/// Waits until all servers publish the same version, later than that of an edge, and returns it.
async fn wait_all_publish(servers: &[Server], credential: &str, above: Option<u64>) -> u64 {
    eventually("the same version everywhere", async || {
        let mut published = Vec::new();
        for server in servers {
            let have = above.unwrap_or_default();
            let response = server.manifest(credential, have, 0).send().await.unwrap();
            if response.status() != 200 {
                return None;
            }
            published.push(entity_tag_version(response.headers()));
        }
        let first = published[0];
        let enough =
            published.iter().all(|version| *version == first) && above.is_none_or(|above| first > above);
        enough.then_some(first)
    })
    .await
}

/// Checks that each server logs the rollback once, with the missing versions.
fn wait_for_rollback_log(env: &TestEnv, servers: usize, lost: u64) {
    let log = env.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("store_went_back")).collect();
    assert_eq!(lines.len(), servers, "{lines:#?}");
    for line in lines {
        assert!(line.contains(&format!(" to {lost}: a backup was restored")), "{line}");
    }
    let audited = env.json(&["audit"]);
    let went_back = audited.as_array().unwrap().iter().filter(|line| line["action"] == "store.went_back");
    let went_back: Vec<&Value> = went_back.collect();
    assert_eq!(went_back.len(), 1, "{went_back:#?}");
    assert_eq!(went_back[0]["detail"]["missing_to"], json!(lost));
}

/// Waits until no server allocates further versions.
async fn assert_versions_stay(env: &TestEnv, servers: &[Server], credential: &str) {
    let latest = wait_all_publish(servers, credential, None).await;
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        for server in servers {
            let response = server.manifest(credential, 0, 0).send().await.unwrap();
            assert_eq!(entity_tag_version(response.headers()), latest, "{}", entity_tag(response.headers()));
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(json_text(&json!(env.json(&["bundle", "show"])["version"].to_string())), latest.to_string());
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
