//! Tokens of other issuers are accepted as products make them, and no tolerance lets another credential in.

use harness::client::bearer;
use harness::fake_control_plane::now_ms;
use harness::{Connection, FakeControlPlane, eventually};
use serde_json::{Value, json};
use std::net::TcpListener;
use token::mint::SigningKey;
use token::{VerifyingKey, base64url};

#[tokio::test]
async fn tokens_are_accepted_as_products_make_them() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let url = format!("http://{}/", elsewhere.local_addr().unwrap());
    let mut control_plane = FakeControlPlane::start_with(|settings| {
        let members = settings.plugin_configuration.as_object_mut().unwrap();
        members["tokens"]["max_bytes"] = json!(65_536);
        members.insert("issuers".into(), issuers());
        members.insert("identity".into(), identity());
        members.insert("allow_inline_secrets".into(), json!(true));
    })
    .await;
    let key = key();
    let public = *key.verifying_key().public_bytes().unwrap();
    let names = issuers();
    let foreign: Vec<_> = names.as_array().unwrap().iter().map(|issuer| foreign(issuer, &public)).collect();
    let own = control_plane.signing.verifying_key().clone();
    control_plane.content.set_verifying_keys(foreign.iter().chain([&own])).unwrap();
    control_plane.publish();
    control_plane.envoy.wait_admitting(&sign(IDP, json!({}), json!({}))).await.unwrap();
    let mut connection = Connection::open(control_plane.envoy.address()).await.unwrap();
    // The first refusal because of a claim is logged; the next ones of a minute are not.
    let without_azp = sign(KEYCLOAK, json!({}), json!({ "typ": "Bearer" }));
    connection.send(bearer(&without_azp)).await.unwrap().expect(401).unwrap();
    for (kind, token, expected) in cases(&url) {
        let response = connection.send(bearer(&token)).await.unwrap();
        match expected {
            Ok(headers) => {
                assert_eq!(response.status, 200, "{kind}: {}", response.text());
                let echo = response.json().unwrap();
                for (name, value) in headers {
                    assert_eq!(echo["headers"][name], json!([value]), "{kind}: {name}");
                }
            }
            Err((status, code, detail)) => {
                assert_eq!((response.status, &*response.code()), (status, code), "{kind}");
                let text = response.json().unwrap()["detail"].as_str().unwrap().to_owned();
                assert!(text.ends_with(detail), "{kind}: {text}");
            }
        }
    }
    for (parameter, status) in
        [("", 200), (r#","jku":"https://a.example/""#, 401), (r#","typ":"at+jwt""#, 401)]
    {
        let header = format!(r#"{{"alg":"EdDSA","kid":"key-1"{parameter}}}"#);
        let payload = serde_json::to_vec(&control_plane.claims()).unwrap();
        let own = control_plane.signing.sign(&header, &payload);
        let response = connection.send(bearer(own.expose())).await.unwrap();
        assert_eq!(response.status, status, "tokens of this deployment are as strict as before: {header}");
        assert!(status == 200 || response.code() == "token_malformed", "{header}: {}", response.text());
    }
    let token = sign(IDP, json!({}), json!({ "sub": "Jürgen", "name": "Jürgen" }));
    let echo = connection.send(bearer(&token)).await.unwrap().json().unwrap();
    let assertion = echo["headers"]["x-assertion"][0].as_str().unwrap().split('.').nth(1).unwrap().to_owned();
    let assertion: Value = serde_json::from_slice(&base64url::decode(assertion.as_bytes()).unwrap()).unwrap();
    assert_eq!(assertion["sub"], format!("{IDP}#Jürgen"), "a4: JSON has the subject as it is");
    eventually("b8: an omitted claim is counted", async || {
        anyhow::ensure!(control_plane.envoy.metric("keystile_claims_omitted").await? >= 1);
        Ok(())
    })
    .await;
    eventually("b2: the log names the missing claim", async || {
        anyhow::ensure!(control_plane.envoy.log().contains("the token lacks a required claim: `azp`"));
        Ok(())
    })
    .await;
    let connected = elsewhere.accept().map_err(|error| error.kind());
    assert_eq!(connected.err(), Some(std::io::ErrorKind::WouldBlock), "b3: nothing is fetched");
}

type Expected = Result<Vec<(&'static str, String)>, (u16, &'static str, &'static str)>;

/// Returns tokens with what the upstream receives, or the status, the code and the end of the detail.
fn cases(url: &str) -> Vec<(&'static str, String, Expected)> {
    let subject = |text: &str| Ok(vec![("x-keystile-subject", text.to_owned())]);
    let admitted = || Ok(Vec::new());
    let name = |text: &str| Ok(vec![("x-name", text.to_owned())]);
    let refused = |code| Err((401, code, ""));
    let of_type = |typ: Value| sign(IDP, json!({ "typ": typ }), json!({}));
    let groups: Vec<_> = (0..900).map(|number| format!("{number:08x}-0000-4000-8000-000000000000")).collect();
    let tenant = |name: &str, tid: &str, change: Value| {
        let mut claims = json!({ "iss": format!("https://login.example/{name}/v2.0"), "tid": tid });
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        sign(TENANTS, json!({}), claims)
    };
    vec![
        (
            "a4: Jane Doe",
            sign(IDP, json!({}), json!({ "sub": "Jane Doe" })),
            subject("https://idp.example#Jane%20Doe"),
        ),
        (
            "a4: Jürgen",
            sign(IDP, json!({}), json!({ "sub": "Jürgen" })),
            subject("https://idp.example#J%C3%BCrgen"),
        ),
        (
            "a4: a distinguished name",
            sign(IDP, json!({}), json!({ "sub": "CN=svc,O=Example Inc" })),
            subject("https://idp.example#CN=svc,O=Example%20Inc"),
        ),
        (
            "a4: a long subject",
            sign(IDP, json!({}), json!({ "sub": "张".repeat(600) })),
            subject(&format!("https://idp.example#{}", "%E5%BC%A0".repeat(600))),
        ),
        (
            "a4: a control character",
            sign(IDP, json!({}), json!({ "sub": "a\r\nx-keystile-operator: root" })),
            Err((401, "token_subject_malformed", ": `sub`")),
        ),
        (
            "b1: Cognito",
            sign(COGNITO, json!({}), json!({ "aud": null, "client_id": "c1", "token_use": "access" })),
            subject("https://cognito.example/pool#u-1"),
        ),
        (
            "b1: another client of Cognito",
            sign(COGNITO, json!({}), json!({ "aud": null, "client_id": "c2", "token_use": "access" })),
            Err((403, "token_audience_mismatch", ": `client_id`")),
        ),
        (
            "b1: an ID token of Cognito",
            sign(COGNITO, json!({}), json!({ "client_id": "c1", "token_use": "id" })),
            Err((403, "claim_missing", ": `token_use`")),
        ),
        (
            "b2: Keycloak",
            sign(KEYCLOAK, json!({}), json!({ "aud": null, "sub": null, "azp": "svc", "typ": "Bearer" })),
            subject("https://keycloak.example/realms/r#svc"),
        ),
        (
            "b2: without azp",
            sign(KEYCLOAK, json!({}), json!({ "typ": "Bearer" })),
            Err((401, "token_incomplete", ": `azp`")),
        ),
        (
            "b3: XSUAA",
            sign(IDP, json!({ "jku": url, "x5u": url, "x5c": ["MIIB"], "x5t": "AA" }), json!({})),
            admitted(),
        ),
        ("b3: unknown", sign(IDP, json!({ "org.example": { "a": [1] } }), json!({})), admitted()),
        (
            "b3: another key by jku",
            sign(IDP, json!({ "jku": url, "kid": "other" }), json!({})),
            refused("token_key_unknown"),
        ),
        ("b3: jwk", sign(IDP, json!({ "jwk": { "kty": "OKP" } }), json!({})), refused("token_malformed")),
        ("b3: crit", sign(IDP, json!({ "crit": ["exp"] }), json!({})), refused("token_malformed")),
        ("b3: b64", sign(IDP, json!({ "b64": true }), json!({})), refused("token_malformed")),
        ("b3: zip", sign(IDP, json!({ "zip": "DEF" }), json!({})), refused("token_malformed")),
        ("b4: absent", of_type(json!(null)), admitted()),
        ("b4: JOSE", of_type(json!("JOSE")), admitted()),
        ("b4: JWS", of_type(json!("JWS")), admitted()),
        ("b4: a media type", of_type(json!("Application/JWT")), admitted()),
        (
            "b4: by setting",
            sign(KEYCLOAK, json!({ "typ": "vnd.x+jwt" }), json!({ "azp": "a", "typ": "Bearer" })),
            admitted(),
        ),
        ("b4: DPoP", of_type(json!("dpop+jwt")), refused("token_type_wrong")),
        ("b4: an event", of_type(json!("secevent+jwt")), refused("token_type_wrong")),
        ("b4: a logout", of_type(json!("logout+jwt")), refused("token_type_wrong")),
        ("b4: unknown", of_type(json!("vnd.x+jwt")), refused("token_type_wrong")),
        ("b4: a parameter", of_type(json!("JWT;v=1")), refused("token_type_wrong")),
        ("b6: many groups", sign(IDP, json!({}), json!({ "groups": groups })), admitted()),
        ("b7: a tenant", tenant("t1", "t1", json!({})), subject("https://login.example/t1/v2.0#u-1")),
        ("b7: another tenant", tenant("t2", "t2", json!({})), subject("https://login.example/t2/v2.0#u-1")),
        (
            "b7: a tenant that names another",
            tenant("t1", "t2", json!({})),
            Err((401, "token_issuer_unknown", ": `tid`")),
        ),
        ("b7: a tenant out of the list", tenant("t3", "t3", json!({})), refused("token_issuer_unknown")),
        ("b7: an encoded slash", tenant("t1%2Ft2", "t1%2Ft2", json!({})), refused("token_issuer_unknown")),
        ("b8: Jürgen", sign(IDP, json!({}), json!({ "name": "Jürgen" })), name("J%C3%BCrgen")),
        ("b8: 张伟", sign(IDP, json!({}), json!({ "name": "张伟" })), name("%E5%BC%A0%E4%BC%9F")),
        ("b8: a comma", sign(IDP, json!({}), json!({ "name": ["Doe, J", "b"] })), name("Doe%2C J,b")),
        ("b8: a line", sign(IDP, json!({}), json!({ "name": "a\nx-b: c" })), admitted()),
    ]
}

/// Envoy passes the bytes of UTF-8 in a header.
#[tokio::test]
async fn b8_claims_are_sent_in_utf8_by_setting() {
    let mut control_plane = FakeControlPlane::start_with(|settings| {
        let members = settings.plugin_configuration.as_object_mut().unwrap();
        members.insert("issuers".into(), json!([{ "issuer": IDP, "audiences": ["api"] }]));
        members
            .insert("identity".into(), json!({ "claims": { "x-name": "name" }, "claim_encoding": "utf8" }));
    })
    .await;
    let public = *key().verifying_key().public_bytes().unwrap();
    let own = control_plane.signing.verifying_key().clone();
    let keys = [&own, &foreign(&json!({ "issuer": IDP }), &public)];
    control_plane.content.set_verifying_keys(keys).unwrap();
    control_plane.publish();
    let token = sign(IDP, json!({}), json!({ "name": ["Jürgen", "张伟"] }));
    for mut worker in control_plane.envoy.wait_admitting(&token).await.unwrap() {
        let echo = worker.get(&token).await.unwrap().expect(200).unwrap().json().unwrap();
        assert_eq!(echo["headers"]["x-name"], json!(["Jürgen,张伟"]));
    }
}

fn issuers() -> Value {
    json!([
        { "issuer": IDP, "audiences": ["api"] },
        {
            "issuer": COGNITO, "audiences": ["c1"], "audience_claim": "client_id",
            "required_claims": { "token_use": "access" },
        },
        {
            "issuer": KEYCLOAK, "required_claims": { "typ": ["Bearer"] }, "subject_claim": "azp",
            "typ": ["JWT", "vnd.x+jwt"],
        },
        {
            "issuer": TENANTS, "audiences": ["api"],
            "issuer_parts": { "tenant": { "claim": "tid", "values": ["t1", "t2"] } },
        },
    ])
}

fn identity() -> Value {
    let secret = base64url::encode(&[7; 32]);
    let assertion = json!({ "header": "x-assertion", "secret": secret, "audience": "orders" });
    json!({ "claims": { "x-name": "name" }, "assertion": assertion })
}

fn key() -> SigningKey {
    SigningKey::ed25519("k1", &[7; 32]).unwrap()
}

fn foreign(issuer: &Value, public: &[u8]) -> VerifyingKey {
    VerifyingKey::foreign(issuer["issuer"].as_str().unwrap(), "k1", token::Algorithm::EdDsa, public).unwrap()
}

/// Returns a token of an issuer with other header parameters and claims; `null` removes one.
fn sign(issuer: &str, header: Value, claims: Value) -> String {
    let now = now_ms() / 1000;
    let set = |mut object: Value, change: Value| {
        object.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        object.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        object.to_string()
    };
    let header = set(json!({ "alg": "EdDSA", "kid": "k1", "typ": "JWT" }), header);
    let payload = json!({ "iss": issuer, "sub": "u-1", "aud": "api", "iat": now - 10, "exp": now + 3600 });
    key().sign(&header, set(payload, claims).as_bytes()).expose().to_owned()
}

const IDP: &str = "https://idp.example";
const COGNITO: &str = "https://cognito.example/pool";
const KEYCLOAK: &str = "https://keycloak.example/realms/r";
const TENANTS: &str = "https://login.example/{tenant}/v2.0";
