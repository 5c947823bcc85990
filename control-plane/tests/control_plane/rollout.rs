//! The versions that edges enforce, and waiting for all edges.

use serde_json::{Value, json};

use crate::{
    for_each_backend,
    test_env::{Server, TestEnv, entity_tag, entity_tag_version, eventually, json_text},
};

for_each_backend! {
async fn edge_list_shows_enforced_versions(env: TestEnv) {
let credentials = ["one", "two", "three"].map(|name| env.enroll_edge(name));
let server = env.serve();
let first = server.manifest(&credentials[0], 0, 0).send().await.unwrap();
let (have, known) = (entity_tag_version(first.headers()), entity_tag(first.headers()));
let status = format!("version={have}; workers=4; oldest={have}; lagging=0");
report(&server, &credentials[0], have, &known, &status).await;
report(&server, &credentials[1], have, &known, &format!("version={have}; workers=4; oldest=7; lagging=3")).await;
let list = wait_for_list(&env, |list| list[0]["enforces"] == json!(have) && list[2]["enforces"] == json!(7)).await;
for (name, expected) in [
("state", ["live", "unseen", "live"].map(Value::from)),
("version", [json!(have), Value::Null, json!(have)]),
("enforces", [json!(have), Value::Null, json!(7)]),
("current", [json!(true), json!(false), json!(false)]),
("behind", [json!(0), Value::Null, json!(0)]),
("workers", [json!(4), Value::Null, json!(4)]),
("workers_lagging", [json!(0), Value::Null, json!(3)]),
] {
// The list is in the order of names: one, three, two.
assert_eq!([0, 1, 2].map(|at| list[at][name].clone()), expected, "{name}: {list:#}");
}
assert!(list[0]["age_seconds"].as_u64().unwrap() < 60);

env.json(&["revoke", "--token", &env.issue_root_token()]);
let list = env.json(&["edge", "list"]);
assert_eq!((&list[0]["current"], &list[0]["behind"]), (&json!(false), &json!(1)));
}

/// The report of an edge is bounded and parsed strictly. An invalid one does not prevent the response.
async fn edge_status_header_is_parsed_strictly(env: TestEnv) {
let credential = env.enroll_edge("one");
let server = env.serve();
let first = server.manifest(&credential, 0, 0).send().await.unwrap();
let (have, known) = (entity_tag_version(first.headers()), entity_tag(first.headers()));
let long = format!("version=1;{} workers=1; oldest=1; lagging=0", " ".repeat(300));
for status in [
"", "version=1", "version=1; workers=2; oldest=1", "version=1; workers=2; oldest=1; lagging=3",
"workers=2; version=1; oldest=1; lagging=0", "version=1; workers=0; oldest=1; lagging=0",
"version=1; workers=-2; oldest=1; lagging=0", "version=1; workers=2; oldest=x; lagging=0",
"version=1; workers=2; oldest=1; lagging=0; more=1", "version=1; workers=2; oldest=1; lagging=0; kept=x",
"version=1; workers=2; oldest=1; lagging=0; kept=1; kept=1", "version=1; workers=+2; oldest=1; lagging=0",
"version=1; workers=99999999; oldest=1; lagging=0", "version=18446744073709551616; workers=1; oldest=1; lagging=0",
&long,
] {
let request = server.manifest(&credential, have, 0).header("x-keystile-edge-status", status);
assert_eq!(request.send().await.unwrap().status(), 200, "{status}");
}
let list = wait_for_list(&env, |list| list[0]["version"] == json!(have)).await;
assert_eq!(list[0]["workers"], Value::Null);
report(&server, &credential, have, &known, "version=1; workers=2; oldest=1; lagging=1").await;
wait_for_list(&env, |list| list[0]["workers"] == json!(2)).await;
}

/// Uses two servers on PostgreSQL, and one on SQLite.
async fn revoke_wait_ends_when_all_live_edges_enforce(env: TestEnv) {
let credentials = ["one", "two"].map(|name| env.enroll_edge(name));
env.enroll_edge("never-started");
let here = env.serve();
let there = env.url.starts_with("postgres").then(|| env.serve());
let there = there.as_ref().unwrap_or(&here);
let victims = [env.issue_root_token(), env.issue_root_token()];
// These edges install and report every version at once.
let edges = [(&here, &credentials[0]), (there, &credentials[1])].map(|(server, credential)| {
let follow = |have: u64, known: String| {
let status = format!("version={have}; workers=2; oldest={have}; lagging=0; kept=2");
let request = server.manifest(credential, have, 5).header("x-keystile-edge-status", status);
request.header("if-none-match", known).send()
};
async move {
let mut held = (0, String::new());
loop {
let response = follow(held.0, held.1.clone()).await.unwrap();
if response.status() == 200 {
held = (entity_tag_version(response.headers()), entity_tag(response.headers()));
}
}
}
});
let [first, second] = edges;
let follow = async { tokio::join!(first, second) };
let root = json_text(&here.exchange(&env.auth_key_id, &env.auth_key).await["token"]);
let revoke = async {
wait_for_list(&env, |list| [1, 2].iter().all(|at| list[*at]["current"] == json!(true))).await;
let path = "/revocations?wait=8";
let response = here.post(path, &json!({ "token": victims[0] })).bearer_auth(&root).send().await.unwrap();
assert_eq!(response.status(), 200);
let answer: Value = response.json().await.unwrap();
assert_eq!(answer["edges"], json!({ "enforcing": 2, "lagging": 0, "silent": 0, "unseen": 1 }), "{answer}");
let command = env.command(&["revoke", "--wait", "--json", "--token", &victims[1]]);
let output = tokio::process::Command::from(command).output().await.unwrap();
assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
assert_eq!(answer["edges"], json!({ "enforcing": ["one", "two"], "lagging": [], "silent": [], "may_admit": [], "unseen": ["never-started"], "kept_streams": 4 }));
};
tokio::select! {
_ = follow => unreachable!("edges run until they are dropped"),
() = revoke => {}
}
}

async fn revoke_wait_names_lagging_edges(env: TestEnv) {
let credentials = ["behind", "split"].map(|name| env.enroll_edge(name));
let server = env.serve();
let first = server.manifest(&credentials[0], 0, 0).send().await.unwrap();
let (have, known) = (entity_tag_version(first.headers()), entity_tag(first.headers()));
report(&server, &credentials[0], have, &known, &format!("version={have}; workers=1; oldest={have}; lagging=0")).await;
wait_for_list(&env, |list| list[0]["version"] == json!(have)).await;
// An edge whose leader is far ahead of its workers.
let far = have + 1_000_000;
report(&server, &credentials[1], far, &known, &format!("version={far}; workers=2; oldest={have}; lagging=1")).await;
wait_for_list(&env, |list| list[1]["version"] == json!(far)).await;
let output = env.run(&["revoke", "--wait", "--timeout", "300ms", "--json", "--token", &env.issue_root_token()]);
assert_eq!(output.status.code(), Some(4));
let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
assert_eq!(answer["edges"]["lagging"], json!(["behind", "split"]));
let stderr = String::from_utf8(output.stderr).unwrap();
assert!(stderr.contains("after 300ms these live edges do not enforce version"), "{stderr}");
assert!(stderr.contains("behind, split"), "{stderr}");
}

/// An edge reports a version above the latest, because a tail key was stolen or a backup was restored.
async fn edge_above_latest_version_is_lagging(env: TestEnv) {
let credential = env.enroll_edge("beyond");
let server = env.serve();
let have = entity_tag_version(server.manifest(&credential, 0, 0).send().await.unwrap().headers()) + 10_000_000;
report(&server, &credential, have, "", &format!("version={have}; workers=1; oldest={have}; lagging=0")).await;
let list = wait_for_list(&env, |list| list[0]["version"] == json!(have)).await;
assert_eq!((&list[0]["current"], &list[0]["behind"]), (&json!(false), &Value::Null));
let output = env.run(&["revoke", "--wait", "--timeout", "300ms", "--json", "--token", &env.issue_root_token()]);
let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
assert_eq!(answer["edges"], json!({ "enforcing": [], "lagging": ["beyond"], "silent": [], "may_admit": [], "unseen": [], "kept_streams": 0 }));
}

/// An edge that reported within the grace may still admit, even if it is silent.
async fn silent_edge_fails_revoke_wait(env: TestEnv) {
let mut env = env;
env.set_setting("KEYSTILE_PUBLISHER__LIFETIME", "1s");
env.set_setting("KEYSTILE_PUBLISHER__RESIGN", "500ms");
let credentials = ["gone", "here"].map(|name| env.enroll_edge(name));
let server = env.serve();
let wait = |env: &TestEnv| {
let fingerprint = token::Fingerprint::digest(env.issue_root_token().as_bytes()).to_string();
env.run(&["revoke", "--wait", "--timeout", "300ms", "--json", "--fingerprint", &fingerprint])
};
// No edge has ever polled.
let output = wait(&env);
assert_eq!(output.status.code(), Some(4), "{output:?}");
assert!(String::from_utf8_lossy(&output.stderr).contains("no live edge enforces version"), "{output:?}");

server.manifest(&credentials[0], 0, 0).send().await.unwrap();
wait_for_list(&env, |list| list[0]["state"] == "silent").await;
let output = wait(&env);
assert_eq!(output.status.code(), Some(4), "{output:?}");
assert!(String::from_utf8_lossy(&output.stderr).contains("may still admit it: gone"), "{output:?}");
let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
assert_eq!(answer["edges"], json!({ "enforcing": [], "lagging": [], "silent": ["gone"], "may_admit": ["gone"], "unseen": ["here"], "kept_streams": 0 }));

// After its grace it refuses all requests.
env.set_setting("KEYSTILE_PUBLISHER__OUTAGE_GRACE", "0s");
let followed = async {
loop {
report_published(&server, &credentials[1]).await;
}
};
let done = async {
wait_for_list(&env, |list| list[1]["state"] == "live" && list[1]["current"] == true).await;
let fingerprint = token::Fingerprint::digest(env.issue_root_token().as_bytes()).to_string();
let command = env.command(&["revoke", "--wait", "--json", "--fingerprint", &fingerprint]);
let output = tokio::process::Command::from(command).output().await.unwrap();
assert!(output.status.success(), "{output:?}");
let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
assert_eq!(answer["edges"]["enforcing"], json!(["here"]));
assert_eq!(answer["edges"]["silent"], json!(["gone"]));
assert_eq!(answer["edges"]["may_admit"], json!([]));
};
tokio::select! {
() = followed => unreachable!("it runs until it is dropped"),
() = done => {}
}
}

/// An edge polls but gets no newer bundle, because a proxy in front of the control plane times out earlier.
async fn edge_without_newer_manifest_is_stale(env: TestEnv) {
let mut env = env;
env.set_setting("KEYSTILE_PUBLISHER__LIFETIME", "5s");
env.set_setting("KEYSTILE_PUBLISHER__RESIGN", "500ms");
let credentials = ["empty", "good", "stale"].map(|name| env.enroll_edge(name));
let server = env.serve();
let first = server.manifest(&credentials[2], 0, 0).send().await.unwrap();
let (have, known) = (entity_tag_version(first.headers()), entity_tag(first.headers()));
let tell_all = async || {
server.manifest(&credentials[0], 0, 0).header("if-none-match", "\"0-0\"").send().await.unwrap();
report_published(&server, &credentials[1]).await;
report(&server, &credentials[2], have, &known, &format!("version={have}; workers=1; oldest={have}; lagging=0")).await;
};
let list = eventually("the state", async || {
tell_all().await;
let list = env.json(&["edge", "list"]);
// On a busy machine, other edges can be late as well.
let states = [0, 1, 2].map(|at| list[at]["state"].clone());
(states == ["live", "live", "stale"]).then_some(list)
})
.await;
for member in ["enforces", "version", "behind", "age_seconds"] {
assert_eq!(list[0][member], Value::Null, "{member}: {list:#}");
}
let table = String::from_utf8(env.run(&["edge", "list"]).stdout).unwrap();
let row: Vec<&str> = table.lines().find(|line| line.starts_with("empty")).unwrap().split_whitespace().collect();
assert_eq!(row[..5], ["empty", "live", "-", "-", "-"], "{table}");
eventually("the report of doctor", async || {
tell_all().await;
let findings = env.json(&["doctor"]);
let found = findings.as_array().unwrap().iter().find(|finding| finding["what"] == "edges").unwrap();
let detail = found["detail"].as_str().unwrap().split(';').next().unwrap();
(found["state"] == "note" && detail == "stale, because they receive no newer bundle: stale").then_some(())
})
.await;
}
}

/// Installs and reports what is published.
async fn report_published(server: &Server, credential: &str) {
    let response = server.manifest(credential, 0, 0).send().await.unwrap();
    let (have, known) = (entity_tag_version(response.headers()), entity_tag(response.headers()));
    report(server, credential, have, &known, &format!("version={have}; workers=1; oldest={have}; lagging=0"))
        .await;
}

async fn report(server: &Server, credential: &str, have: u64, known: &str, status: &str) {
    let request = server.manifest(credential, have, 0).header("x-keystile-edge-status", status);
    let response = request.header("if-none-match", known).send().await.unwrap();
    assert!([200, 304].contains(&response.status().as_u16()));
}

/// Waits until the list of edges is as expected.
async fn wait_for_list(env: &TestEnv, probe: impl Fn(&Value) -> bool) -> Value {
    eventually("the list of edges", async || {
        let list = env.json(&["edge", "list"]);
        probe(&list).then_some(list)
    })
    .await
}
