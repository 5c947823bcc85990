//! Decisions of the gate: one request, one bundle, one time.

use bundle::{Gap, Scope, builder::Builder};
use proptest::prelude::*;
use token::{Claims, Fingerprint, mint::SigningKey};
use verdict::{Decision, Freshness, Gate, Policy, Reason, Snapshot, Stripping};

use crate::fixtures::{
    self, NOW, NOW_MS, builder, claims, configuration, gate, gate_with, signing_key, snapshot,
};

fn decide(gate: &Gate, token: &str, snapshot: &Snapshot, now: u64) -> Result<(), &'static str> {
    let value = format!("Bearer {token}");
    match gate.decide([("authorization", value.as_bytes())].into_iter(), Some(snapshot), now) {
        Decision::Admit(admission) => {
            assert_eq!(admission.fingerprint(), Fingerprint::digest(token.as_bytes()));
            Ok(())
        }
        Decision::Refuse(refusal) => Err(refusal.reason().code()),
        Decision::Pass(pass_reason) => panic!("{pass_reason:?} without rules"),
    }
}

#[test]
fn claims_are_checked_to_the_second() {
    let snapshot = snapshot(&mut builder());
    let with = |change: fn(&mut Claims)| {
        let mut claims = claims();
        change(&mut claims);
        decide(&gate(), signing_key().mint(&claims).expose(), &snapshot, NOW_MS)
    };
    // The leeway is 5 seconds.
    assert_eq!(with(|_| ()), Ok(()));
    assert_eq!(with(|claims| claims.exp = Some(NOW - 4)), Ok(()));
    assert_eq!(with(|claims| claims.exp = Some(NOW - 5)), Err("token_expired"));
    assert_eq!(with(|claims| claims.exp = Some(0)), Err("token_expired"));
    assert_eq!(with(|claims| claims.exp = None), Ok(()), "good until it is revoked");
    assert_eq!(with(|claims| claims.exp = Some((1 << 53) - 1)), Ok(()));
    assert_eq!(with(|claims| claims.exp = Some(u64::MAX)), Err("token_malformed"));
    assert_eq!(with(|claims| claims.nbf = Some(NOW + 5)), Ok(()));
    assert_eq!(with(|claims| claims.nbf = Some(NOW + 6)), Err("token_not_yet_valid"));
    assert_eq!(with(|claims| claims.iat = NOW + 5), Ok(()));
    assert_eq!(with(|claims| claims.iat = NOW + 6), Err("token_issued_in_future"));
    assert_eq!(with(|claims| claims.aud = vec!["other".into(), "api".into()]), Ok(()));
    assert_eq!(with(|claims| claims.aud = vec!["other".into()]), Err("token_audience_mismatch"));
    assert_eq!(with(|claims| claims.aud = vec![]), Err("token_audience_mismatch"));
    assert_eq!(with(|claims| claims.iss = "https://keystile.local/".into()), Err("token_issuer_unknown"));
}

#[test]
fn only_known_keys_verify() {
    let snapshot = snapshot(&mut builder());
    let token = |key: SigningKey| key.mint(&claims()).expose().to_owned();
    for (key, expected) in [
        (SigningKey::hs256("k2", &[3; 32]).unwrap(), Ok(())),
        (SigningKey::hs256("k2", &[4; 32]).unwrap(), Err("token_signature_invalid")),
        (SigningKey::hs256("k1", &[3; 32]).unwrap(), Err("token_algorithm_mismatch")),
        (SigningKey::ed25519("k3", &[2; 32]).unwrap(), Err("token_key_unknown")),
        (SigningKey::ed25519("k1", &[5; 32]).unwrap(), Err("token_signature_invalid")),
    ] {
        assert_eq!(decide(&gate(), &token(key), &snapshot, NOW_MS), expected);
    }
}

#[test]
fn only_the_revoked_fingerprint_is_refused() {
    let token = |jti: &str| signing_key().mint(&Claims { jti: jti.into(), ..claims() }).expose().to_owned();
    let mut builder = builder();
    builder.revoke(1, Fingerprint::digest(token("a").as_bytes())).unwrap();
    let snapshot = snapshot(&mut builder);
    assert_eq!(decide(&gate(), &token("a"), &snapshot, NOW_MS), Err("revoked"));
    assert_eq!(decide(&gate(), &token("b"), &snapshot, NOW_MS), Ok(()));
}

#[test]
fn watermarks_refuse_credentials_issued_until_then() {
    let scopes = [
        Scope::Global,
        Scope::SigningKey("k1"),
        Scope::Operator("OP0123456789"),
        Scope::User("OP0123456789/alice"),
        Scope::AuthKey("keyId-1"),
        Scope::Session("api-1"),
    ];
    let token = signing_key().mint(&claims());
    for scope in scopes {
        // A later watermark of another scope and an earlier one of every scope change nothing.
        for (instant, expected) in [(claims().iat - 1, Ok(())), (claims().iat, Err("watermark"))] {
            let mut builder = builder();
            scopes.into_iter().for_each(|scope| assert!(builder.raise_watermark(1, scope, 1)));
            builder.raise_watermark(1, Scope::User("OP0123456789/bob"), u64::MAX);
            builder.raise_watermark(1, Scope::AuthKey("api-1"), u64::MAX);
            builder.raise_watermark(1, scope, instant);
            assert_eq!(
                decide(&gate(), token.expose(), &snapshot(&mut builder), NOW_MS),
                expected,
                "{scope:?}"
            );
        }
    }
}

/// Of the credentials issued in a gap, only the known ones are accepted. Others are not affected.
#[test]
fn gaps_refuse_unknown_credentials() {
    let token = |jti: &str| signing_key().mint(&Claims { jti: jti.into(), ..claims() }).expose().to_owned();
    let (lost, known, revoked) = (token("lost"), token("known"), token("revoked"));
    let print = |token: &str| Fingerprint::digest(token.as_bytes());
    let iat = claims().iat;
    let gap = |issued_after, issued_until| Gap { issued_after, issued_until };
    for (gaps, expected) in [
        (vec![], Ok(())),
        (vec![gap(iat - 1, iat)], Err("issuance_unknown")),
        (vec![gap(0, u64::MAX)], Err("issuance_unknown")),
        (vec![gap(iat, iat + 100)], Ok(())),
        (vec![gap(iat - 100, iat - 1)], Ok(())),
        (
            vec![gap(iat + 5, iat + 6), gap(iat - 100, iat - 1), gap(iat - 2, iat + 2)],
            Err("issuance_unknown"),
        ),
    ] {
        let mut builder = builder();
        builder.set_gaps(&gaps, [print(&known), print(&revoked)]).unwrap();
        builder.revoke(1, print(&revoked)).unwrap();
        let decide_token =
            |builder: &mut Builder, token: &str| decide(&gate(), token, &snapshot(builder), NOW_MS);
        assert_eq!(decide_token(&mut builder, &lost), expected, "{gaps:?}");
        assert_eq!(decide_token(&mut builder, &known), Ok(()), "{gaps:?}");
        assert_eq!(decide_token(&mut builder, &revoked), Err("revoked"), "{gaps:?}");
        // A base that would report it as good is not consulted.
        builder.unrevoke(print(&lost)).unwrap();
        assert_eq!(decide_token(&mut builder, &lost), expected, "{gaps:?}");
        // The known fingerprints are in several objects.
        builder
            .set_gaps(&gaps, (0..20_000u64).map(|number| Fingerprint::digest(&number.to_be_bytes())))
            .unwrap();
        assert_eq!(decide_token(&mut builder, &lost), expected, "{gaps:?}");
        assert_eq!(decide_token(&mut builder, &known), expected, "{gaps:?}");
        builder.set_gaps(&[], []).unwrap();
        assert_eq!(decide_token(&mut builder, &known), Ok(()), "{gaps:?}");
    }
}

#[test]
fn uncovered_credentials_follow_the_policy() {
    let token = signing_key().mint(&claims());
    let fingerprint = Fingerprint::digest(token.expose().as_bytes());
    let (usual, strict) = (gate(), gate_with(r#""uncovered": "deny""#));
    let uncovered = snapshot(&mut builder());
    assert_eq!(decide(&usual, token.expose(), &uncovered, NOW_MS), Ok(()));
    assert_eq!(decide(&strict, token.expose(), &uncovered, NOW_MS), Err("not_covered"));
    let mut restored = builder();
    restored.unrevoke(fingerprint).unwrap();
    assert_eq!(decide(&strict, token.expose(), &snapshot(&mut restored), NOW_MS), Ok(()));
    let mut revoked = builder();
    revoked.revoke(1, fingerprint).unwrap();
    assert_eq!(decide(&strict, token.expose(), &snapshot(&mut revoked), NOW_MS), Err("revoked"));
}

#[test]
fn missing_and_stale_bundles_follow_the_policy() {
    let (gate, token) = (gate(), signing_key().mint(&Claims { exp: Some(NOW + 100_000), ..claims() }));
    let value = format!("Bearer {}", token.expose());
    let headers = [("authorization", value.as_bytes())];
    let decision = gate.decide(headers.into_iter(), None, NOW_MS);
    assert_eq!(decision, Decision::Refuse(Reason::BundleMissing.into()));

    let revoked = signing_key().mint(&claims());
    let mut builder = builder();
    builder.revoke(1, Fingerprint::digest(revoked.expose().as_bytes())).unwrap();
    let snapshot = snapshot(&mut builder);
    let (expires, grace) = (NOW_MS + 60_000, 900_000);
    for (now, freshness, expected) in [
        (expires - 1, Freshness::Fresh, Ok(())),
        (expires, Freshness::Stale, Ok(())),
        (expires + grace - 1, Freshness::Stale, Ok(())),
        (expires + grace, Freshness::Expired, Err("bundle_stale")),
    ] {
        assert_eq!(gate.freshness(&snapshot, now), freshness);
        assert_eq!(decide(&gate, token.expose(), &snapshot, now), expected);
        // A stale bundle still reports a revoked credential as revoked.
        assert_eq!(decide(&gate, revoked.expose(), &snapshot, now), Err("revoked"));
    }
    let strict = configuration()
        .replace(r#""audience": "default","#, r#""audience": "default", "outage_grace_seconds": 0,"#);
    let strict = Gate::new(Policy::from_json(strict.as_bytes()).unwrap());
    assert_eq!(decide(&strict, token.expose(), &snapshot, expires - 1), Ok(()));
    assert_eq!(decide(&strict, token.expose(), &snapshot, expires), Err("bundle_stale"));
}

#[test]
fn identity_headers_are_replaced() {
    let token = signing_key().mint(&claims());
    let value = format!("Bearer {}", token.expose());
    let headers: &[(&str, &[u8])] = &[
        (":path", b"/x"),
        ("authorization", value.as_bytes()),
        ("x-keystile-subject", b"root"),
        ("X-Keystile-Subject", b"root"),
        ("x_keystile_subject", b"root"),
        ("x.keystile.subject", b"root"),
        ("x'keystile'subject", b"root"),
        ("x-keystile_operator", b"root"),
        ("x-keystile-anything", b"root"),
        ("x-keystile", b"kept: not ours"),
        ("x-other", b"\xff\xfe"),
    ];
    let gate = gate();
    let decision = gate.decide(headers.iter().copied(), Some(&snapshot(&mut builder())), NOW_MS);
    assert!(matches!(decision, Decision::Admit(_)), "{decision:?}");
    let forwarded = fixtures::forwarded_headers(&gate, headers, &decision);
    let fingerprint = Fingerprint::digest(token.expose().as_bytes()).to_string();
    let expected: [(&str, &[u8]); 8] = [
        (":path", b"/x"),
        ("x-keystile", b"kept: not ours"),
        ("x-other", b"\xff\xfe"),
        ("x-keystile-subject", b"OP0123456789/alice"),
        ("x-keystile-operator", b"OP0123456789"),
        ("x-keystile-authkey", b"keyId-1"),
        ("x-keystile-session", b"api-1"),
        ("x-keystile-fingerprint", fingerprint.as_bytes()),
    ];
    let forwarded: Vec<(&str, &[u8])> = forwarded.iter().map(|(name, value)| (*name, &value[..])).collect();
    assert_eq!(forwarded, expected);
}

#[test]
fn identity_headers_are_removed_from_trailers() {
    let forged: [(&str, &[u8]); 4] = [
        ("x-keystile-subject", b"root"),
        ("Authorization", b"Bearer x"),
        ("x_keystile_a", b""),
        ("grpc-status", b"0"),
    ];
    let gate = gate();
    let stripping = Stripping::Credentials(None);
    let kept = gate.forward_trailers(&forged, stripping).unwrap();
    assert_eq!(kept, [("grpc-status", b"0"[..].into())]);
    assert_eq!(gate.forward_trailers(&forged[3..], stripping), None, "nothing to change");
    let gate = gate_with(r#""credentials": [{ "cookie": "session" }]"#);
    let kept = gate.forward_trailers(&[("cookie", b"a=1; session=b")], stripping).unwrap();
    assert_eq!(kept, [("cookie", b"a=1"[..].into())]);
}

#[test]
fn responses_have_a_reason_and_a_challenge() {
    let gate = gate();
    for reason in Reason::ALL {
        let answer = gate.refusal_response(&reason.into(), Some(b"id-1"));
        let header =
            |name| answer.headers.iter().find(|(header, _)| *header == name).map(|(_, value)| value.as_str());
        assert_eq!(answer.status, reason.status());
        assert!(answer.body.contains(&format!(r#""code":"{}""#, reason.code())), "{}", answer.body);
        assert_eq!(header("content-type"), Some("application/problem+json"));
        assert_eq!(header("x-request-id"), Some("id-1"));
        assert_eq!(header("www-authenticate").is_some(), [401, 403].contains(&answer.status), "{reason:?}");
        assert_eq!(header("retry-after").is_some(), answer.status == 503, "{reason:?}");
    }
    let challenge = |reason: Reason| {
        gate.refusal_response(&reason.into(), None)
            .headers
            .into_iter()
            .find(|(name, _)| *name == "www-authenticate")
    };
    assert_eq!(challenge(Reason::CredentialMissing).unwrap().1, r#"Bearer realm="keystile""#);
    assert_eq!(
        challenge(Reason::Expired).unwrap().1,
        r#"Bearer realm="keystile", error="invalid_token", error_description="the token has expired""#
    );
    for bad in [&b""[..], b"a b", b"a\r\nset-cookie: x", b"\xff", &[b'a'; 129]] {
        assert!(
            gate.refusal_response(&Reason::Expired.into(), Some(bad))
                .headers
                .iter()
                .all(|(name, _)| *name != "x-request-id")
        );
    }
}

#[test]
fn too_many_headers_are_refused() {
    let (gate, snapshot) = (gate(), snapshot(&mut builder()));
    let token = format!("Bearer {}", signing_key().mint(&claims()).expose());
    for (more, expected) in [(999, None), (1000, Some(Reason::TooManyHeaders))] {
        let others = core::iter::repeat_n(("x-other", &b"v"[..]), more);
        let headers = others.chain([("authorization", token.as_bytes())]);
        let refused = match gate.decide(headers, Some(&snapshot), NOW_MS) {
            Decision::Admit(_) => None,
            Decision::Refuse(refusal) => Some(refusal.reason()),
            Decision::Pass(pass_reason) => panic!("{pass_reason:?} without rules"),
        };
        assert_eq!(refused, expected, "{more}");
    }
}

#[test]
fn codes_are_unique() {
    let codes: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    assert_eq!(codes.len(), Reason::ALL.len());
}

proptest! {
    #[test]
    fn arbitrary_headers_are_never_admitted(
        headers in prop::collection::vec((prop::sample::select(vec!["authorization", "x-api-token", "x_keystile_a", ""]), prop::collection::vec(any::<u8>(), 0..80)), 0..8),
        bearer: bool,
    ) {
        let snapshot = snapshot(&mut builder());
        let headers: Vec<(&str, Vec<u8>)> = headers
            .into_iter()
            .map(|(name, value)| (name, if bearer { [&b"Bearer "[..], &value].concat() } else { value }))
            .collect();
        let borrowed = headers.iter().map(|(name, value)| (*name, &value[..]));
        prop_assert!(matches!(gate().decide(borrowed, Some(&snapshot), NOW_MS), Decision::Refuse(_)));
    }
}
