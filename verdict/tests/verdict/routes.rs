//! Which rule applies to a request.

use proptest::prelude::*;
use verdict::{Decision, Forward, PassReason, Stripping};

use crate::fixtures::{self, NOW_MS, alice_bearer, builder, decision_code, gate_with, snapshot};

#[test]
fn the_first_matching_rule_applies() {
    let gate = gate_with(
        r#""rules": [
            { "path": "/healthz", "access": "public" },
            { "path": "/docs/**", "access": "optional", "methods": ["GET"] },
            { "path": "/docs/drafts/{name}", "methods": ["GET", "PUT"] },
            { "path": "/**", "hosts": ["*.internal.example.com"], "access": "public" },
            { "path": "/things/{id}", "hosts": ["api.example.com", "x.example.com"] }
        ]"#,
    );
    let snapshot = snapshot(&mut builder());
    let token = alice_bearer();
    let with: &[(&str, &str)] = &[("authorization", &token)];
    for (line, without, with_token) in [
        ("GET /healthz", "public", "public"),
        ("POST /healthz?x", "public", "public"),
        ("GET /docs", "anonymous", "admitted"),
        ("HEAD /docs/a/b", "anonymous", "admitted"),
        // The earlier rule applies, though a later one is more specific.
        ("GET /docs/drafts/x", "anonymous", "admitted"),
        ("PUT /docs/drafts/x", "credential_missing", "admitted"),
        ("PUT /docs", "method_not_allowed", "method_not_allowed"),
        ("GET /things/1", "credential_missing", "admitted"),
        ("GET /things", "route_unmatched", "route_unmatched"),
        ("GET /", "route_unmatched", "route_unmatched"),
        ("get /docs", "method_malformed", "method_malformed"),
        ("pUT /docs/drafts/x", "method_malformed", "method_malformed"),
        ("GET /things/%2e%2e", "path_not_canonical", "path_not_canonical"),
        ("GET /docs/../things/1", "path_dot_segment", "path_dot_segment"),
        ("GET //things/1", "path_empty_segment", "path_empty_segment"),
        ("GET /things/1;x=/healthz", "path_parameters", "path_parameters"),
        ("GET /docs%2fdrafts", "path_encoded_separator", "path_encoded_separator"),
        ("GET *", "path_malformed", "path_malformed"),
    ] {
        assert_eq!(decision_code(&gate, Some(&snapshot), line, &[]), without, "{line}");
        assert_eq!(decision_code(&gate, Some(&snapshot), line, with), with_token, "{line}");
    }
    // An invalid credential is refused even if none is required.
    assert_eq!(
        decision_code(&gate, Some(&snapshot), "GET /docs", &[("authorization", "Bearer x")]),
        "token_malformed"
    );
    // Without a bundle, public routes pass.
    for (line, headers, expected) in [
        ("GET /healthz", &[][..], "public"),
        ("GET /docs", &[], "anonymous"),
        ("GET /docs", with, "bundle_missing"),
        ("GET /things/1", &[], "bundle_missing"),
    ] {
        assert_eq!(decision_code(&gate, None, line, headers), expected, "{line}");
    }
    for (host, expected) in [
        ("a.internal.example.com", "public"),
        ("A.INTERNAL.example.com:80", "public"),
        ("x.example.com", "route_unmatched"),
        ("internal.example.com", "route_unmatched"),
        ("a.internal.example.com.", "public"),
        ("a.internal.example.com.:8080", "public"),
        ("a.internal.example.com..", "host_malformed"),
        ("x@a.internal.example.com", "host_malformed"),
        ("", "host_malformed"),
    ] {
        let headers = [(":method", "GET"), (":path", "/"), ("host", host)];
        let decision = gate.decide(
            headers.iter().map(|(name, value)| (*name, value.as_bytes())),
            Some(&snapshot),
            NOW_MS,
        );
        let found = match decision {
            Decision::Refuse(refusal) => refusal.reason().code(),
            _ => "public",
        };
        assert_eq!(found, expected, "{host}");
    }
    // Two hosts, paths or methods: the upstream could use either.
    for (name, value, expected) in [
        ("host", "a.internal.example.com", "host_malformed"),
        (":path", "/healthz", "path_malformed"),
        (":method", "PUT", "method_malformed"),
    ] {
        assert_eq!(
            decision_code(&gate, Some(&snapshot), "GET /things/1", &[(name, value)]),
            expected,
            "{name}"
        );
    }
}

#[test]
fn without_rules_only_the_credential_is_checked() {
    let snapshot = snapshot(&mut builder());
    let token = alice_bearer();
    let gate = crate::fixtures::gate();
    for line in ["GET /", "GET //..//%2f", " ", "OPTIONS *"] {
        assert_eq!(decision_code(&gate, Some(&snapshot), line, &[]), "credential_missing");
        assert_eq!(decision_code(&gate, Some(&snapshot), line, &[("authorization", &token)]), "admitted");
        let preflight = [("origin", "https://x"), ("access-control-request-method", "GET")];
        assert_eq!(decision_code(&gate, Some(&snapshot), line, &preflight), "credential_missing");
    }
}

#[test]
fn unmatched_requests_are_refused_by_default() {
    let snapshot = snapshot(&mut builder());
    for (unmatched, expected) in [
        ("", "route_unmatched"),
        (r#""unmatched": "refuse","#, "route_unmatched"),
        (r#""unmatched": "required","#, "credential_missing"),
        (r#""unmatched": "optional","#, "anonymous"),
        (r#""unmatched": "public","#, "public"),
    ] {
        let gate = gate_with(&format!(r#"{unmatched} "rules": [{{ "path": "/a" }}]"#));
        assert_eq!(decision_code(&gate, Some(&snapshot), "GET /b", &[]), expected);
        assert_eq!(decision_code(&gate, Some(&snapshot), "GET /a", &[]), "credential_missing");
        // A trailing slash must not bypass the rule.
        let by_slash = if expected == "route_unmatched" { expected } else { "path_trailing_slash" };
        assert_eq!(decision_code(&gate, Some(&snapshot), "GET /a/", &[]), by_slash);
    }
    assert_eq!(decision_code(&gate_with(r#""unmatched": "public""#), None, "GET /", &[]), "public");
    assert_eq!(decision_code(&gate_with(r#""unmatched": "refuse""#), None, "GET /", &[]), "route_unmatched");
}

#[test]
fn trailing_slashes_do_not_bypass_rules() {
    let gate = gate_with(
        r#""rules": [
            { "path": "/admin" }, { "path": "/exact/" }, { "path": "/both" }, { "path": "/both/", "access": "public" },
            { "path": "/tree/**" }, { "path": "/**", "access": "public" }
        ]"#,
    );
    for (path, expected) in [
        ("/admin", "credential_missing"),
        ("/admin/", "path_trailing_slash"),
        ("/exact/", "credential_missing"),
        ("/exact", "path_trailing_slash"),
        ("/both", "credential_missing"),
        ("/both/", "public"),
        ("/tree", "credential_missing"),
        ("/tree/", "credential_missing"),
        ("/tree/x/", "credential_missing"),
        ("/other/", "public"),
        ("/", "public"),
    ] {
        let snapshot = snapshot(&mut builder());
        assert_eq!(decision_code(&gate, Some(&snapshot), &format!("GET {path}"), &[]), expected, "{path}");
    }
}

/// `/admin` for an upstream that ignores case, or for a file system that removes trailing dots and spaces.
#[test]
fn case_does_not_bypass_rules() {
    let rules = r#""rules": [
        { "path": "/admin/**", "claims": { "role": "admin" } },
        { "path": "/exact" },
        { "path": "/Mixed/{id}" },
        { "path": "/end.", "methods": ["GET"] },
        { "operations": { "table": "GET\t/sims/{id}\tSim:get\nGET\t/sims/list\tSim:list", "public": ["Sim:get"] } },
        { "path": "/**", "access": "public" }
    ]"#;
    let (fold, exact) = (gate_with(rules), gate_with(&format!(r#""path_case": "exact", {rules}"#)));
    let snapshot = snapshot(&mut builder());
    for (path, folded, as_sent) in [
        ("/admin/x", "credential_missing", "credential_missing"),
        ("/admin", "credential_missing", "credential_missing"),
        ("/Admin/x", "path_read_alike", "public"),
        ("/ADMIN", "path_read_alike", "public"),
        ("/admin%20", "path_read_alike", "public"),
        ("/admin%20/x", "path_read_alike", "public"),
        ("/admin./x", "path_read_alike", "public"),
        ("/admin.%20.", "path_read_alike", "public"),
        ("/%20admin", "path_read_alike", "public"),
        ("/admin%C2%A0", "path_read_alike", "public"),
        ("/adm%C4%B1n", "path_read_alike", "public"),
        ("/adm%C4%B0n", "path_read_alike", "public"),
        ("/Exact", "path_read_alike", "public"),
        ("/exact.", "path_read_alike", "public"),
        // With a trailing slash too, which the rule for the exact path does not match.
        ("/Exact/", "path_read_alike", "public"),
        ("/exact/%20", "path_read_alike", "public"),
        ("/exact/%20/", "path_read_alike", "public"),
        ("/admin/%20/x", "credential_missing", "credential_missing"),
        ("/%20/admin/x", "path_read_alike", "public"),
        ("/exact/", "path_trailing_slash", "path_trailing_slash"),
        ("/exact/X", "public", "public"),
        ("/mixed/1", "path_read_alike", "public"),
        ("/Mixed/1", "credential_missing", "credential_missing"),
        ("/Mixed/ABC.", "credential_missing", "credential_missing"),
        ("/end.", "credential_missing", "credential_missing"),
        ("/end", "path_read_alike", "public"),
        // Rows of a table count as separate rules.
        ("/sims/list", "credential_missing", "credential_missing"),
        ("/sims/1", "public", "public"),
        ("/sims/List", "path_read_alike", "public"),
        ("/sims/list.", "path_read_alike", "public"),
        ("/%C5%BFims/list", "path_read_alike", "public"),
        ("/sims/Liste", "public", "public"),
        // A path that stays under its rule passes.
        ("/Public/Files.", "public", "public"),
        ("/files/%E3%81%82%20x", "public", "public"),
        // Not covered, as SECURITY.md documents.
        ("/admin.json", "public", "public"),
    ] {
        assert_eq!(decision_code(&fold, Some(&snapshot), &format!("GET {path}"), &[]), folded, "{path}");
        assert_eq!(decision_code(&exact, Some(&snapshot), &format!("GET {path}"), &[]), as_sent, "{path}");
    }
    // If nothing else matches, the request is unmatched.
    for (unmatched, expected) in [("refuse", "route_unmatched"), ("public", "path_read_alike")] {
        let gate = gate_with(&format!(r#""unmatched": "{unmatched}", "rules": [{{ "path": "/admin" }}]"#));
        for path in ["/Admin", "/admin%20", "/Admin/"] {
            assert_eq!(
                decision_code(&gate, Some(&snapshot), &format!("GET {path}"), &[]),
                expected,
                "{path}"
            );
        }
    }
}

#[test]
fn paths_that_resemble_no_rule_are_unmatched_in_any_case() {
    let gate = gate_with(r#""unmatched": "public", "rules": [{ "path": "/admin" }]"#);
    let snapshot = snapshot(&mut builder());
    for path in ["/Other", "/other.", "/%20other", "/OTHER/"] {
        assert_eq!(decision_code(&gate, Some(&snapshot), &format!("GET {path}"), &[]), "public", "{path}");
    }
}

#[test]
fn preflights_pass_by_the_rule_of_their_method() {
    let gate = gate_with(
        r#""rules": [
            { "path": "/a", "methods": ["PUT"], "preflight": "pass" },
            { "path": "/b", "preflight": "check" },
            { "operations": { "table": "DELETE\t/c\tC:delete" }, "preflight": "pass" }
        ]"#,
    );
    let snapshot = snapshot(&mut builder());
    let preflight =
        |method| [("origin", "https://app.example.com"), ("access-control-request-method", method)];
    for (line, asked, expected) in [
        ("OPTIONS /a", "PUT", "preflight"),
        ("OPTIONS /a", "DELETE", "method_not_allowed"),
        ("OPTIONS /a", "", "method_malformed"),
        ("OPTIONS /a", "put", "method_malformed"),
        ("PUT /a", "PUT", "credential_missing"),
        ("OPTIONS /b", "PUT", "credential_missing"),
        ("OPTIONS /c", "DELETE", "preflight"),
        ("OPTIONS /c", "GET", "method_not_allowed"),
        ("OPTIONS /d", "GET", "route_unmatched"),
    ] {
        assert_eq!(
            decision_code(&gate, Some(&snapshot), line, &preflight(asked)),
            expected,
            "{line} {asked}"
        );
        assert_eq!(
            decision_code(&gate, None, line, &preflight(asked)).replace("bundle", "credential"),
            expected
        );
    }
    // One of the two headers does not make a preflight.
    for half in [&preflight("PUT")[..1], &preflight("PUT")[1..]] {
        assert_eq!(decision_code(&gate, Some(&snapshot), "OPTIONS /a", half), "method_not_allowed");
    }
}

#[test]
fn passed_requests_have_no_identity() {
    let gate = gate_with(r#""rules": [{ "path": "/x", "access": "public" }]"#);
    // A host that drops all headers above its limit would forward those of the client.
    let many = vec![("x-other", "1"); 1000];
    assert_eq!(decision_code(&gate, None, "GET /x", &many), "headers_too_many");
    let headers: [(&str, &[u8]); 5] = [
        (":path", b"/x"),
        ("authorization", b"Bearer anything"),
        ("x-keystile-subject", b"root"),
        ("X_Keystile_Subject", b"root"),
        ("x-other", b"1"),
    ];
    let decision = gate.decide(headers[..1].iter().copied().chain([(":method", &b"GET"[..])]), None, NOW_MS);
    assert_eq!(decision, Decision::Pass(PassReason::Public(Stripping::Nothing)));
    let kept = fixtures::forwarded_headers(&gate, &headers, &decision);
    assert_eq!(kept.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [":path", "authorization", "x-other"]);
    assert_eq!(gate.forward_headers(&headers[4..], &decision, NOW_MS), Forward::Unchanged);
}

proptest! {
    /// For any request line: no panic, and no admission without a credential.
    #[test]
    fn no_request_line_bypasses_a_rule(
        method in prop::collection::vec(any::<u8>(), 0..6),
        path in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..30),
            "[/.;%2fe5c?#a]{0,20}".prop_map(String::into_bytes),
            "/secret[/.;%2fe5c?#]{0,6}".prop_map(String::into_bytes),
            "/[sS][eE]cret(%20|[.]|/){0,4}".prop_map(String::into_bytes),
        ],
        host in prop::collection::vec(any::<u8>(), 0..10),
        real: bool,
    ) {
        let gate = gate_with(r#""unmatched": "public", "rules": [
            { "path": "/secret" }, { "path": "/secret/{id}" }, { "path": "/x", "hosts": ["a.b"] }
        ]"#);
        let (method, host) = if real { (&b"GET"[..], &b"c.d"[..]) } else { (&method[..], &host[..]) };
        let headers = [(":method", method), (":path", &path[..]), (":authority", host)];
        let decision = gate.decide(headers.into_iter(), Some(&snapshot(&mut builder())), NOW_MS);
        prop_assert!(!matches!(decision, Decision::Admit(_)));
        // No spelling that an upstream could normalize to the secret path passes.
        let sent = path.split(|byte| *byte == b'?').next().unwrap_or_default();
        let read = String::from_utf8_lossy(sent).replace("%2f", "/").replace("%5c", "/").replace(';', "");
        let read = read.to_ascii_lowercase().replace("%20", " ");
        let parts = read.split('/').map(|part| part.trim_start().trim_end_matches([' ', '.']));
        let folded: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
        if folded == ["secret"] {
            prop_assert!(matches!(decision, Decision::Refuse(_)), "{:?} {:?}", String::from_utf8_lossy(&path), decision);
        }
    }
}
