//! Revocations, watermarks and keys are found again, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use bundle::{
    Entry, Kind, Objects, Scope, Snapshot, Standing,
    builder::{Builder, SecretKey},
};
use proptest::prelude::*;
use token::{
    Algorithm, Fingerprint, VerifyingKey,
    api_key::{self, Contents, Kind as ApiKeyKind, MintingKey, Prefix},
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
    assert!(builder.forget_watermark(Scope::User("OP1/alice")));
    assert!(!builder.forget_watermark(Scope::User("OP1/alice")));
    let snapshot = fetched(&settled(&mut builder));
    assert_eq!(snapshot.watermark(all), Some(50));
    assert_eq!(snapshot.watermark([Scope::User("OP1/alice")]), None);
    // One that a clock which was ahead has left.
    assert!(!builder.lower_watermark(Scope::Operator("OP1"), 50));
    assert!(builder.lower_watermark(Scope::Operator("OP1"), 45));
    assert!(builder.needs_checkpoint(), "a tail only raises");
    assert_eq!(fetched(&settled(&mut builder)).watermark(all), Some(45));
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
    let signed = |generation| MintingKey::new(generation, ApiKeyKind::Signed, &[7; 32]).unwrap();
    builder.public_keys(&public, [signed(2).checking(), signed(0).checking()]).unwrap();
    let secret = |issuer, kid, algorithm, secret| SecretKey::Token { issuer, kid, algorithm, secret };
    builder
        .secret_keys([
            SecretKey::from(("k2", &[3; 32][..])),
            secret("https://a.example", "k2", Algorithm::Hs512, &[4; 64]),
            SecretKey::Tag { generation: 1, secret: &[5; 32] },
            SecretKey::ShortTag { generation: 255, secret: &[6; 32] },
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
    let known = [0, 1, 2, 3, 255].map(|generation| snapshot.generation_key(generation).map(|key| key.kind()));
    use ApiKeyKind::{Format1, Short, Signed};
    assert_eq!(known, [Some(Signed), Some(Format1), Some(Signed), None, Some(Short)]);
    for (generation, kind, secret) in
        [(0, Signed, [7; 32]), (1, Format1, [5; 32]), (2, Signed, [7; 32]), (255, Short, [6; 32])]
    {
        let prefixes = [Prefix::default()];
        let contents = Contents {
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

#[test]
fn secret_keys_never_stand_among_the_public_ones() {
    let secret = VerifyingKey::of_issuer("https://a.example", "k", Algorithm::Hs256, &[7; 32]).unwrap();
    let mut builder = Builder::default();
    builder.keys([&secret]).unwrap();
    let built = settled(&mut builder);
    let (_, bytes) = built.objects.iter().find(|(entry, _)| entry.kind() == Kind::Keys).unwrap();
    assert_eq!(bytes[..], [0, 0], "no key at all");
}

/// Of API keys only what makes none stands in an object that may sit in any cache.
#[test]
fn what_makes_api_keys_never_stands_among_the_public_keys() {
    let keys = ApiKeyKind::ALL.map(|kind| MintingKey::new(1, kind, &[0xab; 32]).unwrap());
    let mut builder = builder();
    builder.public_keys([], keys.iter().map(MintingKey::checking)).unwrap();
    builder.secret_keys([SecretKey::ShortTag { generation: 2, secret: &[0xcd; 32] }]).unwrap();
    let built = settled(&mut builder);
    for (entry, bytes) in &built.objects {
        assert!(!bytes.windows(32).any(|part| part == [0xab; 32]));
        assert_eq!(bytes.windows(32).any(|part| part == [0xcd; 32]), entry.kind() == Kind::SecretKeys);
    }
    let (_, public) = built.objects.iter().find(|(entry, _)| entry.kind() == Kind::Keys).unwrap();
    assert_eq!(public[..2], [0, 1]);
    // Where no edge needs a secret, none is handed out.
    builder.no_secret_keys();
    let built = settled(&mut builder);
    assert!(!built.objects.iter().any(|(entry, _)| entry.kind() == Kind::SecretKeys));
}

/// Of a generation there is one key, of one kind, whatever objects it stands in.
#[test]
fn a_generation_stands_once() {
    let signed = MintingKey::new(1, ApiKeyKind::Signed, &[7; 32]).unwrap();
    let own = SigningKey::ed25519("k1", &[2; 32]).unwrap();
    for (generation, whole) in [(2, true), (1, false)] {
        let mut builder = Builder::default();
        builder.public_keys([own.verifying_key()], [signed.checking()]).unwrap();
        builder.secret_keys([SecretKey::ShortTag { generation, secret: &[6; 32] }]).unwrap();
        let built = settled(&mut builder);
        let checkpoint = checkpoint(&built, 1);
        let manifest = open(&crate::world::signed(&checkpoint, &[], 1)).unwrap();
        let objects = fetch(&manifest, &[&built.objects, &[checkpoint]]);
        assert_eq!(Snapshot::assemble(manifest, &objects, NOW).is_ok(), whole);
    }
    // In one object it is malformed already; so are a wrong object, another issuer and a long name.
    let public = *signed.checking().public_bytes().unwrap();
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
        let entry = Entry::of(kind, 0, &bytes).unwrap();
        entry.open(bytes, &opened_delegation()).is_ok()
    };
    assert!(opens(Kind::Keys, &[&good, &row(65, b"", &[2], &public)]));
    for (kind, rows) in [
        (Kind::Keys, vec![good.clone(), good.clone()]),
        (Kind::Keys, vec![row(64, b"", &[1], &[7; 32])]),
        (Kind::Keys, vec![row(66, b"", &[1], &[7; 32])]),
        (Kind::Keys, vec![row(67, b"", &[1], &public)]),
        (Kind::Keys, vec![row(65, b"https://a.example", &[1], &public)]),
        (Kind::Keys, vec![row(65, b"", &[], &public)]),
        (Kind::Keys, vec![row(65, b"", &[1, 1], &public)]),
        (Kind::Keys, vec![row(65, b"", &[1], &public[1..])]),
        (Kind::Keys, vec![row(65, b"", &[1], &[0; 32])]),
        (Kind::SecretKeys, vec![good.clone()]),
        (Kind::SecretKeys, vec![row(64, b"", &[1], &[7; 32]), row(66, b"", &[1], &[8; 32])]),
    ] {
        let rows: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
        assert!(!opens(kind, &rows), "{kind:?} {rows:?}");
    }
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
