//! Requirements of rules on credentials.

use token::Claims;
use verdict::{Cache, Decision, Reason, Request, Snapshot, SoftwareVerifier};

use crate::fixtures::{
    NOW, NOW_MS, alice_bearer, bearer, builder, claims, decision_code, decision_code_at, gate_with,
    set_grant, snapshot,
};

const SORACOM: &str = include_str!("../data/soracom-operations.tsv");

#[test]
fn soracom_operations_require_their_permission() {
    let table = serde_json::Value::from(SORACOM);
    let gate = gate_with(&format!(
        r#""rules": [{{ "operations": {{ "table": {table}, "prefix": "/v1", "public": ["Auth:auth"] }} }}]"#
    ));
    assert_eq!(gate.policy().rules.len(), 481);
    let rows: Vec<Vec<&str>> = SORACOM.lines().skip(1).map(|line| line.split('\t').collect()).collect();
    // Each user has one permission, and only if every path variable has its expected value.
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
        set_grant(&mut builder, &format!("OP0123456789/u{number}"), &document);
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
        assert_eq!(
            decision_code(&gate, Some(&snapshot), &line, &[("authorization", &own)]),
            allowed,
            "{line}"
        );
        assert_eq!(
            decision_code(&gate, Some(&snapshot), &line, &[("authorization", &root)]),
            allowed,
            "{line}"
        );
        assert_eq!(
            decision_code(&gate, Some(&snapshot), &line, &[("authorization", &another)]),
            denied,
            "{line}"
        );
        assert_eq!(decision_code(&gate, Some(&snapshot), &line, &[]), missing, "{line}");
        if row[1].contains('{') {
            let elsewhere = line.replacen("the%20", "another%20", 1);
            assert_eq!(
                decision_code(&gate, Some(&snapshot), &elsewhere, &[("authorization", &own)]),
                denied,
                "{line}"
            );
        }
    }
    // The table matches only below its prefix.
    assert_eq!(decision_code(&gate, Some(&snapshot), "POST /auth", &[]), "route_unmatched");
}

#[test]
fn permissions_follow_the_current_grant() {
    let gate = gate_with(r#""rules": [{ "path": "/sims/{sim_id}", "permission": "Sim:getSim" }]"#);
    let token = alice_bearer();
    let decision_code = |snapshot: &Snapshot, token: &str| {
        decision_code(&gate, Some(snapshot), "GET /sims/1", &[("authorization", token)])
    };
    let mut builder = builder();
    set_grant(&mut builder, "OP0123456789/bob", r#"{"statements":[{"effect":"allow","api":"*"}]}"#);
    assert_eq!(
        decision_code(&snapshot(&mut builder), &token),
        "permission_denied",
        "no grant, no permission"
    );
    let allow = r#"{"statements":[{"effect":"allow","api":"Sim:*"}]}"#;
    set_grant(&mut builder, "OP0123456789/alice", allow);
    assert_eq!(decision_code(&snapshot(&mut builder), &token), "admitted", "the same token as before");
    set_grant(&mut builder, "OP0123456789/alice", r#"{"statements":[]}"#);
    assert_eq!(decision_code(&snapshot(&mut builder), &token), "permission_denied");
    // Malformed grants allow nothing.
    for malformed in [&b""[..], b"\x00", b"\x01\x01", b"\x02\x01\x01\x01\x00\x00"] {
        builder.set_grant("OP0123456789/alice", malformed).unwrap();
        assert_eq!(decision_code(&snapshot(&mut builder), &token), "permission_denied");
    }
    // The root user is the operator itself, not any subject without a user name.
    for (sub, expected) in [
        ("OP0123456789", "admitted"),
        ("OP9999999999", "permission_denied"),
        ("OP01234567890", "permission_denied"),
        ("OP0123456789/", "permission_denied"),
        ("", "token_malformed"),
    ] {
        let token = bearer(&Claims { sub: sub.into(), ..claims() });
        assert_eq!(decision_code(&snapshot(&mut builder), &token), expected, "{sub}");
    }
    // Conditions see the user name without the operator.
    let own = r#"{"statements":[{"effect":"allow","api":"*","condition":"samUserName == 'alice'"}]}"#;
    set_grant(&mut builder, "OP0123456789/alice", own);
    assert_eq!(decision_code(&snapshot(&mut builder), &token), "admitted");
}

#[test]
fn client_address_comes_from_trusted_sources() {
    let mut builder = builder();
    let allow = r#"{"statements":[{"effect":"allow","api":"*","condition":"ipAddress('10.0.0.0/24')"}]}"#;
    set_grant(&mut builder, "OP0123456789/alice", allow);
    let deny = r#"{"statements":[{"effect":"allow","api":"*"},{"effect":"deny","api":"*","condition":"ipAddress('192.0.2.0/24')"}]}"#;
    set_grant(&mut builder, "OP0123456789/bob", deny);
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
        // If the address is unknown, no `allow` on it applies and every `deny` does.
        (rules, None, "10.0.0.1", false, false),
        (&behind, Some("192.0.2.1"), "192.0.2.1, 10.0.0.1, 10.9.9.9", true, true),
        (&behind, Some("10.0.0.1"), "10.0.0.1, 192.0.2.1, 10.0.0.1", false, false),
        (&behind, Some("10.0.0.1"), "10.0.0.1", false, false),
        (&behind, Some("10.0.0.1"), "10.0.0.1, x", true, true),
        (&behind, Some("10.0.0.1"), "x, 10.0.0.1", false, false),
    ] {
        let gate = gate_with(members);
        assert_eq!(gate.needs_peer_address(), members == rules);
        for (token, expected) in [(&alice, for_alice), (&bob, for_bob)] {
            let headers: [(&str, &[u8]); 4] = [
                (":method", b"GET"),
                (":path", b"/x"),
                ("authorization", token.as_bytes()),
                ("x-forwarded-for", forwarded.as_bytes()),
            ];
            let peer = peer.map(|peer| peer.parse().unwrap());
            let request = Request { headers: &headers, peer, snapshot: Some(&snapshot), now: NOW_MS };
            let decision = gate.decide_with(&request, &mut Cache::disabled(), &SoftwareVerifier);
            assert_eq!(
                matches!(decision, Decision::Admit(_)),
                expected,
                "{peer:?} {forwarded}: {decision:?}"
            );
        }
    }
}

#[test]
fn rules_narrow_the_policy() {
    let gate = gate_with(
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
    let token = alice_bearer();
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
        ("/header", &token, "credential_misplaced"),
    ] {
        let line = format!("GET {path}");
        assert_eq!(
            decision_code(&gate, Some(&snapshot), &line, &[("authorization", token)]),
            expected,
            "{path}"
        );
    }
    let bare = token.strip_prefix("Bearer ").unwrap();
    let both = [("authorization", &token[..]), ("x-api-token", bare)];
    for (path, expected) in [("/header", "admitted"), ("/bearer", "credential_misplaced")] {
        assert_eq!(decision_code(&gate, Some(&snapshot), &format!("GET {path}"), &both[1..]), expected);
        // The rule searches one of the two locations.
        assert_eq!(decision_code(&gate, Some(&snapshot), &format!("GET {path}"), &both), "admitted");
    }
    assert_eq!(decision_code(&gate, Some(&snapshot), "GET /own", &both), "credential_ambiguous");
}

#[test]
fn rules_have_their_own_stale_policy() {
    let gate = gate_with(
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
    builder.revoke(1, token::Fingerprint::digest(&revoked.as_bytes()[7..])).unwrap();
    let snapshot = snapshot(&mut builder);
    // Issued 10 seconds ago: recent for 90 more seconds.
    let token = bearer(&Claims { exp: Some(NOW + 100_000), ..claims() });
    for (path, now, expected) in [
        ("/usual", expires + 899_999, "admitted"),
        ("/usual", expires + 900_000, "bundle_stale"),
        ("/deny", expires - 1, "admitted"),
        ("/deny", expires, "bundle_stale_denied"),
        ("/longer", expires + 3_599_999, "admitted"),
        ("/longer", expires + 3_600_000, "bundle_stale"),
        ("/recent", expires - 1, "admitted"),
        ("/recent", NOW_MS + 89_999, "admitted"),
        ("/recent", NOW_MS + 90_000, "bundle_stale_issued_earlier"),
    ] {
        let line = format!("GET {path}");
        let found = decision_code_at(&gate, Some(&snapshot), &line, &[("authorization", &token)], now);
        assert_eq!(found, expected, "{path} {now}");
        // A stale bundle still reports a revoked credential as revoked.
        let found = decision_code_at(&gate, Some(&snapshot), &line, &[("authorization", &revoked)], now);
        assert!(["revoked", "token_expired"].contains(&found), "{found}");
    }
}

#[test]
fn route_reasons_have_their_status() {
    let plain = crate::fixtures::gate();
    for (reason, status) in [
        (Reason::AmbiguousRequest(verdict::route::AmbiguousRequest::DotSegment), 400),
        (Reason::RouteUnmatched, 404),
        (Reason::PermissionDenied, 403),
        (Reason::ScopeMissing, 403),
        (Reason::ClaimMissing, 403),
        (Reason::IssuerNotAccepted, 403),
    ] {
        assert_eq!(plain.refusal_response(&reason.into(), None).status, status);
        assert_eq!(reason.status(), status);
    }
    assert_eq!(NOW * 1000, NOW_MS);
}
