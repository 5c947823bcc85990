//! Signing keys are replaced while servers run, and retired if they are stolen.

use std::time::{Duration, Instant};

use control_plane::{
    model::{Actor, AuthKeyId},
    operations::{
        Bearer, Lifetime, collect, discard_key_files, forget_signing_keys, issue, promote_signing_key,
        retire_key, rotate_signing_key,
    },
    publisher,
};
use serde_json::json;
use token::Unverified;

use crate::{
    on_both, postgres,
    world::{World, eventually, text, version},
};

on_both! {
    /// Uses two servers on PostgreSQL.
    async fn a_signing_key_is_replaced_without_a_restart(world: World) {
        let mut world = world;
        world.set("KEYSTILE_PUBLISHER__LIFETIME", "2s");
        world.set("KEYSTILE_PUBLISHER__RESIGN", "500ms");
        let credential = world.edge("one");
        let here = world.serve();
        let there = world.url.starts_with("postgres").then(|| world.serve());
        let old = text(&here.exchange(&world.auth_key_id, &world.auth_key).await["token"]);
        let behind = version(here.manifest(&credential, 0, 0).send().await.unwrap().headers());
        let next = text(&world.json(&["key", "rotate", "signing"])["kid"]);
        assert_ne!(kid(&old), next);
        assert!(world.complaint(&["key", "rotate", "signing"]).contains("does not sign yet"));
        let publication = publisher::preview(&world.service().await).await.unwrap();
        assert!(publication.snapshot.key(&next).is_some() && publication.snapshot.key(&kid(&old)).is_some());
        // The new key signs nothing until every live edge has it.
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(4) {
            let response = here.manifest(&credential, behind, 0).send().await.unwrap();
            assert_eq!(response.status(), 200);
            let token = text(&here.exchange(&world.auth_key_id, &world.auth_key).await["token"]);
            assert_eq!(kid(&token), kid(&old));
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        for server in [Some(&here), there.as_ref()].into_iter().flatten() {
            eventually("a token of the new key", async || {
                let have = version(here.manifest(&credential, 0, 0).send().await.unwrap().headers());
                here.manifest(&credential, have, 0).send().await.unwrap();
                let token = text(&server.exchange(&world.auth_key_id, &world.auth_key).await["token"]);
                (kid(&token) == next).then_some(())
            })
            .await;
            assert_eq!(server.verdict(&world, &old).await.0, 200);
        }
        let lines = world.json(&["audit"]);
        let promoted = lines.as_array().unwrap().iter().find(|line| line["action"] == "signing_key.promote").unwrap();
        assert_eq!([&promoted["actor"], &promoted["target"]].map(text), ["system", &next]);
    }

    async fn a_stolen_signing_key_is_retired_at_once(world: World) {
        let server = world.serve();
        let old = text(&server.exchange(&world.auth_key_id, &world.auth_key).await["token"]);
        let stolen = kid(&old);
        let file = world.data().join(format!("keys/{stolen}.jwk"));
        assert!(file.exists());
        assert!(world.complaint(&["key", "retire", &stolen]).contains("add --yes"));
        world.json(&["key", "retire", &stolen, "--yes"]);
        eventually("the end of the key", async || (server.verdict(&world, &old).await.0 == 401).then_some(())).await;
        let snapshot = &publisher::preview(&world.service().await).await.unwrap().snapshot;
        assert!(snapshot.key(&stolen).is_none());
        assert!(snapshot.watermark([bundle::Scope::SigningKey(&stolen)]).is_some());
        let new = text(&server.exchange(&world.auth_key_id, &world.auth_key).await["token"]);
        assert_ne!(kid(&new), stolen);
        assert_eq!(server.verdict(&world, &new).await.0, 200);
        assert!(!file.exists());
        assert!(world.complaint(&["key", "retire", &stolen, "--yes"]).contains("unknown or retired key"));
    }

    async fn a_stolen_tag_key_is_retired_at_once(world: World) {
        let alice = format!("{}/alice", world.operator);
        let create = || world.json(&["key", "create", "--user", &alice]);
        // The new generation has the kind of the old one.
        for (at, more, format) in [(1, &[][..], "2"), (4, &["--short"], "short")] {
            if at > 1 {
                world.json(&[&["key", "rotate", "tag"], more].concat());
            }
            let (first, second) = (create(), create());
            assert_eq!([&first, &second].map(|key| key["tag_generation"].clone()), [json!(at), json!(at)]);
            world.json(&["key", "disable", &text(&second["key_id"]), "--yes"]);
            let mut gone = vec![first, second.clone()];
            for generation in at..at + 2_u8 {
                world.json(&["key", "retire", &format!("tag-{generation}"), "--yes"]);
                let snapshot = &publisher::preview(&world.service().await).await.unwrap().snapshot;
                assert!(snapshot.generation_key(generation).is_none());
                assert!(snapshot.generation_key(generation + 1).is_some());
                assert!(!world.data().join(format!("keys/tag-{generation}.jwk")).exists());
                // The number of a stolen generation is never used again.
                let made = create();
                assert_eq!(made["tag_generation"], json!(generation + 1));
                assert_eq!(made["format"], format);
                gone.push(made);
            }
            let good = text(&gone.pop().unwrap()["key_id"]);
            for key in &gone {
                assert_eq!(world.json(&["key", "show", &text(&key["key_id"])])["standing"], "revoked");
            }
            assert!(world.complaint(&["key", "enable", &text(&second["key_id"])]).contains("was retired"));
            assert_eq!(world.json(&["key", "show", &good])["standing"], "active");
        }
    }

    async fn all_of_a_key_and_all_there_is_can_be_revoked(world: World) {
        let server = world.serve();
        let issue = async || text(&server.exchange(&world.auth_key_id, &world.auth_key).await["token"]);
        let key = text(&world.json(&["key", "create", "--user", &world.operator])["key_id"]);
        let token = issue().await;
        let signing = kid(&token);
        let standing = || text(&world.json(&["key", "show", &key])["standing"]);
        for (way, expected) in [
            (vec!["revoke", "--signing-key", &signing], "active"),
            (vec!["revoke", "--signing-key", "tag-1"], "revoked"),
            (vec!["revoke", "--everything"], "revoked"),
        ] {
            let token = issue().await;
            assert_eq!(server.verdict(&world, &token).await.0, 200, "{way:?}");
            assert!(world.complaint(&way).contains("add --yes"), "{way:?}");
            world.json(&[&way[..], &["--yes"]].concat());
            if way[2..] != ["tag-1"] {
                server.eventually(&world, &token, 401, "watermark").await;
            }
            assert_eq!(standing(), expected, "{way:?}");
        }
        assert_eq!(server.verdict(&world, &issue().await).await.0, 200);
        let unknown = ["revoke", "--yes", "--signing-key", "ks-unknown"];
        assert!(world.complaint(&unknown).contains("unknown or expired credential"));
    }
}

/// A server that has not loaded the change yet detects it before it releases a token.
#[tokio::test]
async fn a_replaced_key_is_forgotten_when_its_tokens_have_expired() {
    let world = World::on_postgres().await;
    let (service, other) = (world.service().await, world.service().await);
    let bearer = || Bearer::AuthKey(world.auth_key_id.parse::<AuthKeyId>().unwrap());
    let issued = issue(&service, bearer(), Lifetime::default()).await.unwrap();
    let old = kid(issued.token.expose());
    let next = rotate_signing_key(&service, &Actor::Admin).await.unwrap();
    assert_eq!(promote_signing_key(&service).await.unwrap(), None);
    postgres::execute(&world.url, "UPDATE signing_keys SET created_at = created_at - 200000");
    assert_eq!(promote_signing_key(&service).await.unwrap(), Some(next.clone()));
    assert_eq!(promote_signing_key(&other).await.unwrap(), None);
    for service in [&service, &other] {
        let issued = issue(service, bearer(), Lifetime::default()).await.unwrap();
        assert_eq!(kid(issued.token.expose()), next);
    }
    assert_eq!(forget_signing_keys(&service).await.unwrap(), 0);
    postgres::execute(&world.url, &format!("UPDATE issued SET expires_at = 1 WHERE kid = '{old}'"));
    collect(&service).await.unwrap();
    assert_eq!(forget_signing_keys(&service).await.unwrap(), 1);
    assert!(!world.data().join(format!("keys/{old}.jwk")).exists());
    let snapshot = &publisher::preview(&service).await.unwrap().snapshot;
    assert!(snapshot.key(&old).is_none() && snapshot.key(&next).is_some());
    assert_eq!(forget_signing_keys(&service).await.unwrap(), 0);
}

/// A failure to delete the file does not fail the command, because the change is already durable.
#[tokio::test]
async fn a_key_file_that_cannot_be_deleted_keeps_no_key_from_being_retired() {
    let world = World::on_sqlite().await;
    let service = world.service().await;
    world.json(&["key", "create", "--user", &format!("{}/alice", world.operator)]);
    let stolen = service.keys().current().signer().kid().to_owned();
    let tag = "tag-1".to_owned();
    // Even root cannot delete a folder as a file.
    let file = |kid: &str| world.data().join(format!("keys/{kid}.jwk"));
    for kid in [&stolen, &tag] {
        std::fs::remove_file(file(kid)).unwrap();
        std::fs::create_dir(file(kid)).unwrap();
    }
    retire_key(&service, &Actor::Admin, &stolen).await.unwrap();
    let output = world.run(&["key", "retire", &tag, "--yes"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(matches!(output.status.code(), Some(0 | 3)), "{told}");
    assert!(told.contains("cannot be deleted: delete `") && told.contains("tag-1.jwk"), "{told}");
    let snapshot = &publisher::preview(&service).await.unwrap().snapshot;
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
