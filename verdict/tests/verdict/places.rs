//! Where rules search credentials, and what public and optional rules do with them.

use bundle::{Scope, builder::SecretKey};
use proptest::prelude::*;
use token::{Algorithm, Claims, Fingerprint, base64url, mint::SigningKey};
use verdict::{AmbiguousCredential, Decision, PassReason, Reason, Snapshot, Stripping};

use crate::fixtures::{
    self, NOW, NOW_MS, alice_bearer, bearer, builder, claims, gate_with, policy, snapshot,
};

const CREDENTIALS: &str = r#""api_keys": {}, "credentials": [
    { "header": "authorization", "scheme": "Bearer" },
    { "header": "x-soracom-token", "pair": "x-soracom-api-key", "name": "pair" },
    { "cookie": "session" },
    { "query": "access_token" }
]"#;

const HEADER: &str = r#"{"alg":"HS256","kid":"k1"}"#;

type Sent<'a> = &'a [(&'a str, &'a str)];

/// Returns the code of a refusal, or the headers that the upstream receives, without those of the identity.
fn forward(
    more: &str,
    snapshot: Option<&Snapshot>,
    path: &str,
    sent: Sent<'_>,
) -> Result<String, &'static str> {
    let gate = gate_with(&format!("{more}, {CREDENTIALS}"));
    let headers = [(":method", "GET"), (":path", path)];
    let headers: Vec<_> = headers.iter().chain(sent).map(|(name, value)| (*name, value.as_bytes())).collect();
    let decision = gate.decide(headers.iter().copied(), snapshot, NOW_MS);
    if let Decision::Refuse(refusal) = decision {
        return Err(refusal.reason().code());
    }
    let forwarded = fixtures::forwarded_headers(&gate, &headers, &decision);
    let admitted = forwarded.iter().any(|(name, _)| *name == "x-keystile-subject");
    assert_eq!(admitted, matches!(decision, Decision::Admit(_)));
    let kept = forwarded.iter().skip(1).filter(|(name, _)| !name.starts_with("x-keystile-"));
    let kept: Vec<_> =
        kept.map(|(name, value)| format!("{name}={}", str::from_utf8(value).unwrap())).collect();
    let unchanged: Vec<_> = sent.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let trailers = gate.forward_trailers(&headers[2..], gate.trailer_stripping(&decision));
    let is_unchanged = kept[1..] == unchanged && !decision.is_reported();
    assert_eq!(trailers.is_none(), is_unchanged || sent.is_empty(), "trailers are treated like headers");
    Ok(format!("{}{}", if admitted { "admitted " } else { "" }, kept.join(" ")))
}

#[test]
fn d1_public_requests_keep_their_credentials() {
    let sent: Sent<'_> = &[
        ("authorization", "Bearer a"),
        ("cookie", "session=b; c=1"),
        ("x-soracom-api-key", "d"),
        ("x-username", "e"),
    ];
    let path = "/x?access_token=f";
    let unchanged = ":path=/x?access_token=f authorization=Bearer a cookie=session=b; c=1 x-soracom-api-key=d x-username=e";
    let stripped = ":path=/x cookie=c=1";
    for (more, expected) in [
        (r#""rules": [{ "path": "/x", "access": "public" }]"#, unchanged),
        (r#""strip_credential": true, "rules": [{ "path": "/x", "access": "public" }]"#, unchanged),
        (r#""mode": "report", "rules": [{ "path": "/x", "access": "public" }]"#, unchanged),
        (r#""rules": [{ "path": "/y" }], "unmatched": "public""#, unchanged),
        (r#""unmatched": "public""#, unchanged),
        (r#""rules": [{ "operations": { "table": "GET\t/x\tA:b", "public": ["A:b"] } }]"#, unchanged),
        (r#""rules": [{ "path": "/x", "access": "public", "strip_credential": false }]"#, unchanged),
        (r#""rules": [{ "path": "/x", "access": "public", "strip_credential": true }]"#, stripped),
        // Requests that are only reported are not changed either.
        (r#""mode": "report", "rules": [{ "path": "/x" }]"#, unchanged),
    ] {
        assert_eq!(forward(more, None, path, sent), Ok(expected.into()), "{more}");
    }
    // Identity headers are removed in any case.
    let gate = gate_with(
        r#""rules": [{ "path": "/x", "access": "public" }], "identity": { "headers": { "subject": "x-user" } }"#,
    );
    let forged = [
        (":path", &b"/x"[..]),
        ("X_Keystile_Subject", b"root"),
        ("x_user", b"root"),
        ("connection", b"x-user"),
    ];
    let decision = Decision::Pass(PassReason::Public(Stripping::Nothing));
    assert_eq!(fixtures::forwarded_headers(&gate, &forged, &decision), [(":path", b"/x"[..].into())]);
}

#[test]
fn d2_rules_search_the_locations_that_they_name() {
    let snapshot = snapshot(&mut builder());
    let (bearer, token) = (alice_bearer(), alice_bearer().replace("Bearer ", ""));
    let good = ("authorization", &*bearer);
    let cookie = format!("session={token}");
    let pair = [("x-soracom-token", &*token), ("x-soracom-api-key", "api-1")];
    let rule = |more: &str| format!(r#""rules": [{{ "path": "/x", {more} }}]"#);
    let header = rule(r#""credentials": ["authorization"]"#);
    let both = rule(r#""credentials": ["authorization", "cookie:session"]"#);
    let optional = rule(r#""access": "optional", "credentials": ["authorization"]"#);
    let kept = rule(r#""strip_credential": false"#);
    for (more, path, sent, expected) in [
        (&header, "/x", &[good, ("cookie", "session=b")][..], Ok("admitted :path=/x cookie=session=b")),
        (&header, "/x", &[good, ("cookie", "Session=b")], Ok("admitted :path=/x cookie=Session=b")),
        (&header, "/x?access_token=b", &[good], Ok("admitted :path=/x?access_token=b")),
        (
            &header,
            "/x",
            &[good, pair[0], pair[1]],
            Ok(&*format!("admitted :path=/x x-soracom-token={token} x-soracom-api-key=api-1")),
        ),
        (&header, "/x", &[good, ("x-username", "root")], Ok("admitted :path=/x")),
        (&header, "/x", &[good, good], Err("credential_ambiguous")),
        (&header, "/x", &[("cookie", "session=b")], Err("credential_misplaced")),
        (&header, "/x", &[("cookie", "Session=b")], Err("credential_misplaced")),
        (&header, "/x", &[], Err("credential_missing")),
        (&both, "/x", &[good, ("cookie", "session=b")], Err("credential_ambiguous")),
        (
            &both,
            "/x",
            &[("cookie", &cookie), ("x-soracom-token", "b")],
            Ok("admitted :path=/x x-soracom-token=b"),
        ),
        (&both, "/x?access_token=b", &[("cookie", &cookie)], Ok("admitted :path=/x?access_token=b")),
        (&optional, "/x", &[good, ("cookie", "session=b")], Ok("admitted :path=/x cookie=session=b")),
        (&optional, "/x", &[("cookie", "session=b")], Ok(":path=/x cookie=session=b")),
        (&optional, "/x", &[("authorization", "Bearer a")], Err("token_malformed")),
        (&kept, "/x", &[good], Ok(&*format!("admitted :path=/x authorization={bearer}"))),
        (&kept, "/x", &[good, ("cookie", "session=b")], Err("credential_ambiguous")),
    ] {
        assert_eq!(
            forward(more, Some(&snapshot), path, sent),
            expected.map(String::from),
            "{more} {path} {sent:?}"
        );
    }
    // The default of the policy, and rules that differ from it.
    let more = r#""strip_credential": false, "rules": [{ "path": "/x", "strip_credential": true }, { "path": "/y" }]"#;
    assert_eq!(forward(more, Some(&snapshot), "/x", &[good]).unwrap(), "admitted :path=/x");
    assert_eq!(
        forward(more, Some(&snapshot), "/y", &[good]).unwrap(),
        format!("admitted :path=/y authorization={bearer}")
    );
}

#[test]
fn d6_optional_rules_ignore_unusable_credentials_by_setting() {
    let mut builder = builder();
    let revoked = bearer(&Claims { jti: "revoked".into(), ..claims() });
    builder.revoke(1, Fingerprint::digest(&revoked.as_bytes()[7..])).unwrap();
    let covered =
        bearer(&Claims { operator: token::Operator { operator_id: "OP9876543210".into() }, ..claims() });
    builder.raise_watermark(1, Scope::Operator("OP9876543210"), NOW);
    let snapshot = snapshot(&mut builder);
    let good = alice_bearer();
    let (signed, _) = good.rsplit_once('.').unwrap();
    let with = |change: fn(&mut Claims)| {
        let mut claims = claims();
        change(&mut claims);
        bearer(&claims)
    };
    for (value, code, removed, forwarded) in [
        ("Bearer of-another-application", "token_malformed", true, true),
        ("Bearer sk_0123456789abcdef", "token_malformed", true, true),
        // An upstream could decode these once more, or ignore what follows.
        ("Bearer a%2Eb%2Ec", "token_malformed", true, false),
        ("Bearer a.b.c.", "token_malformed", true, false),
        ("Bearer \"ks_live_0123456789abcdef\"", "token_malformed", true, false),
        // It could be revoked, and an upstream could allow a larger difference of clocks.
        (&with(|claims| claims.exp = Some(NOW - 60)), "token_expired", true, false),
        (&with(|claims| claims.iss = "https://other.example".into()), "token_issuer_unknown", true, true),
        (&with(|claims| claims.aud = vec!["other".into()]), "token_audience_mismatch", true, false),
        (&format!("{good}="), "token_not_canonical", true, false),
        (&format!("Bearer {}", "a".repeat(9000)), "token_too_long", true, false),
        (&format!("{signed}.{}", "A".repeat(86)), "token_signature_invalid", false, false),
        (&with(|claims| claims.iat = NOW + 60), "token_issued_in_future", false, false),
        (&with(|claims| claims.nbf = Some(NOW + 60)), "token_not_yet_valid", false, false),
        (&revoked, "revoked", false, false),
        (&covered, "watermark", false, false),
        ("Bearer ks_live_0123456789abcdef", "api_key_length_wrong", false, false),
        ("Bearer a, Bearer b", "credential_ambiguous", false, false),
    ] {
        let decide = |unusable: &str| {
            let more = format!(r#""rules": [{{ "path": "/x", "access": "optional" {unusable} }}]"#);
            forward(&more, Some(&snapshot), "/x", &[("authorization", value)])
        };
        assert_eq!(decide(""), Err(code), "{value}");
        assert_eq!(decide(r#", "ignore_unusable_credentials": false"#), Err(code), "{value}");
        let ignore = |more: &str| decide(&format!(r#", "ignore_unusable_credentials": true {more}"#));
        let expected = if removed { Ok(":path=/x".into()) } else { Err(code) };
        assert_eq!(ignore(""), expected, "{value}");
        assert_eq!(ignore(r#", "strip_credential": true"#), expected, "{value}");
        let unchanged = Ok(format!(":path=/x authorization={value}"));
        let expected = if forwarded { unchanged.clone() } else { Err(code) };
        assert_eq!(ignore(r#", "strip_credential": false"#), expected, "{value}");
        // A refusal that is only reported keeps the credential.
        let expected = if removed { Ok(":path=/x".into()) } else { unchanged };
        assert_eq!(ignore(r#", "mode": "report""#), expected, "{value}");
    }
    // Only the rule itself can have an unverified credential forwarded.
    let more = r#""strip_credential": false, "rules": [
        { "path": "/x", "access": "optional", "ignore_unusable_credentials": true }
    ]"#;
    let sent = [("authorization", "Bearer of-another-application")];
    assert_eq!(forward(more, Some(&snapshot), "/x", &sent), Ok(":path=/x".into()));
}

#[test]
fn d6_only_optional_rules_ignore_credentials() {
    for access in ["required", "public"] {
        let rule =
            format!(r#"{{ "path": "/x", "access": "{access}", "ignore_unusable_credentials": true }}"#);
        let error = policy(&format!(r#""rules": [{rule}]"#)).unwrap_err();
        assert!(error.contains("optional rules only"), "{error}");
    }
}

/// Some clients send a user name and a password only if they are asked for them.
#[test]
fn d5_the_challenge_asks_for_basic() {
    for (credentials, expected) in [
        (r#"[{ "header": "authorization", "scheme": "Basic" }]"#, true),
        (
            r#"[{ "header": "x-a" }, { "header": "authorization", "scheme": "basic", "encoding": "basic_username" }]"#,
            true,
        ),
        (r#"[{ "header": "x-a", "scheme": "Basic" }]"#, false),
        (r#"[{ "header": "authorization", "scheme": "Bearer" }]"#, false),
    ] {
        let gate = gate_with(&format!(r#""realm": "shop", "credentials": {credentials}"#));
        for reason in Reason::ALL {
            let headers = gate.refusal_response(&reason.into(), None).headers;
            let basic = headers.iter().any(|(name, value)| {
                *name == "www-authenticate" && value == "Basic realm=\"shop\", charset=\"UTF-8\""
            });
            assert_eq!(basic, expected && reason.status() == 401, "{credentials} {reason:?}");
        }
    }
}

/// A token with a valid signature is never ignored because of its form, and a claim takes the place of an audience.
#[test]
fn f1_d6_claims_of_other_issuers_are_named() {
    let mut builder = builder();
    let issuer = "https://idp.example";
    let key = SecretKey::Token { issuer, kid: "k1", algorithm: Algorithm::Hs256, secret: &[9; 32] };
    builder.set_secret_keys([key]).unwrap();
    let snapshot = snapshot(&mut builder);
    let sign = |claims: &str| {
        let payload = format!(r#"{{ "iss": "{issuer}", "sub": "alice", "exp": {}, {claims} }}"#, NOW + 60);
        let token = SigningKey::hs256("k1", &[9; 32]).unwrap().sign(HEADER, payload.as_bytes());
        format!("Bearer {}", token.expose())
    };
    let issuers =
        r#""issuers": [{ "issuer": "https://idp.example", "required_claims": { "client_id": "web" } }]"#;
    let rule = |more: &str| {
        format!(
            r#"{issuers}, "rules": [{{
                "path": "/x", "access": "optional", "ignore_unusable_credentials": true {more}
            }}]"#
        )
    };
    for (claims, code, message, removed) in [
        (r#""aud": null, "client_id": "web""#, "token_malformed", "the token is malformed: `aud`", false),
        (r#""nbf": "1", "client_id": "web""#, "token_malformed", "the token is malformed: `nbf`", false),
        (r#""client_id": "other""#, "claim_missing", "`client_id`", true),
        (r#""aud": "api""#, "claim_missing", "`client_id`", true),
    ] {
        let token = sign(claims);
        let gate = gate_with(&format!(r#"{issuers}, "rules": [{{ "path": "/x" }}]"#));
        let headers = [(":method", &b"GET"[..]), (":path", b"/x"), ("authorization", token.as_bytes())];
        let decision = gate.decide(headers.into_iter(), Some(&snapshot), NOW_MS);
        let Decision::Refuse(refusal) = decision else { panic!("{decision:?}") };
        assert_eq!(refusal.reason().code(), code, "{claims}");
        let body = gate.refusal_response(&refusal, None).body;
        assert!(refusal.message().contains(message) && body.contains(message), "{claims}: {body}");
        let sent = [("authorization", &*token)];
        let expected = if removed { Ok(":path=/x".into()) } else { Err(code) };
        assert_eq!(forward(&rule(""), Some(&snapshot), "/x", &sent), expected, "{claims}");
        let kept = rule(r#", "strip_credential": false"#);
        assert_eq!(forward(&kept, Some(&snapshot), "/x", &sent), Err(code), "{claims}");
    }
    let good = sign(r#""client_id": "web""#);
    let admitted = forward(&rule(""), Some(&snapshot), "/x", &[("authorization", &good)]);
    assert_eq!(admitted.unwrap(), "admitted :path=/x");
}

#[test]
fn every_reason_is_counted() {
    use AmbiguousCredential::{Comma, Companion, Encoding, Several, SimilarName};
    let ambiguous = [Several, SimilarName, Comma, Encoding, Companion].map(Reason::from);
    for reason in Reason::ALL.into_iter().chain(ambiguous) {
        assert!(Reason::ALL.contains(&reason.representative()), "{reason:?}");
        assert_eq!(reason.representative().code(), reason.code());
    }
}

const WRAPPINGS: &str = r#""credentials": [
    { "header": "authorization", "scheme": "Bearer" },
    { "header": "authorization", "scheme": "Basic" },
    { "header": "sec-websocket-protocol", "prefix": "app-token." },
    { "header": "sec-websocket-protocol", "prefix": "base64url.bearer.", "encoding": "base64url" },
    { "cookie": "plain" },
    { "cookie": "session", "scheme": "Bearer" },
    { "query": "jwt", "prefix": "Bearer " }
]"#;

fn wrappings(token: &str) -> [(&'static str, String); 10] {
    let encoded = base64url::encode(token.as_bytes());
    let mut basic = base64url::encode(format!("user:{token}").as_bytes()).replace('-', "+").replace('_', "/");
    basic.extend(core::iter::repeat_n('=', (4 - basic.len() % 4) % 4));
    [
        ("authorization", format!("Bearer {token}")),
        ("authorization", format!("Basic {basic}")),
        ("sec-websocket-protocol", format!("app-v1, app-token.{token}")),
        ("sec-websocket-protocol", format!("base64url.bearer.{encoded}, app-v1")),
        ("cookie", format!("a=1; plain={token}; b=2")),
        ("cookie", format!("a=1; plain=\"{token}\"; b=2")),
        ("cookie", format!("session=\"Bearer {token}\"; b=\"2\"")),
        ("cookie", format!("a=1; session=%22Bearer%20{token}%22")),
        (":path", format!("/x?a=1&jwt=Bearer%20{token}&b=2")),
        (":path", format!("/x?jwt=Bearer+{token}")),
    ]
}

proptest! {
    /// After any change around or in a credential: if it is still accepted, it is the same credential for
    /// revocations, and the upstream does not receive it.
    #[test]
    fn changed_wrappings_have_the_same_fingerprint(
        wrapping in 0..10_usize,
        at: prop::sample::Index,
        byte in prop_oneof![any::<u8>(), prop::sample::select(&b"\"%20+,; =\t&.:"[..])],
        change in 0..4_u8,
    ) {
        let gate = gate_with(WRAPPINGS);
        let token = alice_bearer().replace("Bearer ", "");
        let (name, value) = &wrappings(&token)[wrapping];
        let mut value = value.clone().into_bytes();
        let at = at.index(value.len());
        match change {
            0 => value[at] = byte,
            1 => value.insert(at, byte),
            2 => drop(value.remove(at)),
            _ => {}
        }
        let path = if *name == ":path" { &value[..] } else { b"/x" };
        let headers = [(":method", &b"GET"[..]), (":path", path), (*name, &value)];
        let headers = &headers[..if *name == ":path" { 2 } else { 3 }];
        let decision = gate.decide(headers.iter().copied(), Some(&snapshot(&mut builder())), NOW_MS);
        if change > 2 {
            prop_assert!(matches!(decision, Decision::Admit(_)), "{:?}", decision);
        }
        if let Decision::Admit(admission) = &decision {
            prop_assert_eq!(admission.fingerprint(), Fingerprint::digest(token.as_bytes()));
            let forwarded = fixtures::forwarded_headers(&gate, headers, &decision);
            let encoded = base64url::encode(token.as_bytes());
            for (_, value) in forwarded {
                let value = String::from_utf8_lossy(&value).into_owned();
                prop_assert!(!value.contains(&token) && !value.contains(&encoded), "{}", value);
            }
        }
    }
}

/// Upstreams take more bytes for white space than HTTP does: Python and JavaScript a no-break space, Python also U+0085.
#[test]
fn d6_a_credential_behind_any_white_space_is_found_and_removed() {
    let mut builder = builder();
    let revoked = bearer(&Claims { jti: "revoked".into(), ..claims() });
    builder.revoke(1, Fingerprint::digest(&revoked.as_bytes()[7..])).unwrap();
    let snapshot = snapshot(&mut builder);
    let gate = gate_with(r#""rules": [{ "path": "/x", "access": "optional" }]"#);
    for space in [&b" "[..], b"\t", b"\x0b", b"\x85", b"\xa0", b"\xc2\xa0", b" \xa0 "] {
        for (before, after) in [(&b""[..], &b""[..]), (space, space)] {
            let value = [before, b"Bearer", space, &revoked.as_bytes()[7..], after].concat();
            let headers: [(&str, &[u8]); 3] =
                [(":method", b"GET"), (":path", b"/x"), ("authorization", &value)];
            let Decision::Refuse(refusal) = gate.decide(headers.into_iter(), Some(&snapshot), NOW_MS) else {
                panic!("{value:x?}");
            };
            assert_eq!(refusal.reason().code(), "revoked", "{value:x?}");
        }
    }
}

/// The same in cookies and queries, where upstreams decode the white space first. Otherwise an optional rule would take the
/// value for no credential, and forward it.
#[test]
fn d6_a_credential_behind_encoded_white_space_is_found_and_removed() {
    let mut builder = builder();
    let revoked = bearer(&Claims { jti: "revoked".into(), ..claims() });
    builder.revoke(1, Fingerprint::digest(&revoked.as_bytes()[7..])).unwrap();
    let snapshot = snapshot(&mut builder);
    let gate = gate_with(
        r#""credentials": [{ "cookie": "session", "scheme": "Bearer" }, { "query": "token", "prefix": "Bearer " }],
           "rules": [{ "path": "/x", "access": "optional" }]"#,
    );
    let (good, revoked) = (alice_bearer(), &revoked[7..]);
    let good = &good[7..];
    let sent = |path: &str, cookie: &str| {
        let headers = [(":method", &b"GET"[..]), (":path", path.as_bytes()), ("cookie", cookie.as_bytes())];
        let decision = gate.decide(headers.into_iter(), Some(&snapshot), NOW_MS);
        let kept = fixtures::forwarded_headers(&gate, &headers, &decision).into_iter();
        let kept = kept.filter(|(name, _)| [":path", "cookie"].contains(name));
        let kept: Vec<_> = kept.map(|(_, value)| String::from_utf8(value.into_owned()).unwrap()).collect();
        decision.reason().map_or_else(|| kept.join(" "), |reason| reason.code().to_owned())
    };
    for space in ["", "%20", "+", "%09", "%0b", "%0d%0a", "%85", "%a0", "%C2%A0", "%e3%80%80", "%20+%20"] {
        for between in ["%20", "+", "%20%20", "%a0"] {
            for (token, expected) in [(revoked, "revoked"), (good, "/x a=1")] {
                let value = format!("{space}Bearer{between}{token}");
                // The prefix in the query contains a space, while a scheme ends before any white space.
                if between != "%a0" {
                    assert_eq!(sent(&format!("/x?token={value}"), "a=1"), expected, "{value}");
                }
                assert_eq!(sent("/x", &format!("a=1; session={value}")), expected, "{value}");
            }
        }
    }
}
