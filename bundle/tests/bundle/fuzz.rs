//! One fuzz target per decoder. `cargo test` runs each for a short time, `cargo bolero test` for a long time.
//!
//! The inputs are arbitrary bytes, and a valid encoding with arbitrary edits, with a correct hash or signature: the input
//! that an edge would receive from a faulty publisher.

use bolero::check;
use bundle::{
    Coverage, Delegation, Entry, ExpiryRange, ObjectKind, Objects, Scope, Snapshot, base,
    builder::{BlockBuilder, BuiltBlock, BuiltBundle, SecretKey},
};
use token::{
    Fingerprint,
    api_key::{Kind as ApiKeyKind, MintingKey},
    mint::SigningKey,
};

use crate::fixtures::{
    NOW, Object, builder, checkpoint, checkpoint_of, delegation, fingerprint, open_delegation, open_manifest,
    root, sign_manifest, snapshot_key, tail_key,
};

type Edits = Vec<(u16, u8)>;

fn small_block() -> BuiltBlock {
    let span = ExpiryRange { expires_from: 5, expires_before: u64::MAX };
    let range = |kid: &str, iat_low, iat_high| Coverage { kid: kid.into(), iat_low, iat_high };
    let coverage = vec![range("k1", 5, 9), range("k1", 11, 11), range("k2", 0, u64::MAX)];
    let mut block = BlockBuilder::new(span, coverage, 9, 300, b"").unwrap();
    let mut members: Vec<u64> = (0..300).collect();
    members.sort_by_key(|number| fingerprint(*number).prefix());
    for number in members {
        block.add(fingerprint(number), number < 9).unwrap();
    }
    block.finish().unwrap()
}

/// Builds a bundle with an object of every kind except gaps.
fn valid_bundle() -> BuiltBundle {
    let mut builder = builder();
    let own = SigningKey::ed25519("k1", &[2; 32]).unwrap();
    let signed = MintingKey::new(3, ApiKeyKind::Signed, &[7; 32]).unwrap();
    builder.set_public_keys([own.verifying_key()], [signed.generation_key()]).unwrap();
    let [tag, short] = [(1, [5; 32]), (2, [6; 32])];
    builder
        .set_secret_keys([
            SecretKey::from(("k2", &[3; 32][..])),
            SecretKey::Tag { generation: tag.0, secret: &tag.1 },
            SecretKey::ShortTag { generation: short.0, secret: &short.1 },
        ])
        .unwrap();
    for number in 0..300u64 {
        builder.revoke(1, fingerprint(number)).unwrap();
        builder.unrevoke(fingerprint(number + 1000)).unwrap();
        builder.raise_watermark(1, Scope::User(&number.to_string()), number);
        builder
            .set_grant(&number.to_string(), &number.to_be_bytes()[7 - usize::from(number > 99)..])
            .unwrap();
    }
    builder.install_block(small_block()).unwrap();
    builder.checkpoint(1).unwrap();
    for number in 300..400 {
        builder.revoke(number, fingerprint(number)).unwrap();
        builder.raise_watermark(number, Scope::User(&number.to_string()), number);
    }
    builder.build().unwrap()
}

fn apply_edits(bytes: &[u8], edits: &Edits) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, byte) in edits {
        match usize::from(*at) % (bytes.len() + 1) {
            at if at == bytes.len() => bytes.push(*byte),
            at if at % 5 == 0 => drop(bytes.remove(at)),
            at => bytes[at] = *byte,
        }
    }
    bytes
}

/// Replaces the object of this kind by `bytes`, opens the bundle, and calls every look-up if it opens.
fn check_object(built: &BuiltBundle, kind: ObjectKind, bytes: Vec<u8>) {
    let Some(entry) = Entry::for_bytes(kind, 0, &bytes) else { return };
    let replaced: Object = (entry, bytes.into());
    let mut entries: Vec<Entry> = built.checkpoint.clone();
    let mut tail = built.tail.clone();
    match kind {
        ObjectKind::Checkpoint => {}
        ObjectKind::Tail => tail = vec![entry],
        _ => {
            entries.retain(|other| other.kind() != kind);
            entries.push(entry);
            entries.sort();
        }
    }
    let checkpoint = match kind {
        ObjectKind::Checkpoint => replaced.clone(),
        _ => checkpoint_of(&entries, 1, 0),
    };
    let manifest = open_manifest(&sign_manifest(&checkpoint, &tail, 1)).unwrap();
    let mut objects = Objects::default();
    loop {
        let missing = objects.missing(&manifest, NOW);
        if missing.is_empty() {
            break;
        }
        for entry in missing {
            let known =
                built.objects.iter().chain([&replaced, &checkpoint]).find(|(known, _)| *known == entry);
            let Some((_, bytes)) = known else { return };
            if objects.open(&manifest, entry, bytes.to_vec()).is_err() {
                return;
            }
        }
    }
    let Ok(snapshot) = Snapshot::assemble(manifest, &objects, NOW) else { return };
    let fingerprints = (0..310).map(fingerprint).chain([[0; 32], [255; 32]].map(Fingerprint::from));
    for fingerprint in fingerprints {
        let _ = snapshot.revocation_status(&fingerprint, "k1", 7, None);
    }
    for number in 0..410u64 {
        let _ = snapshot.watermark([Scope::User(&number.to_string())]);
        let _ = snapshot.grant(&number.to_string());
    }
    for generation in 0..=u8::MAX {
        let _ = snapshot.generation_key(generation);
    }
}

macro_rules! object_targets {
    ($($name:ident: $kind:expr),* $(,)?) => {$(
        #[test]
        fn $name() {
            let valid = valid_bundle();
            let bytes = valid.objects.iter().find(|(entry, _)| entry.kind() == $kind).map_or(&[][..], |(_, bytes)| bytes);
            check!().with_type::<(Vec<u8>, Edits)>().for_each(|(arbitrary, edits)| {
                check_object(&valid, $kind, arbitrary.clone());
                check_object(&valid, $kind, apply_edits(bytes, edits));
            });
        }
    )*};
}

object_targets! {
    keys: ObjectKind::Keys,
    secret_keys: ObjectKind::SecretKeys,
    revocations: ObjectKind::Revocations,
    watermarks: ObjectKind::Watermarks,
    index: ObjectKind::Index,
    grants: ObjectKind::Grants,
    tail: ObjectKind::Tail,
    unrevocations: ObjectKind::Unrevocations,
    block: ObjectKind::Block,
    gaps: ObjectKind::Gaps,
    known: ObjectKind::Known,
    requirements: ObjectKind::Requirements,
}

/// Decodes a shard of a block directly, because the hash in the head of the block would reject edited bytes.
#[test]
fn base() {
    let members = |numbers: std::ops::Range<u64>| numbers.map(fingerprint).filter(|f| f.prefix() >> 63 == 0);
    let sets = [(0, 0), (5, 20), (90, 800)];
    let valids = sets.map(|(revoked, all)| {
        base::build_shard(1, 0, b"", members(0..revoked), members(revoked..all)).unwrap().bytes().to_vec()
    });
    check!().with_type::<(Vec<u8>, Edits)>().for_each(|(arbitrary, edits)| {
        let edited = valids.iter().map(|valid| apply_edits(valid, edits));
        for bytes in edited.chain([arbitrary.clone()]) {
            let Ok(shard) = base::RibbonShard::decode(bytes.clone(), 0) else { continue };
            assert_eq!(shard.bytes(), bytes, "the encoding is canonical");
            for fingerprint in (0..50).map(fingerprint).chain([[0; 32].into(), [255; 32].into()]) {
                let _ = shard.contains(&fingerprint);
            }
        }
    });
}

/// Deserializes a block in the format of its builder.
#[test]
fn stored_block() {
    let valid = small_block().to_bytes();
    check!().with_type::<(Vec<u8>, Edits)>().for_each(|(arbitrary, edits)| {
        for bytes in [arbitrary.clone(), apply_edits(&valid, edits)] {
            if let Ok(block) = BuiltBlock::from_bytes(&bytes) {
                assert_eq!(block.to_bytes(), bytes, "the encoding is canonical");
            }
        }
    });
}

#[test]
fn manifest() {
    let built = valid_bundle();
    let valid = sign_manifest(&checkpoint(&built, 1), &built.tail, 1);
    check!().with_type::<(Vec<u8>, Edits)>().for_each(|(arbitrary, edits)| {
        assert!(open_manifest(arbitrary).is_err(), "not signed");
        let _ = open_manifest(&tail_key().sign_body(arbitrary.clone()));
        let body = apply_edits(&valid[..valid.len() - 64], edits);
        if let Ok(manifest) = open_manifest(&tail_key().sign_body(body.clone())) {
            assert_eq!(&manifest.bytes()[..body.len()], body, "the encoding is canonical");
        }
    });
}

#[test]
fn delegation_body() {
    let valid = delegation(1);
    let open_with_root = |bytes: &[u8]| Delegation::open(bytes, &[root().public_key()], "default");
    check!().with_type::<(Vec<u8>, Edits)>().for_each(|(arbitrary, edits)| {
        assert!(open_with_root(arbitrary).is_err(), "not signed");
        let _ = open_with_root(&root().sign_body(arbitrary.clone()));
        let _ = open_with_root(&root().sign_body(apply_edits(&valid[..valid.len() - 64], edits)));
    });
}

#[test]
fn checkpoint_body() {
    let built = valid_bundle();
    let (_, valid) = checkpoint(&built, 1);
    let delegation = open_delegation();
    check!().with_type::<(Vec<u8>, Edits)>().for_each(|(arbitrary, edits)| {
        check_object(&built, ObjectKind::Checkpoint, arbitrary.clone());
        for body in [arbitrary.clone(), apply_edits(&valid[..valid.len() - 64], edits)] {
            let bytes = snapshot_key().sign_body(body);
            if Entry::for_bytes(ObjectKind::Checkpoint, 0, &bytes)
                .is_some_and(|entry| entry.open(bytes.clone(), &delegation).is_ok())
            {
                check_object(&built, ObjectKind::Checkpoint, bytes);
            }
        }
    });
}
