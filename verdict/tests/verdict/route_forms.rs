//! The forms of paths and of requirements in rules.

use std::sync::Arc;

use token::Claims;
use verdict::{Decision, Reason};

use crate::fixtures::{
    NOW_MS, alice_bearer, bearer, builder, claims, decision_code, gate_with, set_grant, snapshot,
};

#[test]
fn e1_one_of_two_scopes_is_sufficient_and_the_challenge_names_the_first() {
    let gate = gate_with(
        r#""rules": [
            { "path": "/any", "scopes": { "any_of": ["orders:read", "orders:write"] } },
            { "path": "/both", "scopes": ["a", { "any_of": ["b", "c"] }, { "prefix": "d:" }] },
            { "path": "/groups", "claims": { "aud": { "all_of": ["api", "billing"] } } }
        ]"#,
    );
    let snapshot = snapshot(&mut builder());
    let (token, billing) =
        (alice_bearer(), bearer(&Claims { aud: vec!["billing".into(), "api".into()], ..claims() }));
    let code = |line, token: &str| decision_code(&gate, Some(&snapshot), line, &[("authorization", token)]);
    assert_eq!(code("GET /any", &token), "scope_missing");
    assert_eq!(code("GET /groups", &token), "claim_missing");
    assert_eq!(code("GET /groups", &billing), "admitted");
    for (path, expected) in [("/any", r#"scope="orders:read""#), ("/both", r#"scope="a b""#)] {
        let headers =
            [(":method", &b"GET"[..]), (":path", path.as_bytes()), ("authorization", token.as_bytes())];
        let Decision::Refuse(refusal) = gate.decide(headers.into_iter(), Some(&snapshot), NOW_MS) else {
            panic!("{path}")
        };
        let response = gate.response(&refusal, &headers);
        let challenge = &response.headers.iter().find(|(name, _)| *name == "www-authenticate").unwrap().1;
        assert!(challenge.contains(expected), "{challenge}");
    }
}

#[test]
fn e2_one_alternative_of_a_rule_is_sufficient() {
    let gate = gate_with(
        r#""rules": [{
            "path": "/operators/{id}",
            "claims": { "sid": "api-1" },
            "any_of": [
                { "claims": { "operator.operatorId": { "path_variable": "id" } } },
                { "claims": { "akid": "admin" } },
                { "permission": "Operator:get", "audiences": ["billing"] }
            ]
        }]"#,
    );
    let mut builder = builder();
    set_grant(
        &mut builder,
        "OP0123456789/alice",
        r#"{"statements":[{"effect":"allow","api":"Operator:get"}]}"#,
    );
    let snapshot = snapshot(&mut builder);
    let token = |change: fn(&mut Claims)| {
        let mut claims = claims();
        change(&mut claims);
        bearer(&claims)
    };
    for (path, token, expected) in [
        ("/operators/OP0123456789", token(|_| ()), "admitted"),
        // The reason is that of the first alternative.
        ("/operators/OP1", token(|_| ()), "claim_missing"),
        ("/operators/OP1", token(|claims| claims.akid = Some("admin".into())), "admitted"),
        ("/operators/OP1", token(|claims| claims.aud.push("billing".into())), "admitted"),
        (
            "/operators/OP1",
            token(|claims| {
                claims.aud.push("billing".into());
                claims.sub = "OP0123456789/bob".into();
            }),
            "claim_missing",
        ),
        // The other requirements of the rule apply to every alternative.
        ("/operators/OP0123456789", token(|claims| claims.sid = None), "claim_missing"),
    ] {
        let line = format!("GET {path}");
        assert_eq!(
            decision_code(&gate, Some(&snapshot), &line, &[("authorization", &token)]),
            expected,
            "{path}"
        );
    }
}

#[test]
fn e2_an_open_stream_ends_only_if_no_alternative_is_met_any_more() {
    let gate = gate_with(
        r#""rules": [{
            "path": "/{id}",
            "any_of": [{ "claims": { "operator.operatorId": { "path_variable": "id" } } }, { "permission": "A:b" }]
        }]"#,
    );
    let mut builder = builder();
    set_grant(&mut builder, "OP0123456789/alice", r#"{"statements":[{"effect":"allow","api":"A:b"}]}"#);
    let before = snapshot(&mut builder);
    set_grant(&mut builder, "OP0123456789/alice", r#"{"statements":[]}"#);
    let after = snapshot(&mut builder);
    let token = alice_bearer();
    for (path, ends) in [("/OP0123456789", false), ("/OP1", true)] {
        let headers =
            [(":method", &b"GET"[..]), (":path", path.as_bytes()), ("authorization", token.as_bytes())];
        let Decision::Admit(admission) = gate.decide(headers.into_iter(), Some(&before), NOW_MS) else {
            panic!("{path}")
        };
        let stream = gate.open_stream(Arc::clone(&admission.into_identity()), &headers, None).unwrap();
        assert!(gate.recheck(&stream, &before, NOW_MS).is_ok());
        let refusal = gate.recheck(&stream, &after, NOW_MS).err();
        assert_eq!(
            refusal.map(|refusal| refusal.reason()),
            ends.then_some(Reason::PermissionDenied),
            "{path}"
        );
    }
}

/// Returns the code of each path for a policy whose first rules are public.
fn check(members: &str, cases: &[(&str, &str)]) {
    let gate = gate_with(members);
    let snapshot = snapshot(&mut builder());
    for (line, expected) in cases {
        assert_eq!(decision_code(&gate, Some(&snapshot), line, &[]), *expected, "{line}\n{members}");
    }
}

#[test]
fn e4_a_variable_takes_no_custom_verb() {
    check(
        r#""rules": [
            { "path": "/v1/users/{id}", "access": "public" },
            { "path": "/v1/users/{id}:suspend", "methods": ["POST"] },
            { "path": "/v1/users:search", "access": "public" },
            { "path": "/v1/{any}/x", "access": "public" }
        ]"#,
        &[
            ("GET /v1/users/7", "public"),
            ("GET /v1/users/a:b", "public"),
            ("POST /v1/users/7:suspend", "credential_missing"),
            ("POST /v1/users/jo%40example.com:suspend", "credential_missing"),
            ("GET /v1/users/7:suspend", "method_not_allowed"),
            ("POST /v1/users/:suspend", "route_unmatched"),
            ("GET /v1/users/7:search", "route_unmatched"),
            ("GET /v1/users:search", "public"),
            // Some routers decode before they look for a verb.
            ("POST /v1/users/7%3Asuspend", "path_not_canonical"),
            ("GET /v1/users/7%3Asuspend", "path_not_canonical"),
            ("GET /v1/users/7%3Aother", "public"),
            ("POST /v1/users/7:Suspend", "path_read_alike"),
            ("POST /v1/users/7:suspend.", "path_read_alike"),
            ("POST /v1/users/7:suspend%20", "path_read_alike"),
            ("POST /v1/users/7:suspend/", "route_unmatched"),
            ("POST /v1/users/7:suspend;x", "path_parameters"),
            ("POST /v1/users/7;x:suspend", "path_parameters"),
            ("POST /v1/users/7%2fx:suspend", "path_encoded_separator"),
            ("GET /v1/a:suspend/x", "public"),
        ],
    );
}

#[test]
fn e5_an_extension_after_any_segments_is_safe_against_encodings() {
    check(
        r#""rules": [
            { "path": "/**/*.js", "access": "public" },
            { "path": "/users/{id}" },
            { "path": "/app" },
            { "path": "/**", "methods": ["GET"] }
        ]"#,
        &[
            ("GET /a.js", "public"),
            ("GET /x/y/a.min.js", "public"),
            ("GET /x%40y/a%20b.js", "public"),
            ("GET /x/[a].js", "public"),
            ("GET /.js", "credential_missing"),
            ("GET /a.js/", "path_trailing_slash"),
            ("GET /a.jsx", "credential_missing"),
            ("GET /a.JS", "path_read_alike"),
            ("GET /a.js.", "path_read_alike"),
            ("GET /a.js%20", "path_read_alike"),
            ("GET /a%2ejs", "path_not_canonical"),
            ("GET /a.j%73", "path_not_canonical"),
            ("GET /admin;.js", "path_parameters"),
            ("GET /admin;x/a.js", "path_parameters"),
            ("GET /admin%3b.js", "path_parameters"),
            ("GET /admin%3fa.js", "path_encoded_separator"),
            ("GET /admin%23a.js", "path_encoded_separator"),
            ("GET /admin%00.js", "path_malformed"),
            ("GET /admin%0a.js", "path_malformed"),
            ("GET /admin/..%2fa.js", "path_encoded_separator"),
            ("GET /admin%5c.js", "path_encoded_separator"),
            ("GET /admin%252f.js", "path_double_encoding"),
            // Every reading is a script.
            ("GET /x%2fa.js", "public"),
            // Rails and others read the extension as a format.
            ("GET /users/7.js", "path_read_alike"),
            ("GET /Users/7.js", "path_read_alike"),
            ("GET /app.js", "path_read_alike"),
            ("GET /app/a.js", "public"),
        ],
    );
    check(
        r#""path_case": "exact", "rules": [
            { "path": "/**/*.js", "access": "public" }, { "path": "/app" }, { "path": "/**/status", "access": "public" }
        ]"#,
        &[
            ("GET /app.js", "public"),
            ("GET /app", "credential_missing"),
            ("GET /status", "public"),
            ("GET /a/b/status", "public"),
            ("GET /a/status/", "route_unmatched"),
            ("GET /a%2fstatus", "path_encoded_separator"),
            ("GET /a%2fb/status", "public"),
        ],
    );
}

#[test]
fn e6_an_encoded_slash_is_part_of_its_segment_by_rule() {
    let rules = |member: &str| {
        format!(
            r#""rules": [
                {{ "path": "/projects/{{id}}", {member} "access": "public" }},
                {{ "path": "/projects/{{id}}/members" }},
                {{ "path": "/projects/secret/**" }},
                {{ "path": "/files/**", "access": "public" }},
                {{ "path": "/tenants/{{id}}/**", "claims": {{ "operator.operatorId": {{ "path_variable": "id" }} }} }},
                {{ "path": "/named/{{name}}", "access": "public" }}
            ]"#
        )
    };
    let in_any = [
        ("GET /projects/7", "public"),
        // No rule reads these otherwise.
        ("GET /files/a%2Fb", "public"),
        ("GET /files/a%5Cb", "public"),
        ("GET /files/a;b", "public"),
        ("GET /files/C%23/what%3F", "public"),
        ("GET /named/C%23", "public"),
        ("GET /named/a;v=1", "public"),
        ("GET /files/[1]", "public"),
        ("GET /files/a|b", "public"),
        ("GET /files/{a}\"<>^`", "public"),
        ("GET /named/[1]", "public"),
        ("GET /named/a%7Cb", "public"),
        ("GET /named/\u{e9}", "public"),
        // These lead to another rule, to another value of a variable that counts, or out of the rule.
        ("GET /files/..%2Fprojects%2Fsecret", "path_encoded_separator"),
        ("GET /files/%2e%2e", "path_not_canonical"),
        ("GET /files/..;/projects", "path_parameters"),
        ("GET /projects/secret;x/y", "path_parameters"),
        ("GET /projects%2Fsecret", "path_encoded_separator"),
        ("GET /tenants/a%2Fb/c", "path_encoded_separator"),
        ("GET /tenants/a;b/c", "path_parameters"),
        ("GET /tenants/a/b%2Fc", "credential_missing"),
        ("GET /named/a%2Fb", "path_encoded_separator"),
        // Several kinds at once have too many readings.
        ("GET /files/a%2Fb;c", "path_parameters"),
        ("GET /files/a%2F%5C", "path_encoded_separator"),
    ];
    check(&rules(""), &in_any);
    check(&rules(r#""encoded_slash": "refuse","#), &in_any);
    check(&rules(""), &[("GET /projects/group%2Fproject", "path_encoded_separator")]);
    check(&rules(r#""encoded_slash": "segment","#), &in_any);
    check(
        &rules(r#""encoded_slash": "segment","#),
        &[
            ("GET /projects/group%2Fproject", "public"),
            ("GET /projects/group%2fsub%2fproject", "public"),
            ("GET /projects/group%2FC%23", "public"),
            ("GET /projects/group%2Fmembers", "path_encoded_separator"),
            ("GET /projects/secret%2Fx", "path_encoded_separator"),
            ("GET /projects/Secret%2Fx", "path_encoded_separator"),
            ("GET /projects/..%2Fx", "path_encoded_separator"),
            ("GET /projects/group%5Cproject", "path_encoded_separator"),
            ("GET /projects/group%252Fproject", "path_double_encoding"),
        ],
    );
}

/// A variable has the decoded value, so that rules and permissions see what the upstream reads.
#[test]
fn e6_a_variable_contains_the_decoded_slash() {
    let gate = gate_with(
        r#""rules": [{ "path": "/users/{id}", "encoded_slash": "segment", "claims": { "sub": { "path_variable": "id" } } }]"#,
    );
    let snapshot = snapshot(&mut builder());
    let token = alice_bearer();
    for (path, expected) in
        [("/users/OP0123456789%2Falice", "admitted"), ("/users/OP0123456789%2Fbob", "claim_missing")]
    {
        let line = format!("GET {path}");
        assert_eq!(decision_code(&gate, Some(&snapshot), &line, &[("authorization", &token)]), expected);
    }
}
