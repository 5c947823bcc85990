//! Tokens of other issuers as products make them: what is tolerated, and that no tolerance makes one credential two or
//! one subject another.

use bundle::{
    Scope,
    builder::{Builder, SecretKey},
    foreign_name,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use token::{Algorithm, base64url, mint::SigningKey};
use verdict::{Cache, Decision, Gate, Refusal, Request, Snapshot, SoftwareVerifier};

use crate::fixtures::{
    NOW, NOW_MS, builder, decision_code, forwarded_headers, gate_with, policy, set_grant, snapshot,
};

const IDP: &str = "https://idp.example";

const TENANTS: &str = "https://login.example/{tenant}/v2.0";

const KEY: [u8; 32] = [9; 32];

/// Returns a policy with one issuer.
fn issuer(members: Value) -> String {
    let mut issuer = json!({ "issuer": IDP, "audiences": ["api"] });
    for (name, value) in members.as_object().unwrap() {
        match value {
            Value::Null => issuer.as_object_mut().unwrap().remove(name),
            value => issuer.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    format!("\"issuers\": [{issuer}]")
}

fn tenants(part: Value) -> String {
    issuer(json!({ "issuer": TENANTS, "issuer_parts": { "tenant": part } }))
}

fn with_keys() -> Builder {
    let mut builder = builder();
    let key = |issuer| SecretKey::Token { issuer, kid: "k1", algorithm: Algorithm::Hs256, secret: &KEY };
    builder.set_secret_keys([IDP, TENANTS].map(key)).unwrap();
    builder
}

/// Returns a token of the issuer with other header parameters and claims; `null` removes one.
fn token_with(header: Value, change: Value) -> String {
    let set = |object: &mut Value, change: Value| {
        for (name, value) in change.as_object().unwrap() {
            object.as_object_mut().unwrap().remove(name);
            if !value.is_null() {
                object[name] = value.clone();
            }
        }
        object.to_string()
    };
    let header = set(&mut json!({ "alg": "HS256", "kid": "k1", "typ": "JWT" }), header);
    let mut payload = json!({ "iss": IDP, "sub": "alice", "aud": "api", "iat": NOW - 10, "exp": NOW + 3600 });
    let payload = set(&mut payload, change);
    sign(&header, &payload)
}

fn sign(header: &str, payload: &str) -> String {
    let key = SigningKey::hs256("k1", &KEY).unwrap();
    format!("Bearer {}", key.sign(header, payload.as_bytes()).expose())
}

fn token(change: Value) -> String {
    token_with(json!({}), change)
}

fn code(gate: &Gate, snapshot: &Snapshot, token: &str) -> &'static str {
    decision_code(gate, Some(snapshot), "GET /x", &[("authorization", token)])
}

fn refusal(gate: &Gate, snapshot: &Snapshot, token: &str) -> Refusal {
    let headers = [("authorization", token.as_bytes())];
    match gate.decide(headers.into_iter(), Some(snapshot), NOW_MS) {
        Decision::Refuse(refusal) => refusal,
        decision => panic!("{decision:?}"),
    }
}

/// Returns the headers of an admitted request.
fn forwarded(gate: &Gate, snapshot: &Snapshot, token: &str) -> Vec<(String, Vec<u8>)> {
    let headers = [
        (":method", &b"GET"[..]),
        (":path", b"/"),
        (":authority", b"api.example.com"),
        ("authorization", token.as_bytes()),
    ];
    let decision = gate.decide(headers.into_iter(), Some(snapshot), NOW_MS);
    assert!(matches!(decision, Decision::Admit(_)), "{decision:?}");
    let headers = forwarded_headers(gate, &headers, &decision);
    headers.into_iter().map(|(name, value)| (name.into(), value.into_owned())).collect()
}

fn header(headers: &[(String, Vec<u8>)], name: &str) -> Option<String> {
    let (_, value) = headers.iter().find(|(header, _)| header == name)?;
    Some(String::from_utf8(value.clone()).unwrap())
}

/// Decodes every `%XX`.
fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            bytes.push(u8::from_str_radix(std::str::from_utf8(&after[..2]).unwrap(), 16).unwrap());
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a4_subjects_are_any_text_without_control_characters() {
    let secret = base64url::encode(&[7; 32]);
    let gate = gate_with(&format!(
        r#"{}, "allow_inline_secrets": true,
        "identity": {{ "assertion": {{ "header": "x-assertion", "secret": "{secret}", "audience": "a" }} }}"#,
        issuer(json!({}))
    ));
    let snapshot = snapshot(&mut with_keys());
    for (subject, encoded) in [
        ("alice", "alice"),
        ("Jane Doe", "Jane%20Doe"),
        ("Jürgen", "J%C3%BCrgen"),
        ("CN=svc,O=Example Inc", "CN=svc,O=Example%20Inc"),
        ("张伟", "%E5%BC%A0%E4%BC%9F"),
        ("100%", "100%25"),
        ("J%C3%BCrgen", "J%25C3%25BCrgen"),
        (" ", "%20"),
        ("auth0|5f7c", "auth0|5f7c"),
        ("\"a\\b\"", "\"a\\b\""),
        ("a#b/c?d", "a#b/c?d"),
        ("\u{feff}\u{202e}\u{2028}", "%EF%BB%BF%E2%80%AE%E2%80%A8"),
        ("\u{10ffff}", "%F4%8F%BF%BF"),
    ] {
        let headers = forwarded(&gate, &snapshot, &token(json!({ "sub": subject })));
        let sent = header(&headers, "x-keystile-subject").unwrap();
        assert_eq!(sent, format!("{IDP}#{encoded}"));
        assert_eq!(percent_decode(&sent), format!("{IDP}#{subject}"));
        let assertion = header(&headers, "x-assertion").unwrap();
        let payload = base64url::decode(assertion.split('.').nth(1).unwrap().as_bytes()).unwrap();
        let payload: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(payload["sub"], format!("{IDP}#{subject}"), "JSON has it as it is");
    }
    for subject in ["a\r\nx-admin: 1", "a\0", "\u{7f}", "\u{85}", "\u{9b}31m", "\n"] {
        let refused = refusal(&gate, &snapshot, &token(json!({ "sub": subject })));
        assert_eq!(refused.reason().code(), "token_subject_malformed", "{subject:?}");
        assert!(refused.message().ends_with("`sub`"), "{}", refused.message());
    }
    // The name with the issuer has at most 2048 bytes.
    let longest = 2048 - "https://idp.example#".len();
    for (length, expected) in [(longest, "admitted"), (longest + 1, "token_incomplete")] {
        let token = token(json!({ "sub": "a".repeat(length) }));
        assert_eq!(code(&gate, &snapshot, &token), expected, "{length}");
    }
    for subject in [json!(""), json!(null), json!(true), json!(["a"]), json!({ "a": 1 })] {
        let code = code(&gate, &snapshot, &token(json!({ "sub": subject })));
        assert!(["token_incomplete", "token_malformed"].contains(&code), "{subject}: {code}");
    }
}

/// Grants and watermarks are for the subject as it is, not as a header has it.
#[test]
fn a4_an_encoded_subject_is_another_subject() {
    let gate = gate_with(&format!(
        r#"{}, "rules": [{{ "path": "/x", "permission": "Sim:getSim" }}]"#,
        issuer(json!({}))
    ));
    let mut builder = with_keys();
    set_grant(&mut builder, "https://idp.example#Jürgen", r#"{"statements":[{"effect":"allow","api":"*"}]}"#);
    let granted = snapshot(&mut builder);
    let decide = |subject: &str| code(&gate, &granted, &token(json!({ "sub": subject })));
    assert_eq!(decide("Jürgen"), "admitted");
    assert_eq!(decide("J%C3%BCrgen"), "permission_denied");
    assert_eq!(decide("Ju\u{308}rgen"), "permission_denied", "texts are compared byte by byte");
}

proptest! {
    #[test]
    fn a4_percent_decoding_restores_every_subject(subject in "\\PC{1,20}", claim in "\\PC{1,20}") {
        prop_assume!(!subject.chars().chain(claim.chars()).any(char::is_control));
        let gate = gate_with(&format!(
            r#"{}, "identity": {{ "claims": {{ "x-name": "name" }} }}"#, issuer(json!({}))
        ));
        let token = token(json!({ "sub": subject, "name": [claim, "b"] }));
        let headers = forwarded(&gate, &snapshot(&mut with_keys()), &token);
        let subject_header = header(&headers, "x-keystile-subject").unwrap();
        prop_assert!(subject_header.bytes().all(|byte| byte.is_ascii_graphic()));
        prop_assert_eq!(percent_decode(&subject_header), format!("{IDP}#{subject}"));
        let list = header(&headers, "x-name").unwrap();
        prop_assert!(list.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
        let values: Vec<_> = list.split(',').map(percent_decode).collect();
        prop_assert_eq!(values, [claim, "b".to_owned()]);
    }
}

#[test]
fn b1_the_audience_is_in_another_claim_or_replaced_by_required_claims() {
    let snapshot = snapshot(&mut with_keys());
    let client = json!({ "audience_claim": "client_id" });
    let nested = json!({ "audience_claim": "/https:~1~1a.example~1app/id" });
    let required =
        json!({ "audiences": null, "required_claims": { "token_use": "access", "groups": ["a", "b"] } });
    let both = json!({ "required_claims": { "level": [2, 3] } });
    for (members, change, expected) in [
        (&client, json!({ "aud": null, "client_id": "api" }), "admitted"),
        (&client, json!({ "aud": "other", "client_id": "api" }), "admitted"),
        (&client, json!({ "aud": null, "client_id": ["other", "api"] }), "admitted"),
        (&client, json!({ "aud": "api" }), "token_audience_mismatch"),
        (&client, json!({ "aud": "api", "client_id": "other" }), "token_audience_mismatch"),
        (&client, json!({ "aud": "api", "client_id": { "api": "api" } }), "token_audience_mismatch"),
        (&client, json!({ "aud": "api", "client_id": ["other", ["api"]] }), "token_audience_mismatch"),
        (&client, json!({ "aud": "api", "client_id": "API" }), "token_audience_mismatch"),
        (&nested, json!({ "https://a.example/app": { "id": "api" } }), "admitted"),
        (&nested, json!({ "https://a.example/app": "api" }), "token_audience_mismatch"),
        (&required, json!({ "aud": null, "token_use": "access", "groups": ["x", "b"] }), "admitted"),
        (&required, json!({ "aud": "other", "token_use": "access", "groups": "a" }), "admitted"),
        (&required, json!({ "token_use": "id", "groups": ["a"] }), "claim_missing"),
        (&required, json!({ "token_use": "access" }), "claim_missing"),
        (&required, json!({ "token_use": "access", "groups": [] }), "claim_missing"),
        (&required, json!({ "token_use": "access", "groups": { "a": "a" } }), "claim_missing"),
        (&both, json!({ "level": 2 }), "admitted"),
        (&both, json!({ "level": "2" }), "claim_missing"),
        (&both, json!({ "level": 2, "aud": "other" }), "token_audience_mismatch"),
    ] {
        let gate = gate_with(&issuer(members.clone()));
        assert_eq!(code(&gate, &snapshot, &token(change.clone())), expected, "{members} {change}");
    }
}

/// The audiences of a rule are in the same claim.
#[test]
fn b1_rules_look_for_audiences_in_the_claim_of_the_issuer() {
    let members = issuer(json!({ "audiences": ["api", "orders"], "audience_claim": "client_id" }));
    let gate = gate_with(&format!(r#"{members}, "rules": [{{ "path": "/x", "audiences": ["orders"] }}]"#));
    let snapshot = snapshot(&mut with_keys());
    for (change, expected) in [
        (json!({ "aud": null, "client_id": "orders" }), "admitted"),
        (json!({ "aud": "orders", "client_id": "api" }), "token_audience_mismatch"),
        (json!({ "aud": "orders", "client_id": "orders" }), "admitted"),
    ] {
        assert_eq!(code(&gate, &snapshot, &token(change.clone())), expected, "{change}");
    }
}

#[test]
fn b1_an_issuer_without_any_requirement_is_refused() {
    for (members, expected) in [
        (json!({ "audiences": null }), "`issuers[0].audiences`: is required: the values of `aud`"),
        (json!({ "audiences": [] }), "`issuers[0].audiences`: there must be at least one"),
        (json!({ "audiences": null, "required_claims": {} }), "`issuers[0].audiences`: is required"),
        (
            json!({ "audiences": null, "required_claims": { "iss": IDP } }),
            "`issuers[0].audiences`: is required",
        ),
        // The same claim as a JSON pointer, and a part of it that no token has.
        (
            json!({ "audiences": null, "required_claims": { "/iss": IDP } }),
            "`issuers[0].audiences`: is required",
        ),
        (
            json!({ "audiences": null, "required_claims": { "iss": IDP, "/iss/0": IDP, "iss.a": "b" } }),
            "`issuers[0].audiences`: is required",
        ),
        (
            json!({ "audiences": null, "audience_claim": "client_id" }),
            "`issuers[0].audiences`: is required with `audience_claim`",
        ),
        (
            json!({ "audiences": null, "audience_claim": "client_id", "required_claims": { "a": 1 } }),
            "`issuers[0].audiences`: is required with `audience_claim`",
        ),
        (json!({ "required_claims": { "a": [] } }), "`issuers[0].required_claims.a`: must be a string"),
        (json!({ "required_claims": { "a": null } }), "`issuers[0].required_claims.a`: must be a string"),
        (
            json!({ "required_claims": { "a": { "path_variable": "b" } } }),
            "`issuers[0].required_claims`: an issuer has no path variables",
        ),
    ] {
        let error = policy(&issuer(members.clone())).unwrap_err();
        assert!(error.starts_with(expected), "{members}: {error}");
    }
    let error = policy(&issuer(json!({ "audiences": null }))).unwrap_err();
    for name in ["audience_claim", "client_id", "required_claims"] {
        assert!(error.contains(name), "the error names what to write: {error}");
    }
}

#[test]
fn b2_the_subject_is_in_another_claim_and_a_missing_one_is_named() {
    let snapshot = snapshot(&mut with_keys());
    for (claim, change, expected) in [
        ("azp", json!({ "sub": null, "azp": "svc" }), Ok("svc")),
        ("azp", json!({ "sub": "alice", "azp": "svc" }), Ok("svc")),
        ("user.id", json!({ "user": { "id": "u 1" } }), Ok("u%201")),
        ("uid", json!({ "uid": 1001 }), Ok("1001")),
        ("azp", json!({ "sub": "alice" }), Err("token_incomplete")),
        ("azp", json!({ "azp": "" }), Err("token_incomplete")),
        ("azp", json!({ "azp": ["svc"] }), Err("token_incomplete")),
        ("azp", json!({ "azp": { "a": "svc" } }), Err("token_incomplete")),
        ("azp", json!({ "azp": "a\nb" }), Err("token_subject_malformed")),
        ("uid", json!({ "uid": 1.5 }), Err("token_incomplete")),
        ("uid", json!({ "uid": -1 }), Err("token_incomplete")),
        ("uid", json!({ "uid": true }), Err("token_incomplete")),
        ("sub", json!({ "sub": null }), Err("token_incomplete")),
    ] {
        let gate = gate_with(&issuer(json!({ "subject_claim": claim })));
        let token = token(change.clone());
        match expected {
            Ok(subject) => {
                let sent = header(&forwarded(&gate, &snapshot, &token), "x-keystile-subject").unwrap();
                assert_eq!(sent, format!("{IDP}#{subject}"), "{change}");
            }
            Err(expected) => {
                let refused = refusal(&gate, &snapshot, &token);
                assert_eq!(refused.reason().code(), expected, "{claim} {change}");
                let body: Value = serde_json::from_str(&gate.refusal_response(&refused, None).body).unwrap();
                let detail = body["detail"].as_str().unwrap();
                assert!(detail.ends_with(&format!(": `{claim}`")), "{detail}");
            }
        }
    }
}

#[test]
fn claims_of_a_wrong_type_are_named() {
    let (gate, snapshot) = (gate_with(&issuer(json!({}))), snapshot(&mut with_keys()));
    for (claim, value) in [
        ("aud", json!(["api", 1])),
        ("aud", json!({})),
        ("sub", json!(7)),
        ("jti", json!(["j"])),
        ("exp", json!("1")),
        ("nbf", json!(true)),
        ("iat", json!(-1)),
    ] {
        let refused = refusal(&gate, &snapshot, &token(json!({ claim: value })));
        assert_eq!(refused.message(), format!("the token is malformed: `{claim}`"));
        assert_eq!(refused.reason().code(), "token_malformed");
    }
    // `null` removes a claim in `token`.
    let header = r#"{"alg":"HS256","kid":"k1"}"#;
    let payload = json!({ "iss": IDP, "sub": "a", "aud": null, "exp": NOW + 60 }).to_string();
    assert_eq!(refusal(&gate, &snapshot, &sign(header, &payload)).message(), "the token is malformed: `aud`");
    // Without a valid signature, no claim is named.
    let forged = SigningKey::hs256("k1", &[1; 32]).unwrap();
    let forged = format!("Bearer {}", forged.sign(header, payload.as_bytes()).expose());
    assert_eq!(refusal(&gate, &snapshot, &forged).message(), "the signature of the token is invalid");
}

/// Bodies name claims as the policy does, never as the token does; a response that hides paths names none.
#[test]
fn b2_refusals_name_the_claim_of_the_policy() {
    let snapshot = snapshot(&mut with_keys());
    let members = json!({
        "profile": "rfc9068", "required_claims": { "level": 2 }, "max_lifetime_seconds": 7200
    });
    let claims = json!({ "client_id": "c", "jti": "j", "level": 2 });
    for (header, change, expected) in [
        (json!({ "typ": "at+jwt" }), json!({ "exp": null }), "the token lacks a required claim: `exp`"),
        (json!({ "typ": "at+jwt" }), json!({ "jti": null }), "the token lacks a required claim: `jti`"),
        (json!({ "typ": "at+jwt" }), json!({ "aud": "b" }), "the token is for another audience: `aud`"),
        (
            json!({ "typ": "at+jwt" }),
            json!({ "level": 3 }),
            "the token lacks a claim that this route requires: `level`",
        ),
        (json!({}), json!({}), "the type (`typ`) of the token is not accepted: it is for another purpose"),
    ] {
        let mut all = claims.clone();
        all.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let token = token_with(header, all);
        let gate = gate_with(&issuer(members.clone()));
        assert_eq!(refusal(&gate, &snapshot, &token).message(), expected);
    }
    let hidden = format!(r#"{}, "answers": {{ "denied_status": 404 }}"#, issuer(json!({})));
    let gate = gate_with(&hidden);
    let refused = refusal(&gate, &snapshot, &token(json!({ "aud": "b" })));
    let response = gate.refusal_response(&refused, None);
    assert_eq!(response.status, 404);
    assert!(!response.body.contains("aud"), "{}", response.body);
}

#[test]
fn b3_header_parameters_that_point_elsewhere_are_ignored() {
    let gate = gate_with(&issuer(json!({})));
    let snapshot = snapshot(&mut with_keys());
    for parameters in [
        json!({ "jku": "https://evil.example/keys" }),
        json!({ "x5u": "https://evil.example/chain", "x5c": ["MIIB"], "x5t": "AA", "x5t#S256": "AA" }),
        json!({ "jku": 7, "x5c": null, "unknown": { "a": [] } }),
        json!({ "cty": "JWT" }),
        json!({ "nonce": "n", "pi.atm": "1", "ver": 2, "prefix": "kauth-" }),
    ] {
        let token = token_with(parameters.clone(), json!({}));
        assert_eq!(code(&gate, &snapshot, &token), "admitted", "{parameters}");
        // Nothing of this makes up for a key that the set does not have.
        let mut other = parameters.clone();
        other["kid"] = json!("other");
        assert_eq!(
            code(&gate, &snapshot, &token_with(other, json!({}))),
            "token_key_unknown",
            "{parameters}"
        );
        let mut none = parameters.clone();
        none["alg"] = json!("none");
        assert_eq!(code(&gate, &snapshot, &token_with(none, json!({}))), "token_algorithm_mismatch");
    }
    for parameters in [
        json!({ "jwk": { "kty": "oct", "k": "AA" } }),
        json!({ "jwk": null }),
        json!({ "crit": ["exp"], "exp": 1 }),
        json!({ "crit": [] }),
        json!({ "b64": true }),
        json!({ "zip": "DEF" }),
        json!({ "enc": "A256GCM" }),
        json!({ "typ": 7 }),
    ] {
        // `null` removes a parameter in `token_with`.
        let parameters = parameters.to_string().replacen('{', r#"{"alg":"HS256","kid":"k1","#, 1);
        let payload = json!({ "iss": IDP, "sub": "a", "aud": "api", "exp": NOW + 60 }).to_string();
        assert_eq!(code(&gate, &snapshot, &sign(&parameters, &payload)), "token_malformed", "{parameters}");
    }
}

#[test]
fn b4_types_for_other_purposes_are_refused() {
    let snapshot = snapshot(&mut with_keys());
    let default = json!({});
    let access = json!({ "typ": ["at+jwt"] });
    let more = json!({ "typ": ["JWT", "vnd.example+jwt", "application/kb+jwt"] });
    for (members, typ, expected) in [
        (&default, json!(null), "admitted"),
        (&default, json!("JWT"), "admitted"),
        (&default, json!("jwt"), "admitted"),
        (&default, json!("JOSE"), "admitted"),
        (&default, json!("jws"), "admitted"),
        (&default, json!("at+jwt"), "admitted"),
        (&default, json!("Application/AT+JWT"), "admitted"),
        (&default, json!("application/jwt"), "admitted"),
        (&default, json!("application/jose"), "admitted"),
        (&default, json!("JOSE+JSON"), "token_type_wrong"),
        (&default, json!("dpop+jwt"), "token_type_wrong"),
        (&default, json!("application/dpop+jwt"), "token_type_wrong"),
        (&default, json!("secevent+jwt"), "token_type_wrong"),
        (&default, json!("LOGOUT+JWT"), "token_type_wrong"),
        (&default, json!("token-introspection+jwt"), "token_type_wrong"),
        (&default, json!("oauth-authz-req+jwt"), "token_type_wrong"),
        (&default, json!("entity-statement+jwt"), "token_type_wrong"),
        (&default, json!("vnd.example+jwt"), "token_type_wrong"),
        (&default, json!(""), "token_type_wrong"),
        (&default, json!(" JWT"), "token_type_wrong"),
        (&default, json!("JWT "), "token_type_wrong"),
        (&default, json!("JWT;charset=utf-8"), "token_type_wrong"),
        (&default, json!("application/jwt; v=1"), "token_type_wrong"),
        (&default, json!("application/application/jwt"), "token_type_wrong"),
        (&default, json!("text/jwt"), "token_type_wrong"),
        (&access, json!("at+jwt"), "admitted"),
        (&access, json!("application/AT+jwt"), "admitted"),
        (&access, json!("JWT"), "token_type_wrong"),
        (&access, json!(null), "token_type_wrong"),
        (&more, json!("VND.EXAMPLE+jwt"), "admitted"),
        (&more, json!("kb+jwt"), "admitted"),
        (&more, json!(null), "admitted"),
        (&more, json!("at+jwt"), "token_type_wrong"),
        (&more, json!("dpop+jwt"), "token_type_wrong"),
    ] {
        let gate = gate_with(&issuer(members.clone()));
        let token = token_with(json!({ "typ": typ }), json!({}));
        assert_eq!(code(&gate, &snapshot, &token), expected, "{members} {typ}");
    }
    assert!(policy(&issuer(json!({ "typ": [] }))).unwrap_err().starts_with("`issuers[0].typ`"));
}

#[test]
fn b6_a_longer_token_is_accepted_by_setting() {
    let snapshot = snapshot(&mut with_keys());
    let groups: Vec<_> = (0..157).map(|number| format!("{number:08x}-0000-4000-8000-000000000000")).collect();
    let long = token(json!({ "groups": groups }));
    let length = long.len() - "Bearer ".len();
    assert!(length > 8192, "{length}");
    let limited = |bytes: usize| {
        let tokens = json!({ "issuer": "https://keystile.local", "audiences": ["api"], "max_bytes": bytes });
        format!("\"tokens\": {tokens}, {}", issuer(json!({})))
    };
    assert_eq!(code(&gate_with(&issuer(json!({}))), &snapshot, &long), "token_too_long");
    assert_eq!(code(&gate_with(&limited(length - 1)), &snapshot, &long), "token_too_long");
    assert_eq!(code(&gate_with(&limited(length)), &snapshot, &long), "admitted");
    assert_eq!(code(&gate_with(&limited(98_304)), &snapshot, &long), "admitted");
    for bytes in [0, 1023, 98_305] {
        let error = policy(&limited(bytes)).unwrap_err();
        assert_eq!(error, "`tokens.max_bytes`: must be from 1024 to 98304", "{bytes}");
    }
}

#[test]
fn b7_tenants_of_a_pattern_are_bound_to_a_claim() {
    let snapshot = snapshot(&mut with_keys());
    let any = tenants(json!({ "claim": "tid" }));
    let listed = tenants(json!({ "claim": "tid", "values": ["t1", "t2"] }));
    let tenant = |name: &str| format!("https://login.example/{name}/v2.0");
    for (members, iss, tid, expected) in [
        (&any, tenant("t1"), json!("t1"), "admitted"),
        (&any, tenant("contoso.example"), json!("contoso.example"), "admitted"),
        (&any, tenant("9122-a_b~c"), json!("9122-a_b~c"), "admitted"),
        (&any, tenant("t1"), json!("t2"), "token_issuer_unknown"),
        (&any, tenant("t1"), json!("T1"), "token_issuer_unknown"),
        (&any, tenant("t1"), json!(["t1"]), "token_issuer_unknown"),
        (&any, tenant("1"), json!(1), "token_issuer_unknown"),
        (&any, tenant("t1"), json!(null), "token_incomplete"),
        (&listed, tenant("t2"), json!("t2"), "admitted"),
        (&listed, tenant("t3"), json!("t3"), "token_issuer_unknown"),
        (&listed, tenant("t3"), json!("t1"), "token_issuer_unknown"),
        // A part contains no slash in any form, and is not empty.
        (&any, tenant(""), json!(""), "token_issuer_unknown"),
        (&any, tenant("."), json!("."), "token_issuer_unknown"),
        (&any, tenant(".."), json!(".."), "token_issuer_unknown"),
        (&any, tenant("a/b"), json!("a/b"), "token_issuer_unknown"),
        (&any, tenant("t1/v2.0/x"), json!("t1/v2.0/x"), "token_issuer_unknown"),
        (&any, tenant("a%2Fb"), json!("a%2Fb"), "token_issuer_unknown"),
        (&any, tenant("t1%"), json!("t1%"), "token_issuer_unknown"),
        (&any, tenant("t1#"), json!("t1#"), "token_issuer_unknown"),
        (&any, tenant("t1?x="), json!("t1?x="), "token_issuer_unknown"),
        (&any, tenant("a\\b"), json!("a\\b"), "token_issuer_unknown"),
        (&any, tenant("a@b"), json!("a@b"), "token_issuer_unknown"),
        (&any, tenant("a:b"), json!("a:b"), "token_issuer_unknown"),
        (&any, tenant("a b"), json!("a b"), "token_issuer_unknown"),
        (&any, tenant("{tenant}"), json!("{tenant}"), "token_issuer_unknown"),
        (&any, tenant("\u{ff41}"), json!("\u{ff41}"), "token_issuer_unknown"),
        (&any, tenant("t1") + "/", json!("t1"), "token_issuer_unknown"),
        (&any, tenant("t1") + "x", json!("t1"), "token_issuer_unknown"),
        (&any, "https://login.example/t1/v2".into(), json!("t1"), "token_issuer_unknown"),
        (&any, "https://login.example/t1".into(), json!("t1"), "token_issuer_unknown"),
        (&any, "https://login.example.evil/t1/v2.0".into(), json!("t1"), "token_issuer_unknown"),
        (&any, "HTTPS://login.example/t1/v2.0".into(), json!("t1"), "token_issuer_unknown"),
        (&any, "https://keystile.local".into(), json!("t1"), "token_algorithm_mismatch"),
    ] {
        let token = token(json!({ "iss": iss, "tid": tid }));
        assert_eq!(code(&gate_with(members), &snapshot, &token), expected, "{iss} {tid}");
    }
    // The claim can be deeper, and each part has its own.
    let two = issuer(json!({
        "issuer": "https://{region}.login.example/{tenant}/v2.0",
        "issuer_parts": { "region": { "claim": "ctx.r", "values": ["eu"] }, "tenant": { "claim": "tid" } },
    }));
    let mut builder = builder();
    let issuer = "https://{region}.login.example/{tenant}/v2.0";
    let key = SecretKey::Token { issuer, kid: "k1", algorithm: Algorithm::Hs256, secret: &KEY };
    builder.set_secret_keys([key]).unwrap();
    let snapshot = crate::fixtures::snapshot(&mut builder);
    for (iss, region, tid, expected) in [
        ("https://eu.login.example/t1/v2.0", "eu", "t1", "admitted"),
        ("https://eu.login.example/a.b/v2.0", "eu", "a.b", "admitted"),
        ("https://eu.login.example/t1/v2.0", "us", "t1", "token_issuer_unknown"),
        ("https://us.login.example/t1/v2.0", "us", "t1", "token_issuer_unknown"),
        ("https://eu.login.example/t1/v2.0", "eu", "t2", "token_issuer_unknown"),
        // A part ends at the first dot here.
        ("https://eu.evil.login.example/t1/v2.0", "eu.evil", "t1", "token_issuer_unknown"),
        ("https://eu.evil.login.example/t1/v2.0", "eu", "t1", "token_issuer_unknown"),
    ] {
        let token = token(json!({ "iss": iss, "ctx": { "r": region }, "tid": tid }));
        assert_eq!(code(&gate_with(&two), &snapshot, &token), expected, "{iss} {region} {tid}");
    }
}

/// One tenant can be revoked, or all of them by the name in the policy.
#[test]
fn a2_a_pattern_and_each_of_its_issuers_are_scopes_of_watermarks() {
    let any = tenants(json!({ "claim": "tid" }));
    let tenant = |name: &str| format!("https://login.example/{name}/v2.0");
    let tokens = ["t1", "t2"].map(|name| {
        let claims = json!({ "iss": tenant(name), "tid": name, "sid": "s", "sub": "J\u{fc}rgen" });
        token(claims)
    });
    let one = tenant("t1");
    let [subject, session] = ["J\u{fc}rgen", "s"].map(|name| foreign_name(&one, name));
    let of_pattern = foreign_name(TENANTS, "s");
    for (scope, expected) in [
        (Scope::Issuer(TENANTS), ["watermark", "watermark"]),
        (Scope::Issuer(&one), ["watermark", "admitted"]),
        (Scope::User(&subject), ["watermark", "admitted"]),
        (Scope::IssuerSession(&session), ["watermark", "admitted"]),
        // A session is one of an issuer, not of a pattern.
        (Scope::IssuerSession(&of_pattern), ["admitted", "admitted"]),
        (Scope::Issuer("https://login.example/t3/v2.0"), ["admitted", "admitted"]),
    ] {
        let mut builder = with_keys();
        assert!(builder.raise_watermark(1, scope, NOW));
        let snapshot = snapshot(&mut builder);
        let decided = tokens.each_ref().map(|token| code(&gate_with(&any), &snapshot, token));
        assert_eq!(decided, expected, "{scope:?}");
    }
}

/// An admin of one tenant can choose `sub` and most claims, but neither `iss` nor `tid`.
#[test]
fn b7_tenants_never_share_subjects() {
    let gate = gate_with(&format!(
        r#"{}, "identity": {{ "headers": {{ "issuer": "x-issuer" }} }},
        "rules": [
            {{ "path": "/x", "permission": "Sim:getSim" }}, {{ "path": "/**" }}
        ]"#,
        tenants(json!({ "claim": "tid" }))
    ));
    let mut builder = with_keys();
    let victim = "https://login.example/t1/v2.0#alice";
    set_grant(&mut builder, victim, r#"{"statements":[{"effect":"allow","api":"*"}]}"#);
    let granted = snapshot(&mut builder);
    let tenant_token = |tenant: &str, subject: &str| {
        let iss = format!("https://login.example/{tenant}/v2.0");
        token(json!({ "iss": iss, "tid": tenant, "sub": subject }))
    };
    assert_eq!(code(&gate, &granted, &tenant_token("t1", "alice")), "admitted");
    for subject in [
        "alice",
        victim,
        "https://login.example/t1/v2.0#alice",
        "../t1/v2.0#alice",
        "#alice",
        "OP0123456789",
        "{tenant}#alice",
    ] {
        let token = tenant_token("t2", subject);
        assert_eq!(code(&gate, &granted, &token), "permission_denied", "{subject}");
    }
    let forwarded = forwarded(&gate, &granted, &tenant_token("t2", "alice"));
    let sent = |name| header(&forwarded, name).unwrap();
    assert_eq!(sent("x-keystile-subject"), "https://login.example/t2/v2.0#alice");
    assert_eq!(sent("x-issuer"), "https://login.example/t2/v2.0");
    // A watermark of the one does not cover the other; one of the key covers both.
    for (scope, expected) in [
        (Scope::User(victim), "admitted"),
        (Scope::User("https://login.example/t2/v2.0#alice"), "watermark"),
        (Scope::Issuer("https://login.example/t1/v2.0"), "admitted"),
        (Scope::Issuer("https://login.example/t2/v2.0"), "watermark"),
        (Scope::Issuer(TENANTS), "watermark"),
        (Scope::SigningKey("https://login.example/{tenant}/v2.0#k1"), "watermark"),
    ] {
        let mut builder = with_keys();
        builder.raise_watermark(1, scope, NOW - 10);
        let snapshot = snapshot(&mut builder);
        let decided = decision_code(
            &gate,
            Some(&snapshot),
            "GET /y",
            &[("authorization", &tenant_token("t2", "alice"))],
        );
        assert_eq!(decided, expected, "{scope:?}");
    }
}

#[test]
fn b7_rules_accept_a_pattern_or_one_tenant() {
    let gate = gate_with(&format!(
        r#"{}, "rules": [
            {{ "path": "/any", "issuers": ["{TENANTS}"] }},
            {{ "path": "/one", "issuers": ["https://login.example/t1/v2.0"] }}
        ]"#,
        tenants(json!({ "claim": "tid" }))
    ));
    let snapshot = snapshot(&mut with_keys());
    for (path, tenant, expected) in [
        ("/any", "t1", "admitted"),
        ("/any", "t2", "admitted"),
        ("/one", "t1", "admitted"),
        ("/one", "t2", "issuer_not_accepted"),
    ] {
        let iss = format!("https://login.example/{tenant}/v2.0");
        let token = token(json!({ "iss": iss, "tid": tenant }));
        let headers = [("authorization", &*token)];
        let decided = decision_code(&gate, Some(&snapshot), &format!("GET {path}"), &headers);
        assert_eq!(decided, expected, "{path} {tenant}");
    }
}

/// The key set depends on `iss` alone: an exact issuer takes precedence wherever it is in the list.
#[test]
fn b7_an_exact_issuer_takes_precedence_over_a_pattern() {
    let exact = json!({ "issuer": "https://login.example/t1/v2.0", "audiences": ["exact"] });
    let pattern = json!({
        "issuer": TENANTS, "audiences": ["pattern"], "issuer_parts": { "tenant": { "claim": "tid" } }
    });
    let mut builder = builder();
    let key = |issuer, secret| SecretKey::Token { issuer, kid: "k1", algorithm: Algorithm::Hs256, secret };
    builder.set_secret_keys([key("https://login.example/t1/v2.0", &KEY), key(TENANTS, &[8; 32])]).unwrap();
    let snapshot = snapshot(&mut builder);
    for issuers in [[&exact, &pattern], [&pattern, &exact]] {
        let gate = gate_with(&format!("\"issuers\": {}", json!(issuers)));
        for (audience, tenant, expected) in [
            ("exact", "t1", "admitted"),
            ("pattern", "t1", "token_audience_mismatch"),
            // The key of the exact issuer does not sign for another tenant.
            ("pattern", "t2", "token_signature_invalid"),
        ] {
            let iss = format!("https://login.example/{tenant}/v2.0");
            let token = token(json!({ "iss": iss, "tid": tenant, "aud": audience }));
            assert_eq!(code(&gate, &snapshot, &token), expected, "{audience} {tenant}");
        }
    }
    // A pattern never includes this deployment.
    let ours = json!([{
        "issuer": "https://keystile.{part}", "audiences": ["api"], "issuer_parts": { "part": { "claim": "tid" } }
    }]);
    let gate = gate_with(&format!("\"issuers\": {ours}"));
    assert_eq!(code(&gate, &snapshot, &crate::fixtures::alice_bearer()), "admitted");
}

#[test]
fn b7_invalid_patterns_are_refused() {
    let part = json!({ "tenant": { "claim": "tid" } });
    for (issuer_text, parts, expected) in [
        ("https://a/{tenant}", json!(null), "`issuers[0].issuer`: has a named part that"),
        ("https://a/{other}", part.clone(), "`issuers[0].issuer`: has a named part that"),
        ("https://a/tenant", part.clone(), "`issuers[0].issuer_parts`: has a part that"),
        ("https://a/{tenant", part.clone(), "`issuers[0].issuer`: has `{` without `}`"),
        ("https://a/tenant}", json!(null), "`issuers[0].issuer`: has `}` without `{`"),
        ("https://a/{tenant}}", part.clone(), "`issuers[0].issuer`: has `}` without `{`"),
        ("https://a/{tenant}{tenant}", part.clone(), "`issuers[0].issuer`: has two named parts without"),
        ("{tenant}", part.clone(), "`issuers[0].issuer`: must not start with a named part"),
        ("https://a/{tenant}", json!({ "tenant": {} }), "`issuers[0].issuer_parts.tenant`: missing field"),
        (
            "https://a/{tenant}",
            json!({ "tenant": { "claim": "" } }),
            "`issuers[0].issuer_parts.tenant.claim`: must not be empty",
        ),
        (
            "https://a/{tenant}",
            json!({ "tenant": { "claim": "tid", "values": [] } }),
            "`issuers[0].issuer_parts.tenant.values`: there must be at least one",
        ),
    ] {
        let error = policy(&issuer(json!({ "issuer": issuer_text, "issuer_parts": parts }))).unwrap_err();
        assert!(error.starts_with(expected), "{issuer_text}: {error}");
    }
}

#[test]
fn b8_claims_are_encoded_as_configured() {
    let snapshot = snapshot(&mut with_keys());
    for (encoding, claim, expected) in [
        ("percent", json!("Jürgen"), Some("J%C3%BCrgen")),
        ("percent", json!("张伟"), Some("%E5%BC%A0%E4%BC%9F")),
        ("percent", json!("Doe, Jane"), Some("Doe%2C Jane")),
        ("percent", json!(["Jürgen", "a,b", 7]), Some("J%C3%BCrgen,a%2Cb,7")),
        ("percent", json!("J%C3%BCrgen"), Some("J%25C3%25BCrgen")),
        ("utf8", json!("Jürgen"), Some("Jürgen")),
        ("utf8", json!(["张伟", "b"]), Some("张伟,b")),
        ("utf8", json!("100%"), Some("100%")),
        ("utf8", json!("Doe, Jane"), None),
        ("utf8", json!(" a"), None),
        ("utf8", json!("a\u{85}"), None),
        ("base64url", json!("Jürgen"), Some("SsO8cmdlbg")),
        ("base64url", json!(["a", 7, true]), Some("YQ,Nw,dHJ1ZQ")),
        ("base64url", json!("Doe, Jane"), Some("RG9lLCBKYW5l")),
        ("base64url", json!("a\nb"), None),
    ] {
        let gate = gate_with(&format!(
            r#"{}, "identity": {{ "claims": {{ "x-name": "name" }}, "claim_encoding": "{encoding}" }}"#,
            issuer(json!({}))
        ));
        let headers = forwarded(&gate, &snapshot, &token(json!({ "name": claim })));
        assert_eq!(header(&headers, "x-name").as_deref(), expected, "{encoding} {claim}");
    }
}

#[test]
fn b8_omitted_claims_are_counted() {
    let gate = gate_with(&format!(
        r#"{}, "identity": {{ "claims": {{ "x-a": "a", "x-b": "b" }} }}"#,
        issuer(json!({}))
    ));
    let snapshot = snapshot(&mut with_keys());
    for (change, expected) in [
        (json!({}), 0),
        (json!({ "a": "Jürgen", "b": ["a,b", "c"] }), 0),
        (json!({ "a": "a\n", "b": "b" }), 1),
        (json!({ "a": { "c": 1 }, "b": 1.5 }), 2),
        (json!({ "a": ["a", ["b"]], "b": "" }), 2),
        (json!({ "a": ["a", "b\0"] }), 1),
    ] {
        let mut cache = Cache::new(16, b"seed");
        let token = token(change.clone());
        let headers = [("authorization", token.as_bytes())];
        let request = Request { headers: &headers, peer: None, snapshot: Some(&snapshot), now: NOW_MS };
        for _ in 0..2 {
            assert!(matches!(gate.decide_with(&request, &mut cache, &SoftwareVerifier), Decision::Admit(_)));
        }
        assert_eq!(cache.take_omitted_claims(), expected, "{change}");
        assert_eq!(cache.take_omitted_claims(), 0, "counted once, when the token is verified");
    }
}

/// The settings of each tolerance, and a token that needs it.
fn tolerances() -> [(String, String); 7] {
    let groups: Vec<_> = (0..400).map(|number| format!("group-{number:016}")).collect();
    let tenant = json!({ "iss": "https://login.example/t1/v2.0", "tid": "t1" });
    let tokens = json!({ "issuer": "https://keystile.local", "audiences": ["api"], "max_bytes": 98_304 });
    [
        (issuer(json!({})), token(json!({ "sub": "Jürgen, 100 %" }))),
        (issuer(json!({ "audience_claim": "client_id" })), token(json!({ "aud": null, "client_id": "api" }))),
        (
            issuer(
                json!({ "audiences": null, "required_claims": { "use": "access" }, "subject_claim": "azp" }),
            ),
            token(json!({ "aud": null, "sub": null, "use": "access", "azp": "svc" })),
        ),
        (
            issuer(json!({})),
            token_with(json!({ "jku": "https://evil.example", "x5c": ["MIIB"], "u": 1 }), json!({})),
        ),
        (
            issuer(json!({ "typ": ["application/vnd.example+jwt"] })),
            token_with(json!({ "typ": "VND.example+jwt" }), json!({})),
        ),
        (format!("\"tokens\": {tokens}, {}", issuer(json!({}))), token(json!({ "groups": groups }))),
        (tenants(json!({ "claim": "tid" })), token(tenant)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// An accepted token has one spelling, whichever tolerance is on: a revoked token does not return as another one.
    #[test]
    fn changed_tokens_are_refused_with_each_tolerance(
        which in 0..7_usize,
        at in any::<prop::sample::Index>(),
        byte: u8,
        how in 0..4_u8,
    ) {
        let (members, token) = &tolerances()[which];
        let (gate, snapshot) = (gate_with(members), snapshot(&mut with_keys()));
        prop_assert_eq!(code(&gate, &snapshot, token), "admitted");
        let mut changed = token.clone().into_bytes();
        let start = "Bearer ".len();
        let at = start + at.index(changed.len() - start);
        match how {
            0 => changed[at] = byte,
            1 => changed.insert(at, byte),
            2 => drop(changed.remove(at)),
            // Another letter of base64url, which decodes.
            _ => changed[at] = b"ABCDEFGHabcdefgh0123456789-_"[usize::from(byte) % 28],
        }
        let headers = [("authorization", &changed[..])];
        let decision = gate.decide(headers.into_iter(), Some(&snapshot), NOW_MS);
        if let Decision::Admit(admission) = &decision {
            let original = token::Fingerprint::digest(&token.as_bytes()[start..]);
            prop_assert_eq!(admission.fingerprint(), original);
        }
    }
}
