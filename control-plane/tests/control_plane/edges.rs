//! What edges fetch, when they are answered, and with what.

use std::time::{Duration, Instant};

use bundle::{Entry, Manifest, Object, ObjectKind, Objects, PublicKey, RevocationStatus, Snapshot};
use control_plane::{
    clock,
    model::Revocation,
    operations::collect,
    store::{revocations, versions},
};
use serde_json::{Value, json};
use token::Fingerprint;
use verdict::{Environment, Policy};

use crate::{
    on_both,
    world::{Server, World, eventually, tag, text, version},
};

on_both! {
    async fn a_manifest_is_answered_at_once_when_there_is_one_that_is_newer(world: World) {
        let credential = world.edge("one");
        let server = world.serve();
        let began = Instant::now();
        let response = server.manifest(&credential, 0, 20).send().await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(2));
        assert_eq!(response.status(), 200);
        let headers = response.headers().clone();
        assert_eq!(headers["content-type"], "application/vnd.keystile.manifest");
        assert_eq!(headers["cache-control"], "no-cache");
        assert_eq!(headers["preference-applied"], "wait=20");
        let key = root_key(&world);
        let manifest = Manifest::open(&response.bytes().await.unwrap(), &[key], "default").unwrap();
        assert_eq!(tag(&headers), format!("\"{}-{}\"", manifest.version(), manifest.issued_at()));
        assert_eq!(manifest.expires_at() - manifest.issued_at(), 60_000);

        // Known and not waited for: not modified. Unknown: again.
        let known = || server.manifest(&credential, manifest.version(), 0);
        let response = known().header("if-none-match", tag(&headers)).send().await.unwrap();
        assert_eq!(response.status(), 304);
        assert_eq!(tag(response.headers()), tag(&headers));
        assert!(response.headers().get("preference-applied").is_none());
        assert_eq!(known().send().await.unwrap().status(), 200);
    }

    async fn a_waiting_edge_is_answered_when_its_time_is_up(world: World) {
        let credential = world.edge("one");
        let server = world.serve();
        let first = server.manifest(&credential, 0, 0).send().await.unwrap();
        let request = server.manifest(&credential, version(first.headers()), 1);
        let began = Instant::now();
        let response = request.header("if-none-match", tag(first.headers())).send().await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(950));
        assert_eq!(response.status(), 304);
    }

    /// However long it would wait: what it holds must not go stale meanwhile.
    async fn an_edge_waits_for_less_than_half_of_a_lifetime(world: World) {
        let mut world = world;
        world.set("KEYSTILE_PUBLISHER__LIFETIME", "3s");
        world.set("KEYSTILE_PUBLISHER__RESIGN", "1s");
        let credential = world.edge("one");
        let server = world.serve();
        let first = server.manifest(&credential, 0, 0).send().await.unwrap();
        let began = Instant::now();
        let response = server.manifest(&credential, version(first.headers()), 20).send().await.unwrap();
        assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
        assert_eq!(response.headers()["preference-applied"], "wait=1");
    }

    async fn a_manifest_signed_anew_is_news(world: World) {
        let mut world = world;
        world.set("KEYSTILE_PUBLISHER__RESIGN", "200ms");
        let credential = world.edge("one");
        let server = world.serve();
        let first = server.manifest(&credential, 0, 0).send().await.unwrap();
        let request = server.manifest(&credential, version(first.headers()), 1);
        let response = request.header("if-none-match", tag(first.headers())).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(version(response.headers()), version(first.headers()));
        assert_ne!(tag(response.headers()), tag(first.headers()));
    }

    async fn a_revocation_wakes_a_waiting_edge(world: World) {
        let credential = world.edge("one");
        let server = world.serve();
        let root = text(&server.exchange(&world.auth_key_id, &world.auth_key).await["token"]);
        for way in ["API", "command"] {
            let victim = world.token();
            let have = version(server.manifest(&credential, 0, 0).send().await.unwrap().headers());
            let waiting = tokio::spawn(server.manifest(&credential, have, 20).send());
            wait_until_it_waits(&server).await;
            if way == "API" {
                assert_eq!(server.revoke(&root, json!({ "token": victim })).await.status(), 200);
            } else {
                world.json(&["revoke", "--token", &victim]);
            }
            let acknowledged = Instant::now();
            let response = waiting.await.unwrap().unwrap();
            assert!(acknowledged.elapsed() < Duration::from_millis(500), "{way}: {:?}", acknowledged.elapsed());
            assert_eq!(response.status(), 200, "{way}");
            assert!(version(response.headers()) > have, "{way}");
            let snapshot = assemble(&world, &server, &response.bytes().await.unwrap()).await;
            assert_eq!(standing(&snapshot, &Fingerprint::digest(victim.as_bytes())), RevocationStatus::Revoked, "{way}");
            assert_eq!(standing(&snapshot, &Fingerprint::digest(root.as_bytes())), RevocationStatus::NotCovered, "{way}");
        }
    }

    async fn an_edge_that_has_more_is_given_nothing_older(world: World) {
        let credential = world.edge("one");
        let server = world.serve();
        let response = server.manifest(&credential, 9_000_000_000_000_000, 1).send().await.unwrap();
        assert_eq!(response.status(), 304);
        assert!(response.headers().get("etag").is_none());
        let complaint = "an edge reports a version above the latest";
        server.manifest(&credential, 9_000_000_000_000_001, 0).send().await.unwrap();
        let log = world.log();
        assert_eq!(log.matches(complaint).count(), 1, "{log}");
        assert!(log.contains("edge.version=9000000000000000"), "{log}");
        let response = server.manifest(&credential, 0, 0).send().await.unwrap();
        let issued_later = tag(response.headers()).replace('-', "-9");
        let have = version(response.headers());
        let request = server.manifest(&credential, have, 0).header("if-none-match", issued_later);
        assert_eq!(request.send().await.unwrap().status(), 304);
    }

    /// However far a thief of the tail key has run the version up.
    async fn a_later_epoch_is_news_whatever_version_an_edge_has(world: World) {
        let credential = world.edge("one");
        let server = world.serve();
        let first = server.manifest(&credential, 0, 0).send().await.unwrap();
        let first = Manifest::open(&first.bytes().await.unwrap(), &[root_key(&world)], "default").unwrap();
        let epoch = first.delegation().epoch();
        let have = u64::MAX;
        let ask = |epoch: u64, wait: u64| {
            let path = format!("/edge/v1/manifest?have={have}&epoch={epoch}");
            let request = server.get(&path).bearer_auth(&credential).header("prefer", format!("wait={wait}"));
            request.header("if-none-match", format!("\"{have}-{have}\"")).send()
        };
        assert_eq!(ask(epoch, 1).await.unwrap().status(), 304);
        let waiting = tokio::spawn(ask(epoch, 20));
        wait_until_it_waits(&server).await;
        world.json(&["authority", "rotate", "tail"]);
        let rotated = Instant::now();
        let response = waiting.await.unwrap().unwrap();
        assert_eq!(response.status(), 200);
        assert!(rotated.elapsed() < Duration::from_secs(2), "{:?}", rotated.elapsed());
        let next = Manifest::open(&response.bytes().await.unwrap(), &[root_key(&world)], "default").unwrap();
        next.check_successor_of(&first).unwrap();
        assert!(next.delegation().epoch() > epoch && next.version() < have);
        assert_eq!(ask(epoch, 0).await.unwrap().status(), 200);
        // Never back.
        let response = ask(next.delegation().epoch() + 1, 0).await.unwrap();
        assert_eq!(response.status(), 304);
        assert!(response.headers().get("etag").is_none());
    }

    async fn only_enrolled_edges_are_answered(world: World) {
        let credential = world.edge("one");
        let server = world.serve();
        let mut wrong = credential.clone();
        wrong.replace_range(12..13, if &wrong[12..13] == "A" { "B" } else { "A" });
        for refused in [wrong.as_str(), "", "ks_edge_", &world.auth_key] {
            let response = server.manifest(refused, 0, 0).send().await.unwrap();
            assert_eq!(response.status(), 401);
            assert!(response.headers().contains_key("www-authenticate"));
            assert_eq!(response.json::<Value>().await.unwrap()["code"], "edge_credential_refused");
        }
        world.json(&["edge", "remove", "one", "--yes"]);
        assert_eq!(server.manifest(&credential, 0, 0).send().await.unwrap().status(), 401);
    }

    /// What has expired by itself leaves the bundle, under a version of its own.
    async fn what_has_expired_is_no_longer_told(world: World) {
        let (expired, living) = (Fingerprint::digest(b"expired"), Fingerprint::digest(b"living"));
        let now = clock::now().seconds();
        let mut write = world.store().await.write().await.unwrap();
        let stored = versions::allocate(&mut write, clock::now()).await.unwrap();
        for (fingerprint, expires_at) in [(expired, now - 90_000), (living, now + 1000)] {
            let one = Revocation { fingerprint, expires_at, reason: None, revoked_at: now };
            revocations::insert(&mut write, &one, stored).await.unwrap();
        }
        write.commit().await.unwrap();
        let credential = world.edge("one");
        let server = world.serve();
        let standings = async |have| {
            let response = server.manifest(&credential, have, 5).send().await.unwrap();
            let have = version(response.headers());
            let snapshot = assemble(&world, &server, &response.bytes().await.unwrap()).await;
            (have, standing(&snapshot, &expired), standing(&snapshot, &living))
        };
        let (number, of_expired, of_living) = standings(0).await;
        assert!(number > stored, "a server begins with a version of its own");
        assert_eq!((of_expired, of_living), (RevocationStatus::Revoked, RevocationStatus::Revoked));
        let service = world.service().await;
        assert_eq!(collect(&service).await.unwrap(), 1);
        let (later, of_expired, of_living) = standings(number).await;
        assert!(later > number);
        assert_eq!((of_expired, of_living), (RevocationStatus::NotCovered, RevocationStatus::Revoked));
        assert_eq!(collect(&service).await.unwrap(), 0);
        assert_eq!(world.json(&["bundle", "show"])["version"], json!(later));
    }

    async fn the_configuration_that_enrolling_prints_is_one_that_the_filter_takes(world: World) {
        let read = |enrolled: &Value, environment: &[u8]| {
            let configuration = enrolled["plugin_configuration"].to_string();
            Policy::from_json_with_env(configuration.as_bytes(), &Environment::from_block(environment.to_vec()))
        };
        let enrolled = world.json(&["edge", "enroll", "one"]);
        let credential = text(&enrolled["credential"]);
        assert!(!enrolled["plugin_configuration"].to_string().contains(&credential));
        let policy = read(&enrolled, b"").unwrap();
        assert_eq!(policy.root_keys, [root_key(&world)]);
        assert!(policy.control_plane.as_ref().unwrap().credential.is_none());
        assert_eq!(enrolled["files"]["credential"], json!(format!("Bearer {credential}\n")));
        assert_eq!(world.json(&["edge", "list"])[0]["last_seen_at"], Value::Null);

        let enrolled = world.json(&["edge", "enroll", "two", "--env", "KEYSTILE_EDGE"]);
        let credential = text(&enrolled["credential"]);
        assert!(!enrolled["plugin_configuration"].to_string().contains(&credential));
        assert!(read(&enrolled, b"").unwrap_err().to_string().contains("`KEYSTILE_EDGE`"));
        let policy = read(&enrolled, text(&enrolled["files"]["credential.env"]).trim().as_bytes()).unwrap();
        assert_eq!(policy.control_plane.as_ref().unwrap().credential.as_ref().unwrap().expose(), credential);

        let enrolled = world.json(&["edge", "enroll", "three", "--inline"]);
        let policy = read(&enrolled, b"").unwrap();
        assert!(policy.has_inline_secrets());
        assert_eq!(policy.control_plane.as_ref().unwrap().credential.as_ref().unwrap().expose(), enrolled["credential"]);
        let shown = String::from_utf8(world.run(&["edge", "enroll", "four"]).stdout).unwrap();
        let (secret, rest) = shown.split_once("# --- sds.yaml").unwrap();
        assert!(secret.contains("Bearer ks_edge_") && !rest.contains("ks_edge_"), "{shown}");
        for (wrong, named) in [
            (vec!["--env", "a b"], "--env"),
            (vec!["--env", &text(&enrolled["credential"])], "--env"),
            (vec!["--env", "A", "--inline"], "--inline"),
            (vec!["--control-plane", "keystile:1"], "expected http"),
            (vec!["--control-plane", "http://a b"], "expected http"),
        ] {
            let output = world.run(&[&["edge", "enroll", "five"], wrong.as_slice()].concat());
            assert!(!output.status.success() && output.stdout.is_empty());
            let told = String::from_utf8(output.stderr).unwrap();
            assert!(told.contains(named), "{told}");
        }
        assert_eq!(world.json(&["edge", "list"]).as_array().unwrap().len(), 4);
    }

    /// Else the server closes a connection in the moment in which Envoy sends a request on it.
    async fn an_enrolled_envoy_closes_idle_connections_before_the_server_does(world: World) {
        let mut world = world;
        let cluster = |world: &World, name: &str, how: &[&str]| {
            text(&world.json(&[&["edge", "enroll", name], how].concat())["files"]["cluster.yaml"])
        };
        for (name, how) in [("one", &[][..]), ("two", &["--env", "KEYSTILE_EDGE"]), ("three", &["--inline"])] {
            let cluster = cluster(&world, name, how);
            assert!(cluster.contains("idle_timeout: 30s }"), "{cluster}");
        }
        world.set("KEYSTILE_SERVER__IDLE_TIMEOUT", "15s");
        assert!(cluster(&world, "four", &[]).contains("idle_timeout: 7.5s }"));
    }

    /// Both servers look into one store.
    async fn an_old_credential_ends_when_the_new_one_is_used(world: World) {
        let old = world.edge("one");
        let (server, other) = (world.serve(), world.serve());
        let rotated = world.json(&["edge", "rotate", "one"]);
        let new = text(&rotated["credential"]);
        let now = clock::now().seconds();
        let ends = rotated["old_ends_at"].as_u64().unwrap();
        assert!((now + 3500..=now + 3600).contains(&ends), "{ends} at {now}");
        for _ in 0..3 {
            assert_eq!((good(&server, &old).await, good(&other, &old).await), (true, true));
        }
        assert_eq!(world.json(&["edge", "list"])[0]["old_credential_ends_at"], json!(ends));
        assert!(good(&server, &new).await);
        for server in [&server, &other] {
            assert_eq!((good(server, &old).await, good(server, &new).await), (false, true));
        }
        assert_eq!(world.json(&["edge", "list"])[0]["old_credential_ends_at"], Value::Null);
        let lines = world.json(&["audit", "--limit", "2"]);
        let action = |at: usize| (text(&lines[at]["action"]), text(&lines[at]["actor"]), text(&lines[at]["target"]));
        let line = |action: &str, actor: &str| (action.to_owned(), actor.to_owned(), "one".to_owned());
        assert_eq!(action(0), line("edge.rotate.done", "system"));
        assert_eq!(action(1), line("edge.rotate", "admin"));
        assert!(!world.json(&["audit"]).to_string().contains("ks_edge_"));
    }

    async fn a_credential_that_was_lost_before_it_was_used_is_rotated_again(world: World) {
        let first = world.edge("one");
        let server = world.serve();
        let rotate = |arguments: &[&str]| text(&world.json(&[&["edge", "rotate", "one"], arguments].concat())["credential"]);
        let lost = rotate(&[]);
        let third = rotate(&[]);
        // What the edge has is still the first one.
        assert!(good(&server, &first).await);
        assert!(good(&server, &third).await);
        assert_eq!((good(&server, &first).await, good(&server, &lost).await), (false, false));

        // Several processes share the next one: each takes it up in its own time.
        let fourth = rotate(&["--shared", "--overlap", "2h"]);
        for credential in [&fourth, &third, &fourth, &third] {
            assert!(good(&server, credential).await);
        }
        // A shorter end stays whatever is said later.
        let until = clock::now().seconds() + 2;
        let fifth = rotate(&["--shared", "--overlap", "2s"]);
        eventually("the end of the overlap", async || (!good(&server, &fourth).await).then_some(())).await;
        assert!(clock::now().seconds() >= until);
        assert_eq!((good(&server, &third).await, good(&server, &fifth).await), (false, true));

        let sixth = rotate(&["--now", "--yes"]);
        assert_eq!((good(&server, &fifth).await, good(&server, &sixth).await), (false, true));
        let seventh = rotate(&[]);
        world.json(&["edge", "remove", "one", "--yes"]);
        for credential in [&fifth, &sixth, &seventh] {
            assert!(!good(&server, credential).await);
        }
        let again = world.edge("one");
        assert_eq!((good(&server, &seventh).await, good(&server, &again).await), (false, true));
        collect(&world.service().await).await.unwrap();
        for (arguments, expected) in [
            (vec!["edge", "rotate", "none"], "there is no such edge"),
            (vec!["edge", "rotate", "one", "--overlap", "31d"], "at most 30 days"),
            (vec!["edge", "rotate", "one", "--now"], "add --yes"),
            (vec!["edge", "rotate", "one", "--overlap", "0s"], "add --yes"),
            (vec!["edge", "rotate", "one", "--out", "/nowhere"], "is not a folder"),
        ] {
            let complaint = world.complaint(&arguments);
            assert!(complaint.contains(expected), "{arguments:?}: {complaint}");
        }
        assert!(good(&server, &again).await);
    }

    async fn objects_are_open_immutable_and_outlive_their_manifest(world: World) {
        let credential = world.edge("one");
        let server = world.serve();
        let response = server.manifest(&credential, 0, 0).send().await.unwrap();
        let before = Manifest::open(&response.bytes().await.unwrap(), &[root_key(&world)], "default").unwrap();
        world.json(&["revoke", "--token", &world.token()]);
        let have = before.version();
        assert_eq!(server.manifest(&credential, have, 5).send().await.unwrap().status(), 200);
        let settled = settled(&server, &before).await;
        for entry in [before.checkpoint()].into_iter().chain(before.tail()).chain(&settled) {
            let path = format!("/edge/v1/objects/{}", Fingerprint::from(*entry.sha256()));
            let response = server.get(&path).send().await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["cache-control"], "public, max-age=31536000, immutable");
            entry.open(response.bytes().await.unwrap().to_vec(), before.delegation()).unwrap();
        }
        for wrong in ["0".repeat(64), "x".to_owned(), "A".repeat(64)] {
            assert_eq!(server.get(&format!("/edge/v1/objects/{wrong}")).send().await.unwrap().status(), 404);
        }
    }

    async fn a_server_that_stops_does_not_wait_for_its_edges(world: World) {
        let credential = world.edge("one");
        let mut server = world.serve();
        let have = version(server.manifest(&credential, 0, 0).send().await.unwrap().headers());
        let waiting = tokio::spawn(server.manifest(&credential, have, 30).send());
        wait_until_it_waits(&server).await;
        let began = Instant::now();
        server.signal("TERM");
        waiting.await.unwrap().unwrap();
        assert!(server.wait().success());
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn symmetric_keys_are_for_edges_only() {
    let world = World::initialized("sqlite:keystile.db".to_owned(), &["--algorithm", "HS256"]);
    let credential = world.edge("one");
    let server = world.serve();
    let response = server.manifest(&credential, 0, 0).send().await.unwrap();
    let manifest = Manifest::open(&response.bytes().await.unwrap(), &[root_key(&world)], "default").unwrap();
    let settled = settled(&server, &manifest).await;
    let entry = settled.iter().find(|entry| entry.kind() == ObjectKind::SecretKeys).unwrap();
    let hash = Fingerprint::from(*entry.sha256());
    assert_eq!(server.get(&format!("/edge/v1/objects/{hash}")).send().await.unwrap().status(), 404);
    let path = format!("/edge/v1/keys?sha256={hash}");
    assert_eq!(server.get(&path).send().await.unwrap().status(), 401);
    let response = server.get(&path).bearer_auth(&credential).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["cache-control"], "no-store");
    entry.open(response.bytes().await.unwrap().to_vec(), manifest.delegation()).unwrap();
    let open = settled.iter().find(|entry| entry.kind() == ObjectKind::Keys).unwrap();
    let path = format!("/edge/v1/keys?sha256={}", Fingerprint::from(*open.sha256()));
    assert_eq!(server.get(&path).bearer_auth(&credential).send().await.unwrap().status(), 404);
}

/// What removing an edge says of what its thief can still do.
#[tokio::test]
async fn removing_an_edge_names_the_keys_that_a_thief_could_use() {
    let world = World::on_sqlite().await;
    world.edge("one");
    let told = String::from_utf8(world.run(&["edge", "remove", "one", "--yes"]).stderr).unwrap();
    assert!(told.contains("It holds no key that can create credentials"), "{told}");
    let world = World::initialized("sqlite:keystile.db".to_owned(), &["--algorithm", "HS256"]);
    world.edge("one");
    world.edge("two");
    let told = String::from_utf8(world.run(&["edge", "remove", "one", "--yes"]).stderr).unwrap();
    let removed = world.json(&["edge", "remove", "two", "--yes"]);
    let kid = text(&removed["symmetric_keys"][0]);
    assert!(told.contains(&format!("keystile key retire {kid} --yes")), "{told}");
    world.json(&["key", "retire", &kid, "--yes"]);
}

/// Whether a server takes the credential of an edge.
async fn good(server: &Server, credential: &str) -> bool {
    let status = server.manifest(credential, 0, 0).send().await.unwrap().status();
    assert!([200, 401].contains(&status.as_u16()), "{status}");
    status == 200
}

pub(crate) async fn wait_until_it_waits(server: &Server) {
    eventually("the waiting edge", async || {
        (server.metric("keystile_waiting_edges").await == Some("1".to_owned())).then_some(())
    })
    .await;
}

pub(crate) fn root_key(world: &World) -> PublicKey {
    let jwk = std::fs::read(world.data().join("keys/root.jwk")).unwrap();
    text(&serde_json::from_slice::<Value>(&jwk).unwrap()["x"]).parse().unwrap()
}

/// What the checkpoint names.
async fn settled(server: &Server, manifest: &Manifest) -> Vec<Entry> {
    let entry = manifest.checkpoint();
    let path = format!("/edge/v1/objects/{}", Fingerprint::from(*entry.sha256()));
    let bytes = server.get(&path).send().await.unwrap().bytes().await.unwrap();
    let Object::Checkpoint(checkpoint) = entry.open(bytes.to_vec(), manifest.delegation()).unwrap() else {
        panic!("{entry:?}")
    };
    checkpoint.entries().to_vec()
}

/// As an edge does: of everything that the manifest names, in one way or another.
async fn assemble(world: &World, server: &Server, manifest: &[u8]) -> Snapshot {
    let manifest = Manifest::open(manifest, &[root_key(world)], "default").unwrap();
    let mut objects = Objects::default();
    let now = clock::now().millis();
    loop {
        let missing = objects.missing(&manifest, now);
        if missing.is_empty() {
            return Snapshot::assemble(manifest, &objects, now).unwrap();
        }
        for entry in missing {
            let path = format!("/edge/v1/objects/{}", Fingerprint::from(*entry.sha256()));
            let bytes = server.get(&path).send().await.unwrap().bytes().await.unwrap();
            objects.open(&manifest, entry, bytes.to_vec()).unwrap();
        }
    }
}

/// Of a credential that no base covers.
fn standing(snapshot: &Snapshot, fingerprint: &Fingerprint) -> RevocationStatus {
    snapshot.revocation_status(fingerprint, "", 0, None)
}
