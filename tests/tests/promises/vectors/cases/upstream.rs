//! What the upstream receives.

use super::super::keys::{ApiKey, CLOCK_MS, IDP, Key, claims, idp_claims, token};
use super::super::suite::{Suite, With as _, bearer, request};
use serde_json::json;
use token::api_key::Kind;
use token::base64url;

pub(super) fn add(suite: &mut Suite) {
    let full = || {
        claims(json!({
            "akid": "keyId-1", "sid": "api-1", "plan": "pro plus", "roles": ["admin", "dev"], "beta": true, "limit": -5,
            "list": ["a,b", "c;d", "100%"], "fraction": 1.5, "nested": { "level": 3 }, "empty": "", "name": "Jürgen",
        }))
    };
    let good = token(Key::EdDsa, &full());
    let mut group = suite.group(
        "forged headers",
        json!({
            "api_keys": {},
            "credentials": [{ "header": "authorization", "scheme": "Bearer" }, { "header": "x-api-key" }, { "cookie": "session" }],
            "rules": [{ "path": "/orders" }, { "path": "/public", "access": "public" }],
        }),
    );
    group.admits("all fields", bearer(&good));
    group.admits(
        "identity headers of the client",
        bearer(&good).with("x-keystile-subject", "root").with("x-keystile-operator", "OP0000000009"),
    );
    group.admits(
        "identity headers in other spellings",
        bearer(&good)
            .with("x_keystile_subject", "root")
            .with("x.keystile.subject", "root")
            .with("x-keystile_new", "a"),
    );
    group.admits("similar names stay", bearer(&good).with("x-keystiles", "a").with("keystile-subject", "a"));
    group.passes("public", request("GET /public").with("x-keystile-subject", "root").with("x-other", "a"));
    group.admits(
        "options of a connection",
        bearer(&good).with("connection", "keep-alive, x-keystile-subject").with("x-other", "a"),
    );
    group.admits(
        "username and API key",
        request("GET /orders")
            .with("x-api-key", ApiKey::new(Kind::Signed, 40, "alice").mint())
            .with("x-username", "alice"),
    );
    group.admits(
        "cookie, and the others stay",
        request("GET /orders").with("cookie", format!("a=1; session={good}; b=2")),
    );
    group.admits("only cookie", request("GET /orders").with("cookie", format!("session={good}")));
    group.admits(
        "headers that occur twice stay",
        bearer(&good).with("x-b", "1").with("x-a", "1").with("x-b", "2").with("x-a", "2"),
    );
    group.admits("empty header", bearer(&good).with("x-empty", ""));
    group.admits(
        "many forged headers",
        (0..6).fold(bearer(&good), |request, at| request.with(&format!("x-keystile-{at}"), "root")),
    );

    let mut group = suite.group(
        "credential is kept",
        json!({
            "credentials": [{ "header": "authorization", "scheme": "Bearer" }, { "query": "access_token" }],
            "strip_credential": false,
        }),
    );
    group.admits("header", bearer(&good));
    group.admits("query", request(&format!("GET /orders?a=1&access_token={good}")));

    let names = json!({ "x-plan": "plan", "x-roles": "roles", "x-beta": "beta", "x-limit": "limit", "x-list": "list",
        "x-fraction": "fraction", "x-level": "nested.level", "x-empty": "empty", "x-name": "name", "x-missing": "missing" });
    for encoding in ["percent", "base64url", "utf8"] {
        let mut group = suite.group(
            &format!("claims in {encoding}"),
            json!({
                "identity": {
                    "headers": { "subject": "x-user", "session": null, "fingerprint": null },
                    "claims": names, "claim_encoding": encoding,
                },
            }),
        );
        group.admits("claims of a token", bearer(&good));
        group.admits(
            "forged claims",
            bearer(&good).with("x-plan", "forged").with("x_roles", "forged").with("x-user", "root"),
        );
        group.admits("token without the claims", bearer(&token(Key::EdDsa, &claims(json!({})))));
    }

    let mut group = suite.group(
        "other prefix of identity headers",
        json!({ "identity_prefix": "x-edge-", "issuers": [{ "issuer": IDP, "audiences": ["orders"] }] }),
    );
    group.admits("token", bearer(&good).with("x-edge-subject", "root").with("x-keystile-subject", "kept"));
    group.admits("token of another issuer", bearer(&token(Key::IdpEdDsa, &idp_claims(json!({})))));

    let secret = base64url::encode(&[7; 32]);
    let mut group = suite.group(
        "assertion",
        json!({
            "allow_inline_secrets": true,
            "identity": { "assertion": { "header": "x-assertion", "secret": secret, "audience": "orders" } },
        }),
    );
    group.admits_at(CLOCK_MS, "for a token", bearer(&good).with("x-assertion", "forged"));
    let soon = token(Key::EdDsa, &claims(json!({ "exp": CLOCK_MS / 1000 + 20 })));
    group.admits_at(CLOCK_MS, "that expires with the token", bearer(&soon));
    group.refuses(
        "no credential",
        "credential_missing",
        request("GET /orders").with("x-assertion", "forged"),
    );
}
