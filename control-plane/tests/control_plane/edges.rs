//! What edges fetch, when they are answered, and with what.

use std::time::{Duration, Instant};

use bundle::{Entry, Kind, Manifest, Object, Objects, PublicKey, Snapshot, Standing};
use control_plane::{
    clock,
    model::Revocation,
    operations::collect,
    store::{revocations, versions},
};
use serde_json::{Value, json};
use token::Fingerprint;
use verdict::Policy;

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
            assert_eq!(standing(&snapshot, &Fingerprint::of(victim.as_bytes())), Standing::Revoked, "{way}");
            assert_eq!(standing(&snapshot, &Fingerprint::of(root.as_bytes())), Standing::NotCovered, "{way}");
        }
    }

    async fn an_edge_that_has_more_is_given_nothing_older(world: World) {
        let credential = world.edge("one");
        let server = world.serve();
        let response = server.manifest(&credential, 9_000_000_000_000_000, 1).send().await.unwrap();
        assert_eq!(response.status(), 304);
        assert!(response.headers().get("etag").is_none());
        let complaint = "an edge says that it holds a version above the latest";
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
        next.may_follow(&first).unwrap();
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
        let (expired, living) = (Fingerprint::of(b"expired"), Fingerprint::of(b"living"));
        let now = clock::now().seconds();
        let mut write = world.store().await.write().await.unwrap();
        let stored = versions::next(&mut write, clock::now()).await.unwrap();
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
        assert_eq!((of_expired, of_living), (Standing::Revoked, Standing::Revoked));
        let service = world.service().await;
        assert_eq!(collect(&service).await.unwrap(), 1);
        let (later, of_expired, of_living) = standings(number).await;
        assert!(later > number);
        assert_eq!((of_expired, of_living), (Standing::NotCovered, Standing::Revoked));
        assert_eq!(collect(&service).await.unwrap(), 0);
        assert_eq!(world.json(&["bundle", "show"])["version"], json!(later));
    }

    async fn the_configuration_that_enrolling_prints_is_one_that_the_filter_takes(world: World) {
        let enrolled = world.json(&["edge", "enroll", "one"]);
        let policy = Policy::from_json(enrolled["plugin_configuration"].to_string().as_bytes()).unwrap();
        assert_eq!(policy.root_keys, [root_key(&world)]);
        assert_eq!(policy.control_plane.unwrap().credential.expose(), enrolled["credential"]);
        assert_eq!(world.json(&["edge", "list"])[0]["last_seen_at"], Value::Null);
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
    let entry = settled.iter().find(|entry| entry.kind() == Kind::SecretKeys).unwrap();
    let hash = Fingerprint::from(*entry.sha256());
    assert_eq!(server.get(&format!("/edge/v1/objects/{hash}")).send().await.unwrap().status(), 404);
    let path = format!("/edge/v1/keys?sha256={hash}");
    assert_eq!(server.get(&path).send().await.unwrap().status(), 401);
    let response = server.get(&path).bearer_auth(&credential).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["cache-control"], "no-store");
    entry.open(response.bytes().await.unwrap().to_vec(), manifest.delegation()).unwrap();
    let open = settled.iter().find(|entry| entry.kind() == Kind::Keys).unwrap();
    let path = format!("/edge/v1/keys?sha256={}", Fingerprint::from(*open.sha256()));
    assert_eq!(server.get(&path).bearer_auth(&credential).send().await.unwrap().status(), 404);
}

pub(crate) async fn wait_until_it_waits(server: &Server) {
    eventually("the waiting edge", async || {
        let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
        metrics.contains("keystile_waiting_edges 1").then_some(())
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
fn standing(snapshot: &Snapshot, fingerprint: &Fingerprint) -> Standing {
    snapshot.standing(fingerprint, "", 0, None)
}
