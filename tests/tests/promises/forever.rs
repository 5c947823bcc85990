//! What a watermark refuses stays refused at a real edge, days and collections later: a token of another issuer that lives
//! for a month, and an API key that was made with the key of a stolen edge, of which the store knows nothing.

use harness::{Envoy, Options, Store, World};
use serde_json::{Value, json};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use token::{
    api_key::{Prefix, TagKey},
    base64url,
    mint::SigningKey,
};

use crate::issuer_down::Idp;

#[tokio::test]
async fn days_later() {
    let signer = SigningKey::ed25519("month", &[5; 32]).unwrap();
    let idp = Idp::start("127.0.0.1:0".parse().unwrap(), &[&signer]).await;
    let settings = tempfile::NamedTempFile::new().unwrap();
    let section = format!("[[issuers]]\nissuer = '{ISSUER}'\njwks_url = 'http://{}/keys'\n", idp.address());
    std::fs::write(settings.path(), section).unwrap();
    let mut world = World::start(Options {
        store: Store::Postgres,
        settings: vec![("KEYSTILE_CONFIG", settings.path().display().to_string())],
        plugin: |configuration| {
            configuration["issuers"] = json!([{ "issuer": ISSUER, "audiences": ["api"] }]);
            configuration["api_keys"] = json!({});
        },
        ..Options::default()
    })
    .await
    .unwrap();
    let (own, mut workers) = world.admitted().await.unwrap();
    let operator = world.control_plane.root().operator_id.clone();
    world.control_plane.cli(["key", "create", "--user", &operator]).unwrap();

    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims =
        json!({ "iss": ISSUER, "sub": "carol", "aud": "api", "iat": now - 5 * DAY, "exp": now + 25 * DAY });
    let month = signer.sign(r#"{"alg":"EdDSA","kid":"month"}"#, claims.to_string().as_bytes());
    let month = month.expose().to_owned();
    world.envoy.admitting(&month).await.unwrap();
    let stolen = {
        let file = std::fs::read(world.control_plane.data().join("keys/tag-1.jwk")).unwrap();
        let file: Value = serde_json::from_slice(&file).unwrap();
        let secret = base64url::decode(file["k"].as_str().unwrap().as_bytes()).unwrap();
        let tag = TagKey::new(1, &secret.try_into().unwrap()).unwrap();
        tag.mint(&Prefix::default(), 4711, now - 5 * DAY, "").unwrap().expose().to_owned()
    };
    world.envoy.admitting(&stolen).await.unwrap();

    // Of the key alone first: it refuses the one and not the other.
    world.control_plane.cli(["revoke", "--signing-key", "tag-1", "--yes", "--wait"]).unwrap();
    Envoy::refusing(&mut workers, &stolen, 401, "watermark").await;
    for worker in &mut workers {
        worker.get(&month).await.unwrap().expect(200).unwrap();
    }
    world.control_plane.cli(["revoke", "--everything", "--yes", "--wait"]).unwrap();
    Envoy::refusing(&mut workers, &month, 401, "watermark").await;
    Envoy::refusing(&mut workers, &own, 401, "watermark").await;

    // As the rows would be ten days later; the server collects once a minute.
    world.control_plane.stop().unwrap();
    let aged = format!(
        "UPDATE watermarks SET instant = instant - {0}; UPDATE issued SET expires_at = 1 WHERE expires_at < {1}; \
         UPDATE bundle_state SET collected_before = 0",
        4 * DAY,
        now + 3 * DAY
    );
    world.control_plane.sql(&aged).unwrap();
    world.control_plane.serve().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(100);
    while !world.control_plane.log().contains("forgot what had expired") {
        assert!(Instant::now() < deadline, "nothing was collected");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let late = world.control_plane.token().await.unwrap();
    let mut workers = world.envoy.admitting(&late).await.unwrap();
    Envoy::refusing(&mut workers, &month, 401, "watermark").await;
    Envoy::refusing(&mut workers, &stolen, 401, "watermark").await;
}

const ISSUER: &str = "https://idp.example";
const DAY: u64 = 86_400;
