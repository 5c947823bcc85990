//! Tokens of ours, API keys, Soracom's pair and Kuzzle's prefixes, in headers, cookies and queries.

use bundle::{
    Scope,
    builder::{Builder, SecretKey},
};
use token::{
    Claims, Fingerprint,
    api_key::{Prefix, TagKey},
};
use verdict::{Snapshot, Verdict};

use crate::world::{
    self, NOW, NOW_MS, alice, ask, builder, claims, gate_with, granted, signing_key, snapshot,
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

fn tag_key(generation: u8) -> TagKey {
    TagKey::new(generation, &[generation; 32]).unwrap()
}

fn with_tags() -> Builder {
    let mut builder = builder();
    let tag = SecretKey::Tag { generation: 1, secret: &[1; 32] };
    builder.secret_keys([tag, ("k2", &[3; 32][..]).into()]).unwrap();
    builder
}

fn api_key(number: u64, username: &str) -> String {
    let minted = tag_key(1).mint(&Prefix::default(), number, NOW - 10, username).unwrap();
    minted.expose().to_owned()
}

fn asked(snapshot: &Snapshot, path: &str, headers: &[(&str, &str)]) -> &'static str {
    ask(&gate_with(POLICY), Some(snapshot), &format!("GET {path}"), headers)
}

#[test]
fn a_credential_may_be_wherever_the_policy_says() {
    let snapshot = snapshot(&mut builder());
    let token = alice().replace("Bearer ", "");
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
        ("/x", &[("cookie", &format!("session=\"{token}\""))], "token_not_canonical"),
        (&query, &[("cookie", &cookie)], "credential_ambiguous"),
        ("/x", &[("authorization", &bearer), ("x_api_key", &token)], "credential_ambiguous"),
        ("/x", &[("x.api.key", &token)], "credential_ambiguous"),
        ("/header", &[("authorization", &bearer)], "admitted"),
        ("/header", &[("cookie", &cookie)], "credential_misplaced"),
        ("/cookie", &[("cookie", &cookie)], "admitted"),
        ("/cookie", &[("authorization", &bearer)], "credential_misplaced"),
        ("/cookie", &[("authorization", &bearer), ("cookie", &cookie)], "credential_ambiguous"),
        (&query.replace("/x", "/named"), &[], "admitted"),
        ("/named", &[("cookie", &cookie)], "credential_misplaced"),
        ("/named", &[], "credential_missing"),
        // None would be fine, so one that nobody checks is not.
        ("/optional", &[], "anonymous"),
        ("/optional", &[("authorization", &bearer)], "admitted"),
        ("/optional", &[("cookie", &cookie)], "credential_misplaced"),
        ("/optional", &[("x-api-key", "revoked")], "credential_misplaced"),
    ] {
        assert_eq!(asked(&snapshot, path, headers), expected, "{path} {headers:?}");
    }
}

#[test]
fn an_api_key_is_for_its_user() {
    let snapshot = snapshot(&mut with_tags());
    let (alices, nobodys) = (api_key(1, "OP0123456789/alice"), api_key(2, ""));
    let other_prefix = tag_key(1).mint(&"sk_live_".parse().unwrap(), 3, NOW, "").unwrap();
    let foreign = tag_key(2).mint(&Prefix::default(), 4, NOW, "").unwrap();
    let forged = TagKey::new(1, &[9; 32]).unwrap().mint(&Prefix::default(), 4, NOW, "").unwrap();
    let future = tag_key(1).mint(&Prefix::default(), 4, NOW + 60, "").unwrap();
    let key = |key| ("x-api-key", key);
    let user = |name| ("x-username", name);
    for (headers, expected) in [
        (&[key(&alices[..]), user("OP0123456789/alice")][..], "admitted"),
        (&[key(&alices), user("OP0123456789/bob")], "api_key_tag_invalid"),
        (&[key(&alices), user("op0123456789/alice")], "api_key_tag_invalid"),
        (&[key(&alices)], "api_key_tag_invalid"),
        (
            &[key(&alices), user("OP0123456789/alice"), ("X-Username", "OP0123456789/alice")],
            "credential_ambiguous",
        ),
        (&[key(&alices), user("OP0123456789/alice"), ("x_username", "root")], "credential_ambiguous"),
        (&[key(&alices), ("x_username", "OP0123456789/alice")], "credential_ambiguous"),
        (&[key(&nobodys)], "admitted"),
        (&[key(&nobodys), user("")], "admitted"),
        (&[key(&nobodys), user("OP0123456789/alice")], "api_key_tag_invalid"),
        (&[key(other_prefix.expose())], "admitted"),
        (&[key(foreign.expose())], "api_key_generation_unknown"),
        (&[key(forged.expose())], "api_key_tag_invalid"),
        (&[key(future.expose())], "token_issued_in_future"),
        (&[("authorization", &format!("Bearer {nobodys}"))], "admitted"),
        (&[key(&nobodys[..nobodys.len() - 1])], "api_key_length_wrong"),
        (&[key(&nobodys.replacen("ks_live_0", "ks_live_1", 1))], "api_key_checksum_wrong"),
        (&[key("ks_live_")], "api_key_length_wrong"),
        // Not one of the prefixes: then it should be a token.
        (&[key(&nobodys.replacen("ks_live_", "ks_test_", 1))], "token_malformed"),
        (&[key("secret-abc")], "token_malformed"),
    ] {
        assert_eq!(asked(&snapshot, "/x", headers), expected, "{headers:?}");
    }
    // A policy without `api_keys` takes none.
    let token_only = gate_with(r#""rules": [{ "path": "/x" }]"#);
    let headers = [("x-api-token", &nobodys[..])];
    assert_eq!(ask(&token_only, Some(&snapshot), "GET /x", &headers), "token_malformed");
}

#[test]
fn what_cannot_stand_in_a_header_is_no_user() {
    let snapshot = snapshot(&mut with_tags());
    // The last would be taken for key 7 without a user.
    for username in ["a b", "\u{e9}", "a\u{7f}", "key-7"] {
        let key = api_key(1, username);
        let headers = [("x-api-key", &key[..]), ("x-username", username)];
        assert_eq!(asked(&snapshot, "/x", &headers), "api_key_tag_invalid", "{username}");
    }
}

#[test]
fn an_api_key_is_revoked_like_a_token() {
    let key = api_key(7, "OP0123456789/alice");
    let headers = [("x-api-key", &key[..]), ("x-username", "OP0123456789/alice")];
    let mut builder = with_tags();
    builder.revoke(1, Fingerprint::of(key.as_bytes())).unwrap();
    assert_eq!(asked(&snapshot(&mut builder), "/x", &headers), "revoked");
    for scope in [
        Scope::Global,
        Scope::SigningKey("tag-1"),
        Scope::Operator("OP0123456789"),
        Scope::User("OP0123456789/alice"),
        Scope::AuthKey("key-7"),
    ] {
        for (instant, expected) in [(NOW - 11, "admitted"), (NOW - 10, "watermark")] {
            let mut builder = with_tags();
            builder.watermark(1, Scope::AuthKey("key-8"), u64::MAX);
            builder.watermark(1, Scope::SigningKey("1"), u64::MAX);
            builder.watermark(1, scope, instant);
            assert_eq!(asked(&snapshot(&mut builder), "/x", &headers), expected, "{scope:?}");
        }
    }
}

#[test]
fn an_api_key_has_the_permissions_of_its_user() {
    let mut builder = with_tags();
    let allow = r#"{"statements":[{"effect":"allow","api":"Sim:*","condition":"samUserName == 'alice'"}]}"#;
    granted(&mut builder, "OP0123456789/alice", allow);
    granted(&mut builder, "key-2", r#"{"statements":[{"effect":"allow","api":"*"}]}"#);
    let snapshot = snapshot(&mut builder);
    for (number, username, expected) in [
        (1, "OP0123456789/alice", "admitted"),
        (1, "OP0123456789/bob", "permission_denied"),
        (1, "OP0123456789", "admitted"),
        (1, "OP012345678", "permission_denied"),
        (1, "admin", "permission_denied"),
        (2, "", "admitted"),
        (3, "", "permission_denied"),
    ] {
        let key = api_key(number, username);
        let headers = [("x-api-key", &key[..]), ("x-username", username)];
        assert_eq!(asked(&snapshot, "/allowed", &headers), expected, "{number} {username}");
    }
}

#[test]
fn of_a_pair_both_are_needed_and_belong_together() {
    let snapshot = snapshot(&mut builder());
    let token = alice().replace("Bearer ", "");
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
        assert_eq!(asked(&snapshot, "/x", &headers), expected, "{keys:?}");
    }
    assert_eq!(asked(&snapshot, "/x", &[("x-soracom-api-key", "api-1")]), "credential_missing");
    let headers = [("x-soracom-token", &token[..]), ("x_soracom_api_key", "api-1")];
    assert_eq!(asked(&snapshot, "/x", &headers), "credential_ambiguous");
}

#[test]
fn a_token_is_good_with_its_prefix_only() {
    let minted = signing_key().mint_prefixed("kapikey-", &claims()).expose().to_owned();
    let token = minted.strip_prefix("kapikey-").unwrap();
    let mut builder = builder();
    for (presented, expected) in [
        (&minted[..], "admitted"),
        (token, "token_not_canonical"),
        (&format!("kauth-{token}"), "token_not_canonical"),
    ] {
        let headers = [("authorization", &format!("Bearer {presented}")[..])];
        assert_eq!(asked(&snapshot(&mut builder), "/x", &headers), expected, "{presented}");
    }
    builder.revoke(1, Fingerprint::of(minted.as_bytes())).unwrap();
    let headers = [("authorization", &format!("Bearer {minted}")[..])];
    assert_eq!(asked(&snapshot(&mut builder), "/x", &headers), "revoked");
}

#[test]
fn the_upstream_sees_no_credential_and_everything_else() {
    let gate = gate_with(POLICY);
    let mut builder = with_tags();
    let snapshot = snapshot(&mut builder);
    let token = alice().replace("Bearer ", "");
    let key = api_key(1, "OP0123456789/alice");
    let (cookie, path) =
        (format!("a=\"1\";  session={token};b"), format!("/x?a=%20&access_token={token}&b=+"));
    type Pairs<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Pairs<'_>, Pairs<'_>); 5] = [
        (
            &[(":path", "/x"), ("authorization", &alice()), ("x-username", "root"), ("x_api_key", "")],
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
        let verdict = gate.decide(sent.iter().copied(), Some(&snapshot), NOW_MS);
        assert!(matches!(verdict, Verdict::Admit(_)), "{verdict:?}");
        let forwarded = world::forwarded(&gate, &sent, &verdict);
        let left = forwarded.iter().filter(|(name, _)| !name.starts_with("x-keystile-")).skip(1);
        let left: Vec<_> = left.map(|(name, value)| (*name, str::from_utf8(value).unwrap())).collect();
        assert_eq!(left, expected);
        assert!(forwarded.contains(&("x-keystile-subject", b"OP0123456789/alice"[..].into())));
    }
}

#[test]
fn what_goes_with_a_credential_goes_where_it_goes() {
    let snapshot = snapshot(&mut with_tags());
    let key = api_key(1, "OP0123456789/alice");
    let token = alice().replace("Bearer ", "");
    let pair = [("x-soracom-token", &token[..]), ("x-soracom-api-key", "api-1")];
    let named = [("x-api-key", &key[..]), ("x-username", "OP0123456789/alice")];
    for (more, path, kept) in [
        (r#""strip_credential": true"#, "/x", false),
        (r#""strip_credential": false"#, "/x", true),
        // Nothing is to break while nothing is enforced.
        (r#""mode": "report""#, "/allowed", true),
        (r#""mode": "report""#, "/x", false),
    ] {
        let gate = gate_with(&format!("{more}, {POLICY}"));
        for sent in [pair, named] {
            let headers = [(":method", "GET"), (":path", path)];
            let headers: Vec<_> =
                headers.iter().chain(&sent).map(|(name, value)| (*name, value.as_bytes())).collect();
            let verdict = gate.decide(headers.iter().copied(), Some(&snapshot), NOW_MS);
            assert!(matches!(verdict, Verdict::Admit(_)), "{verdict:?}");
            let forwarded = world::forwarded(&gate, &headers, &verdict);
            for (name, _) in sent {
                assert_eq!(forwarded.iter().any(|(header, _)| *header == name), kept, "{more} {path} {name}");
            }
        }
    }
}
