//! A secret that is shown once is stored nowhere.

use serde_json::{Value, json};

use crate::{
    on_both,
    world::{World, text},
};

on_both! {
    async fn no_secret_is_in_the_log_the_audit_or_the_database(world: World) {
        let credential = world.edge("one");
        let api_key = text(&world.json(&["key", "create", "--user", &world.operator])["api_key"]);
        let mut server = world.serve();
        let token = text(&server.exchange(&world.auth_key_id, &world.auth_key).await["token"]);
        let path = format!("/v1/operators/{}/auth_keys", world.operator);
        let made: Value = server.post(&path, &json!({})).bearer_auth(&token).send().await.unwrap().json().await.unwrap();
        server.manifest(&credential, 0, 0).send().await.unwrap();
        server.manifest(&format!("{credential}x"), 0, 0).send().await.unwrap();
        server.post("/v1/auth", &json!({ "authKeyId": world.auth_key_id, "authKey": "wrong-secret" })).send().await.unwrap();
        server.revoke(&token, json!({ "token": token })).await;
        let audit = world.json(&["audit", "--limit", "1000"]).to_string();
        server.signal("TERM");
        server.wait();

        let mut kept = vec![("log", world.log().into_bytes()), ("audit", audit.into_bytes())];
        if world.url.starts_with("sqlite") {
            for file in ["keystile.db", "keystile.db-wal"] {
                kept.extend(std::fs::read(world.data().join(file)).ok().map(|bytes| (file, bytes)));
            }
        } else {
            let dump = world.folder().join("dump");
            crate::postgres::tool(&world.url, "pg_dump", &["--inserts", "-f", dump.to_str().unwrap()]);
            kept.push(("database", std::fs::read(dump).unwrap()));
        }
        // Search the files in their stored form.
        let (_, database) = kept.last().unwrap();
        assert!(database.windows(world.operator.len()).any(|window| window == world.operator.as_bytes()));
        let (_, signature) = token.rsplit_once('.').unwrap();
        let shown = [world.auth_key.as_str(), made["authKey"].as_str().unwrap(), &credential, &token, &api_key, signature, "wrong-secret"];
        for (place, bytes) in kept {
            assert!(!bytes.is_empty());
            for secret in shown {
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "a secret that starts with {} is in the {place}", &secret[..8]);
            }
        }
        assert!(world.log().contains("request completed"), "the log has the level debug");
    }
}
