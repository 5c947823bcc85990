//! Signing keys are replaced while servers run, and retired if they are stolen.

use std::time::{Duration, Instant};

use control_plane::{
    credentials::tokens::{Lifetime, TokenRecipient, issue_token},
    domain::{Actor, AuthKeyId},
    keys::{
        activate_pending_signing_key, discard_key_files, prune_signing_keys, retire_key, rotate_signing_key,
    },
    maintenance::purge_expired,
    publishing,
};
use serde_json::json;
use token::Unverified;

use crate::{
    for_each_backend, postgres,
    test_env::{TestEnv, entity_tag_version, eventually, json_text},
};

for_each_backend! {
    /// Uses two servers on PostgreSQL.
    async fn signing_key_rotates_without_restart(env: TestEnv) {
        let mut env = env;
        env.set_setting("KEYSTILE_PUBLISHER__LIFETIME", "2s");
        env.set_setting("KEYSTILE_PUBLISHER__RESIGN", "500ms");
        let credential = env.enroll_edge("one");
        let here = env.serve();
        let there = env.url.starts_with("postgres").then(|| env.serve());
        let old = json_text(&here.exchange(&env.auth_key_id, &env.auth_key).await["token"]);
        let behind = entity_tag_version(here.manifest(&credential, 0, 0).send().await.unwrap().headers());
        let next = json_text(&env.json(&["key", "rotate", "signing"])["kid"]);
        assert_ne!(kid(&old), next);
        assert!(env.stderr_of_failure(&["key", "rotate", "signing"]).contains("does not sign yet"));
        let publication = publishing::preview(&env.service().await).await.unwrap();
        assert!(publication.snapshot.key(&next).is_some() && publication.snapshot.key(&kid(&old)).is_some());
        // The new key signs nothing until every live edge has it.
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(4) {
            let response = here.manifest(&credential, behind, 0).send().await.unwrap();
            assert_eq!(response.status(), 200);
            let token = json_text(&here.exchange(&env.auth_key_id, &env.auth_key).await["token"]);
            assert_eq!(kid(&token), kid(&old));
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        for server in [Some(&here), there.as_ref()].into_iter().flatten() {
            eventually("a token of the new key", async || {
                let have = entity_tag_version(here.manifest(&credential, 0, 0).send().await.unwrap().headers());
                here.manifest(&credential, have, 0).send().await.unwrap();
                let token = json_text(&server.exchange(&env.auth_key_id, &env.auth_key).await["token"]);
                (kid(&token) == next).then_some(())
            })
            .await;
            assert_eq!(server.own_api_decision(&env, &old).await.0, 200);
        }
        let lines = env.json(&["audit"]);
        let promoted = lines.as_array().unwrap().iter().find(|line| line["action"] == "signing_key.promote").unwrap();
        assert_eq!([&promoted["actor"], &promoted["target"]].map(json_text), ["system", &next]);
    }

    async fn retired_signing_key_is_refused_immediately(env: TestEnv) {
        let server = env.serve();
        let old = json_text(&server.exchange(&env.auth_key_id, &env.auth_key).await["token"]);
        let stolen = kid(&old);
        let file = env.data().join(format!("keys/{stolen}.jwk"));
        assert!(file.exists());
        assert!(env.stderr_of_failure(&["key", "retire", &stolen]).contains("add --yes"));
        env.json(&["key", "retire", &stolen, "--yes"]);
        eventually("the end of the key", async || (server.own_api_decision(&env, &old).await.0 == 401).then_some(())).await;
        let snapshot = &publishing::preview(&env.service().await).await.unwrap().snapshot;
        assert!(snapshot.key(&stolen).is_none());
        assert!(snapshot.watermark([bundle::Scope::SigningKey(&stolen)]).is_some());
        let new = json_text(&server.exchange(&env.auth_key_id, &env.auth_key).await["token"]);
        assert_ne!(kid(&new), stolen);
        assert_eq!(server.own_api_decision(&env, &new).await.0, 200);
        assert!(!file.exists());
        assert!(env.stderr_of_failure(&["key", "retire", &stolen, "--yes"]).contains("unknown or retired key"));
    }

    async fn retired_tag_key_is_refused_immediately(env: TestEnv) {
        let alice = format!("{}/alice", env.operator);
        let create = || env.json(&["key", "create", "--user", &alice]);
        // The new generation has the kind of the old one.
        for (at, more, format) in [(1, &[][..], "2"), (4, &["--short"], "short")] {
            if at > 1 {
                env.json(&[&["key", "rotate", "tag"], more].concat());
            }
            let (first, second) = (create(), create());
            assert_eq!([&first, &second].map(|key| key["tag_generation"].clone()), [json!(at), json!(at)]);
            env.json(&["key", "disable", &json_text(&second["key_id"]), "--yes"]);
            let mut gone = vec![first, second.clone()];
            for generation in at..at + 2_u8 {
                env.json(&["key", "retire", &format!("tag-{generation}"), "--yes"]);
                let snapshot = &publishing::preview(&env.service().await).await.unwrap().snapshot;
                assert!(snapshot.generation_key(generation).is_none());
                assert!(snapshot.generation_key(generation + 1).is_some());
                assert!(!env.data().join(format!("keys/tag-{generation}.jwk")).exists());
                // The number of a stolen generation is never used again.
                let made = create();
                assert_eq!(made["tag_generation"], json!(generation + 1));
                assert_eq!(made["format"], format);
                gone.push(made);
            }
            let good = json_text(&gone.pop().unwrap()["key_id"]);
            for key in &gone {
                assert_eq!(env.json(&["key", "show", &json_text(&key["key_id"])])["standing"], "revoked");
            }
            assert!(env.stderr_of_failure(&["key", "enable", &json_text(&second["key_id"])]).contains("was retired"));
            assert_eq!(env.json(&["key", "show", &good])["standing"], "active");
        }
    }

    async fn revoke_by_signing_key_and_everything(env: TestEnv) {
        let server = env.serve();
        let issue = async || json_text(&server.exchange(&env.auth_key_id, &env.auth_key).await["token"]);
        let key = json_text(&env.json(&["key", "create", "--user", &env.operator])["key_id"]);
        let token = issue().await;
        let signing = kid(&token);
        let status = || json_text(&env.json(&["key", "show", &key])["standing"]);
        for (way, expected) in [
            (vec!["revoke", "--signing-key", &signing], "active"),
            (vec!["revoke", "--signing-key", "tag-1"], "revoked"),
            (vec!["revoke", "--everything"], "revoked"),
        ] {
            let token = issue().await;
            assert_eq!(server.own_api_decision(&env, &token).await.0, 200, "{way:?}");
            assert!(env.stderr_of_failure(&way).contains("add --yes"), "{way:?}");
            env.json(&[&way[..], &["--yes"]].concat());
            if way[2..] != ["tag-1"] {
                server.wait_for_decision(&env, &token, 401, "watermark").await;
            }
            assert_eq!(status(), expected, "{way:?}");
        }
        assert_eq!(server.own_api_decision(&env, &issue().await).await.0, 200);
        let unknown = ["revoke", "--yes", "--signing-key", "ks-unknown"];
        assert!(env.stderr_of_failure(&unknown).contains("unknown or expired credential"));
    }
}

/// A server that has not loaded the change yet detects it before it releases a token.
#[tokio::test]
async fn replaced_signing_key_is_pruned_after_its_tokens_expire() {
    let env = TestEnv::on_postgres().await;
    let (service, other) = (env.service().await, env.service().await);
    let bearer = || TokenRecipient::AuthKey(env.auth_key_id.parse::<AuthKeyId>().unwrap());
    let issued = issue_token(&service, bearer(), Lifetime::default()).await.unwrap();
    let old = kid(issued.token.expose());
    let next = rotate_signing_key(&service, &Actor::Admin).await.unwrap();
    assert_eq!(activate_pending_signing_key(&service).await.unwrap(), None);
    postgres::execute(&env.url, "UPDATE signing_keys SET created_at = created_at - 200000");
    assert_eq!(activate_pending_signing_key(&service).await.unwrap(), Some(next.clone()));
    assert_eq!(activate_pending_signing_key(&other).await.unwrap(), None);
    for service in [&service, &other] {
        let issued = issue_token(service, bearer(), Lifetime::default()).await.unwrap();
        assert_eq!(kid(issued.token.expose()), next);
    }
    assert_eq!(prune_signing_keys(&service).await.unwrap(), 0);
    postgres::execute(&env.url, &format!("UPDATE issued SET expires_at = 1 WHERE kid = '{old}'"));
    purge_expired(&service).await.unwrap();
    assert_eq!(prune_signing_keys(&service).await.unwrap(), 1);
    assert!(!env.data().join(format!("keys/{old}.jwk")).exists());
    let snapshot = &publishing::preview(&service).await.unwrap().snapshot;
    assert!(snapshot.key(&old).is_none() && snapshot.key(&next).is_some());
    assert_eq!(prune_signing_keys(&service).await.unwrap(), 0);
}

/// A failure to delete the file does not fail the command, because the change is already durable.
#[tokio::test]
async fn undeletable_key_file_does_not_prevent_retirement() {
    let env = TestEnv::on_sqlite().await;
    let service = env.service().await;
    env.json(&["key", "create", "--user", &format!("{}/alice", env.operator)]);
    let stolen = service.keys().current().signer().kid().to_owned();
    let tag = "tag-1".to_owned();
    // Even root cannot delete a folder as a file.
    let file = |kid: &str| env.data().join(format!("keys/{kid}.jwk"));
    for kid in [&stolen, &tag] {
        std::fs::remove_file(file(kid)).unwrap();
        std::fs::create_dir(file(kid)).unwrap();
    }
    retire_key(&service, &Actor::Admin, &stolen).await.unwrap();
    let output = env.run(&["key", "retire", &tag, "--yes"]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(matches!(output.status.code(), Some(0 | 3)), "{message}");
    assert!(message.contains("cannot be deleted: delete `") && message.contains("tag-1.jwk"), "{message}");
    let snapshot = &publishing::preview(&service).await.unwrap().snapshot;
    assert!(snapshot.key(&stolen).is_none() && snapshot.generation_key(1).is_none());

    assert_eq!(discard_key_files(&service).await.unwrap(), 0);
    for kid in [&stolen, &tag] {
        std::fs::remove_dir(file(kid)).unwrap();
        std::fs::write(file(kid), "{}").unwrap();
    }
    // Files of valid keys and unknown files stay.
    let kept = ["ks-unknown", "tag-77", "tail", "tag-2"].map(file);
    std::fs::write(&kept[0], "{}").unwrap();
    std::fs::write(&kept[1], "{}").unwrap();
    let next = rotate_signing_key(&service, &Actor::Admin).await.unwrap();
    assert_eq!(discard_key_files(&service).await.unwrap(), 2);
    assert!(!file(&stolen).exists() && !file(&tag).exists());
    assert!(kept.iter().all(|file| file.exists()) && file(&next).exists());
}

fn kid(token: &str) -> String {
    Unverified::parse(token.as_bytes()).unwrap().kid().to_owned()
}
