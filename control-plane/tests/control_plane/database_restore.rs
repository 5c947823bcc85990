//! After a backup is restored, revoked credentials stay refused, and edges get later revocations.

use std::{fs, path::Path};

use bundle::{Scope, Snapshot};
use control_plane::{publishing, service::Service};
use serde_json::{Value, json};
use verdict::{Decision, Gate, Policy};

use crate::{
    for_each_backend, postgres,
    test_env::{Server, TestEnv, entity_tag_version, eventually, json_text},
};

for_each_backend! {
    /// One object of each kind: created before the backup, created after it, and revoked or deleted after it.
    async fn restored_database_refuses_deleted_and_revoked_credentials(env: TestEnv) {
        let env = &env;
        let alice = format!("{}/alice", env.operator);
        let root = env.operator.as_str();
        // Create the objects before the backup.
        let good = TestCredentials::make(env, root);
        let revoked = TestCredentials::make(env, root);
        let disabled = TestCredentials::make(env, root);
        let deleted = TestCredentials::make(env, root);
        let before = TestCredentials::make(env, root);
        env.json(&["revoke", "--token", &before.token]);
        env.json(&["revoke", "--token", &before.api_key]);
        let mistaken = TestCredentials::make(env, root);
        env.json(&["revoke", "--token", &mistaken.token]);
        env.json(&["revoke", "--session", "https://idp.example#mistaken"]);
        env.json(&["user", "create", &alice]);
        let alices = TestCredentials::make(env, &alice);
        let alices_auth_key = auth_key(env, Some("alice"));
        let leaked = auth_key(env, None);
        let leaked_token = issue(env, &leaked.0);
        let (removed, kept) = (env.enroll_edge("removed"), env.enroll_edge("kept"));
        let stranger = json_text(&env.json(&["operator", "create"])["operator_id"]);
        let strangers = TestCredentials::make(env, &stranger);
        back_up(env);

        // Create and revoke objects after the backup.
        let server = env.serve();
        let lost = TestCredentials::make(env, root);
        let lost_and_revoked = TestCredentials::make(env, root);
        // It has no user at the edge, and the restored store does not contain its fingerprint.
        let foreign = api_key(env, root, Some("alice@example.com"));
        let foreign_revoked = api_key(env, root, Some("alice@example.com"));
        let bare = api_key(env, root, Some(""));
        for one in [&revoked.token, &revoked.api_key, &lost_and_revoked.token, &lost_and_revoked.api_key, &foreign_revoked.1] {
            env.json(&["revoke", "--token", one]);
        }
        env.json(&["unrevoke", "--fingerprint", &fingerprint(&mistaken.token), "--yes"]);
        env.json(&["unrevoke", "--session", "https://idp.example#mistaken", "--yes"]);
        env.json(&["revoke", "--session", "https://idp.example#ended"]);
        env.json(&["revoke", "--subject", "https://idp.example#leaver", "--yes"]);
        env.json(&["key", "disable", &disabled.key_id, "--yes"]);
        env.json(&["key", "delete", &deleted.key_id, "--yes"]);
        env.json(&["authkey", "delete", &leaked.0, "--yes"]);
        env.json(&["user", "delete", &alice, "--yes"]);
        env.json(&["operator", "delete", &stranger, "--yes"]);
        env.json(&["edge", "remove", "removed", "--yes"]);
        let late_auth_key = auth_key(env, None);
        let late_token = issue(env, &late_auth_key.0);
        wait_for_mark(env).await;
        drop(server);
        restore(env);
        assert!(doctor(env).contains("restored from a backup"));

        // The server applies the revocations by itself before it publishes anything.
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
        let server = env.serve();
        let edge = Edge::start_fresh(env).await;
        for (number, (credential, username)) in refused.iter().enumerate() {
            assert_ne!(edge.ask(credential, username), "admitted", "{number}");
        }
        assert_eq!(edge.ask(&good.api_key, root), "admitted");
        // Of other issuers' tokens too. A session whose revocation was taken back stays refused until the repair.
        let sessions = ["ended", "mistaken"].map(|id| format!("https://idp.example#{id}"));
        let [ended, taken_back] = sessions.each_ref().map(|id| Scope::IssuerSession(id));
        let leaver = Scope::User("https://idp.example#leaver");
        let watermarks = [ended, leaver, taken_back].map(|scope| edge.snapshot.watermark([scope]).is_some());
        assert_eq!(watermarks, [true, true, true]);
        let exchanged = async |(id, secret): &(String, String)| {
            let body = json!({ "authKeyId": id, "authKey": secret });
            server.post("/v1/auth", &body).send().await.unwrap().status()
        };
        for dead in [&leaked, &alices_auth_key, &late_auth_key] {
            assert_eq!(exchanged(dead).await, 401);
        }
        assert_eq!(server.manifest(&removed, 0, 0).send().await.unwrap().status(), 401);
        assert_eq!(server.manifest(&kept, 0, 0).send().await.unwrap().status(), 200);
        assert!(env.log().contains("restored from a backup"));
        assert!(doctor(env).contains("keystile restore --repair"));
        // Credentials issued before the repair are in the store.
        let between = TestCredentials::make(env, root);

        // The command prints what it would do, and does it while the server runs.
        assert!(env.stderr_of_failure(&["restore", "--repair"]).contains("refuse every token and API key that was issued after"));
        let done = env.json(&["restore", "--repair", "--yes"]);
        assert_eq!(done["repaired"], true, "{done}");
        assert_eq!(done["unrevoked"], json!([fingerprint(&mistaken.token)]), "{done}");
        assert_eq!(done["taken_back"], json!(["session https://idp.example#mistaken"]), "{done}");
        let edge = Edge::start_fresh(env).await;
        let watermarks = [ended, leaver, taken_back].map(|scope| edge.snapshot.watermark([scope]).is_some());
        assert_eq!(watermarks, [true, true, false]);
        let after = TestCredentials::make(env, root);
        let check = async |when: &str| {
            let edge = Edge::start_fresh(env).await;
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
        let published = entity_tag_version(server.manifest(&kept, 0, 0).send().await.unwrap().headers());
        assert!(published >= done["version"].as_u64().unwrap());
        assert!(!doctor(env).contains("restore --repair"), "{}", doctor(env));
        // The disabled key is still disabled, not revoked.
        assert_eq!(json_text(&env.json(&["key", "show", &disabled.key_id])["standing"]), "disabled");

        // A second repair changes nothing.
        let again = env.json(&["restore", "--repair", "--yes"]);
        assert_eq!(again["repaired"], false, "{again}");
        // The former name of `compact`.
        env.json(&["bundle", "rebase"]);
        check("rebased").await;
        write_end(server);
        let server = env.serve();
        check("restarted").await;
        let again = env.json(&["restore", "--repair", "--yes"]);
        assert_eq!(again["repaired"], false, "{again}");
        write_end(server);

        // Restore the same backup again.
        restore(env);
        let server = env.serve();
        let edge = Edge::start_fresh(env).await;
        for (number, (credential, username)) in refused.iter().enumerate() {
            assert_ne!(edge.ask(credential, username), "admitted", "again: {number}");
        }
        assert_eq!(env.json(&["restore", "--repair", "--yes"])["repaired"], true);
        let edge = Edge::start_fresh(env).await;
        for (credential, username) in unknown.into_iter().chain([(&between.token, ""), (&between.api_key, root), (&after.api_key, root)]) {
            assert_eq!(edge.ask(credential, username), "issuance_unknown");
        }
        assert_eq!(edge.ask(&good.token, ""), "admitted");
        drop(server);
    }
}

/// The tokens and API keys of a user.
struct TestCredentials {
    token: String,
    api_key: String,
    key_id: String,
}

impl TestCredentials {
    fn make(env: &TestEnv, subject: &str) -> Self {
        let (operator, user) =
            subject.split_once('/').map_or((subject, None), |(operator, user)| (operator, Some(user)));
        let id = match (operator == env.operator, user) {
            (true, None) => env.auth_key_id.clone(),
            _ => auth_key_of(env, operator, user).0,
        };
        let (key_id, api_key) = api_key(env, subject, None);
        Self { token: issue(env, &id), api_key, key_id }
    }
}

pub(crate) fn issue(env: &TestEnv, auth_key_id: &str) -> String {
    json_text(&env.json(&["token", "issue", "--auth-key-id", auth_key_id])["token"])
}

/// Returns the ID and the key.
pub(crate) fn api_key(env: &TestEnv, subject: &str, username: Option<&str>) -> (String, String) {
    let mut arguments = vec!["key", "create", "--user", subject];
    arguments.extend(username.iter().flat_map(|username| ["--username", username]));
    let made = env.json(&arguments);
    (json_text(&made["key_id"]), json_text(&made["api_key"]))
}

/// Returns the ID and the secret.
fn auth_key(env: &TestEnv, user: Option<&str>) -> (String, String) {
    auth_key_of(env, &env.operator, user)
}

fn auth_key_of(env: &TestEnv, operator: &str, user: Option<&str>) -> (String, String) {
    let mut arguments = vec!["authkey", "create", "--operator", operator];
    arguments.extend(user.iter().flat_map(|user| ["--user", user]));
    let made = env.json(&arguments);
    (json_text(&made["auth_key_id"]), json_text(&made["auth_key"]))
}

pub(crate) fn fingerprint(credential: &str) -> String {
    token::Fingerprint::digest(credential.as_bytes()).to_string()
}

/// Starts a new edge, which has only what is published now.
pub(crate) struct Edge {
    gate: Gate,
    snapshot: Snapshot,
    now: u64,
}

impl Edge {
    pub(crate) async fn start_fresh(env: &TestEnv) -> Self {
        let service = env.service().await;
        let edge = Self::of(&service).await;
        service.close().await;
        edge
    }

    pub(crate) async fn of(service: &Service) -> Self {
        let publication = publishing::preview(service).await.unwrap();
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

    /// Returns the code of its decision.
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

/// Returns the output of `keystile doctor`, with any exit code.
pub(crate) fn doctor(env: &TestEnv) -> String {
    let output = env.run(&["doctor"]);
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Returns the path of the journal.
pub(crate) fn journal(env: &TestEnv) -> String {
    fs::read_to_string(env.data().join("keys/journal")).unwrap_or_default()
}

/// Waits until the journal has a mark of the newest change, which shows that credentials were issued.
async fn wait_for_mark(env: &TestEnv) {
    let newest = env.json(&["audit"])[0]["seq"].as_u64().unwrap();
    eventually("the newest mark", async || {
        let lines = journal(env);
        let marks = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        marks
            .into_iter()
            .any(|line| line["kind"] == "mark" && line["seq"].as_u64() >= Some(newest))
            .then_some(())
    })
    .await;
}

/// Restores the database while no client is connected.
pub(crate) fn back_up(env: &TestEnv) {
    if env.url.starts_with("sqlite:") {
        let backup = env.folder().join("backup");
        fs::create_dir(&backup).unwrap();
        copy_database(&env.data(), &backup);
    } else {
        postgres::back_up(&env.url);
    }
}

pub(crate) fn restore(env: &TestEnv) {
    if env.url.starts_with("sqlite:") {
        copy_database(&env.folder().join("backup"), &env.data());
    } else {
        postgres::restore(&env.url);
    }
}

#[tokio::test]
async fn edges_accept_manifest_of_restored_database() {
    let env = TestEnv::on_sqlite().await;
    let credential = env.enroll_edge("one");
    let backup = env.folder().join("backup");
    fs::create_dir(&backup).unwrap();
    copy_database(&env.data(), &backup);

    let server = env.serve();
    for _ in 0..3 {
        env.json(&["revoke", "--token", &env.issue_root_token()]);
    }
    let before = server.manifest(&credential, 0, 0).send().await.unwrap();
    let have = entity_tag_version(before.headers());
    write_end(server);
    copy_database(&backup, &env.data());

    check_next_revocation(&env, &credential, have).await;
}

/// The same with consecutive version numbers, as from an earlier release.
#[tokio::test]
async fn edges_accept_manifest_of_older_database() {
    let env = TestEnv::on_postgres().await;
    let credential = env.enroll_edge("one");
    let server = env.serve();
    let have = entity_tag_version(server.manifest(&credential, 0, 0).send().await.unwrap().headers());
    write_end(server);
    postgres::execute(&env.url, "UPDATE bundle_state SET version = 1");
    check_next_revocation(&env, &credential, have).await;
}

async fn check_next_revocation(env: &TestEnv, credential: &str, have: u64) {
    let server = env.serve();
    let response = server.manifest(credential, have, 0).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let healed = entity_tag_version(response.headers());
    assert!(healed > have, "{healed} after {have}");
    let root = json_text(&server.exchange(&env.auth_key_id, &env.auth_key).await["token"]);
    let revoked = server.revoke(&root, json!({ "token": env.issue_root_token() })).await;
    assert_eq!(revoked.status(), 200);
    let response = server.manifest(credential, healed, 5).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(entity_tag_version(response.headers()) > healed);
    assert!(!env.log().contains("reports a version above the latest"));
}

fn write_end(mut server: Server) {
    server.signal("TERM");
    assert!(server.wait().success());
}

/// Copies the database with its write-ahead log, while no server runs.
pub(crate) fn copy_database(from: &Path, to: &Path) {
    for file in ["keystile.db", "keystile.db-wal", "keystile.db-shm"] {
        let _ = fs::remove_file(to.join(file));
        if from.join(file).exists() {
            fs::copy(from.join(file), to.join(file)).unwrap();
        }
    }
}
