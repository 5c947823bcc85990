//! The control plane's own API permits only what the grant of a user allows.

use serde_json::{Value, json};

use crate::{
    for_each_backend,
    test_env::{Server, TestEnv, eventually, json_text},
};

for_each_backend! {
    async fn user_needs_grant_and_root_does_not(env: TestEnv) {
        let operator = env.operator.clone();
        let alice = format!("{operator}/alice");
        let server = env.serve();
        let issued = env.json(&["token", "issue", "--operator", &operator, "--user", "alice"]);
        let (user, root) = (json_text(&issued["token"]), env.issue_root_token());
        let denied = (403, "permission_denied".to_owned());
        assert_eq!(server.own_api_decision(&env, &user).await, denied);
        assert_eq!(server.own_api_decision(&env, &root).await.0, 200);

        let list = json!({ "statements": [{ "effect": "allow", "api": "Operator:list*" }] });
        permit(&env, &alice, &list);
        eventually("the grant", async || (server.own_api_decision(&env, &user).await.0 == 200).then_some(())).await;
        assert_eq!(create(&server, &operator, &user).await, denied);
        let victim = json_text(&env.json(&["token", "issue", "--operator", &operator])["token"]);
        assert_eq!(server.revoke(&user, json!({ "token": victim })).await.status(), 403);

        let more = json!({ "statements": [
            { "effect": "allow", "api": ["Operator:*", "Revocation:*"], "condition": "ipAddress('127.0.0.0/8')" },
            { "effect": "deny", "api": "Operator:listOperatorAuthKeys" },
            { "effect": "deny", "api": "Operator:deleteOperatorAuthKey", "condition": format!("pathVariable('operator_id') == '{operator}'") },
        ] });
        permit(&env, &alice, &more);
        eventually("the deny", async || (server.own_api_decision(&env, &user).await == denied).then_some(())).await;
        assert_eq!(create(&server, &operator, &user).await, (403, "root_only".to_owned()));
        let path = format!("/v1/operators/{operator}/auth_keys/{}", env.auth_key_id);
        assert_eq!(status_and_code(server.delete(&path), &user).await, denied);
        assert_eq!(server.revoke(&user, json!({ "token": victim })).await.status(), 200);

        let elsewhere = json!({ "statements": [{ "effect": "allow", "api": "*", "condition": "ipAddress('10.0.0.0/8')" }] });
        permit(&env, &alice, &elsewhere);
        eventually("the address", async || (create(&server, &operator, &user).await == denied).then_some(())).await;
        // Everything except the logout.
        assert_eq!(server.post("/v1/auth/logout", &json!({})).bearer_auth(&user).send().await.unwrap().status(), 204);
        assert_eq!(server.own_api_decision(&env, &user).await, (401, "revoked".to_owned()));
        assert_eq!(server.own_api_decision(&env, &root).await.0, 200);
    }

    async fn grant_is_limited_to_its_operator(env: TestEnv) {
        let (tenant, _) = env.other_tenant().await;
        let alice = format!("{}/alice", env.operator);
        let token = json_text(&env.json(&["token", "issue", "--operator", &env.operator, "--user", "alice"])["token"]);
        permit(&env, &alice, &json!({ "statements": [{ "effect": "allow", "api": "*" }] }));
        let server = env.serve();
        assert_eq!(server.own_api_decision(&env, &token).await.0, 200);
        let (status, _) = create(&server, &tenant.to_string(), &token).await;
        assert_eq!(status, 404);
        let theirs = json!({ "subject": tenant.to_string() });
        assert_eq!(server.revoke(&token, theirs).await.status(), 404);
    }
}

fn permit(env: &TestEnv, user: &str, document: &Value) {
    env.json(&["user", "permission", "set", user, &env.write_document("permission", document)]);
}

async fn create(server: &Server, operator: &str, token: &str) -> (u16, String) {
    status_and_code(server.post(&format!("/v1/operators/{operator}/auth_keys"), &json!({})), token).await
}

/// Returns the status and the code.
async fn status_and_code(request: reqwest::RequestBuilder, token: &str) -> (u16, String) {
    let response = request.bearer_auth(token).send().await.unwrap();
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}
