//! The requests of edges and their responses.

use std::time::{Duration, Instant};

use bundle::{Entry, Manifest, Object, ObjectKind, Objects, PublicKey, RevocationStatus, Snapshot};
use control_plane::{
    domain::Revocation,
    domain::{UnixMillis, UnixSeconds},
    edges,
    maintenance::purge_expired,
    platform::clock,
    revocation::revocations,
};
use serde_json::{Value, json};
use token::{Fingerprint, secret::SecretHash};
use verdict::{Environment, Policy};

use crate::{
    for_each_backend,
    test_env::{Server, TestEnv, entity_tag, entity_tag_version, eventually, json_text},
};

for_each_backend! {
async fn newer_manifest_is_returned_immediately(env: TestEnv) {
let credential = env.enroll_edge("one");
let server = env.serve();
let began = Instant::now();
let response = server.manifest(&credential, 0, 20).send().await.unwrap();
assert!(began.elapsed() < Duration::from_secs(2));
assert_eq!(response.status(), 200);
let headers = response.headers().clone();
assert_eq!(headers["content-type"], "application/vnd.keystile.manifest");
assert_eq!(headers["cache-control"], "no-cache");
assert_eq!(headers["preference-applied"], "wait=20");
let key = root_key(&env);
let manifest = Manifest::open(&response.bytes().await.unwrap(), &[key], "default").unwrap();
assert_eq!(entity_tag(&headers), format!("\"{}-{}\"", manifest.version(), manifest.issued_at()));
assert_eq!(manifest.expires_at() - manifest.issued_at(), 60_000);

// A known version without a wait gets a 304. An unknown one gets the manifest.
let known = || server.manifest(&credential, manifest.version(), 0);
let response = known().header("if-none-match", entity_tag(&headers)).send().await.unwrap();
assert_eq!(response.status(), 304);
assert_eq!(entity_tag(response.headers()), entity_tag(&headers));
assert!(response.headers().get("preference-applied").is_none());
assert_eq!(known().send().await.unwrap().status(), 200);
}

async fn long_poll_ends_at_requested_wait(env: TestEnv) {
let credential = env.enroll_edge("one");
let server = env.serve();
let first = server.manifest(&credential, 0, 0).send().await.unwrap();
let request = server.manifest(&credential, entity_tag_version(first.headers()), 1);
let began = Instant::now();
let response = request.header("if-none-match", entity_tag(first.headers())).send().await.unwrap();
assert!(began.elapsed() >= Duration::from_millis(950));
assert_eq!(response.status(), 304);
}

/// A long wait ends before the bundle of the edge becomes stale.
async fn long_poll_is_shorter_than_half_the_manifest_lifetime(env: TestEnv) {
let mut env = env;
env.set_setting("KEYSTILE_PUBLISHER__LIFETIME", "3s");
env.set_setting("KEYSTILE_PUBLISHER__RESIGN", "1s");
let credential = env.enroll_edge("one");
let server = env.serve();
let first = server.manifest(&credential, 0, 0).send().await.unwrap();
let began = Instant::now();
let response = server.manifest(&credential, entity_tag_version(first.headers()), 20).send().await.unwrap();
assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
assert_eq!(response.headers()["preference-applied"], "wait=1");
}

async fn re_signed_manifest_ends_long_poll(env: TestEnv) {
let mut env = env;
env.set_setting("KEYSTILE_PUBLISHER__RESIGN", "200ms");
let credential = env.enroll_edge("one");
let server = env.serve();
let first = server.manifest(&credential, 0, 0).send().await.unwrap();
let request = server.manifest(&credential, entity_tag_version(first.headers()), 1);
let response = request.header("if-none-match", entity_tag(first.headers())).send().await.unwrap();
assert_eq!(response.status(), 200);
assert_eq!(entity_tag_version(response.headers()), entity_tag_version(first.headers()));
assert_ne!(entity_tag(response.headers()), entity_tag(first.headers()));
}

async fn revocation_ends_long_poll(env: TestEnv) {
let credential = env.enroll_edge("one");
let server = env.serve();
let root = json_text(&server.exchange(&env.auth_key_id, &env.auth_key).await["token"]);
for way in ["API", "command"] {
let victim = env.issue_root_token();
let have = entity_tag_version(server.manifest(&credential, 0, 0).send().await.unwrap().headers());
let waiting = tokio::spawn(server.manifest(&credential, have, 20).send());
wait_until_polling(&server).await;
if way == "API" {
assert_eq!(server.revoke(&root, json!({ "token": victim })).await.status(), 200);
} else {
env.json(&["revoke", "--token", &victim]);
}
let acknowledged = Instant::now();
let response = waiting.await.unwrap().unwrap();
assert!(acknowledged.elapsed() < Duration::from_millis(500), "{way}: {:?}", acknowledged.elapsed());
assert_eq!(response.status(), 200, "{way}");
assert!(entity_tag_version(response.headers()) > have, "{way}");
let snapshot = assemble(&env, &server, &response.bytes().await.unwrap()).await;
assert_eq!(revocation_status(&snapshot, &Fingerprint::digest(victim.as_bytes())), RevocationStatus::Revoked, "{way}");
assert_eq!(revocation_status(&snapshot, &Fingerprint::digest(root.as_bytes())), RevocationStatus::NotCovered, "{way}");
}
}

async fn edge_with_newer_version_gets_no_older_manifest(env: TestEnv) {
let credential = env.enroll_edge("one");
let server = env.serve();
let response = server.manifest(&credential, 9_000_000_000_000_000, 1).send().await.unwrap();
assert_eq!(response.status(), 304);
assert!(response.headers().get("etag").is_none());
let warning = "an edge reports a version above the latest";
server.manifest(&credential, 9_000_000_000_000_001, 0).send().await.unwrap();
let log = env.log();
assert_eq!(log.matches(warning).count(), 1, "{log}");
assert!(log.contains("edge.version=9000000000000000"), "{log}");
let response = server.manifest(&credential, 0, 0).send().await.unwrap();
let issued_later = entity_tag(response.headers()).replace('-', "-9");
let have = entity_tag_version(response.headers());
let request = server.manifest(&credential, have, 0).header("if-none-match", issued_later);
assert_eq!(request.send().await.unwrap().status(), 304);
}

/// An edge gets a later epoch even if the thief of a tail key has raised its version.
async fn later_epoch_is_newer_than_any_version(env: TestEnv) {
let credential = env.enroll_edge("one");
let server = env.serve();
let first = server.manifest(&credential, 0, 0).send().await.unwrap();
let first = Manifest::open(&first.bytes().await.unwrap(), &[root_key(&env)], "default").unwrap();
let epoch = first.delegation().epoch();
let have = u64::MAX;
let ask = |epoch: u64, wait: u64| {
let path = format!("/edge/v1/manifest?have={have}&epoch={epoch}");
let request = server.get(&path).bearer_auth(&credential).header("prefer", format!("wait={wait}"));
request.header("if-none-match", format!("\"{have}-{have}\"")).send()
};
assert_eq!(ask(epoch, 1).await.unwrap().status(), 304);
let waiting = tokio::spawn(ask(epoch, 20));
wait_until_polling(&server).await;
env.json(&["authority", "rotate", "tail"]);
let rotated = Instant::now();
let response = waiting.await.unwrap().unwrap();
assert_eq!(response.status(), 200);
assert!(rotated.elapsed() < Duration::from_secs(2), "{:?}", rotated.elapsed());
let next = Manifest::open(&response.bytes().await.unwrap(), &[root_key(&env)], "default").unwrap();
next.check_successor_of(&first).unwrap();
assert!(next.delegation().epoch() > epoch && next.version() < have);
assert_eq!(ask(epoch, 0).await.unwrap().status(), 200);
// The position never decreases.
let response = ask(next.delegation().epoch() + 1, 0).await.unwrap();
assert_eq!(response.status(), 304);
assert!(response.headers().get("etag").is_none());
}

async fn edge_api_requires_enrolled_credential(env: TestEnv) {
let credential = env.enroll_edge("one");
let server = env.serve();
let mut wrong = credential.clone();
wrong.replace_range(12..13, if &wrong[12..13] == "A" { "B" } else { "A" });
for refused in [wrong.as_str(), "", "ks_edge_", &env.auth_key] {
let response = server.manifest(refused, 0, 0).send().await.unwrap();
assert_eq!(response.status(), 401);
assert!(response.headers().contains_key("www-authenticate"));
assert_eq!(response.json::<Value>().await.unwrap()["code"], "edge_credential_refused");
}
env.json(&["edge", "remove", "one", "--yes"]);
assert_eq!(server.manifest(&credential, 0, 0).send().await.unwrap().status(), 401);
}

/// Expired entries are removed from the bundle, with a new version.
async fn expired_revocations_leave_the_bundle(env: TestEnv) {
let (expired, living) = (Fingerprint::digest(b"expired"), Fingerprint::digest(b"living"));
let now = clock::now().seconds().get();
let mut write = env.store().await.upkeep().await.unwrap();
let stored = write.allocate_version(clock::now()).await.unwrap();
for (fingerprint, expires_at) in [(expired, now - 90_000), (living, now + 1000)] {
let one = Revocation { fingerprint, expires_at: UnixSeconds::new(expires_at), reason: None, revoked_at: UnixSeconds::new(now) };
revocations::insert(write.db(), &one, stored).await.unwrap();
}
write.commit().await.unwrap();
let credential = env.enroll_edge("one");
let server = env.serve();
let standings = async |have| {
let response = server.manifest(&credential, have, 5).send().await.unwrap();
let have = entity_tag_version(response.headers());
let snapshot = assemble(&env, &server, &response.bytes().await.unwrap()).await;
(have, revocation_status(&snapshot, &expired), revocation_status(&snapshot, &living))
};
let (number, of_expired, of_living) = standings(0).await;
assert!(number > stored.get(), "a server starts with a new version");
assert_eq!((of_expired, of_living), (RevocationStatus::Revoked, RevocationStatus::Revoked));
let service = env.service().await;
assert_eq!(purge_expired(&service).await.unwrap(), 1);
let (later, of_expired, of_living) = standings(number).await;
assert!(later > number);
assert_eq!((of_expired, of_living), (RevocationStatus::NotCovered, RevocationStatus::Revoked));
assert_eq!(purge_expired(&service).await.unwrap(), 0);
assert_eq!(env.json(&["bundle", "show"])["version"], json!(later));
}

/// A request with a credential arrives while the edge is rotated: that credential is replaced in the meantime.
async fn use_of_replaced_credential_does_not_end_it(env: TestEnv) {
let rotate = || json_text(&env.json(&["edge", "rotate", "one"])["credential"]);
env.enroll_edge("one");
let (second, third) = (rotate(), rotate());
let store = env.store().await;
let is_known = async |credential: &str| {
let mut reader = store.reader().await.unwrap();
edges::find(&mut reader, &SecretHash::digest(credential), UnixSeconds::new(0)).await.unwrap().is_some()
};
for (used, ends_others) in [(&second, false), (&third, true)] {
let mut write = store.upkeep().await.unwrap();
write.allocate_version(UnixMillis::from_seconds(UnixSeconds::new(1))).await.unwrap();
let id = "one".parse().unwrap();
let ended = edges::end_credentials_on_use(write.db(), &id, &SecretHash::digest(used), UnixSeconds::new(1)).await.unwrap();
write.commit().await.unwrap();
assert_eq!(ended, ends_others);
assert_eq!((is_known(&second).await, is_known(&third).await), (!ends_others, true));
}
}

async fn enroll_prints_valid_filter_configuration(env: TestEnv) {
let read = |enrolled: &Value, environment: &[u8]| {
let configuration = enrolled["plugin_configuration"].to_string();
Policy::from_json_with_env(configuration.as_bytes(), &Environment::from_block(environment.to_vec()))
};
let enrolled = env.json(&["edge", "enroll", "one"]);
let credential = json_text(&enrolled["credential"]);
assert!(!enrolled["plugin_configuration"].to_string().contains(&credential));
let policy = read(&enrolled, b"").unwrap();
assert_eq!(policy.root_keys, [root_key(&env)]);
assert!(policy.control_plane.as_ref().unwrap().credential.is_none());
assert_eq!(enrolled["files"]["credential"], json!(format!("Bearer {credential}\n")));
assert_eq!(env.json(&["edge", "list"])[0]["last_seen_at"], Value::Null);

let enrolled = env.json(&["edge", "enroll", "two", "--env", "KEYSTILE_EDGE"]);
let credential = json_text(&enrolled["credential"]);
assert!(!enrolled["plugin_configuration"].to_string().contains(&credential));
assert!(read(&enrolled, b"").unwrap_err().to_string().contains("`KEYSTILE_EDGE`"));
let policy = read(&enrolled, json_text(&enrolled["files"]["credential.env"]).trim().as_bytes()).unwrap();
assert_eq!(policy.control_plane.as_ref().unwrap().credential.as_ref().unwrap().expose(), credential);

let enrolled = env.json(&["edge", "enroll", "three", "--inline"]);
let policy = read(&enrolled, b"").unwrap();
assert!(policy.has_inline_secrets());
assert_eq!(policy.control_plane.as_ref().unwrap().credential.as_ref().unwrap().expose(), enrolled["credential"]);
let shown = String::from_utf8(env.run(&["edge", "enroll", "four"]).stdout).unwrap();
let (secret, rest) = shown.split_once("# --- sds.yaml").unwrap();
assert!(secret.contains("Bearer ks_edge_") && !rest.contains("ks_edge_"), "{shown}");
for (wrong, named) in [
(vec!["--env", "a b"], "--env"),
(vec!["--env", &json_text(&enrolled["credential"])], "--env"),
(vec!["--env", "A", "--inline"], "--inline"),
(vec!["--control-plane", "keystile:1"], "expected http"),
(vec!["--control-plane", "http://a b"], "expected http"),
] {
let output = env.run(&[&["edge", "enroll", "five"], wrong.as_slice()].concat());
assert!(!output.status.success() && output.stdout.is_empty());
let message = String::from_utf8(output.stderr).unwrap();
assert!(message.contains(named), "{message}");
}
assert_eq!(env.json(&["edge", "list"]).as_array().unwrap().len(), 4);
}

/// Envoy closes idle connections first, so that the server closes none while Envoy sends a request on it.
async fn enroll_sets_idle_timeout_below_the_servers(env: TestEnv) {
let mut env = env;
let cluster = |env: &TestEnv, name: &str, how: &[&str]| {
json_text(&env.json(&[&["edge", "enroll", name], how].concat())["files"]["cluster.yaml"])
};
for (name, how) in [("one", &[][..]), ("two", &["--env", "KEYSTILE_EDGE"]), ("three", &["--inline"])] {
let cluster = cluster(&env, name, how);
assert!(cluster.contains("idle_timeout: 30s }"), "{cluster}");
}
env.set_setting("KEYSTILE_SERVER__IDLE_TIMEOUT", "15s");
assert!(cluster(&env, "four", &[]).contains("idle_timeout: 7.5s }"));
}

/// Both servers use one store.
async fn old_edge_credential_ends_on_use_of_new_one(env: TestEnv) {
let old = env.enroll_edge("one");
let (server, other) = (env.serve(), env.serve());
let rotated = env.json(&["edge", "rotate", "one"]);
let new = json_text(&rotated["credential"]);
let now = clock::now().seconds().get();
let ends = rotated["old_ends_at"].as_u64().unwrap();
assert!((now + 3500..=now + 3600).contains(&ends), "{ends} at {now}");
for _ in 0..3 {
assert_eq!((is_accepted(&server, &old).await, is_accepted(&other, &old).await), (true, true));
}
assert_eq!(env.json(&["edge", "list"])[0]["old_credential_ends_at"], json!(ends));
assert!(is_accepted(&server, &new).await);
for server in [&server, &other] {
assert_eq!((is_accepted(server, &old).await, is_accepted(server, &new).await), (false, true));
}
assert_eq!(env.json(&["edge", "list"])[0]["old_credential_ends_at"], Value::Null);
let lines = env.json(&["audit", "--limit", "2"]);
let action = |at: usize| (json_text(&lines[at]["action"]), json_text(&lines[at]["actor"]), json_text(&lines[at]["target"]));
let line = |action: &str, actor: &str| (action.to_owned(), actor.to_owned(), "one".to_owned());
assert_eq!(action(0), line("edge.rotate.done", "system"));
assert_eq!(action(1), line("edge.rotate", "admin"));
assert!(!env.json(&["audit"]).to_string().contains("ks_edge_"));
}

async fn unused_edge_credential_can_be_rotated_again(env: TestEnv) {
let first = env.enroll_edge("one");
let server = env.serve();
let rotate = |arguments: &[&str]| json_text(&env.json(&[&["edge", "rotate", "one"], arguments].concat())["credential"]);
let lost = rotate(&[]);
let third = rotate(&[]);
// The edge still has the first one.
assert!(is_accepted(&server, &first).await);
assert!(is_accepted(&server, &third).await);
assert_eq!((is_accepted(&server, &first).await, is_accepted(&server, &lost).await), (false, false));

// Several processes share the next one, and each starts to use it at its own time.
let fourth = rotate(&["--shared", "--overlap", "2h"]);
for credential in [&fourth, &third, &fourth, &third] {
assert!(is_accepted(&server, credential).await);
}
// A shorter overlap applies to all earlier credentials.
let until = clock::now().seconds().get() + 2;
let fifth = rotate(&["--shared", "--overlap", "2s"]);
eventually("the end of the overlap", async || (!is_accepted(&server, &fourth).await).then_some(())).await;
assert!(clock::now().seconds().get() >= until);
assert_eq!((is_accepted(&server, &third).await, is_accepted(&server, &fifth).await), (false, true));

let sixth = rotate(&["--now", "--yes"]);
assert_eq!((is_accepted(&server, &fifth).await, is_accepted(&server, &sixth).await), (false, true));
let seventh = rotate(&[]);
env.json(&["edge", "remove", "one", "--yes"]);
for credential in [&fifth, &sixth, &seventh] {
assert!(!is_accepted(&server, credential).await);
}
let again = env.enroll_edge("one");
assert_eq!((is_accepted(&server, &seventh).await, is_accepted(&server, &again).await), (false, true));
purge_expired(&env.service().await).await.unwrap();
for (arguments, expected) in [
(vec!["edge", "rotate", "none"], "there is no such edge"),
(vec!["edge", "rotate", "one", "--overlap", "31d"], "at most 30 days"),
(vec!["edge", "rotate", "one", "--now"], "add --yes"),
(vec!["edge", "rotate", "one", "--overlap", "0s"], "add --yes"),
(vec!["edge", "rotate", "one", "--out", "/nowhere"], "is not a folder"),
] {
let stderr = env.stderr_of_failure(&arguments);
assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
}
assert!(is_accepted(&server, &again).await);
}

async fn objects_are_public_immutable_and_retained(env: TestEnv) {
let credential = env.enroll_edge("one");
let server = env.serve();
let response = server.manifest(&credential, 0, 0).send().await.unwrap();
let before = Manifest::open(&response.bytes().await.unwrap(), &[root_key(&env)], "default").unwrap();
env.json(&["revoke", "--token", &env.issue_root_token()]);
let have = before.version();
assert_eq!(server.manifest(&credential, have, 5).send().await.unwrap().status(), 200);
let settled = checkpoint_objects(&server, &before).await;
for entry in [before.checkpoint()].into_iter().chain(before.tail()).chain(&settled) {
let path = format!("/edge/v1/objects/{}", Fingerprint::from(*entry.sha256()));
let response = server.get(&path).send().await.unwrap();
assert_eq!(response.status(), 200);
assert_eq!(response.headers()["cache-control"], "public, max-age=31536000, immutable");
entry.open(response.bytes().await.unwrap().to_vec(), before.delegation()).unwrap();
}
for wrong in ["0".repeat(64), "x".to_owned(), "A".repeat(64)] {
assert_eq!(server.get(&format!("/edge/v1/objects/{wrong}")).send().await.unwrap().status(), 404);
}
}

async fn shutdown_ends_long_polls(env: TestEnv) {
let credential = env.enroll_edge("one");
let mut server = env.serve();
let have = entity_tag_version(server.manifest(&credential, 0, 0).send().await.unwrap().headers());
let waiting = tokio::spawn(server.manifest(&credential, have, 30).send());
wait_until_polling(&server).await;
let began = Instant::now();
server.signal("TERM");
waiting.await.unwrap().unwrap();
assert!(server.wait().success());
assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}
}

#[tokio::test]
async fn symmetric_keys_require_edge_credential() {
    let env = TestEnv::init("sqlite:keystile.db".to_owned(), &["--algorithm", "HS256"]);
    let credential = env.enroll_edge("one");
    let server = env.serve();
    let response = server.manifest(&credential, 0, 0).send().await.unwrap();
    let manifest = Manifest::open(&response.bytes().await.unwrap(), &[root_key(&env)], "default").unwrap();
    let settled = checkpoint_objects(&server, &manifest).await;
    let entry = settled.iter().find(|entry| entry.kind() == ObjectKind::SecretKeys).unwrap();
    let hash = Fingerprint::from(*entry.sha256());
    assert_eq!(server.get(&format!("/edge/v1/objects/{hash}")).send().await.unwrap().status(), 404);
    let path = format!("/edge/v1/keys?sha256={hash}");
    assert_eq!(server.get(&path).send().await.unwrap().status(), 401);
    let response = server.get(&path).bearer_auth(&credential).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["cache-control"], "no-store");
    entry.open(response.bytes().await.unwrap().to_vec(), manifest.delegation()).unwrap();
    let open = settled.iter().find(|entry| entry.kind() == ObjectKind::Keys).unwrap();
    let path = format!("/edge/v1/keys?sha256={}", Fingerprint::from(*open.sha256()));
    assert_eq!(server.get(&path).bearer_auth(&credential).send().await.unwrap().status(), 404);
}

/// The output of `edge remove` names what the thief of the edge can still do.
#[tokio::test]
async fn edge_remove_names_exposed_symmetric_keys() {
    let env = TestEnv::on_sqlite().await;
    env.enroll_edge("one");
    let message = String::from_utf8(env.run(&["edge", "remove", "one", "--yes"]).stderr).unwrap();
    assert!(message.contains("It has no key that can create credentials"), "{message}");
    let env = TestEnv::init("sqlite:keystile.db".to_owned(), &["--algorithm", "HS256"]);
    env.enroll_edge("one");
    env.enroll_edge("two");
    let message = String::from_utf8(env.run(&["edge", "remove", "one", "--yes"]).stderr).unwrap();
    let removed = env.json(&["edge", "remove", "two", "--yes"]);
    let kid = json_text(&removed["symmetric_keys"][0]);
    assert!(message.contains(&format!("keystile key retire {kid} --yes")), "{message}");
    env.json(&["key", "retire", &kid, "--yes"]);
}

/// Returns true if a server accepts the credential of an edge.
async fn is_accepted(server: &Server, credential: &str) -> bool {
    let status = server.manifest(credential, 0, 0).send().await.unwrap().status();
    assert!([200, 401].contains(&status.as_u16()), "{status}");
    status == 200
}

pub(crate) async fn wait_until_polling(server: &Server) {
    eventually("the waiting edge", async || {
        (server.metric("keystile_waiting_edges").await == Some("1".to_owned())).then_some(())
    })
    .await;
}

pub(crate) fn root_key(env: &TestEnv) -> PublicKey {
    let jwk = std::fs::read(env.data().join("keys/root.jwk")).unwrap();
    json_text(&serde_json::from_slice::<Value>(&jwk).unwrap()["x"]).parse().unwrap()
}

/// Returns the objects that the checkpoint names.
async fn checkpoint_objects(server: &Server, manifest: &Manifest) -> Vec<Entry> {
    let entry = manifest.checkpoint();
    let path = format!("/edge/v1/objects/{}", Fingerprint::from(*entry.sha256()));
    let bytes = server.get(&path).send().await.unwrap().bytes().await.unwrap();
    let Object::Checkpoint(checkpoint) = entry.open(bytes.to_vec(), manifest.delegation()).unwrap() else {
        panic!("{entry:?}")
    };
    checkpoint.entries().to_vec()
}

/// Fetches, as an edge does, every object that the manifest names.
async fn assemble(env: &TestEnv, server: &Server, manifest: &[u8]) -> Snapshot {
    let manifest = Manifest::open(manifest, &[root_key(env)], "default").unwrap();
    let mut objects = Objects::default();
    let now = clock::now().millis();
    loop {
        let missing = objects.missing(&manifest, now);
        if missing.is_empty() {
            return Snapshot::assemble(manifest, &objects, now).unwrap();
        }
        for entry in missing {
            let path = format!("/edge/v1/objects/{}", Fingerprint::from(*entry.sha256()));
            let bytes = server.get(&path).send().await.unwrap().bytes().await.unwrap();
            objects.open(&manifest, entry, bytes.to_vec()).unwrap();
        }
    }
}

/// The revocation status of a credential that no base covers.
fn revocation_status(snapshot: &Snapshot, fingerprint: &Fingerprint) -> RevocationStatus {
    snapshot.revocation_status(fingerprint, "", 0, None)
}
