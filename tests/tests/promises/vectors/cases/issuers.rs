//! Tokens of other issuers.

use super::super::keys::{
    EXPIRES, IDP, ISSUED, KEYLESS, Key, LONE, RFC9068, TENANTS, changed, claims, idp_claims, token,
    token_with_header, with_flipped_bit,
};
use super::super::suite::{Suite, With as _, bearer, request};
use serde_json::{Value, json};

pub(super) fn add(suite: &mut Suite) {
    let mut group = suite.group(
        "other issuers",
        json!({
            "issuers": [
                { "issuer": IDP, "audiences": ["orders"] },
                { "issuer": LONE, "audiences": ["orders"] },
                { "issuer": KEYLESS, "audiences": ["orders"] },
                {
                    "issuer": TENANTS,
                    "issuer_parts": { "tenant": { "claim": "tid", "values": ["north", "south", "bad"] } },
                    "audiences": ["orders"],
                },
            ],
        }),
    );
    let with = |change: Value| token(Key::IdpEdDsa, &idp_claims(change));
    let usual = || idp_claims(json!({}));
    for (name, key) in [
        ("EdDSA", Key::IdpEdDsa),
        ("HS256", Key::IdpHs256),
        ("HS384", Key::IdpHs384),
        ("HS512", Key::IdpHs512),
        ("ES256", Key::IdpEs256),
        ("RS256", Key::IdpRs256),
        ("RS512", Key::IdpRs512),
    ] {
        group.admits(name, bearer(&token(key, &usual())));
        let changed = with_flipped_bit(&token(key, &usual()));
        group.refuses(
            &format!("{name} with a changed signature"),
            "token_signature_invalid",
            bearer(&changed),
        );
    }
    let header = |change: Value| bearer(&token_with_header(Key::IdpEdDsa, change, &usual()));
    group.admits("algorithm Ed25519 of RFC 9864", header(json!({ "alg": "Ed25519" })));
    group.admits("type of an access token", header(json!({ "typ": "at+jwt" })));
    group.admits("type with its media type", header(json!({ "typ": "application/JWT" })));
    group.admits("without type", header(json!({ "typ": null })));
    group.admits(
        "reference to a key, which is not fetched",
        header(json!({ "jku": "https://evil.example", "x5t": "a" })),
    );
    group.admits("subject is a number", bearer(&with(json!({ "sub": "4711" }))));
    group.admits("subject in other letters", bearer(&with(json!({ "sub": "Jürgen 100%" }))));
    group.admits("subject with commas", bearer(&with(json!({ "sub": "CN=svc,O=Example Inc" }))));
    group.admits("subject that looks like a root user", bearer(&with(json!({ "sub": "OP0000000001" }))));
    group.admits("expiry is a fraction", bearer(&with(json!({ "exp": 4_102_444_800.5_f64 }))));
    group.admits("without issuance", bearer(&with(json!({ "iat": null }))));
    group.admits("several audiences", bearer(&with(json!({ "aud": ["invoices", "orders"] }))));
    let lone = |change: Value| {
        changed(json!({ "iss": LONE, "sub": "u-1", "aud": "orders", "exp": EXPIRES }), change)
    };
    group.admits("the only key has no kid, nor has the token", bearer(&token(Key::Lone, &lone(json!({})))));
    group.admits(
        "the only key has no kid",
        bearer(&token_with_header(Key::Lone, json!({ "kid": "any" }), &lone(json!({})))),
    );
    let tenant = |issuer: &str, tid: Value| {
        let claims = json!({ "iss": issuer, "sub": "u-1", "aud": "orders", "iat": ISSUED, "exp": EXPIRES });
        bearer(&token(Key::Tenants, &changed(claims, json!({ "tid": tid }))))
    };
    const NORTH: &str = "https://login.example.com/north/v2.0";
    group.admits("a tenant", tenant(NORTH, json!("north")));
    group.refuses(
        "a tenant whose claim names another",
        "token_issuer_unknown",
        tenant(NORTH, json!("south")),
    );
    group.refuses("a tenant without its claim", "token_incomplete", tenant(NORTH, Value::Null));
    group.refuses(
        "a tenant that is not listed",
        "token_issuer_unknown",
        tenant("https://login.example.com/west/v2.0", json!("west")),
    );
    group.refuses(
        "a tenant with a slash",
        "token_issuer_unknown",
        tenant("https://login.example.com/north/x/v2.0", json!("north")),
    );

    for name in ["crit", "b64", "zip", "enc", "jwk"] {
        group.refuses(&format!("parameter {name}"), "token_malformed", header(json!({ name: true })));
    }
    group.refuses("type of a logout token", "token_type_wrong", header(json!({ "typ": "logout+jwt" })));
    group.refuses("unknown type", "token_type_wrong", header(json!({ "typ": "example" })));
    group.refuses("several keys and no kid", "token_key_ambiguous", header(json!({ "kid": null })));
    group.refuses("unknown kid", "token_key_unknown", header(json!({ "kid": "idp-new" })));
    group.refuses(
        "kid of another key",
        "token_signature_invalid",
        header(json!({ "kid": Key::IdpOther.kid() })),
    );
    group.refuses(
        "kid of a key with another algorithm",
        "token_algorithm_mismatch",
        header(json!({ "kid": Key::IdpRs256.kid() })),
    );
    group.refuses("key of this deployment", "token_key_unknown", bearer(&token(Key::EdDsa, &usual())));
    let of_keyless = changed(usual(), json!({ "iss": KEYLESS }));
    group.refuses("issuer without keys", "token_key_unknown", bearer(&token(Key::IdpEdDsa, &of_keyless)));
    group.refuses(
        "key of another issuer",
        "token_key_unknown",
        bearer(&token(Key::IdpEdDsa, &claims(json!({})))),
    );
    group.refuses(
        "unknown issuer",
        "token_issuer_unknown",
        bearer(&with(json!({ "iss": "https://evil.example" }))),
    );
    group.refuses(
        "issuer with a slash at its end",
        "token_issuer_unknown",
        bearer(&with(json!({ "iss": format!("{IDP}/") }))),
    );
    group.refuses("without issuer", "token_issuer_unknown", bearer(&with(json!({ "iss": null }))));
    group.refuses("another audience", "token_audience_mismatch", bearer(&with(json!({ "aud": "invoices" }))));
    group.refuses("without audience", "token_audience_mismatch", bearer(&with(json!({ "aud": null }))));
    group.refuses("without expiry", "token_incomplete", bearer(&with(json!({ "exp": null }))));
    group.refuses("without subject", "token_incomplete", bearer(&with(json!({ "sub": null }))));
    group.refuses("expired", "token_expired", bearer(&with(json!({ "exp": ISSUED + 60 }))));
    group.refuses(
        "not valid before 2099",
        "token_not_yet_valid",
        bearer(&with(json!({ "nbf": EXPIRES - 1 }))),
    );
    group.refuses("issued in 2099", "token_issued_in_future", bearer(&with(json!({ "iat": EXPIRES - 1 }))));
    group.refuses(
        "subject with a line feed",
        "token_subject_malformed",
        bearer(&with(json!({ "sub": "a\nb" }))),
    );
    group.refuses("expiry is a text", "token_malformed", bearer(&with(json!({ "exp": "2100" }))));
    group.refuses("Kuzzle's prefix", "token_not_canonical", bearer(&format!("kauth-{}", with(json!({})))));

    add_settings(suite);
}

/// Settings of issuers beyond their name and audience.
fn add_settings(suite: &mut Suite) {
    let mut group = suite.group(
        "settings of issuers",
        json!({
            "issuers": [
                {
                    "issuer": IDP,
                    "audience_claim": "client_id",
                    "audiences": ["web"],
                    "subject_claim": "username",
                    "required_claims": { "token_use": ["access", "both"] },
                    "typ": ["JWT", "example"],
                    "max_lifetime_seconds": EXPIRES - ISSUED,
                },
                { "issuer": RFC9068, "audiences": ["orders"], "profile": "rfc9068" },
            ],
        }),
    );
    let with = |change: Value| {
        let claims =
            json!({ "client_id": "web", "username": "jo", "token_use": "access", "aud": null, "sub": null });
        token(Key::IdpEdDsa, &changed(idp_claims(claims), change))
    };
    group.admits("audience and subject in other claims", bearer(&with(json!({}))));
    group.refuses("another client", "token_audience_mismatch", bearer(&with(json!({ "client_id": "cli" }))));
    group.refuses("another use", "claim_missing", bearer(&with(json!({ "token_use": "id" }))));
    group.refuses("without use", "claim_missing", bearer(&with(json!({ "token_use": null }))));
    group.refuses(
        "without username",
        "token_incomplete",
        bearer(&with(json!({ "username": null, "sub": "jo" }))),
    );
    group.refuses(
        "lifetime beyond the maximum",
        "token_lifetime_too_long",
        bearer(&with(json!({ "iat": ISSUED - 1 }))),
    );
    group.refuses("lifetime without issuance", "token_incomplete", bearer(&with(json!({ "iat": null }))));
    let rfc9068 = |header: Value, change: Value| {
        let claims = json!({
            "iss": RFC9068, "sub": "u-1", "aud": "orders", "client_id": "web", "jti": "1", "iat": ISSUED, "exp": EXPIRES,
        });
        bearer(&token_with_header(Key::Rfc9068, header, &changed(claims, change)))
    };
    group.admits("access token of RFC 9068", rfc9068(json!({ "typ": "at+jwt" }), json!({})));
    group.refuses("RFC 9068 without type", "token_type_wrong", rfc9068(json!({ "typ": null }), json!({})));
    group.refuses(
        "RFC 9068 without client",
        "token_incomplete",
        rfc9068(json!({ "typ": "at+jwt" }), json!({ "client_id": null })),
    );
    group.admits(
        "own type",
        bearer(&token_with_header(
            Key::IdpEdDsa,
            json!({ "typ": "example" }),
            &idp_claims(json!({ "client_id": "web", "username": "jo", "token_use": "both", "sub": null, "aud": null })),
        )),
    );
    group.refuses("no credential", "credential_missing", request("GET /orders").with("accept", "*/*"));
}
