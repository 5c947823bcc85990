//! Responses to refused requests in each style.

use super::super::keys::{Key, claims, revoked, token, with_flipped_bit};
use super::super::suite::{Suite, With as _, request};
use serde_json::{Value, json};

pub(super) fn add(suite: &mut Suite) {
    let rules = || {
        json!([
            { "path": "/orders", "methods": ["GET"] },
            { "path": "/scoped", "scopes": ["orders:read", "orders:write"] },
        ])
    };
    let good = token(Key::EdDsa, &claims(json!({})));
    let get = |path: &str| request(&format!("GET {path}"));
    for style in ["problem", "soshiaconnect", "soracom", "kuzzle"] {
        let mut group = suite
            .group(&format!("style {style}"), json!({ "answers": { "style": style }, "rules": rules() }));
        group.refuses("400", "path_dot_segment", get("/./orders"));
        group.refuses("401 without a credential", "credential_missing", get("/orders"));
        group.refuses("401", "revoked", get("/orders").bearer(&revoked()["eddsa_token"]));
        group.refuses("403", "scope_missing", get("/scoped").bearer(&good));
        group.refuses("404", "route_unmatched", get("/nothing"));
        group.refuses("405", "method_not_allowed", request("DELETE /orders"));
        let identified = get("/orders").with("x-request-id", "b1d1f7c4-9d5c-4b7a-8f0e-6f1d2c3b4a59");
        group.refuses("with the ID of the request", "credential_missing", identified);
        group.refuses(
            "with an ID that is not returned",
            "credential_missing",
            get("/orders").with("x-request-id", "a b"),
        );
    }

    let mut group = suite
        .group("gRPC", json!({ "rules": [{ "path": "/orders.Orders/Get", "scopes": ["orders:read"] }] }));
    let call =
        || request("POST /orders.Orders/Get").with("content-type", "application/grpc").with("te", "trailers");
    group.refuses("no credential", "credential_missing", call());
    group.refuses("a forged token", "token_signature_invalid", call().bearer(&with_flipped_bit(&good)));
    group.refuses("an insufficient token", "scope_missing", call().bearer(&good));
    group.refuses(
        "no such method",
        "route_unmatched",
        request("POST /orders.Orders/Put").with("content-type", "application/grpc+proto"),
    );

    let mut add = |name: &str, answers: Value, realm: Value| {
        let mut group = suite.group(
            &format!("answers with {name}"),
            json!({ "answers": answers, "realm": realm, "rules": rules() }),
        );
        group.refuses("no credential", "credential_missing", get("/orders"));
        group.refuses("insufficient", "scope_missing", get("/scoped").bearer(&good));
        group.refuses("no such path", "route_unmatched", get("/nothing"));
        group.refuses("another method", "method_not_allowed", request("POST /orders"));
    };
    add(
        "resource metadata",
        json!({ "resource_metadata": "https://api.example.com/.well-known/oauth-protected-resource" }),
        json!("orders"),
    );
    add("denied_status 404", json!({ "denied_status": 404 }), json!("keystile"));
    add("unmatched_status 403", json!({ "unmatched_status": 403 }), json!("keystile"));

    let mut group = suite.group(
        "challenge for Basic",
        json!({
            "credentials": [{ "header": "authorization", "scheme": "Bearer" }, { "header": "authorization", "scheme": "Basic", "name": "basic" }],
        }),
    );
    group.refuses("no credential", "credential_missing", get("/orders"));
}
