//! Rules: what a request must bring, by host, path and method.

use bundle::builder::Builder;
use proptest::prelude::*;
use token::Claims;
use verdict::{Gate, Passage, Policy, Reason, Snapshot, Verdict, permission::Permissions};

use crate::world::{NOW, NOW_MS, builder, claims, configuration, signing_key, snapshot};

const SORACOM: &str = include_str!("../data/soracom-operations.tsv");

/// The usual configuration with more members.
fn policy(members: &str) -> Result<Policy, String> {
    let configuration = configuration().replacen('{', &format!("{{ {members},"), 1);
    Policy::from_json(configuration.as_bytes()).map_err(|error| error.to_string())
}

fn gate(members: &str) -> Gate {
    Gate::new(policy(members).unwrap_or_else(|error| panic!("{members}: {error}")))
}

fn bearer(claims: &Claims) -> String {
    format!("Bearer {}", signing_key().mint(claims).expose())
}

fn alice() -> String {
    bearer(&claims())
}

fn granted(builder: &mut Builder, subject: &str, statements: &str) {
    let permissions = Permissions::from_json(statements.as_bytes()).unwrap();
    builder.grant(subject, permissions.as_bytes()).unwrap();
}

/// Admitted, passed or refused, in a word.
fn ask(gate: &Gate, snapshot: Option<&Snapshot>, line: &str, more: &[(&str, &str)]) -> &'static str {
    ask_at(gate, snapshot, line, more, NOW_MS)
}

fn ask_at(
    gate: &Gate,
    snapshot: Option<&Snapshot>,
    line: &str,
    more: &[(&str, &str)],
    now: u64,
) -> &'static str {
    let (method, path) = line.split_once(' ').unwrap();
    let first = [(":method", method), (":path", path), (":authority", "api.example.com:8443")];
    let headers = first.iter().chain(more).map(|(name, value)| (*name, value.as_bytes()));
    match gate.decide(headers, snapshot, now) {
        Verdict::Admit(_) => "admitted",
        Verdict::Pass(Passage::Public) => "public",
        Verdict::Pass(Passage::Anonymous) => "anonymous",
        Verdict::Pass(Passage::Preflight) => "preflight",
        Verdict::Refuse(reason) => reason.code(),
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let gate = gate(
        r#""rules": [
            { "path": "/healthz", "access": "public" },
            { "path": "/docs/**", "access": "optional", "methods": ["GET"] },
            { "path": "/docs/drafts/{name}", "methods": ["GET", "PUT"] },
            { "path": "/**", "hosts": ["*.internal.example.com"], "access": "public" },
            { "path": "/things/{id}", "hosts": ["api.example.com", "x.example.com"] }
        ]"#,
    );
    let snapshot = snapshot(&mut builder());
    let token = alice();
    let with: &[(&str, &str)] = &[("authorization", &token)];
    for (line, without, with_token) in [
        ("GET /healthz", "public", "public"),
        ("POST /healthz?x", "public", "public"),
        ("GET /docs", "anonymous", "admitted"),
        ("HEAD /docs/a/b", "anonymous", "admitted"),
        // The earlier rule covers it, though a later one is closer.
        ("GET /docs/drafts/x", "anonymous", "admitted"),
        ("PUT /docs/drafts/x", "credential_missing", "admitted"),
        ("PUT /docs", "route_unmatched", "route_unmatched"),
        ("GET /things/1", "credential_missing", "admitted"),
        ("GET /things", "route_unmatched", "route_unmatched"),
        ("GET /", "route_unmatched", "route_unmatched"),
        ("get /docs", "route_unmatched", "route_unmatched"),
        ("GET /things/%2e%2e", "path_not_canonical", "path_not_canonical"),
        ("GET /docs/../things/1", "path_dot_segment", "path_dot_segment"),
        ("GET //things/1", "path_empty_segment", "path_empty_segment"),
        ("GET /things/1;x=/healthz", "path_parameters", "path_parameters"),
        ("GET /docs%2fdrafts", "path_encoded_separator", "path_encoded_separator"),
        ("GET *", "path_malformed", "path_malformed"),
    ] {
        assert_eq!(ask(&gate, Some(&snapshot), line, &[]), without, "{line}");
        assert_eq!(ask(&gate, Some(&snapshot), line, with), with_token, "{line}");
    }
    // A bad credential is refused where none would do.
    assert_eq!(ask(&gate, Some(&snapshot), "GET /docs", &[("authorization", "Bearer x")]), "token_malformed");
    // Without a bundle, what needs none passes.
    for (line, headers, expected) in [
        ("GET /healthz", &[][..], "public"),
        ("GET /docs", &[], "anonymous"),
        ("GET /docs", with, "bundle_missing"),
        ("GET /things/1", &[], "bundle_missing"),
    ] {
        assert_eq!(ask(&gate, None, line, headers), expected, "{line}");
    }
    for (host, expected) in [
        ("a.internal.example.com", "public"),
        ("A.INTERNAL.example.com:80", "public"),
        ("x.example.com", "route_unmatched"),
        ("internal.example.com", "route_unmatched"),
        ("a.internal.example.com.", "host_malformed"),
        ("x@a.internal.example.com", "host_malformed"),
        ("", "host_malformed"),
    ] {
        let headers = [(":method", "GET"), (":path", "/"), ("host", host)];
        let verdict = gate.decide(
            headers.iter().map(|(name, value)| (*name, value.as_bytes())),
            Some(&snapshot),
            NOW_MS,
        );
        let found = match verdict {
            Verdict::Refuse(reason) => reason.code(),
            _ => "public",
        };
        assert_eq!(found, expected, "{host}");
    }
    // Two hosts, two paths, two methods: no telling which of them the upstream will believe.
    for (name, value, expected) in [
        ("host", "a.internal.example.com", "host_malformed"),
        (":path", "/healthz", "path_malformed"),
        (":method", "PUT", "method_malformed"),
    ] {
        assert_eq!(ask(&gate, Some(&snapshot), "GET /things/1", &[(name, value)]), expected, "{name}");
    }
}

#[test]
fn without_rules_nothing_but_the_credential_is_looked_at() {
    let snapshot = snapshot(&mut builder());
    let token = alice();
    let gate = crate::world::gate();
    for line in ["GET /", "GET //..//%2f", " ", "OPTIONS *"] {
        assert_eq!(ask(&gate, Some(&snapshot), line, &[]), "credential_missing");
        assert_eq!(ask(&gate, Some(&snapshot), line, &[("authorization", &token)]), "admitted");
        let preflight = [("origin", "https://x"), ("access-control-request-method", "GET")];
        assert_eq!(ask(&gate, Some(&snapshot), line, &preflight), "credential_missing");
    }
}

#[test]
fn what_no_rule_matches_is_refused_unless_it_is_said_otherwise() {
    let snapshot = snapshot(&mut builder());
    for (unmatched, expected) in [
        ("", "route_unmatched"),
        (r#""unmatched": "refuse","#, "route_unmatched"),
        (r#""unmatched": "required","#, "credential_missing"),
        (r#""unmatched": "optional","#, "anonymous"),
        (r#""unmatched": "public","#, "public"),
    ] {
        let gate = gate(&format!(r#"{unmatched} "rules": [{{ "path": "/a" }}]"#));
        assert_eq!(ask(&gate, Some(&snapshot), "GET /b", &[]), expected);
        assert_eq!(ask(&gate, Some(&snapshot), "GET /a", &[]), "credential_missing");
        // The slash must not be the way around the rule.
        let by_slash = if expected == "route_unmatched" { expected } else { "path_trailing_slash" };
        assert_eq!(ask(&gate, Some(&snapshot), "GET /a/", &[]), by_slash);
    }
    assert_eq!(ask(&gate(r#""unmatched": "public""#), None, "GET /", &[]), "public");
    assert_eq!(ask(&gate(r#""unmatched": "refuse""#), None, "GET /", &[]), "route_unmatched");
}

#[test]
fn a_slash_at_the_end_leads_past_no_rule() {
    let gate = gate(
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
        assert_eq!(ask(&gate, Some(&snapshot), &format!("GET {path}"), &[]), expected, "{path}");
    }
}

#[test]
fn a_preflight_passes_where_the_method_it_asks_for_has_a_rule_that_lets_it() {
    let gate = gate(
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
        ("OPTIONS /a", "DELETE", "route_unmatched"),
        ("OPTIONS /a", "", "method_malformed"),
        ("PUT /a", "PUT", "credential_missing"),
        ("OPTIONS /b", "PUT", "credential_missing"),
        ("OPTIONS /c", "DELETE", "preflight"),
        ("OPTIONS /c", "GET", "route_unmatched"),
        ("OPTIONS /d", "GET", "route_unmatched"),
    ] {
        assert_eq!(ask(&gate, Some(&snapshot), line, &preflight(asked)), expected, "{line} {asked}");
        assert_eq!(ask(&gate, None, line, &preflight(asked)).replace("bundle", "credential"), expected);
    }
    // One header alone makes none.
    for half in [&preflight("PUT")[..1], &preflight("PUT")[1..]] {
        assert_eq!(ask(&gate, Some(&snapshot), "OPTIONS /a", half), "route_unmatched");
    }
}

#[test]
fn every_soracom_operation_demands_its_permission() {
    let table = serde_json::Value::from(SORACOM);
    let gate = gate(&format!(
        r#""rules": [{{ "operations": {{ "table": {table}, "prefix": "/v1", "public": ["Auth:auth"] }} }}]"#
    ));
    assert_eq!(gate.policy().rules.len(), 481);
    let rows: Vec<Vec<&str>> = SORACOM.lines().skip(1).map(|line| line.split('\t').collect()).collect();
    // Each user may do one thing, and only where every variable of the path is what it should be.
    let mut builder = builder();
    for (number, row) in rows.iter().enumerate() {
        let variables = row[1].split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let conditions: Vec<String> =
            variables.map(|name| format!("pathVariable('{name}') == 'the {name}'")).collect();
        let mut statement = serde_json::json!({ "effect": "allow", "api": row[2] });
        if !conditions.is_empty() {
            statement["condition"] = conditions.join(" and ").into();
        }
        let document = serde_json::json!({ "statements": [statement] }).to_string();
        granted(&mut builder, &format!("OP0123456789/u{number}"), &document);
    }
    let snapshot = snapshot(&mut builder);
    let user = |number: usize| bearer(&Claims { sub: format!("OP0123456789/u{number}"), ..claims() });
    let root = bearer(&Claims { sub: "OP0123456789".into(), ..claims() });
    for (number, row) in rows.iter().enumerate() {
        let line = format!("{} /v1{}?x=1", row[0], row[1].replace('{', "the%20").replace('}', ""));
        let (own, another) = (user(number), user((number + 7) % rows.len()));
        let (denied, missing) = match row[2] {
            "Auth:auth" => ("public", "public"),
            "Auth:logout" => ("admitted", "credential_missing"),
            _ => ("permission_denied", "credential_missing"),
        };
        let allowed = if row[2] == "Auth:auth" { "public" } else { "admitted" };
        assert_eq!(ask(&gate, Some(&snapshot), &line, &[("authorization", &own)]), allowed, "{line}");
        assert_eq!(ask(&gate, Some(&snapshot), &line, &[("authorization", &root)]), allowed, "{line}");
        assert_eq!(ask(&gate, Some(&snapshot), &line, &[("authorization", &another)]), denied, "{line}");
        assert_eq!(ask(&gate, Some(&snapshot), &line, &[]), missing, "{line}");
        if row[1].contains('{') {
            let elsewhere = line.replacen("the%20", "another%20", 1);
            assert_eq!(ask(&gate, Some(&snapshot), &elsewhere, &[("authorization", &own)]), denied, "{line}");
        }
    }
    // The table is where it says and nowhere else.
    assert_eq!(ask(&gate, Some(&snapshot), "POST /auth", &[]), "route_unmatched");
}

#[test]
fn permissions_are_the_grant_of_the_subject_now() {
    let gate = gate(r#""rules": [{ "path": "/sims/{sim_id}", "permission": "Sim:getSim" }]"#);
    let token = alice();
    let ask = |snapshot: &Snapshot, token: &str| {
        ask(&gate, Some(snapshot), "GET /sims/1", &[("authorization", token)])
    };
    let mut builder = builder();
    granted(&mut builder, "OP0123456789/bob", r#"{"statements":[{"effect":"allow","api":"*"}]}"#);
    assert_eq!(ask(&snapshot(&mut builder), &token), "permission_denied", "no grant, no permission");
    let allow = r#"{"statements":[{"effect":"allow","api":"Sim:*"}]}"#;
    granted(&mut builder, "OP0123456789/alice", allow);
    assert_eq!(ask(&snapshot(&mut builder), &token), "admitted", "the same token as before");
    granted(&mut builder, "OP0123456789/alice", r#"{"statements":[]}"#);
    assert_eq!(ask(&snapshot(&mut builder), &token), "permission_denied");
    // What isn't a grant allows nothing.
    for malformed in [&b""[..], b"\x00", b"\x01\x01", b"\x02\x01\x01\x01\x00\x00"] {
        builder.grant("OP0123456789/alice", malformed).unwrap();
        assert_eq!(ask(&snapshot(&mut builder), &token), "permission_denied");
    }
    // Root is who is its operator, not who has no user name.
    for (sub, expected) in [
        ("OP0123456789", "admitted"),
        ("OP9999999999", "permission_denied"),
        ("OP01234567890", "permission_denied"),
        ("OP0123456789/", "permission_denied"),
        ("", "token_malformed"),
    ] {
        let token = bearer(&Claims { sub: sub.into(), ..claims() });
        assert_eq!(ask(&snapshot(&mut builder), &token), expected, "{sub}");
    }
    // The name in a condition is the user's without the operator.
    let own = r#"{"statements":[{"effect":"allow","api":"*","condition":"samUserName == 'alice'"}]}"#;
    granted(&mut builder, "OP0123456789/alice", own);
    assert_eq!(ask(&snapshot(&mut builder), &token), "admitted");
}

#[test]
fn the_address_of_the_client_comes_from_where_it_can_be_trusted() {
    let mut builder = builder();
    let allow = r#"{"statements":[{"effect":"allow","api":"*","condition":"ipAddress('10.0.0.0/24')"}]}"#;
    granted(&mut builder, "OP0123456789/alice", allow);
    let deny = r#"{"statements":[{"effect":"allow","api":"*"},{"effect":"deny","api":"*","condition":"ipAddress('192.0.2.0/24')"}]}"#;
    granted(&mut builder, "OP0123456789/bob", deny);
    let snapshot = snapshot(&mut builder);
    let token = |name: &str| bearer(&Claims { sub: format!("OP0123456789/{name}"), ..claims() });
    let (alice, bob) = (token("alice"), token("bob"));
    let rules = r#""rules": [{ "path": "/x", "permission": "A:b" }]"#;
    let behind =
        format!(r#"{rules}, "client_address": {{ "header": "x-forwarded-for", "trusted_hops": 2 }}"#);
    for (members, peer, forwarded, for_alice, for_bob) in [
        (rules, Some("10.0.0.1"), "192.0.2.1", true, true),
        (rules, Some("::ffff:10.0.0.1"), "192.0.2.1", true, true),
        (rules, Some("192.0.2.1"), "10.0.0.1", false, false),
        // Not known: no allow by address, and every deny by address.
        (rules, None, "10.0.0.1", false, false),
        (&behind, Some("192.0.2.1"), "192.0.2.1, 10.0.0.1, 10.9.9.9", true, true),
        (&behind, Some("10.0.0.1"), "10.0.0.1, 192.0.2.1, 10.0.0.1", false, false),
        (&behind, Some("10.0.0.1"), "10.0.0.1", false, false),
        (&behind, Some("10.0.0.1"), "10.0.0.1, x", true, true),
        (&behind, Some("10.0.0.1"), "x, 10.0.0.1", false, false),
    ] {
        let gate = gate(members);
        assert_eq!(gate.asks_for_peer(), members == rules);
        for (token, expected) in [(&alice, for_alice), (&bob, for_bob)] {
            let headers: [(&str, &[u8]); 4] = [
                (":method", b"GET"),
                (":path", b"/x"),
                ("authorization", token.as_bytes()),
                ("x-forwarded-for", forwarded.as_bytes()),
            ];
            let peer = peer.map(|peer| peer.parse().unwrap());
            let verdict = gate.decide_from(peer, headers.into_iter(), Some(&snapshot), NOW_MS);
            assert_eq!(matches!(verdict, Verdict::Admit(_)), expected, "{peer:?} {forwarded}: {verdict:?}");
        }
    }
}

#[test]
fn a_rule_narrows_what_the_policy_accepts() {
    let gate = gate(
        r#""rules": [
            { "path": "/issuer", "issuers": ["https://other"] },
            { "path": "/own", "issuers": ["https://other", "https://keystile.local"] },
            { "path": "/audience", "audiences": ["billing"] },
            { "path": "/operators/{id}", "claims": { "operator.operatorId": { "path_variable": "id" } } },
            { "path": "/key", "claims": { "akid": ["keyId-1", "keyId-2"] } },
            { "path": "/no-key", "claims": { "akid": "keyId-2" } },
            { "path": "/scope", "scopes": ["sims:read"] },
            { "path": "/bearer", "credentials": ["authorization"] },
            { "path": "/header", "credentials": ["x-api-token"] }
        ]"#,
    );
    let snapshot = snapshot(&mut builder());
    let token = alice();
    let billing = bearer(&Claims { aud: vec!["api".into(), "billing".into()], ..claims() });
    for (path, token, expected) in [
        ("/issuer", &token, "issuer_not_accepted"),
        ("/own", &token, "admitted"),
        ("/audience", &token, "token_audience_mismatch"),
        ("/audience", &billing, "admitted"),
        ("/operators/OP0123456789", &token, "admitted"),
        ("/operators/OP1", &token, "claim_missing"),
        ("/key", &token, "admitted"),
        ("/no-key", &token, "claim_missing"),
        ("/scope", &token, "scope_missing"),
        ("/bearer", &token, "admitted"),
        ("/header", &token, "credential_missing"),
    ] {
        let line = format!("GET {path}");
        assert_eq!(ask(&gate, Some(&snapshot), &line, &[("authorization", token)]), expected, "{path}");
    }
    let bare = token.strip_prefix("Bearer ").unwrap();
    let both = [("authorization", &token[..]), ("x-api-token", bare)];
    for (path, expected) in [("/header", "admitted"), ("/bearer", "credential_missing")] {
        assert_eq!(ask(&gate, Some(&snapshot), &format!("GET {path}"), &both[1..]), expected);
        assert_eq!(ask(&gate, Some(&snapshot), &format!("GET {path}"), &both), "credential_ambiguous");
    }
}

#[test]
fn a_rule_has_its_own_patience() {
    let gate = gate(
        r#""rules": [
            { "path": "/usual" },
            { "path": "/deny", "stale": "deny" },
            { "path": "/longer", "stale": { "outage_grace_seconds": 3600 } },
            { "path": "/recent", "stale": { "issued_within_seconds": 100 } }
        ]"#,
    );
    let expires = NOW_MS + 60_000;
    let mut builder = builder();
    let revoked = bearer(&Claims { jti: "r".into(), ..claims() });
    builder.revoke(token::Fingerprint::of(&revoked.as_bytes()[7..])).unwrap();
    let snapshot = snapshot(&mut builder);
    // Issued 10 seconds ago: recent for 90 more.
    let token = bearer(&Claims { exp: NOW + 100_000, ..claims() });
    for (path, now, fresh) in [
        ("/usual", expires + 899_999, true),
        ("/usual", expires + 900_000, false),
        ("/deny", expires - 1, true),
        ("/deny", expires, false),
        ("/longer", expires + 3_599_999, true),
        ("/longer", expires + 3_600_000, false),
        ("/recent", expires - 1, true),
        ("/recent", NOW_MS + 89_999, true),
        ("/recent", NOW_MS + 90_000, false),
    ] {
        let line = format!("GET {path}");
        let expected = if fresh { "admitted" } else { "bundle_stale" };
        let found = ask_at(&gate, Some(&snapshot), &line, &[("authorization", &token)], now);
        assert_eq!(found, expected, "{path} {now}");
        // However old: what it names is refused by that name.
        let found = ask_at(&gate, Some(&snapshot), &line, &[("authorization", &revoked)], now);
        assert!(["revoked", "token_expired"].contains(&found), "{found}");
    }
}

#[test]
fn who_passes_without_an_identity_has_none() {
    let gate = gate(r#""rules": [{ "path": "/x", "access": "public" }]"#);
    // A host that drops all headers where there are too many would pass on those of the client.
    let many = vec![("x-other", "1"); 1000];
    assert_eq!(ask(&gate, None, "GET /x", &many), "headers_too_many");
    let headers: [(&str, &[u8]); 5] = [
        (":path", b"/x"),
        ("authorization", b"Bearer anything"),
        ("x-keystile-subject", b"root"),
        ("X_Keystile_Subject", b"root"),
        ("x-other", b"1"),
    ];
    let kept: Vec<String> =
        gate.forward_anonymous(headers.into_iter()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(kept, [":path", "x-other"]);
}

#[test]
fn rules_are_strict() {
    for (rules, path, why) in [
        (r#"{}"#, "`rules`", "expected an array"),
        (r#"[{}]"#, "`rules[0]`", "either `path` or `operations`"),
        (r#"[[]]"#, "`rules[0]`", "expected an object"),
        (r#"[{ "path": "/a", "pth": 1 }]"#, "`rules[0].pth`", "unknown field"),
        (r#"[{ "path": "/a" }, { "path": "a" }]"#, "`rules[1].path`", "does not start"),
        (r#"[{ "path": "/a/*" }]"#, "`rules[0].path`", "neither a literal"),
        (r#"[{ "path": "/a", "path": "/b" }]"#, "`.`", "`path` stands twice at line 1"),
        (r#"[{ "path": "/a", "methods": ["GET", "put"] }]"#, "`rules[0].methods[1]`", "in capitals"),
        (r#"[{ "path": "/a", "hosts": ["A.b"] }]"#, "`rules[0].hosts[0]`", "lower case"),
        (r#"[{ "path": "/a", "access": "none" }]"#, "`rules[0].access`", "unknown variant"),
        (r#"[{ "path": "/a", "permission": "Sim:*" }]"#, "`rules[0].permission`", "Tag:operation"),
        (r#"[{ "path": "/a", "scopes": ["a b"] }]"#, "`rules[0].scopes[0]`", "without spaces"),
        (r#"[{ "path": "/a", "claims": { "x": null } }]"#, "`rules[0].claims.x`", "must be a string"),
        (
            r#"[{ "path": "/a", "claims": { "x": { "path_variable": "b" } } }]"#,
            "`rules[0]`",
            "no path variable `b`",
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
        (r#"[{ "path": "/a", "access": "public", "permission": "A:b" }]"#, "`rules[0]`", "is public"),
        (r#"[{ "path": "/a", "access": "public", "scopes": ["a"] }]"#, "`rules[0]`", "is public"),
        (r#"[{ "path": "/a", "access": "optional", "permission": "A:b" }]"#, "`rules[0]`", "is optional"),
        (
            r#"[{ "path": "/a", "operations": { "table": "GET\t/a\tA:b" } }]"#,
            "`rules[0]`",
            "either `path` or",
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

proptest! {
    /// Whatever a request says of itself: no panic, and nobody is admitted without a credential.
    #[test]
    fn no_request_line_gets_past_a_rule(
        method in prop::collection::vec(any::<u8>(), 0..6),
        path in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..30),
            "[/.;%2fe5c?#a]{0,20}".prop_map(String::into_bytes),
            "/secret[/.;%2fe5c?#]{0,6}".prop_map(String::into_bytes),
        ],
        host in prop::collection::vec(any::<u8>(), 0..10),
        real: bool,
    ) {
        let gate = gate(r#""unmatched": "public", "rules": [
            { "path": "/secret" }, { "path": "/secret/{id}" }, { "path": "/x", "hosts": ["a.b"] }
        ]"#);
        let (method, host) = if real { (&b"GET"[..], &b"c.d"[..]) } else { (&method[..], &host[..]) };
        let headers = [(":method", method), (":path", &path[..]), (":authority", host)];
        let verdict = gate.decide(headers.into_iter(), Some(&snapshot(&mut builder())), NOW_MS);
        prop_assert!(!matches!(verdict, Verdict::Admit(_)));
        // What an upstream could read as the secret, by resolving, decoding, folding or cutting, does not pass.
        let sent = path.split(|byte| *byte == b'?').next().unwrap_or_default();
        let read = String::from_utf8_lossy(sent).replace("%2f", "/").replace("%5c", "/").replace(';', "");
        let folded: Vec<&str> = read.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if folded == ["secret"] {
            prop_assert!(matches!(verdict, Verdict::Refuse(_)), "{:?} {:?}", String::from_utf8_lossy(&path), verdict);
        }
    }
}

#[test]
fn reasons_of_routes_are_answered_with_their_status() {
    let plain = crate::world::gate();
    for (reason, status) in [
        (Reason::Unroutable(verdict::route::Unroutable::DotSegment), 400),
        (Reason::RouteUnmatched, 404),
        (Reason::PermissionDenied, 403),
        (Reason::ScopeMissing, 403),
        (Reason::ClaimMissing, 403),
        (Reason::IssuerNotAccepted, 403),
    ] {
        assert_eq!(plain.answer(reason, None).status, status);
        assert_eq!(reason.status(), status);
    }
    assert_eq!(NOW * 1000, NOW_MS);
}
