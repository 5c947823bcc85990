//! An edge limits how long a manifest is fresh, even if the thief of a tail key signs a longer lifetime: it refuses all
//! requests after its own limit, until it gets a manifest of a new tail key.

use crate::scene::{Different, Scene};
use bundle::builder::{ManifestFields, TailKey};
use bundle::{Manifest, PublicKey};
use harness::forge::now_ms;
use harness::{Envoy, Fault};
use std::path::Path;
use token::base64url;

#[tokio::test]
async fn an_edge_that_was_given_one_forged_manifest_fails_shut_on_time() {
    let mut scene = Scene::set(Different {
        settings: vec![("KEYSTILE_PUBLISHER__RESIGN", "1s".into())],
        outage_grace: Some(0),
        max_manifest_lifetime: Some(8),
        ..Different::default()
    })
    .await;
    let (admin, victim) = (scene.admin.clone(), scene.token().await);
    scene.admitted(&victim).await;
    // The thief signs the published content for ten years, under a version above all later ones.
    let keys = scene.control_plane.data().join("keys");
    let root: PublicKey = scene.control_plane.root().root_key.parse().unwrap();
    let last = scene.proxy.seen().last_manifest;
    let honest = Manifest::open(&last, &[root], "default").unwrap();
    let length = usize::from(u16::from_be_bytes([last[36], last[37]]));
    let now = now_ms() + 50_000;
    let draft = ManifestFields {
        delegation: &last[38..38 + length],
        version: STOLEN,
        issued_at: now,
        expires_at: now + 10 * 365 * 86_400_000,
        checkpoint: *honest.checkpoint(),
        tail: honest.tail(),
    };
    let forged = tail_key(&keys.join("tail.jwk")).sign(&draft).unwrap();
    scene.proxy.set(Fault::Injected(forged.into()));
    scene.told(&format!("enforcing bundle version {STOLEN}")).await;
    // Later revocations do not arrive, and finally all requests are refused.
    scene.revoke(&victim).await;
    for token in [&victim, &admin] {
        Envoy::refusing(&mut scene.workers, token, 503, "bundle_stale").await;
    }
    for told in ["by `max_manifest_lifetime_seconds`", "all requests are refused", "manifest_not_renewed"] {
        scene.told(told).await;
    }
    // A new tail key in the next epoch.
    scene.control_plane.cli(["authority", "rotate", "tail"]).unwrap();
    scene.refused(&victim).await;
    scene.admitted(&admin).await;
}

fn tail_key(file: &Path) -> TailKey {
    let text = std::fs::read(file).unwrap();
    let jwk: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let seed = base64url::decode(jwk["d"].as_str().unwrap().as_bytes()).unwrap();
    TailKey::new(&seed.try_into().unwrap())
}

const STOLEN: u64 = (1 << 63) - 1;
