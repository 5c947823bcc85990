//! An AuthKey is exchanged for a token, and the token logs out.

use std::collections::HashSet;

use control_plane::{
    credentials::{
        auth_keys::delete_auth_key,
        tokens::{ExchangeError, Lifetime, TokenRecipient, exchange_auth_key, issue_token},
    },
    domain::{Actor, AuthKeyId},
    revocation::AccessScope,
};
use serde_json::{Value, json};
use token::Fingerprint;

use crate::{
    for_each_backend,
    test_env::{TestEnv, json_text},
};

for_each_backend! {
    async fn exchange_issues_token_until_logout(env: TestEnv) {
        let server = env.serve();
        let answer = server.exchange(&env.auth_key_id, &env.auth_key).await;
        let (token, api_key) = (json_text(&answer["token"]), json_text(&answer["apiKey"]));
        assert_eq!(answer["operatorId"], json!(env.operator));
        assert_eq!(answer["userName"], json!("root"));
        assert_eq!(answer.as_object().unwrap().len(), 4);
        assert_eq!(server.own_api_decision(&env, &token).await, (200, String::new()));

        let path = format!("/v1/operators/{}/auth_keys", env.operator);
        let pair = |key: &str| server.get(&path).header("x-soracom-token", &token).header("x-soracom-api-key", key);
        assert_eq!(pair(&api_key).send().await.unwrap().status(), 200);
        for wrong in [pair("api-other"), server.get(&path).header("x-soracom-token", &token)] {
            let response = wrong.send().await.unwrap();
            assert_eq!(response.status(), 401);
            assert_eq!(response.json::<Value>().await.unwrap()["code"], "api_key_mismatch");
        }
        let both = pair(&api_key).bearer_auth(&token).send().await.unwrap();
        assert_eq!(both.json::<Value>().await.unwrap()["code"], "credential_ambiguous");

        let other = json_text(&server.exchange(&env.auth_key_id, &env.auth_key).await["token"]);
        let done = server.post("/v1/auth/logout", &json!({})).bearer_auth(&token).send().await.unwrap();
        assert_eq!(done.status(), 204);
        assert_eq!(server.own_api_decision(&env, &token).await, (401, "revoked".to_owned()));
        assert_eq!(server.own_api_decision(&env, &other).await.0, 200);
    }

    async fn unknown_id_and_wrong_secret_get_the_same_response(env: TestEnv) {
        let server = env.serve();
        let mut answers = Vec::new();
        let wrong = env.auth_key.replace("secret-", "secret-x");
        for (id, secret) in [(env.auth_key_id.as_str(), wrong.as_str()), ("keyId-unknown", &env.auth_key), ("?", "?")] {
            let response = server.post("/v1/auth", &json!({ "authKeyId": id, "authKey": secret })).send().await.unwrap();
            assert_eq!(response.status(), 401);
            answers.push(response.text().await.unwrap());
        }
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0], answers[2]);
        assert!(answers[0].contains("auth_key_refused"));
    }

    async fn auth_key_api_lists_creates_and_deletes(env: TestEnv) {
        let server = env.serve();
        let token = json_text(&server.exchange(&env.auth_key_id, &env.auth_key).await["token"]);
        let path = format!("/v1/operators/{}/auth_keys", env.operator);
        let created = server.post(&path, &json!({})).bearer_auth(&token).send().await.unwrap();
        assert_eq!(created.status(), 201);
        let created: Value = created.json().await.unwrap();
        let (id, secret) = (json_text(&created["authKeyId"]), json_text(&created["authKey"]));
        let listed: Vec<Value> = server.get(&path).bearer_auth(&token).send().await.unwrap().json().await.unwrap();
        assert_eq!(listed.len(), 2);
        assert!(listed.iter().all(|key| key["createDateTime"].is_u64() && !key.to_string().contains("secret-")));

        let doomed = json_text(&server.exchange(&id, &secret).await["token"]);
        let delete = || server.delete(&format!("{path}/{id}")).bearer_auth(&token).send();
        assert_eq!(delete().await.unwrap().status(), 204);
        assert_eq!(server.own_api_decision(&env, &doomed).await, (401, "watermark".to_owned()));
        assert_eq!(server.own_api_decision(&env, &token).await.0, 200);
        assert_eq!(delete().await.unwrap().status(), 404);
        let body = json!({ "authKeyId": id, "authKey": secret });
        assert_eq!(server.post("/v1/auth", &body).send().await.unwrap().status(), 401);
    }

    async fn token_lifetime_is_as_requested_up_to_two_days(env: TestEnv) {
        let server = env.serve();
        for (seconds, status) in [(0, 400), (1, 200), (172_800, 200), (172_801, 400)] {
            let body = json!({ "authKeyId": env.auth_key_id, "authKey": env.auth_key, "tokenTimeoutSeconds": seconds });
            let response = server.post("/v1/auth", &body).send().await.unwrap();
            assert_eq!(response.status(), status, "{seconds}");
            if status == 200 {
                let token = json_text(&response.json::<Value>().await.unwrap()["token"]);
                let claims = env.json(&["token", "inspect", &token])["claims"].clone();
                assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), seconds);
                assert_eq!(claims["operator"]["operatorId"], json!(env.operator));
            }
        }
    }

    /// Requests that share a transaction succeed or fail independently.
    async fn concurrent_tokens_are_all_in_the_issuance_log(env: TestEnv) {
        let service = std::sync::Arc::new(env.service().await);
        let issuing = (0..300).map(|_| {
            let (service, id, secret) = (service.clone(), env.auth_key_id.clone(), env.auth_key.clone());
            tokio::spawn(async move { exchange_auth_key(&service, &id, &secret, Lifetime::default()).await.unwrap() })
        });
        let mut fingerprints = HashSet::new();
        let mut reader = env.store().await.reader().await.unwrap();
        for task in issuing.collect::<Vec<_>>() {
            let fingerprint = Fingerprint::digest(task.await.unwrap().token.expose().as_bytes());
            let found = control_plane::credentials::issued::find(&mut reader, &fingerprint).await.unwrap();
            assert_eq!(found.unwrap().auth_key.unwrap().as_str(), env.auth_key_id);
            assert!(fingerprints.insert(fingerprint));
        }
    }

    async fn deleted_auth_key_is_rejected_immediately(env: TestEnv) {
        let service = env.service().await;
        let id: AuthKeyId = env.auth_key_id.parse().unwrap();
        issue_token(&service, TokenRecipient::AuthKey(id.clone()), Lifetime::default()).await.unwrap();
        delete_auth_key(&service, &Actor::Admin, &AccessScope::Everything, &id).await.unwrap();
        let refused = exchange_auth_key(&service, id.as_str(), &env.auth_key, Lifetime::default()).await;
        assert!(matches!(refused, Err(ExchangeError::Refused)));
    }
}

#[tokio::test]
async fn hs256_tokens_are_issued_and_verified() {
    let env = TestEnv::init("sqlite:keystile.db".to_owned(), &["--algorithm", "HS256"]);
    let server = env.serve();
    let token = json_text(&server.exchange(&env.auth_key_id, &env.auth_key).await["token"]);
    assert_eq!(server.own_api_decision(&env, &token).await.0, 200);
}
