//! The cache changes no decision.

use bundle::{
    Scope,
    builder::{Builder, SecretKey},
};
use proptest::prelude::*;
use token::{
    Algorithm, Claims, Fingerprint, VerifyingKey,
    api_key::{ApiKeyFields, Kind, MintingKey, Prefix},
};
use verdict::{Cache, Gate, Request, Snapshot, SoftwareVerifier};

use crate::fixtures::{NOW, NOW_MS, bearer, builder, claims, gate_with, set_grant, signing_key, snapshot};

fn decision_code(
    gate: &Gate,
    cache: &mut Cache,
    snapshot: &Snapshot,
    headers: &[(&str, &str)],
    now: u64,
) -> &'static str {
    let first = [(":method", "GET"), (":path", "/x")];
    let headers: Vec<_> =
        first.iter().chain(headers).map(|(name, value)| (*name, value.as_bytes())).collect();
    let request = Request { headers: &headers, peer: None, snapshot: Some(snapshot), now };
    let decision = gate.decide_with(&request, cache, &SoftwareVerifier);
    decision.reason().map_or("admitted", |reason| reason.code())
}

#[test]
fn only_authenticity_is_cached() {
    let gate = gate_with(r#""rules": [{ "path": "/x", "permission": "Sim:getSim" }]"#);
    let mut cache = Cache::new(16, b"seed");
    let allow = r#"{"statements":[{"effect":"allow","api":"*"}]}"#;
    let granted_builder = || {
        let mut builder = builder();
        set_grant(&mut builder, "OP0123456789/alice", allow);
        builder
    };
    let token = bearer(&claims());
    let mut decision_code = |builder: &mut Builder, now: u64| {
        decision_code(&gate, &mut cache, &snapshot(builder), &[("authorization", &token)], now)
    };
    assert_eq!(decision_code(&mut granted_builder(), NOW_MS), "admitted");
    // Everything else is checked again although the token is cached.
    let mut revoked = granted_builder();
    revoked.revoke(1, Fingerprint::digest(&token.as_bytes()[7..])).unwrap();
    assert_eq!(decision_code(&mut revoked, NOW_MS), "revoked");
    let mut marked = granted_builder();
    marked.raise_watermark(1, Scope::Session("api-1"), NOW);
    assert_eq!(decision_code(&mut marked, NOW_MS), "watermark");
    assert_eq!(decision_code(&mut builder(), NOW_MS), "permission_denied");
    assert_eq!(decision_code(&mut granted_builder(), (NOW + 3605) * 1000), "token_expired");
    assert_eq!(decision_code(&mut granted_builder(), (NOW - 60) * 1000), "token_issued_in_future");
    assert_eq!(decision_code(&mut granted_builder(), NOW_MS + 960_000), "bundle_stale");
    // Its key was removed, or another key has its name.
    let mut keyless = granted_builder();
    let other = token::mint::SigningKey::ed25519("k9", &[9; 32]).unwrap();
    keyless.set_verifying_keys([other.verifying_key()]).unwrap();
    assert_eq!(decision_code(&mut keyless, NOW_MS), "token_key_unknown");
    let mut replaced = granted_builder();
    let other = token::mint::SigningKey::ed25519("k1", &[9; 32]).unwrap();
    replaced.set_verifying_keys([other.verifying_key()]).unwrap();
    assert_eq!(decision_code(&mut replaced, NOW_MS), "token_signature_invalid");
    assert_eq!(decision_code(&mut granted_builder(), NOW_MS), "admitted");
    assert_eq!(cache.take_counts().1, 1, "the signature was checked once for all that was admitted");
}

/// While the hash is the same, no key of a cached credential is looked up.
#[test]
fn sets_that_select_other_keys_have_other_hashes() {
    let key = |issuer: Option<&str>, kid, seed| {
        let public = token::mint::SigningKey::ed25519("k", &[seed; 32]).unwrap();
        let public = public.verifying_key().public_material().unwrap();
        match issuer {
            None => VerifyingKey::local(kid, Algorithm::EdDsa, &public).unwrap(),
            Some(issuer) => VerifyingKey::foreign(issuer, kid, Algorithm::EdDsa, &public).unwrap(),
        }
    };
    let (x, y) = (Some("https://x"), Some("https://y"));
    let sets = [
        vec![key(None, "a", 1)],
        vec![key(None, "a", 2)],
        vec![key(None, "b", 1)],
        vec![key(None, "a", 1), key(None, "b", 2)],
        vec![key(None, "a", 1), key(x, "a", 2)],
        vec![key(None, "a", 1), key(y, "a", 2)],
        vec![key(None, "a", 1), key(x, "", 2)],
        vec![key(None, "a", 1), key(x, "a", 2), key(x, "b", 3)],
    ];
    let hash = |set: &[VerifyingKey], generation, revoked: &str| {
        let mut builder = builder();
        let generation = MintingKey::new(generation, Kind::Signed, &[1; 32]).unwrap();
        builder.set_public_keys(set, [generation.generation_key()]).unwrap();
        builder.revoke(1, Fingerprint::digest(revoked.as_bytes())).unwrap();
        *snapshot(&mut builder).key_set()
    };
    let mut seen = Vec::new();
    for set in &sets {
        for generation in [2, 3] {
            let of_set = hash(set, generation, "a");
            assert_eq!(of_set, hash(set, generation, "b"), "revocations are no keys");
            assert!(!seen.contains(&of_set), "{set:?}, generation {generation}");
            seen.push(of_set);
        }
    }
}

#[test]
fn only_claims_that_rules_use_are_cached() {
    let rules = r#"
        "rules": [
            { "path": "/a", "claims": { "tier.name": "gold-tier" }, "scopes": ["read-scope"] },
            { "path": "/b", "claims": { "/a~1b/c": "odd-name" }, "audiences": ["api"] },
            { "path": "/**" }
        ]"#;
    let more = r#""tier":{"name":"gold-tier"},"scope":"read-scope","scp":["other-scope"],"a/b":{"c":"odd-name"},"bulk":["bulk-claim"],"a":"bulk-claim""#;
    let payload = serde_json::to_string(&claims()).unwrap();
    let payload = format!("{},{more}}}", payload.strip_suffix('}').unwrap());
    let token = signing_key().sign(r#"{"alg":"EdDSA","kid":"k1"}"#, payload.as_bytes());
    let bearer = format!("Bearer {}", token.expose());
    let snapshot = snapshot(&mut builder());
    let identity = |rules: &str, path: &str| {
        let headers = [(":method", "GET"), (":path", path), ("authorization", &bearer)];
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        let decision = gate_with(rules).decide(headers, Some(&snapshot), NOW_MS);
        assert_eq!(decision.reason(), None, "{path}");
        format!("{:?}", decision.identity().unwrap())
    };
    for path in ["/a", "/b", "/c"] {
        let identity = identity(rules, path);
        for kept in ["gold-tier", "read-scope", "other-scope", "odd-name", "\"aud\""] {
            assert!(identity.contains(kept), "{kept} is not in {identity}");
        }
        assert!(!identity.contains("bulk-claim"), "{identity}");
    }
    let identity = identity(r#""realm": "x""#, "/c");
    for left in ["gold-tier", "-scope", "odd-name", "\"aud\"", "bulk-claim"] {
        assert!(!identity.contains(left), "{left} is in {identity}");
    }
}

#[test]
fn removed_generation_keys_invalidate_cached_api_keys() {
    let gate = gate_with(r#""api_keys": {}"#);
    let mut cache = Cache::new(16, b"seed");
    let prefix = Prefix::default();
    for (kind, invalid) in [
        (Kind::Format1, "api_key_tag_invalid"),
        (Kind::Short, "api_key_tag_invalid"),
        (Kind::Signed, "api_key_signature_invalid"),
    ] {
        let of = |kind, secret: [u8; 32]| {
            let mut builder = builder();
            let minting = MintingKey::new(1, kind, &secret).unwrap();
            let own = signing_key();
            builder.set_public_keys([own.verifying_key()], [minting.generation_key()]).unwrap();
            match kind {
                Kind::Format1 => {
                    builder.set_secret_keys([SecretKey::Tag { generation: 1, secret: &secret }]).unwrap()
                }
                Kind::Short => {
                    builder.set_secret_keys([SecretKey::ShortTag { generation: 1, secret: &secret }]).unwrap()
                }
                Kind::Signed => {}
            }
            snapshot(&mut builder)
        };
        let contents = ApiKeyFields {
            prefix: &prefix,
            operator: "OP0123456789",
            number: 1,
            issued_at: NOW,
            expires_at: None,
            random: [7; 4],
            username: "alice",
        };
        let key = MintingKey::new(1, kind, &[1; 32]).unwrap().mint(&contents).unwrap();
        let others = Kind::ALL
            .into_iter()
            .filter(|other| *other != kind)
            .map(|other| (of(other, [1; 32]), "alice", invalid));
        let cases = [
            (of(kind, [1; 32]), "alice", "admitted"),
            (of(kind, [1; 32]), "bob", invalid),
            (of(kind, [1; 32]), "alic", invalid),
            (of(kind, [2; 32]), "alice", invalid),
            (snapshot(&mut builder()), "alice", "api_key_generation_unknown"),
            (of(kind, [1; 32]), "alice", "admitted"),
        ];
        for (snapshot, username, expected) in cases.into_iter().chain(others) {
            let headers = [("x-api-token", key.expose()), ("x-username", username)];
            assert_eq!(
                decision_code(&gate, &mut cache, &snapshot, &headers, NOW_MS),
                expected,
                "{kind:?} {username}"
            );
        }
    }
}

/// The expiry is checked on every request, cached or not.
#[test]
fn cached_api_keys_expire() {
    let gate = gate_with(r#""api_keys": {}"#);
    let mut cache = Cache::new(16, b"seed");
    let minting = MintingKey::new(1, Kind::Signed, &[1; 32]).unwrap();
    let mut builder = builder();
    builder.set_public_keys([signing_key().verifying_key()], [minting.generation_key()]).unwrap();
    let snapshot = snapshot(&mut builder);
    let contents = ApiKeyFields {
        prefix: &Prefix::default(),
        operator: "OP0123456789",
        number: 1,
        issued_at: NOW,
        expires_at: Some(NOW + 20),
        random: [7; 4],
        username: "alice",
    };
    let key = minting.mint(&contents).unwrap();
    let headers = [("x-api-token", key.expose()), ("x-username", "alice")];
    // The leeway is 5 seconds.
    for (after, expected) in
        [(0, "admitted"), (24_999, "admitted"), (25_000, "api_key_expired"), (20_000, "admitted")]
    {
        assert_eq!(
            decision_code(&gate, &mut cache, &snapshot, &headers, NOW_MS + after),
            expected,
            "{after}"
        );
    }
    assert_eq!(cache.take_counts().1, 1);
}

#[test]
fn cache_evicts_the_least_recently_used() {
    let gate = gate_with(r#""realm": "x""#);
    let snapshot = snapshot(&mut builder());
    let token = |n: usize| bearer(&Claims { jti: n.to_string(), ..claims() });
    let asked = |cache: &mut Cache, n: usize| {
        assert_eq!(
            decision_code(&gate, cache, &snapshot, &[("authorization", &token(n))], NOW_MS),
            "admitted"
        );
        cache.take_counts().0 == 1
    };
    // One set of 16 slots.
    let mut cache = Cache::new(10, b"seed");
    for n in 0..16 {
        assert!(!asked(&mut cache, n));
    }
    for n in 0..16 {
        assert!(asked(&mut cache, n));
    }
    assert!(asked(&mut cache, 0), "now the youngest");
    assert!(!asked(&mut cache, 16));
    assert!(asked(&mut cache, 0) && asked(&mut cache, 16) && !asked(&mut cache, 1));
    let mut disabled = Cache::disabled();
    assert!(!asked(&mut disabled, 0) && !asked(&mut disabled, 0));
    assert_eq!(format!("{cache:?}"), "Cache(16 slots)");
}

#[test]
fn invalid_credentials_are_not_cached() {
    let gate = gate_with(r#""realm": "x""#);
    let snapshot = snapshot(&mut builder());
    let good = bearer(&claims());
    let mut cache = Cache::new(16, b"seed");
    decision_code(&gate, &mut cache, &snapshot, &[("authorization", &good)], NOW_MS);
    for n in 0..100 {
        let bad = format!("{good}{n:03}A");
        assert_eq!(
            decision_code(&gate, &mut cache, &snapshot, &[("authorization", &bad)], NOW_MS),
            "token_signature_invalid"
        );
    }
    cache.take_counts();
    decision_code(&gate, &mut cache, &snapshot, &[("authorization", &good)], NOW_MS);
    assert_eq!(cache.take_counts(), (1, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Requests have the same result with a small cache as without one, regardless of earlier requests.
    #[test]
    fn cache_changes_no_decision(requests in prop::collection::vec((0..24_usize, 0..4_usize, 0..4_u64, any::<bool>()), 1..60)) {
        let gate = gate_with(r#""realm": "x""#);
        let mut cache = Cache::new(16, b"seed");
        let snapshots: Vec<Snapshot> = (0..4_usize).map(|version| {
            let mut builder = builder();
            for n in (0..24).filter(|n| n % 4 == version) {
                builder.revoke(1, Fingerprint::digest(signed(n).as_bytes())).unwrap();
            }
            if version == 3 {
                builder.raise_watermark(1, Scope::User("OP0123456789/u5"), NOW);
            }
            snapshot(&mut builder)
        }).collect();
        for (n, version, hours, damaged) in requests {
            let damage = if damaged { "AAAA" } else { "" };
            let token = format!("Bearer {}{damage}", signed(n));
            let headers = [("authorization", &token[..])];
            let now = NOW_MS + hours * 20_000;
            let cached = decision_code(&gate, &mut cache, &snapshots[version], &headers, now);
            let fresh = decision_code(&gate, &mut Cache::disabled(), &snapshots[version], &headers, now);
            prop_assert_eq!(cached, fresh);
        }
    }
}

fn signed(n: usize) -> String {
    let claims = Claims { sub: format!("OP0123456789/u{n}"), exp: Some(NOW + 40), ..claims() };
    signing_key().mint(&claims).expose().to_owned()
}
