//! A line for every change.

use serde_json::{Value, json};

use crate::{
    on_both,
    world::{World, text},
};

on_both! {
    async fn every_change_leaves_its_line(world: World) {
        let server = world.serve();
        let answer = server.exchange(&world.auth_key_id, &world.auth_key).await;
        let root = text(&answer["token"]);
        let path = format!("/v1/operators/{}/auth_keys", world.operator);
        let made: Value = server.post(&path, &json!({})).bearer_auth(&root).send().await.unwrap().json().await.unwrap();
        let id = text(&made["authKeyId"]);
        assert_eq!(server.delete(&format!("{path}/{id}")).bearer_auth(&root).send().await.unwrap().status(), 204);
        world.edge("one");
        world.json(&["edge", "remove", "one", "--yes"]);
        let issued = world.json(&["token", "issue", "--operator", &world.operator, "--user", "alice"]);
        let fingerprint = text(&issued["fingerprint"]);
        world.json(&["revoke", "--fingerprint", &fingerprint, "--reason", "test"]);
        world.json(&["revoke", "--subject", &format!("{}/alice", world.operator), "--yes"]);
        server.post("/v1/auth/logout", &json!({})).bearer_auth(&root).send().await.unwrap();

        let lines = world.json(&["audit"]);
        let lines: Vec<(&str, &str, &str)> = lines.as_array().unwrap().iter().rev().map(line).collect();
        let caller = format!("subject:{}", world.operator);
        let exchanger = format!("authkey:{}", world.auth_key_id);
        let root = token::Fingerprint::digest(root.as_bytes()).to_string();
        let alice = format!("{}/alice", world.operator);
        assert_eq!(
            lines,
            [
                ("admin", "initialize", world.operator.as_str()),
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

    async fn what_changes_nothing_leaves_none(world: World) {
        let server = world.serve();
        let root = text(&server.exchange(&world.auth_key_id, &world.auth_key).await["token"]);
        let before = world.json(&["audit"]);
        let version = world.json(&["bundle", "show"])["version"].clone();
        assert_eq!(server.revoke(&root, json!({ "keyId": "keyId-nobody" })).await.status(), 404);
        assert_eq!(server.revoke(&root, json!({ "subject": world.operator, "instant": u64::MAX })).await.status(), 400);
        world.complaint(&["edge", "remove", "nobody", "--yes"]);
        assert_eq!(world.json(&["audit"]), before);
        assert_eq!(world.json(&["bundle", "show"])["version"], version);
    }
}

fn line(line: &Value) -> (&str, &str, &str) {
    let part = |name: &str| line[name].as_str().unwrap();
    (part("actor"), part("action"), part("target"))
}
