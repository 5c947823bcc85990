//! Delegations, manifests and checkpoints open only with a signature by the right key, for this audience, in the canonical
//! encoding.

use bundle::{
    Delegation, Entry, MAX_MANIFEST_BYTES, Manifest, ObjectKind, PublicKey,
    builder::{CheckpointFields, DelegationFields, ManifestFields, RootKey, SnapshotKey, TailKey},
};

use crate::fixtures::{
    NOW, Object, build_with_checkpoint, builder, checkpoint, delegation, delegation_to, open_delegation,
    open_manifest, root, sign_manifest, snapshot_key, tail_key,
};

#[test]
fn delegation_requires_a_pinned_root_key_and_its_audience() {
    let good = delegation(7);
    let open_with_root = |bytes: &[u8]| {
        Delegation::open(bytes, &[RootKey::new(&[8; 32]).public_key(), root().public_key()], "default")
    };
    let opened = open_with_root(&good).unwrap();
    assert_eq!((opened.epoch(), opened.issued_at(), opened.expires_at()), (7, NOW, NOW + 1_000_000_000));
    assert_eq!(opened.snapshot_keys(), [snapshot_key().public_key()]);
    assert_eq!(opened.tail_keys(), [tail_key().public_key()]);

    let [a, b, c]: [PublicKey; 3] = [4, 5, 6].map(|seed| TailKey::new(&[seed; 32]).public_key());
    let delegate = |audience, snapshot_keys: &[&PublicKey], tail_keys: &[&PublicKey]| {
        let [snapshot_keys, tail_keys] =
            [snapshot_keys, tail_keys].map(|keys| keys.iter().copied().cloned().collect::<Vec<_>>());
        let (snapshot_keys, tail_keys) = (&snapshot_keys[..], &tail_keys[..]);
        let fields =
            DelegationFields { audience, epoch: 7, issued_at: 1, expires_at: 2, snapshot_keys, tail_keys };
        root().delegate(&fields).unwrap()
    };
    let two = open_with_root(&delegate("default", &[&b, &a, &b], &[&c])).unwrap();
    assert_eq!(two.snapshot_keys().len(), 2, "sorted and without duplicates");
    let resigned = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut body = good[..good.len() - 64].to_vec();
        change(&mut body);
        root().sign_body(body)
    };
    let mut by_other_root = RootKey::new(&[9; 32]).sign_body(good[..good.len() - 64].to_vec());
    let under_pinned_id = by_other_root.clone();
    by_other_root[4] ^= 1;
    let tail = good.len() - 64;
    for (case, bytes, code) in [
        ("another key", by_other_root, "delegation_key_unknown"),
        ("another root key with the id of the pinned one", under_pinned_id, "delegation_signature_invalid"),
        ("signed by a tail key", tail_key().sign_body(good[..tail].to_vec()), "delegation_signature_invalid"),
        ("flipped bit", [&good[..20], &[good[20] ^ 1], &good[21..]].concat(), "delegation_signature_invalid"),
        ("truncated", good[..good.len() - 1].to_vec(), "delegation_signature_invalid"),
        ("empty", vec![], "delegation_malformed"),
        ("another audience", delegate("other", &[&a], &[&b]), "delegation_audience_mismatch"),
        ("no audience", delegate("", &[&a], &[&b]), "delegation_malformed"),
        ("no snapshot key", delegate("default", &[], &[&b]), "delegation_malformed"),
        ("no tail key", delegate("default", &[&a], &[]), "delegation_malformed"),
        ("one key for both", delegate("default", &[&a, &b], &[&b]), "delegation_malformed"),
        ("trailing bytes", resigned(&|body| body.push(0)), "delegation_malformed"),
        ("one key too few", resigned(&|body| body.truncate(tail - 32)), "delegation_malformed"),
        (
            "expiry at the time of signing",
            resigned(&|body| body.copy_within(20..28, 28)),
            "delegation_malformed",
        ),
        ("a weak key", resigned(&|body| body[tail - 32..].fill(0)), "delegation_malformed"),
        ("another magic", resigned(&|body| body[3] = b'2'), "delegation_malformed"),
    ] {
        assert_eq!(open_with_root(&bytes).unwrap_err().code(), code, "{case}");
    }
    assert!(Delegation::open(&good, &[root().public_key()], "defaul").is_err());
    assert!(Delegation::open(&good, &[], "default").is_err());
}

#[test]
fn manifest_requires_a_delegated_tail_key() {
    let mut builder = builder();
    builder.checkpoint(1).unwrap();
    builder.revoke(2, crate::fixtures::fingerprint(1)).unwrap();
    let built = builder.build().unwrap();
    let checkpoint = checkpoint(&built, 1);
    let good = sign_manifest(&checkpoint, &built.tail, 7);
    let manifest = open_manifest(&good).unwrap();
    assert_eq!((manifest.version(), manifest.issued_at(), manifest.expires_at()), (7, NOW, NOW + 60_000));
    assert_eq!((manifest.checkpoint(), manifest.tail()), (&checkpoint.0, &built.tail[..]));
    assert_eq!((manifest.bytes(), manifest.audience()), (&good[..], "default"));

    let signed_by = |key: &TailKey, delegation: &[u8]| {
        let fields = ManifestFields {
            delegation,
            version: 7,
            issued_at: NOW,
            expires_at: NOW + 60_000,
            checkpoint: checkpoint.0,
            tail: &built.tail,
        };
        key.sign(&fields).unwrap()
    };
    let other_key = TailKey::new(&[9; 32]);
    let resigned = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut body = good[..good.len() - 64].to_vec();
        change(&mut body);
        tail_key().sign_body(body)
    };
    let other_delegation = {
        let fields = DelegationFields {
            audience: "default",
            epoch: 9,
            issued_at: NOW,
            expires_at: NOW + 1,
            snapshot_keys: &[snapshot_key().public_key()],
            tail_keys: &[other_key.public_key()],
        };
        RootKey::new(&[9; 32]).delegate(&fields).unwrap()
    };
    let under_pinned_id = {
        let mut bytes = signed_by(&other_key, &delegation(1));
        bytes[4..12].copy_from_slice(&good[4..12]);
        bytes
    };
    let by_snapshot_key = snapshot_key().sign_body(good[..good.len() - 64].to_vec());
    let other_kind = built.checkpoint.iter().find(|entry| entry.kind() == ObjectKind::Keys).unwrap();
    let naming = |tail: &[bundle::Entry], checkpoint| {
        let delegation = delegation(1);
        let fields = ManifestFields {
            delegation: &delegation,
            version: 7,
            issued_at: NOW,
            expires_at: NOW + 1,
            checkpoint,
            tail,
        };
        tail_key().sign(&fields).unwrap()
    };
    let end = good.len() - 64;
    for (case, bytes, code) in [
        ("another key", signed_by(&other_key, &delegation(1)), "manifest_key_unknown"),
        (
            "another tail key, delegated by another root key",
            signed_by(&other_key, &other_delegation),
            "delegation_key_unknown",
        ),
        ("another tail key with the id of the delegated one", under_pinned_id, "manifest_signature_invalid"),
        ("signed by the snapshot key", by_snapshot_key, "manifest_signature_invalid"),
        (
            "our tail key, not delegated",
            signed_by(&tail_key(), &delegation_to(2, &snapshot_key(), &other_key)),
            "manifest_key_unknown",
        ),
        ("truncated", good[..good.len() - 1].to_vec(), "manifest_signature_invalid"),
        ("one byte too many", [&good[..], b"x"].concat(), "manifest_signature_invalid"),
        ("too long", vec![0; 5000], "manifest_too_long"),
        ("empty", vec![], "manifest_malformed"),
        ("trailing bytes", resigned(&|body| body.push(0)), "manifest_malformed"),
        ("one byte too few", resigned(&|body| body.truncate(end - 1)), "manifest_malformed"),
        (
            "expiry at the time of signing",
            resigned(&|body| body.copy_within(20..28, 28)),
            "manifest_malformed",
        ),
        ("the first format", resigned(&|body| body[3] = b'1'), "manifest_malformed"),
        (
            "entries in another order",
            resigned(&|body| {
                let (a, b) = (body[end - 80..end - 40].to_vec(), body[end - 40..].to_vec());
                body.truncate(end - 80);
                body.extend([b, a].concat());
            }),
            "manifest_malformed",
        ),
        ("an unknown kind", resigned(&|body| body[end - 40] = 99), "manifest_malformed"),
        ("an unknown format", resigned(&|body| body[end - 39] = 99), "manifest_malformed"),
        ("no checkpoint", naming(&[], built.tail[0]), "manifest_malformed"),
        (
            "keys, which only a checkpoint may name",
            naming(&[*other_kind], checkpoint.0),
            "manifest_malformed",
        ),
    ] {
        assert_eq!(open_manifest(&bytes).unwrap_err().code(), code, "{case}");
    }
    assert!(Manifest::open(&good, &[root().public_key()], "other").is_err());
}

#[test]
fn manifest_has_at_most_the_maximum_length() {
    let entry = |kind, shard| Entry::for_bytes(kind, shard, b"an object").unwrap();
    let tail: Vec<Entry> = (0..94).map(|segment| entry(ObjectKind::Tail, segment)).collect();
    // One character of the audience is one byte of the manifest.
    let manifest_for = |audience: &str| {
        let delegates = DelegationFields {
            audience,
            epoch: 1,
            issued_at: NOW,
            expires_at: NOW + 1,
            snapshot_keys: &[snapshot_key().public_key()],
            tail_keys: &[tail_key().public_key()],
        };
        let fields = ManifestFields {
            delegation: &root().delegate(&delegates).unwrap(),
            version: 1,
            issued_at: NOW,
            expires_at: NOW + 1,
            checkpoint: entry(ObjectKind::Checkpoint, 0),
            tail: &tail,
        };
        tail_key().sign(&fields).unwrap()
    };
    let longest = "a".repeat(25);
    let bytes = manifest_for(&longest);
    assert_eq!(bytes.len(), MAX_MANIFEST_BYTES);
    assert!(Manifest::open(&bytes, &[root().public_key()], &longest).is_ok());
    let too_long = Manifest::open(&[0; MAX_MANIFEST_BYTES + 1], &[root().public_key()], &longest);
    assert_eq!(too_long.unwrap_err().code(), "manifest_too_long");
}

#[test]
fn checkpoint_requires_a_delegated_snapshot_key() {
    let built = build_with_checkpoint(&mut builder());
    let (entry, good) = checkpoint(&built, 7);
    assert!(entry.open(good.to_vec(), &open_delegation()).is_ok());
    let signed_by = |key: &SnapshotKey, audience| -> Object {
        let fields = CheckpointFields {
            audience,
            version: 7,
            issued_at: NOW,
            expires_at: NOW + 1,
            covered_until: 0,
            entries: &built.checkpoint,
        };
        key.sign(&fields).unwrap()
    };
    let of =
        |bytes: Vec<u8>| (bundle::Entry::for_bytes(ObjectKind::Checkpoint, 0, &bytes).unwrap(), bytes.into());
    let end = good.len() - 64;
    let body = good[..end].to_vec();
    let resigned = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut body = body.clone();
        change(&mut body);
        of(snapshot_key().sign_body(body))
    };
    let named = |kind: u8| {
        resigned(&|body| {
            // Changes the kind of the last entry.
            body[end - 40] = kind;
            body[end - 39] = 1;
        })
    };
    for (case, (entry, bytes), code) in [
        ("another key", signed_by(&SnapshotKey::new(&[9; 32]), "default"), "checkpoint_key_unknown"),
        ("signed by the tail key", of(tail_key().sign_body(body.clone())), "checkpoint_signature_invalid"),
        ("of another audience", signed_by(&snapshot_key(), "other"), "checkpoint_audience_mismatch"),
        (
            "flipped bit",
            of([&good[..30], &[good[30] ^ 1], &good[31..]].concat()),
            "checkpoint_signature_invalid",
        ),
        ("trailing bytes", resigned(&|body| body.push(0)), "object_malformed"),
        ("expiry at the time of signing", resigned(&|body| body.copy_within(20..28, 28)), "object_malformed"),
        ("a checkpoint within", named(7), "object_malformed"),
        ("a tail within", named(8), "object_malformed"),
        ("a shard of a base outside a block", named(11), "object_malformed"),
    ] {
        let error = entry.open(bytes.to_vec(), &open_delegation()).unwrap_err();
        assert_eq!(error.code(), code, "{case}");
    }
}

/// After a rotation, a checkpoint under the previous key must be signed again, even for edges that have it.
#[test]
fn checkpoint_of_a_removed_key_is_not_accepted() {
    let built = build_with_checkpoint(&mut builder());
    let checkpoint = checkpoint(&built, 1);
    let before = open_manifest(&sign_manifest(&checkpoint, &[], 1)).unwrap();
    let mut objects = crate::fixtures::fetch(&before, &[&built.objects, std::slice::from_ref(&checkpoint)]);
    let after = delegation_to(2, &SnapshotKey::new(&[9; 32]), &tail_key());
    let fields = ManifestFields {
        delegation: &after,
        version: 2,
        issued_at: NOW,
        expires_at: NOW + 1,
        checkpoint: checkpoint.0,
        tail: &[],
    };
    let after = open_manifest(&tail_key().sign(&fields).unwrap()).unwrap();
    assert_eq!(objects.missing(&after, NOW), [checkpoint.0]);
    let error = objects.open(&after, checkpoint.0, checkpoint.1.to_vec()).unwrap_err();
    assert_eq!(error.code(), "checkpoint_key_unknown");
}
