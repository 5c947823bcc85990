//! Invalid configurations are refused with their path.

use proptest::prelude::*;
use verdict::{FilterStateItem, Mode, Policy};

use crate::fixtures::{configuration, policy_with_env};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

#[test]
fn defaults_match_the_documentation() {
    let policy = Policy::from_json(configuration().as_bytes()).unwrap();
    assert_eq!(policy.outage_grace_seconds, 900);
    assert_eq!(policy.max_manifest_lifetime_seconds, 300);
    assert_eq!(policy.tokens.leeway_seconds, 5);
    let control_plane = policy.control_plane.as_ref().unwrap();
    assert_eq!(control_plane.wait_seconds, 10);
    assert_eq!(control_plane.authority, "keystile");
    assert_eq!(policy.identity_prefix, "x-keystile-");
    assert_eq!(policy.realm, "keystile");
    assert!(policy.strip_credential);
    let bearer = policy.credentials[..1].to_vec();
    let bare = configuration();
    let (bare, _) = bare.split_once(",\n\"credentials\"").unwrap();
    let policy = Policy::from_json(format!("{bare}}}").as_bytes()).unwrap();
    assert_eq!(policy.credentials.len(), 1);
    assert_eq!(policy.credentials[0].name(), "authorization");
    assert_eq!(policy.credentials, bearer);
    assert_eq!((policy.mode, policy.cache_entries), (Mode::Enforce, 4096));
    assert_eq!(policy.filter_state, [FilterStateItem::Reason]);
    assert!(policy.api_keys.is_none() && policy.issuers.is_empty());
}

#[test]
fn errors_have_their_path() {
    for (from, to, path) in [
        (r#""issuer""#, r#""isuer""#, "`tokens.isuer`"),
        (r#""audience""#, r#""audienc""#, "`audienc`"),
        (r#"["api"]"#, r#""api""#, "`tokens.audiences`"),
        (r#"["api"]"#, "[]", "`tokens.audiences`"),
        (r#"["api"]"#, r#"["api", 3]"#, "`tokens.audiences[1]`"),
        (r#""scheme": "Bearer""#, r#""scheme": 1"#, "`credentials[0].scheme`"),
        (r#""header": "x-api-token""#, r#""header": "X-Api-Token""#, "`credentials[1].header`"),
        (r#""header": "x-api-token""#, r#""header": ":path""#, "`credentials[1].header`"),
        (r#""cluster": "keystile""#, r#""cluster": """#, "`control_plane.cluster`"),
        (r#""cluster": "keystile""#, "", "`control_plane`"),
        (r#""audience": "#, r#""bundle": "AAAAAA", "audience": "#, "`control_plane`"),
        (r#""audience": "#, r#""bundle": "AAAAAQ", "audience": "#, "`bundle`"),
        (r#""audience": "#, r#""bundle": "AAAAAA==", "audience": "#, "`bundle`"),
        (
            r#""cluster": "keystile""#,
            r#""cluster": "keystile", "wait_seconds": 31"#,
            "`control_plane.wait_seconds`",
        ),
        (
            r#""audience": "#,
            r#""max_manifest_lifetime_seconds": 0, "audience": "#,
            "`max_manifest_lifetime_seconds`",
        ),
        (
            r#""audience": "#,
            r#""max_manifest_lifetime_seconds": 86401, "audience": "#,
            "`max_manifest_lifetime_seconds`",
        ),
        (r#""audience": "#, r#""path_case": "lower", "audience": "#, "`path_case`"),
        (r#""audiences""#, r#""leeway_seconds": 301, "audiences""#, "`tokens.leeway_seconds`"),
        (r#""audiences""#, r#""leeway_seconds": -1, "audiences""#, "`tokens.leeway_seconds`"),
        (r#""audiences""#, r#""issuer": "x", "audiences""#, "`.`: duplicate member `issuer` at line"),
        (
            r#"{ "header": "x-api-token" }"#,
            r#"["x-api-token", null]"#,
            "`credentials[1]`: expected an object, found an array",
        ),
        (r#""audience": "#, r#""realm": "a\"b", "audience": "#, "`realm`"),
        (r#""audience": "#, r#""identity_prefix": "", "audience": "#, "`identity_prefix`"),
    ] {
        let bad = configuration().replacen(from, to, 1);
        assert_ne!(bad, configuration(), "{from}");
        let error = Policy::from_json(bad.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(path), "{path} is not in: {error}");
    }
    let key = "`root_keys[0]`";
    let configuration = configuration();
    let (start, rest) = configuration.split_once(r#""root_keys": [""#).unwrap();
    let (_, end) = rest.split_once('"').unwrap();
    for bad in ["", "AAAA", &"A".repeat(43), &"=".repeat(43)] {
        let error =
            Policy::from_json(format!(r#"{start}"root_keys": ["{bad}"{end}"#).as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with(key), "{error}");
    }
    for bad in ["", "{}", "[]", "null", "{", "\u{feff}{}"] {
        assert!(Policy::from_json(bad.as_bytes()).is_err(), "{bad}");
    }
    assert!(Policy::from_json(format!("{configuration} x").as_bytes()).is_err());
}

#[test]
fn errors_do_not_quote_secrets() {
    for (from, to) in [
        (r#"{ "cluster": "keystile" }"#, r#""ks_edge_x""#),
        (r#""cluster": "keystile""#, r#""credential": "ks_edge_x", "cluster": "keystile""#),
        (r#""cluster": "keystile""#, r#""credential_env": "ks_edge_x y", "cluster": "keystile""#),
        (r#""cluster": "keystile""#, r#""wait_seconds": "ks_edge_x", "cluster": "keystile""#),
    ] {
        let error =
            Policy::from_json(configuration().replacen(from, to, 1).as_bytes()).unwrap_err().to_string();
        assert!(!error.contains("ks_edge_x"), "{error}");
        assert!(error.contains("control_plane"), "{error}");
    }
}

/// Secrets are permitted in the environment, and in the configuration itself only if `allow_inline_secrets` is set.
#[test]
fn inline_secrets_need_permission() {
    let control_plane = |members: &str| format!(r#""control_plane": {{ "cluster": "keystile", {members} }}"#);
    let assertion = |members: &str| {
        format!(r#""identity": {{ "assertion": {{ "header": "x-a", "audience": "a", {members} }} }}"#)
    };
    let allowed = |members: String| format!(r#"{members}, "allow_inline_secrets": true"#);
    let environment =
        format!("EDGE= Bearer ks_edge_x\n\0BARE=ks_edge_x\0EMPTY=\0BLANK= \0SHORT=c2hvcnQ\0KEY={KEY}\n\0");
    let policy = |members: &str| policy_with_env(members, &environment);

    // No secret.
    let read = policy(r#""realm": "x""#).unwrap();
    assert!(read.control_plane.as_ref().unwrap().credential.is_none() && !read.has_inline_secrets());

    for name in ["EDGE", "BARE"] {
        let read = policy(&control_plane(&format!(r#""credential_env": "{name}""#))).unwrap();
        assert!(!read.has_inline_secrets());
        assert_eq!(read.control_plane.as_ref().unwrap().credential.as_ref().unwrap().expose(), "ks_edge_x");
        assert!(!format!("{read:?}").contains("ks_edge_x"));
    }
    let read = policy(&assertion(r#""secret_env": "KEY""#)).unwrap();
    assert!(!read.has_inline_secrets() && !format!("{read:?}").contains(KEY));

    let inline = [control_plane(r#""credential": "ks_edge_x""#), assertion(&format!(r#""secret": "{KEY}""#))];
    for (members, path) in inline.into_iter().zip(["control_plane.credential", "identity.assertion.secret"]) {
        let error = policy(&members).unwrap_err();
        assert!(error.starts_with(&format!("`{path}`: secrets are not permitted here")), "{error}");
        assert!(error.contains("allow_inline_secrets") && error.contains("credential_injector"), "{error}");
        let read = policy(&allowed(members)).unwrap();
        assert!(read.has_inline_secrets() && !format!("{read:?}").contains("ks_edge_x"));
    }

    for (members, expected) in [
        (
            control_plane(r#""credential_env": "NONE""#),
            "`control_plane.credential_env`: the environment variable `NONE` is not set",
        ),
        (
            control_plane(r#""credential_env": "EMPTY""#),
            "`control_plane.credential_env`: the environment variable `EMPTY` is empty",
        ),
        (
            control_plane(r#""credential_env": "BLANK""#),
            "`control_plane.credential_env`: the environment variable `BLANK` is empty",
        ),
        (control_plane(r#""credential_env": """#), "`control_plane.credential_env`: must not be empty"),
        (control_plane(r#""credential_env": "A=B""#), "`control_plane.credential_env`: must be the name"),
        (control_plane(r#""credential_env": "1A""#), "`control_plane.credential_env`: must be the name"),
        (
            allowed(control_plane(r#""credential": "x", "credential_env": "EDGE""#)),
            "`control_plane.credential_env`: `credential` and",
        ),
        (
            assertion(r#""secret_env": "NONE""#),
            "`identity.assertion.secret_env`: the environment variable `NONE` is not set",
        ),
        (
            assertion(r#""secret_env": "EMPTY""#),
            "`identity.assertion.secret_env`: the environment variable `EMPTY` is empty",
        ),
        (
            assertion(r#""secret_env": "SHORT""#),
            "`identity.assertion.secret_env`: the environment variable `SHORT` must contain",
        ),
        (
            allowed(assertion(&format!(r#""secret_env": "KEY", "secret": "{KEY}""#))),
            "`identity.assertion.secret_env`: `secret` and",
        ),
        (assertion(r#""issuer": "x""#), "`identity.assertion`: missing field `secret_env`"),
        // A secret in place of the name of its variable.
        (
            control_plane(&format!(r#""credential_env": "ks_edge_{KEY}""#)),
            "`control_plane.credential_env`: must be the name",
        ),
        (
            assertion(&format!(r#""secret_env": "{KEY}""#)),
            "`identity.assertion.secret_env`: must be the name",
        ),
    ] {
        let error = policy(&members).unwrap_err();
        assert!(error.starts_with(expected), "{members}: {error}");
        assert!(!error.contains(KEY) && !error.contains("ks_edge_x"), "{error}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at: prop::sample::Index) {
        prop_assert!(Policy::from_json(&bytes).is_err());
        let mut configuration = configuration().into_bytes();
        let at = at.index(configuration.len());
        configuration.splice(at..at, bytes);
        let _ = Policy::from_json(&configuration);
    }
}
