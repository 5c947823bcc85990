//! Revocations that can be undone, and those that cannot.

use control_plane::{domain::Revocation, domain::UnixSeconds, platform::clock, revocation::revocations};
use serde_json::{Value, json};
use token::Fingerprint;

use crate::{
    for_each_backend,
    test_env::{TestEnv, json_text},
};

for_each_backend! {
async fn unrevoked_credential_is_admitted_and_revocable(env: TestEnv) {
let server = env.serve();
let victim = json_text(&server.exchange(&env.auth_key_id, &env.auth_key).await["token"]);
let fingerprint = Fingerprint::digest(victim.as_bytes()).to_string();
let mut last = 0;
for _ in 0..3 {
let revoked = env.json(&["revoke", "--fingerprint", &fingerprint]);
server.wait_for_decision(&env, &victim, 401, "revoked").await;
let hesitant = env.stderr_of_failure(&["unrevoke", "--fingerprint", &fingerprint]);
assert!(hesitant.contains("add --yes"), "{hesitant}");
let back = env.json(&["unrevoke", "--fingerprint", &fingerprint, "--yes"]);
server.wait_for_decision(&env, &victim, 200, "").await;
assert_eq!(back["refused_by_watermark"], json!(false));
let versions = [&revoked, &back].map(|done| done["version"].as_u64().unwrap());
assert!(last < versions[0] && versions[0] < versions[1]);
last = versions[1];
}
let lines = env.json(&["audit"]);
let actions: Vec<&Value> = lines.as_array().unwrap().iter().map(|line| &line["action"]).collect();
assert_eq!(actions.iter().filter(|action| **action == "unrevoke").count(), 3, "{actions:?}");
assert_eq!(env.json(&["token", "inspect", &victim])["standing"], "good");
}

async fn unrevoke_never_overrides_watermark(env: TestEnv) {
let server = env.serve();
let victim = env.issue_root_token();
let fingerprint = Fingerprint::digest(victim.as_bytes()).to_string();
env.json(&["revoke", "--fingerprint", &fingerprint]);
env.json(&["revoke", "--subject", &env.operator, "--yes"]);
let back = env.json(&["unrevoke", "--fingerprint", &fingerprint, "--yes"]);
assert_eq!(back["refused_by_watermark"], json!(true));
server.wait_for_decision(&env, &victim, 401, "watermark").await;
}

/// A disabled key must be enabled instead, and a permanent revocation cannot be undone.
async fn unrevoke_restores_only_active_api_keys(env: TestEnv) {
// For a key with an expiry, and for a key without one.
for more in [&[][..], &["--expires", "90d"]] {
let made: Vec<Value> = (0..4)
.map(|_| env.json(&[&["key", "create", "--user", &env.operator], more].concat()))
.collect();
let ids: Vec<String> = made.iter().map(|key| json_text(&key["key_id"])).collect();
let fingerprints: Vec<String> = made.iter().map(|key| json_text(&key["fingerprint"])).collect();
env.json(&["key", "disable", &ids[0], "--yes"]);
env.json(&["key", "delete", &ids[1], "--yes"]);
env.json(&["key", "rotate", &ids[2], "--grace", "0", "--yes"]);
env.json(&["revoke", "--key-id", &ids[3]]);
let unrevoke = |at: usize| vec!["unrevoke", "--yes", "--fingerprint", &fingerprints[at]];
assert!(env.stderr_of_failure(&unrevoke(0)).contains(&format!("`keystile key enable {}`", ids[0])));
assert!(env.stderr_of_failure(&unrevoke(1)).contains("permanent"));
assert!(env.stderr_of_failure(&unrevoke(2)).contains("permanent"));
env.json(&unrevoke(3));
assert_eq!(env.json(&["key", "show", &ids[3]])["standing"], "active");
}
}

async fn unrevoke_rejects_unknown_or_expired_credential(env: TestEnv) {
let fingerprint = Fingerprint::digest(env.issue_root_token().as_bytes());
let complain = |fingerprint: &Fingerprint| env.stderr_of_failure(&["unrevoke", "--yes", "--fingerprint", &fingerprint.to_string()]);
assert!(complain(&fingerprint).contains("no revocation of this fingerprint is known"));
env.json(&["revoke", "--fingerprint", &fingerprint.to_string()]);
env.json(&["unrevoke", "--fingerprint", &fingerprint.to_string(), "--yes"]);
assert!(complain(&fingerprint).contains("no revocation of this fingerprint is known"));
let expired = Fingerprint::digest(b"expired");
let now = clock::now().seconds().get();
let mut write = env.store().await.upkeep().await.unwrap();
let version = write.allocate_version(clock::now()).await.unwrap();
let one = Revocation { fingerprint: expired, expires_at: UnixSeconds::new(now - 1), reason: None, revoked_at: UnixSeconds::new(now - 100) };
revocations::insert(write.db(), &one, version).await.unwrap();
write.commit().await.unwrap();
assert!(complain(&expired).contains("the credential has expired"));
}
}
