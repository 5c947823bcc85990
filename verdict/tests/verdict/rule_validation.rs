//! Invalid rules are refused with their path.

use crate::fixtures::policy;

#[test]
fn invalid_rules_are_refused() {
    for (rules, path, why) in [
        (r#"{}"#, "`rules`", "expected an array"),
        (r#"[{}]"#, "`rules[0]`", "exactly one of `path` and `operations`"),
        (r#"[[]]"#, "`rules[0]`", "expected an object"),
        (r#"[{ "path": "/a", "pth": 1 }]"#, "`rules[0].pth`", "unknown field"),
        (r#"[{ "path": "/a" }, { "path": "a" }]"#, "`rules[1].path`", "does not start"),
        (r#"[{ "path": "/a/*" }]"#, "`rules[0].path`", "neither a literal"),
        (r#"[{ "path": "/a", "path": "/b" }]"#, "`.`", "duplicate member `path` at line 1"),
        (r#"[{ "path": "/a", "methods": ["GET", "put"] }]"#, "`rules[0].methods[1]`", "in upper case"),
        (r#"[{ "path": "/a", "hosts": ["A.b"] }]"#, "`rules[0].hosts[0]`", "lower case"),
        (r#"[{ "path": "/a", "access": "none" }]"#, "`rules[0].access`", "unknown variant"),
        (r#"[{ "path": "/a", "permission": "Sim:*" }]"#, "`rules[0].permission`", "Tag:operation"),
        (r#"[{ "path": "/a", "scopes": ["a b"] }]"#, "`rules[0].scopes[0]`", "without spaces"),
        (r#"[{ "path": "/a", "claims": { "x": null } }]"#, "`rules[0].claims.x`", "must be a string"),
        (
            r#"[{ "path": "/a", "claims": { "x": { "path_variable": "b" } } }]"#,
            "`rules[0]`",
            "no variable `b`",
        ),
        (r#"[{ "path": "/a", "stale": "never" }]"#, "`rules[0].stale", "unknown variant"),
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
