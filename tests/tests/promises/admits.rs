//! A valid credential passes, and the upstream learns who it is, but not the credential.

use bundle::{Manifest, Object, ObjectKind};
use harness::client::{bearer, send};
use harness::forge::{Forge, hex};
use harness::{Options, World};
use hyper::Request;
use serde_json::{Value, json};
use token::mint::SigningKey;
use token::{Fingerprint, base64url};

#[tokio::test]
async fn an_issued_token_and_names_its_bearer_to_the_upstream() {
    let world = World::start(Options::default()).await.unwrap();
    let root = world.control_plane.root();
    let session = world.control_plane.authenticate(&root.auth_key_id, &root.auth_key).await.unwrap();
    for mut worker in world.envoy.admitting(&session.token).await.unwrap() {
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
async fn a_token_in_the_other_configured_header() {
    let forge = Forge::start().await;
    let token = forge.token();
    let request = Request::get("/").header("x-api-token", &token).body(String::new()).unwrap();
    let echo = send(forge.envoy.address(), request).await.unwrap().expect(200).unwrap().json().unwrap();
    assert_eq!(echo["headers"]["x-keystile-subject"], json!(["OP0000000001"]));
    assert!(!echo.to_string().contains(&token), "the credential reached the upstream: {echo}");
}

#[tokio::test]
async fn a_user_of_an_operator() {
    let forge = Forge::start().await;
    let mut claims = forge.claims();
    claims.sub = "OP0000000001/alice".into();
    let admitted = harness::get(forge.envoy.address(), &forge.mint(&claims)).await.unwrap();
    let echo = admitted.expect(200).unwrap().json().unwrap();
    assert_eq!(echo["headers"]["x-keystile-subject"], json!(["OP0000000001/alice"]));
    assert_eq!(echo["headers"]["x-keystile-operator"], json!(["OP0000000001"]));
}

#[tokio::test]
async fn the_credential_reaches_the_upstream_where_configured_so() {
    let keep = |settings: &mut harness::envoy::Settings| {
        settings.plugin_configuration["strip_credential"] = json!(false);
    };
    let forge = Forge::with(keep).await;
    let token = forge.token();
    let admitted = harness::get(forge.envoy.address(), &token).await.unwrap().expect(200).unwrap();
    let echo = admitted.json().unwrap();
    assert_eq!(echo["headers"]["authorization"], json!([format!("Bearer {token}")]));
}

/// The secret reaches edges alone: on their own channel, never among the objects that anybody may cache.
#[tokio::test]
async fn a_token_of_hs256_whose_secret_only_edges_get() {
    let settings = vec![("KEYSTILE_TOKENS__ALGORITHM", "HS256".to_owned())];
    let world = World::start(Options { settings, ..Options::default() }).await.unwrap();
    let (token, _) = world.admitted().await.unwrap();
    let header = base64url::decode(token.split('.').next().unwrap().as_bytes()).unwrap();
    assert!(String::from_utf8(header).unwrap().contains(r#""HS256""#));

    let edge = world.control_plane.enroll("another").unwrap();
    let fetch = async |path: String, credential: &str| {
        let mut request = bearer(credential);
        *request.uri_mut() = path.parse().unwrap();
        send(world.control_plane.address(), request).await.unwrap()
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

/// A key added later, and one taken away: what each signed follows it.
#[tokio::test]
async fn tokens_of_the_keys_in_the_bundle() {
    let mut forge = Forge::start().await;
    let (old, old_token) = (forge.signing.verifying_key().clone(), forge.token());
    forge.signing = SigningKey::ed25519("key-2", &[3; 32]).unwrap();
    forge.content.set_verifying_keys([&old, forge.signing.verifying_key()]).unwrap();
    forge.publish();
    let mut workers = forge.workers().await;
    for worker in &mut workers {
        worker.get(&old_token).await.unwrap().expect(200).unwrap();
    }
    forge.content.set_verifying_keys([forge.signing.verifying_key()]).unwrap();
    forge.publish();
    harness::Envoy::refusing(&mut workers, &old_token, 401, "token_key_unknown").await;
    forge.workers().await;
}

fn identity_of(echo: &Value) -> Value {
    let headers = echo["headers"].as_object().unwrap();
    headers
        .iter()
        .filter(|(name, _)| name.starts_with("x-keystile-"))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}
