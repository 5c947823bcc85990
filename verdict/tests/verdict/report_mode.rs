//! Report mode: requests pass, are counted and marked, and the upstream receives no unproven identity.

use verdict::{Decision, PassReason, Snapshot};

use crate::fixtures::{self, NOW_MS, alice_bearer, builder, gate_with, snapshot};

const RULES: &str = r#""rules": [
    { "path": "/usual" },
    { "path": "/scoped", "scopes": ["sims:read", "sims:write"] },
    { "path": "/enforced", "mode": "enforce" },
    { "path": "/reported", "mode": "report", "scopes": ["a"] },
    { "path": "/public", "access": "public" }
]"#;

/// Returns the status, or the reason and subject that the upstream receives.
fn decide(mode: &str, snapshot: Option<&Snapshot>, path: &str, token: &str) -> String {
    let gate = gate_with(&format!(r#""mode": "{mode}", {RULES}"#));
    let headers: [(&str, &[u8]); 5] = [
        (":method", b"GET"),
        (":path", path.as_bytes()),
        ("authorization", token.as_bytes()),
        ("x-keystile-subject", b"root"),
        ("x-keystile-report", b"forged"),
    ];
    let decision = gate.decide(headers.into_iter(), snapshot, NOW_MS);
    if let Decision::Refuse(refusal) = &decision {
        assert!(!decision.is_reported());
        return refusal.reason().status().to_string();
    }
    let forwarded = fixtures::forwarded_headers(&gate, &headers, &decision);
    let value = |name| {
        let value = forwarded.iter().find(|(header, _)| *header == name).map(|(_, value)| &value[..]);
        value.map(|value| str::from_utf8(value).unwrap())
    };
    let report = value("x-keystile-report");
    assert_eq!(report, decision.reason().map(|reason| reason.code()));
    assert_eq!(report.is_some(), decision.is_reported());
    let state: Vec<_> = gate.filter_state(&decision).collect();
    assert_eq!(state, report.map(|report| ("keystile.reason", report)).into_iter().collect::<Vec<_>>());
    // Report mode must not break requests, and a public rule does not check credentials.
    let keeps = matches!(decision, Decision::Pass(PassReason::Public(_))) || decision.is_reported();
    assert_eq!(value("authorization").is_some(), keeps, "{path}");
    format!("{} {}", report.unwrap_or("-"), value("x-keystile-subject").unwrap_or("-"))
}

#[test]
fn report_has_the_reason() {
    let snapshot = snapshot(&mut builder());
    let (good, bad) = (&alice_bearer()[..], "Bearer a.b.c");
    for (mode, path, token, expected) in [
        ("report", "/usual", good, "- OP0123456789/alice"),
        ("report", "/usual", bad, "token_not_canonical -"),
        ("report", "/usual", "", "credential_missing -"),
        ("report", "/scoped", good, "scope_missing OP0123456789/alice"),
        ("report", "/scoped", bad, "token_not_canonical -"),
        ("report", "/enforced", bad, "401"),
        ("report", "/enforced", good, "- OP0123456789/alice"),
        ("report", "/none", good, "route_unmatched -"),
        ("report", "/a//b", good, "400"),
        ("report", "/%65nforced", bad, "400"),
        ("report", "/./enforced", bad, "400"),
        ("report", "/public", bad, "- -"),
        ("enforce", "/usual", bad, "401"),
        ("enforce", "/scoped", good, "403"),
        ("enforce", "/reported", good, "scope_missing OP0123456789/alice"),
        ("enforce", "/reported", bad, "token_not_canonical -"),
        ("enforce", "/none", good, "404"),
    ] {
        assert_eq!(decide(mode, Some(&snapshot), path, token), expected, "{mode} {path} {token}");
    }
    assert_eq!(decide("report", None, "/usual", good), "bundle_missing -");
    assert_eq!(decide("enforce", None, "/usual", good), "503");
}

#[test]
fn ambiguous_paths_are_refused_if_any_rule_enforces() {
    for (more, refused) in [("", false), (r#", { "path": "/enforced", "mode": "enforce" }"#, true)] {
        let gate = gate_with(&format!(r#""mode": "report", "rules": [{{ "path": "/usual" }}{more}]"#));
        for (method, path) in [("GET", "/%65nforced"), ("GET", "/usual/../enforced"), ("", "/enforced")] {
            let headers = [(":method", method.as_bytes()), (":path", path.as_bytes())];
            let decision = gate.decide(headers.into_iter(), None, NOW_MS);
            assert_eq!(matches!(decision, Decision::Refuse(_)), refused, "{method} {path} {more}");
            assert_eq!(decision.reason().map(|reason| reason.status()), Some(400));
        }
    }
}

#[test]
fn too_many_headers_are_refused_in_report_mode() {
    let gate = gate_with(r#""mode": "report""#);
    let headers = vec![("x-other", &b"v"[..]); 1001];
    let decision = gate.decide(headers.into_iter(), None, NOW_MS);
    assert!(matches!(decision, Decision::Refuse(_)), "{decision:?}");
}

#[test]
fn filter_state_has_the_proven_identity() {
    let mut builder = builder();
    let token = alice_bearer();
    let gate = gate_with(r#""filter_state": ["reason", "key_id", "subject", "operator"]"#);
    let headers = [("authorization", token.as_bytes())];
    let state = |snapshot: &Snapshot, headers: &[(&str, &[u8])]| {
        let decision = gate.decide(headers.iter().copied(), Some(snapshot), NOW_MS);
        let state = gate.filter_state(&decision);
        state
            .map(|(name, value)| format!("{}={value}", &name["keystile.".len()..]))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let who = "key_id=keyId-1 subject=OP0123456789/alice operator=OP0123456789";
    assert_eq!(state(&snapshot(&mut builder), &headers), who);
    builder.revoke(1, token::Fingerprint::digest(&token.as_bytes()[7..])).unwrap();
    assert_eq!(state(&snapshot(&mut builder), &headers), format!("reason=revoked {who}"));
    let forged = token.replace("Bearer ey", "Bearer eyA");
    let headers = [("authorization", forged.as_bytes())];
    assert!(state(&snapshot(&mut builder), &headers).starts_with("reason=token_"));
    assert_eq!(state(&snapshot(&mut builder), &[]), "reason=credential_missing");
}
