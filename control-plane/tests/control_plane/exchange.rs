//! AuthKey -> token -> logout.

use std::collections::HashSet;

use control_plane::{
    model::{Actor, AuthKeyId},
    operations::{Authority, Bearer, ExchangeError, Lifetime, delete_auth_key, exchange, issue},
};
use serde_json::{Value, json};
use token::Fingerprint;

use crate::{
    on_both,
    world::{World, text},
};

on_both! {
    async fn an_auth_key_gets_a_token_until_it_logs_out(world: World) {
        let server = world.serve();
        let answer = server.exchange(&world.auth_key_id, &world.auth_key).await;
        let (token, api_key) = (text(&answer["token"]), text(&answer["apiKey"]));
        assert_eq!(answer["operatorId"], json!(world.operator));
        assert_eq!(answer["userName"], json!("root"));
        assert_eq!(answer.as_object().unwrap().len(), 4);
        assert_eq!(server.verdict(&world, &token).await, (200, String::new()));

        let path = format!("/v1/operators/{}/auth_keys", world.operator);
        let pair = |key: &str| server.get(&path).header("x-soracom-token", &token).header("x-soracom-api-key", key);
        assert_eq!(pair(&api_key).send().await.unwrap().status(), 200);
        for wrong in [pair("api-other"), server.get(&path).header("x-soracom-token", &token)] {
            let response = wrong.send().await.unwrap();
            assert_eq!(response.status(), 401);
            assert_eq!(response.json::<Value>().await.unwrap()["code"], "api_key_mismatch");
        }
        let both = pair(&api_key).bearer_auth(&token).send().await.unwrap();
        assert_eq!(both.json::<Value>().await.unwrap()["code"], "credential_ambiguous");

        let other = text(&server.exchange(&world.auth_key_id, &world.auth_key).await["token"]);
        let done = server.post("/v1/auth/logout", &json!({})).bearer_auth(&token).send().await.unwrap();
        assert_eq!(done.status(), 204);
        assert_eq!(server.verdict(&world, &token).await, (401, "revoked".to_owned()));
        assert_eq!(server.verdict(&world, &other).await.0, 200);
    }

    async fn an_unknown_id_and_a_wrong_secret_get_the_same_answer(world: World) {
        let server = world.serve();
        let mut answers = Vec::new();
        let wrong = world.auth_key.replace("secret-", "secret-x");
        for (id, secret) in [(world.auth_key_id.as_str(), wrong.as_str()), ("keyId-unknown", &world.auth_key), ("?", "?")] {
            let response = server.post("/v1/auth", &json!({ "authKeyId": id, "authKey": secret })).send().await.unwrap();
            assert_eq!(response.status(), 401);
            answers.push(response.text().await.unwrap());
        }
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0], answers[2]);
        assert!(answers[0].contains("auth_key_refused"));
    }

    async fn auth_keys_are_listed_created_and_deleted(world: World) {
        let server = world.serve();
        let token = text(&server.exchange(&world.auth_key_id, &world.auth_key).await["token"]);
        let path = format!("/v1/operators/{}/auth_keys", world.operator);
        let created = server.post(&path, &json!({})).bearer_auth(&token).send().await.unwrap();
        assert_eq!(created.status(), 201);
        let created: Value = created.json().await.unwrap();
        let (id, secret) = (text(&created["authKeyId"]), text(&created["authKey"]));
        let listed: Vec<Value> = server.get(&path).bearer_auth(&token).send().await.unwrap().json().await.unwrap();
        assert_eq!(listed.len(), 2);
        assert!(listed.iter().all(|key| key["createDateTime"].is_u64() && !key.to_string().contains("secret-")));

        let doomed = text(&server.exchange(&id, &secret).await["token"]);
        let delete = || server.delete(&format!("{path}/{id}")).bearer_auth(&token).send();
        assert_eq!(delete().await.unwrap().status(), 204);
        assert_eq!(server.verdict(&world, &doomed).await, (401, "watermark".to_owned()));
        assert_eq!(server.verdict(&world, &token).await.0, 200);
        assert_eq!(delete().await.unwrap().status(), 404);
        let body = json!({ "authKeyId": id, "authKey": secret });
        assert_eq!(server.post("/v1/auth", &body).send().await.unwrap().status(), 401);
    }

    async fn a_token_lives_as_long_as_asked_and_no_longer_than_two_days(world: World) {
        let server = world.serve();
        for (seconds, status) in [(0, 400), (1, 200), (172_800, 200), (172_801, 400)] {
            let body = json!({ "authKeyId": world.auth_key_id, "authKey": world.auth_key, "tokenTimeoutSeconds": seconds });
            let response = server.post("/v1/auth", &body).send().await.unwrap();
            assert_eq!(response.status(), status, "{seconds}");
            if status == 200 {
                let token = text(&response.json::<Value>().await.unwrap()["token"]);
                let claims = world.json(&["token", "inspect", &token])["claims"].clone();
                assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), seconds);
                assert_eq!(claims["operator"]["operatorId"], json!(world.operator));
            }
        }
    }

    /// Whatever shares a transaction with others is nevertheless each one's own.
    async fn tokens_issued_at_once_are_all_in_the_ledger(world: World) {
        let service = std::sync::Arc::new(world.service().await);
        let issuing = (0..300).map(|_| {
            let (service, id, secret) = (service.clone(), world.auth_key_id.clone(), world.auth_key.clone());
            tokio::spawn(async move { exchange(&service, &id, &secret, Lifetime::default()).await.unwrap() })
        });
        let mut fingerprints = HashSet::new();
        let mut reader = world.store().await.reader().await.unwrap();
        for task in issuing.collect::<Vec<_>>() {
            let fingerprint = Fingerprint::digest(task.await.unwrap().token.expose().as_bytes());
            let found = control_plane::store::issued::find(&mut reader, &fingerprint).await.unwrap();
            assert_eq!(found.unwrap().auth_key.unwrap().as_str(), world.auth_key_id);
            assert!(fingerprints.insert(fingerprint));
        }
    }

    async fn a_deleted_auth_key_is_refused_at_once(world: World) {
        let service = world.service().await;
        let id: AuthKeyId = world.auth_key_id.parse().unwrap();
        issue(&service, Bearer::AuthKey(id.clone()), Lifetime::default()).await.unwrap();
        delete_auth_key(&service, &Actor::Admin, &Authority::Everything, &id).await.unwrap();
        let refused = exchange(&service, id.as_str(), &world.auth_key, Lifetime::default()).await;
        assert!(matches!(refused, Err(ExchangeError::Refused)));
    }
}

#[tokio::test]
async fn symmetric_tokens_work_too() {
    let world = World::initialized("sqlite:keystile.db".to_owned(), &["--algorithm", "HS256"]);
    let server = world.serve();
    let token = text(&server.exchange(&world.auth_key_id, &world.auth_key).await["token"]);
    assert_eq!(server.verdict(&world, &token).await.0, 200);
}
