//! Tokens, API keys, Soracom's pair and Kuzzle's prefixes, in headers, cookies and queries.

use bundle::{
    Gap, Scope,
    builder::{Builder, SecretKey},
};
use token::{
    Claims, Fingerprint,
    api_key::{ApiKeyFields, Kind, MintingKey, Prefix},
};
use verdict::{BareCredential, Cache, Decision, Request, Snapshot, SoftwareVerifier};

use crate::fixtures::{
    self, NOW, NOW_MS, alice_bearer, builder, claims, decision_code, gate_with, set_grant, signing_key,
    snapshot,
};

const POLICY: &str = r#"
    "api_keys": { "prefixes": ["ks_live_", "sk_live_"] },
    "rules": [
        { "path": "/x" },
        { "path": "/header", "credentials": ["authorization", "x-api-key"] },
        { "path": "/cookie", "credentials": ["cookie:session"] },
        { "path": "/named", "credentials": ["the query"] },
        { "path": "/optional", "access": "optional", "credentials": ["authorization"] },
        { "path": "/allowed", "permission": "Sim:getSim" },
        { "path": "/public", "access": "public" }
    ],
    "credentials": [
        { "header": "authorization", "scheme": "Bearer" },
        { "header": "x-api-key" },
        { "header": "x-soracom-token", "pair": "x-soracom-api-key" },
        { "cookie": "session" },
        { "query": "access_token", "name": "the query" }
    ],
    "tokens": {
        "issuer": "https://keystile.local", "audiences": ["api"], "prefixes": ["kapikey-", "kauth-"]
    }"#;

fn minting(generation: u8, kind: Kind) -> MintingKey {
    MintingKey::new(generation, kind, &[generation; 32]).unwrap()
}

/// Returns a builder with generation 1 of format 1, 2 of format 2, and 3 of the short form.
fn with_generations() -> Builder {
    let mut builder = builder();
    builder
        .set_public_keys([signing_key().verifying_key()], [minting(2, Kind::Signed).generation_key()])
        .unwrap();
    let tag = SecretKey::Tag { generation: 1, secret: &[1; 32] };
    let short = SecretKey::ShortTag { generation: 3, secret: &[3; 32] };
    builder.set_secret_keys([tag, short, ("k2", &[3; 32][..]).into()]).unwrap();
    builder
}

fn api_key_fields<'a>(prefix: &'a Prefix, number: u64, username: &'a str) -> ApiKeyFields<'a> {
    ApiKeyFields {
        prefix,
        operator: "OP0123456789",
        number,
        issued_at: NOW - 10,
        expires_at: None,
        random: [9; 4],
        username,
    }
}

fn generation(kind: Kind) -> u8 {
    match kind {
        Kind::Format1 => 1,
        Kind::Signed => 2,
        Kind::Short => 3,
    }
}

fn api_key(kind: Kind, number: u64, username: &str) -> String {
    let minting = minting(generation(kind), kind);
    minting.mint(&api_key_fields(&Prefix::default(), number, username)).unwrap().expose().to_owned()
}

fn invalid_proof_code(kind: Kind) -> &'static str {
    match kind {
        Kind::Signed => "api_key_signature_invalid",
        Kind::Short | Kind::Format1 => "api_key_tag_invalid",
    }
}

fn decide_get(snapshot: &Snapshot, path: &str, headers: &[(&str, &str)]) -> &'static str {
    decision_code(&gate_with(POLICY), Some(snapshot), &format!("GET {path}"), headers)
}

#[test]
fn credentials_are_found_in_configured_locations() {
    let snapshot = snapshot(&mut builder());
    let token = alice_bearer().replace("Bearer ", "");
    let bearer = format!("Bearer {token}");
    let cookie = format!("theme=dark; session={token}; lang=en");
    let query = format!("/x?a=1&access_token={token}");
    for (path, headers, expected) in [
        ("/x", &[("authorization", &bearer[..])][..], "admitted"),
        ("/x", &[("x-api-key", &token)], "admitted"),
        ("/x", &[("cookie", &cookie)], "admitted"),
        (&query, &[], "admitted"),
        (&format!("{query}%20"), &[], "token_not_canonical"),
        (&format!("{query}+"), &[], "token_not_canonical"),
        ("/x", &[("cookie", &format!("session=\"{token}\""))], "admitted"),
        ("/x", &[("cookie", &format!("session=\"{token}"))], "token_not_canonical"),
        (&query, &[("cookie", &cookie)], "credential_ambiguous"),
        ("/x", &[("authorization", &bearer), ("x_api_key", &token)], "credential_ambiguous"),
        ("/x", &[("x.api.key", &token)], "credential_ambiguous"),
        ("/header", &[("authorization", &bearer)], "admitted"),
        ("/header", &[("cookie", &cookie)], "credential_misplaced"),
        ("/cookie", &[("cookie", &cookie)], "admitted"),
        ("/cookie", &[("authorization", &bearer)], "credential_misplaced"),
        ("/cookie", &[("authorization", &bearer), ("cookie", &cookie)], "admitted"),
        (&query.replace("/x", "/named"), &[], "admitted"),
        ("/named", &[("cookie", &cookie)], "credential_misplaced"),
        ("/named", &[], "credential_missing"),
        ("/optional", &[], "anonymous"),
        ("/optional", &[("authorization", &bearer)], "admitted"),
        // A rule that names locations does not search others.
        ("/optional", &[("cookie", &cookie)], "anonymous"),
        ("/optional", &[("x-api-key", "revoked")], "anonymous"),
    ] {
        assert_eq!(decide_get(&snapshot, path, headers), expected, "{path} {headers:?}");
    }
}

#[test]
fn usernames_do_not_affect_tokens() {
    let snapshot = snapshot(&mut builder());
    let token = alice_bearer();
    for usernames in [&[][..], &["bob"], &["bob", "carol"]] {
        let mut headers = vec![("authorization", token.as_str())];
        headers.extend(usernames.iter().map(|username| ("x-username", *username)));
        assert_eq!(decide_get(&snapshot, "/x", &headers), "admitted", "{usernames:?}");
    }
}

#[test]
fn api_keys_are_bound_to_their_user() {
    let snapshot = snapshot(&mut with_generations());
    for kind in Kind::ALL {
        let invalid = invalid_proof_code(kind);
        let alices = api_key(kind, 1, "OP0123456789/alice");
        let als = api_key(kind, 2, "al");
        let prefix = "sk_live_".parse().unwrap();
        let of = |generation, secret: u8| MintingKey::new(generation, kind, &[secret; 32]).unwrap();
        let good = generation(kind);
        let other_prefix = of(good, good).mint(&api_key_fields(&prefix, 3, "al")).unwrap();
        let prefix = Prefix::default();
        let foreign = of(9, 9).mint(&api_key_fields(&prefix, 4, "al")).unwrap();
        let forged = of(good, 9).mint(&api_key_fields(&prefix, 4, "al")).unwrap();
        let future = of(good, good)
            .mint(&ApiKeyFields { issued_at: NOW + 60, ..api_key_fields(&prefix, 4, "al") })
            .unwrap();
        // The generation has another format.
        let elsewhere = generation(if kind == Kind::Signed { Kind::Short } else { Kind::Signed });
        let mixed = of(elsewhere, elsewhere).mint(&api_key_fields(&prefix, 4, "al")).unwrap();
        let key = |key| ("x-api-key", key);
        let user = |name| ("x-username", name);
        for (headers, expected) in [
            (&[key(&alices[..]), user("OP0123456789/alice")][..], "admitted"),
            (&[key(&alices), user("OP0123456789/bob")], invalid),
            (&[key(&alices), user("op0123456789/alice")], invalid),
            // The username is compared exactly.
            (&[key(&alices), user("alice")], invalid),
            (&[key(&alices)], invalid),
            (
                &[key(&alices), user("OP0123456789/alice"), ("X-Username", "OP0123456789/alice")],
                "credential_ambiguous",
            ),
            (&[key(&alices), user("OP0123456789/alice"), ("x_username", "root")], "credential_ambiguous"),
            (&[key(&alices), ("x_username", "OP0123456789/alice")], "credential_ambiguous"),
            (&[key(&als), user("al")], "admitted"),
            (&[key(&als), user("")], invalid),
            (&[key(&als), user("OP0123456789/al")], invalid),
            (&[key(other_prefix.expose()), user("al")], "admitted"),
            (&[key(foreign.expose()), user("al")], "api_key_generation_unknown"),
            (&[key(forged.expose()), user("al")], invalid),
            (&[key(mixed.expose()), user("al")], invalid),
            (&[key(future.expose()), user("al")], "token_issued_in_future"),
            (&[("authorization", &format!("Bearer {als}")), user("al")], "admitted"),
            (&[key(&als[..als.len() - 1])], "api_key_length_wrong"),
            (&[key(&als.replacen("ks_live_0", "ks_live_1", 1))], "api_key_checksum_wrong"),
            (&[key("ks_live_")], "api_key_length_wrong"),
            // Without a configured prefix, the credential is parsed as a token.
            (&[key(&als.replacen("ks_live_", "ks_test_", 1))], "token_malformed"),
            (&[key("secret-abc")], "token_malformed"),
        ] {
            assert_eq!(decide_get(&snapshot, "/x", headers), expected, "{kind:?} {headers:?}");
        }
        // A policy without `api_keys` refuses API keys.
        let token_only = gate_with(r#""rules": [{ "path": "/x" }]"#);
        let headers = [("x-api-token", &als[..])];
        assert_eq!(decision_code(&token_only, Some(&snapshot), "GET /x", &headers), "token_malformed");
    }
}

/// Format 2 and the short form contain the operator, and no username changes it.
#[test]
fn api_key_subjects_are_operator_and_name() {
    let snapshot = snapshot(&mut with_generations());
    let gate = gate_with(POLICY);
    for (kind, username, operator, subject) in [
        (Kind::Signed, "OP0123456789", Some("OP0123456789"), "OP0123456789"),
        (Kind::Signed, "", Some("OP0123456789"), "OP0123456789"),
        (Kind::Signed, "OP0123456789/alice", Some("OP0123456789"), "OP0123456789/alice"),
        (Kind::Signed, "alice", Some("OP0123456789"), "OP0123456789/alice"),
        (Kind::Signed, "alice@example.com", Some("OP0123456789"), "OP0123456789/alice@example.com"),
        (Kind::Signed, "key-7", Some("OP0123456789"), "OP0123456789/key-7"),
        (Kind::Short, "alice@example.com", Some("OP0123456789"), "OP0123456789/alice@example.com"),
        // Format 1 contains only the username.
        (Kind::Format1, "alice@example.com", None, "alice@example.com"),
        (Kind::Format1, "OP0123456789/alice", Some("OP0123456789"), "OP0123456789/alice"),
        (Kind::Format1, "", None, "key-1"),
        // A username that could be a subject of another issuer is none.
        (Kind::Format1, "https://idp.example#u-1", None, "key-1"),
    ] {
        let key = api_key(kind, 1, username);
        let headers = [(":method", "GET"), (":path", "/x"), ("x-api-key", &key), ("x-username", username)];
        let headers = headers.iter().filter(|(_, value)| !value.is_empty());
        let headers = headers.map(|(name, value)| (*name, value.as_bytes()));
        let decision = gate.decide(headers, Some(&snapshot), NOW_MS);
        let identity = decision.identity().unwrap_or_else(|| panic!("{kind:?} {username}: {decision:?}"));
        assert_eq!((identity.operator(), identity.subject()), (operator, subject), "{kind:?} {username}");
        assert_eq!(identity.key_id(), Some("key-1"));
    }
}

/// A stolen edge has the secret of the short form and can create API keys.
#[test]
fn short_form_keys_are_never_root() {
    let prefix = Prefix::default();
    for username in ["", "OP0123456789"] {
        assert!(minting(3, Kind::Short).mint(&api_key_fields(&prefix, 1, username)).is_none(), "{username}");
    }
    // The test `usernames_name_at_most_one_subject` of `token` covers forged API keys.
}

#[test]
fn usernames_must_be_header_values() {
    let snapshot = snapshot(&mut with_generations());
    // The last one would be taken for key 7 without a user.
    for username in ["a b", "\u{e9}", "a\u{7f}", "key-7"] {
        let key = api_key(Kind::Format1, 1, username);
        let headers = [("x-api-key", &key[..]), ("x-username", username)];
        assert_eq!(decide_get(&snapshot, "/x", &headers), "api_key_tag_invalid", "{username}");
        for kind in [Kind::Signed, Kind::Short] {
            let minted =
                minting(generation(kind), kind).mint(&api_key_fields(&Prefix::default(), 1, username));
            assert_eq!(minted.is_some(), username == "key-7", "{username}");
        }
    }
    let key = api_key(Kind::Signed, 1, "alice");
    let headers = [("x-api-key", key.as_bytes()), ("x-username", b"\xff")];
    let headers = [(":method", &b"GET"[..]), (":path", b"/x")].into_iter().chain(headers);
    let decision = gate_with(POLICY).decide(headers, Some(&snapshot), NOW_MS);
    assert_eq!(decision.reason().map(|reason| reason.code()), Some("api_key_signature_invalid"));
}

#[test]
fn api_keys_can_be_revoked() {
    for kind in Kind::ALL {
        let tag = format!("tag-{}", generation(kind));
        // The second one is not a valid user name; the operator's watermark covers it nevertheless.
        for username in ["OP0123456789/alice", "alice@example.com"] {
            let key = api_key(kind, 7, username);
            let headers = [("x-api-key", &key[..]), ("x-username", username)];
            let mut builder = with_generations();
            builder.revoke(1, Fingerprint::digest(key.as_bytes())).unwrap();
            assert_eq!(decide_get(&snapshot(&mut builder), "/x", &headers), "revoked");
            let subject = match (kind, username) {
                (Kind::Format1, username) => username.to_owned(),
                (_, "alice@example.com") => "OP0123456789/alice@example.com".to_owned(),
                (_, username) => username.to_owned(),
            };
            let foreign = kind == Kind::Format1 && !username.starts_with("OP");
            for scope in [
                Scope::Global,
                Scope::SigningKey(&tag),
                Scope::Operator("OP0123456789"),
                Scope::User(&subject),
                Scope::AuthKey("key-7"),
            ] {
                // Format 1: a foreign username belongs to no operator.
                let reached = !(foreign && matches!(scope, Scope::Operator(_)));
                for (instant, expected) in
                    [(NOW - 11, "admitted"), (NOW - 10, if reached { "watermark" } else { "admitted" })]
                {
                    let mut builder = with_generations();
                    builder.raise_watermark(1, Scope::AuthKey("key-8"), u64::MAX);
                    builder.raise_watermark(1, Scope::SigningKey("1"), u64::MAX);
                    builder.raise_watermark(1, Scope::Operator("OP9876543210"), u64::MAX);
                    builder.raise_watermark(1, scope, instant);
                    assert_eq!(
                        decide_get(&snapshot(&mut builder), "/x", &headers),
                        expected,
                        "{kind:?} {scope:?}"
                    );
                }
            }
        }
    }
}

/// The expiry in the API key is checked by the edge's clock.
#[test]
fn api_keys_expire() {
    let snapshot = snapshot(&mut with_generations());
    let prefix = Prefix::default();
    for kind in Kind::ALL {
        let ending = |expires_at| {
            let contents =
                ApiKeyFields { expires_at: Some(expires_at), ..api_key_fields(&prefix, 1, "alice") };
            minting(generation(kind), kind).mint(&contents).unwrap().expose().to_owned()
        };
        // The default leeway is 5 seconds.
        for (expires_at, ended) in [(NOW + 1, false), (NOW - 4, false), (NOW - 5, true), (1, true)] {
            let expected = match kind {
                // Format 1 has no expiry.
                Kind::Format1 => "admitted",
                _ if ended => "api_key_expired",
                _ => "admitted",
            };
            let key = ending(expires_at);
            let headers = [("x-api-key", &key[..]), ("x-username", "alice")];
            assert_eq!(decide_get(&snapshot, "/x", &headers), expected, "{kind:?} {expires_at}");
        }
    }
}

#[test]
fn gaps_refuse_unknown_api_keys() {
    let (lost, known) = (api_key(Kind::Signed, 7, "alice"), api_key(Kind::Signed, 8, "alice"));
    let headers = |key| [("x-api-key", key), ("x-username", "alice")];
    for (issued_until, expected) in [(NOW - 11, "admitted"), (NOW - 10, "issuance_unknown")] {
        let mut builder = with_generations();
        let gap = Gap { issued_after: NOW - 20, issued_until };
        builder.set_gaps(&[gap], [Fingerprint::digest(known.as_bytes())]).unwrap();
        let snapshot = snapshot(&mut builder);
        assert_eq!(decide_get(&snapshot, "/x", &headers(&lost[..])), expected);
        assert_eq!(decide_get(&snapshot, "/x", &headers(&known)), "admitted");
    }
}

#[test]
fn api_keys_have_the_permissions_of_their_user() {
    let mut builder = with_generations();
    let allow = r#"{"statements":[{"effect":"allow","api":"Sim:*","condition":"samUserName == 'alice'"}]}"#;
    set_grant(&mut builder, "OP0123456789/alice", allow);
    let everything = r#"{"statements":[{"effect":"allow","api":"*"}]}"#;
    // Subjects of another operator or of none: impossible in the new formats.
    for subject in ["key-2", "OP9876543210/bob", "OP9876543210", "bob", "admin"] {
        set_grant(&mut builder, subject, everything);
    }
    let snapshot = snapshot(&mut builder);
    for (number, username, of_format1, expected) in [
        (1, "OP0123456789/alice", "admitted", "admitted"),
        (1, "alice", "permission_denied", "admitted"),
        (1, "OP0123456789/bob", "permission_denied", "permission_denied"),
        (1, "bob", "admitted", "permission_denied"),
        (1, "OP0123456789", "admitted", "admitted"),
        (1, "OP012345678", "permission_denied", "permission_denied"),
        (1, "admin", "admitted", "permission_denied"),
        (2, "key-2", "api_key_tag_invalid", "permission_denied"),
        (2, "", "admitted", "admitted"),
        (3, "", "permission_denied", "admitted"),
    ] {
        for kind in Kind::ALL {
            let minting = minting(generation(kind), kind);
            let Some(key) = minting.mint(&api_key_fields(&Prefix::default(), number, username)) else {
                assert!(
                    kind == Kind::Short && ["", "OP0123456789"].contains(&username),
                    "{kind:?} {username}"
                );
                continue;
            };
            let expected = if kind == Kind::Format1 { of_format1 } else { expected };
            let headers = [("x-api-key", key.expose()), ("x-username", username)];
            assert_eq!(decide_get(&snapshot, "/allowed", &headers), expected, "{kind:?} {number} {username}");
        }
    }
}

#[test]
fn pairs_must_be_complete_and_match() {
    let snapshot = snapshot(&mut builder());
    let token = alice_bearer().replace("Bearer ", "");
    let alone = signing_key().mint(&Claims { sid: None, ..claims() }).expose().to_owned();
    for (token, keys, expected) in [
        (&token, &["api-1"][..], "admitted"),
        (&token, &["api-2"], "api_key_mismatch"),
        (&token, &[""], "api_key_mismatch"),
        (&token, &[], "api_key_mismatch"),
        (&token, &["api-1", "api-1"], "credential_ambiguous"),
        (&alone, &["api-1"], "api_key_mismatch"),
        (&alone, &[], "api_key_mismatch"),
        (&alone, &[""], "api_key_mismatch"),
    ] {
        let mut headers = vec![("x-soracom-token", &token[..])];
        headers.extend(keys.iter().map(|key| ("x-soracom-api-key", *key)));
        assert_eq!(decide_get(&snapshot, "/x", &headers), expected, "{keys:?}");
    }
    assert_eq!(decide_get(&snapshot, "/x", &[("x-soracom-api-key", "api-1")]), "credential_missing");
    let headers = [("x-soracom-token", &token[..]), ("x_soracom_api_key", "api-1")];
    assert_eq!(decide_get(&snapshot, "/x", &headers), "credential_ambiguous");
}

#[test]
fn tokens_are_valid_with_their_own_prefix_only() {
    let minted = signing_key().mint_prefixed("kapikey-", &claims()).expose().to_owned();
    let token = minted.strip_prefix("kapikey-").unwrap();
    let mut builder = builder();
    for (presented, expected) in [
        (&minted[..], "admitted"),
        (token, "token_not_canonical"),
        (&format!("kauth-{token}"), "token_not_canonical"),
    ] {
        let headers = [("authorization", &format!("Bearer {presented}")[..])];
        assert_eq!(decide_get(&snapshot(&mut builder), "/x", &headers), expected, "{presented}");
    }
    builder.revoke(1, Fingerprint::digest(minted.as_bytes())).unwrap();
    let headers = [("authorization", &format!("Bearer {minted}")[..])];
    assert_eq!(decide_get(&snapshot(&mut builder), "/x", &headers), "revoked");
}

#[test]
fn only_the_credential_is_stripped() {
    let gate = gate_with(POLICY);
    let mut builder = with_generations();
    let snapshot = snapshot(&mut builder);
    let token = alice_bearer().replace("Bearer ", "");
    let key = api_key(Kind::Signed, 1, "OP0123456789/alice");
    let (cookie, path) =
        (format!("a=\"1\";  session={token};b"), format!("/x?a=%20&access_token={token}&b=+"));
    type Pairs<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Pairs<'_>, Pairs<'_>); 5] = [
        (
            &[(":path", "/x"), ("authorization", &alice_bearer()), ("x-username", "root"), ("x_api_key", "")],
            &[(":path", "/x")],
        ),
        (
            &[(":path", "/x"), ("x-api-key", &key), ("x-username", "OP0123456789/alice"), ("te-x", "")],
            &[(":path", "/x"), ("te-x", "")],
        ),
        (&[(":path", "/x"), ("cookie", &cookie)], &[(":path", "/x"), ("cookie", "a=\"1\";b")]),
        (
            &[(":path", &path), ("authorization", "Basic YTpi")],
            &[(":path", "/x?a=%20&b=+"), ("authorization", "Basic YTpi")],
        ),
        (&[(":path", "/x"), ("x-soracom-token", &token), ("x-soracom-api-key", "api-1")], &[(":path", "/x")]),
    ];
    for (sent, expected) in cases {
        let sent: Vec<_> =
            [(":method", "GET")].iter().chain(sent).map(|(name, value)| (*name, value.as_bytes())).collect();
        let decision = gate.decide(sent.iter().copied(), Some(&snapshot), NOW_MS);
        assert!(matches!(decision, Decision::Admit(_)), "{decision:?}");
        let forwarded = fixtures::forwarded_headers(&gate, &sent, &decision);
        let left = forwarded.iter().filter(|(name, _)| !name.starts_with("x-keystile-")).skip(1);
        let left: Vec<_> = left.map(|(name, value)| (*name, str::from_utf8(value).unwrap())).collect();
        assert_eq!(left, expected);
        assert!(forwarded.contains(&("x-keystile-subject", b"OP0123456789/alice"[..].into())));
    }
}

#[test]
fn companion_headers_are_stripped_with_the_credential() {
    let snapshot = snapshot(&mut with_generations());
    let key = api_key(Kind::Signed, 1, "OP0123456789/alice");
    let token = alice_bearer().replace("Bearer ", "");
    let pair = [("x-soracom-token", &token[..]), ("x-soracom-api-key", "api-1")];
    let named = [("x-api-key", &key[..]), ("x-username", "OP0123456789/alice")];
    for (more, path, kept) in [
        (r#""strip_credential": true"#, "/x", false),
        (r#""strip_credential": false"#, "/x", true),
        // Report mode must not break requests.
        (r#""mode": "report""#, "/allowed", true),
        (r#""mode": "report""#, "/x", false),
    ] {
        let gate = gate_with(&format!("{more}, {POLICY}"));
        for sent in [pair, named] {
            let headers = [(":method", "GET"), (":path", path)];
            let headers: Vec<_> =
                headers.iter().chain(&sent).map(|(name, value)| (*name, value.as_bytes())).collect();
            let decision = gate.decide(headers.iter().copied(), Some(&snapshot), NOW_MS);
            assert!(matches!(decision, Decision::Admit(_)), "{decision:?}");
            let forwarded = fixtures::forwarded_headers(&gate, &headers, &decision);
            for (name, _) in sent {
                assert_eq!(forwarded.iter().any(|(header, _)| *header == name), kept, "{more} {path} {name}");
            }
        }
    }
}

/// What a host without requests gets from [`verdict::Gate::verify`]: the reasons of a rule without requirements.
#[test]
fn verify_checks_a_bare_credential_as_a_rule_without_requirements_does() {
    let gate = gate_with(POLICY);
    let mut builder = with_generations();
    let mint = |jti: &str, change: fn(&mut Claims)| {
        let mut claims = Claims { jti: jti.into(), sid: None, ..claims() };
        change(&mut claims);
        signing_key().mint(&claims).expose().to_owned()
    };
    let (good, revoked) = (mint("1", |_| ()), mint("2", |_| ()));
    builder.revoke(1, Fingerprint::digest(revoked.as_bytes())).unwrap();
    let paired = mint("3", |claims| claims.sid = Some("api-1".into()));
    let expired = mint("4", |claims| claims.exp = Some(NOW - 60));
    let api_key = api_key(Kind::Signed, 42, "alice");
    let snapshot = snapshot(&mut builder);
    let verify = |credential: &str, username: &str, paired: &str, now: u64, snapshot| {
        let bare = BareCredential {
            credential: credential.as_bytes(),
            username: username.as_bytes(),
            paired: paired.as_bytes(),
        };
        let verified = gate.verify(bare, snapshot, now, &mut Cache::disabled(), &SoftwareVerifier);
        verified.map(|identity| identity.subject().to_owned()).map_err(|refusal| refusal.reason().code())
    };
    let subject = Ok(claims().sub);
    for (credential, username, pair, now, expected) in [
        (&*good, "", "", NOW_MS, subject.clone()),
        // A username belongs to an API key only.
        (&*good, "alice", "", NOW_MS, subject.clone()),
        (&*revoked, "", "", NOW_MS, Err("revoked")),
        (&*expired, "", "", NOW_MS, Err("token_expired")),
        // A location of the policy demands the pair, so that leaving it out is no way around it.
        (&*paired, "", "api-1", NOW_MS, subject.clone()),
        (&*paired, "", "", NOW_MS, Err("api_key_mismatch")),
        (&*paired, "", "api-2", NOW_MS, Err("api_key_mismatch")),
        (&*api_key, "alice", "", NOW_MS, Ok("OP0123456789/alice".into())),
        (&*api_key, "bob", "", NOW_MS, Err("api_key_signature_invalid")),
        (&*api_key, "", "", NOW_MS, Err("api_key_signature_invalid")),
        ("", "", "", NOW_MS, Err("credential_missing")),
        ("abc", "", "", NOW_MS, Err("token_malformed")),
        (&*good, "", "", NOW_MS + 2 * 3_600_000, Err("token_expired")),
    ] {
        assert_eq!(verify(credential, username, pair, now, Some(&snapshot)), expected, "{credential}");
        assert_eq!(verify(credential, username, pair, now, None), Err("bundle_missing"));
    }
}

/// The credential that a request is decided by is found again, and no other.
#[test]
fn presented_credential_is_that_of_the_decision() {
    let gate = gate_with(POLICY);
    let mut builder = with_generations();
    let snapshot = snapshot(&mut builder);
    for (path, name, value, expected) in [
        ("/x", "authorization", "Bearer a.b.c", Some("a.b.c")),
        ("/x", "x-api-key", "key", Some("key")),
        ("/header", "cookie", "session=a", None),
        ("/cookie", "cookie", "session=a", Some("a")),
        ("/x", "authorization", "Bearer a, Bearer b", None),
        ("/x", "accept", "*/*", None),
        ("/unmatched", "authorization", "Bearer a.b.c", None),
    ] {
        let headers = [(":method", &b"GET"[..]), (":path", path.as_bytes()), (name, value.as_bytes())];
        let request = Request { headers: &headers, peer: None, snapshot: Some(&snapshot), now: NOW_MS };
        let found = gate.presented_credential(&request);
        assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{path} {name}: {value}");
    }
}
