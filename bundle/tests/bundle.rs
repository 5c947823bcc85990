//! What is built is what edges read; nothing else opens.

use std::collections::{BTreeMap, BTreeSet};

use bundle::{
    Entry, Kind, Manifest, ManifestError, Objects, Scope, Snapshot, Standing,
    builder::{Builder, Built, Draft, Publisher, SecretKey},
};
use proptest::prelude::*;
use token::{
    Algorithm, Fingerprint, VerifyingKey,
    api_key::{self, Prefix, TagKey},
    mint::SigningKey,
};

fn publisher() -> Publisher {
    Publisher::new(&[1; 32])
}

fn signed(entries: &[Entry], version: u64) -> Vec<u8> {
    let draft = Draft { audience: "default", version, issued_at: 1_000, expires_at: 61_000, entries };
    publisher().sign(&draft).unwrap()
}

fn open(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    Manifest::open(bytes, &[publisher().public_key()], "default")
}

fn builder() -> Builder {
    let mut builder = Builder::default();
    builder.keys([SigningKey::ed25519("k1", &[2; 32]).unwrap().verifying_key()]).unwrap();
    builder.secret_keys([("k2", &[3; 32][..])]).unwrap();
    builder
}

/// What an edge does: fetch what is missing until nothing is.
fn fetched(built: &Built) -> Snapshot {
    let manifest = open(&signed(&built.entries, 1)).unwrap();
    let mut objects = Objects::default();
    loop {
        let missing = objects.missing(&manifest);
        if missing.is_empty() {
            return Snapshot::assemble(manifest, &objects).unwrap();
        }
        for entry in missing {
            let (_, bytes) = built.objects.iter().find(|(built, _)| *built == entry).unwrap();
            objects.open(entry, bytes.to_vec()).unwrap();
        }
    }
}

fn fingerprint(number: u64) -> Fingerprint {
    Fingerprint::of(&number.to_be_bytes())
}

#[test]
fn a_large_set_is_the_set_again() {
    // Enough for an index: 600,000 / 4,096 shards and more.
    let mut builder = builder();
    for number in 0..600_000 {
        assert_eq!(builder.revoke(fingerprint(number)), Ok(true));
    }
    let built = builder.build().unwrap();
    assert!(built.entries.iter().any(|entry| entry.kind() == Kind::Index), "{:?}", built.entries);
    let bytes: usize = built.objects.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes < 600_000 * 9, "{bytes} bytes are more than the 8.2 a revocation that were measured");
    let snapshot = fetched(&built);
    for number in 0..600_000 {
        assert_eq!(snapshot.standing(&fingerprint(number)), Standing::Revoked, "{number}");
    }
    for number in 600_000..1_200_000 {
        assert_eq!(snapshot.standing(&fingerprint(number)), Standing::Good, "{number}");
    }
}

#[test]
fn a_change_touches_one_object() {
    let mut builder = builder();
    (0..50_000).for_each(|number| assert_eq!(builder.revoke(fingerprint(number)), Ok(true)));
    let before: BTreeSet<Entry> =
        builder.build().unwrap().objects.into_iter().map(|(entry, _)| entry).collect();
    builder.revoke(fingerprint(50_000)).unwrap();
    let after: BTreeSet<Entry> =
        builder.build().unwrap().objects.into_iter().map(|(entry, _)| entry).collect();
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
    assert_eq!(builder.revoke(held), Ok(true));
    assert_eq!(builder.revoke(held), Ok(false));
    let collision = builder.revoke(new).unwrap_err();
    assert_eq!((collision.held, collision.new), (held, new));
    assert!(!builder.forget(&new));
    assert!(builder.forget(&held));
    assert_eq!(builder.revoke(new), Ok(true));
}

#[test]
fn the_latest_watermark_of_all_scopes_holds() {
    let mut builder = builder();
    assert!(builder.watermark(Scope::Operator("OP1"), 50));
    assert!(builder.watermark(Scope::User("OP1/alice"), 40));
    assert!(!builder.watermark(Scope::Operator("OP1"), 49), "a watermark never goes back");
    let snapshot = fetched(&builder.build().unwrap());
    let all = [Scope::User("OP1/alice"), Scope::Global, Scope::Operator("OP1"), Scope::AuthKey("OP1")];
    assert_eq!(snapshot.watermark(all), Some(50));
    assert_eq!(snapshot.watermark([Scope::User("OP1/alice")]), Some(40));
    assert_eq!(snapshot.watermark([Scope::User("OP1"), Scope::Session("OP1/alice")]), None);
    builder.forget_watermarks(50);
    let snapshot = fetched(&builder.build().unwrap());
    assert_eq!(snapshot.watermark(all), Some(50));
    assert_eq!(snapshot.watermark([Scope::User("OP1/alice")]), None);
}

#[test]
fn keys_are_found_by_kid_only() {
    let snapshot = fetched(&builder().build().unwrap());
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
    let snapshot = fetched(&builder.build().unwrap());
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
    let built = builder.build().unwrap();
    let (_, bytes) = built.objects.iter().find(|(entry, _)| entry.kind() == Kind::Keys).unwrap();
    assert_eq!(bytes[..], [0, 0], "no key at all");
}

#[test]
fn a_manifest_opens_only_with_a_pinned_key_and_for_its_audience() {
    let entries = builder().build().unwrap().entries;
    let good = signed(&entries, 7);
    let manifest = open(&good).unwrap();
    assert_eq!((manifest.version(), manifest.issued_at(), manifest.expires_at()), (7, 1_000, 61_000));
    assert_eq!(manifest.entries(), entries);
    assert_eq!(manifest.bytes(), good);

    let foreign =
        Draft { audience: "other", version: 7, issued_at: 1_000, expires_at: 61_000, entries: &entries };
    let body = good[..good.len() - 64].to_vec();
    let stranger = Publisher::new(&[9; 32]);
    let forged = {
        // Another key under our key's name.
        let mut bytes = stranger.sign(&foreign).unwrap();
        bytes[4..12].copy_from_slice(&good[4..12]);
        bytes
    };
    let resign = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut body = body.clone();
        change(&mut body);
        publisher().sign_body(body)
    };
    for (bytes, why) in [
        (stranger.sign(&foreign).unwrap(), "manifest_key_unknown"),
        (forged, "manifest_signature_invalid"),
        (publisher().sign(&foreign).unwrap(), "manifest_audience_mismatch"),
        (good[..good.len() - 1].to_vec(), "manifest_signature_invalid"),
        ([&good[..], b"x"].concat(), "manifest_signature_invalid"),
        (vec![0; 5000], "manifest_too_long"),
        (vec![], "manifest_malformed"),
        (resign(&|body| body.push(0)), "manifest_malformed"),
        (resign(&|body| body.truncate(body.len() - 1)), "manifest_malformed"),
        (resign(&|body| body[28..36].copy_from_slice(&1_000u64.to_be_bytes())), "manifest_malformed"),
        (resign(&|body| body[37] = 0xff), "manifest_malformed"),
        // The entries in another order, one twice, and an unknown kind.
        (
            resign(&|body| {
                let end = body.len();
                body.copy_within(end - 80..end - 40, end - 40)
            }),
            "manifest_malformed",
        ),
        (
            resign(&|body| {
                let at = body.len() - 40;
                body[at] = 99
            }),
            "manifest_malformed",
        ),
    ] {
        assert_eq!(open(&bytes).unwrap_err().code(), why);
    }
}

#[test]
fn the_newer_version_supersedes_and_the_same_one_signed_later() {
    let at = |version, issued_at| {
        let draft =
            Draft { audience: "default", version, issued_at, expires_at: issued_at + 1, entries: &[] };
        open(&publisher().sign(&draft).unwrap()).unwrap()
    };
    let held = at(5, 1_000);
    for (version, issued_at, newer) in
        [(5, 1_000, false), (5, 999, false), (5, 1_001, true), (4, 9_999, false), (6, 1, true)]
    {
        assert_eq!(at(version, issued_at).supersedes(&held), newer, "{version} {issued_at}");
    }
}

#[test]
fn an_object_is_the_one_that_the_manifest_names() {
    let built = builder().build().unwrap();
    for (entry, bytes) in &built.objects {
        assert!(entry.open(bytes.to_vec()).is_ok());
        let mut swapped = bytes.to_vec();
        swapped[0] ^= 1;
        assert_eq!(entry.open(swapped).unwrap_err().code(), "object_hash_mismatch");
        let cut = bytes[..bytes.len() - 1].to_vec();
        assert_eq!(entry.open(cut).unwrap_err().code(), "object_size_mismatch");
    }
}

#[test]
fn a_snapshot_needs_every_object() {
    let mut builder = builder();
    (0..20_000).for_each(|number| assert_eq!(builder.revoke(fingerprint(number)), Ok(true)));
    let built = builder.build().unwrap();
    for left_out in &built.entries {
        // Not fetched.
        let manifest = open(&signed(&built.entries, 1)).unwrap();
        let mut objects = Objects::default();
        for (entry, bytes) in built.objects.iter().filter(|(entry, _)| entry != left_out) {
            objects.open(*entry, bytes.to_vec()).unwrap();
        }
        assert_eq!(objects.missing(&manifest), [*left_out]);
        assert!(Snapshot::assemble(manifest, &objects).is_err());
        // Not even named: only the secret keys are not in every bundle.
        let named: Vec<Entry> = built.entries.iter().filter(|entry| *entry != left_out).copied().collect();
        let manifest = open(&signed(&named, 1)).unwrap();
        assert_eq!(
            Snapshot::assemble(manifest, &objects).is_ok(),
            matches!(left_out.kind(), Kind::Keys | Kind::SecretKeys)
        );
    }
}

/// Both planes read these bytes; a change of the format must change its version, never these.
#[test]
fn the_committed_vectors_are_what_is_built() {
    let mut builder = builder();
    (0..200).for_each(|number| assert_eq!(builder.revoke(fingerprint(number)), Ok(true)));
    builder.watermark(Scope::Operator("OP0123456789"), 1_700_000_000);
    builder.watermark(Scope::Global, 1_600_000_000);
    let built = builder.build().unwrap();
    let mut lines = format!("manifest {}\n", hex(&signed(&built.entries, 42)));
    for (entry, bytes) in &built.objects {
        lines += &format!("{:?}/{} {}\n", entry.kind(), entry.shard(), hex(bytes));
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/bundle-v1.txt");
    if std::env::var_os("KEYSTILE_WRITE_VECTORS").is_some() {
        std::fs::write(path, &lines).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), lines);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
                let new = builder.revoke(fingerprint).unwrap_or(false);
                prop_assert_eq!(new, !set.contains_key(&fingerprint.prefix()));
                set.entry(fingerprint.prefix()).or_insert(fingerprint);
            } else if let Some((prefix, held)) = set.iter().nth(usize::from(step.1)).map(|(p, f)| (*p, *f)) {
                prop_assert!(builder.forget(&held));
                set.remove(&prefix);
                builder.build().unwrap();
            }
        }
        let snapshot = fetched(&builder.build().unwrap());
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
            prop_assert_eq!(snapshot.standing(&fingerprint) == Standing::Revoked, revoked);
        }
    }

    #[test]
    fn any_watermarks_are_found_again(instants in prop::collection::btree_map("[a-z]{1,3}", any::<u64>(), 0..3000)) {
        let mut builder = builder();
        for (id, instant) in &instants {
            builder.watermark(Scope::User(id), *instant);
        }
        let snapshot = fetched(&builder.build().unwrap());
        for (id, instant) in &instants {
            prop_assert_eq!(snapshot.watermark([Scope::User(id)]), Some(*instant));
            prop_assert_eq!(snapshot.watermark([Scope::AuthKey(id)]), None);
        }
    }
}
