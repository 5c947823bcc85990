//! Tokens of other issuers are accepted according to the policy, and their subjects never equal local ones.

use bundle::{
    Gap, MAX_FOREIGN_NAME_BYTES, Scope,
    builder::{Builder, SecretKey},
    foreign_name,
};
use serde_json::{Value, json};
use token::{Algorithm, Unverified, VerifyingKey, base64url, mint::SigningKey};
use verdict::{Cache, Request, Snapshot, SoftwareVerifier};

use crate::fixtures::{
    NOW, alice_bearer, bearer, builder, claims, decision_code, gate_with, set_grant, snapshot,
    snapshot_without_checkpoint,
};

const IDP: &str = "https://idp.example.com";

const POLICY: &str = r#"
    "issuers": [
        { "issuer": "https://idp.example.com", "audiences": ["orders", "api"] },
        { "issuer": "https://strict.example.com", "audiences": ["api"], "profile": "rfc9068",
          "max_lifetime_seconds": 7200 }
    ],
    "rules": [
        { "path": "/any" },
        { "path": "/ours", "issuers": ["https://keystile.local"] },
        { "path": "/theirs", "issuers": ["https://idp.example.com"], "audiences": ["orders"], "scopes": ["read"] },
        { "path": "/allowed", "permission": "Sim:getSim" }
    ]"#;

/// Returns a symmetric key, so that tests can sign. The tests of `token` cover the algorithms.
fn key_of(issuer: &str) -> [u8; 32] {
    let mut key = [9; 32];
    key.iter_mut().zip(issuer.bytes().rev()).for_each(|(byte, letter)| *byte = letter);
    key
}

fn with_keys() -> Builder {
    let mut builder = builder();
    let strict = "https://strict.example.com";
    let (idp, other) = (key_of(IDP), key_of(strict));
    let key = |issuer, secret| SecretKey::Token { issuer, kid: "k1", algorithm: Algorithm::Hs256, secret };
    builder.set_secret_keys([key(IDP, &idp), key(strict, &other)]).unwrap();
    builder
}

fn sign_token(issuer: &str, typ: &str, change: Value) -> String {
    let mut payload = json!({
        "iss": issuer, "sub": "alice", "aud": ["api", "orders"], "iat": NOW - 10, "exp": NOW + 3600,
        "jti": "j", "client_id": "c", "scope": "read write",
    });
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => payload.as_object_mut().unwrap().remove(name),
            value => payload.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    let header = json!({ "alg": "HS256", "kid": "k1", "typ": typ }).to_string();
    let key = SigningKey::hs256("k1", &key_of(issuer)).unwrap();
    format!("Bearer {}", key.sign(&header, payload.to_string().as_bytes()).expose())
}

fn decide_get(snapshot: &Snapshot, path: &str, token: &str) -> &'static str {
    let headers = [("authorization", token)];
    decision_code(&gate_with(POLICY), Some(snapshot), &format!("GET {path}"), &headers)
}

#[test]
fn tokens_must_meet_the_requirements_of_their_issuer() {
    let snapshot = snapshot(&mut with_keys());
    let strict = "https://strict.example.com";
    for (issuer, typ, change, expected) in [
        (IDP, "JWT", json!({}), "admitted"),
        (IDP, "at+jwt", json!({}), "admitted"),
        (IDP, "logout+jwt", json!({}), "token_type_wrong"),
        (IDP, "JWT", json!({ "aud": "api" }), "admitted"),
        (IDP, "JWT", json!({ "aud": "other" }), "token_audience_mismatch"),
        (IDP, "JWT", json!({ "aud": null }), "token_audience_mismatch"),
        (IDP, "JWT", json!({ "exp": null }), "token_incomplete"),
        (IDP, "JWT", json!({ "sub": null }), "token_incomplete"),
        (IDP, "JWT", json!({ "sub": "" }), "token_incomplete"),
        (IDP, "JWT", json!({ "iat": null }), "admitted"),
        (IDP, "JWT", json!({ "exp": NOW + 100_000 }), "admitted"),
        (strict, "at+jwt", json!({ "exp": NOW + 7191 }), "token_lifetime_too_long"),
        (strict, "at+jwt", json!({ "exp": NOW + 7190 }), "admitted"),
        (IDP, "JWT", json!({ "exp": NOW - 5 }), "token_expired"),
        (IDP, "JWT", json!({ "nbf": NOW + 6 }), "token_not_yet_valid"),
        (IDP, "JWT", json!({ "iat": NOW + 6 }), "token_issued_in_future"),
        (strict, "at+jwt", json!({}), "admitted"),
        (strict, "application/AT+JWT", json!({}), "admitted"),
        (strict, "JWT", json!({}), "token_type_wrong"),
        (strict, "at+jwt", json!({ "client_id": null }), "token_incomplete"),
        (strict, "at+jwt", json!({ "jti": null }), "token_incomplete"),
        ("https://unknown.example.com", "JWT", json!({}), "token_issuer_unknown"),
    ] {
        assert_eq!(
            decide_get(&snapshot, "/any", &sign_token(issuer, typ, change.clone())),
            expected,
            "{typ} {change}"
        );
    }
    // A key verifies only tokens of its own issuer, even if its name is that of another key.
    let ours = sign_token(IDP, "JWT", json!({ "iss": "https://keystile.local" }));
    assert_eq!(decide_get(&snapshot, "/any", &ours), "token_algorithm_mismatch");
    let theirs = sign_token(IDP, "JWT", json!({ "iss": strict }));
    assert_eq!(decide_get(&snapshot, "/any", &theirs), "token_signature_invalid");
}

#[test]
fn rules_distinguish_issuers() {
    let snapshot = snapshot(&mut with_keys());
    let theirs = sign_token(IDP, "JWT", json!({}));
    for (path, token, expected) in [
        ("/ours", &alice_bearer(), "admitted"),
        ("/ours", &theirs, "issuer_not_accepted"),
        ("/theirs", &theirs, "admitted"),
        ("/theirs", &alice_bearer(), "issuer_not_accepted"),
        ("/theirs", &sign_token(IDP, "JWT", json!({ "aud": "api" })), "token_audience_mismatch"),
        ("/theirs", &sign_token(IDP, "JWT", json!({ "scope": "write" })), "scope_missing"),
    ] {
        assert_eq!(decide_get(&snapshot, path, token), expected, "{path}");
    }
}

#[test]
fn foreign_subjects_are_neither_root_nor_local_users() {
    let mut builder = with_keys();
    let all = r#"{"statements":[{"effect":"allow","api":"*"}]}"#;
    set_grant(&mut builder, "OP0123456789/alice", all);
    set_grant(&mut builder, "alice", all);
    let pretended = json!({ "sub": "OP0123456789", "operator": { "operatorId": "OP0123456789" } });
    let user = json!({ "sub": "OP0123456789/alice", "operator": { "operatorId": "OP0123456789" } });
    for change in [json!({}), pretended, user] {
        let token = sign_token(IDP, "JWT", change);
        assert_eq!(decide_get(&snapshot(&mut builder), "/allowed", &token), "permission_denied");
    }
    set_grant(&mut builder, "https://idp.example.com#alice", all);
    let token = sign_token(IDP, "JWT", json!({}));
    assert_eq!(decide_get(&snapshot(&mut builder), "/allowed", &token), "admitted");
    assert_eq!(decide_get(&snapshot(&mut builder), "/allowed", &bearer(&claims())), "admitted");
}

#[test]
fn watermark_scopes_contain_the_issuer() {
    let token = sign_token(IDP, "JWT", json!({}));
    // A token without `iat` counts as issued before every watermark.
    let undated = sign_token(IDP, "JWT", json!({ "iat": null }));
    for (scope, expected) in [
        (Scope::Global, "watermark"),
        (Scope::SigningKey("https://idp.example.com#k1"), "watermark"),
        (Scope::User("https://idp.example.com#alice"), "watermark"),
        (Scope::SigningKey("k1"), "admitted"),
        (Scope::User("alice"), "admitted"),
    ] {
        let mut builder = with_keys();
        builder.raise_watermark(1, scope, NOW - 10);
        let snapshot = snapshot(&mut builder);
        assert_eq!(decide_get(&snapshot, "/any", &token), expected, "{scope:?}");
        assert_eq!(decide_get(&snapshot, "/any", &undated), expected, "{scope:?}");
    }
    let mut builder = with_keys();
    builder.raise_watermark(1, Scope::Global, 0);
    let snapshot = snapshot(&mut builder);
    assert_eq!(decide_get(&snapshot, "/any", &token), "admitted");
    assert_eq!(decide_get(&snapshot, "/any", &undated), "watermark");
}

/// Every scope refuses the tokens that it names, and no others: neither those of another issuer, nor those that have the
/// name in another claim.
#[test]
fn a2_sessions_token_ids_clients_and_issuers_are_scopes_of_watermarks() {
    let token = |claim: &str| sign_token(IDP, "JWT", json!({ "client_id": null, "jti": null, claim: "x" }));
    let claims = ["client_id", "azp", "cid", "appid", "sid", "session_state", "jti", "uti", "other"];
    let named = foreign_name(IDP, "x");
    let elsewhere = foreign_name("https://strict.example.com", "x");
    for (scope, refused) in [
        (Scope::Client(&named), &["client_id", "azp", "cid", "appid"][..]),
        (Scope::IssuerSession(&named), &["sid", "session_state"]),
        (Scope::TokenId(&named), &["jti", "uti"]),
        (Scope::Issuer(IDP), &claims),
        (Scope::Client(&elsewhere), &[]),
        (Scope::IssuerSession(&elsewhere), &[]),
        (Scope::TokenId(&elsewhere), &[]),
        (Scope::Issuer("https://strict.example.com"), &[]),
        // The scopes of our own credentials.
        (Scope::Session("x"), &[]),
        (Scope::AuthKey("x"), &[]),
        (Scope::Operator("x"), &[]),
        (Scope::User(&named), &[]),
    ] {
        let mut builder = with_keys();
        builder.raise_watermark(1, scope, NOW - 10);
        let snapshot = snapshot(&mut builder);
        for claim in claims {
            let expected = if refused.contains(&claim) { "watermark" } else { "admitted" };
            assert_eq!(decide_get(&snapshot, "/any", &token(claim)), expected, "{scope:?} {claim}");
        }
        assert_eq!(decide_get(&snapshot, "/any", &alice_bearer()), "admitted", "{scope:?}");
    }
    // A watermark refuses what was issued until then, and one without end also what is issued later.
    for (instant, expected) in [(NOW - 11, "admitted"), (NOW - 10, "watermark"), (u64::MAX >> 1, "watermark")]
    {
        let mut builder = with_keys();
        builder.raise_watermark(1, Scope::TokenId(&named), instant);
        assert_eq!(decide_get(&snapshot(&mut builder), "/any", &token("jti")), expected, "{instant}");
    }
}

/// RFC 7519 requires texts, but some issuers write numbers. Their name is the number in digits.
#[test]
fn a2_sessions_and_clients_that_are_numbers_can_be_revoked() {
    let token = |claim: &str, value: Value| {
        sign_token(IDP, "JWT", json!({ "client_id": null, "jti": null, claim: value }))
    };
    let (named, other) = (foreign_name(IDP, "4711"), foreign_name(IDP, "4712"));
    for (scopes, claims) in [
        ([Scope::Client(&named), Scope::Client(&other)], &["client_id", "azp", "cid", "appid"][..]),
        ([Scope::IssuerSession(&named), Scope::IssuerSession(&other)], &["sid", "session_state"]),
        ([Scope::TokenId(&named), Scope::TokenId(&other)], &["uti"]),
    ] {
        let snapshots = scopes.map(|scope| {
            let mut builder = with_keys();
            builder.raise_watermark(1, scope, NOW - 10);
            snapshot(&mut builder)
        });
        for claim in claims {
            for (value, expected) in [
                (json!(4711), ["watermark", "admitted"]),
                (json!("4711"), ["watermark", "admitted"]),
                // These have no name, and their tokens can be revoked by their fingerprints and subjects only.
                (json!(4711.5), ["admitted"; 2]),
                (json!(-4711), ["admitted"; 2]),
                (json!(["4711"]), ["admitted"; 2]),
                (json!({ "4711": 1 }), ["admitted"; 2]),
            ] {
                let token = token(claim, value.clone());
                let found = [0, 1].map(|at| decide_get(&snapshots[at], "/any", &token));
                assert_eq!(found, expected, "{claim} {value}");
            }
        }
    }
}

/// A token whose client, session or id could not be revoked by its name is refused.
#[test]
fn a2_names_that_cannot_be_revoked_are_refused() {
    let snapshot = snapshot(&mut with_keys());
    for claim in ["client_id", "azp", "cid", "appid", "sid", "session_state", "jti", "uti"] {
        let longest = 2048 - foreign_name(IDP, "").len();
        for (value, expected) in [
            ("a".repeat(longest), "admitted"),
            ("a".repeat(longest + 1), "token_incomplete"),
            ("a\nb".into(), "token_incomplete"),
        ] {
            let token = sign_token(IDP, "JWT", json!({ "client_id": null, "jti": null, claim: value }));
            assert_eq!(decide_get(&snapshot, "/any", &token), expected, "{claim} {}", value.len());
        }
    }
}

/// A worker loads the tail before the checkpoint that announces such watermarks.
#[test]
fn a2_a_watermark_in_the_tail_applies_before_the_next_checkpoint() {
    let named = foreign_name(IDP, "x");
    for (scope, claim) in [
        (Scope::Client(&named), "client_id"),
        (Scope::IssuerSession(&named), "sid"),
        (Scope::TokenId(&named), "jti"),
        (Scope::Issuer(IDP), "other"),
    ] {
        let token = sign_token(IDP, "JWT", json!({ "client_id": null, "jti": null, claim: "x" }));
        let mut builder = with_keys();
        let before = snapshot(&mut builder);
        builder.raise_watermark(1, scope, NOW - 10);
        let after = snapshot_without_checkpoint(&mut builder);
        assert_eq!(decide_get(&before, "/any", &token), "admitted", "{scope:?}");
        assert_eq!(decide_get(&after, "/any", &token), "watermark", "{scope:?}");
    }
}

/// A name that an issuer chooses is never read as another one: not as ours, not as another issuer's, not as another scope.
#[test]
fn a1_no_subject_is_another_ones_subject() {
    const TRICKY: &str = r#"
        "issuers": [
            { "issuer": "https://idp.example.com", "audiences": ["api"] },
            { "issuer": "https://idp.example.com#a", "audiences": ["api"] },
            { "issuer": "https://idp.example.com%23a", "audiences": ["api"] }
        ],
        "rules": [{ "path": "/any" }, { "path": "/allowed", "permission": "Sim:getSim" }]"#;
    let issuers = ["https://idp.example.com", "https://idp.example.com#a", "https://idp.example.com%23a"];
    let subjects =
        ["b", "a#b", "#b", "OP0123456789", "OP0123456789/alice", "key-1", "https://idp.example.com#b"];
    let secrets = issuers.map(key_of);
    let with_keys = || {
        let mut builder = builder();
        let keys = issuers.iter().zip(&secrets).map(|(issuer, secret)| SecretKey::Token {
            issuer,
            kid: "k1",
            algorithm: Algorithm::Hs256,
            secret,
        });
        builder.set_secret_keys(keys).unwrap();
        builder
    };
    let pairs = || issuers.iter().flat_map(|issuer| subjects.map(|subject| (*issuer, subject)));
    let decide = |snapshot: &Snapshot, path: &str, token: &str| {
        let headers = [("authorization", token)];
        decision_code(&gate_with(TRICKY), Some(snapshot), &format!("GET {path}"), &headers)
    };
    let all = r#"{"statements":[{"effect":"allow","api":"*"}]}"#;
    for (issuer, subject) in pairs() {
        let name = foreign_name(issuer, subject);
        let mut refusing = with_keys();
        refusing.raise_watermark(1, Scope::User(&name), NOW);
        let mut granting = with_keys();
        set_grant(&mut granting, &name, all);
        let (refusing, granting) = (snapshot(&mut refusing), snapshot(&mut granting));
        for other in pairs() {
            let token = sign_token(other.0, "JWT", json!({ "sub": other.1 }));
            let is_same = other == (issuer, subject);
            let expected =
                if is_same { ["watermark", "admitted"] } else { ["admitted", "permission_denied"] };
            let decided = [decide(&refusing, "/any", &token), decide(&granting, "/allowed", &token)];
            assert_eq!(decided, expected, "{name} {other:?}");
        }
        let mut own = claims();
        own.sub = "OP0123456789/alice".into();
        assert_eq!(decide(&refusing, "/any", &bearer(&own)), "admitted");
        // Without a grant, our own users are refused too.
        assert_eq!(decide(&granting, "/allowed", &bearer(&own)), "permission_denied");
    }
}

/// Longer names could not be revoked.
#[test]
fn a_subject_has_at_most_as_many_bytes_as_can_be_revoked() {
    let snapshot = snapshot(&mut with_keys());
    let longest = MAX_FOREIGN_NAME_BYTES - IDP.len() - 1;
    for (length, expected) in [(longest, "admitted"), (longest + 1, "token_incomplete")] {
        let token = sign_token(IDP, "JWT", json!({ "sub": "s".repeat(length) }));
        assert_eq!(decide_get(&snapshot, "/any", &token), expected, "{length}");
    }
}

/// Gaps do not apply to tokens of other issuers.
#[test]
fn gaps_do_not_apply_to_other_issuers() {
    let mut builder = with_keys();
    builder.set_gaps(&[Gap { issued_after: 0, issued_until: u64::MAX }], []).unwrap();
    let snapshot = snapshot(&mut builder);
    assert_eq!(decide_get(&snapshot, "/any", &sign_token(IDP, "JWT", json!({}))), "admitted");
    assert_eq!(decide_get(&snapshot, "/any", &bearer(&claims())), "issuance_unknown");
}

/// The public key of the tokens below, made with `openssl ecparam -name prime256v1`.
const EC_KEY: &str = "FKMcQedAFPiOgH5kKIPydAAygyWwSwwotlQrkwRDfB93PE9jRrKw_ZQ8eCZre5DS_iKvWrWXdCYVhfezk_DcUg";
const EC_TOKEN_OF_IDP: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImVjIn0.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlLmNvbSIsInN1YiI6ImFsaWNlIiwiYXVkIjoiYXBpIiwiaWF0IjoxNjk5OTk5OTkwLCJleHAiOjE3MDAwMDM2MDB9.3FQuOGb0fwkC1cFCoS4a4cwRJTCvHOoNmdXdEguTow8MgiVrd1FQ6rPKYkt-86OSkjoVGsnAZzXVznDdQ0KwtA";
const EC_TOKEN_OF_OURS: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImVjIn0.eyJpc3MiOiJodHRwczovL2tleXN0aWxlLmxvY2FsIiwic3ViIjoiT1AwMTIzNDU2Nzg5L2FsaWNlIiwiYXVkIjoiYXBpIiwiaWF0IjoxNjk5OTk5OTkwLCJleHAiOjE3MDAwMDM2MDAsImp0aSI6ImoiLCJvcGVyYXRvciI6eyJvcGVyYXRvcklkIjoiT1AwMTIzNDU2Nzg5In19.JOc5TMuN1CN4KMwFEQAmiOxOmm0klByAuNLNaHzkZudy5gkySkseRSRx41O7P2Y6V2n85tM0PkuuaHGOI7xYmQ";

/// Every ECDSA signature has a second valid form, under which the token has another fingerprint.
#[test]
fn revoking_either_ecdsa_signature_revokes_the_token() {
    let point = base64url::decode(EC_KEY.as_bytes()).unwrap();
    let own = VerifyingKey::local("ec", Algorithm::Es256, &point).unwrap();
    let foreign = VerifyingKey::foreign(IDP, "ec", Algorithm::Es256, &point).unwrap();
    for (token, key) in [(EC_TOKEN_OF_IDP, &foreign), (EC_TOKEN_OF_OURS, &own)] {
        let authentic = Unverified::parse(token.as_bytes()).unwrap().verify(key).unwrap();
        let both: Vec<_> = authentic.fingerprints().collect();
        assert_eq!(both.len(), 2);
        for (revoked, expected) in
            [(None, "admitted"), (Some(both[0]), "revoked"), (Some(both[1]), "revoked")]
        {
            let mut builder = Builder::default();
            builder.set_verifying_keys([&own, &foreign]).unwrap();
            if let Some(fingerprint) = revoked {
                builder.revoke(1, fingerprint).unwrap();
            }
            let snapshot = snapshot(&mut builder);
            assert_eq!(decide_get(&snapshot, "/any", &format!("Bearer {token}")), expected, "{revoked:?}");
        }
    }
}

/// The keys of [`IDP`] as (`kid`, HS256 or HS512, first byte of the secret).
fn with_symmetric_keys(keys: &[(&str, Algorithm, u8)]) -> Snapshot {
    let secrets: Vec<[u8; 64]> = keys.iter().map(|(_, _, byte)| [*byte; 64]).collect();
    let keys = keys.iter().zip(&secrets).map(|(&(kid, algorithm, _), secret)| SecretKey::Token {
        issuer: IDP,
        kid,
        algorithm,
        secret,
    });
    let mut builder = builder();
    builder.set_secret_keys(keys).unwrap();
    snapshot(&mut builder)
}

/// Returns a token of [`IDP`] whose header has this `kid`, signed with HS256.
fn sign_for_kid(kid: Option<&str>, byte: u8) -> String {
    let claims = json!({ "iss": IDP, "sub": "alice", "aud": "api", "iat": NOW - 10, "exp": NOW + 3600 });
    let header = match kid {
        Some(kid) => json!({ "alg": "HS256", "kid": kid }),
        None => json!({ "alg": "HS256" }),
    };
    let key = SigningKey::hs256("x", &[byte; 64]).unwrap();
    format!("Bearer {}", key.sign(&header.to_string(), claims.to_string().as_bytes()).expose())
}

/// The same cache sees the sets one after another, as while an issuer replaces its keys: it changes no decision.
#[test]
fn b5_the_only_key_of_the_algorithm_is_for_tokens_without_kid_and_as_a_key_without_kid_for_all() {
    use Algorithm::{Hs256, Hs512};
    let gate = gate_with(POLICY);
    let mut cache = Cache::new(64, b"seed");
    let (named, nameless) = (sign_for_kid(Some("a"), 1), sign_for_kid(None, 1));
    let other_kid = sign_for_kid(Some("b"), 1);
    type KeySet = (&'static [(&'static str, Algorithm, u8)], [&'static str; 3]);
    let sets: [KeySet; 8] = [
        (&[("a", Hs256, 1)], ["admitted", "admitted", "token_key_unknown"]),
        (&[("a", Hs256, 1), ("c", Hs512, 2)], ["admitted", "admitted", "token_key_unknown"]),
        (&[("a", Hs256, 1), ("c", Hs256, 2)], ["admitted", "token_key_ambiguous", "token_key_unknown"]),
        (&[("", Hs256, 1)], ["admitted"; 3]),
        (
            &[("", Hs256, 1), ("c", Hs256, 2)],
            ["token_key_unknown", "token_key_ambiguous", "token_key_unknown"],
        ),
        (&[("", Hs256, 2)], ["token_signature_invalid"; 3]),
        (&[("a", Hs512, 1)], ["token_algorithm_mismatch", "token_algorithm_mismatch", "token_key_unknown"]),
        (&[("a", Hs256, 1)], ["admitted", "admitted", "token_key_unknown"]),
    ];
    for (keys, expected) in sets {
        let snapshot = with_symmetric_keys(keys);
        for (token, expected) in [&named, &nameless, &other_kid].into_iter().zip(expected) {
            let headers =
                [(":method", b"GET" as &[u8]), (":path", b"/any"), ("authorization", token.as_bytes())];
            let request =
                Request { headers: &headers, peer: None, snapshot: Some(&snapshot), now: NOW * 1000 };
            for _ in 0..2 {
                let decision = gate.decide_with(&request, &mut cache, &SoftwareVerifier);
                let code = decision.reason().map_or("admitted", |reason| reason.code());
                assert_eq!(code, expected, "{keys:?}");
            }
        }
    }
}

/// A watermark on a key refuses all that it signed, whether the token names the key or not.
#[test]
fn b5_watermark_of_a_key_covers_tokens_without_kid() {
    let secret = [1; 64];
    let key = SecretKey::Token { issuer: IDP, kid: "a", algorithm: Algorithm::Hs256, secret: &secret };
    for (scope, expected) in [("#a", "watermark"), ("#b", "admitted"), ("#", "admitted")] {
        let mut builder = builder();
        builder.set_secret_keys([key]).unwrap();
        builder.raise_watermark(1, Scope::SigningKey(&format!("{IDP}{scope}")), NOW);
        let snapshot = snapshot(&mut builder);
        for kid in [Some("a"), None] {
            assert_eq!(decide_get(&snapshot, "/any", &sign_for_kid(kid, 1)), expected, "{scope} {kid:?}");
        }
    }
}

#[test]
fn c5_issuers_of_missing_keys_are_recorded_and_nothing_else() {
    let gate = gate_with(POLICY);
    let snapshot = with_symmetric_keys(&[("a", Algorithm::Hs256, 1), ("c", Algorithm::Hs256, 2)]);
    let mut cache = Cache::new(16, b"seed");
    let mut recorded = |token: &str| {
        let headers = [(":method", b"GET" as &[u8]), (":path", b"/any"), ("authorization", token.as_bytes())];
        let request = Request { headers: &headers, peer: None, snapshot: Some(&snapshot), now: NOW * 1000 };
        gate.decide_with(&request, &mut cache, &SoftwareVerifier);
        std::iter::from_fn(|| gate.take_issuer_with_missing_key(&mut cache)).collect::<Vec<_>>()
    };
    let strict = "https://strict.example.com";
    let mut local = claims();
    local.sub = "OP0123456789/bob".into();
    let unknown_local =
        format!("Bearer {}", SigningKey::ed25519("unknown", &[9; 32]).unwrap().mint(&local).expose());
    for (token, expected) in [
        (sign_for_kid(Some("unknown"), 1), vec![IDP]),
        (sign_token(strict, "at+jwt", json!({})), vec![strict]),
        (sign_for_kid(Some("a"), 1), vec![]),
        (sign_for_kid(Some("a"), 2), vec![]),
        // More keys would not help.
        (sign_for_kid(None, 1), vec![]),
        (sign_token("https://unknown.example.com", "JWT", json!({})), vec![]),
        (unknown_local, vec![]),
    ] {
        assert_eq!(recorded(&token), expected);
    }
}
