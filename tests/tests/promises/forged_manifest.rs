//! An edge refuses a manifest or object that is not the publisher's newest, and keeps the last good bundle.

use bundle::ObjectKind;
use bundle::builder::{Builder, BuiltBundle, ManifestFields};
use harness::envoy::Settings;
use harness::fake_control_plane::{
    FakeControlPlane, Responses, TestSigner, hex, now_ms, plugin_configuration,
};
use harness::{Connection, Envoy, eventually};
use token::Fingerprint;
use token::mint::SigningKey;

/// An edge with one revoked token. Each forgery would un-revoke it, or add a foreign key.
struct ForgeryFixture {
    control_plane: FakeControlPlane,
    honest: BuiltBundle,
    workers: Vec<Connection>,
    good: String,
    revoked: String,
    foreign: SigningKey,
}

#[tokio::test]
async fn manifest_with_wrong_signature_is_rejected() {
    let mut fixture = ForgeryFixture::start().await;
    let tempting = fixture.sign_tempting();
    let length = tempting.manifest.len();

    let own = std::mem::replace(&mut fixture.control_plane.authority, TestSigner::new(66));
    let by_stranger = fixture.sign_tempting();
    fixture.control_plane.authority.delegation.clone_from(&own.delegation);
    let by_stranger_under_our_delegation = fixture.sign_tempting();
    let stranger = std::mem::replace(&mut fixture.control_plane.authority, own);
    fixture.assert_rejected("signed by strangers", by_stranger).await;
    fixture
        .assert_rejected(
            "signed by a stranger under the root key's delegation",
            by_stranger_under_our_delegation,
        )
        .await;

    // The body still has the ID of the real tail key.
    let body = tempting.manifest[..length - 64].to_vec();
    let under_false_name = Responses { manifest: stranger.tail.sign_body(body), ..tempting.clone() };
    fixture.assert_rejected("signed by a stranger under the tail key's ID", under_false_name).await;

    for at in [0, 4, 12, 19, 20, 36, 38, 46, length - 70, length - 64, length - 32, length - 1] {
        let mut flipped = tempting.clone();
        flipped.manifest[at] ^= 1;
        fixture.assert_rejected(&format!("a bit of byte {at} flipped"), flipped).await;
    }
    fixture.assert_edge_still_updates().await;
}

#[tokio::test]
async fn truncated_manifest_is_rejected() {
    let mut fixture = ForgeryFixture::start().await;
    let tempting = fixture.sign_tempting();
    let length = tempting.manifest.len();
    for kept in [1, 4, 37, 64, length / 2, length - 64, length - 1] {
        let mut truncated = tempting.clone();
        truncated.manifest.truncate(kept);
        fixture.assert_rejected(&format!("truncated to {kept} of {length} bytes"), truncated).await;
    }
    let mut longer = tempting.clone();
    longer.manifest.push(0);
    fixture.assert_rejected("a byte too many", longer).await;
    let mut signed_longer = tempting.clone();
    signed_longer.manifest.truncate(length - 64);
    signed_longer.manifest.push(0);
    signed_longer.manifest = fixture.control_plane.authority.tail.sign_body(signed_longer.manifest);
    fixture.assert_rejected("a byte too many, signed", signed_longer).await;
    let huge = Responses { manifest: vec![0; 5_000_000], ..tempting };
    fixture.assert_rejected("5 MB", huge).await;
    fixture.assert_edge_still_updates().await;
}

#[tokio::test]
async fn manifest_of_other_audience_or_time_is_rejected() {
    let mut fixture = ForgeryFixture::start().await;
    let now = now_ms();
    let version = fixture.control_plane.version;
    let content = fixture.tempting_content();
    let foreign =
        ["another", "default2"].map(|audience| fixture.control_plane.authority.sign_delegation(audience, 1));
    let earlier = fixture.control_plane.authority.sign_delegation("default", 0);
    let cases: [(&str, Change<'_>); 8] = [
        ("an older version", &|draft| draft.version = version - 1),
        ("version 0", &|draft| draft.version = 0),
        ("the same version, issued earlier", &|draft| {
            (draft.version, draft.issued_at) = (version, now - 600_000);
        }),
        ("another audience", &|draft| draft.delegation = &foreign[0]),
        ("an audience with the same prefix", &|draft| draft.delegation = &foreign[1]),
        ("an earlier epoch", &|draft| draft.delegation = &earlier),
        ("expired", &|draft| (draft.issued_at, draft.expires_at) = (now - 120_000, now - 60_000)),
        ("issued tomorrow", &|draft| {
            (draft.issued_at, draft.expires_at) = (now + 86_400_000, now + 90_000_000);
        }),
    ];
    let forged = cases.map(|(what, change)| {
        let forged = fixture.control_plane.sign(&content, |draft| {
            draft.version = version + 1;
            change(draft);
        });
        (what, forged)
    });
    for (what, forged) in forged {
        fixture.assert_rejected(what, forged).await;
    }
    fixture.assert_edge_still_updates().await;
}

#[tokio::test]
async fn objects_with_wrong_hash_are_rejected() {
    let mut fixture = ForgeryFixture::start().await;
    let tempting = fixture.sign_tempting();
    assert!(tempting.objects.len() > 1, "there are at least keys and revocations");

    let mut gone = tempting;
    gone.objects.clear();
    fixture.assert_rejected("not there", gone).await;

    let mut swapped = fixture.sign_tempting();
    let rotated =
        swapped.objects.values().skip(1).chain(swapped.objects.values().take(1)).cloned().collect::<Vec<_>>();
    swapped.objects.values_mut().zip(rotated).for_each(|(object, other)| *object = other);
    fixture.assert_rejected("swapped", swapped).await;

    let spoils: [(&str, Spoil); 3] = [
        ("truncated", |object| object.truncate(object.len() - 1)),
        ("empty", Vec::clear),
        ("longer", |object| object.push(0)),
    ];
    for (what, spoil) in spoils {
        let mut spoilt = fixture.sign_tempting();
        spoilt.objects.values_mut().for_each(spoil);
        fixture.assert_rejected(what, spoilt).await;
    }
    for kind in [ObjectKind::Keys, ObjectKind::Revocations] {
        for from_end in [false, true] {
            let content = fixture.tempting_content();
            let mut spoilt = fixture.control_plane.sign(&content, |draft| draft.version += 1);
            let entry = content.checkpoint.iter().find(|entry| entry.kind() == kind).unwrap();
            let object = spoilt.objects.get_mut(&hex(entry.sha256())).unwrap();
            let byte = if from_end { object.last_mut() } else { object.first_mut() };
            *byte.unwrap() ^= 1;
            fixture.assert_rejected(&format!("a bit of the {kind:?} flipped"), spoilt).await;
        }
    }
    fixture.assert_edge_still_updates().await;
}

/// The thief of a tail key signs a tail without the revocation, under the checkpoint of the edge or an older one.
#[tokio::test]
async fn tail_that_removes_revocations_is_rejected() {
    let mut fixture = ForgeryFixture::start().await;
    let BuiltBundle { tail, .. } = &fixture.honest;
    assert!(!tail.is_empty(), "the tail contains the revocation");
    let without = BuiltBundle { tail: Vec::new(), ..fixture.honest.clone() };
    let shorter = fixture.control_plane.sign(&without, |draft| draft.version += 1);
    fixture.assert_rejected("a tail without the revocation", shorter).await;

    let (authority, now) = (&fixture.control_plane.authority, now_ms());
    let tempting = fixture.tempting_content();
    let older = authority.sign_checkpoint(&tempting, fixture.control_plane.version - 1, now, |_| ());
    let older = authority.sign_manifest(&tempting, &older, fixture.control_plane.version + 1, now, |_| ());
    fixture.assert_rejected("an earlier checkpoint", older).await;

    let expired = under_a_checkpoint_of_yesterday(&fixture, &tempting);
    fixture.assert_rejected("an expired checkpoint", expired).await;
    fixture.assert_edge_still_updates().await;
}

fn under_a_checkpoint_of_yesterday(fixture: &ForgeryFixture, content: &BuiltBundle) -> Responses {
    let (control_plane, now) = (&fixture.control_plane, now_ms());
    let checkpoint =
        control_plane.authority.sign_checkpoint(content, control_plane.version + 1, now, |draft| {
            draft.issued_at -= 90_000_000;
            draft.expires_at = draft.issued_at + 86_400_000;
        });
    control_plane.authority.sign_manifest(content, &checkpoint, control_plane.version + 1, now, |_| ())
}

/// Before the first good bundle, every request gets 503.
#[tokio::test]
async fn forged_first_manifest_admits_nothing() {
    let scratch = harness::Scratch::new().unwrap();
    let configuration = plugin_configuration(&TestSigner::new(1));
    let settings = Settings::for_scratch(&scratch, configuration).unwrap();
    let envoy = Envoy::start(settings, scratch.folder()).await.unwrap();
    for mut worker in envoy.workers().await.unwrap() {
        let token =
            SigningKey::ed25519("key-1", &[2; 32]).unwrap().sign(r#"{"alg":"EdDSA","kid":"key-1"}"#, b"{}");
        let refused = worker.get(token.expose()).await.unwrap().expect(503).unwrap();
        assert_eq!(refused.code(), "bundle_missing");
    }
}

impl ForgeryFixture {
    async fn start() -> Self {
        let mut control_plane = FakeControlPlane::start().await;
        let (good, revoked) = (control_plane.token(), control_plane.token());
        // The version is above those that the cases use.
        control_plane.version = 100;
        control_plane.content.revoke(101, Fingerprint::digest(revoked.as_bytes())).unwrap();
        control_plane.publish();
        let honest = control_plane.content.build().unwrap();
        let mut workers = control_plane.workers().await;
        Envoy::wait_refusing(&mut workers, &revoked, 401, "revoked").await;
        let foreign = SigningKey::ed25519("foreign", &[77; 32]).unwrap();
        Self { control_plane, honest, workers, good, revoked, foreign }
    }

    /// Returns content that an edge must not accept from a forger: without the revocation, and with another key. It differs
    /// at each call, so that an edge that accepts the manifest must fetch objects.
    fn tempting_content(&self) -> BuiltBundle {
        let mut content = Builder::default();
        let fresh = SigningKey::ed25519(&self.control_plane.claims().jti, &[78; 32]).unwrap();
        let keys = [&self.control_plane.signing, &self.foreign, &fresh].map(SigningKey::verifying_key);
        content.set_verifying_keys(keys).unwrap();
        content.revoke(101, Fingerprint::digest(self.control_plane.token().as_bytes())).unwrap();
        content.checkpoint(101).unwrap();
        content.build().unwrap()
    }

    /// Returns the same with an honest manifest of the next version, which the cases corrupt.
    fn sign_tempting(&self) -> Responses {
        self.control_plane.sign(&self.tempting_content(), |draft| draft.version += 1)
    }

    /// Checks that the edge refuses a forgery, keeps its bundle, and sends the next request.
    async fn assert_rejected(&mut self, what: &str, forged: Responses) {
        eprintln!("{what}");
        self.control_plane.serve_until_taken(self.control_plane.sign(&self.honest, |_| ())).await;
        self.control_plane.serve_until_refused(forged).await;
        let foreign = self.foreign.mint(&self.control_plane.claims());
        for worker in &mut self.workers {
            for (token, status) in [(&*self.good, 200), (&self.revoked, 401), (foreign.expose(), 401)] {
                let response = worker.get(token).await.unwrap();
                assert_eq!(response.status, status, "{what}: {}", response.text());
            }
        }
    }

    /// Checks that the edge accepts the same content from the publisher afterwards.
    async fn assert_edge_still_updates(mut self) {
        self.control_plane.serve_until_taken(self.sign_tempting()).await;
        let foreign = self.foreign.mint(&self.control_plane.claims());
        for worker in &mut self.workers {
            for token in [&*self.revoked, foreign.expose()] {
                eventually("the worker admits the token", async || worker.get(token).await?.expect(200))
                    .await;
            }
        }
    }
}

type Spoil = fn(&mut Vec<u8>);
type Change<'a> = &'a dyn Fn(&mut ManifestFields<'a>);
