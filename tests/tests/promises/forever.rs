//! What a watermark refuses stays refused at a real edge, days and collections later: a token of another issuer that lives
//! for a month, and an API key that was made with the key of a stolen edge, of which the store knows nothing.

use harness::client::{bearer, send};
use harness::{Envoy, Options, Store, World, eventually};
use serde_json::{Value, json};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use token::{
    api_key::{ApiKeyFields, Kind, MintingKey, Prefix},
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
    // Of the short form, which whoever steals an edge can make.
    let alice = format!("{}/alice", world.control_plane.root().operator_id);
    let rotated = world.control_plane.cli(["key", "rotate", "tag", "--short"]).unwrap();
    let generation = u8::try_from(rotated["generation"].as_u64().unwrap()).unwrap();
    let kid = format!("tag-{generation}");
    world.control_plane.cli(["key", "create", "--user", &alice]).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims =
        json!({ "iss": ISSUER, "sub": "carol", "aud": "api", "iat": now - 5 * DAY, "exp": now + 25 * DAY });
    let month = signer.sign(r#"{"alg":"EdDSA","kid":"month"}"#, claims.to_string().as_bytes());
    let month = month.expose().to_owned();
    world.envoy.admitting(&month).await.unwrap();
    let stolen = {
        let file = world.control_plane.data().join(format!("keys/{kid}.jwk"));
        let file: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let secret = base64url::decode(file["k"].as_str().unwrap().as_bytes()).unwrap();
        let minting = MintingKey::new(generation, Kind::Short, &secret.try_into().unwrap()).unwrap();
        let contents = ApiKeyFields {
            prefix: &Prefix::default(),
            operator: &world.control_plane.root().operator_id,
            number: 4711,
            issued_at: now - 5 * DAY,
            expires_at: None,
            random: [7; 4],
            username: "mallory",
        };
        minting.mint(&contents).unwrap().expose().to_owned()
    };
    let address = world.envoy.address();
    let ask = async |expected: u16| {
        let mut request = bearer(&stolen);
        request.headers_mut().insert("x-username", "mallory".parse().unwrap());
        send(address, request).await?.expect(expected)
    };
    eventually("the stolen edge's key is admitted", async || ask(200).await).await;

    // Of the key alone first: it refuses the one and not the other.
    world.control_plane.cli(["revoke", "--signing-key", &kid, "--yes", "--wait"]).unwrap();
    assert_eq!(ask(401).await.unwrap().code(), "watermark");
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
    while !world.control_plane.log().contains("purged expired rows") {
        assert!(Instant::now() < deadline, "nothing was collected");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let late = world.control_plane.token().await.unwrap();
    let mut workers = world.envoy.admitting(&late).await.unwrap();
    Envoy::refusing(&mut workers, &month, 401, "watermark").await;
    assert_eq!(ask(401).await.unwrap().code(), "watermark");
}

const ISSUER: &str = "https://idp.example";
const DAY: u64 = 86_400;
