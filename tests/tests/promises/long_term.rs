//! A real edge still refuses what a watermark covers after days and purges: a token of another issuer with a lifetime of a
//! month, and an API key that was created with the key of a stolen edge and is not in the store.

use harness::client::{bearer, send};
use harness::{Deployment, Envoy, Options, Store, eventually};
use serde_json::{Value, json};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use token::{
    api_key::{ApiKeyFields, Kind, MintingKey, Prefix},
    base64url,
    mint::SigningKey,
};

use crate::issuer_down::Idp;

#[tokio::test]
async fn edge_agrees_with_control_plane_after_days() {
    let signer = SigningKey::ed25519("month", &[5; 32]).unwrap();
    let idp = Idp::start("127.0.0.1:0".parse().unwrap(), &[&signer]).await;
    let settings = tempfile::NamedTempFile::new().unwrap();
    let section = format!("[[issuers]]\nissuer = '{ISSUER}'\njwks_url = 'http://{}/keys'\n", idp.address());
    std::fs::write(settings.path(), section).unwrap();
    let mut deployment = Deployment::start(Options {
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
    let (own, mut workers) = deployment.admitted_token().await.unwrap();
    // A key of the short form, which the thief of an edge can create.
    let alice = format!("{}/alice", deployment.control_plane.root().operator_id);
    let rotated = deployment.control_plane.cli(["key", "rotate", "tag", "--short"]).unwrap();
    let generation = u8::try_from(rotated["generation"].as_u64().unwrap()).unwrap();
    let kid = format!("tag-{generation}");
    deployment.control_plane.cli(["key", "create", "--user", &alice]).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims =
        json!({ "iss": ISSUER, "sub": "carol", "aud": "api", "iat": now - 5 * DAY, "exp": now + 25 * DAY });
    let month = signer.sign(r#"{"alg":"EdDSA","kid":"month"}"#, claims.to_string().as_bytes());
    let month = month.expose().to_owned();
    deployment.envoy.wait_admitting(&month).await.unwrap();
    let stolen = {
        let file = deployment.control_plane.data().join(format!("keys/{kid}.jwk"));
        let file: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let secret = base64url::decode(file["k"].as_str().unwrap().as_bytes()).unwrap();
        let minting = MintingKey::new(generation, Kind::Short, &secret.try_into().unwrap()).unwrap();
        let contents = ApiKeyFields {
            prefix: &Prefix::default(),
            operator: &deployment.control_plane.root().operator_id,
            number: 4711,
            issued_at: now - 5 * DAY,
            expires_at: None,
            random: [7; 4],
            username: "mallory",
        };
        minting.mint(&contents).unwrap().expose().to_owned()
    };
    let address = deployment.envoy.address();
    let ask = async |expected: u16| {
        let mut request = bearer(&stolen);
        request.headers_mut().insert("x-username", "mallory".parse().unwrap());
        send(address, request).await?.expect(expected)
    };
    eventually("the stolen edge's key is admitted", async || ask(200).await).await;

    // First a watermark of the key only: it refuses the API key and not the token.
    deployment.control_plane.cli(["revoke", "--signing-key", &kid, "--yes", "--wait"]).unwrap();
    assert_eq!(ask(401).await.unwrap().code(), "watermark");
    for worker in &mut workers {
        worker.get(&month).await.unwrap().expect(200).unwrap();
    }
    deployment.control_plane.cli(["revoke", "--everything", "--yes", "--wait"]).unwrap();
    Envoy::wait_refusing(&mut workers, &month, 401, "watermark").await;
    Envoy::wait_refusing(&mut workers, &own, 401, "watermark").await;

    // Change the rows to their state ten days later. The server purges once a minute.
    deployment.control_plane.stop().unwrap();
    let aged = format!(
        "UPDATE watermarks SET instant = instant - {0}; UPDATE issued SET expires_at = 1 WHERE expires_at < {1}; \
         UPDATE bundle_state SET collected_before = 0",
        4 * DAY,
        now + 3 * DAY
    );
    deployment.control_plane.sql(&aged).unwrap();
    deployment.control_plane.serve().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(100);
    while !deployment.control_plane.log().contains("purged expired rows") {
        assert!(Instant::now() < deadline, "no row was purged");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let late = deployment.control_plane.token().await.unwrap();
    let mut workers = deployment.envoy.wait_admitting(&late).await.unwrap();
    Envoy::wait_refusing(&mut workers, &month, 401, "watermark").await;
    assert_eq!(ask(401).await.unwrap().code(), "watermark");
}

const ISSUER: &str = "https://idp.example";
const DAY: u64 = 86_400;
