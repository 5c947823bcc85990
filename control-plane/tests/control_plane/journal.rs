//! The journal beside the keys contains what a restored database lacks, after compaction, crashes and days, and each
//! replica has one.

use std::{fs, time::Duration};

use control_plane::{
    accounts::{CreatedKeysPolicy, delete_user, find_user},
    config::{self, Config},
    credentials::{
        api_keys::{
            CreateApiKey, create_api_key, delete_api_key, disable_api_key, enable_api_key, rotate_tag_key,
        },
        auth_keys::create_auth_key,
        tokens::{ExchangeError, Lifetime, TokenRecipient, exchange_auth_key, issue_token},
    },
    domain::{Actor, ApiKeyId, EdgeId, Subject},
    domain::{UnixMillis, UnixSeconds},
    edges::{OldCredentialEnd, authenticate_edge, enroll_edge, rotate_edge},
    installation::initialize_at,
    keys::{activate_pending_signing_key, retire_key, rotate_signing_key},
    maintenance::{instants_ahead, purge_expired, repair_clock},
    platform::{clock::Clock, data_dir::DataDir},
    restore::{GapStart, compact_journal, compact_journal_if_due, repair_database},
    revocation::{AccessScope, RevocationTarget, revoke},
    service::Service,
};
use serde_json::json;
use tempfile::TempDir;
use token::{
    Fingerprint,
    api_key::{Kind, Prefix},
};

use crate::{
    database_restore::{Edge, api_key, back_up, copy_database, doctor, fingerprint, issue, journal, restore},
    test_env::{TestEnv, eventually, json_text},
};

#[tokio::test]
async fn journal_merge_restores_revocations_after_compactions() {
    let installation = Installation::new().await;
    let clock = &installation.clock;
    let service = installation.open().await;
    let root: Subject = installation.operator.parse().unwrap();
    let token = async |service: &Service| {
        issue_token(service, TokenRecipient::Subject(root.clone()), Lifetime::NEVER)
            .await
            .unwrap()
            .token
            .expose()
            .to_owned()
    };
    let key = async |service: &Service| {
        let order = order(root.clone());
        let made = create_api_key(service, &Actor::Admin, order).await.unwrap();
        (made.key.id, made.secret.expose().to_owned())
    };
    let (kept, revoked) = (token(&service).await, token(&service).await);
    let (kept_key, deleted_key) = (key(&service).await, key(&service).await);
    let edge: EdgeId = "edge".parse().unwrap();
    let old = enroll_edge(&service, &Actor::Admin, edge.clone()).await.unwrap().credential;
    let first_kid = service.keys().current().signer().kid().to_owned();
    service.close().await;
    installation.back_up();

    // The backup lacks these changes.
    let service = installation.open().await;
    revoke(&service, &Actor::Admin, &AccessScope::Everything, RevocationTarget::Token(revoked.clone()), None)
        .await
        .unwrap();
    delete_api_key(&service, &Actor::Admin, &AccessScope::Everything, deleted_key.0).await.unwrap();
    let new =
        rotate_edge(&service, &Actor::Admin, &edge, OldCredentialEnd::EndsNow).await.unwrap().credential;
    let lost_key = key(&service).await;
    for _ in 0..10 {
        clock.advance(Duration::from_secs(86_400));
        purge_expired(&service).await.unwrap();
        assert!(compact_journal(&service).await.unwrap());
    }
    let later_key = key(&service).await;
    assert!(authenticate_edge(&service, new.expose()).await.is_ok());
    service.close().await;

    installation.restore();
    let service = installation.open().await;
    let fresh = Edge::of(&service).await;
    assert_eq!(fresh.ask(&revoked, ""), "revoked");
    assert_eq!(fresh.ask(&deleted_key.1, &installation.operator), "revoked");
    assert_eq!(fresh.ask(&kept, ""), "admitted");
    assert_eq!(fresh.ask(&kept_key.1, &installation.operator), "admitted");
    // The ended credential stays refused. Its successor is lost.
    assert!(authenticate_edge(&service, old.expose()).await.is_err());
    assert!(authenticate_edge(&service, new.expose()).await.is_err());
    let replacement = rotate_edge(&service, &Actor::Admin, &edge, OldCredentialEnd::EndsNow).await.unwrap();
    assert!(authenticate_edge(&service, replacement.credential.expose()).await.is_ok());
    let reissued = key(&service).await;
    let numbers: Vec<ApiKeyId> =
        [&kept_key, &deleted_key, &lost_key, &later_key].into_iter().map(|(id, _)| *id).collect();
    assert!(!numbers.contains(&reissued.0), "{numbers:?} {:?}", reissued.0);
    assert_eq!(service.keys().current().signer().kid(), first_kid);
    service.close().await;
}

#[tokio::test]
async fn journal_merge_restores_retired_signing_keys() {
    let installation = Installation::new().await;
    let service = installation.open().await;
    let root: Subject = installation.operator.parse().unwrap();
    let token =
        issue_token(&service, TokenRecipient::Subject(root.clone()), Lifetime::NEVER).await.unwrap().token;
    let order = order(root.clone());
    let key = create_api_key(&service, &Actor::Admin, order).await.unwrap();
    let kid = service.keys().current().signer().kid().to_owned();
    service.close().await;
    installation.back_up();

    let service = installation.open().await;
    rotate_signing_key(&service, &Actor::Admin).await.unwrap();
    installation.clock.advance(Duration::from_secs(3600));
    activate_pending_signing_key(&service).await.unwrap();
    retire_key(&service, &Actor::Admin, &kid).await.unwrap();
    let generation = key.key.generation;
    rotate_tag_key(&service, &Actor::Admin, Kind::Signed).await.unwrap();
    retire_key(&service, &Actor::Admin, &format!("tag-{generation}")).await.unwrap();
    assert!(compact_journal(&service).await.unwrap());
    service.close().await;

    installation.restore();
    let service = installation.open().await;
    let fresh = Edge::of(&service).await;
    assert_ne!(fresh.ask(token.expose(), ""), "admitted");
    assert_ne!(fresh.ask(key.secret.expose(), &installation.operator), "admitted");
    let token = issue_token(&service, TokenRecipient::Subject(root), Lifetime::NEVER).await.unwrap().token;
    assert_eq!(Edge::of(&service).await.ask(token.expose(), ""), "admitted");
    service.close().await;
}

#[tokio::test]
async fn journal_is_not_compacted_before_merge() {
    let installation = Installation::new().await;
    let service = installation.open().await;
    let root: Subject = installation.operator.parse().unwrap();
    let token = issue_token(&service, TokenRecipient::Subject(root), Lifetime::NEVER).await.unwrap().token;
    // Another copy of the data folder, with the keys and the journal from before the revocation.
    let other = installation.clone_data();
    service.close().await;
    let service = installation.open().await;
    let target = RevocationTarget::Token(token.expose().to_owned());
    revoke(&service, &Actor::Admin, &AccessScope::Everything, target, None).await.unwrap();
    assert!(!compact_journal_if_due(&service).await.unwrap(), "it is small");
    service.close().await;
    let journal = installation.journal();
    assert!(journal.contains(&fingerprint(token.expose())));

    let service =
        Service::open_at(other.data_dir.clone(), other.config.clone(), other.clock.clone()).await.unwrap();
    fs::write(other.data_dir.keys().join("journal"), &journal).unwrap();
    assert!(!compact_journal(&service).await.unwrap());
    assert_eq!(other.journal(), journal);
    service.close().await;
}

/// If a power cut leaves a batch incomplete, all its lines are written again.
#[tokio::test]
async fn journal_completes_truncated_batch() {
    let installation = Installation::new().await;
    let service = installation.open().await;
    let user: Subject = format!("{}/ann", installation.operator).parse().unwrap();
    let mut keys = Vec::new();
    for _ in 0..40 {
        keys.push(create_auth_key(&service, &Actor::Admin, &user).await.unwrap());
    }
    service.close().await;
    installation.back_up();

    let service = installation.open().await;
    delete_user(&service, &Actor::Admin, &user, CreatedKeysPolicy::Keep).await.unwrap();
    service.close().await;
    let journal = installation.journal();
    let tenth = journal.match_indices("\"auth_key\"").nth(9).unwrap().0;
    fs::write(installation.data_dir.keys().join("journal"), &journal[..tenth]).unwrap();

    let service = installation.open().await;
    revoke(
        &service,
        &Actor::Admin,
        &AccessScope::Everything,
        RevocationTarget::Fingerprint(Fingerprint::from([1; 32])),
        None,
    )
    .await
    .unwrap();
    service.close().await;
    installation.restore();
    let service = installation.open().await;
    for key in &keys {
        let exchanged =
            exchange_auth_key(&service, key.id.as_str(), key.secret.expose(), Lifetime::default()).await;
        assert!(matches!(exchanged, Err(ExchangeError::Refused)), "{exchanged:?}");
    }
    assert!(find_user(&service, &user).await.is_err());
    service.close().await;
}

/// The clock is ahead when a server first uses a restored database.
#[tokio::test]
async fn journal_merge_does_not_depend_on_the_clock() {
    let installation = Installation::new().await;
    let clock = &installation.clock;
    let service = installation.open().await;
    let root: Subject = installation.operator.parse().unwrap();
    let day = Lifetime::try_from(86_400).unwrap();
    let token = issue_token(&service, TokenRecipient::Subject(root.clone()), day).await.unwrap().token;
    service.close().await;
    installation.back_up();
    let service = installation.open().await;
    let target = RevocationTarget::Token(token.expose().to_owned());
    revoke(&service, &Actor::Admin, &AccessScope::Everything, target, None).await.unwrap();
    service.close().await;
    installation.restore();

    let right = clock.now();
    clock.set(right.plus(Duration::from_secs(3 * 86_400)));
    let service = installation.open().await;
    repair_database(&service, &Actor::Admin, GapStart::AsFound).await.unwrap();
    clock.set(right.plus(Duration::from_secs(60)));
    assert_eq!(Edge::of(&service).await.ask(token.expose(), ""), "revoked");
    // Entries from the future prevent issuing until the clock is repaired.
    assert!(issue_token(&service, TokenRecipient::Subject(root.clone()), day).await.is_err());
    let ahead = instants_ahead(&service).await.unwrap();
    assert!(ahead.iter().any(|(what, _)| what.contains("restored")), "{ahead:?}");
    repair_clock(&service, &Actor::Admin, true).await.unwrap();
    assert_eq!(instants_ahead(&service).await.unwrap(), []);
    clock.advance(Duration::from_secs(2));
    let issued = issue_token(&service, TokenRecipient::Subject(root), day).await.unwrap().token;
    assert_eq!(Edge::of(&service).await.ask(issued.expose(), ""), "admitted");
    service.close().await;
}

/// A disabled key can be enabled again. A key that was revoked after it was disabled cannot, even in a restored database.
#[tokio::test]
async fn journal_records_revocation_of_disabled_key() {
    let installation = Installation::new().await;
    let service = installation.open().await;
    let root: Subject = installation.operator.parse().unwrap();
    let everything = &AccessScope::Everything;
    let key = create_api_key(&service, &Actor::Admin, order(root.clone())).await.unwrap();
    let enabled = create_api_key(&service, &Actor::Admin, order(root)).await.unwrap();
    for key in [&key, &enabled] {
        disable_api_key(&service, &Actor::Admin, everything, key.key.id).await.unwrap();
    }
    service.close().await;
    installation.back_up();
    let service = installation.open().await;
    let target = RevocationTarget::Token(key.secret.expose().to_owned());
    revoke(&service, &Actor::Admin, everything, target, Some("leaked")).await.unwrap();
    enable_api_key(&service, &Actor::Admin, everything, enabled.key.id).await.unwrap();
    service.close().await;
    installation.restore();

    let service = installation.open().await;
    repair_database(&service, &Actor::Admin, GapStart::AsFound).await.unwrap();
    let error = enable_api_key(&service, &Actor::Admin, everything, key.key.id).await;
    assert!(error.is_err());
    let ask = async |secret: &str| Edge::of(&service).await.ask(secret, &installation.operator);
    assert_eq!(ask(key.secret.expose()).await, "revoked");
    // The enabled key has the state from before the loss, and can be disabled.
    assert_eq!(ask(enabled.secret.expose()).await, "admitted");
    disable_api_key(&service, &Actor::Admin, everything, enabled.key.id).await.unwrap();
    assert_eq!(ask(enabled.secret.expose()).await, "revoked");
    service.close().await;
}

/// Commands change nothing between a restore and the start of a server, because nothing would distinguish their changes
/// from lost ones.
#[tokio::test]
async fn commands_fail_before_journal_merge() {
    let env = TestEnv::on_postgres().await;
    let alice = format!("{}/alice", env.operator);
    env.json(&["user", "create", &alice]);
    let token =
        json_text(&env.json(&["token", "issue", "--operator", &env.operator, "--user", "alice"])["token"]);
    env.json(&["edge", "enroll", "one"]);
    back_up(&env);
    env.json(&["revoke", "--subject", &alice, "--yes"]);
    env.json(&["edge", "rotate", "one", "--now", "--yes"]);
    restore(&env);
    let commands: [&[&str]; 4] = [
        &["revoke", "--subject", &alice, "--at", "1", "--yes"],
        &["edge", "rotate", "one"],
        &["revoke", "--fingerprint", &"1".repeat(64)],
        &["token", "issue", "--operator", &env.operator],
    ];
    for command in commands {
        let stderr = env.stderr_of_failure(command);
        assert!(stderr.contains("restored from a backup"), "{command:?}: {stderr}");
    }
    assert!(doctor(&env).contains("restored from a backup"));
    let server = env.serve();
    env.json(&["revoke", "--subject", &alice, "--at", "1", "--yes"]);
    assert_eq!(Edge::start_fresh(&env).await.ask(&token, ""), "watermark");
    drop(server);
}

/// After a crash between the commit and the journal, the next server writes the missing entries before it publishes.
#[tokio::test]
async fn journal_catches_up_after_a_crash() {
    let env = TestEnv::on_sqlite().await;
    let revoked = env.issue_root_token();
    back_up(&env);
    env.json(&["revoke", "--token", &env.issue_root_token()]);
    let before = journal(&env);
    env.json(&["revoke", "--token", &revoked]);
    assert!(journal(&env).len() > before.len());
    fs::write(env.data().join("keys/journal"), before).unwrap();

    let server = env.serve();
    eventually("the journal", async || journal(&env).contains(&fingerprint(&revoked)).then_some(())).await;
    drop(server);
    restore(&env);
    let server = env.serve();
    assert_eq!(Edge::start_fresh(&env).await.ask(&revoked, ""), "revoked");
    drop(server);
}

#[tokio::test]
async fn each_replica_merges_its_own_journal() {
    let first = TestEnv::on_postgres().await;
    let second = first.replica();
    let (revoked, kept) = (first.issue_root_token(), first.issue_root_token());
    back_up(&first);
    let servers = (first.serve(), second.serve());
    first.json(&["revoke", "--token", &revoked]);
    for env in [&first, &second] {
        eventually("the journal", async || journal(env).contains(&fingerprint(&revoked)).then_some(())).await;
    }
    drop(servers);
    restore(&first);

    let server = second.serve();
    assert_eq!(Edge::start_fresh(&second).await.ask(&revoked, ""), "revoked");
    let other = first.serve();
    assert_eq!(first.json(&["restore", "--repair", "--yes"])["repaired"], true);
    assert_eq!(second.json(&["restore", "--repair", "--yes"])["repaired"], false);
    for env in [&first, &second] {
        assert!(!doctor(env).contains("restore --repair"), "{}", doctor(env));
        let fresh = Edge::start_fresh(env).await;
        assert_eq!(fresh.ask(&revoked, ""), "revoked");
        assert_eq!(fresh.ask(&kept, ""), "admitted");
    }
    drop((server, other));
}

/// The journal is lost, so the revocations since the backup are unknown.
#[tokio::test]
async fn restore_everything_refuses_all_issued_credentials() {
    let env = TestEnv::on_postgres().await;
    let token = env.issue_root_token();
    let key = api_key(&env, &env.operator, None).1;
    back_up(&env);
    env.json(&["revoke", "--token", &token]);
    restore(&env);
    fs::remove_file(env.data().join("keys/journal")).unwrap();

    assert!(
        env.stderr_of_failure(&["restore", "--repair", "--everything"])
            .contains("revoke every token and API key")
    );
    let done = env.json(&["restore", "--repair", "--everything", "--yes"]);
    assert_eq!(done["auth_keys_deleted"], json!(1), "{done}");
    let server = env.serve();
    let fresh = Edge::start_fresh(&env).await;
    assert_ne!(fresh.ask(&token, ""), "admitted");
    assert_ne!(fresh.ask(&key, &env.operator), "admitted");
    let auth_key = env.json(&["authkey", "create", "--operator", &env.operator]);
    let issued = issue(&env, &json_text(&auth_key["auth_key_id"]));
    let issued_key = api_key(&env, &env.operator, None).1;
    let fresh = Edge::start_fresh(&env).await;
    assert_eq!(fresh.ask(&issued, ""), "admitted");
    assert_eq!(fresh.ask(&issued_key, &env.operator), "admitted");
    drop(server);
}

/// Commands refuse to publish a database that lacks entries of the journal.
#[tokio::test]
async fn export_rejects_restored_database() {
    let env = TestEnv::on_sqlite().await;
    let revoked = env.issue_root_token();
    back_up(&env);
    env.json(&["revoke", "--token", &revoked]);
    restore(&env);
    for command in [&["bundle", "export"][..], &["bundle", "show"]] {
        let stderr = env.stderr_of_failure(command);
        assert!(stderr.contains("restored from a backup"), "{stderr}");
    }
    drop(env.serve());
    env.json(&["bundle", "show"]);
    assert_eq!(Edge::start_fresh(&env).await.ask(&revoked, ""), "revoked");
}

fn order(owner: Subject) -> CreateApiKey {
    let prefix = Prefix::default();
    CreateApiKey { owner, username: None, prefix, name: None, metadata: None, expires_at: None }
}

/// Uses SQLite and a clock that the test controls.
struct Installation {
    folder: TempDir,
    data_dir: DataDir,
    config: Config,
    clock: Clock,
    operator: String,
}

impl Installation {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::new(folder.path().join("data"));
        let store = config::Store { url: "sqlite:keystile.db".to_owned() };
        let mut config = Config { store, ..Config::default() };
        config.tokens.allow_never = true;
        let clock = Clock::manual(UnixMillis::from_seconds(UnixSeconds::new(1_800_000_000)));
        let operator = initialize_at(&data_dir, &config, &clock).await.unwrap().operator.to_string();
        Self { folder, data_dir, config, clock, operator }
    }

    async fn open(&self) -> Service {
        // Credentials issued after a revocation have a later time.
        self.clock.advance(Duration::from_secs(5));
        Service::open_at(self.data_dir.clone(), self.config.clone(), self.clock.clone()).await.unwrap()
    }

    fn journal(&self) -> String {
        fs::read_to_string(self.data_dir.keys().join("journal")).unwrap()
    }

    fn back_up(&self) {
        let backup = self.folder.path().join("backup");
        fs::create_dir(&backup).unwrap();
        copy_database(self.data_dir.path(), &backup);
    }

    fn restore(&self) {
        copy_database(&self.folder.path().join("backup"), self.data_dir.path());
    }

    fn clone_data(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let done =
            std::process::Command::new("cp").arg("-a").arg(self.data_dir.path()).arg(folder.path()).status();
        assert!(done.unwrap().success());
        let data_dir = DataDir::new(folder.path().join("data"));
        let (config, clock, operator) = (self.config.clone(), self.clock.clone(), self.operator.clone());
        Self { folder, data_dir, config, clock, operator }
    }
}
