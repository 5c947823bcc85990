//! A secret that is shown once is stored nowhere.

use serde_json::{Value, json};

use crate::{
    for_each_backend,
    test_env::{TestEnv, json_text},
};

for_each_backend! {
    async fn secrets_are_in_no_log_audit_or_database(env: TestEnv) {
        let credential = env.enroll_edge("one");
        let api_key = json_text(&env.json(&["key", "create", "--user", &env.operator])["api_key"]);
        let mut server = env.serve();
        let token = json_text(&server.exchange(&env.auth_key_id, &env.auth_key).await["token"]);
        let path = format!("/v1/operators/{}/auth_keys", env.operator);
        let made: Value = server.post(&path, &json!({})).bearer_auth(&token).send().await.unwrap().json().await.unwrap();
        server.manifest(&credential, 0, 0).send().await.unwrap();
        server.manifest(&format!("{credential}x"), 0, 0).send().await.unwrap();
        server.post("/v1/auth", &json!({ "authKeyId": env.auth_key_id, "authKey": "wrong-secret" })).send().await.unwrap();
        server.revoke(&token, json!({ "token": token })).await;
        let audit = env.json(&["audit", "--limit", "1000"]).to_string();
        server.signal("TERM");
        server.wait();

        let mut kept = vec![("log", env.log().into_bytes()), ("audit", audit.into_bytes())];
        if env.url.starts_with("sqlite") {
            for file in ["keystile.db", "keystile.db-wal"] {
                kept.extend(std::fs::read(env.data().join(file)).ok().map(|bytes| (file, bytes)));
            }
        } else {
            let dump = env.folder().join("dump");
            crate::postgres::tool(&env.url, "pg_dump", &["--inserts", "-f", dump.to_str().unwrap()]);
            kept.push(("database", std::fs::read(dump).unwrap()));
        }
        // Search the files in their stored form.
        let (_, database) = kept.last().unwrap();
        assert!(database.windows(env.operator.len()).any(|window| window == env.operator.as_bytes()));
        let (_, signature) = token.rsplit_once('.').unwrap();
        let shown = [env.auth_key.as_str(), made["authKey"].as_str().unwrap(), &credential, &token, &api_key, signature, "wrong-secret"];
        for (place, bytes) in kept {
            assert!(!bytes.is_empty());
            for secret in shown {
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "a secret that starts with {} is in the {place}", &secret[..8]);
            }
        }
        assert!(env.log().contains("request completed"), "the log has the level debug");
    }
}
