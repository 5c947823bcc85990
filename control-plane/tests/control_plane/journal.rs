//! The journal beside the keys contains what a restored database lacks, after compaction, crashes and days, and each
//! replica has one.

use std::{fs, time::Duration};

use control_plane::{
    clock::{Clock, Time},
    config::{self, Config},
    home::Home,
    model::{Actor, ApiKeyId, EdgeId, Subject},
    operations::{
        ApiKeyOrder, Authority, Bearer, CreatedByUser, ExchangeError, Lifetime, OldCredential, Service,
        Started, Target, authenticate_edge, collect, compact_journal, compact_journal_if_due, create_api_key,
        create_auth_key, delete_api_key, delete_user, disable_api_key, enable_api_key, enroll_edge, exchange,
        find_user, initialize_at, instants_ahead, issue, promote_signing_key, repair, repair_clock,
        retire_key, revoke, rotate_edge, rotate_signing_key, rotate_tag_key,
    },
};
use serde_json::json;
use tempfile::TempDir;
use token::{
    Fingerprint,
    api_key::{Kind, Prefix},
};

use crate::{
    restored::{
        Edge, api_key, back_up, copy_database, doctor, fingerprint, issue as issue_token, journal, restore,
    },
    world::{World, eventually, text},
};

#[tokio::test]
async fn journal_refuses_again_after_ten_days_and_compactions() {
    let installation = Installation::new().await;
    let clock = &installation.clock;
    let service = installation.open().await;
    let root: Subject = installation.operator.parse().unwrap();
    let token = async |service: &Service| {
        issue(service, Bearer::Subject(root.clone()), Lifetime::NEVER)
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
    revoke(&service, &Actor::Admin, &Authority::Everything, Target::Token(revoked.clone()), None)
        .await
        .unwrap();
    delete_api_key(&service, &Actor::Admin, &Authority::Everything, deleted_key.0).await.unwrap();
    let new = rotate_edge(&service, &Actor::Admin, &edge, OldCredential::EndsNow).await.unwrap().credential;
    let lost_key = key(&service).await;
    for _ in 0..10 {
        clock.advance(Duration::from_secs(86_400));
        collect(&service).await.unwrap();
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
    let replacement = rotate_edge(&service, &Actor::Admin, &edge, OldCredential::EndsNow).await.unwrap();
    assert!(authenticate_edge(&service, replacement.credential.expose()).await.is_ok());
    let reissued = key(&service).await;
    let numbers: Vec<ApiKeyId> =
        [&kept_key, &deleted_key, &lost_key, &later_key].into_iter().map(|(id, _)| *id).collect();
    assert!(!numbers.contains(&reissued.0), "{numbers:?} {:?}", reissued.0);
    assert_eq!(service.keys().current().signer().kid(), first_kid);
    service.close().await;
}

#[tokio::test]
async fn journal_refuses_again_what_retired_keys_signed() {
    let installation = Installation::new().await;
    let service = installation.open().await;
    let root: Subject = installation.operator.parse().unwrap();
    let token = issue(&service, Bearer::Subject(root.clone()), Lifetime::NEVER).await.unwrap().token;
    let order = order(root.clone());
    let key = create_api_key(&service, &Actor::Admin, order).await.unwrap();
    let kid = service.keys().current().signer().kid().to_owned();
    service.close().await;
    installation.back_up();

    let service = installation.open().await;
    rotate_signing_key(&service, &Actor::Admin).await.unwrap();
    installation.clock.advance(Duration::from_secs(3600));
    promote_signing_key(&service).await.unwrap();
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
    let token = issue(&service, Bearer::Subject(root), Lifetime::NEVER).await.unwrap().token;
    assert_eq!(Edge::of(&service).await.ask(token.expose(), ""), "admitted");
    service.close().await;
}

#[tokio::test]
async fn journal_is_not_compacted_while_it_says_more_than_the_store_knows() {
    let installation = Installation::new().await;
    let service = installation.open().await;
    let root: Subject = installation.operator.parse().unwrap();
    let token = issue(&service, Bearer::Subject(root), Lifetime::NEVER).await.unwrap().token;
    // Another copy of the data folder, with the keys and the journal from before the revocation.
    let other = installation.clone_data();
    service.close().await;
    let service = installation.open().await;
    let target = Target::Token(token.expose().to_owned());
    revoke(&service, &Actor::Admin, &Authority::Everything, target, None).await.unwrap();
    assert!(!compact_journal_if_due(&service).await.unwrap(), "it is small");
    service.close().await;
    let journal = installation.journal();
    assert!(journal.contains(&fingerprint(token.expose())));

    let service =
        Service::open_at(other.home.clone(), other.config.clone(), other.clock.clone()).await.unwrap();
    fs::write(other.home.keys().join("journal"), &journal).unwrap();
    assert!(!compact_journal(&service).await.unwrap());
    assert_eq!(other.journal(), journal);
    service.close().await;
}

/// If a power cut leaves a batch incomplete, all its lines are written again.
#[tokio::test]
async fn journal_completes_a_torn_batch() {
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
    delete_user(&service, &Actor::Admin, &user, CreatedByUser::Keep).await.unwrap();
    service.close().await;
    let journal = installation.journal();
    let tenth = journal.match_indices("\"auth_key\"").nth(9).unwrap().0;
    fs::write(installation.home.keys().join("journal"), &journal[..tenth]).unwrap();

    let service = installation.open().await;
    revoke(
        &service,
        &Actor::Admin,
        &Authority::Everything,
        Target::Fingerprint(Fingerprint::from([1; 32])),
        None,
    )
    .await
    .unwrap();
    service.close().await;
    installation.restore();
    let service = installation.open().await;
    for key in &keys {
        let exchanged = exchange(&service, key.id.as_str(), key.secret.expose(), Lifetime::default()).await;
        assert!(matches!(exchanged, Err(ExchangeError::Refused)), "{exchanged:?}");
    }
    assert!(find_user(&service, &user).await.is_err());
    service.close().await;
}

/// The clock is ahead when a server first uses a restored database.
#[tokio::test]
async fn journal_is_merged_whatever_the_clock_says() {
    let installation = Installation::new().await;
    let clock = &installation.clock;
    let service = installation.open().await;
    let root: Subject = installation.operator.parse().unwrap();
    let day = Lifetime::try_from(86_400).unwrap();
    let token = issue(&service, Bearer::Subject(root.clone()), day).await.unwrap().token;
    service.close().await;
    installation.back_up();
    let service = installation.open().await;
    let target = Target::Token(token.expose().to_owned());
    revoke(&service, &Actor::Admin, &Authority::Everything, target, None).await.unwrap();
    service.close().await;
    installation.restore();

    let right = clock.now();
    clock.set(right.plus(Duration::from_secs(3 * 86_400)));
    let service = installation.open().await;
    repair(&service, &Actor::Admin, Started::Found).await.unwrap();
    clock.set(right.plus(Duration::from_secs(60)));
    assert_eq!(Edge::of(&service).await.ask(token.expose(), ""), "revoked");
    // Entries from the future prevent issuing until the clock is repaired.
    assert!(issue(&service, Bearer::Subject(root.clone()), day).await.is_err());
    let ahead = instants_ahead(&service).await.unwrap();
    assert!(ahead.iter().any(|(what, _)| what.contains("restored")), "{ahead:?}");
    repair_clock(&service, &Actor::Admin, true).await.unwrap();
    assert_eq!(instants_ahead(&service).await.unwrap(), []);
    clock.advance(Duration::from_secs(2));
    let issued = issue(&service, Bearer::Subject(root), day).await.unwrap().token;
    assert_eq!(Edge::of(&service).await.ask(issued.expose(), ""), "admitted");
    service.close().await;
}

/// A disabled key can be enabled again. A key that was revoked after it was disabled cannot, even in a restored database.
#[tokio::test]
async fn journal_knows_that_a_disabled_key_was_revoked() {
    let installation = Installation::new().await;
    let service = installation.open().await;
    let root: Subject = installation.operator.parse().unwrap();
    let everything = &Authority::Everything;
    let key = create_api_key(&service, &Actor::Admin, order(root.clone())).await.unwrap();
    let enabled = create_api_key(&service, &Actor::Admin, order(root)).await.unwrap();
    for key in [&key, &enabled] {
        disable_api_key(&service, &Actor::Admin, everything, key.key.id).await.unwrap();
    }
    service.close().await;
    installation.back_up();
    let service = installation.open().await;
    let target = Target::Token(key.secret.expose().to_owned());
    revoke(&service, &Actor::Admin, everything, target, Some("leaked")).await.unwrap();
    enable_api_key(&service, &Actor::Admin, everything, enabled.key.id).await.unwrap();
    service.close().await;
    installation.restore();

    let service = installation.open().await;
    repair(&service, &Actor::Admin, Started::Found).await.unwrap();
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
async fn commands_change_nothing_before_the_journal_is_merged() {
    let world = World::on_postgres().await;
    let alice = format!("{}/alice", world.operator);
    world.json(&["user", "create", &alice]);
    let token =
        text(&world.json(&["token", "issue", "--operator", &world.operator, "--user", "alice"])["token"]);
    world.json(&["edge", "enroll", "one"]);
    back_up(&world);
    world.json(&["revoke", "--subject", &alice, "--yes"]);
    world.json(&["edge", "rotate", "one", "--now", "--yes"]);
    restore(&world);
    let commands: [&[&str]; 4] = [
        &["revoke", "--subject", &alice, "--at", "1", "--yes"],
        &["edge", "rotate", "one"],
        &["revoke", "--fingerprint", &"1".repeat(64)],
        &["token", "issue", "--operator", &world.operator],
    ];
    for command in commands {
        let complaint = world.complaint(command);
        assert!(complaint.contains("restored from a backup"), "{command:?}: {complaint}");
    }
    assert!(doctor(&world).contains("restored from a backup"));
    let server = world.serve();
    world.json(&["revoke", "--subject", &alice, "--at", "1", "--yes"]);
    assert_eq!(Edge::fresh(&world).await.ask(&token, ""), "watermark");
    drop(server);
}

/// After a crash between the commit and the journal, the next server writes the missing entries before it publishes.
#[tokio::test]
async fn journal_catches_up_after_a_crash() {
    let world = World::on_sqlite().await;
    let revoked = world.token();
    back_up(&world);
    world.json(&["revoke", "--token", &world.token()]);
    let before = journal(&world);
    world.json(&["revoke", "--token", &revoked]);
    assert!(journal(&world).len() > before.len());
    fs::write(world.data().join("keys/journal"), before).unwrap();

    let server = world.serve();
    eventually("the journal", async || journal(&world).contains(&fingerprint(&revoked)).then_some(())).await;
    drop(server);
    restore(&world);
    let server = world.serve();
    assert_eq!(Edge::fresh(&world).await.ask(&revoked, ""), "revoked");
    drop(server);
}

#[tokio::test]
async fn each_replica_refuses_again_by_its_own_journal() {
    let first = World::on_postgres().await;
    let second = first.replica();
    let (revoked, kept) = (first.token(), first.token());
    back_up(&first);
    let servers = (first.serve(), second.serve());
    first.json(&["revoke", "--token", &revoked]);
    for world in [&first, &second] {
        eventually("the journal", async || journal(world).contains(&fingerprint(&revoked)).then_some(()))
            .await;
    }
    drop(servers);
    restore(&first);

    let server = second.serve();
    assert_eq!(Edge::fresh(&second).await.ask(&revoked, ""), "revoked");
    let other = first.serve();
    assert_eq!(first.json(&["restore", "--repair", "--yes"])["repaired"], true);
    assert_eq!(second.json(&["restore", "--repair", "--yes"])["repaired"], false);
    for world in [&first, &second] {
        assert!(!doctor(world).contains("restore --repair"), "{}", doctor(world));
        let fresh = Edge::fresh(world).await;
        assert_eq!(fresh.ask(&revoked, ""), "revoked");
        assert_eq!(fresh.ask(&kept, ""), "admitted");
    }
    drop((server, other));
}

/// The journal is lost, so the revocations since the backup are unknown.
#[tokio::test]
async fn restore_everything_refuses_all_that_was_issued() {
    let world = World::on_postgres().await;
    let token = world.token();
    let key = api_key(&world, &world.operator, None).1;
    back_up(&world);
    world.json(&["revoke", "--token", &token]);
    restore(&world);
    fs::remove_file(world.data().join("keys/journal")).unwrap();

    assert!(
        world.complaint(&["restore", "--repair", "--everything"]).contains("revoke every token and API key")
    );
    let done = world.json(&["restore", "--repair", "--everything", "--yes"]);
    assert_eq!(done["auth_keys_deleted"], json!(1), "{done}");
    let server = world.serve();
    let fresh = Edge::fresh(&world).await;
    assert_ne!(fresh.ask(&token, ""), "admitted");
    assert_ne!(fresh.ask(&key, &world.operator), "admitted");
    let auth_key = world.json(&["authkey", "create", "--operator", &world.operator]);
    let issued = issue_token(&world, &text(&auth_key["auth_key_id"]));
    let issued_key = api_key(&world, &world.operator, None).1;
    let fresh = Edge::fresh(&world).await;
    assert_eq!(fresh.ask(&issued, ""), "admitted");
    assert_eq!(fresh.ask(&issued_key, &world.operator), "admitted");
    drop(server);
}

/// Commands refuse to publish a database that lacks entries of the journal.
#[tokio::test]
async fn export_refuses_a_database_that_was_restored() {
    let world = World::on_sqlite().await;
    let revoked = world.token();
    back_up(&world);
    world.json(&["revoke", "--token", &revoked]);
    restore(&world);
    for command in [&["bundle", "export"][..], &["bundle", "show"]] {
        let complaint = world.complaint(command);
        assert!(complaint.contains("restored from a backup"), "{complaint}");
    }
    drop(world.serve());
    world.json(&["bundle", "show"]);
    assert_eq!(Edge::fresh(&world).await.ask(&revoked, ""), "revoked");
}

fn order(owner: Subject) -> ApiKeyOrder {
    let prefix = Prefix::default();
    ApiKeyOrder { owner, username: None, prefix, name: None, metadata: None, expires_at: None }
}

/// Uses SQLite and a clock that the test controls.
struct Installation {
    folder: TempDir,
    home: Home,
    config: Config,
    clock: Clock,
    operator: String,
}

impl Installation {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().join("data"));
        let store = config::Store { url: "sqlite:keystile.db".to_owned() };
        let mut config = Config { store, ..Config::default() };
        config.tokens.allow_never = true;
        let clock = Clock::manual(Time::from_seconds(1_800_000_000));
        let operator = initialize_at(&home, &config, &clock).await.unwrap().operator.to_string();
        Self { folder, home, config, clock, operator }
    }

    async fn open(&self) -> Service {
        // Credentials issued after a revocation have a later time.
        self.clock.advance(Duration::from_secs(5));
        Service::open_at(self.home.clone(), self.config.clone(), self.clock.clone()).await.unwrap()
    }

    fn journal(&self) -> String {
        fs::read_to_string(self.home.keys().join("journal")).unwrap()
    }

    fn back_up(&self) {
        let backup = self.folder.path().join("backup");
        fs::create_dir(&backup).unwrap();
        copy_database(self.home.folder(), &backup);
    }

    fn restore(&self) {
        copy_database(&self.folder.path().join("backup"), self.home.folder());
    }

    fn clone_data(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let done =
            std::process::Command::new("cp").arg("-a").arg(self.home.folder()).arg(folder.path()).status();
        assert!(done.unwrap().success());
        let home = Home::new(folder.path().join("data"));
        let (config, clock, operator) = (self.config.clone(), self.clock.clone(), self.operator.clone());
        Self { folder, home, config, clock, operator }
    }
}
