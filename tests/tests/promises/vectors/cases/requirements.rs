//! What rules require of credentials.

use super::super::keys::{ApiKey, IDP, ISSUED, Key, claims, idp_claims, revoked, token, with_flipped_bit};
use super::super::suite::{Suite, With as _, request};
use harness::fake_control_plane::ISSUER;
use serde_json::{Value, json};
use token::api_key::Kind;

pub(super) fn add(suite: &mut Suite) {
    let mut group = suite.group(
        "requirements",
        json!({
            "issuers": [{ "issuer": IDP, "audiences": ["orders", "billing"] }],
            "rules": [
                { "path": "/own", "issuers": [ISSUER] },
                { "path": "/billing", "audiences": ["billing"] },
                { "path": "/all-scopes", "scopes": ["orders:read", "orders:write"] },
                { "path": "/any-scope", "scopes": { "any_of": ["orders:read", "orders:write"] } },
                { "path": "/scope-prefix", "scopes": { "prefix": "orders:" } },
                { "path": "/role", "claims": { "realm_access.roles": ["admin", "auditor"] } },
                { "path": "/roles", "claims": { "realm_access.roles": { "all_of": ["admin", "auditor"] } } },
                { "path": "/pointer", "claims": { "/https:~1~1example.com~1tier": 3 } },
                { "path": "/verified", "claims": { "email_verified": true, "email": { "suffix": "@example.com" } } },
                { "path": "/present", "claims": { "tenant": { "present": true } } },
                { "path": "/array", "claims": { "authorities.authority": "ROLE_OWNER" } },
                {
                    "path": "/accounts/{id}",
                    "any_of": [{ "claims": { "sub": { "path_variable": "id" } } }, { "scopes": ["admin"] }],
                },
                { "path": "/optional", "access": "optional", "scopes": ["orders:read"] },
            ],
        }),
    );
    let get = |path: &str, change: Value| {
        request(&format!("GET {path}")).bearer(&token(Key::IdpEdDsa, &idp_claims(change)))
    };
    let local = |path: &str| request(&format!("GET {path}")).bearer(&token(Key::EdDsa, &claims(json!({}))));
    group.admits("issuer", local("/own"));
    group.refuses("another issuer", "issuer_not_accepted", get("/own", json!({})));
    group.admits("audience", get("/billing", json!({ "aud": ["orders", "billing"] })));
    group.refuses("another audience", "token_audience_mismatch", get("/billing", json!({})));
    group.admits("all scopes", get("/all-scopes", json!({ "scope": "orders:write profile orders:read" })));
    group.admits("all scopes in scp", get("/all-scopes", json!({ "scp": ["orders:read", "orders:write"] })));
    group.refuses(
        "one of two scopes",
        "scope_missing",
        get("/all-scopes", json!({ "scope": "orders:read" })),
    );
    group.admits("any scope", get("/any-scope", json!({ "scope": "orders:write" })));
    group.refuses("no scope", "scope_missing", get("/any-scope", json!({ "scope": "orders" })));
    group.admits("prefix of a scope", get("/scope-prefix", json!({ "scope": "orders:delete" })));
    group.refuses(
        "scope without the prefix",
        "scope_missing",
        get("/scope-prefix", json!({ "scope": "ordersx" })),
    );
    let roles = |roles: Value| json!({ "realm_access": { "roles": roles } });
    group.admits("claim in a path", get("/role", roles(json!(["user", "auditor"]))));
    group.refuses("claim with another value", "claim_missing", get("/role", roles(json!(["user"]))));
    group.refuses("claim in another case", "claim_missing", get("/role", roles(json!(["Admin"]))));
    group.admits("all of the values", get("/roles", roles(json!(["auditor", "admin"]))));
    group.refuses("one of the values", "claim_missing", get("/roles", roles(json!(["admin"]))));
    group.admits("claim with a URL as its name", get("/pointer", json!({ "https://example.com/tier": 3 })));
    group.refuses(
        "number as a text",
        "claim_missing",
        get("/pointer", json!({ "https://example.com/tier": "3" })),
    );
    let mail = |mail: &str, is_verified: bool| json!({ "email": mail, "email_verified": is_verified });
    group.admits("suffix", get("/verified", mail("jo@example.com", true)));
    group.refuses(
        "suffix of a longer name",
        "claim_missing",
        get("/verified", mail("jo@bad.example.com", true)),
    );
    group.refuses(
        "address that is not verified",
        "claim_missing",
        get("/verified", mail("jo@example.com", false)),
    );
    group.admits("claim is present", get("/present", json!({ "tenant": 0 })));
    group.refuses("claim is empty", "claim_missing", get("/present", json!({ "tenant": "" })));
    let authorities = json!([{ "authority": "ROLE_USER" }, { "authority": "ROLE_OWNER" }]);
    group.admits("claim in members of an array", get("/array", json!({ "authorities": authorities })));
    group.admits("first alternative", get("/accounts/u-1", json!({})));
    group.admits("second alternative", get("/accounts/u-2", json!({ "scope": "admin" })));
    group.refuses("no alternative", "claim_missing", get("/accounts/u-2", json!({})));
    group.passes("optional without a credential", request("GET /optional"));
    group.refuses("optional with an insufficient credential", "scope_missing", get("/optional", json!({})));

    add_permissions(suite);
    add_places(suite);
    add_report(suite);
}

fn add_permissions(suite: &mut Suite) {
    let rules = || {
        json!([
            { "path": "/sims/{sim_id}", "methods": ["GET"], "permission": "Sim:getSim" },
            { "path": "/sims/{sim_id}", "methods": ["DELETE"], "permission": "Sim:deleteSim" },
        ])
    };
    let mut group = suite.group(
        "permissions",
        json!({ "api_keys": {}, "issuers": [{ "issuer": IDP, "audiences": ["orders"] }], "rules": rules() }),
    );
    let of = |user: &str| token(Key::EdDsa, &claims(json!({ "sub": format!("OP0000000001/{user}") })));
    let get = |credential: &str| request("GET /sims/1").bearer(credential);
    let delete = |credential: &str| request("DELETE /sims/1").bearer(credential);
    group.admits("granted", get(&of("alice")));
    group.refuses("not granted", "permission_denied", delete(&of("alice")));
    group.admits("everything but one operation", get(&of("bob")));
    group.refuses("a denial takes precedence", "permission_denied", delete(&of("bob")));
    group.refuses("an empty grant", "permission_denied", get(&of("nothing")));
    group.refuses("no grant", "permission_denied", get(&of("stranger")));
    group.admits(
        "the root user has every permission",
        delete(&token(Key::EdDsa, &claims(json!({ "sub": "OP0000000001" })))),
    );
    group.admits("user name in a variable", request("GET /sims/own").bearer(&of("own")));
    group.refuses("another user name in a variable", "permission_denied", get(&of("own")));
    group.refuses("a date that has passed", "permission_denied", get(&of("past")));
    group.admits("client address", get(&of("office")).by_client("203.0.113.7"));
    group.refuses(
        "another client address",
        "permission_denied",
        get(&of("office")).by_client("198.51.100.7"),
    );
    let key = ApiKey::new(Kind::Signed, 30, "alice").mint();
    group.admits("API key of a user", get(&key).with("x-username", "alice"));
    group.refuses(
        "API key of a user, not granted",
        "permission_denied",
        delete(&key).with("x-username", "alice"),
    );
    group.admits("API key of a root user", delete(&ApiKey::new(Kind::Signed, 31, "").mint()));
    group.admits("subject of another issuer", delete(&token(Key::IdpEdDsa, &idp_claims(json!({})))));
    group.refuses(
        "another subject of the issuer",
        "permission_denied",
        get(&token(Key::IdpEdDsa, &idp_claims(json!({ "sub": "OP0000000001" })))),
    );

    let mut group = suite.group(
        "client address in a header",
        json!({ "rules": rules(), "client_address": { "header": "x-client-address", "trusted_hops": 2 } }),
    );
    let through = |hops: &str| get(&of("office")).with("x-client-address", hops);
    group.admits("behind a trusted proxy", through("203.0.113.7, 198.51.100.1"));
    group.refuses(
        "an entry before the trusted ones",
        "permission_denied",
        through("203.0.113.7, 192.0.2.1, 198.51.100.1"),
    );
    group.refuses("too few entries", "permission_denied", through("203.0.113.7"));
}

/// Rules that search some locations only, and what they remove.
fn add_places(suite: &mut Suite) {
    let mut group = suite.group(
        "locations of rules",
        json!({
            "credentials": [{ "header": "authorization", "scheme": "Bearer" }, { "cookie": "session" }],
            "api_keys": {},
            "rules": [
                { "path": "/bearer", "credentials": ["authorization"] },
                { "path": "/cookie", "credentials": ["cookie:session"] },
                { "path": "/any" },
                { "path": "/kept", "strip_credential": false },
                { "path": "/public-stripped", "access": "public", "strip_credential": true },
                { "path": "/visitors", "access": "optional", "ignore_unusable_credentials": true },
                {
                    "path": "/visitors-kept", "access": "optional", "ignore_unusable_credentials": true,
                    "strip_credential": false,
                },
            ],
        }),
    );
    let good = token(Key::EdDsa, &claims(json!({})));
    let cookie = |path: &str, value: &str| {
        request(&format!("GET {path}")).with("cookie", format!("lang=en; session={value}"))
    };
    group.admits("searched header", request("GET /bearer").bearer(&good));
    group.admits("a cookie that is not searched stays", cookie("/bearer", "abc").bearer(&good));
    group.refuses("cookie alone", "credential_misplaced", cookie("/bearer", &good));
    group.admits("searched cookie", cookie("/cookie", &good));
    group.refuses("header alone", "credential_misplaced", request("GET /cookie").bearer(&good));
    group.refuses("both, and both are searched", "credential_ambiguous", cookie("/any", &good).bearer(&good));
    group.admits("the credential is kept", request("GET /kept").bearer(&good));
    group.passes("public rule that removes credentials", cookie("/public-stripped", &good).bearer(&good));
    let expired = token(Key::EdDsa, &claims(json!({ "exp": ISSUED + 1 })));
    group.admits("visitor with a good token", cookie("/visitors", &good));
    group.passes("visitor with an expired cookie", cookie("/visitors", &expired));
    group.passes("visitor with the cookie of another application", cookie("/visitors", "abc"));
    let elsewhere = token(Key::EdDsa, &claims(json!({ "iss": "https://other.test" })));
    group.passes("visitor with a token of another issuer", cookie("/visitors", &elsewhere));
    group.refuses("visitor with a revoked token", "revoked", cookie("/visitors", &revoked()["eddsa_token"]));
    group.refuses(
        "visitor with a forged token",
        "token_signature_invalid",
        cookie("/visitors", &with_flipped_bit(&good)),
    );
    group.passes("visitor whose other cookie is kept", cookie("/visitors-kept", "abc"));
    group.refuses(
        "visitor whose expired cookie would be kept",
        "token_expired",
        cookie("/visitors-kept", &expired),
    );
}

fn add_report(suite: &mut Suite) {
    use harness::vectors::Decision::{Admitted, Passed};
    let mut group = suite.group(
        "report mode",
        json!({
            "mode": "report",
            "rules": [
                { "path": "/usual" },
                { "path": "/scoped", "scopes": ["sims:read"] },
                { "path": "/enforced", "mode": "enforce" },
                { "path": "/public", "access": "public" },
            ],
        }),
    );
    let good = token(Key::EdDsa, &claims(json!({})));
    let get = |path: &str| {
        request(&format!("GET {path}")).with("x-keystile-report", "forged").with("x-keystile-subject", "root")
    };
    group.admits("a good token", get("/usual").bearer(&good));
    group.reports("no credential", Passed, "credential_missing", get("/usual"));
    group.reports("a malformed token", Passed, "token_malformed", get("/usual").bearer("abc"));
    group.reports("a revoked token", Passed, "revoked", get("/usual").bearer(&revoked()["eddsa_token"]));
    group.reports("an insufficient token", Admitted, "scope_missing", get("/scoped").bearer(&good));
    group.reports("no such path", Passed, "route_unmatched", get("/nothing").bearer(&good));
    group.refuses("a rule that enforces", "credential_missing", get("/enforced"));
    group.refuses("an ambiguous path, as a rule enforces", "path_dot_segment", get("/public/../enforced"));
    group.passes("public", get("/public").bearer("abc"));

    let mut group = suite.group(
        "report mode of one rule",
        json!({ "rules": [{ "path": "/reported", "mode": "report" }, { "path": "/enforced" }] }),
    );
    group.reports("the rule", Passed, "credential_missing", get("/reported"));
    group.refuses("another rule", "credential_missing", get("/enforced"));
}
