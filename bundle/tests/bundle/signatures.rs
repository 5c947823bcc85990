//! Nothing opens that the right key has not signed, for this audience, in the one spelling there is.

use bundle::{
    Delegation, Kind, Manifest, PublicKey,
    builder::{CheckpointDraft, Delegates, Draft, Root, SnapshotKey, TailKey},
};

use crate::world::{
    NOW, Object, builder, checkpoint, delegation, delegation_to, open, opened_delegation, root, settled,
    signed, snapshot_key, tail_key,
};

#[test]
fn a_delegation_opens_only_with_a_pinned_root_and_for_its_audience() {
    let good = delegation(7);
    let open = |bytes: &[u8]| {
        Delegation::open(bytes, &[Root::new(&[8; 32]).public_key(), root().public_key()], "default")
    };
    let opened = open(&good).unwrap();
    assert_eq!((opened.epoch(), opened.issued_at(), opened.expires_at()), (7, NOW, NOW + 1_000_000_000));
    assert_eq!(opened.snapshot_keys(), [snapshot_key().public_key()]);
    assert_eq!(opened.tail_keys(), [tail_key().public_key()]);

    let [a, b, c]: [PublicKey; 3] = [4, 5, 6].map(|seed| TailKey::new(&[seed; 32]).public_key());
    let delegate = |audience, snapshot_keys: &[&PublicKey], tail_keys: &[&PublicKey]| {
        let [snapshot_keys, tail_keys] =
            [snapshot_keys, tail_keys].map(|keys| keys.iter().copied().cloned().collect::<Vec<_>>());
        let (snapshot_keys, tail_keys) = (&snapshot_keys[..], &tail_keys[..]);
        let delegates =
            Delegates { audience, epoch: 7, issued_at: 1, expires_at: 2, snapshot_keys, tail_keys };
        root().delegate(&delegates).unwrap()
    };
    let two = open(&delegate("default", &[&b, &a, &b], &[&c])).unwrap();
    assert_eq!(two.snapshot_keys().len(), 2, "each once, in whatever order they were given");
    let resigned = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut body = good[..good.len() - 64].to_vec();
        change(&mut body);
        root().sign_body(body)
    };
    let mut by_stranger = Root::new(&[9; 32]).sign_body(good[..good.len() - 64].to_vec());
    let under_our_name = by_stranger.clone();
    by_stranger[4] ^= 1;
    let tail = good.len() - 64;
    for (what, bytes, why) in [
        ("a stranger's", by_stranger, "delegation_key_unknown"),
        ("a stranger's under our root's name", under_our_name, "delegation_signature_invalid"),
        ("a tail key's", tail_key().sign_body(good[..tail].to_vec()), "delegation_signature_invalid"),
        (
            "a bit flipped",
            [&good[..20], &[good[20] ^ 1], &good[21..]].concat(),
            "delegation_signature_invalid",
        ),
        ("cut", good[..good.len() - 1].to_vec(), "delegation_signature_invalid"),
        ("nothing", vec![], "delegation_malformed"),
        ("another audience", delegate("other", &[&a], &[&b]), "delegation_audience_mismatch"),
        ("no audience", delegate("", &[&a], &[&b]), "delegation_malformed"),
        ("no snapshot key", delegate("default", &[], &[&b]), "delegation_malformed"),
        ("no tail key", delegate("default", &[&a], &[]), "delegation_malformed"),
        ("one key for both", delegate("default", &[&a, &b], &[&b]), "delegation_malformed"),
        ("trailing bytes", resigned(&|body| body.push(0)), "delegation_malformed"),
        ("a key too few", resigned(&|body| body.truncate(tail - 32)), "delegation_malformed"),
        ("expires as it begins", resigned(&|body| body.copy_within(20..28, 28)), "delegation_malformed"),
        ("a weak key", resigned(&|body| body[tail - 32..].fill(0)), "delegation_malformed"),
        ("another magic", resigned(&|body| body[3] = b'2'), "delegation_malformed"),
    ] {
        assert_eq!(open(&bytes).unwrap_err().code(), why, "{what}");
    }
    assert!(Delegation::open(&good, &[root().public_key()], "defaul").is_err());
    assert!(Delegation::open(&good, &[], "default").is_err());
}

#[test]
fn a_manifest_opens_only_with_a_key_that_the_root_delegated_to() {
    let mut builder = builder();
    builder.settle(1).unwrap();
    builder.revoke(2, crate::world::fingerprint(1)).unwrap();
    let built = builder.build().unwrap();
    let checkpoint = checkpoint(&built, 1);
    let good = signed(&checkpoint, &built.tail, 7);
    let manifest = open(&good).unwrap();
    assert_eq!((manifest.version(), manifest.issued_at(), manifest.expires_at()), (7, NOW, NOW + 60_000));
    assert_eq!((manifest.checkpoint(), manifest.tail()), (&checkpoint.0, &built.tail[..]));
    assert_eq!((manifest.bytes(), manifest.audience()), (&good[..], "default"));

    let signed_by = |key: &TailKey, delegation: &[u8]| {
        let draft = Draft {
            delegation,
            version: 7,
            issued_at: NOW,
            expires_at: NOW + 60_000,
            checkpoint: checkpoint.0,
            tail: &built.tail,
        };
        key.sign(&draft).unwrap()
    };
    let stranger = TailKey::new(&[9; 32]);
    let resigned = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut body = good[..good.len() - 64].to_vec();
        change(&mut body);
        tail_key().sign_body(body)
    };
    let strangers_delegation = {
        let delegates = Delegates {
            audience: "default",
            epoch: 9,
            issued_at: NOW,
            expires_at: NOW + 1,
            snapshot_keys: &[snapshot_key().public_key()],
            tail_keys: &[stranger.public_key()],
        };
        Root::new(&[9; 32]).delegate(&delegates).unwrap()
    };
    let under_our_name = {
        let mut bytes = signed_by(&stranger, &delegation(1));
        bytes[4..12].copy_from_slice(&good[4..12]);
        bytes
    };
    let snapshot_keys_own = snapshot_key().sign_body(good[..good.len() - 64].to_vec());
    let other_kind = built.checkpoint.iter().find(|entry| entry.kind() == Kind::Keys).unwrap();
    let naming = |tail: &[bundle::Entry], checkpoint| {
        let delegation = delegation(1);
        let draft = Draft {
            delegation: &delegation,
            version: 7,
            issued_at: NOW,
            expires_at: NOW + 1,
            checkpoint,
            tail,
        };
        tail_key().sign(&draft).unwrap()
    };
    let end = good.len() - 64;
    for (what, bytes, why) in [
        ("a stranger's", signed_by(&stranger, &delegation(1)), "manifest_key_unknown"),
        (
            "a stranger's, with a root of his own",
            signed_by(&stranger, &strangers_delegation),
            "delegation_key_unknown",
        ),
        ("a stranger's under our name", under_our_name, "manifest_signature_invalid"),
        ("the snapshot key's", snapshot_keys_own, "manifest_signature_invalid"),
        (
            "ours, not delegated to",
            signed_by(&tail_key(), &delegation_to(2, &snapshot_key(), &stranger)),
            "manifest_key_unknown",
        ),
        ("cut", good[..good.len() - 1].to_vec(), "manifest_signature_invalid"),
        ("a byte too many", [&good[..], b"x"].concat(), "manifest_signature_invalid"),
        ("too long", vec![0; 5000], "manifest_too_long"),
        ("nothing", vec![], "manifest_malformed"),
        ("trailing bytes", resigned(&|body| body.push(0)), "manifest_malformed"),
        ("a byte too few", resigned(&|body| body.truncate(end - 1)), "manifest_malformed"),
        ("expires as it begins", resigned(&|body| body.copy_within(20..28, 28)), "manifest_malformed"),
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
            "keys, which are a snapshot key's to name",
            naming(&[*other_kind], checkpoint.0),
            "manifest_malformed",
        ),
    ] {
        assert_eq!(open(&bytes).unwrap_err().code(), why, "{what}");
    }
    assert!(Manifest::open(&good, &[root().public_key()], "other").is_err());
}

#[test]
fn a_checkpoint_opens_only_with_a_snapshot_key_of_the_delegation() {
    let built = settled(&mut builder());
    let (entry, good) = checkpoint(&built, 7);
    assert!(entry.open(good.to_vec(), &opened_delegation()).is_ok());
    let signed_by = |key: &SnapshotKey, audience| -> Object {
        let draft = CheckpointDraft {
            audience,
            version: 7,
            issued_at: NOW,
            expires_at: NOW + 1,
            cut: 0,
            entries: &built.checkpoint,
        };
        key.sign(&draft).unwrap()
    };
    let of = |bytes: Vec<u8>| (bundle::Entry::of(Kind::Checkpoint, 0, &bytes).unwrap(), bytes.into());
    let end = good.len() - 64;
    let body = good[..end].to_vec();
    let resigned = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut body = body.clone();
        change(&mut body);
        of(snapshot_key().sign_body(body))
    };
    let named = |kind: u8| {
        resigned(&|body| {
            // The last entry becomes one of another kind, which none of the others is greater than.
            body[end - 40] = kind;
            body[end - 39] = 1;
        })
    };
    for (what, (entry, bytes), why) in [
        ("a stranger's", signed_by(&SnapshotKey::new(&[9; 32]), "default"), "checkpoint_key_unknown"),
        ("the tail key's", of(tail_key().sign_body(body.clone())), "checkpoint_signature_invalid"),
        ("of another audience", signed_by(&snapshot_key(), "other"), "checkpoint_audience_mismatch"),
        (
            "a bit flipped",
            of([&good[..30], &[good[30] ^ 1], &good[31..]].concat()),
            "checkpoint_signature_invalid",
        ),
        ("trailing bytes", resigned(&|body| body.push(0)), "object_malformed"),
        ("expires as it begins", resigned(&|body| body.copy_within(20..28, 28)), "object_malformed"),
        ("a checkpoint within", named(7), "object_malformed"),
        ("a tail within", named(8), "object_malformed"),
        ("a shard of a base outside a block", named(11), "object_malformed"),
    ] {
        let error = entry.open(bytes.to_vec(), &opened_delegation()).unwrap_err();
        assert_eq!(error.code(), why, "{what}");
    }
}

/// Rotation: a checkpoint that was signed before it must be signed anew, at edges that hold it too.
#[test]
fn a_checkpoint_of_a_key_that_is_none_any_more_is_not_held() {
    let built = settled(&mut builder());
    let checkpoint = checkpoint(&built, 1);
    let before = open(&signed(&checkpoint, &[], 1)).unwrap();
    let mut objects = crate::world::fetch(&before, &[&built.objects, std::slice::from_ref(&checkpoint)]);
    let after = delegation_to(2, &SnapshotKey::new(&[9; 32]), &tail_key());
    let draft = Draft {
        delegation: &after,
        version: 2,
        issued_at: NOW,
        expires_at: NOW + 1,
        checkpoint: checkpoint.0,
        tail: &[],
    };
    let after = open(&tail_key().sign(&draft).unwrap()).unwrap();
    assert_eq!(objects.missing(&after, NOW), [checkpoint.0]);
    let error = objects.open(&after, checkpoint.0, checkpoint.1.to_vec()).unwrap_err();
    assert_eq!(error.code(), "checkpoint_key_unknown");
}
