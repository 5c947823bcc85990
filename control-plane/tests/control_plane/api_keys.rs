//! API keys: issued, listed, disabled, rotated, ended; and what edges are told of each.

use bundle::RevocationStatus;
use control_plane::{
    clock::{self, Time},
    home::Home,
    keys,
    model::{ApiKey, ApiKeyState, Issuance, Subject, Username},
    publisher,
    store::{NEVER, api_keys, issued, key_set, operators, tag_keys, versions, watermarks},
};
use serde_json::{Value, json};
use token::{
    Fingerprint,
    api_key::{ApiKeyFields, Authentic, Kind, Prefix, Unverified},
};

use crate::{
    on_both, postgres,
    restored::copy_database,
    world::{World, eventually, text},
};

on_both! {
    async fn a_key_opens_with_what_edges_are_told(world: World) {
        let alice = format!("{}/alice", world.operator);
        let before = clock::now().millis();
        let made = create(&world, &["--user", &alice, "--name", "ci", "--metadata", r#"{"team":"a"}"#]);
        let key = text(&made["api_key"]);
        assert!(key.starts_with("ks_live_") && key.len() == 137, "{}", key.len());
        let (opened, standing) = seen(&world, &key, &alice).await;
        let opened = opened.unwrap();
        let holder = opened.holder().unwrap();
        assert_eq!((opened.kind(), holder.operator(), holder.subject()), (Kind::Signed, &*world.operator, &*alice));
        assert!((before..=clock::now().millis()).contains(&opened.number()), "a number is a time");
        assert_eq!((text(&made["key_id"]), text(&made["fingerprint"])), (format!("key-{}", opened.number()), Fingerprint::digest(key.as_bytes()).to_string()));
        assert_eq!((text(&made["format"]), text(&made["subject"])), ("2".to_owned(), alice.clone()));
        assert_eq!(standing, RevocationStatus::NotCovered);
        // For nobody else.
        for other in ["", &world.operator, "alice", "bob"] {
            assert!(seen(&world, &key, other).await.0.is_err());
        }
        let other = create(&world, &["--user", &world.operator, "--username", "alice@example.com", "--prefix", "sk_live_"]);
        let opened = seen(&world, &text(&other["api_key"]), "alice@example.com").await.0.unwrap();
        assert_eq!(opened.holder().unwrap().subject(), format!("{}/alice@example.com", world.operator));
        let bare = create(&world, &["--user", &alice, "--username", "alice"]);
        assert_eq!(seen(&world, &text(&bare["api_key"]), "alice").await.0.unwrap().holder().unwrap().subject(), alice);

        let listed = world.json(&["key", "list"]);
        let row = |at: usize| [&listed[at]["key_id"], &listed[at]["owner"], &listed[at]["username"], &listed[at]["standing"], &listed[at]["format"]].map(text);
        assert_eq!(row(0), [&text(&made["key_id"]), &alice, &alice, "active", "2"]);
        assert_eq!(row(1), [&text(&other["key_id"]), &world.operator, "alice@example.com", "active", "2"]);
        assert_eq!(row(2), [&text(&bare["key_id"]), &alice, "alice", "active", "2"]);
        assert_eq!(listed[0]["metadata"], json!({ "team": "a" }));
        assert_eq!(world.json(&["key", "list", "--of", &alice]).as_array().unwrap().len(), 2);
        let shown = world.run(&["key", "show", &text(&made["key_id"])]);
        assert!(!String::from_utf8_lossy(&shown.stdout).contains(&key));
        for line in world.json(&["audit"]).as_array().unwrap() {
            assert!(!line.to_string().contains(&key[8..]));
        }
    }

    async fn a_key_is_refused_and_good_again(world: World) {
        let (id, key) = made(&create(&world, &["--user", &world.operator]));
        let standing = async || (seen(&world, &key, &world.operator).await.1, text(&world.json(&["key", "show", &id])["standing"]));
        assert_eq!(standing().await, (RevocationStatus::NotCovered, "active".to_owned()));
        world.json(&["key", "disable", &id, "--yes"]);
        assert_eq!(standing().await, (RevocationStatus::Revoked, "disabled".to_owned()));
        assert!(world.complaint(&["key", "disable", &id, "--yes"]).contains("is not active"));
        world.json(&["key", "enable", &id]);
        assert_eq!(standing().await, (RevocationStatus::NotCovered, "active".to_owned()));
        // What was revoked otherwise is not enabled.
        world.json(&["revoke", "--token", &key]);
        assert_eq!(standing().await, (RevocationStatus::Revoked, "revoked".to_owned()));
        assert!(world.complaint(&["key", "enable", &id]).contains("is not disabled"));
        world.json(&["key", "delete", &id, "--yes"]);
        assert_eq!(seen(&world, &key, &world.operator).await.1, RevocationStatus::Revoked);
        assert!(world.complaint(&["key", "show", &id]).contains(&format!("unknown API key `{id}`")));
        let other = text(&create(&world, &["--user", &world.operator])["key_id"]);
        assert_ne!(other, id);
        world.json(&["revoke", "--key-id", &other]);
        assert_eq!(text(&world.json(&["key", "show", &other])["standing"]), "revoked");
    }

    /// Whoever revokes a disabled key, or disables a revoked one, need not fear that enabling it undoes that.
    async fn a_revocation_outlives_disabling_and_enabling(world: World) {
        let alice = format!("{}/alice", world.operator);
        let keys: Vec<(String, String)> = (0..5).map(|_| made(&create(&world, &["--user", &alice]))).collect();
        for (id, _) in &keys[..3] {
            world.json(&["key", "disable", id, "--yes"]);
        }
        let before = world.json(&["audit"]).as_array().unwrap().len();
        world.json(&["revoke", "--key-id", &keys[0].0, "--reason", "leaked"]);
        world.json(&["revoke", "--token", &keys[1].1]);
        world.json(&["revoke", "--key-id", &keys[3].0]);
        assert_eq!(world.json(&["audit"]).as_array().unwrap().len(), before + 3);
        assert!(world.complaint(&["key", "disable", &keys[3].0, "--yes"]).contains("is not active"));
        world.json(&["revoke", "--subject", &alice, "--yes"]);
        world.json(&["key", "rotate", "tag"]);
        for (id, key) in &keys {
            assert!(world.complaint(&["key", "enable", id]).contains("keystile"));
            assert_eq!(text(&world.json(&["key", "show", id])["standing"]), "revoked");
            assert_eq!(seen(&world, key, &alice).await.1, RevocationStatus::Revoked);
        }
        // Not even should the watermark have been lower.
        let subject: Subject = alice.parse().unwrap();
        let mut write = world.store().await.write().await.unwrap();
        watermarks::lower(&mut write, &subject.into(), 0, 1).await.unwrap();
        write.commit().await.unwrap();
        for (id, _) in &keys {
            assert!(world.complaint(&["key", "enable", id]).contains("is not disabled"));
        }
    }

    /// A watermark may be forgotten; a key lives on, and of format 1 may have a name that its owner's watermark misses.
    async fn what_befalls_the_owner_befalls_the_key(world: World) {
        let alice = format!("{}/alice", world.operator);
        let (_, own) = made(&create(&world, &["--user", &alice]));
        let (id, named) = made(&create(&world, &["--user", &alice, "--username", "alice"]));
        let foreign = old_key(&world, &alice, "al").await;
        let (_, bobs) = made(&create(&world, &["--user", &format!("{}/bob", world.operator)]));
        world.json(&["key", "disable", &id, "--yes"]);
        world.json(&["revoke", "--subject", &alice, "--yes"]);
        for key in [&own, &named, &foreign.1] {
            assert_eq!(seen(&world, key, "").await.1, RevocationStatus::Revoked);
        }
        assert_eq!(seen(&world, &bobs, "").await.1, RevocationStatus::NotCovered);
        assert!(world.complaint(&["key", "enable", &id]).contains("was revoked with everything that was issued to its owner"));
        assert_eq!(text(&world.json(&["key", "show", &id])["standing"]), "revoked");
        let later = create(&world, &["--user", &alice]);
        let opened = seen(&world, &text(&later["api_key"]), &alice).await;
        assert_eq!(opened.1, RevocationStatus::NotCovered);
        let publication = publisher::preview(&world.service().await).await.unwrap();
        let watermark = publication.snapshot.watermark([bundle::Scope::User(&alice)]).unwrap();
        assert!(opened.0.unwrap().issued_at() > watermark);
        world.json(&["user", "delete", &alice, "--yes"]);
        assert_eq!(seen(&world, &text(&later["api_key"]), &alice).await.1, RevocationStatus::Revoked);
        assert_eq!(world.json(&["key", "list"]).as_array().unwrap().len(), 1);
    }

    async fn a_rotated_key_inherits_its_end_and_the_old_one_does_not_outlive_its_own(world: World) {
        let user = ["--user", &world.operator, "--username", "al", "--name", "ci", "--metadata", r#"{"a":1}"#];
        let first = create(&world, &[&user[..], &["--expires", "1h"]].concat());
        let rotate = |key: &Value, more: &[&str]| world.json(&[&["key", "rotate", &text(&key["key_id"])], more].concat());
        let second = rotate(&first, &["--grace", "30d"]);
        for member in ["owner", "username", "subject", "prefix", "name", "metadata", "expires_at"] {
            assert_eq!(first[member], second[member], "{member}");
        }
        assert_ne!(first["api_key"], second["api_key"]);
        let shown = |key: &Value| world.json(&["key", "show", &text(&key["key_id"])]);
        assert_eq!(shown(&first)["expires_at"], first["expires_at"]);
        let third = rotate(&second, &["--grace", "1m"]);
        let end = shown(&second)["expires_at"].as_u64().unwrap();
        assert!(end < second["expires_at"].as_u64().unwrap());
        assert_eq!(third["expires_at"], first["expires_at"]);
        // What it says of its end is what it was made with; edges are told of the nearer one.
        let opened = seen(&world, &text(&second["api_key"]), "al").await.0.unwrap();
        assert_eq!(opened.expires_at(), second["expires_at"].as_u64());
        let id = text(&third["key_id"]);
        assert!(world.complaint(&["key", "rotate", &id, "--grace", "0"]).contains("add --yes"));
        world.json(&["key", "rotate", &id, "--grace", "0", "--yes"]);
        assert_eq!(seen(&world, &text(&third["api_key"]), "al").await.1, RevocationStatus::Revoked);
        assert_eq!(seen(&world, &text(&second["api_key"]), "al").await.1, RevocationStatus::NotCovered);
        assert!(world.complaint(&["key", "rotate", &id]).contains("is not active"));
    }

    /// Published when it comes, and known to the key itself.
    async fn a_key_ends_by_itself(world: World) {
        let forever = text(&create(&world, &["--user", &world.operator])["api_key"]);
        let created = create(&world, &["--user", &world.operator, "--expires", "1s"]);
        let (id, key) = made(&created);
        let opened = seen(&world, &key, &world.operator).await.0.unwrap();
        assert_eq!(opened.expires_at(), created["expires_at"].as_u64());
        let _server = world.serve();
        eventually("the end of the key", async || {
            (seen(&world, &key, &world.operator).await.1 == RevocationStatus::Revoked).then_some(())
        })
        .await;
        assert_eq!(text(&world.json(&["key", "show", &id])["standing"]), "expired");
        let (opened, standing) = seen(&world, &forever, &world.operator).await;
        assert_eq!((opened.unwrap().expires_at(), standing), (None, RevocationStatus::NotCovered));
        assert!(world.complaint(&["key", "enable", &id]).contains("has expired"));
        let lines = world.json(&["audit", "--limit", "1"]);
        assert_eq!([&lines[0]["actor"], &lines[0]["action"], &lines[0]["target"]].map(text), ["system", "api_key.expire", &id]);
    }

    async fn generations_of_keys_follow_each_other(world: World) {
        let alice = format!("{}/alice", world.operator);
        let mut good = vec![text(&create(&world, &["--user", &alice])["api_key"])];
        for (at, more, format) in [(2, &[][..], "2"), (3, &["--short"], "short"), (4, &[], "2")] {
            let rotated = world.json(&[&["key", "rotate", "tag"], more].concat());
            assert_eq!([&rotated["generation"], &rotated["format"]], [&json!(at), &json!(format)]);
            let new = create(&world, &["--user", &alice]);
            assert_eq!([&new["tag_generation"], &new["format"]], [&json!(at), &json!(format)]);
            good.push(text(&new["api_key"]));
        }
        assert_eq!(good.iter().map(String::len).collect::<Vec<_>>(), [137, 137, 72, 137]);
        for key in &good {
            let (opened, standing) = seen(&world, key, &alice).await;
            assert!(opened.is_ok());
            assert_eq!(standing, RevocationStatus::NotCovered);
        }
    }

    /// A database of an earlier release: what was made with it stays good, and nothing more is made with it.
    async fn format_1_stays_good_until_it_is_rotated(world: World) {
        let alice = format!("{}/alice", world.operator);
        let (id, old) = old_key(&world, &alice, &alice).await;
        let (foreign, al) = old_key(&world, &alice, "al").await;
        let (nobodys, nobody) = old_key(&world, &world.operator, "").await;
        for (key, username) in [(&old, &*alice), (&al, "al"), (&nobody, "")] {
            let (opened, standing) = seen(&world, key, username).await;
            assert_eq!((opened.unwrap().kind(), standing), (Kind::Format1, RevocationStatus::NotCovered));
        }
        assert_eq!(world.json(&["key", "show", &nobodys])["subject"], *nobodys);
        let doctor = || doctor_on_keys(&world.json(&["doctor"]));
        let told = doctor();
        assert_eq!(told["state"], "note");
        assert!(text(&told["detail"]).starts_with("0 of format 2, 0 of the short form, 3 of format 1"), "{told}");
        assert!(text(&told["advice"]).contains("`keystile key retire` for tag-1"), "{told}");
        // Without anybody's doing.
        let new = create(&world, &["--user", &alice]);
        assert_eq!([&new["format"], &new["tag_generation"]], [&json!("2"), &json!(2)]);
        assert_eq!(seen(&world, &old, &alice).await.1, RevocationStatus::NotCovered);
        let replaced = world.json(&["key", "rotate", &id, "--grace", "0", "--yes"]);
        assert_eq!([&replaced["format"], &replaced["username"], &replaced["subject"]], [&json!("2"), &json!(alice), &json!(alice)]);
        assert_eq!(seen(&world, &old, &alice).await.1, RevocationStatus::Revoked);
        // What would mean something else in format 2 is asked for; the one without a username would become the root's.
        for id in [&foreign, &nobodys] {
            let complaint = world.complaint(&["key", "rotate", id]);
            assert!(complaint.contains("--username NAME"), "{complaint}");
            assert_eq!(world.json(&["key", "show", id])["standing"], "active");
        }
        let replaced = world.json(&["key", "rotate", &foreign, "--username", "alice", "--grace", "0", "--yes"]);
        assert_eq!([&replaced["username"], &replaced["subject"]], [&json!("alice"), &json!(alice)]);
        let replaced = world.json(&["key", "rotate", &nobodys, "--username", "robot", "--grace", "0", "--yes"]);
        assert_eq!(replaced["subject"], format!("{}/robot", world.operator));
        let told = doctor();
        assert!(text(&told["detail"]).starts_with("4 of format 2, 0 of the short form, 0 of format 1"), "{told}");
        // Edges could still make them.
        assert_eq!(told["state"], "note");
        world.json(&["key", "retire", "tag-1", "--yes"]);
        assert_eq!(doctor()["state"], "good");
        let publication = publisher::preview(&world.service().await).await.unwrap();
        assert!(publication.snapshot.generation_key(1).is_none());
    }

    /// The short form has no root users: whoever steals an edge can make its keys.
    async fn no_root_user_has_a_key_of_the_short_form(world: World) {
        world.json(&["key", "rotate", "tag", "--short"]);
        for username in [&[][..], &["--username", ""], &["--username", &world.operator]] {
            let complaint = world.complaint(&[&["key", "create", "--user", &world.operator], username].concat());
            assert!(complaint.contains("the root user cannot have one"), "{complaint}");
        }
        let made = create(&world, &["--user", &world.operator, "--username", "robot"]);
        assert_eq!([&made["format"], &made["subject"]], [&json!("short"), &json!(format!("{}/robot", world.operator))]);
        let told = doctor_on_keys(&world.json(&["doctor"]));
        assert!(text(&told["detail"]).contains("1 of the short form"), "{told}");
        assert_eq!(told["state"], "note");
        world.json(&["key", "rotate", "tag"]);
        create(&world, &["--user", &world.operator]);
    }

    /// A username inside the operator is one subject: no key acts as a user that it is not made for, before or after.
    async fn no_username_makes_a_key_another_users(world: World) {
        let user = |name: &str| format!("{}/{name}", world.operator);
        world.json(&["user", "create", &user("bob")]);
        let refused = |owner: &str, username: &str, why: &str| {
            let complaint = world.complaint(&["key", "create", "--user", owner, "--username", username]);
            assert!(complaint.contains(why), "{owner} {username}: {complaint}");
        };
        refused(&world.operator, "bob", "to create a key of that user");
        for username in ["bob", "al", "alice@example.com", "", &world.operator] {
            refused(&user("alice"), username, "stands for this user");
        }
        refused(&world.operator, &user("bob"), "must be the owner");
        for username in ["OP0000000000", "OP0000000000/bob", "alice/bob", "a#b", "root", "a,b"] {
            refused(&world.operator, username, "a username is the owner of the key");
        }
        // The name is the key's: who is called so later would find it acting for him.
        let (id, _) = made(&create(&world, &["--user", &world.operator, "--username", "carol"]));
        for command in [
            vec!["user", "create", &user("carol")],
            vec!["authkey", "create", "--operator", &world.operator, "--user", "carol"],
            vec!["key", "create", "--user", &user("carol")],
        ] {
            let complaint = world.complaint(&command);
            assert!(complaint.contains(&format!("`{id}` already has the username")), "{command:?}: {complaint}");
        }
        world.json(&["key", "disable", &id, "--yes"]);
        assert!(world.complaint(&["user", "create", &user("carol")]).contains("already has the username"), "it may be enabled again");
        world.json(&["key", "delete", &id, "--yes"]);
        world.json(&["user", "create", &user("carol")]);
        // And a name that was deleted with all it had is issued nothing from before.
        world.json(&["user", "delete", &user("carol"), "--yes"]);
        let again = create(&world, &["--user", &world.operator, "--username", "carol"]);
        let publication = publisher::preview(&world.service().await).await.unwrap();
        let watermark = publication.snapshot.watermark([bundle::Scope::User(&user("carol"))]).unwrap();
        assert!(again["issued_at"].as_u64().unwrap() > watermark);
    }

    /// A database that is restored from a backup has forgotten what was given since. Time, key files and chance have not.
    async fn nothing_is_given_twice_after_a_restored_backup(world: World) {
        let alice = format!("{}/alice", world.operator);
        create(&world, &["--user", &alice]);
        let before = Backup::of(&world);
        let lost: Vec<Value> = (0..3).map(|_| create(&world, &["--user", &alice])).collect();
        world.json(&["key", "rotate", "tag"]);
        world.json(&["key", "rotate", "tag", "--short"]);
        let last = create(&world, &["--user", &alice]);
        assert_eq!(last["tag_generation"], 3);
        before.restore(&world);
        // A server merges the journal; before that nothing is changed.
        drop(world.serve());
        // None of the lost ones comes in again by its generation's number: other keys have those.
        let again: Vec<Value> = (0..3).map(|_| create(&world, &["--user", &alice])).collect();
        for (key, lost) in again.iter().flat_map(|key| lost.iter().chain([&last]).map(move |lost| (key, lost))) {
            assert_ne!(key["key_id"], lost["key_id"]);
            assert_ne!(key["api_key"], lost["api_key"]);
        }
        let next = world.json(&["key", "rotate", "tag"]);
        assert_eq!(next["generation"], 4, "what tag-2 and tag-3 made is about");
        assert!(unopened(&world, &text(&last["api_key"])).await);
    }
}

/// Two servers, each with a folder of its own: what edges need stands in the database, what makes keys does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_without_the_key_file_publishes_and_makes_none() {
    for world in [World::on_sqlite().await, World::on_postgres().await] {
        let alice = format!("{}/alice", world.operator);
        let key = text(&create(&world, &["--user", &alice])["api_key"]);
        let file = world.data().join("keys/tag-1.jwk");
        let away = world.data().join("away");
        std::fs::rename(&file, &away).unwrap();
        let (opened, standing) = seen(&world, &key, &alice).await;
        assert_eq!((opened.unwrap().kind(), standing), (Kind::Signed, RevocationStatus::NotCovered));
        let complaint = world.complaint(&["key", "create", "--user", &alice]);
        assert!(complaint.contains("the key file of tag-1"), "{complaint}");
        assert!(complaint.contains("`keystile key rotate tag`"), "{complaint}");
        let told = doctor_on_keys(&world.json(&["doctor"]));
        assert!(text(&told["detail"]).contains("is missing here"), "{told}");
        // Another key under its name is not taken for it.
        let stranger = keys::create_generation(&Home::new(world.data()), 1, Kind::Signed).unwrap();
        assert!(stranger.public.is_some());
        assert!(
            world.complaint(&["key", "create", "--user", &alice]).contains("is not the one in the database")
        );
        std::fs::rename(&away, &file).unwrap();
        create(&world, &["--user", &alice]);
        assert_eq!(mode(&file), 0o600);
    }
}

/// Where a secret is not here its keys are refused, and revocations are published all the same.
#[tokio::test]
async fn a_secret_that_is_not_here_keeps_no_revocation_back() {
    let world = World::on_sqlite().await;
    let alice = format!("{}/alice", world.operator);
    world.json(&["key", "rotate", "tag", "--short"]);
    let short = text(&create(&world, &["--user", &alice])["api_key"]);
    std::fs::rename(world.data().join("keys/tag-1.jwk"), world.data().join("away")).unwrap();
    let victim = Fingerprint::digest(world.token().as_bytes());
    world.json(&["revoke", "--fingerprint", &victim.to_string()]);
    let publication = publisher::preview(&world.service().await).await.unwrap();
    assert_eq!(publication.snapshot.revocation_status(&victim, "ks", 0, None), RevocationStatus::Revoked);
    assert!(publication.snapshot.generation_key(1).is_none());
    assert!(unopened(&world, &short).await);
}

#[tokio::test]
async fn mistakes_about_keys_are_named() {
    let world = World::on_sqlite().await;
    for (arguments, expected) in [
        (vec!["key", "create", "--user", "OP0000000000"], "there is no such operator"),
        (
            vec!["key", "create", "--user", &world.operator, "--username", "OP0000000000/alice"],
            "a username is the owner of the key",
        ),
        (
            vec!["key", "create", "--user", &world.operator, "--username", "a b"],
            "a username is the owner of the key",
        ),
        (vec!["key", "create", "--user", &world.operator, "--name", &"x".repeat(201)], "at most 200 bytes"),
        (vec!["key", "show", "key-1"], "unknown API key `key-1`"),
        (vec!["key", "delete", "key-1"], "add --yes"),
        (vec!["key", "disable", "key-1"], "add --yes"),
        (vec!["key", "rotate", "key-1", "--short"], "--short is for `keystile key rotate tag`"),
        (
            vec!["key", "rotate", "tag", "--username", "a"],
            "--username is for `keystile key rotate key-NUMBER`",
        ),
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

/// Id and key.
fn made(created: &Value) -> (String, String) {
    (text(&created["key_id"]), text(&created["api_key"]))
}

/// An API key as an earlier release made it, which the present one does no more. Id and key.
async fn old_key(world: &World, owner: &str, username: &str) -> (String, String) {
    let home = Home::new(world.data());
    let store = world.store().await;
    let mut write = store.write().await.unwrap();
    let version = versions::allocate(&mut write, clock::now()).await.unwrap();
    let generation = match tag_keys::list(&mut write).await.unwrap().first() {
        Some(generation) => *generation,
        None => {
            let generation = keys::create_generation(&home, 1, Kind::Format1).unwrap();
            tag_keys::insert(&mut write, &generation, 1).await.unwrap();
            key_set::changed(&mut write, version).await.unwrap();
            generation
        }
    };
    let owner: Subject = owner.parse().unwrap();
    if let Some(user) = &owner.user {
        operators::insert_user(&mut write, &owner.operator, user, 1).await.unwrap();
    }
    // They were counted.
    let id = api_keys::next_number(&mut write, Time::from_millis(0)).await.unwrap();
    let (issued_at, prefix) = (clock::now().seconds(), Prefix::default());
    let contents = ApiKeyFields {
        prefix: &prefix,
        operator: owner.operator.as_str(),
        number: id.0,
        issued_at,
        expires_at: None,
        random: [0; 4],
        username,
    };
    let key = keys::open_generation(&home, &generation).unwrap().mint(&contents).unwrap();
    let fingerprint = Fingerprint::digest(key.expose().as_bytes());
    let issuance = Issuance {
        fingerprint,
        kid: generation.kid(),
        subject: owner.clone(),
        auth_key: None,
        session: None,
        issued_at,
        expires_at: NEVER,
    };
    assert_eq!(issued::insert(&mut write, &issuance).await.unwrap(), issued::Inserted::Yes);
    let record = ApiKey {
        id,
        fingerprint,
        generation: generation.number,
        kind: generation.kind,
        owner,
        username: Username::stored(username.to_owned()),
        prefix,
        name: None,
        metadata: None,
        state: ApiKeyState::Active,
        issued_at,
        ends_at: None,
        expires_at: None,
        last_used_at: None,
    };
    api_keys::insert(&mut write, &record).await.unwrap();
    write.commit().await.unwrap();
    store.close().await;
    (id.to_string(), key.expose().to_owned())
}

/// Of the database alone, as a backup of it is; while no server runs.
enum Backup {
    Files(tempfile::TempDir),
    /// What has to go again.
    Rows,
}

impl Backup {
    fn of(world: &World) -> Self {
        if world.url.starts_with("postgres") {
            return Self::Rows;
        }
        let folder = tempfile::tempdir().unwrap();
        copy_database(&world.data(), folder.path());
        Self::Files(folder)
    }

    fn restore(self, world: &World) {
        match self {
            Self::Files(folder) => copy_database(folder.path(), &world.data()),
            Self::Rows => {
                let since = "number > (SELECT MIN(number) FROM api_keys)";
                let issued = format!(
                    "DELETE FROM issued WHERE fingerprint IN (SELECT fingerprint FROM api_keys WHERE {since})"
                );
                for statement in [
                    &issued,
                    &format!("DELETE FROM api_keys WHERE {since}"),
                    "DELETE FROM tag_keys WHERE generation > 1",
                    "UPDATE api_key_numbers SET last = (SELECT MIN(number) FROM api_keys)",
                ] {
                    postgres::execute(&world.url, statement);
                }
            }
        }
    }
}

/// What the doctor says of API keys.
fn doctor_on_keys(findings: &Value) -> Value {
    findings.as_array().unwrap().iter().find(|finding| finding["what"] == "API keys").unwrap().clone()
}

fn mode(file: &std::path::Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(file).unwrap().permissions().mode() & 0o777
}

/// What an edge with the bundle of this moment makes of a key.
async fn seen(
    world: &World,
    key: &str,
    username: &str,
) -> (Result<Authentic, token::api_key::Error>, RevocationStatus) {
    let publication = publisher::preview(&world.service().await).await.unwrap();
    let prefixes: [Prefix; 2] = [Prefix::default(), "sk_live_".parse().unwrap()];
    let unverified = Unverified::parse(key.as_bytes(), &prefixes).unwrap();
    let generation = publication.snapshot.generation_key(unverified.generation());
    (
        unverified.verify(generation.expect("the generation is in the bundle"), username),
        publication.snapshot.revocation_status(&Fingerprint::digest(key.as_bytes()), "tag-1", 0, None),
    )
}

/// Whether the bundle of this moment has no key that opens it for anybody.
async fn unopened(world: &World, key: &str) -> bool {
    let publication = publisher::preview(&world.service().await).await.unwrap();
    let prefixes = [Prefix::default()];
    let unverified = Unverified::parse(key.as_bytes(), &prefixes).unwrap();
    let alice = format!("{}/alice", world.operator);
    let generation = publication.snapshot.generation_key(unverified.generation());
    generation.is_none_or(|generation| unverified.verify(generation, &alice).is_err())
}
