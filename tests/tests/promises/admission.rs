//! A valid credential is admitted, and the upstream gets the identity, but not the credential.

use bundle::{Manifest, Object, ObjectKind};
use harness::client::{bearer, send};
use harness::fake_control_plane::{FakeControlPlane, hex};
use harness::{Deployment, Options};
use hyper::Request;
use serde_json::{Value, json};
use token::mint::SigningKey;
use token::{Fingerprint, base64url};

#[tokio::test]
async fn issued_token_is_admitted_with_identity_headers() {
    let deployment = Deployment::start(Options::default()).await.unwrap();
    let root = deployment.control_plane.root();
    let session = deployment.control_plane.authenticate(&root.auth_key_id, &root.auth_key).await.unwrap();
    for mut worker in deployment.envoy.wait_admitting(&session.token).await.unwrap() {
        let echo = worker.get(&session.token).await.unwrap().expect(200).unwrap().json().unwrap();
        let identity = json!({
            "x-keystile-subject": [root.operator_id],
            "x-keystile-operator": [root.operator_id],
            "x-keystile-authkey": [root.auth_key_id],
            "x-keystile-session": [session.api_key],
            "x-keystile-fingerprint": [Fingerprint::digest(session.token.as_bytes()).to_string()],
        });
        assert_eq!(identity_of(&echo), identity);
        assert!(!echo.to_string().contains(&session.token), "the credential reached the upstream: {echo}");
    }
}

#[tokio::test]
async fn token_in_second_configured_header_is_admitted() {
    let control_plane = FakeControlPlane::start().await;
    let token = control_plane.token();
    let request = Request::get("/").header("x-api-token", &token).body(String::new()).unwrap();
    let echo =
        send(control_plane.envoy.address(), request).await.unwrap().expect(200).unwrap().json().unwrap();
    assert_eq!(echo["headers"]["x-keystile-subject"], json!(["OP0000000001"]));
    assert!(!echo.to_string().contains(&token), "the credential reached the upstream: {echo}");
}

#[tokio::test]
async fn user_token_is_admitted_with_its_name() {
    let control_plane = FakeControlPlane::start().await;
    let mut claims = control_plane.claims();
    claims.sub = "OP0000000001/alice".into();
    let admitted = harness::get(control_plane.envoy.address(), &control_plane.mint(&claims)).await.unwrap();
    let echo = admitted.expect(200).unwrap().json().unwrap();
    assert_eq!(echo["headers"]["x-keystile-subject"], json!(["OP0000000001/alice"]));
    assert_eq!(echo["headers"]["x-keystile-operator"], json!(["OP0000000001"]));
}

#[tokio::test]
async fn credential_is_forwarded_if_configured() {
    let keep = |settings: &mut harness::envoy::Settings| {
        settings.plugin_configuration["strip_credential"] = json!(false);
    };
    let control_plane = FakeControlPlane::start_with(keep).await;
    let token = control_plane.token();
    let admitted = harness::get(control_plane.envoy.address(), &token).await.unwrap().expect(200).unwrap();
    let echo = admitted.json().unwrap();
    assert_eq!(echo["headers"]["authorization"], json!([format!("Bearer {token}")]));
}

/// Only edges get the secret: it is never among the objects that caches may store.
#[tokio::test]
async fn hs256_token_is_admitted() {
    let settings = vec![("KEYSTILE_TOKENS__ALGORITHM", "HS256".to_owned())];
    let deployment = Deployment::start(Options { settings, ..Options::default() }).await.unwrap();
    let (token, _) = deployment.admitted_token().await.unwrap();
    let header = base64url::decode(token.split('.').next().unwrap().as_bytes()).unwrap();
    assert!(String::from_utf8(header).unwrap().contains(r#""HS256""#));

    let edge = deployment.control_plane.enroll("another").unwrap();
    let fetch = async |path: String, credential: &str| {
        let mut request = bearer(credential);
        *request.uri_mut() = path.parse().unwrap();
        send(deployment.control_plane.address(), request).await.unwrap()
    };
    let manifest = fetch("/edge/v1/manifest?have=0".into(), &edge.credential).await.expect(200).unwrap();
    let key = edge.plugin_configuration["root_keys"][0].as_str().unwrap().parse().unwrap();
    let manifest = Manifest::open(&manifest.body, &[key], "default").unwrap();
    let path = format!("/edge/v1/objects/{}", hex(manifest.checkpoint().sha256()));
    let checkpoint = fetch(path, &edge.credential).await.expect(200).unwrap();
    let checkpoint = manifest.checkpoint().open(checkpoint.body.to_vec(), manifest.delegation()).unwrap();
    let Object::Checkpoint(checkpoint) = checkpoint else { panic!("{checkpoint:?}") };
    let secrets = checkpoint.entries().iter().find(|entry| entry.kind() == ObjectKind::SecretKeys).unwrap();
    let hash = hex(secrets.sha256());
    fetch(format!("/edge/v1/keys?sha256={hash}"), &edge.credential).await.expect(200).unwrap();
    fetch(format!("/edge/v1/keys?sha256={hash}"), &token).await.expect(401).unwrap();
    fetch(format!("/edge/v1/objects/{hash}"), &edge.credential).await.expect(404).unwrap();
}

/// The tokens of a key are admitted while the bundle contains the key.
#[tokio::test]
async fn tokens_of_bundled_issuer_keys_are_admitted() {
    let mut control_plane = FakeControlPlane::start().await;
    let (old, old_token) = (control_plane.signing.verifying_key().clone(), control_plane.token());
    control_plane.signing = SigningKey::ed25519("key-2", &[3; 32]).unwrap();
    control_plane.content.set_verifying_keys([&old, control_plane.signing.verifying_key()]).unwrap();
    control_plane.publish();
    let mut workers = control_plane.workers().await;
    for worker in &mut workers {
        worker.get(&old_token).await.unwrap().expect(200).unwrap();
    }
    control_plane.content.set_verifying_keys([control_plane.signing.verifying_key()]).unwrap();
    control_plane.publish();
    harness::Envoy::wait_refusing(&mut workers, &old_token, 401, "token_key_unknown").await;
    control_plane.workers().await;
}

fn identity_of(echo: &Value) -> Value {
    let headers = echo["headers"].as_object().unwrap();
    headers
        .iter()
        .filter(|(name, _)| name.starts_with("x-keystile-"))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}
