//! Every change has an entry in the audit log.

use serde_json::{Value, json};

use crate::{
    for_each_backend,
    test_env::{TestEnv, json_text},
};

for_each_backend! {
async fn every_change_appends_one_audit_entry(env: TestEnv) {
let server = env.serve();
let answer = server.exchange(&env.auth_key_id, &env.auth_key).await;
let root = json_text(&answer["token"]);
let path = format!("/v1/operators/{}/auth_keys", env.operator);
let made: Value = server.post(&path, &json!({})).bearer_auth(&root).send().await.unwrap().json().await.unwrap();
let id = json_text(&made["authKeyId"]);
assert_eq!(server.delete(&format!("{path}/{id}")).bearer_auth(&root).send().await.unwrap().status(), 204);
env.enroll_edge("one");
env.json(&["edge", "remove", "one", "--yes"]);
let issued = env.json(&["token", "issue", "--operator", &env.operator, "--user", "alice"]);
let fingerprint = json_text(&issued["fingerprint"]);
env.json(&["revoke", "--fingerprint", &fingerprint, "--reason", "test"]);
env.json(&["revoke", "--subject", &format!("{}/alice", env.operator), "--yes"]);
server.post("/v1/auth/logout", &json!({})).bearer_auth(&root).send().await.unwrap();

let lines = env.json(&["audit"]);
let lines: Vec<(&str, &str, &str)> = lines.as_array().unwrap().iter().rev().map(entry).collect();
let caller = format!("subject:{}", env.operator);
let exchanger = format!("authkey:{}", env.auth_key_id);
let root = token::Fingerprint::digest(root.as_bytes()).to_string();
let alice = format!("{}/alice", env.operator);
assert_eq!(
lines,
[
("admin", "initialize", env.operator.as_str()),
(&exchanger, "token.issue", &root),
(&caller, "auth_key.create", &id),
(&caller, "auth_key.delete", &id),
("admin", "edge.enroll", "one"),
("admin", "edge.remove", "one"),
("admin", "user.create", &alice),
("admin", "token.issue", &fingerprint),
("admin", "revoke", &fingerprint),
("admin", "revoke", &alice),
(&caller, "revoke", &root),
]
);
}

async fn no_op_appends_no_audit_entry(env: TestEnv) {
let server = env.serve();
let root = json_text(&server.exchange(&env.auth_key_id, &env.auth_key).await["token"]);
let before = env.json(&["audit"]);
let version = env.json(&["bundle", "show"])["version"].clone();
assert_eq!(server.revoke(&root, json!({ "keyId": "keyId-nobody" })).await.status(), 404);
assert_eq!(server.revoke(&root, json!({ "subject": env.operator, "instant": u64::MAX })).await.status(), 400);
env.stderr_of_failure(&["edge", "remove", "absent", "--yes"]);
assert_eq!(env.json(&["audit"]), before);
assert_eq!(env.json(&["bundle", "show"])["version"], version);
}
}

fn entry(line: &Value) -> (&str, &str, &str) {
    let part = |name: &str| line[name].as_str().unwrap();
    (part("actor"), part("action"), part("target"))
}
