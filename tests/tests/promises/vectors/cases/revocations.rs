//! Revocations, watermarks, gaps and the base.

use super::super::keys::{
    AFTER_WATERMARK, ApiKey, CLOCK_MS, COVERED, EXPIRES, IDP, IN_GAP, ISSUED, Key, TENANTS,
    UNREVOKED_IN_BASE, claims, idp_claims, in_base, known_in_gap, prefixed, revoked, revoked_in_tail, token,
    unrevoked, with_flipped_bit, with_other_s,
};
use super::super::suite::{Suite, With as _, bearer, request};
use serde_json::{Value, json};
use token::api_key::Kind;

pub(super) fn add(suite: &mut Suite) {
    let issuer = harness::fake_control_plane::ISSUER;
    let members = || {
        json!({
            "tokens": { "issuer": issuer, "audiences": ["api"], "prefixes": ["kauth-"] },
            "api_keys": {},
            "issuers": [
                { "issuer": IDP, "audiences": ["orders"] },
                { "issuer": TENANTS, "issuer_parts": { "tenant": { "claim": "tid" } }, "audiences": ["orders"] },
            ],
        })
    };
    let mut group = suite.group("revocations", members());
    for (name, credential) in revoked() {
        let username = match name {
            "api_key_of_format_1" => Some("OP0000000001/alice"),
            "short_api_key" => Some("alice"),
            _ => None,
        };
        let mut request = bearer(&credential);
        if let Some(username) = username {
            request = request.with("x-username", username);
        }
        group.refuses(&name.replace('_', " "), "revoked", request);
    }
    let es256 = &revoked()["es256_token"];
    group.refuses("ES256 token with the other valid signature", "revoked", bearer(&with_other_s(es256)));
    group.refuses(
        "revoked token with a changed signature",
        "token_signature_invalid",
        bearer(&with_flipped_bit(&revoked()["eddsa_token"])),
    );
    group.refuses("in the tail", "revoked", bearer(&revoked_in_tail()));
    group.admits("un-revoked", bearer(&unrevoked()));
    group.admits("another token of the same subject", bearer(&token(Key::EdDsa, &claims(json!({})))));
    group.admits("another token with a prefix", bearer(&prefixed("kauth-", &claims(json!({})))));
    let expired = token(Key::EdDsa, &claims(json!({ "jti": "revoked-eddsa", "exp": ISSUED + 1 })));
    group.refuses("expired tokens are not looked up", "token_expired", bearer(&expired));
    group.refuses(
        "issued in a gap, and unknown",
        "issuance_unknown",
        bearer(&token(Key::EdDsa, &claims(json!({ "iat": IN_GAP })))),
    );
    group.admits("issued in a gap, and known", bearer(&known_in_gap()));
    group.admits(
        "issued in a gap by another issuer",
        bearer(&token(Key::IdpEdDsa, &idp_claims(json!({ "iat": IN_GAP })))),
    );

    let operator = |id: &str, sub: &str| json!({ "operator": { "operatorId": id }, "sub": sub });
    let local = |change: Value| token(Key::EdDsa, &claims(change));
    for (name, change) in [
        ("operator", operator("OP0000000002", "OP0000000002")),
        ("user of the operator", operator("OP0000000002", "OP0000000002/alice")),
        ("operator in the tail", operator("OP0000000003", "OP0000000003")),
        ("user", json!({ "sub": "OP0000000001/mallory" })),
        ("AuthKey", json!({ "akid": "keyId-9" })),
        ("session", json!({ "sid": "api-9" })),
    ] {
        group.refuses(&format!("watermark of {name}"), "watermark", bearer(&local(change.clone())));
        let mut later = change;
        later["iat"] = AFTER_WATERMARK.into();
        group.admits(&format!("after the watermark of {name}"), bearer(&local(later)));
    }
    let other = |change: Value| token(Key::IdpEdDsa, &idp_claims(change));
    for (name, change) in [
        ("subject of another issuer", json!({ "sub": "mallory" })),
        ("client", json!({ "client_id": "client-9" })),
        ("client in azp", json!({ "azp": "client-9" })),
        ("session of another issuer", json!({ "sid": "session-9" })),
        ("token id", json!({ "jti": "token-9" })),
    ] {
        group.refuses(&format!("watermark of {name}"), "watermark", bearer(&other(change.clone())));
        let mut later = change;
        later["iat"] = AFTER_WATERMARK.into();
        group.admits(&format!("after the watermark of {name}"), bearer(&other(later)));
    }
    group.refuses(
        "watermark of client for a token without issuance",
        "watermark",
        bearer(&other(json!({ "client_id": "client-9", "iat": null }))),
    );
    group.admits(
        "session of another issuer in a token of this deployment",
        bearer(&local(json!({ "sid": "session-9" }))),
    );
    let of_tenant = |tenant: &str| {
        let claims = json!({
            "iss": format!("https://login.example.com/{tenant}/v2.0"), "tid": tenant, "sub": "u-1", "aud": "orders",
            "iat": ISSUED, "exp": EXPIRES,
        });
        token(Key::Tenants, &claims)
    };
    group.refuses("watermark of a tenant", "watermark", bearer(&of_tenant("bad")));
    group.admits("another tenant", bearer(&of_tenant("good")));
    let key =
        |number: u64, issued_at: u64| ApiKey { issued_at, ..ApiKey::new(Kind::Signed, number, "") }.mint();
    group.refuses("watermark of an API key", "watermark", bearer(&key(909, ISSUED)));
    group.admits("after the watermark of an API key", bearer(&key(909, AFTER_WATERMARK)));

    let mut group = suite.group_with_bundle("watermark of all", Some("global"), members());
    group.refuses("token", "watermark", bearer(&local(json!({}))));
    group.refuses("token of another issuer", "watermark", bearer(&other(json!({}))));
    group.refuses("API key", "watermark", bearer(&key(1, ISSUED)));
    group.admits("later token", bearer(&local(json!({ "iat": AFTER_WATERMARK }))));

    let mut group = suite.group_with_bundle("watermarks of keys", Some("keys"), members());
    group.refuses("signing key", "watermark", bearer(&local(json!({}))));
    group.admits("another signing key", bearer(&token(Key::Hs256, &claims(json!({})))));
    group.refuses("key of another issuer", "watermark", bearer(&other(json!({}))));
    group.admits("another key of the issuer", bearer(&token(Key::IdpOther, &idp_claims(json!({})))));
    group.refuses("issuer that is a pattern", "watermark", bearer(&of_tenant("good")));
    let format1 = ApiKey::new(Kind::Format1, 1, "").mint();
    group.refuses("generation of API keys", "watermark", bearer(&format1));
    group.admits("another generation", bearer(&key(1, ISSUED)));

    let mut group = suite.group_with_bundle("base", Some("base"), json!({ "uncovered": "deny" }));
    for number in [0, 2, 18] {
        group.admits(&format!("number {number} is good"), bearer(&in_base(number)));
    }
    for number in [1, 3, 19] {
        group.refuses(&format!("number {number} is revoked"), "revoked", bearer(&in_base(number)));
    }
    group.admits("un-revoked after the base", bearer(&in_base(UNREVOKED_IN_BASE)));
    group.refuses("issued after the base", "not_covered", bearer(&local(json!({ "iat": COVERED + 1 }))));
    group.refuses("key without a base", "not_covered", bearer(&token(Key::Hs256, &claims(json!({})))));

    add_freshness(suite);
}

/// Bundles that are stale, or missing. Hosts with a real clock can't test staleness.
fn add_freshness(suite: &mut Suite) {
    let mut group = suite.group(
        "freshness",
        json!({
            "outage_grace_seconds": 900,
            "rules": [
                { "path": "/usual" },
                { "path": "/deny", "stale": "deny" },
                { "path": "/longer", "stale": { "outage_grace_seconds": 3600 } },
                { "path": "/recent", "stale": { "issued_within_seconds": 1000 } },
                { "path": "/public", "access": "public" },
            ],
        }),
    );
    // The manifest of a test expires after 300 seconds.
    let stale_at = CLOCK_MS + 300_000;
    let recent = token(Key::EdDsa, &claims(json!({ "iat": CLOCK_MS / 1000 })));
    let get = |path: &str| request(&format!("GET {path}")).bearer(&recent);
    group.admits_at(stale_at - 1, "fresh", get("/deny"));
    group.refuses_at(stale_at, "stale, deny", "bundle_stale_denied", get("/deny"));
    group.admits_at(stale_at + 899_999, "stale, within the grace", get("/usual"));
    group.refuses_at(stale_at + 900_000, "stale, after the grace", "bundle_stale", get("/usual"));
    group.admits_at(stale_at + 3_599_999, "stale, within the grace of the rule", get("/longer"));
    group.refuses_at(
        stale_at + 3_600_000,
        "stale, after the grace of the rule",
        "bundle_stale",
        get("/longer"),
    );
    group.admits_at(CLOCK_MS + 999_999, "stale, issued recently", get("/recent"));
    group.refuses_at(
        CLOCK_MS + 1_000_000,
        "stale, issued earlier",
        "bundle_stale_issued_earlier",
        get("/recent"),
    );
    group.refuses_at(
        stale_at + 900_000,
        "a stale bundle refuses what it names",
        "revoked",
        request("GET /usual").bearer(&revoked()["eddsa_token"]),
    );

    let mut group = suite.group_with_bundle(
        "no bundle",
        None,
        json!({
            "control_plane": { "cluster": "keystile" },
            "rules": [
                { "path": "/usual" },
                { "path": "/public", "access": "public" },
                { "path": "/optional", "access": "optional" },
            ],
        }),
    );
    let good = token(Key::EdDsa, &claims(json!({})));
    group.refuses("a good token", "bundle_missing", request("GET /usual").bearer(&good));
    group.refuses("no credential", "bundle_missing", request("GET /usual"));
    group.refuses(
        "a good token for an optional rule",
        "bundle_missing",
        request("GET /optional").bearer(&good),
    );
    group.passes("nothing for an optional rule", request("GET /optional"));
    group.passes("public", request("GET /public"));
    group.refuses("no such path", "route_unmatched", request("GET /nothing"));
}
