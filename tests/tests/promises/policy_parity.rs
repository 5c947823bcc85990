//! envoy/COMPARISON.md shows one policy in two forms. Both admit the same requests until a token is revoked.

use harness::client::send;
use harness::envoy::Settings;
use harness::{Envoy, FakeControlPlane, Scratch, Upstream, eventually};
use hyper::Request;
use serde_json::{Value, json};
use std::net::SocketAddr;
use token::mint::SigningKey;
use token::{Algorithm, Fingerprint, VerifyingKey, base64url};

#[tokio::test]
async fn decisions_match_jwt_authn_and_rbac_until_revocation() {
    let provider = Provider::new();
    let (_upstream, theirs, _scratch) = their_envoy(&provider).await;
    let mut control_plane = FakeControlPlane::start_with(|settings| {
        let ours: Value = serde_json::from_str(&code_block("json")).unwrap();
        let configuration = settings.plugin_configuration.as_object_mut().unwrap();
        configuration.extend(ours.as_object().unwrap().clone());
        // The harness requests `/` to find out whether the workers are ready.
        let rules = configuration["rules"].as_array_mut().unwrap();
        rules.push(json!({ "path": "/", "issuers": ["https://keystile.test"] }));
    })
    .await;
    control_plane
        .content
        .set_verifying_keys([control_plane.signing.verifying_key(), &provider.verifying_key()])
        .unwrap();
    control_plane.publish();
    let ours = control_plane.envoy.address();
    let reader = provider.token(json!({ "scope": "profile orders:read" }));
    for mut worker in control_plane.workers().await {
        eventually("the edge has the provider's key", async || {
            let request = request("GET", "/orders/1", Some(&reader));
            worker.send(request).await?.expect(200).map(drop)
        })
        .await;
    }

    let tokens = [
        (Whose::Nobodys, None),
        (Whose::Readers, Some(reader.clone())),
        (Whose::Writers, Some(provider.token(json!({ "scope": "orders:read orders:write" })))),
        (Whose::Norths, Some(provider.token(json!({ "tenant": "north" })))),
        (Whose::Admins, Some(provider.token(json!({ "roles": ["auditor", "admin"] })))),
        (Whose::Bad, Some(provider.token(json!({ "aud": "invoices", "roles": ["admin"] })))),
        (Whose::Bad, Some(provider.token(json!({ "exp": 1_700_000_000, "roles": ["admin"] })))),
        (Whose::Bad, Some(flip_signature_bit(&reader))),
    ];
    for (whose, token) in &tokens {
        for (method, path, good_for) in TARGETS {
            let passes = good_for.is_none_or(|good_for| good_for.contains(whose));
            for (edge, address) in [("Keystile", ours), ("jwt_authn", theirs.address())] {
                let status = status(address, request(method, path, token.as_deref())).await;
                let expected = if passes { 200..=200 } else { 401..=403 };
                assert!(
                    expected.contains(&status),
                    "{edge}: {status} for {method} {path} with {whose:?} token"
                );
            }
        }
    }

    assert!(
        control_plane
            .content
            .revoke(control_plane.version + 1, Fingerprint::digest(reader.as_bytes()))
            .unwrap()
    );
    control_plane.publish();
    eventually("the revoked token is refused", async || {
        send(ours, request("GET", "/orders/1", Some(&reader))).await?.expect(401).map(drop)
    })
    .await;
    assert_eq!(status(theirs.address(), request("GET", "/orders/1", Some(&reader))).await, 200);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Nobodys,
    Readers,
    Writers,
    Norths,
    Admins,
    /// For another audience, expired, or with an invalid signature.
    Bad,
}

/// Requests and the tokens that each permits; `None` if it requires none.
const TARGETS: [(&str, &str, Option<&[Whose]>); 9] = [
    ("GET", "/healthz", None),
    ("GET", "/orders/1", Some(&[Whose::Readers, Whose::Writers])),
    ("POST", "/orders/1", Some(&[Whose::Writers])),
    ("DELETE", "/orders/1/items/2", Some(&[Whose::Writers])),
    ("PATCH", "/orders/1", Some(&[])),
    ("GET", "/tenants/north/bills", Some(&[Whose::Norths])),
    ("GET", "/tenants/south/bills", Some(&[])),
    ("POST", "/admin/users", Some(&[Whose::Admins])),
    ("GET", "/elsewhere", Some(&[])),
];

struct Provider(SigningKey);

impl Provider {
    fn new() -> Self {
        Self(SigningKey::ed25519("idp-1", &[9; 32]).unwrap())
    }

    fn public(&self) -> Vec<u8> {
        self.0.verifying_key().public_material().unwrap()
    }

    fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey::foreign(ISSUER, self.0.kid(), Algorithm::EdDsa, &self.public()).unwrap()
    }

    fn jwks(&self) -> String {
        let x = base64url::encode(&self.public());
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": self.0.kid(), "x": x }] }).to_string()
    }

    /// Returns a token with these claims in addition to, or instead of, the default ones.
    fn token(&self, claims: Value) -> String {
        let now = harness::fake_control_plane::now_ms() / 1000;
        let mut all =
            json!({ "iss": ISSUER, "sub": "u-1", "aud": "orders", "iat": now - 10, "exp": now + 3600 });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let header = json!({ "alg": "EdDSA", "kid": self.0.kid() }).to_string();
        self.0.sign(&header, all.to_string().as_bytes()).expose().to_owned()
    }
}

async fn their_envoy(provider: &Provider) -> (Upstream, Envoy, Scratch) {
    let filters: Vec<Value> = serde_saphyr::from_str(&code_block("yaml")).unwrap();
    let filters = Value::from(filters).to_string();
    assert_eq!(filters.matches("\"JWKS\"").count(), 1);
    let filters = filters.replace("\"JWKS\"", &json!(provider.jwks()).to_string());
    let scratch = Scratch::new().unwrap();
    let mut settings = Settings::for_scratch(&scratch, Value::Null).unwrap();
    settings.filters_instead = Some(serde_json::from_str(&filters).unwrap());
    let upstream = Upstream::start(settings.upstream).await.unwrap();
    let envoy = Envoy::start(settings, scratch.folder()).await.unwrap();
    (upstream, envoy, scratch)
}

/// Returns the only code block of the page in this language.
fn code_block(language: &str) -> String {
    let page = std::fs::read_to_string(harness::tools::root().join("envoy/COMPARISON.md")).unwrap();
    let fence = format!("```{language}\n");
    let (_, rest) = page.split_once(&fence).unwrap();
    let (block, rest) = rest.split_once("\n```\n").unwrap();
    assert!(!rest.contains(&fence), "two blocks of {language}");
    block.to_owned()
}

/// Returns the token with one bit of the signature flipped.
fn flip_signature_bit(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut signature = base64url::decode(signature.as_bytes()).unwrap();
    signature[0] ^= 1;
    format!("{signed}.{}", base64url::encode(&signature))
}

fn request(method: &str, path: &str, token: Option<&str>) -> Request<String> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(String::new()).unwrap()
}

async fn status(to: SocketAddr, request: Request<String>) -> u16 {
    send(to, request).await.unwrap().status
}

const ISSUER: &str = "https://idp.example.com";
