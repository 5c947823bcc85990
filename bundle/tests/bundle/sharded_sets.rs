//! Revocations, watermarks and keys round-trip through a bundle.

use std::collections::{BTreeMap, BTreeSet};

use bundle::{
    Entry, NoKey, ObjectKind, Objects, RevocationStatus, Scope, Snapshot,
    builder::{Builder, SecretKey},
};
use proptest::prelude::*;
use token::{
    Algorithm, Fingerprint, VerifyingKey,
    api_key::{self, ApiKeyFields, Kind as ApiKeyKind, MintingKey, Prefix},
    mint::SigningKey,
};

use crate::fixtures::{
    NOW, build_with_checkpoint, builder, checkpoint, checkpoint_of, fetch, fingerprint, open_delegation,
    open_manifest, sign_manifest, snapshot_of, uncovered_status,
};

#[test]
fn large_revocation_set_round_trips() {
    // At least 600,000 / 4,096 shards, which require an index.
    let mut builder = builder();
    for number in 0..600_000 {
        assert_eq!(builder.revoke(1, fingerprint(number)), Ok(true));
    }
    let built = build_with_checkpoint(&mut builder);
    assert!(built.checkpoint.iter().any(|entry| entry.kind() == ObjectKind::Index), "{:?}", built.checkpoint);
    let bytes: usize = built.objects.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes < 600_000 * 9, "{bytes} bytes are more than the 8.2 a revocation that were measured");
    let snapshot = snapshot_of(&built);
    for number in 0..600_000 {
        assert_eq!(uncovered_status(&snapshot, &fingerprint(number)), RevocationStatus::Revoked, "{number}");
    }
    for number in 600_000..1_200_000 {
        assert_eq!(
            uncovered_status(&snapshot, &fingerprint(number)),
            RevocationStatus::NotCovered,
            "{number}"
        );
    }
}

#[test]
fn new_revocation_changes_one_object() {
    let mut builder = builder();
    (0..50_000).for_each(|number| assert_eq!(builder.revoke(1, fingerprint(number)), Ok(true)));
    let before: BTreeSet<Entry> =
        build_with_checkpoint(&mut builder).objects.into_iter().map(|(entry, _)| entry).collect();
    builder.revoke(1, fingerprint(50_000)).unwrap();
    let after: BTreeSet<Entry> =
        build_with_checkpoint(&mut builder).objects.into_iter().map(|(entry, _)| entry).collect();
    assert_eq!(after.difference(&before).count(), 1);
    assert_eq!(before.difference(&after).count(), 1);
}

#[test]
fn prefix_collision_is_detected() {
    let mut bytes = [9; 32];
    let held = Fingerprint::from(bytes);
    bytes[8] = 0;
    let new = Fingerprint::from(bytes);
    assert_eq!(held.prefix(), new.prefix());
    let mut builder = builder();
    assert_eq!(builder.revoke(1, held), Ok(true));
    assert_eq!(builder.revoke(1, held), Ok(false));
    let collision = builder.revoke(1, new).unwrap_err();
    assert_eq!((collision.held, collision.new), (held, new));
    assert!(!builder.remove_revocation(&new));
    assert!(builder.remove_revocation(&held));
    assert_eq!(builder.revoke(1, new), Ok(true));
}

#[test]
fn latest_watermark_of_all_scopes_applies() {
    let mut builder = builder();
    assert!(builder.raise_watermark(1, Scope::Operator("OP1"), 50));
    assert!(builder.raise_watermark(1, Scope::User("OP1/alice"), 40));
    assert!(!builder.raise_watermark(1, Scope::Operator("OP1"), 49), "raising never lowers a watermark");
    let snapshot = snapshot_of(&build_with_checkpoint(&mut builder));
    let all = [Scope::User("OP1/alice"), Scope::Global, Scope::Operator("OP1"), Scope::AuthKey("OP1")];
    assert_eq!(snapshot.watermark(all), Some(50));
    assert_eq!(snapshot.watermark([Scope::User("OP1/alice")]), Some(40));
    assert_eq!(snapshot.watermark([Scope::User("OP1"), Scope::Session("OP1/alice")]), None);
    assert!(builder.remove_expired_watermark(Scope::User("OP1/alice")));
    assert!(!builder.remove_expired_watermark(Scope::User("OP1/alice")));
    let snapshot = snapshot_of(&build_with_checkpoint(&mut builder));
    assert_eq!(snapshot.watermark(all), Some(50));
    assert_eq!(snapshot.watermark([Scope::User("OP1/alice")]), None);
    // Lower a watermark that is too high, as after a clock that was ahead.
    assert!(!builder.lower_watermark(Scope::Operator("OP1"), 50));
    assert!(builder.lower_watermark(Scope::Operator("OP1"), 45));
    assert!(builder.needs_checkpoint(), "the tail cannot lower a watermark");
    assert_eq!(snapshot_of(&build_with_checkpoint(&mut builder)).watermark(all), Some(45));
}

#[test]
fn keys_are_found_by_exact_kid() {
    let snapshot = snapshot_of(&build_with_checkpoint(&mut builder()));
    for (kid, known) in [("k1", true), ("k2", true), ("k", false), ("K1", false), ("", false)] {
        assert_eq!(snapshot.key(kid).is_some(), known, "{kid}");
    }
}

#[test]
fn keys_of_every_algorithm_and_issuer_round_trip() {
    // The P-256 point is from RFC 7515 appendix A.3. Two issuers share a kid, and one key has none.
    let rsa = {
        let mut material = vec![0, 1, 0, 1];
        material.extend([0xa5; 256]);
        material
    };
    let p256 = "7fcdce2770f6c45d4183cbee6fdb4b7b580733357be9ef13bacf6e3c7bd15445c7f144cd1bbd9b7e872cdfedb9eeb9f4b3695d6ea90b24ad8a4623288588e5ad";
    let p256 = base16ct::lower::decode_vec(p256).unwrap();
    let of = |issuer, kid, algorithm, material: &[u8]| {
        VerifyingKey::foreign(issuer, kid, algorithm, material).unwrap()
    };
    let own = SigningKey::ed25519("k1", &[2; 32]).unwrap();
    let mut builder = Builder::default();
    let public = [
        own.verifying_key().clone(),
        of("https://a.example", "k1", Algorithm::Es256, &p256),
        of("https://b.example", "k1", Algorithm::Rs256, &rsa),
        of("https://b.example", "", Algorithm::Ps512, &rsa),
    ];
    let signed = |generation| MintingKey::new(generation, ApiKeyKind::Signed, &[7; 32]).unwrap();
    builder.set_public_keys(&public, [signed(2).generation_key(), signed(0).generation_key()]).unwrap();
    let secret = |issuer, kid, algorithm, secret| SecretKey::Token { issuer, kid, algorithm, secret };
    builder
        .set_secret_keys([
            SecretKey::from(("k2", &[3; 32][..])),
            secret("https://a.example", "k2", Algorithm::Hs512, &[4; 64]),
            SecretKey::Tag { generation: 1, secret: &[5; 32] },
            SecretKey::ShortTag { generation: 255, secret: &[6; 32] },
        ])
        .unwrap();
    let snapshot = snapshot_of(&build_with_checkpoint(&mut builder));
    for key in &public {
        let found = match key.issuer() {
            None => snapshot.key(key.kid()),
            Some(issuer) => snapshot.issuer_key(issuer, key.kid(), key.algorithm().name()).ok(),
        };
        let found = found.unwrap();
        assert_eq!(found.algorithm(), key.algorithm());
        assert_eq!(found.public_material(), key.public_material());
    }
    assert_eq!(snapshot.key("k2").unwrap().algorithm(), Algorithm::Hs256);
    let issuer_key = |issuer, kid, algorithm: Algorithm| snapshot.issuer_key(issuer, kid, algorithm.name());
    assert_eq!(
        issuer_key("https://a.example", "k2", Algorithm::Hs512).unwrap().algorithm(),
        Algorithm::Hs512
    );
    assert_eq!(issuer_key("https://b.example", "k2", Algorithm::Hs512).unwrap_err(), NoKey::Unknown);
    assert_eq!(
        issuer_key("", "k1", Algorithm::EdDsa).unwrap_err(),
        NoKey::Unknown,
        "local keys have no issuer"
    );
    assert!(snapshot.key("").is_none());
    let known = [0, 1, 2, 3, 255].map(|generation| snapshot.generation_key(generation).map(|key| key.kind()));
    use ApiKeyKind::{Format1, Short, Signed};
    assert_eq!(known, [Some(Signed), Some(Format1), Some(Signed), None, Some(Short)]);
    for (generation, kind, secret) in
        [(0, Signed, [7; 32]), (1, Format1, [5; 32]), (2, Signed, [7; 32]), (255, Short, [6; 32])]
    {
        let prefixes = [Prefix::default()];
        let contents = ApiKeyFields {
            prefix: &prefixes[0],
            operator: "OP0123456789",
            number: 7,
            issued_at: 8,
            expires_at: None,
            random: [9; 4],
            username: "alice",
        };
        let minted = MintingKey::new(generation, kind, &secret).unwrap().mint(&contents).unwrap();
        let presented = api_key::Unverified::parse(minted.expose().as_bytes(), &prefixes).unwrap();
        let key = snapshot.generation_key(presented.generation()).unwrap();
        assert_eq!(presented.verify(key, "alice").unwrap().number(), 7);
    }
}

fn rsa_key(issuer: &str, kid: &str, algorithm: Algorithm, bytes: usize) -> VerifyingKey {
    VerifyingKey::foreign(issuer, kid, algorithm, &[&[0, 1, 0, 1], &*vec![0xa5; bytes]].concat()).unwrap()
}

/// A table of the keys of an issuer and the token, and the kid of the key that is for it.
#[test]
fn b5_key_of_another_issuer_is_found_by_kid_and_algorithm() {
    use Algorithm::{Es512, Ps256, Rs256, Rs384};
    const ISSUER: &str = "https://b.example";
    let p521 = VerifyingKey::foreign(ISSUER, "a", Es512, &[1; 132]).unwrap();
    let rsa = |kid, algorithm| rsa_key(ISSUER, kid, algorithm, 256);
    let mismatch = Err(NoKey::AlgorithmMismatch);
    let unknown = Err(NoKey::Unknown);
    let ambiguous = Err(NoKey::Ambiguous);
    // One kid for several algorithms and types, and the largest RSA key.
    let shared = [rsa("a", Rs256), rsa("a", Rs384), p521, rsa_key(ISSUER, "large", Ps256, 1024)];
    let named = [rsa("a", Rs256)];
    let two = [rsa("a", Rs256), rsa("b", Rs256)];
    let nameless = [rsa("", Rs256), rsa("", Ps256)];
    let mixed = [rsa("", Rs256), rsa("b", Rs256), rsa("c", Ps256)];
    type Row<'a> = (&'a [VerifyingKey], &'a str, Option<Algorithm>, Result<&'a str, NoKey>);
    let table: [Row<'_>; 23] = [
        (&shared, "a", Some(Rs256), Ok("a")),
        (&shared, "a", Some(Rs384), Ok("a")),
        (&shared, "a", Some(Es512), Ok("a")),
        (&shared, "large", Some(Ps256), Ok("large")),
        (&shared, "a", Some(Ps256), mismatch),
        (&shared, "a", None, mismatch),
        (&shared, "b", Some(Rs256), unknown),
        (&shared, "", Some(Rs256), Ok("a")),
        (&shared, "", Some(Ps256), Ok("large")),
        (&named, "", Some(Rs256), Ok("a")),
        (&named, "", Some(Rs384), mismatch),
        (&named, "", None, mismatch),
        (&named, "b", Some(Rs256), unknown),
        (&two, "", Some(Rs256), ambiguous),
        (&two, "c", Some(Rs256), unknown),
        (&nameless, "any", Some(Rs256), Ok("")),
        (&nameless, "any", Some(Ps256), Ok("")),
        (&nameless, "", Some(Ps256), Ok("")),
        (&nameless, "any", Some(Rs384), unknown),
        (&nameless, "", Some(Rs384), mismatch),
        // The key without a kid is not the only one of its algorithm.
        (&mixed, "any", Some(Rs256), unknown),
        (&mixed, "", Some(Rs256), ambiguous),
        (&mixed, "", Some(Ps256), Ok("c")),
    ];
    for (keys, kid, algorithm, expected) in table {
        // The keys of other issuers and of this deployment are never for the token.
        let others = [
            rsa_key("https://a.example", "c", Rs256, 256),
            rsa_key("https://c.example", "", Rs384, 256),
            SigningKey::ed25519("any", &[2; 32]).unwrap().verifying_key().clone(),
        ];
        let mut builder = Builder::default();
        builder.set_verifying_keys(keys.iter().chain(&others)).unwrap();
        let snapshot = snapshot_of(&build_with_checkpoint(&mut builder));
        let found = snapshot.issuer_key(ISSUER, kid, algorithm.map_or("none", Algorithm::name));
        assert_eq!(found.map(VerifyingKey::kid), expected, "{keys:?} {kid:?} {algorithm:?}");
        if let Ok(found) = found {
            assert_eq!((found.issuer(), Some(found.algorithm())), (Some(ISSUER), algorithm));
        }
    }
    let snapshot = snapshot_of(&build_with_checkpoint(&mut builder()));
    assert_eq!(snapshot.issuer_key(ISSUER, "", "RS256").unwrap_err(), NoKey::Unknown);
}

/// Within one object and across both.
#[test]
fn c1_one_kid_is_ambiguous_within_an_algorithm_in_this_deployment_and_across_symmetric_keys() {
    use Algorithm::{Hs256, Hs512, Rs256, Rs384};
    const ISSUER: &str = "https://b.example";
    let secret = |kid, algorithm| SecretKey::Token { issuer: ISSUER, kid, algorithm, secret: &[4; 64] };
    let local = |algorithm| {
        let rsa = [&[0, 1, 0, 1], &[0xa5; 256][..]].concat();
        VerifyingKey::local("k", algorithm, &rsa).unwrap()
    };
    let foreign = |algorithm| rsa_key(ISSUER, "k", algorithm, 256);
    let cases: [(&[VerifyingKey], &[SecretKey<'_>], bool); 7] = [
        (&[foreign(Rs256), foreign(Rs384)], &[], true),
        (&[foreign(Rs256), rsa_key(ISSUER, "k", Rs256, 257)], &[], false),
        (&[local(Rs256), local(Rs384)], &[], false),
        (&[local(Rs256), foreign(Rs384)], &[], true),
        (&[foreign(Rs256)], &[secret("k", Hs256)], false),
        (&[foreign(Rs256)], &[secret("l", Hs256), secret("l", Hs512)], true),
        (&[foreign(Rs256)], &[secret("l", Hs256), secret("l", Hs256)], false),
    ];
    for (public, secrets, is_complete) in cases {
        let mut builder = Builder::default();
        builder.set_verifying_keys(public).unwrap();
        if !secrets.is_empty() {
            builder.set_secret_keys(secrets.iter().copied()).unwrap();
        }
        let built = build_with_checkpoint(&mut builder);
        let checkpoint = checkpoint(&built, 1);
        let manifest = open_manifest(&sign_manifest(&checkpoint, &[], 1)).unwrap();
        let open = |(entry, bytes): &(Entry, std::sync::Arc<[u8]>)| {
            entry.open(bytes.to_vec(), &open_delegation()).is_ok()
        };
        let opens = built.objects.iter().all(open);
        let assembled = opens && {
            let objects = fetch(&manifest, &[&built.objects, &[checkpoint]]);
            Snapshot::assemble(manifest, &objects, NOW).is_ok()
        };
        assert_eq!(assembled, is_complete, "{public:?} {secrets:?}");
    }
}

#[test]
fn symmetric_token_keys_are_not_in_the_public_object() {
    let secret = VerifyingKey::foreign("https://a.example", "k", Algorithm::Hs256, &[7; 32]).unwrap();
    let mut builder = Builder::default();
    builder.set_verifying_keys([&secret]).unwrap();
    let built = build_with_checkpoint(&mut builder);
    let (_, bytes) = built.objects.iter().find(|(entry, _)| entry.kind() == ObjectKind::Keys).unwrap();
    assert_eq!(bytes[..], [0, 0], "no keys");
}

/// Caches may store every object except the secret keys, so none of the others contains a key that creates API keys.
#[test]
fn api_key_secrets_are_not_in_the_public_object() {
    let keys = ApiKeyKind::ALL.map(|kind| MintingKey::new(1, kind, &[0xab; 32]).unwrap());
    let mut builder = builder();
    builder.set_public_keys([], keys.iter().map(MintingKey::generation_key)).unwrap();
    builder.set_secret_keys([SecretKey::ShortTag { generation: 2, secret: &[0xcd; 32] }]).unwrap();
    let built = build_with_checkpoint(&mut builder);
    for (entry, bytes) in &built.objects {
        assert!(!bytes.windows(32).any(|part| part == [0xab; 32]));
        assert_eq!(bytes.windows(32).any(|part| part == [0xcd; 32]), entry.kind() == ObjectKind::SecretKeys);
    }
    let (_, public) = built.objects.iter().find(|(entry, _)| entry.kind() == ObjectKind::Keys).unwrap();
    assert_eq!(public[..2], [0, 1]);
    // Without secret keys there is no such object.
    builder.remove_secret_keys();
    let built = build_with_checkpoint(&mut builder);
    assert!(!built.objects.iter().any(|(entry, _)| entry.kind() == ObjectKind::SecretKeys));
}

/// A generation has one key, even across the objects of public and secret keys.
#[test]
fn duplicate_generation_is_rejected() {
    let signed = MintingKey::new(1, ApiKeyKind::Signed, &[7; 32]).unwrap();
    let own = SigningKey::ed25519("k1", &[2; 32]).unwrap();
    for (generation, is_complete) in [(2, true), (1, false)] {
        let mut builder = Builder::default();
        builder.set_public_keys([own.verifying_key()], [signed.generation_key()]).unwrap();
        builder.set_secret_keys([SecretKey::ShortTag { generation, secret: &[6; 32] }]).unwrap();
        let built = build_with_checkpoint(&mut builder);
        let checkpoint = checkpoint(&built, 1);
        let manifest = open_manifest(&crate::fixtures::sign_manifest(&checkpoint, &[], 1)).unwrap();
        let objects = fetch(&manifest, &[&built.objects, &[checkpoint]]);
        assert_eq!(Snapshot::assemble(manifest, &objects, NOW).is_ok(), is_complete);
    }
    // Within one object a duplicate is malformed; so are the wrong object, an issuer, and a kid of the wrong length.
    let public = *signed.generation_key().public_bytes().unwrap();
    let row = |code: u8, issuer: &[u8], kid: &[u8], key: &[u8]| {
        let mut row = vec![code, u8::try_from(issuer.len()).unwrap()];
        row.extend(issuer);
        row.push(u8::try_from(kid.len()).unwrap());
        row.extend(kid);
        row.extend(u16::try_from(key.len()).unwrap().to_be_bytes());
        row.extend(key);
        row
    };
    let good = row(65, b"", &[1], &public);
    let opens = |kind, rows: &[&[u8]]| {
        let mut bytes = Vec::from(u16::try_from(rows.len()).unwrap().to_be_bytes());
        bytes.extend(rows.concat());
        let entry = Entry::for_bytes(kind, 0, &bytes).unwrap();
        entry.open(bytes, &open_delegation()).is_ok()
    };
    assert!(opens(ObjectKind::Keys, &[&good, &row(65, b"", &[2], &public)]));
    for (kind, rows) in [
        (ObjectKind::Keys, vec![good.clone(), good.clone()]),
        (ObjectKind::Keys, vec![row(64, b"", &[1], &[7; 32])]),
        (ObjectKind::Keys, vec![row(66, b"", &[1], &[7; 32])]),
        (ObjectKind::Keys, vec![row(67, b"", &[1], &public)]),
        (ObjectKind::Keys, vec![row(65, b"https://a.example", &[1], &public)]),
        (ObjectKind::Keys, vec![row(65, b"", &[], &public)]),
        (ObjectKind::Keys, vec![row(65, b"", &[1, 1], &public)]),
        (ObjectKind::Keys, vec![row(65, b"", &[1], &public[1..])]),
        (ObjectKind::Keys, vec![row(65, b"", &[1], &[0; 32])]),
        (ObjectKind::SecretKeys, vec![good.clone()]),
        (ObjectKind::SecretKeys, vec![row(64, b"", &[1], &[7; 32]), row(66, b"", &[1], &[8; 32])]),
    ] {
        let rows: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
        assert!(!opens(kind, &rows), "{kind:?} {rows:?}");
    }
}

#[test]
fn object_must_match_its_entry() {
    let built = build_with_checkpoint(&mut builder());
    let delegation = open_delegation();
    for (entry, bytes) in built.objects.iter().chain([&checkpoint(&built, 1)]) {
        assert!(entry.open(bytes.to_vec(), &delegation).is_ok());
        let mut swapped = bytes.to_vec();
        swapped[0] ^= 1;
        assert_eq!(entry.open(swapped, &delegation).unwrap_err().code(), "object_hash_mismatch");
        let truncated = bytes[..bytes.len() - 1].to_vec();
        assert_eq!(entry.open(truncated, &delegation).unwrap_err().code(), "object_size_mismatch");
    }
}

#[test]
fn snapshot_requires_every_object() {
    let mut builder = builder();
    (0..20_000).for_each(|number| assert_eq!(builder.revoke(1, fingerprint(number)), Ok(true)));
    let built = build_with_checkpoint(&mut builder);
    let full_checkpoint = checkpoint(&built, 1);
    for left_out in &built.checkpoint {
        // The object is not fetched.
        let manifest = open_manifest(&sign_manifest(&full_checkpoint, &[], 1)).unwrap();
        let mut objects = Objects::default();
        for (entry, bytes) in
            built.objects.iter().chain([&full_checkpoint]).filter(|(entry, _)| entry != left_out)
        {
            objects.open(&manifest, *entry, bytes.to_vec()).unwrap();
        }
        assert_eq!(objects.missing(&manifest, NOW), [*left_out]);
        assert!(Snapshot::assemble(manifest, &objects, NOW).is_err());
        // The object is not named. Only keys are optional as long as one object of keys remains.
        let named: Vec<Entry> = built.checkpoint.iter().filter(|entry| *entry != left_out).copied().collect();
        let part = checkpoint_of(&named, 1, 0);
        let manifest = open_manifest(&sign_manifest(&part, &[], 1)).unwrap();
        let objects = fetch(&manifest, &[&built.objects, &[part]]);
        assert_eq!(
            Snapshot::assemble(manifest, &objects, NOW).is_ok(),
            matches!(left_out.kind(), ObjectKind::Keys | ObjectKind::SecretKeys)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_revocations_round_trip(
        steps in prop::collection::vec((any::<bool>(), any::<u8>(), any::<[u8; 32]>()), 0..400),
        strangers in prop::collection::vec(any::<[u8; 32]>(), 50),
    ) {
        // Clustered prefixes, so that adjacent prefixes, and blocks and shards of all sizes occur.
        let near = |(_, low, random): &(bool, u8, [u8; 32])| {
            let mut bytes = *random;
            if low % 2 == 0 { bytes[..7].fill(low / 64); }
            Fingerprint::from(bytes)
        };
        let mut builder = builder();
        let mut set: BTreeMap<u64, Fingerprint> = BTreeMap::new();
        for step in &steps {
            let fingerprint = near(step);
            if step.0 {
                let new = builder.revoke(1, fingerprint).unwrap_or(false);
                prop_assert_eq!(new, !set.contains_key(&fingerprint.prefix()));
                set.entry(fingerprint.prefix()).or_insert(fingerprint);
            } else if let Some((prefix, held)) = set.iter().nth(usize::from(step.1)).map(|(p, f)| (*p, *f)) {
                prop_assert!(builder.remove_revocation(&held));
                set.remove(&prefix);
                build_with_checkpoint(&mut builder);
            }
        }
        let snapshot = snapshot_of(&build_with_checkpoint(&mut builder));
        let asked = steps.iter().map(near).chain(strangers.into_iter().map(Fingerprint::from));
        for fingerprint in asked.flat_map(|f| {
            let beside = |delta: u64| {
                let mut bytes = *f.as_bytes();
                bytes[..8].copy_from_slice(&f.prefix().wrapping_add(delta).to_be_bytes());
                Fingerprint::from(bytes)
            };
            [f, beside(1), beside(u64::MAX)]
        }) {
            let revoked = set.contains_key(&fingerprint.prefix());
            prop_assert_eq!(uncovered_status(&snapshot, &fingerprint) == RevocationStatus::Revoked, revoked);
        }
    }

    #[test]
    fn arbitrary_watermarks_round_trip(instants in prop::collection::btree_map("[a-z]{1,3}", any::<u64>(), 0..3000)) {
        let mut builder = builder();
        for (id, instant) in &instants {
            builder.raise_watermark(1, Scope::User(id), *instant);
        }
        let snapshot = snapshot_of(&build_with_checkpoint(&mut builder));
        for (id, instant) in &instants {
            prop_assert_eq!(snapshot.watermark([Scope::User(id)]), Some(*instant));
            prop_assert_eq!(snapshot.watermark([Scope::AuthKey(id)]), None);
        }
    }
}
