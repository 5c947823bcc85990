//! Every way to revoke, and what each covers.

use control_plane::{
    clock,
    model::{Actor, AuthKeyId, KeyId},
    operations::{Authority, Bearer, Lifetime, RevokeError, Target, What, issue, revoke},
    store::{NEVER, revocations},
};
use serde_json::{Value, json};
use token::Fingerprint;

use crate::{
    on_both,
    world::{World, text},
};

on_both! {
    async fn each_way_refuses_what_it_names(world: World) {
        let server = world.serve();
        let root = text(&server.exchange(&world.auth_key_id, &world.auth_key).await["token"]);
        let path = format!("/v1/operators/{}/auth_keys", world.operator);
        let made: Value = server.post(&path, &json!({})).bearer_auth(&root).send().await.unwrap().json().await.unwrap();
        let (id, secret) = (text(&made["authKeyId"]), text(&made["authKey"]));
        for way in ["fingerprint", "token", "session", "auth key"] {
            let victim = server.exchange(&id, &secret).await;
            let token = text(&victim["token"]);
            assert_eq!(server.verdict(&world, &token).await.0, 200, "{way}");
            let (body, code) = match way {
                "fingerprint" => (json!({ "fingerprint": Fingerprint::digest(token.as_bytes()).to_string() }), "revoked"),
                "token" => (json!({ "token": token, "reason": "leaked" }), "revoked"),
                "session" => (json!({ "keyId": victim["apiKey"] }), "watermark"),
                _ => (json!({ "keyId": id }), "watermark"),
            };
            let response = server.revoke(&root, body.clone()).await;
            assert_eq!(response.status(), 200, "{way}");
            let version = response.json::<Value>().await.unwrap()["version"].as_u64().unwrap();
            // Acknowledged is published here.
            assert_eq!(server.verdict(&world, &token).await, (401, code.to_owned()), "{way}");
            // Doing it again succeeds.
            let again: Value = server.revoke(&root, body).await.json().await.unwrap();
            assert!(again["version"].as_u64().unwrap() >= version);
            assert_eq!(server.verdict(&world, &root).await.0, 200);
        }
        // What is issued right after is good.
        let after = text(&server.exchange(&id, &secret).await["token"]);
        assert_eq!(server.verdict(&world, &after).await.0, 200);
        let response = server.revoke(&root, json!({ "subject": world.operator })).await;
        assert_eq!(response.status(), 200);
        for token in [&after, &root] {
            assert_eq!(server.verdict(&world, token).await, (401, "watermark".to_owned()));
        }
        let new = text(&server.exchange(&world.auth_key_id, &world.auth_key).await["token"]);
        assert_eq!(server.verdict(&world, &new).await.0, 200);
    }

    /// Revoked, issued again, revoked again, all within a second: nothing slips through between the seconds.
    async fn revoking_again_at_once_covers_what_was_issued_between(world: World) {
        let service = world.service().await;
        let id: AuthKeyId = world.auth_key_id.parse().unwrap();
        let key = KeyId::AuthKey(id.clone());
        let mut last = 0;
        for _ in 0..4 {
            let issued = issue(&service, Bearer::AuthKey(id.clone()), Lifetime::default()).await.unwrap();
            let issued_at = issued.expires_at.unwrap() - Lifetime::default().seconds();
            assert!(issued_at > last, "issued at {issued_at}, refused up to {last}");
            assert!(issued_at <= clock::now().seconds() + 2, "too far ahead for an edge");
            let done = revoke(&service, &Actor::Admin, &Authority::Everything, Target::Key(key.clone()), None).await.unwrap();
            let What::Scope(watermark) = done.what else { panic!("no watermark") };
            assert!(watermark.instant >= issued_at);
            last = watermark.instant;
        }
    }

    async fn a_subject_can_be_revoked_up_to_an_instant(world: World) {
        let server = world.serve();
        let root = text(&server.exchange(&world.auth_key_id, &world.auth_key).await["token"]);
        let now = clock::now().seconds();
        let early = json!({ "subject": world.operator, "instant": now - 100 });
        assert_eq!(server.revoke(&root, early).await.status(), 200);
        assert_eq!(server.verdict(&world, &root).await.0, 200);
        let late = server.revoke(&root, json!({ "subject": world.operator, "instant": now + 100 })).await;
        assert_eq!(late.status(), 400);
        assert_eq!(late.json::<Value>().await.unwrap()["code"], "instant_in_future");
    }

    async fn a_foreign_operator_is_one_that_is_not_there(world: World) {
        let (foreigner, key) = world.foreigner().await;
        let server = world.serve();
        let own = text(&server.exchange(&world.auth_key_id, &world.auth_key).await["token"]);
        let foreign = server.exchange(key.id.as_str(), key.secret.expose()).await;
        let foreign_token = text(&foreign["token"]);
        let nobody = "0".repeat(64);
        for body in [
            json!({ "fingerprint": Fingerprint::digest(foreign_token.as_bytes()).to_string() }),
            json!({ "token": foreign_token }),
            json!({ "keyId": foreign["apiKey"] }),
            json!({ "keyId": key.id.as_str() }),
            json!({ "subject": foreigner.to_string() }),
            json!({ "fingerprint": nobody }),
            json!({ "keyId": "keyId-nobody" }),
            json!({ "keyId": "api-00000000-0000-4000-8000-000000000000" }),
            json!({ "subject": "OP0000000000" }),
            json!({ "subject": format!("{}/nobody", world.operator) }),
        ] {
            let response = server.revoke(&own, body.clone()).await;
            assert_eq!(response.status(), 404, "{body}");
            let problem: Value = response.json().await.unwrap();
            assert_eq!(problem["detail"], "unknown or expired credential");
        }
        let path = format!("/v1/operators/{foreigner}/auth_keys");
        for request in [server.get(&path), server.post(&path, &json!({})), server.delete(&format!("{path}/{}", key.id))] {
            assert_eq!(request.bearer_auth(&own).send().await.unwrap().status(), 404);
        }
        let path = format!("/v1/operators/{}/auth_keys/{}", world.operator, key.id);
        assert_eq!(server.delete(&path).bearer_auth(&own).send().await.unwrap().status(), 404);
        let path = format!("/v1/operators/{foreigner}/auth_keys");
        assert_eq!(server.get(&path).bearer_auth(&foreign_token).send().await.unwrap().status(), 200);
    }

    async fn users_log_out_and_manage_nothing(world: World) {
        let server = world.serve();
        let issue = || text(&world.json(&["token", "issue", "--operator", &world.operator, "--user", "alice"])["token"]);
        let (alice, other) = (issue(), issue());
        assert_eq!(server.verdict(&world, &alice).await, (403, "permission_denied".to_owned()));
        let body = json!({ "token": other });
        assert_eq!(server.revoke(&alice, body).await.status(), 403);
        let done = server.post("/v1/auth/logout", &json!({})).bearer_auth(&alice).send().await.unwrap();
        assert_eq!(done.status(), 204);
        assert_eq!(server.verdict(&world, &alice).await, (401, "revoked".to_owned()));
        let root = world.token();
        let user = json!({ "subject": format!("{}/alice", world.operator) });
        assert_eq!(server.revoke(&root, user).await.status(), 200);
        assert_eq!(server.verdict(&world, &other).await, (401, "watermark".to_owned()));
        assert_eq!(server.verdict(&world, &root).await.0, 200);
    }

    /// A restored backup may lack what was issued after it: an admin can refuse it all the same.
    async fn an_admin_can_revoke_what_the_store_does_not_know(world: World) {
        let service = world.service().await;
        let unknown = Fingerprint::digest(b"unknown");
        let authority = Authority::Operator(world.operator.parse().unwrap());
        let target = Target::Fingerprint(unknown);
        let refused = revoke(&service, &Actor::Admin, &authority, target.clone(), None).await;
        assert!(matches!(refused, Err(RevokeError::NotFound)));
        let done = revoke(&service, &Actor::Admin, &Authority::Everything, target, None).await.unwrap();
        assert_eq!(done.what, What::Fingerprint(unknown));
        // It may be an API key, or live as long as its issuer likes: nothing but a hand ends that.
        let held = revocations::find(&mut world.store().await.read().await.unwrap(), &unknown).await.unwrap();
        assert_eq!(held.unwrap().expires_at, NEVER);
    }
}
