//! API keys: issued, listed, disabled, rotated, ended; and what edges are told of each.

use bundle::Standing;
use control_plane::{
    publisher,
    store::{NEVER, watermarks},
};
use serde_json::{Value, json};
use token::{
    Fingerprint,
    api_key::{Authentic, Prefix, Unverified},
};

use crate::{
    on_both,
    world::{World, eventually, text},
};

on_both! {
    async fn a_key_opens_with_what_edges_are_told(world: World) {
        let alice = format!("{}/alice", world.operator);
        let made = create(&world, &["--user", &alice, "--name", "ci", "--metadata", r#"{"team":"a"}"#]);
        let key = text(&made["api_key"]);
        assert!(key.starts_with("ks_live_"));
        let (opened, standing) = seen(&world, &key, &alice).await;
        let opened = opened.unwrap();
        assert_eq!((opened.number(), opened.username()), (1, alice.as_str()));
        assert_eq!((text(&made["key_id"]), text(&made["fingerprint"])), ("key-1".to_owned(), Fingerprint::of(key.as_bytes()).to_string()));
        assert_eq!(standing, Standing::NotCovered);
        // For nobody else.
        for other in ["", &world.operator, "alice"] {
            assert!(seen(&world, &key, other).await.0.is_err());
        }
        let other = create(&world, &["--user", &world.operator, "--username", "alice@example.com", "--prefix", "sk_live_"]);
        assert_eq!(seen(&world, &text(&other["api_key"]), "alice@example.com").await.0.unwrap().number(), 2);
        let bare = create(&world, &["--user", &alice, "--username", ""]);
        assert_eq!(seen(&world, &text(&bare["api_key"]), "").await.0.unwrap().number(), 3);

        let listed = world.json(&["key", "list"]);
        let row = |at: usize| [&listed[at]["key_id"], &listed[at]["owner"], &listed[at]["username"], &listed[at]["standing"]].map(text);
        assert_eq!(row(0), ["key-1", &alice, &alice, "active"]);
        assert_eq!(row(1), ["key-2", &world.operator, "alice@example.com", "active"]);
        assert_eq!(row(2), ["key-3", &alice, "", "active"]);
        assert_eq!(listed[0]["metadata"], json!({ "team": "a" }));
        assert_eq!(world.json(&["key", "list", "--of", &alice]).as_array().unwrap().len(), 2);
        let shown = world.run(&["key", "show", "key-1"]);
        assert!(!String::from_utf8_lossy(&shown.stdout).contains(&key));
        for line in world.json(&["audit"]).as_array().unwrap() {
            assert!(!line.to_string().contains(&key[8..]));
        }
    }

    async fn a_key_is_refused_and_good_again(world: World) {
        let key = text(&create(&world, &["--user", &world.operator])["api_key"]);
        let standing = async || (seen(&world, &key, &world.operator).await.1, text(&world.json(&["key", "show", "key-1"])["standing"]));
        assert_eq!(standing().await, (Standing::NotCovered, "active".to_owned()));
        world.json(&["key", "disable", "key-1", "--yes"]);
        assert_eq!(standing().await, (Standing::Revoked, "disabled".to_owned()));
        assert!(world.complaint(&["key", "disable", "key-1", "--yes"]).contains("is not active"));
        world.json(&["key", "enable", "key-1"]);
        assert_eq!(standing().await, (Standing::NotCovered, "active".to_owned()));
        // What was revoked otherwise is not enabled.
        world.json(&["revoke", "--token", &key]);
        assert_eq!(standing().await, (Standing::Revoked, "revoked".to_owned()));
        assert!(world.complaint(&["key", "enable", "key-1"]).contains("is not disabled"));
        world.json(&["key", "delete", "key-1", "--yes"]);
        assert_eq!(seen(&world, &key, &world.operator).await.1, Standing::Revoked);
        assert!(world.complaint(&["key", "show", "key-1"]).contains("there is no API key `key-1`"));
        let other = text(&create(&world, &["--user", &world.operator])["key_id"]);
        assert_eq!(other, "key-2");
        world.json(&["revoke", "--key-id", &other]);
        assert_eq!(text(&world.json(&["key", "show", &other])["standing"]), "revoked");
    }

    /// Whoever revokes a disabled key, or disables a revoked one, need not fear that enabling it undoes that.
    async fn a_revocation_outlives_disabling_and_enabling(world: World) {
        let alice = format!("{}/alice", world.operator);
        let keys: Vec<String> = (0..5).map(|_| text(&create(&world, &["--user", &alice])["api_key"])).collect();
        for id in ["key-1", "key-2", "key-3"] {
            world.json(&["key", "disable", id, "--yes"]);
        }
        let before = world.json(&["audit"]).as_array().unwrap().len();
        world.json(&["revoke", "--key-id", "key-1", "--reason", "leaked"]);
        world.json(&["revoke", "--token", &keys[1]]);
        world.json(&["revoke", "--key-id", "key-4"]);
        assert_eq!(world.json(&["audit"]).as_array().unwrap().len(), before + 3);
        assert!(world.complaint(&["key", "disable", "key-4", "--yes"]).contains("is not active"));
        world.json(&["revoke", "--subject", &alice, "--yes"]);
        world.json(&["key", "rotate", "tag"]);
        for (id, key) in (1..).zip(&keys) {
            assert!(world.complaint(&["key", "enable", &format!("key-{id}")]).contains("keystile"));
            assert_eq!(text(&world.json(&["key", "show", &format!("key-{id}")])["standing"]), "revoked");
            assert_eq!(seen(&world, key, &alice).await.1, Standing::Revoked);
        }
        // Not even when the watermark is forgotten.
        let mut write = world.store().await.write().await.unwrap();
        watermarks::collect(&mut write, NEVER).await.unwrap();
        write.commit().await.unwrap();
        for id in 1..=5 {
            assert!(world.complaint(&["key", "enable", &format!("key-{id}")]).contains("is not disabled"));
        }
    }

    /// Watermarks are forgotten after two days; a key lives on, and may have a name that its owner's watermark misses.
    async fn what_befalls_the_owner_befalls_the_key(world: World) {
        let alice = format!("{}/alice", world.operator);
        let own = text(&create(&world, &["--user", &alice])["api_key"]);
        let named = text(&create(&world, &["--user", &alice, "--username", "al"])["api_key"]);
        let bobs = text(&create(&world, &["--user", &format!("{}/bob", world.operator)])["api_key"]);
        world.json(&["key", "disable", "key-2", "--yes"]);
        world.json(&["revoke", "--subject", &alice, "--yes"]);
        assert_eq!(seen(&world, &own, &alice).await.1, Standing::Revoked);
        assert_eq!(seen(&world, &named, "al").await.1, Standing::Revoked);
        assert_eq!(seen(&world, &bobs, "").await.1, Standing::NotCovered);
        assert!(world.complaint(&["key", "enable", "key-2"]).contains("up to which all of its owner is refused"));
        assert_eq!(text(&world.json(&["key", "show", "key-2"])["standing"]), "revoked");
        let later = create(&world, &["--user", &alice]);
        let opened = seen(&world, &text(&later["api_key"]), &alice).await;
        assert_eq!(opened.1, Standing::NotCovered);
        let publication = publisher::preview(&world.service().await).await.unwrap();
        let watermark = publication.snapshot.watermark([bundle::Scope::User(&alice)]).unwrap();
        assert!(opened.0.unwrap().issued_at() > watermark);
        world.json(&["user", "delete", &alice, "--yes"]);
        assert_eq!(seen(&world, &text(&later["api_key"]), &alice).await.1, Standing::Revoked);
        assert_eq!(world.json(&["key", "list"]).as_array().unwrap().len(), 1);
    }

    async fn a_rotated_key_inherits_its_end_and_the_old_one_does_not_outlive_its_own(world: World) {
        let user = ["--user", &world.operator, "--username", "al", "--name", "ci", "--metadata", r#"{"a":1}"#];
        let first = create(&world, &[&user[..], &["--expires", "1h"]].concat());
        let second = world.json(&["key", "rotate", "key-1", "--grace", "30d"]);
        for member in ["owner", "username", "prefix", "name", "metadata", "expires_at"] {
            assert_eq!(first[member], second[member], "{member}");
        }
        assert_ne!(first["api_key"], second["api_key"]);
        assert_eq!(world.json(&["key", "show", "key-1"])["expires_at"], first["expires_at"]);
        let third = world.json(&["key", "rotate", "key-2", "--grace", "1m"]);
        let end = world.json(&["key", "show", "key-2"])["expires_at"].as_u64().unwrap();
        assert!(end < second["expires_at"].as_u64().unwrap());
        assert_eq!(third["expires_at"], first["expires_at"]);
        assert!(world.complaint(&["key", "rotate", "key-3", "--grace", "0"]).contains("add --yes"));
        world.json(&["key", "rotate", "key-3", "--grace", "0", "--yes"]);
        assert_eq!(seen(&world, &text(&third["api_key"]), "al").await.1, Standing::Revoked);
        assert_eq!(seen(&world, &text(&second["api_key"]), "al").await.1, Standing::NotCovered);
        assert!(world.complaint(&["key", "rotate", "key-3"]).contains("is not active"));
    }

    async fn a_key_ends_by_itself(world: World) {
        let forever = text(&create(&world, &["--user", &world.operator])["api_key"]);
        let key = text(&create(&world, &["--user", &world.operator, "--expires", "1s"])["api_key"]);
        let _server = world.serve();
        eventually("the end of the key", async || {
            (seen(&world, &key, &world.operator).await.1 == Standing::Revoked).then_some(())
        })
        .await;
        assert_eq!(text(&world.json(&["key", "show", "key-2"])["standing"]), "expired");
        assert_eq!(seen(&world, &forever, &world.operator).await.1, Standing::NotCovered);
        assert!(world.complaint(&["key", "enable", "key-2"]).contains("has expired"));
        let lines = world.json(&["audit", "--limit", "1"]);
        assert_eq!([&lines[0]["actor"], &lines[0]["action"], &lines[0]["target"]].map(text), ["system", "api_key.expire", "key-2"]);
    }

    async fn generations_of_tags_follow_each_other(world: World) {
        let old = text(&create(&world, &["--user", &world.operator])["api_key"]);
        assert_eq!(world.json(&["key", "rotate", "tag"])["generation"], 2);
        let new = create(&world, &["--user", &world.operator]);
        assert_eq!(new["tag_generation"], 2);
        for key in [&old, &text(&new["api_key"])] {
            let (opened, standing) = seen(&world, key, &world.operator).await;
            assert!(opened.is_ok());
            assert_eq!(standing, Standing::NotCovered);
        }
    }
}

#[tokio::test]
async fn mistakes_about_keys_are_named() {
    let world = World::on_sqlite().await;
    for (arguments, expected) in [
        (vec!["key", "create", "--user", "OP0000000000"], "there is no such operator"),
        (
            vec!["key", "create", "--user", &world.operator, "--username", "OP0000000000/alice"],
            "must be the owner",
        ),
        (vec!["key", "create", "--user", &world.operator, "--username", "a b"], "visible ASCII"),
        (vec!["key", "create", "--user", &world.operator, "--name", &"x".repeat(201)], "at most 200 bytes"),
        (vec!["key", "show", "key-1"], "there is no API key `key-1`"),
        (vec!["key", "delete", "key-1"], "add --yes"),
        (vec!["key", "disable", "key-1"], "add --yes"),
    ] {
        let complaint = world.complaint(&arguments);
        assert!(complaint.contains(expected), "{arguments:?}: {complaint}");
    }
    for arguments in [
        vec!["key", "create"],
        vec!["key", "create", "--user", "OP1"],
        vec!["key", "create", "--user", &world.operator, "--metadata", "[]"],
        vec!["key", "create", "--user", &world.operator, "--prefix", "KS"],
        vec!["key", "show", "1"],
        vec!["key", "rotate", "publisher"],
    ] {
        assert_eq!(world.run(&arguments).status.code(), Some(2), "{arguments:?}");
    }
}

fn create(world: &World, arguments: &[&str]) -> Value {
    world.json(&[&["key", "create"], arguments].concat())
}

/// What an edge with the bundle of this moment makes of a key.
async fn seen(
    world: &World,
    key: &str,
    username: &str,
) -> (Result<Authentic, token::api_key::Error>, Standing) {
    let publication = publisher::preview(&world.service().await).await.unwrap();
    let prefixes: [Prefix; 2] = [Prefix::default(), "sk_live_".parse().unwrap()];
    let unverified = Unverified::parse(key.as_bytes(), &prefixes).unwrap();
    let tag = publication.snapshot.tag_key(unverified.generation()).expect("the tag key is in the bundle");
    (
        unverified.verify(tag, username),
        publication.snapshot.standing(&Fingerprint::of(key.as_bytes()), "tag-1", 0, None),
    )
}
