//! A manifest or object that is not the publisher's newest is refused, and the last good bundle kept.

use bundle::ObjectKind;
use bundle::builder::{Builder, BuiltBundle, ManifestFields};
use harness::envoy::Settings;
use harness::forge::{Authority, Forge, Served, hex, now_ms, plugin_configuration};
use harness::{Connection, Envoy, eventually};
use token::Fingerprint;
use token::mint::SigningKey;

/// An edge that revokes one token; each forgery would bring it back, or let a foreign key in.
struct Scene {
    forge: Forge,
    honest: BuiltBundle,
    workers: Vec<Connection>,
    good: String,
    revoked: String,
    foreign: SigningKey,
}

#[tokio::test]
async fn a_manifest_that_is_not_the_publishers() {
    let mut scene = Scene::set().await;
    let tempting = scene.tempting();
    let length = tempting.manifest.len();

    let own = std::mem::replace(&mut scene.forge.authority, Authority::new(66));
    let by_stranger = scene.tempting();
    scene.forge.authority.delegation.clone_from(&own.delegation);
    let by_stranger_under_our_delegation = scene.tempting();
    let stranger = std::mem::replace(&mut scene.forge.authority, own);
    scene.in_vain("signed by strangers", by_stranger).await;
    scene.in_vain("signed by a stranger under our root's delegation", by_stranger_under_our_delegation).await;

    // The body still has our tail key's id.
    let body = tempting.manifest[..length - 64].to_vec();
    let under_false_name = Served { manifest: stranger.tail.sign_body(body), ..tempting.clone() };
    scene.in_vain("signed by a stranger under our tail key's id", under_false_name).await;

    for at in [0, 4, 12, 19, 20, 36, 38, 46, length - 70, length - 64, length - 32, length - 1] {
        let mut flipped = tempting.clone();
        flipped.manifest[at] ^= 1;
        scene.in_vain(&format!("a bit of byte {at} flipped"), flipped).await;
    }
    scene.ends_well().await;
}

#[tokio::test]
async fn a_manifest_that_is_not_whole() {
    let mut scene = Scene::set().await;
    let tempting = scene.tempting();
    let length = tempting.manifest.len();
    for kept in [1, 4, 37, 64, length / 2, length - 64, length - 1] {
        let mut truncated = tempting.clone();
        truncated.manifest.truncate(kept);
        scene.in_vain(&format!("truncated to {kept} of {length} bytes"), truncated).await;
    }
    let mut longer = tempting.clone();
    longer.manifest.push(0);
    scene.in_vain("a byte too many", longer).await;
    let mut signed_longer = tempting.clone();
    signed_longer.manifest.truncate(length - 64);
    signed_longer.manifest.push(0);
    signed_longer.manifest = scene.forge.authority.tail.sign_body(signed_longer.manifest);
    scene.in_vain("a byte too many, signed", signed_longer).await;
    let huge = Served { manifest: vec![0; 5_000_000], ..tempting };
    scene.in_vain("5 MB", huge).await;
    scene.ends_well().await;
}

#[tokio::test]
async fn a_manifest_of_another_time_or_place() {
    let mut scene = Scene::set().await;
    let now = now_ms();
    let version = scene.forge.version;
    let content = scene.tempting_content();
    let foreign = ["another", "default2"].map(|audience| scene.forge.authority.delegate(audience, 1));
    let earlier = scene.forge.authority.delegate("default", 0);
    let cases: [(&str, Change<'_>); 8] = [
        ("an older version", &|draft| draft.version = version - 1),
        ("version 0", &|draft| draft.version = 0),
        ("the version it has, issued before", &|draft| {
            (draft.version, draft.issued_at) = (version, now - 600_000);
        }),
        ("another audience", &|draft| draft.delegation = &foreign[0]),
        ("an audience that begins alike", &|draft| draft.delegation = &foreign[1]),
        ("an earlier epoch", &|draft| draft.delegation = &earlier),
        ("expired", &|draft| (draft.issued_at, draft.expires_at) = (now - 120_000, now - 60_000)),
        ("from tomorrow", &|draft| {
            (draft.issued_at, draft.expires_at) = (now + 86_400_000, now + 90_000_000);
        }),
    ];
    let forged = cases.map(|(what, change)| {
        let forged = scene.forge.sign(&content, |draft| {
            draft.version = version + 1;
            change(draft);
        });
        (what, forged)
    });
    for (what, forged) in forged {
        scene.in_vain(what, forged).await;
    }
    scene.ends_well().await;
}

#[tokio::test]
async fn objects_that_are_not_what_the_manifest_names() {
    let mut scene = Scene::set().await;
    let tempting = scene.tempting();
    assert!(tempting.objects.len() > 1, "keys and revocations at least");

    let mut gone = tempting;
    gone.objects.clear();
    scene.in_vain("not there", gone).await;

    let mut swapped = scene.tempting();
    let rotated =
        swapped.objects.values().skip(1).chain(swapped.objects.values().take(1)).cloned().collect::<Vec<_>>();
    swapped.objects.values_mut().zip(rotated).for_each(|(object, other)| *object = other);
    scene.in_vain("swapped", swapped).await;

    let spoils: [(&str, Spoil); 3] = [
        ("truncated", |object| object.truncate(object.len() - 1)),
        ("empty", Vec::clear),
        ("longer", |object| object.push(0)),
    ];
    for (what, spoil) in spoils {
        let mut spoilt = scene.tempting();
        spoilt.objects.values_mut().for_each(spoil);
        scene.in_vain(what, spoilt).await;
    }
    for kind in [ObjectKind::Keys, ObjectKind::Revocations] {
        for from_end in [false, true] {
            let content = scene.tempting_content();
            let mut spoilt = scene.forge.sign(&content, |draft| draft.version += 1);
            let entry = content.checkpoint.iter().find(|entry| entry.kind() == kind).unwrap();
            let object = spoilt.objects.get_mut(&hex(entry.sha256())).unwrap();
            let byte = if from_end { object.last_mut() } else { object.first_mut() };
            *byte.unwrap() ^= 1;
            scene.in_vain(&format!("a bit of the {kind:?} flipped"), spoilt).await;
        }
    }
    scene.ends_well().await;
}

/// What the thief of a tail key could sign: under the checkpoint that the edge holds, or an older one, a tail that has
/// lost the revocation.
#[tokio::test]
async fn a_tail_that_takes_something_back() {
    let mut scene = Scene::set().await;
    let BuiltBundle { tail, .. } = &scene.honest;
    assert!(!tail.is_empty(), "the revocation stands in the tail");
    let without = BuiltBundle { tail: Vec::new(), ..scene.honest.clone() };
    let shorter = scene.forge.sign(&without, |draft| draft.version += 1);
    scene.in_vain("a tail without the revocation", shorter).await;

    let (authority, now) = (&scene.forge.authority, now_ms());
    let tempting = scene.tempting_content();
    let older = authority.checkpoint(&tempting, scene.forge.version - 1, now, |_| ());
    let older = authority.manifest(&tempting, &older, scene.forge.version + 1, now, |_| ());
    scene.in_vain("a checkpoint of before", older).await;

    let expired = under_a_checkpoint_of_yesterday(&scene, &tempting);
    scene.in_vain("a checkpoint of yesterday", expired).await;
    scene.ends_well().await;
}

fn under_a_checkpoint_of_yesterday(scene: &Scene, content: &BuiltBundle) -> Served {
    let (forge, now) = (&scene.forge, now_ms());
    let checkpoint = forge.authority.checkpoint(content, forge.version + 1, now, |draft| {
        draft.issued_at -= 90_000_000;
        draft.expires_at = draft.issued_at + 86_400_000;
    });
    forge.authority.manifest(content, &checkpoint, forge.version + 1, now, |_| ())
}

/// Before the first good bundle there is nothing to keep: 503, whatever the token.
#[tokio::test]
async fn nothing_is_admitted_before_the_first_good_one() {
    let scratch = harness::Scratch::new().unwrap();
    let configuration = plugin_configuration(&Authority::new(1));
    let settings = Settings::on(&scratch, configuration).unwrap();
    let envoy = Envoy::start(settings, scratch.folder()).await.unwrap();
    for mut worker in envoy.workers().await.unwrap() {
        let token =
            SigningKey::ed25519("key-1", &[2; 32]).unwrap().sign(r#"{"alg":"EdDSA","kid":"key-1"}"#, b"{}");
        let refused = worker.get(token.expose()).await.unwrap().expect(503).unwrap();
        assert_eq!(refused.code(), "bundle_missing");
    }
}

impl Scene {
    async fn set() -> Self {
        let mut forge = Forge::start().await;
        let (good, revoked) = (forge.token(), forge.token());
        // Above the versions that the cases go back to.
        forge.version = 100;
        forge.content.revoke(101, Fingerprint::digest(revoked.as_bytes())).unwrap();
        forge.publish();
        let honest = forge.content.build().unwrap();
        let mut workers = forge.workers().await;
        Envoy::refusing(&mut workers, &revoked, 401, "revoked").await;
        let foreign = SigningKey::ed25519("foreign", &[77; 32]).unwrap();
        Self { forge, honest, workers, good, revoked, foreign }
    }

    /// What an edge must not take from a forger: nothing of before revoked, and another key. Different at each call,
    /// so that an edge that believes the manifest has objects to fetch.
    fn tempting_content(&self) -> BuiltBundle {
        let mut content = Builder::default();
        let fresh = SigningKey::ed25519(&self.forge.claims().jti, &[78; 32]).unwrap();
        let keys = [&self.forge.signing, &self.foreign, &fresh].map(SigningKey::verifying_key);
        content.set_verifying_keys(keys).unwrap();
        content.revoke(101, Fingerprint::digest(self.forge.token().as_bytes())).unwrap();
        content.checkpoint(101).unwrap();
        content.build().unwrap()
    }

    /// The same under an honest manifest of the next version, to be spoilt.
    fn tempting(&self) -> Served {
        self.forge.sign(&self.tempting_content(), |draft| draft.version += 1)
    }

    /// The edge refuses this, and goes on as before; then hears from the publisher again.
    async fn in_vain(&mut self, what: &str, forged: Served) {
        eprintln!("{what}");
        self.forge.serve_taken(self.forge.sign(&self.honest, |_| ())).await;
        self.forge.serve_refused(forged).await;
        let foreign = self.foreign.mint(&self.forge.claims());
        for worker in &mut self.workers {
            for (token, status) in [(&*self.good, 200), (&self.revoked, 401), (foreign.expose(), 401)] {
                let response = worker.get(token).await.unwrap();
                assert_eq!(response.status, status, "{what}: {}", response.text());
            }
        }
    }

    /// After all this the edge still listens: what tempted in vain is taken from the publisher.
    async fn ends_well(mut self) {
        self.forge.serve_taken(self.tempting()).await;
        let foreign = self.foreign.mint(&self.forge.claims());
        for worker in &mut self.workers {
            for token in [&*self.revoked, foreign.expose()] {
                eventually("the worker takes it", async || worker.get(token).await?.expect(200)).await;
            }
        }
    }
}

type Spoil = fn(&mut Vec<u8>);
type Change<'a> = &'a dyn Fn(&mut ManifestFields<'a>);
