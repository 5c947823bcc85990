//! A restored backup makes nothing good again, and does not keep edges from what is revoked afterwards.

use std::{fs, path::Path};

use bundle::Snapshot;
use control_plane::{operations::Service, publisher};
use serde_json::{Value, json};
use verdict::{Decision, Gate, Policy};

use crate::{
    on_both, postgres,
    world::{Server, World, eventually, text, version},
};

on_both! {
    /// One of everything: known before the backup, made after it, taken back after it.
    async fn what_was_taken_back_stays_taken_back(world: World) {
        let world = &world;
        let alice = format!("{}/alice", world.operator);
        let root = world.operator.as_str();
        // Before the backup.
        let good = Credentials::make(world, root);
        let revoked = Credentials::make(world, root);
        let disabled = Credentials::make(world, root);
        let deleted = Credentials::make(world, root);
        let before = Credentials::make(world, root);
        world.json(&["revoke", "--token", &before.token]);
        world.json(&["revoke", "--token", &before.api_key]);
        let mistaken = Credentials::make(world, root);
        world.json(&["revoke", "--token", &mistaken.token]);
        world.json(&["user", "create", &alice]);
        let alices = Credentials::make(world, &alice);
        let alices_auth_key = auth_key(world, Some("alice"));
        let leaked = auth_key(world, None);
        let leaked_token = issue(world, &leaked.0);
        let (removed, kept) = (world.edge("removed"), world.edge("kept"));
        let stranger = text(&world.json(&["operator", "create"])["operator_id"]);
        let strangers = Credentials::make(world, &stranger);
        back_up(world);

        // After it.
        let server = world.serve();
        let lost = Credentials::make(world, root);
        let lost_and_revoked = Credentials::make(world, root);
        // Nobody's at the edge, and its fingerprint is nobody's in the restored store.
        let foreign = api_key(world, root, Some("alice@example.com"));
        let foreign_revoked = api_key(world, root, Some("alice@example.com"));
        let bare = api_key(world, root, Some(""));
        for one in [&revoked.token, &revoked.api_key, &lost_and_revoked.token, &lost_and_revoked.api_key, &foreign_revoked.1] {
            world.json(&["revoke", "--token", one]);
        }
        world.json(&["unrevoke", "--fingerprint", &fingerprint(&mistaken.token), "--yes"]);
        world.json(&["key", "disable", &disabled.key_id, "--yes"]);
        world.json(&["key", "delete", &deleted.key_id, "--yes"]);
        world.json(&["authkey", "delete", &leaked.0, "--yes"]);
        world.json(&["user", "delete", &alice, "--yes"]);
        world.json(&["operator", "delete", &stranger, "--yes"]);
        world.json(&["edge", "remove", "removed", "--yes"]);
        let late_auth_key = auth_key(world, None);
        let late_token = issue(world, &late_auth_key.0);
        marked(world).await;
        drop(server);
        restore(world);
        assert!(doctor(world).contains("restored from a backup"));

        // The server takes up what was taken back by itself, before it publishes anything.
        let good_ones = [&good, &mistaken];
        let refused = [
            (&revoked.token, ""), (&revoked.api_key, root), (&disabled.api_key, root), (&deleted.api_key, root),
            (&before.token, ""), (&before.api_key, root), (&alices.token, ""), (&alices.api_key, &alice),
            (&leaked_token, ""), (&strangers.token, ""), (&strangers.api_key, &stranger),
            (&lost_and_revoked.token, ""), (&lost_and_revoked.api_key, root), (&foreign_revoked.1, "alice@example.com"),
        ];
        let unknown = [
            (&lost.token, ""), (&lost.api_key, root), (&foreign.1, "alice@example.com"), (&bare.1, ""), (&late_token, ""),
        ];
        let server = world.serve();
        let edge = Edge::fresh(world).await;
        for (number, (credential, username)) in refused.iter().enumerate() {
            assert_ne!(edge.ask(credential, username), "admitted", "{number}");
        }
        assert_eq!(edge.ask(&good.api_key, root), "admitted");
        let exchanged = async |(id, secret): &(String, String)| {
            let body = json!({ "authKeyId": id, "authKey": secret });
            server.post("/v1/auth", &body).send().await.unwrap().status()
        };
        for dead in [&leaked, &alices_auth_key, &late_auth_key] {
            assert_eq!(exchanged(dead).await, 401);
        }
        assert_eq!(server.manifest(&removed, 0, 0).send().await.unwrap().status(), 401);
        assert_eq!(server.manifest(&kept, 0, 0).send().await.unwrap().status(), 200);
        assert!(world.log().contains("restored from a backup"));
        assert!(doctor(world).contains("keystile restore --repair"));
        // What is issued before the repair is known.
        let between = Credentials::make(world, root);

        // Says what it would do, and does it while the server runs.
        assert!(world.complaint(&["restore", "--repair"]).contains("refuse every token and API key that was issued after"));
        let done = world.json(&["restore", "--repair", "--yes"]);
        assert_eq!(done["repaired"], true, "{done}");
        assert_eq!(done["unrevoked"], json!([fingerprint(&mistaken.token)]), "{done}");
        let after = Credentials::make(world, root);
        let check = async |when: &str| {
            let edge = Edge::fresh(world).await;
            for (number, (credential, username)) in refused.iter().enumerate() {
                assert_ne!(edge.ask(credential, username), "admitted", "{when}: {number}");
            }
            for (number, (credential, username)) in unknown.iter().enumerate() {
                assert_eq!(edge.ask(credential, username), "issuance_unknown", "{when}: {number}");
            }
            for (number, known) in good_ones.into_iter().chain([&between, &after]).enumerate() {
                assert_eq!(edge.ask(&known.token, ""), "admitted", "{when}: {number}");
                assert_eq!(edge.ask(&known.api_key, root), "admitted", "{when}: {number}");
            }
        };
        check("repaired").await;
        let published = version(server.manifest(&kept, 0, 0).send().await.unwrap().headers());
        assert!(published >= done["version"].as_u64().unwrap());
        assert!(!doctor(world).contains("restore --repair"), "{}", doctor(world));
        // Disabled, not revoked: as it was.
        assert_eq!(text(&world.json(&["key", "show", &disabled.key_id])["standing"]), "disabled");

        // Again: nothing.
        let again = world.json(&["restore", "--repair", "--yes"]);
        assert_eq!(again["repaired"], false, "{again}");
        world.json(&["bundle", "rebase"]);
        check("rebased").await;
        end(server);
        let server = world.serve();
        check("restarted").await;
        let again = world.json(&["restore", "--repair", "--yes"]);
        assert_eq!(again["repaired"], false, "{again}");
        end(server);

        // The same backup once more.
        restore(world);
        let server = world.serve();
        let edge = Edge::fresh(world).await;
        for (number, (credential, username)) in refused.iter().enumerate() {
            assert_ne!(edge.ask(credential, username), "admitted", "again: {number}");
        }
        assert_eq!(world.json(&["restore", "--repair", "--yes"])["repaired"], true);
        let edge = Edge::fresh(world).await;
        for (credential, username) in unknown.into_iter().chain([(&between.token, ""), (&between.api_key, root), (&after.api_key, root)]) {
            assert_eq!(edge.ask(credential, username), "issuance_unknown");
        }
        assert_eq!(edge.ask(&good.token, ""), "admitted");
        drop(server);
    }
}

/// Tokens and API keys of somebody.
struct Credentials {
    token: String,
    api_key: String,
    key_id: String,
}

impl Credentials {
    fn make(world: &World, subject: &str) -> Self {
        let (operator, user) =
            subject.split_once('/').map_or((subject, None), |(operator, user)| (operator, Some(user)));
        let id = match (operator == world.operator, user) {
            (true, None) => world.auth_key_id.clone(),
            _ => auth_key_of(world, operator, user).0,
        };
        let (key_id, api_key) = api_key(world, subject, None);
        Self { token: issue(world, &id), api_key, key_id }
    }
}

pub(crate) fn issue(world: &World, auth_key_id: &str) -> String {
    text(&world.json(&["token", "issue", "--auth-key-id", auth_key_id])["token"])
}

/// Id and key.
pub(crate) fn api_key(world: &World, subject: &str, username: Option<&str>) -> (String, String) {
    let mut arguments = vec!["key", "create", "--user", subject];
    arguments.extend(username.iter().flat_map(|username| ["--username", username]));
    let made = world.json(&arguments);
    (text(&made["key_id"]), text(&made["api_key"]))
}

/// Id and secret.
fn auth_key(world: &World, user: Option<&str>) -> (String, String) {
    auth_key_of(world, &world.operator, user)
}

fn auth_key_of(world: &World, operator: &str, user: Option<&str>) -> (String, String) {
    let mut arguments = vec!["authkey", "create", "--operator", operator];
    arguments.extend(user.iter().flat_map(|user| ["--user", user]));
    let made = world.json(&arguments);
    (text(&made["auth_key_id"]), text(&made["auth_key"]))
}

pub(crate) fn fingerprint(credential: &str) -> String {
    token::Fingerprint::digest(credential.as_bytes()).to_string()
}

/// One that has just started: it knows what is published, and nothing from before.
pub(crate) struct Edge {
    gate: Gate,
    snapshot: Snapshot,
    now: u64,
}

impl Edge {
    pub(crate) async fn fresh(world: &World) -> Self {
        let service = world.service().await;
        let edge = Self::of(&service).await;
        service.close().await;
        edge
    }

    pub(crate) async fn of(service: &Service) -> Self {
        let publication = publisher::preview(service).await.unwrap();
        let policy = json!({
            "audience": "default",
            "root_keys": [service.root_key()],
            "control_plane": { "cluster": "none" },
            "tokens": { "issuer": service.config().tokens.issuer, "audiences": [service.config().tokens.audience] },
            "credentials": [{ "header": "authorization", "scheme": "Bearer" }],
            "api_keys": { "prefixes": ["ks_live_"], "username_header": "x-username" },
        });
        let gate = Gate::new(Policy::from_json(policy.to_string().as_bytes()).unwrap());
        Self { gate, snapshot: publication.snapshot.clone(), now: publication.issued_at }
    }

    /// The code of what it says.
    pub(crate) fn ask(&self, credential: &str, username: &str) -> &'static str {
        let bearer = format!("Bearer {credential}");
        let username = (!username.is_empty()).then_some(("x-username", username.as_bytes()));
        let headers = [("authorization", bearer.as_bytes())].into_iter().chain(username);
        match self.gate.decide(headers, Some(&self.snapshot), self.now) {
            Decision::Admit(_) => "admitted",
            Decision::Refuse(refusal) => refusal.reason().code(),
            Decision::Pass(_) => "passed",
        }
    }
}

/// What `keystile doctor` prints, whatever it thinks of it.
pub(crate) fn doctor(world: &World) -> String {
    let output = world.run(&["doctor"]);
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// The journal lies beside the keys.
pub(crate) fn journal(world: &World) -> String {
    fs::read_to_string(world.data().join("keys/journal")).unwrap_or_default()
}

/// Waits until the journal has a mark of the newest change: else nothing tells what was only issued.
async fn marked(world: &World) {
    let newest = world.json(&["audit"])[0]["seq"].as_u64().unwrap();
    eventually("the newest mark", async || {
        let lines = journal(world);
        let marks = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        marks
            .into_iter()
            .any(|line| line["kind"] == "mark" && line["seq"].as_u64() >= Some(newest))
            .then_some(())
    })
    .await;
}

/// While nobody is connected.
pub(crate) fn back_up(world: &World) {
    if world.url.starts_with("sqlite:") {
        let backup = world.folder().join("backup");
        fs::create_dir(&backup).unwrap();
        copy_database(&world.data(), &backup);
    } else {
        postgres::back_up(&world.url);
    }
}

pub(crate) fn restore(world: &World) {
    if world.url.starts_with("sqlite:") {
        copy_database(&world.folder().join("backup"), &world.data());
    } else {
        postgres::restore(&world.url);
    }
}

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
    assert!(!world.log().contains("reports a version above the latest"));
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
