//! API keys are issued, listed, disabled, rotated and expired, and edges get each change.

use bundle::RevocationStatus;
use control_plane::{
    accounts::operators,
    credentials::{api_keys, issued},
    db::NEVER_EXPIRES,
    domain::UnixMillis,
    domain::UnixSeconds,
    domain::{ApiKey, ApiKeyState, IssuedCredential, PresentedUsername, Subject, Version},
    keys::{key_set, keyring as keys, tag_keys},
    platform::{clock, data_dir::DataDir},
    publishing,
    revocation::watermarks,
};
use serde_json::{Value, json};
use token::{
    Fingerprint,
    api_key::{ApiKeyFields, Authentic, Kind, Prefix, Unverified},
};

use crate::{
    database_restore::copy_database,
    for_each_backend, postgres,
    test_env::{TestEnv, eventually, json_text},
};

for_each_backend! {
async fn api_key_is_verified_with_published_keys(env: TestEnv) {
let alice = format!("{}/alice", env.operator);
let before = clock::now().millis();
let made = create(&env, &["--user", &alice, "--name", "ci", "--metadata", r#"{"team":"a"}"#]);
let key = json_text(&made["api_key"]);
assert!(key.starts_with("ks_live_") && key.len() == 137, "{}", key.len());
let (opened, status) = edge_decision(&env, &key, &alice).await;
let opened = opened.unwrap();
let holder = opened.holder().unwrap();
assert_eq!((opened.kind(), holder.operator(), holder.subject()), (Kind::Signed, &*env.operator, &*alice));
assert!((before..=clock::now().millis()).contains(&opened.number()), "the number is a time");
assert_eq!((json_text(&made["key_id"]), json_text(&made["fingerprint"])), (format!("key-{}", opened.number()), Fingerprint::digest(key.as_bytes()).to_string()));
assert_eq!((json_text(&made["format"]), json_text(&made["subject"])), ("2".to_owned(), alice.clone()));
assert_eq!(status, RevocationStatus::NotCovered);
// It is not valid for another user.
for other in ["", &env.operator, "alice", "bob"] {
assert!(edge_decision(&env, &key, other).await.0.is_err());
}
let other = create(&env, &["--user", &env.operator, "--username", "alice@example.com", "--prefix", "sk_live_"]);
let opened = edge_decision(&env, &json_text(&other["api_key"]), "alice@example.com").await.0.unwrap();
assert_eq!(opened.holder().unwrap().subject(), format!("{}/alice@example.com", env.operator));
let bare = create(&env, &["--user", &alice, "--username", "alice"]);
assert_eq!(edge_decision(&env, &json_text(&bare["api_key"]), "alice").await.0.unwrap().holder().unwrap().subject(), alice);

let listed = env.json(&["key", "list"]);
let row = |at: usize| [&listed[at]["key_id"], &listed[at]["owner"], &listed[at]["username"], &listed[at]["standing"], &listed[at]["format"]].map(json_text);
assert_eq!(row(0), [&json_text(&made["key_id"]), &alice, &alice, "active", "2"]);
assert_eq!(row(1), [&json_text(&other["key_id"]), &env.operator, "alice@example.com", "active", "2"]);
assert_eq!(row(2), [&json_text(&bare["key_id"]), &alice, "alice", "active", "2"]);
assert_eq!(listed[0]["metadata"], json!({ "team": "a" }));
assert_eq!(env.json(&["key", "list", "--of", &alice]).as_array().unwrap().len(), 2);
let shown = env.run(&["key", "show", &json_text(&made["key_id"])]);
assert!(!String::from_utf8_lossy(&shown.stdout).contains(&key));
for line in env.json(&["audit"]).as_array().unwrap() {
assert!(!line.to_string().contains(&key[8..]));
}
}

async fn disabled_api_key_is_refused_until_enabled(env: TestEnv) {
let (id, key) = create_and_get(&create(&env, &["--user", &env.operator]));
let status = async || (edge_decision(&env, &key, &env.operator).await.1, json_text(&env.json(&["key", "show", &id])["standing"]));
assert_eq!(status().await, (RevocationStatus::NotCovered, "active".to_owned()));
env.json(&["key", "disable", &id, "--yes"]);
assert_eq!(status().await, (RevocationStatus::Revoked, "disabled".to_owned()));
assert!(env.stderr_of_failure(&["key", "disable", &id, "--yes"]).contains("is not active"));
env.json(&["key", "enable", &id]);
assert_eq!(status().await, (RevocationStatus::NotCovered, "active".to_owned()));
// A key that was revoked by another command cannot be enabled.
env.json(&["revoke", "--token", &key]);
assert_eq!(status().await, (RevocationStatus::Revoked, "revoked".to_owned()));
assert!(env.stderr_of_failure(&["key", "enable", &id]).contains("is not disabled"));
env.json(&["key", "delete", &id, "--yes"]);
assert_eq!(edge_decision(&env, &key, &env.operator).await.1, RevocationStatus::Revoked);
assert!(env.stderr_of_failure(&["key", "show", &id]).contains(&format!("unknown API key `{id}`")));
let other = json_text(&create(&env, &["--user", &env.operator])["key_id"]);
assert_ne!(other, id);
env.json(&["revoke", "--key-id", &other]);
assert_eq!(json_text(&env.json(&["key", "show", &other])["standing"]), "revoked");
}

/// Enabling a key does not undo a revocation, regardless of the order of revoking and disabling.
async fn revocation_survives_disabling_and_enabling(env: TestEnv) {
let alice = format!("{}/alice", env.operator);
let keys: Vec<(String, String)> = (0..5).map(|_| create_and_get(&create(&env, &["--user", &alice]))).collect();
for (id, _) in &keys[..3] {
env.json(&["key", "disable", id, "--yes"]);
}
let before = env.json(&["audit"]).as_array().unwrap().len();
env.json(&["revoke", "--key-id", &keys[0].0, "--reason", "leaked"]);
env.json(&["revoke", "--token", &keys[1].1]);
env.json(&["revoke", "--key-id", &keys[3].0]);
assert_eq!(env.json(&["audit"]).as_array().unwrap().len(), before + 3);
assert!(env.stderr_of_failure(&["key", "disable", &keys[3].0, "--yes"]).contains("is not active"));
env.json(&["revoke", "--subject", &alice, "--yes"]);
env.json(&["key", "rotate", "tag"]);
for (id, key) in &keys {
assert!(env.stderr_of_failure(&["key", "enable", id]).contains("keystile"));
assert_eq!(json_text(&env.json(&["key", "show", id])["standing"]), "revoked");
assert_eq!(edge_decision(&env, key, &alice).await.1, RevocationStatus::Revoked);
}
// This does not depend on the watermark.
let subject: Subject = alice.parse().unwrap();
let mut write = env.store().await.upkeep().await.unwrap();
watermarks::lower(write.db(), &subject.into(), UnixSeconds::new(0), Version::new(1)).await.unwrap();
write.commit().await.unwrap();
for (id, _) in &keys {
assert!(env.stderr_of_failure(&["key", "enable", id]).contains("is not disabled"));
}
}

/// A key can outlive a watermark, and a key of format 1 can have a username that its owner's watermark does not cover.
async fn revoking_the_owner_revokes_its_api_keys(env: TestEnv) {
let alice = format!("{}/alice", env.operator);
let (_, own) = create_and_get(&create(&env, &["--user", &alice]));
let (id, named) = create_and_get(&create(&env, &["--user", &alice, "--username", "alice"]));
let foreign = old_key(&env, &alice, "al").await;
let (_, bobs) = create_and_get(&create(&env, &["--user", &format!("{}/bob", env.operator)]));
env.json(&["key", "disable", &id, "--yes"]);
env.json(&["revoke", "--subject", &alice, "--yes"]);
for key in [&own, &named, &foreign.1] {
assert_eq!(edge_decision(&env, key, "").await.1, RevocationStatus::Revoked);
}
assert_eq!(edge_decision(&env, &bobs, "").await.1, RevocationStatus::NotCovered);
assert!(env.stderr_of_failure(&["key", "enable", &id]).contains("was revoked with everything that was issued to its owner"));
assert_eq!(json_text(&env.json(&["key", "show", &id])["standing"]), "revoked");
let later = create(&env, &["--user", &alice]);
let opened = edge_decision(&env, &json_text(&later["api_key"]), &alice).await;
assert_eq!(opened.1, RevocationStatus::NotCovered);
let publication = publishing::preview(&env.service().await).await.unwrap();
let watermark = publication.snapshot.watermark([bundle::Scope::User(&alice)]).unwrap();
assert!(opened.0.unwrap().issued_at() > watermark);
env.json(&["user", "delete", &alice, "--yes"]);
assert_eq!(edge_decision(&env, &json_text(&later["api_key"]), &alice).await.1, RevocationStatus::Revoked);
assert_eq!(env.json(&["key", "list"]).as_array().unwrap().len(), 1);
}

async fn rotated_api_key_inherits_expiry(env: TestEnv) {
let user = ["--user", &env.operator, "--username", "al", "--name", "ci", "--metadata", r#"{"a":1}"#];
let first = create(&env, &[&user[..], &["--expires", "1h"]].concat());
let rotate = |key: &Value, more: &[&str]| env.json(&[&["key", "rotate", &json_text(&key["key_id"])], more].concat());
let second = rotate(&first, &["--grace", "30d"]);
for member in ["owner", "username", "subject", "prefix", "name", "metadata", "expires_at"] {
assert_eq!(first[member], second[member], "{member}");
}
assert_ne!(first["api_key"], second["api_key"]);
let shown = |key: &Value| env.json(&["key", "show", &json_text(&key["key_id"])]);
assert_eq!(shown(&first)["expires_at"], first["expires_at"]);
let third = rotate(&second, &["--grace", "1m"]);
let end = shown(&second)["expires_at"].as_u64().unwrap();
assert!(end < second["expires_at"].as_u64().unwrap());
assert_eq!(third["expires_at"], first["expires_at"]);
// The key contains the expiry that it was created with. Edges get the earlier one.
let opened = edge_decision(&env, &json_text(&second["api_key"]), "al").await.0.unwrap();
assert_eq!(opened.expires_at(), second["expires_at"].as_u64());
let id = json_text(&third["key_id"]);
assert!(env.stderr_of_failure(&["key", "rotate", &id, "--grace", "0"]).contains("add --yes"));
env.json(&["key", "rotate", &id, "--grace", "0", "--yes"]);
assert_eq!(edge_decision(&env, &json_text(&third["api_key"]), "al").await.1, RevocationStatus::Revoked);
assert_eq!(edge_decision(&env, &json_text(&second["api_key"]), "al").await.1, RevocationStatus::NotCovered);
assert!(env.stderr_of_failure(&["key", "rotate", &id]).contains("is not active"));
}

/// The expiry of a key is published when it is reached, and the key contains it.
async fn expired_api_key_is_refused(env: TestEnv) {
let forever = json_text(&create(&env, &["--user", &env.operator])["api_key"]);
let created = create(&env, &["--user", &env.operator, "--expires", "1s"]);
let (id, key) = create_and_get(&created);
let opened = edge_decision(&env, &key, &env.operator).await.0.unwrap();
assert_eq!(opened.expires_at(), created["expires_at"].as_u64());
let _server = env.serve();
eventually("the end of the key", async || {
(edge_decision(&env, &key, &env.operator).await.1 == RevocationStatus::Revoked).then_some(())
})
.await;
assert_eq!(json_text(&env.json(&["key", "show", &id])["standing"]), "expired");
let (opened, status) = edge_decision(&env, &forever, &env.operator).await;
assert_eq!((opened.unwrap().expires_at(), status), (None, RevocationStatus::NotCovered));
assert!(env.stderr_of_failure(&["key", "enable", &id]).contains("has expired"));
let lines = env.json(&["audit", "--limit", "1"]);
assert_eq!([&lines[0]["actor"], &lines[0]["action"], &lines[0]["target"]].map(json_text), ["system", "api_key.expire", &id]);
}

async fn rotating_tag_key_starts_new_generation(env: TestEnv) {
let alice = format!("{}/alice", env.operator);
let mut good = vec![json_text(&create(&env, &["--user", &alice])["api_key"])];
for (at, more, format) in [(2, &[][..], "2"), (3, &["--short"], "short"), (4, &[], "2")] {
let rotated = env.json(&[&["key", "rotate", "tag"], more].concat());
assert_eq!([&rotated["generation"], &rotated["format"]], [&json!(at), &json!(format)]);
let new = create(&env, &["--user", &alice]);
assert_eq!([&new["tag_generation"], &new["format"]], [&json!(at), &json!(format)]);
good.push(json_text(&new["api_key"]));
}
assert_eq!(good.iter().map(String::len).collect::<Vec<_>>(), [137, 137, 72, 137]);
for key in &good {
let (opened, status) = edge_decision(&env, key, &alice).await;
assert!(opened.is_ok());
assert_eq!(status, RevocationStatus::NotCovered);
}
}

/// In a database of an earlier release, existing keys stay valid, and no more are created with the old generation.
async fn format_1_key_is_admitted_until_rotated(env: TestEnv) {
let alice = format!("{}/alice", env.operator);
let (id, old) = old_key(&env, &alice, &alice).await;
let (foreign, al) = old_key(&env, &alice, "al").await;
let (nobodys, nobody) = old_key(&env, &env.operator, "").await;
for (key, username) in [(&old, &*alice), (&al, "al"), (&nobody, "")] {
let (opened, status) = edge_decision(&env, key, username).await;
assert_eq!((opened.unwrap().kind(), status), (Kind::Format1, RevocationStatus::NotCovered));
}
assert_eq!(env.json(&["key", "show", &nobodys])["subject"], *nobodys);
let doctor = || doctor_on_keys(&env.json(&["doctor"]));
let message = doctor();
assert_eq!(message["state"], "note");
assert!(json_text(&message["detail"]).starts_with("0 of format 2, 0 of the short form, 3 of format 1"), "{message}");
assert!(json_text(&message["advice"]).contains("`keystile key retire` for tag-1"), "{message}");
// The first new key starts a generation of format 2 without a command.
let new = create(&env, &["--user", &alice]);
assert_eq!([&new["format"], &new["tag_generation"]], [&json!("2"), &json!(2)]);
assert_eq!(edge_decision(&env, &old, &alice).await.1, RevocationStatus::NotCovered);
let replaced = env.json(&["key", "rotate", &id, "--grace", "0", "--yes"]);
assert_eq!([&replaced["format"], &replaced["username"], &replaced["subject"]], [&json!("2"), &json!(alice), &json!(alice)]);
assert_eq!(edge_decision(&env, &old, &alice).await.1, RevocationStatus::Revoked);
// The command requires a username that would have another meaning in format 2. Without one, it would be the root user's.
for id in [&foreign, &nobodys] {
let stderr = env.stderr_of_failure(&["key", "rotate", id]);
assert!(stderr.contains("--username NAME"), "{stderr}");
assert_eq!(env.json(&["key", "show", id])["standing"], "active");
}
let replaced = env.json(&["key", "rotate", &foreign, "--username", "alice", "--grace", "0", "--yes"]);
assert_eq!([&replaced["username"], &replaced["subject"]], [&json!("alice"), &json!(alice)]);
let replaced = env.json(&["key", "rotate", &nobodys, "--username", "robot", "--grace", "0", "--yes"]);
assert_eq!(replaced["subject"], format!("{}/robot", env.operator));
let message = doctor();
assert!(json_text(&message["detail"]).starts_with("4 of format 2, 0 of the short form, 0 of format 1"), "{message}");
// Edges could still create such keys.
assert_eq!(message["state"], "note");
env.json(&["key", "retire", "tag-1", "--yes"]);
assert_eq!(doctor()["state"], "good");
let publication = publishing::preview(&env.service().await).await.unwrap();
assert!(publication.snapshot.generation_key(1).is_none());
}

/// Root users get no short keys, because the thief of an edge can create them.
async fn short_form_is_rejected_for_root_user(env: TestEnv) {
env.json(&["key", "rotate", "tag", "--short"]);
for username in [&[][..], &["--username", ""], &["--username", &env.operator]] {
let stderr = env.stderr_of_failure(&[&["key", "create", "--user", &env.operator], username].concat());
assert!(stderr.contains("the root user cannot have one"), "{stderr}");
}
let made = create(&env, &["--user", &env.operator, "--username", "robot"]);
assert_eq!([&made["format"], &made["subject"]], [&json!("short"), &json!(format!("{}/robot", env.operator))]);
let message = doctor_on_keys(&env.json(&["doctor"]));
assert!(json_text(&message["detail"]).contains("1 of the short form"), "{message}");
assert_eq!(message["state"], "note");
env.json(&["key", "rotate", "tag"]);
create(&env, &["--user", &env.operator]);
}

/// A username within an operator is one subject: no key can act as another user, whether created before or after it.
async fn username_cannot_name_another_user(env: TestEnv) {
let user = |name: &str| format!("{}/{name}", env.operator);
env.json(&["user", "create", &user("bob")]);
let refused = |owner: &str, username: &str, why: &str| {
let stderr = env.stderr_of_failure(&["key", "create", "--user", owner, "--username", username]);
assert!(stderr.contains(why), "{owner} {username}: {stderr}");
};
refused(&env.operator, "bob", "to create a key of that user");
for username in ["bob", "al", "alice@example.com", "", &env.operator] {
refused(&user("alice"), username, "is this user");
}
refused(&env.operator, &user("bob"), "must be the owner");
for username in ["OP0000000000", "OP0000000000/bob", "alice/bob", "a#b", "root", "a,b"] {
refused(&env.operator, username, "a username is the owner of the key");
}
// The key owns the name: a later user of that name would get its subject.
let (id, _) = create_and_get(&create(&env, &["--user", &env.operator, "--username", "carol"]));
for command in [
vec!["user", "create", &user("carol")],
vec!["authkey", "create", "--operator", &env.operator, "--user", "carol"],
vec!["key", "create", "--user", &user("carol")],
] {
let stderr = env.stderr_of_failure(&command);
assert!(stderr.contains(&format!("`{id}` already has the username")), "{command:?}: {stderr}");
}
env.json(&["key", "disable", &id, "--yes"]);
assert!(env.stderr_of_failure(&["user", "create", &user("carol")]).contains("already has the username"), "it may be enabled again");
env.json(&["key", "delete", &id, "--yes"]);
env.json(&["user", "create", &user("carol")]);
// After the deletion of a user, a key with its name is issued after the watermark of the user.
env.json(&["user", "delete", &user("carol"), "--yes"]);
let again = create(&env, &["--user", &env.operator, "--username", "carol"]);
let publication = publishing::preview(&env.service().await).await.unwrap();
let watermark = publication.snapshot.watermark([bundle::Scope::User(&user("carol"))]).unwrap();
assert!(again["issued_at"].as_u64().unwrap() > watermark);
}

/// A restored database lacks the numbers assigned since the backup. Time, key files and random bytes prevent their reuse.
async fn restored_backup_reuses_no_number_or_generation(env: TestEnv) {
let alice = format!("{}/alice", env.operator);
create(&env, &["--user", &alice]);
let before = Backup::take_backup(&env);
let lost: Vec<Value> = (0..3).map(|_| create(&env, &["--user", &alice])).collect();
env.json(&["key", "rotate", "tag"]);
env.json(&["key", "rotate", "tag", "--short"]);
let last = create(&env, &["--user", &alice]);
assert_eq!(last["tag_generation"], 3);
before.restore(&env);
// Commands change nothing before a server has merged the journal.
drop(env.serve());
// The numbers of the lost generations are not used again.
let again: Vec<Value> = (0..3).map(|_| create(&env, &["--user", &alice])).collect();
for (key, lost) in again.iter().flat_map(|key| lost.iter().chain([&last]).map(move |lost| (key, lost))) {
assert_ne!(key["key_id"], lost["key_id"]);
assert_ne!(key["api_key"], lost["api_key"]);
}
let next = env.json(&["key", "rotate", "tag"]);
assert_eq!(next["generation"], 4, "keys of tag-2 and tag-3 exist");
assert!(has_no_opening_key(&env, &json_text(&last["api_key"])).await);
}
}

/// Two servers with a folder each: the database contains what edges need, and not the private keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_without_key_file_publishes_but_creates_no_key() {
    for env in [TestEnv::on_sqlite().await, TestEnv::on_postgres().await] {
        let alice = format!("{}/alice", env.operator);
        let key = json_text(&create(&env, &["--user", &alice])["api_key"]);
        let file = env.data().join("keys/tag-1.jwk");
        let away = env.data().join("away");
        std::fs::rename(&file, &away).unwrap();
        let (opened, status) = edge_decision(&env, &key, &alice).await;
        assert_eq!((opened.unwrap().kind(), status), (Kind::Signed, RevocationStatus::NotCovered));
        let stderr = env.stderr_of_failure(&["key", "create", "--user", &alice]);
        assert!(stderr.contains("the key file of tag-1"), "{stderr}");
        assert!(stderr.contains("`keystile key rotate tag`"), "{stderr}");
        let message = doctor_on_keys(&env.json(&["doctor"]));
        assert!(json_text(&message["detail"]).contains("is missing here"), "{message}");
        // Another key with its name is refused.
        let stranger = keys::create_generation(&DataDir::new(env.data()), 1, Kind::Signed).unwrap();
        assert!(stranger.public.is_some());
        assert!(
            env.stderr_of_failure(&["key", "create", "--user", &alice])
                .contains("is not the one in the database")
        );
        std::fs::rename(&away, &file).unwrap();
        create(&env, &["--user", &alice]);
        assert_eq!(file_mode(&file), 0o600);
    }
}

/// If a secret is missing, edges refuse its keys, and revocations are still published.
#[tokio::test]
async fn missing_key_file_does_not_delay_revocation() {
    let env = TestEnv::on_sqlite().await;
    let alice = format!("{}/alice", env.operator);
    env.json(&["key", "rotate", "tag", "--short"]);
    let short = json_text(&create(&env, &["--user", &alice])["api_key"]);
    std::fs::rename(env.data().join("keys/tag-1.jwk"), env.data().join("away")).unwrap();
    let victim = Fingerprint::digest(env.issue_root_token().as_bytes());
    env.json(&["revoke", "--fingerprint", &victim.to_string()]);
    let publication = publishing::preview(&env.service().await).await.unwrap();
    assert_eq!(publication.snapshot.revocation_status(&victim, "ks", 0, None), RevocationStatus::Revoked);
    assert!(publication.snapshot.generation_key(1).is_none());
    assert!(has_no_opening_key(&env, &short).await);
}

#[tokio::test]
async fn invalid_key_commands_name_the_mistake() {
    let env = TestEnv::on_sqlite().await;
    for (arguments, expected) in [
        (vec!["key", "create", "--user", "OP0000000000"], "there is no such operator"),
        (
            vec!["key", "create", "--user", &env.operator, "--username", "OP0000000000/alice"],
            "a username is the owner of the key",
        ),
        (
            vec!["key", "create", "--user", &env.operator, "--username", "a b"],
            "a username is the owner of the key",
        ),
        (vec!["key", "create", "--user", &env.operator, "--name", &"x".repeat(201)], "at most 200 bytes"),
        (vec!["key", "show", "key-1"], "unknown API key `key-1`"),
        (vec!["key", "delete", "key-1"], "add --yes"),
        (vec!["key", "disable", "key-1"], "add --yes"),
        (vec!["key", "rotate", "key-1", "--short"], "--short is for `keystile key rotate tag`"),
        (
            vec!["key", "rotate", "tag", "--username", "a"],
            "--username is for `keystile key rotate key-NUMBER`",
        ),
    ] {
        let stderr = env.stderr_of_failure(&arguments);
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    }
    for arguments in [
        vec!["key", "create"],
        vec!["key", "create", "--user", "OP1"],
        vec!["key", "create", "--user", &env.operator, "--metadata", "[]"],
        vec!["key", "create", "--user", &env.operator, "--prefix", "KS"],
        vec!["key", "show", "1"],
        vec!["key", "rotate", "publisher"],
    ] {
        assert_eq!(env.run(&arguments).status.code(), Some(2), "{arguments:?}");
    }
}

fn create(env: &TestEnv, arguments: &[&str]) -> Value {
    env.json(&[&["key", "create"], arguments].concat())
}

/// Returns the ID and the key.
fn create_and_get(created: &Value) -> (String, String) {
    (json_text(&created["key_id"]), json_text(&created["api_key"]))
}

/// Inserts an API key of an earlier release, and returns its ID and the key.
async fn old_key(env: &TestEnv, owner: &str, username: &str) -> (String, String) {
    let data_dir = DataDir::new(env.data());
    let store = env.store().await;
    let mut write = store.upkeep().await.unwrap();
    let version = write.allocate_version(clock::now()).await.unwrap();
    let generation = match tag_keys::list(write.db()).await.unwrap().first() {
        Some(generation) => *generation,
        None => {
            let generation = keys::create_generation(&data_dir, 1, Kind::Format1).unwrap();
            tag_keys::insert(write.db(), &generation, UnixSeconds::new(1)).await.unwrap();
            key_set::set_version(write.db(), version).await.unwrap();
            generation
        }
    };
    let owner: Subject = owner.parse().unwrap();
    if let Some(user) = &owner.user {
        operators::insert_user(write.db(), &owner.operator, user, UnixSeconds::new(1)).await.unwrap();
    }
    // Numbers of earlier releases were consecutive.
    let id = api_keys::next_number(write.db(), UnixMillis::from_millis(0)).await.unwrap();
    let (issued_at, prefix) = (clock::now().seconds().get(), Prefix::default());
    let contents = ApiKeyFields {
        prefix: &prefix,
        operator: owner.operator.as_str(),
        number: id.0,
        issued_at,
        expires_at: None,
        random: [0; 4],
        username,
    };
    let key = keys::open_generation(&data_dir, &generation).unwrap().mint(&contents).unwrap();
    let fingerprint = Fingerprint::digest(key.expose().as_bytes());
    let issuance = IssuedCredential {
        fingerprint,
        kid: generation.kid(),
        subject: owner.clone(),
        auth_key: None,
        session: None,
        issued_at: UnixSeconds::new(issued_at),
        expires_at: NEVER_EXPIRES,
    };
    assert_eq!(issued::insert(write.db(), &issuance).await.unwrap(), issued::IssueOutcome::Inserted);
    let record = ApiKey {
        id,
        fingerprint,
        generation: generation.number,
        kind: generation.kind,
        owner,
        username: PresentedUsername::from_stored(username.to_owned()),
        prefix,
        name: None,
        metadata: None,
        state: ApiKeyState::Active,
        issued_at: UnixSeconds::new(issued_at),
        ends_at: None,
        expires_at: None,
        last_used_at: None,
    };
    api_keys::insert(write.db(), &record).await.unwrap();
    write.commit().await.unwrap();
    store.close().await;
    (id.to_string(), key.expose().to_owned())
}

/// A backup of the database only, while no server runs.
enum Backup {
    Files(tempfile::TempDir),
    /// The rows that must be removed again.
    Rows,
}

impl Backup {
    fn take_backup(env: &TestEnv) -> Self {
        if env.url.starts_with("postgres") {
            return Self::Rows;
        }
        let folder = tempfile::tempdir().unwrap();
        copy_database(&env.data(), folder.path());
        Self::Files(folder)
    }

    fn restore(self, env: &TestEnv) {
        match self {
            Self::Files(folder) => copy_database(folder.path(), &env.data()),
            Self::Rows => {
                let since = "number > (SELECT MIN(number) FROM api_keys)";
                let issued = format!(
                    "DELETE FROM issued WHERE fingerprint IN (SELECT fingerprint FROM api_keys WHERE {since})"
                );
                for statement in [
                    &issued,
                    &format!("DELETE FROM api_keys WHERE {since}"),
                    "DELETE FROM tag_keys WHERE generation > 1",
                    "UPDATE api_key_numbers SET last = (SELECT MIN(number) FROM api_keys)",
                ] {
                    postgres::execute(&env.url, statement);
                }
            }
        }
    }
}

/// Returns the entry of `doctor` about API keys.
fn doctor_on_keys(findings: &Value) -> Value {
    findings.as_array().unwrap().iter().find(|finding| finding["what"] == "API keys").unwrap().clone()
}

fn file_mode(file: &std::path::Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(file).unwrap().permissions().mode() & 0o777
}

/// Verifies a key as an edge with the current bundle does.
async fn edge_decision(
    env: &TestEnv,
    key: &str,
    username: &str,
) -> (Result<Authentic, token::api_key::Error>, RevocationStatus) {
    let publication = publishing::preview(&env.service().await).await.unwrap();
    let prefixes: [Prefix; 2] = [Prefix::default(), "sk_live_".parse().unwrap()];
    let unverified = Unverified::parse(key.as_bytes(), &prefixes).unwrap();
    let generation = publication.snapshot.generation_key(unverified.generation());
    (
        unverified.verify(generation.expect("the generation is in the bundle"), username),
        publication.snapshot.revocation_status(&Fingerprint::digest(key.as_bytes()), "tag-1", 0, None),
    )
}

/// Returns true if no key in the current bundle verifies it.
async fn has_no_opening_key(env: &TestEnv, key: &str) -> bool {
    let publication = publishing::preview(&env.service().await).await.unwrap();
    let prefixes = [Prefix::default()];
    let unverified = Unverified::parse(key.as_bytes(), &prefixes).unwrap();
    let alice = format!("{}/alice", env.operator);
    let generation = publication.snapshot.generation_key(unverified.generation());
    generation.is_none_or(|generation| unverified.verify(generation, &alice).is_err())
}
