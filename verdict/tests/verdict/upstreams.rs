//! Identity headers for the upstream: their names, and that clients cannot forge them.

use proptest::prelude::*;
use token::{Claims, Unverified, VerifyingKey, base64url, mint::SigningKey};
use verdict::{Decision, Forward, PassReason, Snapshot, Stripping};

use crate::fixtures::{self, NOW, NOW_MS, builder, claims, gate_with, policy, signing_key, snapshot};

const SECRET: [u8; 32] = [7; 32];

const VALUES: &[&[u8]] = &[b"Bearer a", b"Basic a", b"a=1; session=b", b"session=b", b"/?t=1", b""];

fn identity() -> String {
    let secret = base64url::encode(&SECRET);
    format!(
        r#""identity": {{
            "headers": {{ "subject": "x-user", "operator": "x-tenant", "session": null, "fingerprint": null }},
            "claims": {{
                "x-roles": "realm.roles", "x-plan": "plan", "x-limit": "limit", "x-beta": "beta",
                "x-odd": "odd", "x-role": "/https:~1~1example.com~1role"
            }},
            "assertion": {{ "header": "x-assertion", "secret": "{secret}", "audience": "orders" }}
        }}, "allow_inline_secrets": true"#
    )
}

/// Returns a token of this deployment with more claims.
fn token(more: &str) -> String {
    let payload = serde_json::to_string(&claims()).unwrap();
    let payload = format!("{},{more}}}", payload.strip_suffix('}').unwrap());
    format!("Bearer {}", signing_key().sign(r#"{"alg":"EdDSA","kid":"k1"}"#, payload.as_bytes()).expose())
}

fn forwarded(
    members: &str,
    snapshot: &Snapshot,
    token: &str,
    more: &[(&str, &str)],
) -> Vec<(String, String)> {
    let gate = gate_with(members);
    let headers = [(":path", "/x"), ("authorization", token)];
    let headers: Vec<_> = headers.iter().chain(more).map(|(name, value)| (*name, value.as_bytes())).collect();
    let decision = gate.decide(headers.iter().copied(), Some(snapshot), NOW_MS);
    assert!(matches!(decision, Decision::Admit(_)), "{decision:?}");
    fixtures::forwarded_headers(&gate, &headers, &decision)
        .into_iter()
        .map(|(name, value)| (name.into(), String::from_utf8(value.into_owned()).unwrap()))
        .collect()
}

fn value<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut found = headers.iter().filter(|(header, _)| header == name);
    let value = found.next().map(|(_, value)| value.as_str());
    assert_eq!(found.next(), None, "{name} twice");
    value
}

#[test]
fn configured_headers_are_removed_and_set() {
    let snapshot = snapshot(&mut builder());
    let token = token(
        r#""realm":{"roles":["admin","dev"]},"plan":"pro plus","limit":-5,"beta":true,"odd":1.5,"https://example.com/role":7"#,
    );
    let forged = [
        ("x-user", "root"),
        ("X_Tenant", "root"),
        ("x.roles", "root"),
        ("x-odd", "root"),
        ("x-assertion", "root"),
        ("x-keystile-session", "root"),
        ("x-users", "kept"),
    ];
    let headers = forwarded(&identity(), &snapshot, &token, &forged);
    let assertion = value(&headers, "x-assertion").unwrap().to_owned();
    let expected = [
        (":path", "/x"),
        ("x-users", "kept"),
        ("x-user", "OP0123456789/alice"),
        ("x-tenant", "OP0123456789"),
        ("x-keystile-authkey", "keyId-1"),
        ("x-beta", "true"),
        ("x-limit", "-5"),
        ("x-plan", "pro plus"),
        ("x-role", "7"),
        ("x-roles", "admin,dev"),
        ("x-assertion", &assertion),
    ];
    assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn claim_headers_fit_the_header_limit() {
    let snapshot = snapshot(&mut builder());
    let claims: Vec<_> = (0..30).map(|number| format!("\"x-c{number}\": \"sub\"")).collect();
    let gate = gate_with(&format!(r#""identity": {{ "claims": {{ {} }} }}"#, claims.join(",")));
    let token = token(r#""a":1"#);
    for (sent, admitted) in [(970, true), (971, false)] {
        let mut headers = vec![("x-other", &b"v"[..]); sent - 1];
        headers.push(("authorization", token.as_bytes()));
        let decision = gate.decide(headers.iter().copied(), Some(&snapshot), NOW_MS);
        assert_eq!(matches!(decision, Decision::Admit(_)), admitted, "{sent}: {decision:?}");
        // Envoy accepts 1,024 headers.
        let forwarded = fixtures::forwarded_headers(&gate, &headers, &decision).len();
        assert!(forwarded <= 1024, "{sent}: {forwarded}");
    }
}

#[test]
fn ambiguous_claims_are_omitted() {
    let snapshot = snapshot(&mut builder());
    for (claim, expected) in [
        (r#""pro""#, Some("pro")),
        (r#"["a","b",1,true]"#, Some("a,b,1,true")),
        // One string is never parsed as two values, or as a value with a parameter.
        (r#""a,b""#, Some("a%2Cb")),
        (r#"",a""#, Some("%2Ca")),
        (r#""a;b""#, Some("a%3Bb")),
        (r#"["a,b","c"]"#, Some("a%2Cb,c")),
        (r#"["a;b","c"]"#, Some("a%3Bb,c")),
        (r#"["a,b"]"#, Some("a%2Cb")),
        (r#""100%""#, Some("100%25")),
        (r#""a%2Cb""#, Some("a%252Cb")),
        (r#"[]"#, None),
        (r#"["a",["b"]]"#, None),
        (r#"["a",null]"#, None),
        (r#""""#, None),
        (r#"" a""#, Some("%20a")),
        (r#""a b ""#, Some("a%20b%20")),
        (r#""a\r\nx-user: root""#, None),
        (r#""a\u0000""#, None),
        (r#""caf\u00e9""#, Some("caf%C3%A9")),
        (r#""\u0085""#, None),
        (r#""\u007f""#, None),
        (r#"{"a":1}"#, None),
        (r#"null"#, None),
        (r#"1e3"#, None),
        (r#"18446744073709551615"#, Some("18446744073709551615")),
    ] {
        let token = token(&format!("\"plan\":{claim}"));
        let headers = forwarded(&identity(), &snapshot, &token, &[("x-plan", "forged")]);
        assert_eq!(value(&headers, "x-plan"), expected, "{claim}");
    }
}

#[test]
fn assertion_expires_soon_and_has_the_fingerprint() {
    let snapshot = snapshot(&mut builder());
    let key = VerifyingKey::foreign("keystile", "", token::Algorithm::Hs256, &SECRET).unwrap();
    for (exp, expected) in [(Some(NOW + 3600), NOW + 60), (Some(NOW + 20), NOW + 20), (None, NOW + 60)] {
        let presented = signing_key().mint(&Claims { exp, ..claims() });
        let bearer = format!("Bearer {}", presented.expose());
        let headers = forwarded(&identity(), &snapshot, &bearer, &[]);
        let assertion = value(&headers, "x-assertion").unwrap();
        let opened = Unverified::parse(assertion.as_bytes()).unwrap().verify(&key).unwrap();
        assert_eq!(opened.subject(), Some("OP0123456789/alice"));
        assert_eq!(opened.audiences().collect::<Vec<_>>(), ["orders"]);
        assert_eq!((opened.issued_at(), opened.expires_at()), (Some(NOW), Some(expected)));
        let fingerprint = token::Fingerprint::digest(presented.expose().as_bytes()).to_string();
        assert_eq!(opened.id(), Some(&fingerprint[..]));
    }
    // A name with characters that JSON escapes.
    let quoted =
        SigningKey::ed25519("k1", &[2; 32]).unwrap().mint(&Claims { sub: "a\"\\b".into(), ..claims() });
    let headers = forwarded(&identity(), &snapshot, &format!("Bearer {}", quoted.expose()), &[]);
    let assertion = value(&headers, "x-assertion").unwrap();
    let opened = Unverified::parse(assertion.as_bytes()).unwrap().verify(&key).unwrap();
    assert_eq!(opened.subject(), Some("a\"\\b"));
}

#[test]
fn reserved_header_names_are_refused() {
    for (identity, path) in [
        (r#"{ "headers": { "user": "x" } }"#, "`identity.headers.user`"),
        (r#"{ "headers": { "subject": "X" } }"#, "`identity.headers.subject`"),
        (r#"{ "headers": { "subject": ":path" } }"#, "`identity.headers.subject`"),
        (r#"{ "headers": { "subject": "host" } }"#, "`identity.headers.subject`"),
        (r#"{ "claims": { "content-length": "a" } }"#, "`identity.claims.content-length`"),
        (
            r#"{ "assertion": { "header": "x", "secret": "c2hvcnQ", "audience": "a" } }"#,
            "`identity.assertion.secret`",
        ),
        (
            r#"{ "headers": { "subject": "x-a", "operator": "x-a" } }"#,
            "`identity`: two values would have the header `x-a`",
        ),
        (
            r#"{ "headers": { "subject": "x-a", "operator": "x_a" } }"#,
            "`identity`: two values would have the header `x_a`",
        ),
        (r#"{ "headers": { "subject": "x-keystile-operator" } }"#, "`identity`: two values"),
        (r#"{ "headers": { "subject": "x-keystile-report" } }"#, "`identity`: two values"),
        (r#"{ "claims": { "x-keystile-subject": "name" } }"#, "`identity`: two values"),
        (r#"{ "claims": { "x-a": "name", "x_a": "role" } }"#, "`identity`: two values"),
        (r#"{ "headers": { "subject": "x-a" }, "claims": { "x-a": "name" } }"#, "`identity`: two values"),
        (
            r#"{ "claims": { "x-a": "b" }, "assertion": { "header": "x_a", "secret": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", "audience": "a" } }"#,
            "`identity`: two values",
        ),
    ] {
        let error =
            policy(&format!(r#""allow_inline_secrets": true, "identity": {identity}"#)).expect_err(identity);
        assert!(error.starts_with(path) && !error.contains("c2hvcnQ"), "{identity}: {error}");
    }
    let apart =
        r#""identity": { "headers": { "subject": null }, "claims": { "x-keystile-subject": "sub" } }"#;
    assert!(policy(apart).is_ok());
    assert!(!format!("{:?}", policy(&identity()).unwrap()).contains("BwcH"), "a secret is not printed");
}

#[test]
fn repeated_names_are_replaced_not_removed() {
    let gate = gate_with(r#""realm": "x""#);
    let decision = Decision::Pass(PassReason::Anonymous(Stripping::Credentials(None)));
    let bearer: (&str, &[u8]) = ("authorization", b"Bearer a");
    let basic: (&str, &[u8]) = ("Authorization", b"Basic a");
    let path: (&str, &[u8]) = (":path", b"/");
    assert_eq!(gate.forward_headers(&[path, basic], &decision, NOW_MS), Forward::Unchanged);
    let removed = Forward::Edited { removed: vec!["authorization"], added: vec![] };
    assert_eq!(gate.forward_headers(&[path, bearer], &decision, NOW_MS), removed);
    for two in [[basic, bearer], [bearer, basic]] {
        let kept = [path, basic].map(|(name, value)| (name, value.into()));
        assert_eq!(
            gate.forward_headers(&[path, two[0], two[1]], &decision, NOW_MS),
            Forward::ReplaceAll(kept.into())
        );
    }
    // However many names a client sends, they are removed in one call.
    let names: Vec<_> = (0..900).map(|number| format!("x-keystile-{number}")).collect();
    let many: Vec<(&str, &[u8])> = names.iter().map(|name| (&name[..], &b"root"[..])).collect();
    assert_eq!(gate.forward_headers(&many, &decision, NOW_MS), Forward::ReplaceAll(vec![]));
}

#[test]
fn up_to_four_names_are_removed_one_by_one() {
    let gate = gate_with(r#""realm": "x""#);
    let decision = Decision::Pass(PassReason::Anonymous(Stripping::Credentials(None)));
    let names = ["x-keystile-a", "x-keystile-b", "x-keystile-c", "x-keystile-d", "x-keystile-e"];
    let headers = names.map(|name| (name, &b"root"[..]));
    for count in 1..=4 {
        let removed = Forward::Edited { removed: names[..count].to_vec(), added: vec![] };
        assert_eq!(gate.forward_headers(&headers[..count], &decision, NOW_MS), removed, "{count}");
    }
    assert_eq!(gate.forward_headers(&headers, &decision, NOW_MS), Forward::ReplaceAll(vec![]));
}

/// A hop that removes the headers named in `Connection` would remove the identity.
#[test]
fn connection_options_are_restricted() {
    let gate = gate_with(r#""realm": "x""#);
    let decision = Decision::Pass(PassReason::Anonymous(Stripping::Credentials(None)));
    for (name, value, expected) in [
        ("connection", "upgrade", Some("upgrade")),
        ("connection", "Upgrade, Keep-Alive", Some("Upgrade, Keep-Alive")),
        ("connection", "close", Some("close")),
        ("connection", "upgrade, te,HTTP2-Settings", Some("upgrade, te,HTTP2-Settings")),
        ("connection", "upgrade, x-keystile-subject", Some("upgrade")),
        ("Connection", "X-Keystile-Subject , UPGRADE,x_keystile_operator", Some("UPGRADE")),
        ("connection", "upgrade,authorization,x-anything", Some("upgrade")),
        ("connection", "x-keystile-subject", None),
        ("connection", "x-keystile-subject,", None),
        ("connection", "upgrade;x-keystile-subject", None),
        ("connection", "\"x-keystile-subject\"", None),
        ("connection", "upgrade x-keystile-subject", None),
        ("connection", "", None),
        ("proxy-connection", "keep-alive, x-keystile-subject", Some("keep-alive")),
        ("Proxy_Connection", "x-keystile-subject", None),
        // Parameters and values that are not header names.
        ("keep-alive", "timeout=5, max=100", Some("timeout=5, max=100")),
        ("x-connection", "x-keystile-subject", Some("x-keystile-subject")),
    ] {
        let headers = [(":path", &b"/"[..]), (name, value.as_bytes())];
        let kept = fixtures::forwarded_headers(&gate, &headers, &decision);
        let kept = kept.iter().find(|(kept, _)| *kept == name).map(|(_, value)| &**value);
        assert_eq!(kept, expected.map(str::as_bytes), "{name}: {value}");
    }
    // Each of several lines.
    let lines = [("connection", &b"upgrade"[..]), ("connection", b"x-keystile-subject, close")];
    let kept = fixtures::forwarded_headers(&gate, &lines, &decision);
    assert_eq!(kept, [("connection", b"upgrade"[..].into()), ("connection", b"close"[..].into())]);
    let trailers = gate.forward_trailers(&[("connection", b"x-keystile-subject")], Stripping::Nothing);
    assert_eq!(trailers, Some(vec![]));
}

proptest! {
    #[test]
    fn headers_are_processed_independently(
        headers in prop::collection::vec(
            (
                prop::sample::select(&[
                    "authorization", "Authorization", "cookie", ":path", "x-keystile-subject", "X_Keystile_A",
                    "x-keystile-b", "x-username", "x-other",
                ][..]),
                prop::sample::select(VALUES),
            ),
            0..9,
        ),
    ) {
        let gate = gate_with(r#""api_keys": {}, "credentials": [
            { "header": "authorization", "scheme": "Bearer" }, { "cookie": "session" }, { "query": "t" }
        ]"#);
        let decision = Decision::Pass(PassReason::Anonymous(Stripping::Credentials(None)));
        let one_by_one: Vec<_> =
            headers.iter().flat_map(|header| fixtures::forwarded_headers(&gate, &[*header], &decision)).collect();
        prop_assert_eq!(fixtures::forwarded_headers(&gate, &headers, &decision), one_by_one);
    }
}
