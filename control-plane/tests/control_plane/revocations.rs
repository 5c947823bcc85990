//! Every kind of revocation, and the credentials that it covers.

use control_plane::{
    credentials::tokens::{Lifetime, TokenRecipient, issue_token},
    db::NEVER_EXPIRES,
    domain::UnixSeconds,
    domain::{Actor, AuthKeyId, RevocableKeyId, Subject},
    platform::clock,
    revocation::{AccessScope, RevocationOutcome, RevocationTarget, RevokeError, revocations, revoke},
};
use serde_json::{Value, json};
use token::Fingerprint;

use crate::{
    for_each_backend,
    test_env::{TestEnv, json_text},
};

for_each_backend! {
async fn each_revocation_target_refuses_its_credentials(env: TestEnv) {
let server = env.serve();
let root = json_text(&server.exchange(&env.auth_key_id, &env.auth_key).await["token"]);
let path = format!("/v1/operators/{}/auth_keys", env.operator);
let made: Value = server.post(&path, &json!({})).bearer_auth(&root).send().await.unwrap().json().await.unwrap();
let (id, secret) = (json_text(&made["authKeyId"]), json_text(&made["authKey"]));
for way in ["fingerprint", "token", "session", "auth key"] {
let victim = server.exchange(&id, &secret).await;
let token = json_text(&victim["token"]);
assert_eq!(server.own_api_decision(&env, &token).await.0, 200, "{way}");
let (body, code) = match way {
"fingerprint" => (json!({ "fingerprint": Fingerprint::digest(token.as_bytes()).to_string() }), "revoked"),
"token" => (json!({ "token": token, "reason": "leaked" }), "revoked"),
"session" => (json!({ "keyId": victim["apiKey"] }), "watermark"),
_ => (json!({ "keyId": id }), "watermark"),
};
let response = server.revoke(&root, body.clone()).await;
assert_eq!(response.status(), 200, "{way}");
let version = response.json::<Value>().await.unwrap()["version"].as_u64().unwrap();
// An acknowledged revocation is published here.
assert_eq!(server.own_api_decision(&env, &token).await, (401, code.to_owned()), "{way}");
// A repetition succeeds.
let again: Value = server.revoke(&root, body).await.json().await.unwrap();
assert!(again["version"].as_u64().unwrap() >= version);
assert_eq!(server.own_api_decision(&env, &root).await.0, 200);
}
// A credential issued right after it is valid.
let after = json_text(&server.exchange(&id, &secret).await["token"]);
assert_eq!(server.own_api_decision(&env, &after).await.0, 200);
let response = server.revoke(&root, json!({ "subject": env.operator })).await;
assert_eq!(response.status(), 200);
for token in [&after, &root] {
assert_eq!(server.own_api_decision(&env, token).await, (401, "watermark".to_owned()));
}
let new = json_text(&server.exchange(&env.auth_key_id, &env.auth_key).await["token"]);
assert_eq!(server.own_api_decision(&env, &new).await.0, 200);
}

/// Revoking, issuing and revoking again within a second leaves no gap.
async fn second_revocation_in_the_same_second_covers_new_tokens(env: TestEnv) {
let service = env.service().await;
let id: AuthKeyId = env.auth_key_id.parse().unwrap();
let key = RevocableKeyId::AuthKey(id.clone());
let mut last = 0;
for _ in 0..4 {
let issued = issue_token(&service, TokenRecipient::AuthKey(id.clone()), Lifetime::default()).await.unwrap();
let issued_at = issued.expires_at.unwrap().get() - Lifetime::default().seconds();
assert!(issued_at > last, "issued at {issued_at}, refused up to {last}");
assert!(issued_at <= clock::now().seconds().get() + 2, "too far ahead for an edge");
let done = revoke(&service, &Actor::Admin, &AccessScope::Everything, RevocationTarget::Key(key.clone()), None).await.unwrap();
let RevocationOutcome::Scope(watermark) = done.outcome else { panic!("no watermark") };
assert!(watermark.instant >= UnixSeconds::new(issued_at));
last = watermark.instant.get();
}
}

/// An earlier instant does not lower a watermark, and the outcome is the one that applies.
async fn outcome_is_the_watermark_that_applies(env: TestEnv) {
let service = env.service().await;
let subject: Subject = env.operator.parse().unwrap();
let now = clock::now().seconds().get();
for (instant, applies) in [(now - 100, now - 100), (now - 200, now - 100), (now - 50, now - 50)] {
let target = RevocationTarget::Subject { subject: subject.clone(), instant: Some(UnixSeconds::new(instant)) };
let done = revoke(&service, &Actor::Admin, &AccessScope::Everything, target, None).await.unwrap();
let RevocationOutcome::Scope(watermark) = done.outcome else { panic!("no watermark") };
assert_eq!(watermark.instant, UnixSeconds::new(applies));
}
}

async fn subject_is_revoked_up_to_an_instant(env: TestEnv) {
let server = env.serve();
let root = json_text(&server.exchange(&env.auth_key_id, &env.auth_key).await["token"]);
let now = clock::now().seconds().get();
let early = json!({ "subject": env.operator, "instant": now - 100 });
assert_eq!(server.revoke(&root, early).await.status(), 200);
assert_eq!(server.own_api_decision(&env, &root).await.0, 200);
let late = server.revoke(&root, json!({ "subject": env.operator, "instant": now + 100 })).await;
assert_eq!(late.status(), 400);
assert_eq!(late.json::<Value>().await.unwrap()["code"], "instant_in_future");
}

async fn foreign_operator_is_reported_as_unknown(env: TestEnv) {
let (tenant, key) = env.other_tenant().await;
let server = env.serve();
let own = json_text(&server.exchange(&env.auth_key_id, &env.auth_key).await["token"]);
let foreign = server.exchange(key.id.as_str(), key.secret.expose()).await;
let foreign_token = json_text(&foreign["token"]);
let nobody = "0".repeat(64);
for body in [
json!({ "fingerprint": Fingerprint::digest(foreign_token.as_bytes()).to_string() }),
json!({ "token": foreign_token }),
json!({ "keyId": foreign["apiKey"] }),
json!({ "keyId": key.id.as_str() }),
json!({ "subject": tenant.to_string() }),
json!({ "fingerprint": nobody }),
json!({ "keyId": "keyId-nobody" }),
json!({ "keyId": "api-00000000-0000-4000-8000-000000000000" }),
json!({ "subject": "OP0000000000" }),
json!({ "subject": format!("{}/absent", env.operator) }),
] {
let response = server.revoke(&own, body.clone()).await;
assert_eq!(response.status(), 404, "{body}");
let problem: Value = response.json().await.unwrap();
assert_eq!(problem["detail"], "unknown or expired credential");
}
let path = format!("/v1/operators/{tenant}/auth_keys");
for request in [server.get(&path), server.post(&path, &json!({})), server.delete(&format!("{path}/{}", key.id))] {
assert_eq!(request.bearer_auth(&own).send().await.unwrap().status(), 404);
}
let path = format!("/v1/operators/{}/auth_keys/{}", env.operator, key.id);
assert_eq!(server.delete(&path).bearer_auth(&own).send().await.unwrap().status(), 404);
let path = format!("/v1/operators/{tenant}/auth_keys");
assert_eq!(server.get(&path).bearer_auth(&foreign_token).send().await.unwrap().status(), 200);
}

async fn user_without_grant_can_only_log_out(env: TestEnv) {
let server = env.serve();
let issue = || json_text(&env.json(&["token", "issue", "--operator", &env.operator, "--user", "alice"])["token"]);
let (alice, other) = (issue(), issue());
assert_eq!(server.own_api_decision(&env, &alice).await, (403, "permission_denied".to_owned()));
let body = json!({ "token": other });
assert_eq!(server.revoke(&alice, body).await.status(), 403);
let done = server.post("/v1/auth/logout", &json!({})).bearer_auth(&alice).send().await.unwrap();
assert_eq!(done.status(), 204);
assert_eq!(server.own_api_decision(&env, &alice).await, (401, "revoked".to_owned()));
let root = env.issue_root_token();
let user = json!({ "subject": format!("{}/alice", env.operator) });
assert_eq!(server.revoke(&root, user).await.status(), 200);
assert_eq!(server.own_api_decision(&env, &other).await, (401, "watermark".to_owned()));
assert_eq!(server.own_api_decision(&env, &root).await.0, 200);
}

/// A command can revoke a credential that a restored backup does not contain.
async fn admin_revokes_unknown_fingerprint(env: TestEnv) {
let service = env.service().await;
let unknown = Fingerprint::digest(b"unknown");
let authority = AccessScope::Operator(env.operator.parse().unwrap());
let target = RevocationTarget::Fingerprint(unknown);
let refused = revoke(&service, &Actor::Admin, &authority, target.clone(), None).await;
assert!(matches!(refused, Err(RevokeError::NotFound)));
let done = revoke(&service, &Actor::Admin, &AccessScope::Everything, target, None).await.unwrap();
assert_eq!(done.outcome, RevocationOutcome::Fingerprint(unknown));
// It can be an API key, or have any lifetime, so only a command ends the revocation.
let held = revocations::find(&mut env.store().await.read().await.unwrap(), &unknown).await.unwrap();
assert_eq!(held.unwrap().expires_at, NEVER_EXPIRES);
}
}
