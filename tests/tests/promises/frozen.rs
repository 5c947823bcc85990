//! An edge limits how long a manifest is fresh, even if the thief of a tail key signs a longer lifetime: it refuses all
//! requests after its own limit, until it gets a manifest of a new tail key.

use crate::fixture::{Fixture, Overrides};
use bundle::builder::{ManifestFields, TailKey};
use bundle::{Manifest, PublicKey};
use harness::fake_control_plane::now_ms;
use harness::{Envoy, Fault};
use std::path::Path;
use token::base64url;

#[tokio::test]
async fn edge_after_forged_manifest_denies_at_the_bound() {
    let mut fixture = Fixture::start(Overrides {
        settings: vec![("KEYSTILE_PUBLISHER__RESIGN", "1s".into())],
        outage_grace: Some(0),
        max_manifest_lifetime: Some(8),
        ..Overrides::default()
    })
    .await;
    let (admin, victim) = (fixture.admin.clone(), fixture.token().await);
    fixture.wait_admitted(&victim).await;
    // The thief signs the published content for ten years, under a version above all later ones.
    let keys = fixture.control_plane.data().join("keys");
    let root: PublicKey = fixture.control_plane.root().root_key.parse().unwrap();
    let last = fixture.proxy.seen().last_manifest;
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
    fixture.proxy.set(Fault::Injected(forged.into()));
    fixture.wait_for_log(&format!("enforcing bundle version {STOLEN}")).await;
    // Later revocations do not arrive, and finally all requests are refused.
    fixture.revoke(&victim).await;
    for token in [&victim, &admin] {
        Envoy::wait_refusing(&mut fixture.workers, token, 503, "bundle_stale").await;
    }
    for message in ["by `max_manifest_lifetime_seconds`", "all requests are refused", "manifest_not_renewed"]
    {
        fixture.wait_for_log(message).await;
    }
    // A new tail key in the next epoch.
    fixture.control_plane.cli(["authority", "rotate", "tail"]).unwrap();
    fixture.wait_refused(&victim).await;
    fixture.wait_admitted(&admin).await;
}

fn tail_key(file: &Path) -> TailKey {
    let text = std::fs::read(file).unwrap();
    let jwk: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let seed = base64url::decode(jwk["d"].as_str().unwrap().as_bytes()).unwrap();
    TailKey::new(&seed.try_into().unwrap())
}

const STOLEN: u64 = (1 << 63) - 1;
