//! The limits of an address and of an operator, and the requests that are never limited.

use std::collections::BTreeSet;

use reqwest::Response;
use serde_json::{Value, json};

use crate::{
    for_each_backend,
    test_env::{Server, TestEnv, eventually, json_text},
};

#[tokio::test]
async fn address_rate_limit_exempts_edges() {
    let mut env = TestEnv::on_sqlite().await;
    env.set_setting("KEYSTILE_SERVER__REQUESTS_PER_SECOND", "1");
    let credential = env.enroll_edge("one");
    let server = env.serve();
    let mut refused = 0;
    for _ in 0..30 {
        let response = server.get("/healthz").send().await.unwrap();
        if response.status() != 200 {
            assert_limited(response, "address_rate_exceeded").await;
            refused += 1;
        }
    }
    assert!(refused > 5, "{refused} of 30");
    let unknown = server.get("/edge/v1/manifest").bearer_auth("ks_edge_nobody").send().await.unwrap();
    assert_eq!(unknown.status(), 429);
    // A credential that was verified once is recognized.
    let manifest = async || server.manifest(&credential, 0, 0).send().await.unwrap().status();
    eventually("the edge's first request", async || (manifest().await == 200).then_some(())).await;
    for _ in 0..30 {
        assert_eq!(manifest().await, 200);
    }
    env.json(&["edge", "remove", "one", "--yes"]);
    assert_eq!(server.manifest(&credential, 0, 0).send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn trusted_proxy_clients_have_separate_rate_limits() {
    let mut env = TestEnv::on_sqlite().await;
    env.set_setting("KEYSTILE_SERVER__REQUESTS_PER_SECOND", "1");
    env.set_setting("KEYSTILE_SERVER__TRUSTED_PROXIES", "127.0.0.0/8, 10.0.0.1");
    let server = env.serve();
    let ask = async |forwarded: &str| {
        let response = server.get("/healthz").header("x-forwarded-for", forwarded).send().await.unwrap();
        response.status().as_u16()
    };
    let used_up = async |client: &str| {
        eventually("the end of a rate", async || (ask(client).await == 429).then_some(())).await;
    };
    used_up("198.51.100.1").await;
    assert_eq!(ask("198.51.100.2").await, 200);
    // A client can set the entries further left.
    used_up("203.0.113.77, 198.51.100.3, 10.0.0.1").await;
    let mut answers = BTreeSet::new();
    for last in 0..10 {
        answers.insert(ask(&format!("203.0.113.{last}, 198.51.100.3, 10.0.0.1")).await);
    }
    assert!(answers.contains(&429), "{answers:?}");
    // An IPv6 /64 is one client.
    used_up("2001:db8:1:2::1").await;
    let mut answers = BTreeSet::new();
    for last in 2..12 {
        answers.insert(ask(&format!("2001:db8:1:2:{last}::1")).await);
    }
    assert!(answers.contains(&429), "{answers:?}");
    assert_eq!(ask("2001:db8:1:3::1").await, 200);
}

#[tokio::test]
async fn wrong_auth_key_costs_more_and_does_not_lock_out_the_owner() {
    let mut env = TestEnv::on_sqlite().await;
    env.set_setting("KEYSTILE_SERVER__REQUESTS_PER_SECOND", "2");
    env.set_setting("KEYSTILE_SERVER__TRUSTED_PROXIES", "127.0.0.1");
    let server = env.serve();
    let sign_in = async |from: &str, secret: &str| {
        let body = json!({ "authKeyId": env.auth_key_id, "authKey": secret });
        let request = server.post("/v1/auth", &body).header("x-forwarded-for", from);
        request.send().await.unwrap()
    };
    let mut looked_at = 0;
    loop {
        let response = sign_in("198.51.100.1", "secret-wrong").await;
        if response.status() == 429 {
            assert_limited(response, "address_rate_exceeded").await;
            break;
        }
        assert_eq!(response.status(), 401);
        looked_at += 1;
        assert!(looked_at < 20, "not every request is checked");
    }
    assert_eq!(sign_in("198.51.100.2", &env.auth_key).await.status(), 200, "the owner, from elsewhere");
}

#[tokio::test]
async fn operator_token_rate_is_limited() {
    let mut env = TestEnv::on_sqlite().await;
    env.set_setting("KEYSTILE_LIMITS__TOKENS_PER_MINUTE", "3");
    let (_, tenant) = env.other_tenant().await;
    let server = env.serve();
    for _ in 0..3 {
        server.exchange(&env.auth_key_id, &env.auth_key).await;
    }
    let body = json!({ "authKeyId": env.auth_key_id, "authKey": env.auth_key });
    assert_limited(server.post("/v1/auth", &body).send().await.unwrap(), "operator_tokens_exceeded").await;
    server.exchange(tenant.id.as_str(), tenant.secret.expose()).await;
    // Commands are not counted.
    let token = env.issue_root_token();
    assert_eq!(server.own_api_decision(&env, &token).await.0, 200);
    let limited = server.metric(r#"keystile_requests_limited_total{code="operator_tokens_exceeded"}"#);
    assert_eq!(limited.await.unwrap(), "1");
}

#[tokio::test]
async fn user_revocation_rate_does_not_limit_root() {
    let mut env = TestEnv::on_sqlite().await;
    env.set_setting("KEYSTILE_LIMITS__REVOCATIONS_PER_MINUTE", "2");
    let alice = format!("{}/alice", env.operator);
    let document = json!({ "statements": [{ "effect": "allow", "api": ["Revocation:*"] }] });
    let document = env.write_document("all", &document);
    env.json(&["user", "create", &alice]);
    env.json(&["user", "permission", "set", &alice, &document]);
    let of_alice = || {
        let issued = env.json(&["token", "issue", "--operator", &env.operator, "--user", "alice"]);
        json_text(&issued["token"])
    };
    let (root, token, victim) = (env.issue_root_token(), of_alice(), of_alice());
    let server = env.serve();
    let revoke = async |by: &str| server.revoke(by, json!({ "token": victim })).await;
    assert_eq!(revoke(&token).await.status(), 200);
    assert_eq!(revoke(&token).await.status(), 200);
    assert_limited(revoke(&token).await, "operator_revocations_exceeded").await;
    assert_eq!(revoke(&root).await.status(), 200);
    assert_eq!(revoke(&root).await.status(), 200);
    assert_limited(revoke(&root).await, "operator_revocations_exceeded").await;
    // A logout or a command is never refused.
    assert_eq!(
        server.post("/v1/auth/logout", &json!({})).bearer_auth(&token).send().await.unwrap().status(),
        204
    );
    let another = of_alice();
    env.json(&["revoke", "--token", &another]);
    server.wait_for_decision(&env, &another, 401, "revoked").await;
}

for_each_backend! {
/// Above its share, a revocation of an operator still takes effect, without more entries at edges.
async fn revocation_beyond_operator_share_is_merged_into_watermark(env: TestEnv) {
let mut env = env;
env.set_setting("KEYSTILE_LIMITS__REVOCATIONS", "3");
let server = env.serve();
let session = async || server.exchange(&env.auth_key_id, &env.auth_key).await;
let log_out = async |token: &str| {
let request = server.post("/v1/auth/logout", &json!({})).bearer_auth(token);
assert_eq!(request.send().await.unwrap().status(), 204);
};
let others = env.token_of_another_auth_key();
for _ in 0..3 {
log_out(&json_text(&session().await["token"])).await;
}
let held = revocations(&server).await;
// Log out, and revoke a token, a fingerprint and a session.
let (one, two, three, four) = (session().await, session().await, session().await, session().await);
log_out(&json_text(&one["token"])).await;
assert_eq!(server.own_api_decision(&env, &json_text(&one["token"])).await, (401, "watermark".to_owned()));
for (session, what) in [
(&two, json!({ "token": two["token"] })),
(&three, json!({ "fingerprint": fingerprint(&three) })),
(&four, json!({ "keyId": four["apiKey"] })),
] {
let answer: Value = server.revoke(&others, what).await.json().await.unwrap();
assert_eq!(answer["scope"], env.auth_key_id, "{answer}");
assert!(answer["instant"].is_u64() && answer["fingerprint"].is_null(), "{answer}");
let verdict = server.own_api_decision(&env, &json_text(&session["token"])).await;
assert_eq!(verdict, (401, "watermark".to_owned()));
}
assert_eq!(revocations(&server).await, held);
// Later tokens are valid, and so are those of another AuthKey.
assert_eq!(server.own_api_decision(&env, &json_text(&session().await["token"])).await.0, 200);
assert_eq!(server.own_api_decision(&env, &others).await.0, 200);
// No AuthKey can be created, because its deletion would add to the share.
let path = format!("/v1/operators/{}/auth_keys", env.operator);
let made = server.post(&path, &json!({})).bearer_auth(&others).send().await.unwrap();
assert_limited(made, "operator_limit_reached").await;
// A command revokes only what it names, and `doctor` reports the operator whose share is used up.
let single = session().await;
env.json(&["revoke", "--fingerprint", &fingerprint(&single)]);
server.wait_for_decision(&env, &json_text(&single["token"]), 401, "revoked").await;
let findings = env.json(&["doctor"]);
let limits = findings.as_array().unwrap().iter().find(|finding| finding["what"] == "limits").unwrap();
assert_eq!(limits["state"], "note", "{limits}");
assert!(json_text(&limits["detail"]).contains(&format!("{} has the most: 3 of 3", env.operator)), "{limits}");
}

/// Two servers count each other's additions.
async fn auth_keys_per_user_are_limited(env: TestEnv) {
let mut env = env;
env.set_setting("KEYSTILE_LIMITS__AUTH_KEYS", "10");
let servers = [env.serve(), env.serve()];
let token = env.issue_root_token();
let path = format!("/v1/operators/{}/auth_keys", env.operator);
let requests = (0..24).map(|number| {
let request = servers[number % 2].post(&path, &json!({})).bearer_auth(&token);
tokio::spawn(async move { request.send().await.unwrap() })
});
let requests: Vec<_> = requests.collect();
let mut made = 0;
for request in requests {
let response = request.await.unwrap();
if response.status() == 201 {
made += 1;
} else {
assert_limited(response, "operator_limit_reached").await;
}
}
assert_eq!(made, 9, "in addition to the first one");
// The limit is per user.
env.json(&["authkey", "create", "--operator", &env.operator, "--user", "alice"]);
let stderr = env.stderr_of_failure(&["authkey", "create", "--operator", &env.operator]);
assert!(stderr.contains("`limits.auth_keys`"), "{stderr}");
// A deletion permits a new one.
let listed: Value = servers[0].get(&path).bearer_auth(&token).send().await.unwrap().json().await.unwrap();
let last = json_text(&listed.as_array().unwrap().last().unwrap()["authKeyId"]);
env.json(&["authkey", "delete", &last, "--yes"]);
env.json(&["authkey", "create", "--operator", &env.operator]);
}

async fn users_roles_and_api_keys_per_operator_are_limited(env: TestEnv) {
let mut env = env;
for limit in ["USERS", "ROLES", "API_KEYS"] {
env.set_setting(
match limit {
"USERS" => "KEYSTILE_LIMITS__USERS",
"ROLES" => "KEYSTILE_LIMITS__ROLES",
_ => "KEYSTILE_LIMITS__API_KEYS",
},
"2",
);
}
let document = env.write_document("none", &json!({ "statements": [] }));
let user = |number: u32| format!("{}/user-{number}", env.operator);
let mut keys = Vec::new();
for number in 0..2 {
env.json(&["user", "create", &user(number)]);
env.json(&["role", "create", &env.operator, &format!("role-{number}"), &document]);
keys.push(json_text(&env.json(&["key", "create", "--user", &user(0)])["key_id"]));
}
for (command, setting) in [
(vec!["user", "create", &user(2)], "limits.users"),
(vec!["key", "create", "--user", &user(2)], "limits.users"),
(vec!["role", "create", &env.operator, "role-2", &document], "limits.roles"),
(vec!["key", "create", "--user", &env.operator], "limits.api_keys"),
] {
let stderr = env.stderr_of_failure(&command);
assert!(stderr.contains(setting), "{command:?}: {stderr}");
}
// A leaked key can always be replaced.
env.json(&["key", "rotate", &keys[0], "--grace", "0", "--yes"]);
let (other, _) = env.other_tenant().await;
env.json(&["key", "create", "--user", other.operator.as_str()]);
}

async fn lists_are_paged(env: TestEnv) {
let mut env = env;
env.set_setting("KEYSTILE_LIMITS__AUTH_KEYS", "0");
let (token, server) = (env.issue_root_token(), env.serve());
let path = format!("/v1/operators/{}/auth_keys", env.operator);
let mut made = BTreeSet::from([env.auth_key_id.clone()]);
for _ in 0..104 {
let response = server.post(&path, &json!({})).bearer_auth(&token).send().await.unwrap();
made.insert(json_text(&response.json::<Value>().await.unwrap()["authKeyId"]));
}
let ask = async |query: &str| {
let response = server.get(&format!("{path}{query}")).bearer_auth(&token).send().await.unwrap();
assert_eq!(response.status(), 200);
let next = response.headers().get("x-soracom-next-key").map(|next| next.to_str().unwrap().to_owned());
let listed: Vec<Value> = response.json().await.unwrap();
(listed.iter().map(|key| json_text(&key["authKeyId"])).collect::<Vec<_>>(), next)
};
let (first, next) = ask("").await;
assert_eq!(first.len(), 100);
let (last, end) = ask(&format!("?limit=5&last_evaluated_key={}", next.unwrap())).await;
assert_eq!((last.len(), end), (5, None));
assert_eq!(first.into_iter().chain(last).collect::<BTreeSet<_>>(), made);
for query in ["?limit=0", "?limit=1001", "?limit=x", "?last_evaluated_key=x", "?page=1"] {
let response = server.get(&format!("{path}{query}")).bearer_auth(&token).send().await.unwrap();
assert_eq!(response.status(), 400, "{query}");
}

for name in ["b", "a", "c"] {
env.enroll_edge(name);
env.json(&["operator", "create"]);
env.json(&["user", "create", &format!("{}/{name}", env.operator)]);
let document = env.write_document("none", &json!({ "statements": [] }));
env.json(&["role", "create", &env.operator, name, &document]);
env.json(&["key", "create", "--user", &env.operator]);
}
let operator = env.operator.clone();
for list in [
vec!["edge", "list"],
vec!["operator", "list"],
vec!["user", "list"],
vec!["role", "list", &operator],
vec!["key", "list"],
] {
let all = env.json(&list);
let (mut walked, mut after) = (Vec::new(), None);
loop {
let mut command = list.clone();
command.extend(["--limit", "2", "--json"]);
command.extend(after.as_deref().map_or(vec![], |after| vec!["--after", after]));
let output = env.run(&command);
assert!(output.status.success(), "{command:?}");
let page: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
assert!(page.len() <= 2);
walked.extend(page);
let hint = String::from_utf8(output.stderr).unwrap();
let next = hint.lines().find_map(|line| line.strip_prefix("More items: --after "));
match next {
Some(next) => after = Some(next.to_owned()),
None => break,
}
}
assert_eq!(Value::Array(walked), all, "{list:?}");
assert!(all.as_array().unwrap().len() >= 3);
}
}

/// A report is only a claim of the edge: it raises no alarm about stolen keys, and an absurd version is not stored.
async fn edge_reports_raise_no_alarms(env: TestEnv) {
let (liar, honest) = (env.enroll_edge("liar"), env.enroll_edge("honest"));
let server = env.serve();
let max = u64::MAX;
let path = format!("/edge/v1/manifest?have={max}&epoch={max}");
let status = format!("version={max}; workers=4; oldest={max}; lagging=0");
for _ in 0..3 {
let request = server.get(&path).bearer_auth(&liar).header("x-keystile-edge-status", &status);
let request = request.header("if-none-match", format!("\"{max}-{max}\""));
assert_eq!(request.send().await.unwrap().status(), 304);
}
let first = server.manifest(&honest, 0, 0).send().await.unwrap();
let version = crate::test_env::entity_tag_version(first.headers());
server.manifest(&honest, version, 0).send().await.unwrap();
let log = env.log();
let lines: Vec<&str> = log.lines().filter(|line| line.contains("an edge reports a version above the latest")).collect();
assert_eq!(lines.len(), 1, "{log}");
assert!(lines[0].contains("WARN") && lines[0].contains("liar"), "{lines:?}");
assert!(!log.contains("may be stolen"), "{log}");
let listed = eventually("both edges", async || {
let listed = env.json(&["edge", "list"]);
let edges = listed.as_array().unwrap();
let seen = edges.iter().all(|edge| !edge["last_seen_at"].is_null())
&& edges.iter().any(|edge| !edge["version"].is_null());
seen.then_some(listed)
})
.await;
let of = |name: &str| listed.as_array().unwrap().iter().find(|edge| edge["id"] == name).unwrap().clone();
let liar = of("liar");
assert_eq!(json!([liar["version"], liar["enforces"], liar["workers"], liar["age_seconds"]]), json!([null, null, null, null]));
assert_eq!(liar["current"], false);
assert_eq!(of("honest")["version"], version);
}
}

/// Returns the code of a problem and its `Retry-After`.
async fn assert_limited(response: Response, code: &str) {
    assert_eq!(response.status(), 429);
    let retry: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&retry), "{retry}");
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["code"], code);
    assert_eq!(problem["message"], problem["detail"]);
}

async fn revocations(server: &Server) -> String {
    let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    metrics.lines().find(|line| line.starts_with("keystile_bundle_revocations ")).unwrap().to_owned()
}

fn fingerprint(session: &Value) -> String {
    token::Fingerprint::digest(json_text(&session["token"]).as_bytes()).to_string()
}

impl TestEnv {
    fn token_of_another_auth_key(&self) -> String {
        let made = self.json(&["authkey", "create", "--operator", &self.operator]);
        let id = json_text(&made["auth_key_id"]);
        json_text(&self.json(&["token", "issue", "--auth-key-id", &id])["token"])
    }
}
