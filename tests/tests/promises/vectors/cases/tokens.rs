//! Tokens of this deployment.

use super::super::keys::{
    AFTER_WATERMARK, EXPIRES, ISSUED, Key, claims, prefixed, signed, token, token_with_header,
    with_flipped_bit, with_other_s,
};
use super::super::suite::{Suite, With as _, bearer, request};
use serde_json::{Value, json};

pub(super) fn add(suite: &mut Suite) {
    let issuer = harness::fake_control_plane::ISSUER;
    let mut group = suite.group(
        "tokens",
        json!({ "tokens": { "issuer": issuer, "audiences": ["api", "billing"], "prefixes": ["kauth-", "kapikey-"] } }),
    );
    let usual = || claims(json!({}));
    let with = |change: Value| token(Key::EdDsa, &claims(change));
    group.admits("EdDSA", bearer(&with(json!({}))));
    group.admits("HS256", bearer(&token(Key::Hs256, &usual())));
    let es256 = token(Key::Es256, &usual());
    group.admits("ES256", bearer(&es256));
    group.admits("ES256 with the other valid signature", bearer(&with_other_s(&es256)));
    group.admits("RS256", bearer(&token(Key::Rs256, &usual())));
    group.admits("without expiry", bearer(&with(json!({ "exp": null }))));
    group.admits("not before a time that has passed", bearer(&with(json!({ "nbf": ISSUED }))));
    group.admits("one of several audiences", bearer(&with(json!({ "aud": ["other", "billing"] }))));
    group.admits("root user", bearer(&with(json!({ "sub": "OP0000000001" }))));
    group.admits("with AuthKey and session", bearer(&with(json!({ "akid": "keyId-1", "sid": "api-1" }))));
    group.admits(
        "with more claims",
        bearer(&with(json!({ "roles": ["a"], "nested": { "b": [1, 2.5, null] } }))),
    );
    group.admits("issued after all watermarks", bearer(&with(json!({ "iat": AFTER_WATERMARK }))));
    group.admits("Kuzzle's prefix", bearer(&prefixed("kauth-", &usual())));
    group.admits(
        "scheme in lower case",
        request("GET /orders").with("authorization", format!("bearer {es256}")),
    );
    group.admits("without rules, any path", request("DELETE /a//../%2e?x=1").bearer(&es256));

    group.refuses("no credential", "credential_missing", request("GET /orders"));
    group.refuses(
        "another scheme",
        "credential_missing",
        request("GET /orders").with("authorization", "Digest username=\"a\""),
    );
    group.refuses(
        "scheme alone",
        "credential_missing",
        request("GET /orders").with("authorization", "Bearer"),
    );
    group.refuses("not a token", "token_malformed", bearer("abc"));
    group.refuses("two segments", "token_malformed", bearer("e30.e30"));
    group.refuses("five segments", "token_malformed", bearer(&format!("{es256}.e30.e30")));
    group.refuses("header is not JSON", "token_malformed", bearer("YWJj.e30.AAAA"));
    let duplicate = usual().to_string().replacen('{', "{\"sub\":\"OP0000000001\",", 1);
    let header = r#"{"alg":"EdDSA","kid":"key-1","typ":"JWT"}"#;
    group.refuses("duplicate claim", "token_malformed", bearer(&signed(Key::EdDsa, header, &duplicate)));
    group.refuses("expiry is a text", "token_malformed", bearer(&with(json!({ "exp": "2100" }))));
    group.refuses("without operator", "token_malformed", bearer(&with(json!({ "operator": null }))));
    group.refuses(
        "subject with a space",
        "token_malformed",
        bearer(&with(json!({ "sub": "OP0000000001/a b" }))),
    );
    for (name, parameter) in [
        ("critical parameter", json!({ "crit": ["exp"] })),
        ("embedded key", json!({ "jwk": { "kty": "OKP" } })),
        ("unknown parameter", json!({ "x5t": "a" })),
    ] {
        group.refuses(name, "token_malformed", bearer(&token_with_header(Key::EdDsa, parameter, &usual())));
    }
    group.refuses("with padding", "token_not_canonical", bearer(&format!("{}=", with(json!({})))));
    group.refuses("with bits after the last byte", "token_not_canonical", bearer(&with_stray_bits(&es256)));
    group.refuses("character of standard base64", "token_not_canonical", bearer(&format!("+{es256}")));
    group.refuses(
        "prefix removed",
        "token_not_canonical",
        bearer(&prefixed("kauth-", &usual())["kauth-".len()..]),
    );
    group.refuses("prefix added", "token_not_canonical", bearer(&format!("kauth-{es256}")));
    let other_prefix = prefixed("kauth-", &usual()).replacen("kauth-", "kapikey-", 1);
    group.refuses("prefix exchanged", "token_not_canonical", bearer(&other_prefix));
    group.refuses("unknown prefix", "token_not_canonical", bearer(&format!("other-{es256}")));
    group.refuses("9,000 bytes", "token_too_long", bearer(&with(json!({ "text": "a".repeat(6700) }))));
    group.refuses(
        "none as algorithm",
        "token_algorithm_mismatch",
        bearer(&token_with_header(Key::EdDsa, json!({ "alg": "none" }), &usual())),
    );
    group.refuses(
        "public key as a secret",
        "token_algorithm_mismatch",
        bearer(&token_with_header(Key::Hs256, json!({ "kid": "key-1" }), &usual())),
    );
    for (name, key) in
        [("EdDSA", Key::EdDsa), ("HS256", Key::Hs256), ("ES256", Key::Es256), ("RS256", Key::Rs256)]
    {
        group.refuses(
            &format!("{name} with a changed signature"),
            "token_signature_invalid",
            bearer(&with_flipped_bit(&token(key, &usual()))),
        );
    }
    let changed = {
        let [whole, other] = [with(json!({})), with(json!({ "sub": "OP0000000001" }))];
        let payload = other.split('.').nth(1).unwrap().to_owned();
        let parts: Vec<&str> = whole.split('.').collect();
        [parts[0], &payload, parts[2]].join(".")
    };
    group.refuses("changed subject", "token_signature_invalid", bearer(&changed));
    group.refuses(
        "key of another deployment",
        "token_signature_invalid",
        bearer(&token_with_header(Key::Foreign, json!({ "kid": "key-1" }), &usual())),
    );
    group.refuses("unknown kid", "token_key_unknown", bearer(&token(Key::Foreign, &usual())));
    group.refuses(
        "without kid",
        "token_key_unknown",
        bearer(&token_with_header(Key::EdDsa, json!({ "kid": null }), &usual())),
    );
    group.refuses(
        "another issuer",
        "token_issuer_unknown",
        bearer(&with(json!({ "iss": "https://other.test" }))),
    );
    group.refuses("another audience", "token_audience_mismatch", bearer(&with(json!({ "aud": ["other"] }))));
    group.refuses("expired", "token_expired", bearer(&with(json!({ "exp": ISSUED + 60 }))));
    group.refuses(
        "not valid before 2099",
        "token_not_yet_valid",
        bearer(&with(json!({ "nbf": EXPIRES - 1 }))),
    );
    group.refuses("issued in 2099", "token_issued_in_future", bearer(&with(json!({ "iat": EXPIRES - 1 }))));
    group.refuses(
        "two tokens in one header",
        "credential_ambiguous",
        request("GET /orders").with("authorization", format!("Bearer {es256}, Bearer {es256}")),
    );
    let many = (0..1001).fold(bearer(&es256), |request, _| request.with("x", "1"));
    group.refuses("1,002 headers", "headers_too_many", many);
}

/// Returns the token with a bit set that the last character has beyond the last byte.
fn with_stray_bits(token: &str) -> String {
    let last = token.chars().last().unwrap();
    assert!("AQgw".contains(last), "a signature of 64 bytes");
    format!("{}{}", &token[..token.len() - 1], char::from(u8::try_from(last).unwrap() + 1))
}
