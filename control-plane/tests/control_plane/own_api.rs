//! The control plane's own API permits only what the grant of a user allows.

use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Server, World, eventually, text},
};

on_both! {
    async fn a_user_may_do_what_was_granted_and_the_root_everything(world: World) {
        let operator = world.operator.clone();
        let alice = format!("{operator}/alice");
        let server = world.serve();
        let issued = world.json(&["token", "issue", "--operator", &operator, "--user", "alice"]);
        let (user, root) = (text(&issued["token"]), world.token());
        let denied = (403, "permission_denied".to_owned());
        assert_eq!(server.verdict(&world, &user).await, denied);
        assert_eq!(server.verdict(&world, &root).await.0, 200);

        let list = json!({ "statements": [{ "effect": "allow", "api": "Operator:list*" }] });
        permit(&world, &alice, &list);
        eventually("the grant", async || (server.verdict(&world, &user).await.0 == 200).then_some(())).await;
        assert_eq!(create(&server, &operator, &user).await, denied);
        let victim = text(&world.json(&["token", "issue", "--operator", &operator])["token"]);
        assert_eq!(server.revoke(&user, json!({ "token": victim })).await.status(), 403);

        let more = json!({ "statements": [
            { "effect": "allow", "api": ["Operator:*", "Revocation:*"], "condition": "ipAddress('127.0.0.0/8')" },
            { "effect": "deny", "api": "Operator:listOperatorAuthKeys" },
            { "effect": "deny", "api": "Operator:deleteOperatorAuthKey", "condition": format!("pathVariable('operator_id') == '{operator}'") },
        ] });
        permit(&world, &alice, &more);
        eventually("the deny", async || (server.verdict(&world, &user).await == denied).then_some(())).await;
        assert_eq!(create(&server, &operator, &user).await, (403, "root_only".to_owned()));
        let path = format!("/v1/operators/{operator}/auth_keys/{}", world.auth_key_id);
        assert_eq!(answer(server.delete(&path), &user).await, denied);
        assert_eq!(server.revoke(&user, json!({ "token": victim })).await.status(), 200);

        let elsewhere = json!({ "statements": [{ "effect": "allow", "api": "*", "condition": "ipAddress('10.0.0.0/8')" }] });
        permit(&world, &alice, &elsewhere);
        eventually("the address", async || (create(&server, &operator, &user).await == denied).then_some(())).await;
        // Everything except the logout.
        assert_eq!(server.post("/v1/auth/logout", &json!({})).bearer_auth(&user).send().await.unwrap().status(), 204);
        assert_eq!(server.verdict(&world, &user).await, (401, "revoked".to_owned()));
        assert_eq!(server.verdict(&world, &root).await.0, 200);
    }

    async fn a_grant_ends_at_the_border_of_the_operator(world: World) {
        let (foreigner, _) = world.foreigner().await;
        let alice = format!("{}/alice", world.operator);
        let token = text(&world.json(&["token", "issue", "--operator", &world.operator, "--user", "alice"])["token"]);
        permit(&world, &alice, &json!({ "statements": [{ "effect": "allow", "api": "*" }] }));
        let server = world.serve();
        assert_eq!(server.verdict(&world, &token).await.0, 200);
        let (status, _) = create(&server, &foreigner.to_string(), &token).await;
        assert_eq!(status, 404);
        let theirs = json!({ "subject": foreigner.to_string() });
        assert_eq!(server.revoke(&token, theirs).await.status(), 404);
    }
}

fn permit(world: &World, user: &str, document: &Value) {
    world.json(&["user", "permission", "set", user, &world.document("permission", document)]);
}

async fn create(server: &Server, operator: &str, token: &str) -> (u16, String) {
    answer(server.post(&format!("/v1/operators/{operator}/auth_keys"), &json!({})), token).await
}

/// Returns the status and the code.
async fn answer(request: reqwest::RequestBuilder, token: &str) -> (u16, String) {
    let response = request.bearer_auth(token).send().await.unwrap();
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}
