//! Everything except a valid credential is refused with its stable code, and never reaches the upstream.

use harness::FakeControlPlane;
use harness::client::{bearer, request_without_credential, send, send_http2};
use harness::envoy::Settings;
use harness::{Response, eventually};
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{HeaderMap, Request};
use serde_json::json;
use token::mint::SigningKey;
use token::{Claims, base64url};

#[tokio::test]
async fn missing_or_multiple_credentials_are_refused() {
    let control_plane = FakeControlPlane::start().await;
    let token = control_plane.token();
    let both = |first: &str, second: &str| {
        let builder = Request::get("/").header(AUTHORIZATION, format!("Bearer {first}"));
        builder.header("x-api-token", second).body(String::new()).unwrap()
    };
    let twice = |name: &str, value: String| {
        Request::get("/").header(name, &value).header(name, &value).body(String::new()).unwrap()
    };
    let other =
        |value: &'static str| Request::get("/").header(AUTHORIZATION, value).body(String::new()).unwrap();
    let cases = [
        ("none", request_without_credential(), &["credential_missing"][..]),
        ("another scheme", other("Basic dXNlcjpwYXNz"), &["credential_missing"]),
        ("the scheme alone", other("Bearer"), &["credential_missing", "token_malformed"]),
        ("empty", other(""), &["credential_missing"]),
        ("the same in both headers", both(&token, &token), &["credential_ambiguous"]),
        ("two in two headers", both(&token, &control_plane.token()), &["credential_ambiguous"]),
        ("header twice", twice("authorization", format!("Bearer {token}")), &["credential_ambiguous"]),
        ("other header twice", twice("x-api-token", token.clone()), &["credential_ambiguous"]),
    ];
    for (name, request, codes) in cases {
        let refused = send(control_plane.envoy.address(), request).await.unwrap();
        assert_refused(name, &refused, codes);
    }
}

#[tokio::test]
async fn invalid_claims_are_refused() {
    let control_plane = FakeControlPlane::start().await;
    let now = control_plane.claims().iat + 10;
    let claims: [(&str, Spoil, &str); 7] = [
        ("expired", |claims, now| claims.exp = Some(now - 60), "token_expired"),
        ("expired beyond any leeway", |claims, _| claims.exp = Some(1), "token_expired"),
        ("not yet valid", |claims, now| claims.nbf = Some(now + 600), "token_not_yet_valid"),
        ("issued in the future", |claims, now| claims.iat = now + 600, "token_issued_in_future"),
        ("another issuer", |claims, _| claims.iss = "https://other.test".into(), "token_issuer_unknown"),
        ("another audience", |claims, _| claims.aud = vec!["other".into()], "token_audience_mismatch"),
        ("no audience", |claims, _| claims.aud.clear(), "token_audience_mismatch"),
    ];
    for (name, spoil, code) in claims {
        let mut claims = control_plane.claims();
        spoil(&mut claims, now);
        assert_token_refused(&control_plane, name, &control_plane.mint(&claims), code).await;
    }
}

#[tokio::test]
async fn wrong_signatures_are_refused() {
    let control_plane = FakeControlPlane::start().await;
    let token = control_plane.token();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let signature = base64url::decode(signature.as_bytes()).unwrap();
    let (header, _) = token.split_once('.').unwrap();
    let payload = serde_json::to_vec(&control_plane.claims()).unwrap();
    let with = |signature: &[u8]| format!("{signed}.{}", base64url::encode(signature));
    let flipped = |at: usize| {
        let mut signature = signature.clone();
        signature[at] ^= 1;
        with(&signature)
    };
    let other = SigningKey::ed25519("key-1", &[9; 32]).unwrap();
    let other_payload = format!("{header}.{}.{}", base64url::encode(&payload), base64url::encode(&signature));
    let cases = [
        ("of another key with the same kid", other.mint(&control_plane.claims()).expose().to_owned()),
        ("first bit of R", flipped(0)),
        ("first bit of s", flipped(32)),
        ("of another payload", other_payload),
        ("s + L, which a lax check accepts as s", with(&plus_order(&signature))),
        ("all zero", with(&[0; 64])),
    ];
    for (name, token) in cases {
        assert_token_refused(&control_plane, name, &token, "token_signature_invalid").await;
    }
    for (name, short) in [("of 63 bytes", &signature[..63]), ("empty", &[]), ("twice", &signature.repeat(2))]
    {
        let refused = send(control_plane.envoy.address(), bearer(&with(short))).await.unwrap();
        assert_refused(name, &refused, &["token_signature_invalid", "token_malformed"]);
    }
}

#[tokio::test]
async fn algorithm_or_key_chosen_by_token_is_refused() {
    let control_plane = FakeControlPlane::start().await;
    let payload = serde_json::to_vec(&control_plane.claims()).unwrap();
    let public = control_plane.signing.verifying_key().public_bytes().unwrap();
    // The public key as the secret of HS256 (RFC 8725 section 2.1).
    let confused = SigningKey::hs256("key-1", &public[..]).unwrap();
    let unsigned =
        |header: &str| format!("{}.{}.", base64url::encode(header.as_bytes()), base64url::encode(&payload));
    let signed = |header: &str| control_plane.signing.sign(header, &payload).expose().to_owned();
    let mismatch = &["token_algorithm_mismatch"][..];
    // An unsupported algorithm or an invalid header is refused before any key is used.
    let unsupported = &["token_algorithm_mismatch", "token_malformed"][..];
    let unknown = &["token_key_unknown"][..];
    let cases = [
        ("none", unsigned(r#"{"alg":"none","kid":"key-1","typ":"JWT"}"#), unsupported),
        ("None", unsigned(r#"{"alg":"None","kid":"key-1","typ":"JWT"}"#), unsupported),
        ("none, signed", signed(r#"{"alg":"none","kid":"key-1","typ":"JWT"}"#), unsupported),
        ("HS256 with the public key", confused.mint(&control_plane.claims()).expose().to_owned(), mismatch),
        ("HS256, signed by Ed25519", signed(r#"{"alg":"HS256","kid":"key-1","typ":"JWT"}"#), mismatch),
        ("RS256", signed(r#"{"alg":"RS256","kid":"key-1","typ":"JWT"}"#), unsupported),
        ("no alg", signed(r#"{"kid":"key-1","typ":"JWT"}"#), unsupported),
        ("alg twice", signed(r#"{"alg":"none","alg":"EdDSA","kid":"key-1","typ":"JWT"}"#), unsupported),
        ("unknown kid", signed(r#"{"alg":"EdDSA","kid":"key-9","typ":"JWT"}"#), unknown),
        ("kid in other letters", signed(r#"{"alg":"EdDSA","kid":"KEY-1","typ":"JWT"}"#), unknown),
        ("no kid", signed(r#"{"alg":"EdDSA","typ":"JWT"}"#), &["token_malformed", "token_key_unknown"]),
        ("kid a number", signed(r#"{"alg":"EdDSA","kid":1,"typ":"JWT"}"#), &["token_malformed"]),
        ("crit", signed(r#"{"alg":"EdDSA","kid":"key-1","crit":["exp"],"typ":"JWT"}"#), &["token_malformed"]),
    ];
    for (name, token, codes) in cases {
        let refused = send(control_plane.envoy.address(), bearer(&token)).await.unwrap();
        assert_refused(name, &refused, codes);
    }
}

/// A second spelling of a revoked token would have another fingerprint, and pass.
#[tokio::test]
async fn other_spellings_of_valid_token_are_refused() {
    let control_plane = FakeControlPlane::start().await;
    let token = control_plane.token();
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let mut cases: Vec<(String, String)> = Vec::new();
    let mut case = |name: &str, token: String| cases.push((name.to_owned(), token));
    case("padded header", format!("{header}=.{payload}.{signature}"));
    case("padded payload", format!("{header}.{payload}=.{signature}"));
    case("padded signature", format!("{header}.{payload}.{signature}=="));
    case("tab within", format!("{header}.{payload}\t.{signature}"));
    case("space within", format!("{header}. {payload}.{signature}"));
    case("another segment", format!("{token}.{signature}"));
    case("another, empty segment", format!("{token}."));
    case("leading dot", format!(".{token}"));
    case("a segment less", format!("{header}.{payload}"));
    case("percent-encoded dot", format!("{header}%2E{payload}.{signature}"));
    case("in quotes", format!("\"{token}\""));
    case("with a comma", format!("{token},"));
    // 64 bytes are 86 characters with 4 unused bits: a lax decoder accepts 15 other last characters.
    let (most, last) = signature.split_at(signature.len() - 1);
    let bits = ALPHABET.find(last).unwrap();
    for stray in 1..16 {
        let last = &ALPHABET[bits + stray..=bits + stray];
        case("stray bits", format!("{header}.{payload}.{most}{last}"));
    }
    // The standard alphabet.
    let other = token_with(&control_plane, |token| token.contains('-') || token.contains('_'));
    case("+ and /", other.replace('-', "+").replace('_', "/"));
    for (name, token) in cases {
        let refused = send(control_plane.envoy.address(), bearer(&token)).await.unwrap();
        assert_refused(&name, &refused, &["token_not_canonical", "token_malformed", "credential_ambiguous"]);
    }
}

#[tokio::test]
async fn malformed_tokens_are_refused() {
    let control_plane = FakeControlPlane::start().await;
    let long = format!("{}.{}.{}", "a".repeat(20_000), "b".repeat(20_000), "c".repeat(86));
    let deep = "[".repeat(3000);
    let deep =
        control_plane.signing.sign(r#"{"alg":"EdDSA","kid":"key-1"}"#, deep.as_bytes()).expose().to_owned();
    let cases = [
        ("a word", "x".to_owned(), &["token_malformed", "token_not_canonical"][..]),
        ("dots", "..".to_owned(), &["token_malformed", "token_not_canonical"]),
        ("very long", long, &["token_too_long"]),
        ("deep JSON", deep, &["token_malformed"]),
        (
            "an edge credential",
            format!("ks_edge_{}", "0".repeat(49)),
            &["token_malformed", "token_not_canonical"],
        ),
    ];
    for (name, token, codes) in cases {
        let refused = send(control_plane.envoy.address(), bearer(&token)).await.unwrap();
        assert_refused(name, &refused, codes);
    }
}

#[tokio::test]
async fn refusal_is_a_problem_document() {
    let control_plane = FakeControlPlane::start_with(|settings: &mut Settings| {
        settings.plugin_configuration["realm"] = json!("shop")
    })
    .await;
    let refused =
        send(control_plane.envoy.address(), request_without_credential()).await.unwrap().expect(401).unwrap();
    assert_eq!(refused.headers["content-type"], "application/problem+json");
    let challenge = refused.headers["www-authenticate"].to_str().unwrap();
    assert!(challenge.starts_with("Bearer ") && challenge.contains(r#"realm="shop""#), "{challenge}");
    let body = refused.json().unwrap();
    assert_eq!(body["status"], 401);
    assert!(body["title"].is_string(), "{body}");

    let expired = control_plane.mint(&Claims { exp: Some(1), ..control_plane.claims() });
    let refused = send(control_plane.envoy.address(), bearer(&expired)).await.unwrap().expect(401).unwrap();
    let challenge = refused.headers["www-authenticate"].to_str().unwrap();
    assert!(challenge.contains(r#"error="invalid_token""#), "{challenge}");
}

/// The code is also the name of the counter, and the log never contains the credential.
#[tokio::test]
async fn refusals_are_counted_by_code() {
    let control_plane = FakeControlPlane::start().await;
    let expired = control_plane.mint(&Claims { exp: Some(1), ..control_plane.claims() });
    for _ in 0..3 {
        assert_token_refused(&control_plane, "expired", &expired, "token_expired").await;
    }
    eventually("three are counted", async || {
        let count = control_plane.envoy.metric("keystile_refused_token_expired").await.unwrap();
        if count == 3 { Ok(()) } else { Err(count) }
    })
    .await;
    assert!(!control_plane.envoy.log().contains(&expired), "a credential in Envoy's log");
}

async fn assert_token_refused(control_plane: &FakeControlPlane, name: &str, token: &str, code: &str) {
    let refused = send(control_plane.envoy.address(), bearer(token)).await.unwrap();
    assert_refused(name, &refused, &[code]);
}

fn assert_refused(name: &str, response: &Response, codes: &[&str]) {
    let (status, code) = (response.status, response.code());
    // A valid credential that is not sufficient, as in Envoy's `jwt_authn`.
    let expected = if code == "token_audience_mismatch" { 403 } else { 401 };
    assert!(status == expected && codes.contains(&&*code), "{name}: {status} `{code}` instead of {codes:?}");
    let challenge = response.headers.get("www-authenticate").map(HeaderValue::as_bytes);
    assert!(challenge.is_some_and(|challenge| challenge.starts_with(b"Bearer")), "{name}: no challenge");
}

fn token_with(control_plane: &FakeControlPlane, property: impl Fn(&str) -> bool) -> String {
    std::iter::repeat_with(|| control_plane.token()).find(|token| property(token)).unwrap()
}

/// Adds the order of the group to the second half, s: the same point, other bytes (RFC 8032 section 8.4).
fn plus_order(signature: &[u8]) -> Vec<u8> {
    let mut changed = signature.to_vec();
    let mut carry = 0_u16;
    for (byte, order) in changed[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        carry = sum >> 8;
        *byte = sum.to_le_bytes()[0];
    }
    assert_eq!(carry, 0, "s is below the order, which is near 2^252");
    changed
}

/// 2^252 + 27742317777372353535851937790883648493, little-endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, //
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];
const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Changes claims, given the time.
type Spoil = fn(&mut Claims, u64);

/// HTTP/2 permits any method, and an upstream may treat `delete` as `DELETE`.
#[tokio::test]
async fn lower_case_method_is_refused() {
    let control_plane = FakeControlPlane::start_with(|settings| {
        settings.plugin_configuration["rules"] =
            json!([{ "path": "/", "methods": ["DELETE"], "scopes": ["admin"] }, { "path": "/" }]);
    })
    .await;
    for (method, status) in [("POST", 200), ("DELETE", 403), ("delete", 400), ("Delete", 400)] {
        let token = control_plane.token();
        let answer =
            send_http2(control_plane.envoy.address(), method, &token, HeaderMap::new()).await.unwrap();
        assert_eq!(answer.status, status, "{method}: {}", answer.text());
    }
}
