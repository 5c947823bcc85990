//! Revocations, watermarks and keys are found again, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use bundle::{
    Entry, Kind, Objects, Scope, Snapshot, Standing,
    builder::{Builder, SecretKey},
};
use proptest::prelude::*;
use token::{
    Algorithm, Fingerprint, VerifyingKey,
    api_key::{self, Prefix, TagKey},
    mint::SigningKey,
};

use crate::world::{
    NOW, builder, checkpoint, checkpoint_of, fetch, fetched, fingerprint, open, opened_delegation, settled,
    signed, standing,
};

#[test]
fn a_large_set_is_the_set_again() {
    // Enough for an index: 600,000 / 4,096 shards and more.
    let mut builder = builder();
    for number in 0..600_000 {
        assert_eq!(builder.revoke(1, fingerprint(number)), Ok(true));
    }
    let built = settled(&mut builder);
    assert!(built.checkpoint.iter().any(|entry| entry.kind() == Kind::Index), "{:?}", built.checkpoint);
    let bytes: usize = built.objects.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes < 600_000 * 9, "{bytes} bytes are more than the 8.2 a revocation that were measured");
    let snapshot = fetched(&built);
    for number in 0..600_000 {
        assert_eq!(standing(&snapshot, &fingerprint(number)), Standing::Revoked, "{number}");
    }
    for number in 600_000..1_200_000 {
        assert_eq!(standing(&snapshot, &fingerprint(number)), Standing::NotCovered, "{number}");
    }
}

#[test]
fn a_change_touches_one_object() {
    let mut builder = builder();
    (0..50_000).for_each(|number| assert_eq!(builder.revoke(1, fingerprint(number)), Ok(true)));
    let before: BTreeSet<Entry> = settled(&mut builder).objects.into_iter().map(|(entry, _)| entry).collect();
    builder.revoke(1, fingerprint(50_000)).unwrap();
    let after: BTreeSet<Entry> = settled(&mut builder).objects.into_iter().map(|(entry, _)| entry).collect();
    assert_eq!(after.difference(&before).count(), 1);
    assert_eq!(before.difference(&after).count(), 1);
}

#[test]
fn two_fingerprints_never_share_a_prefix_unnoticed() {
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
    assert!(!builder.forget(&new));
    assert!(builder.forget(&held));
    assert_eq!(builder.revoke(1, new), Ok(true));
}

#[test]
fn the_latest_watermark_of_all_scopes_holds() {
    let mut builder = builder();
    assert!(builder.watermark(1, Scope::Operator("OP1"), 50));
    assert!(builder.watermark(1, Scope::User("OP1/alice"), 40));
    assert!(!builder.watermark(1, Scope::Operator("OP1"), 49), "a watermark never goes back");
    let snapshot = fetched(&settled(&mut builder));
    let all = [Scope::User("OP1/alice"), Scope::Global, Scope::Operator("OP1"), Scope::AuthKey("OP1")];
    assert_eq!(snapshot.watermark(all), Some(50));
    assert_eq!(snapshot.watermark([Scope::User("OP1/alice")]), Some(40));
    assert_eq!(snapshot.watermark([Scope::User("OP1"), Scope::Session("OP1/alice")]), None);
    builder.forget_watermarks(50);
    let snapshot = fetched(&settled(&mut builder));
    assert_eq!(snapshot.watermark(all), Some(50));
    assert_eq!(snapshot.watermark([Scope::User("OP1/alice")]), None);
}

#[test]
fn keys_are_found_by_kid_only() {
    let snapshot = fetched(&settled(&mut builder()));
    for (kid, known) in [("k1", true), ("k2", true), ("k", false), ("K1", false), ("", false)] {
        assert_eq!(snapshot.key(kid).is_some(), known, "{kid}");
    }
}

#[test]
fn keys_of_every_algorithm_and_issuer_arrive() {
    // Points and moduli of RFC 7515 appendix A; two issuers share a kid, and one names none.
    let rsa = {
        let mut material = vec![0, 1, 0, 1];
        material.extend([0xa5; 256]);
        material
    };
    let p256 = "7fcdce2770f6c45d4183cbee6fdb4b7b580733357be9ef13bacf6e3c7bd15445c7f144cd1bbd9b7e872cdfedb9eeb9f4b3695d6ea90b24ad8a4623288588e5ad";
    let p256: Vec<u8> =
        (0..64).map(|at| u8::from_str_radix(&p256[2 * at..2 * at + 2], 16).unwrap()).collect();
    let of = |issuer, kid, algorithm, material: &[u8]| {
        VerifyingKey::of_issuer(issuer, kid, algorithm, material).unwrap()
    };
    let own = SigningKey::ed25519("k1", &[2; 32]).unwrap();
    let mut builder = Builder::default();
    let public = [
        own.verifying_key().clone(),
        of("https://a.example", "k1", Algorithm::Es256, &p256),
        of("https://b.example", "k1", Algorithm::Rs256, &rsa),
        of("https://b.example", "", Algorithm::Ps512, &rsa),
    ];
    builder.keys(&public).unwrap();
    let secret = |issuer, kid, algorithm, secret| SecretKey::Token { issuer, kid, algorithm, secret };
    builder
        .secret_keys([
            SecretKey::from(("k2", &[3; 32][..])),
            secret("https://a.example", "k2", Algorithm::Hs512, &[4; 64]),
            SecretKey::Tag { generation: 1, secret: &[5; 32] },
            SecretKey::Tag { generation: 255, secret: &[6; 32] },
        ])
        .unwrap();
    let snapshot = fetched(&settled(&mut builder));
    for key in &public {
        let found = match key.issuer() {
            None => snapshot.key(key.kid()),
            Some(issuer) => snapshot.key_of(issuer, key.kid()),
        };
        let found = found.unwrap();
        assert_eq!(found.algorithm(), key.algorithm());
        assert_eq!(found.public_material(), key.public_material());
    }
    assert_eq!(snapshot.key("k2").unwrap().algorithm(), Algorithm::Hs256);
    assert_eq!(snapshot.key_of("https://a.example", "k2").unwrap().algorithm(), Algorithm::Hs512);
    assert!(snapshot.key_of("https://b.example", "k2").is_none());
    assert!(snapshot.key_of("", "k1").is_none(), "our own keys are nobody else's");
    assert!(snapshot.key("").is_none());
    let known = |generation| snapshot.tag_key(generation).is_some();
    assert_eq!((known(1), known(255), known(0)), (true, true, false));
    let minted = TagKey::new(1, &[5; 32]).unwrap().mint(&Prefix::default(), 7, 8, "alice").unwrap();
    let prefixes = [Prefix::default()];
    let presented = api_key::Unverified::parse(minted.expose().as_bytes(), &prefixes).unwrap();
    let tag_key = snapshot.tag_key(presented.generation()).unwrap();
    assert_eq!(presented.verify(tag_key, "alice").unwrap().number(), 7);
}

#[test]
fn secret_keys_never_stand_among_the_public_ones() {
    let secret = VerifyingKey::of_issuer("https://a.example", "k", Algorithm::Hs256, &[7; 32]).unwrap();
    let mut builder = Builder::default();
    builder.keys([&secret]).unwrap();
    let built = settled(&mut builder);
    let (_, bytes) = built.objects.iter().find(|(entry, _)| entry.kind() == Kind::Keys).unwrap();
    assert_eq!(bytes[..], [0, 0], "no key at all");
}

#[test]
fn an_object_is_the_one_that_the_manifest_names() {
    let built = settled(&mut builder());
    let delegation = opened_delegation();
    for (entry, bytes) in built.objects.iter().chain([&checkpoint(&built, 1)]) {
        assert!(entry.open(bytes.to_vec(), &delegation).is_ok());
        let mut swapped = bytes.to_vec();
        swapped[0] ^= 1;
        assert_eq!(entry.open(swapped, &delegation).unwrap_err().code(), "object_hash_mismatch");
        let cut = bytes[..bytes.len() - 1].to_vec();
        assert_eq!(entry.open(cut, &delegation).unwrap_err().code(), "object_size_mismatch");
    }
}

#[test]
fn a_snapshot_needs_every_object() {
    let mut builder = builder();
    (0..20_000).for_each(|number| assert_eq!(builder.revoke(1, fingerprint(number)), Ok(true)));
    let built = settled(&mut builder);
    let whole = checkpoint(&built, 1);
    for left_out in &built.checkpoint {
        // Not fetched.
        let manifest = open(&signed(&whole, &[], 1)).unwrap();
        let mut objects = Objects::default();
        for (entry, bytes) in built.objects.iter().chain([&whole]).filter(|(entry, _)| entry != left_out) {
            objects.open(&manifest, *entry, bytes.to_vec()).unwrap();
        }
        assert_eq!(objects.missing(&manifest, NOW), [*left_out]);
        assert!(Snapshot::assemble(manifest, &objects, NOW).is_err());
        // Not even named: only the secret keys are not in every bundle.
        let named: Vec<Entry> = built.checkpoint.iter().filter(|entry| *entry != left_out).copied().collect();
        let part = checkpoint_of(&named, 1, 0);
        let manifest = open(&signed(&part, &[], 1)).unwrap();
        let objects = fetch(&manifest, &[&built.objects, &[part]]);
        assert_eq!(
            Snapshot::assemble(manifest, &objects, NOW).is_ok(),
            matches!(left_out.kind(), Kind::Keys | Kind::SecretKeys)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_set_is_the_set_again(
        steps in prop::collection::vec((any::<bool>(), any::<u8>(), any::<[u8; 32]>()), 0..400),
        strangers in prop::collection::vec(any::<[u8; 32]>(), 50),
    ) {
        // Clustered prefixes, so that neighbours, blocks and shards of all sizes occur.
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
                prop_assert!(builder.forget(&held));
                set.remove(&prefix);
                settled(&mut builder);
            }
        }
        let snapshot = fetched(&settled(&mut builder));
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
            prop_assert_eq!(standing(&snapshot, &fingerprint) == Standing::Revoked, revoked);
        }
    }

    #[test]
    fn any_watermarks_are_found_again(instants in prop::collection::btree_map("[a-z]{1,3}", any::<u64>(), 0..3000)) {
        let mut builder = builder();
        for (id, instant) in &instants {
            builder.watermark(1, Scope::User(id), *instant);
        }
        let snapshot = fetched(&settled(&mut builder));
        for (id, instant) in &instants {
            prop_assert_eq!(snapshot.watermark([Scope::User(id)]), Some(*instant));
            prop_assert_eq!(snapshot.watermark([Scope::AuthKey(id)]), None);
        }
    }
}
