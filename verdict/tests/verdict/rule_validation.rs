//! Invalid rules are refused with their path.

use crate::fixtures::policy;

#[test]
fn invalid_rules_are_refused() {
    for (rules, path, why) in [
        (r#"{}"#, "`rules`", "expected an array"),
        (r#"[{}]"#, "`rules[0]`", "exactly one of `path` and `operations`"),
        (r#"[[]]"#, "`rules[0]`", "expected an object"),
        (r#"[{ "path": "/a", "pth": 1 }]"#, "`rules[0].pth`", "unknown field"),
        (r#"[{ "path": "/a" }, { "path": "a" }]"#, "`rules[1].path`", "must start with"),
        (r#"[{ "path": "/a/*" }]"#, "`rules[0].path`", "neither a literal"),
        (r#"[{ "path": "/a", "path": "/b" }]"#, "`.`", "duplicate member `path` at line 1"),
        (r#"[{ "path": "/a", "methods": ["GET", "put"] }]"#, "`rules[0].methods[1]`", "in upper case"),
        (r#"[{ "path": "/a", "hosts": ["A.b"] }]"#, "`rules[0].hosts[0]`", "lower case"),
        (r#"[{ "path": "/a", "access": "none" }]"#, "`rules[0].access`", "must be one of"),
        (r#"[{ "path": "/a", "permission": "Sim:*" }]"#, "`rules[0].permission`", "Tag:operation"),
        (r#"[{ "path": "/a", "scopes": ["a b"] }]"#, "`rules[0].scopes`", "without spaces"),
        (r#"[{ "path": "/a", "claims": { "x": null } }]"#, "`rules[0].claims.x`", "must be a string"),
        (
            r#"[{ "path": "/a", "claims": { "x": { "path_variable": "b" } } }]"#,
            "`rules[0]`",
            "no variable `b`",
        ),
        (r#"[{ "path": "/a", "stale": "never" }]"#, "`rules[0].stale", "must be one of"),
        (
            r#"[{ "path": "/a", "stale": { "outage_grace_seconds": -1 } }]"#,
            "`rules[0].stale.outage_grace_seconds`",
            "a whole number, 0 or more",
        ),
        (
            r#"[{ "path": "/a", "credentials": ["cookie"] }]"#,
            "`rules[0].credentials`",
            "not among the `credentials`",
        ),
        (r#"[{ "path": "/a", "access": "public", "permission": "A:b" }]"#, "`rules[0]`", "a public rule"),
        (r#"[{ "path": "/a", "access": "public", "scopes": ["a"] }]"#, "`rules[0]`", "a public rule"),
        (
            r#"[{ "path": "/a", "access": "optional", "permission": "A:b" }]"#,
            "`rules[0]`",
            "an optional rule",
        ),
        (
            r#"[{ "path": "/a", "operations": { "table": "GET\t/a\tA:b" } }]"#,
            "`rules[0]`",
            "exactly one of `path`",
        ),
        (
            r#"[{ "operations": { "table": "GET\t/a\tA:b" }, "permission": "A:b" }]"#,
            "`rules[0]`",
            "whose names are",
        ),
        (r#"[{ "operations": { "table": "GET\t/a" } }]"#, "`rules[0].operations`", "line 1"),
        // E2: alternatives.
        (r#"[{ "path": "/a", "any_of": [{}] }]"#, "`rules[0]`", "must have `issuers`"),
        (r#"[{ "path": "/a", "any_of": [{ "scope": ["a"] }] }]"#, "`rules[0].any_of[0].scope`", "unknown"),
        (
            r#"[{ "path": "/a", "any_of": [{ "scopes": ["a"], "path": "/b" }] }]"#,
            "`rules[0]`",
            "nothing else",
        ),
        (
            r#"[{ "path": "/a", "access": "public", "any_of": [{ "scopes": ["a"] }] }]"#,
            "`rules[0]`",
            "a public rule",
        ),
        (
            r#"[{ "path": "/a", "access": "optional", "any_of": [{ "permission": "A:b" }] }]"#,
            "`rules[0]`",
            "an optional rule",
        ),
        (
            r#"[{ "operations": { "table": "GET\t/a\tA:b" }, "any_of": [{ "permission": "A:b" }] }]"#,
            "`rules[0]`",
            "whose names are",
        ),
        (
            r#"[{ "path": "/a", "any_of": [{ "claims": { "x": { "all_of": ["a", { "path_variable": "b" }] } } }] }]"#,
            "`rules[0]`",
            "no variable `b`",
        ),
        (r#"[{ "path": "/a", "encoded_slash": "yes" }]"#, "`rules[0].encoded_slash`", "must be"),
    ] {
        let error = policy(&format!(r#""rules": {rules}"#)).unwrap_err();
        assert!(error.starts_with(path) && error.contains(why), "{rules}: {error}");
    }
    for (members, path) in [
        (r#""unmatched": "allow""#, "`unmatched`"),
        (r#""client_address": "peer""#, "`client_address`"),
        (r#""client_address": { "header": "X" }"#, "`client_address.header`"),
        (r#""client_address": { "header": "x", "trusted_hops": 0 }"#, "`client_address.trusted_hops`"),
        (r#""answers": { "style": "html" }"#, "`answers.style`"),
        (r#""answers": { "denied_status": 401 }"#, "`answers.denied_status`"),
        (r#""answers": { "resource_metadata": "http://x" }"#, "`answers.resource_metadata`"),
        (r#""answers": { "resource_metadata": "https://x\"y" }"#, "`answers.resource_metadata`"),
    ] {
        let error = policy(members).unwrap_err();
        assert!(error.starts_with(path), "{members}: {error}");
    }
}

/// What looks like a pattern, and would match itself only.
#[test]
fn e3_patterns_that_would_be_compared_as_they_are_are_refused_with_path_and_remedy() {
    for (members, path, remedy) in [
        (r#""tokens": { "issuer": "https://*.example", "audiences": ["api"] }"#, "`tokens`", "list each"),
        (r#""tokens": { "issuer": "https://a", "audiences": ["api", "*"] }"#, "`tokens`", "list each"),
        (
            r#""issuers": [{ "issuer": "https://login.example/*/v2.0", "audiences": ["api"] }]"#,
            "`issuers[0]`",
            "issuer_parts",
        ),
        (r#""issuers": [{ "issuer": "https://a", "audiences": ["*"] }]"#, "`issuers[0]`", "list each"),
        (r#""rules": [{ "path": "/a", "audiences": ["*"] }]"#, "`rules[0].audiences`", "list each"),
        (
            r#""rules": [{ "path": "/a", "issuers": ["https://*"] }]"#,
            "`rules[0].issuers`",
            "leave the member out",
        ),
        (
            r#""rules": [{ "path": "/a", "any_of": [{ "scopes": ["a"] }, { "audiences": ["a", "b*"] }] }]"#,
            "`rules[0].audiences`",
            "list each",
        ),
        (
            r#""rules": [{ "path": "/a", "claims": { "email": "*@example.com" } }]"#,
            "`rules[0].claims.email`",
            "suffix",
        ),
        (
            r#""rules": [{ "path": "/a", "claims": { "email": ["a", "^b"] } }]"#,
            "`rules[0].claims.email`",
            "exact",
        ),
        (
            r#""rules": [{ "path": "/a", "claims": { "x": { "all_of": ["{id}"] } } }]"#,
            "`rules[0].claims.x`",
            "path_variable",
        ),
        (
            r#""rules": [{ "path": "/a", "claims": { "x": { "suffix": "example.com" } } }]"#,
            "`rules[0].claims.x`",
            "such as `@`",
        ),
        (r#""rules": [{ "path": "/a", "scopes": ["orders:*"] }]"#, "`rules[0].scopes`", "prefix"),
        (
            r#""rules": [{ "path": "/a", "claims": { "authorities.0.authority": "A" } }]"#,
            "`rules[0].claims.authorities.0.authority`",
            "JSON pointer",
        ),
        (
            r#""rules": [{ "path": "/a", "claims": { "https://example.com/role": "A" } }]"#,
            "`rules[0].claims.https://example.com/role`",
            "JSON pointer",
        ),
        (
            r#""identity": { "claims": { "x-role": "authorities.0.authority" } }"#,
            "`identity.claims.x-role`",
            "JSON pointer",
        ),
        (r#""rules": [{ "path": "/users/:id" }]"#, "`rules[0].path`", "Write `{name}`"),
        (r#""rules": [{ "path": "/users/*" }]"#, "`rules[0].path`", "Write `{name}`"),
        (r#""rules": [{ "path": "/users/{id:[0-9]+}" }]"#, "`rules[0].path`", "Write `{name}`"),
        (r#""rules": [{ "path": "/files/{path...}" }]"#, "`rules[0].path`", "`/**`"),
        (r#""rules": [{ "path": "/a", "hosts": ["*"] }]"#, "`rules[0].hosts[0]`", "leave `hosts` out"),
        (r#""rules": [{ "path": "/a", "methods": ["*"] }]"#, "`rules[0].methods[0]`", "leave `methods` out"),
    ] {
        let error = policy(members).unwrap_err();
        assert!(error.starts_with(path) && error.contains(remedy), "{members}: {error}");
    }
    for good in [
        r#""rules": [{ "path": "/a", "claims": { "sub": "auth0|507f", "email": { "exact": "*@example.com" } } }]"#,
        r#""rules": [{ "path": "/a", "claims": { "email": { "suffix": "@example.com" }, "email_verified": true } }]"#,
        r#""rules": [{ "path": "/a", "claims": { "sub": { "prefix": "repo:org/name:" }, "x": { "present": true } } }]"#,
        r#""rules": [{ "path": "/a", "scopes": [{ "exact": "orders:*" }] }]"#,
        r#""rules": [{ "path": "/Products/$count" }]"#,
    ] {
        policy(good).unwrap();
    }
}
