//! The revocation status of a credential follows from the tail, the checkpoint and the base, in this order.

use base16ct::lower::encode_string as hex;
use bundle::{
    Coverage, Entry, ExpiryRange, ObjectKind, RevocationStatus, Scope, Snapshot,
    builder::{BlockBuilder, BlockError, BuiltBlock, BuiltBundle},
};
use token::Fingerprint;

use crate::fixtures::{
    NOW, assert_vectors, builder, checkpoint, delegation, fetch, fingerprint, open_manifest, sign_manifest,
    snapshot_of,
};

const ANY_EXPIRY: ExpiryRange = ExpiryRange { expires_from: 0, expires_before: u64::MAX };

const SECONDS: u64 = NOW / 1000;

fn coverage(kid: &str, iat_low: u64, iat_high: u64) -> Coverage {
    Coverage { kid: kid.into(), iat_low, iat_high }
}

/// Builds a block in which the first `revoked` of `members` are revoked.
pub(crate) fn block(
    span: ExpiryRange,
    coverage: Vec<Coverage>,
    members: std::ops::Range<u64>,
    revoked: u64,
) -> BuiltBlock {
    let count = usize::try_from(members.end - members.start).unwrap();
    let few = usize::try_from(revoked).unwrap();
    let mut block = BlockBuilder::new(span, coverage, few, count - few, b"seed").unwrap();
    let mut listed: Vec<(Fingerprint, bool)> =
        members.clone().map(|number| (fingerprint(number), number < members.start + revoked)).collect();
    listed.sort_by_key(|(fingerprint, _)| fingerprint.prefix());
    for (fingerprint, revoked) in listed {
        block.add(fingerprint, revoked).unwrap();
    }
    block.finish().unwrap()
}

#[test]
fn latest_change_decides() {
    let mut builder = builder();
    // In the base, 0..10 are revoked and 10..100 are good.
    let number = builder.install_block(block(ANY_EXPIRY, vec![coverage("k1", 5, 9)], 0..100, 10)).unwrap();
    builder.checkpoint(1).unwrap();
    let status =
        |snapshot: &Snapshot, number| snapshot.revocation_status(&fingerprint(number), "k1", 7, Some(50));
    let all = |built: &BuiltBundle| {
        let snapshot = snapshot_of(built);
        [0, 1, 50, 51].map(|number| status(&snapshot, number))
    };
    use RevocationStatus::{Good, Revoked};
    assert_eq!(all(&builder.build().unwrap()), [Revoked, Revoked, Good, Good]);
    // A later revocation takes effect at once, an un-revocation with the next checkpoint.
    builder.revoke(2, fingerprint(50)).unwrap();
    assert_eq!(builder.unrevoke(fingerprint(1)), Ok(true));
    assert_eq!(builder.unrevoke(fingerprint(1)), Ok(false));
    assert_eq!(all(&builder.build().unwrap()), [Revoked, Revoked, Revoked, Good]);
    assert!(builder.needs_checkpoint());
    builder.checkpoint(2).unwrap();
    assert!(!builder.needs_checkpoint());
    assert_eq!(all(&builder.build().unwrap()), [Revoked, Good, Revoked, Good]);
    // A second revocation takes effect in the tail and in the checkpoint, and an un-revocation of a member of the tail
    // with the next checkpoint.
    builder.revoke(3, fingerprint(1)).unwrap();
    assert_eq!(all(&builder.build().unwrap()), [Revoked, Revoked, Revoked, Good]);
    builder.checkpoint(3).unwrap();
    assert_eq!(all(&builder.build().unwrap()), [Revoked, Revoked, Revoked, Good]);
    builder.revoke(4, fingerprint(51)).unwrap();
    builder.unrevoke(fingerprint(51)).unwrap();
    assert_eq!(
        all(&builder.build().unwrap())[3],
        Revoked,
        "the tail keeps its operations until the checkpoint"
    );
    builder.checkpoint(4).unwrap();
    assert_eq!(all(&builder.build().unwrap())[3], Good);
    // Without a block nothing is covered, and only listed fingerprints are revoked.
    assert!(builder.remove_block(number) && !builder.remove_block(number));
    builder.checkpoint(5).unwrap();
    assert_eq!(all(&builder.build().unwrap()), [RevocationStatus::NotCovered, Revoked, Revoked, Good]);
}

#[test]
fn expiry_range_includes_its_start_and_excludes_its_end() {
    let contains =
        |range: ExpiryRange, expiries: [Option<u64>; 4]| expiries.map(|expiry| range.contains(expiry));
    let bounded = ExpiryRange { expires_from: 10, expires_before: 20 };
    assert_eq!(contains(bounded, [Some(9), Some(10), Some(19), Some(20)]), [false, true, true, false]);
    assert!(!bounded.contains(None));
    let endless = ExpiryRange { expires_from: 10, expires_before: u64::MAX };
    assert_eq!(contains(endless, [Some(9), Some(10), Some(u64::MAX), None]), [false, true, true, true]);
}

#[test]
fn base_is_queried_only_within_its_coverage() {
    let mut builder = builder();
    let spans = [
        ExpiryRange { expires_from: SECONDS + 100, expires_before: SECONDS + 200 },
        ExpiryRange { expires_from: SECONDS + 200, expires_before: u64::MAX },
    ];
    let ranges = || vec![coverage("k1", 5, 9), coverage("k1", 11, 11), coverage("tag-1", 0, u64::MAX)];
    // Every member is revoked, so that an arbitrary answer is detected.
    builder.install_block(block(spans[0], ranges(), 0..40, 40)).unwrap();
    builder.install_block(block(spans[1], ranges(), 40..80, 40)).unwrap();
    builder.checkpoint(1).unwrap();
    let snapshot = snapshot_of(&builder.build().unwrap());
    for (kid, iat, expiry, covered) in [
        ("k1", 5, Some(100), true),
        ("k1", 9, Some(199), true),
        ("k1", 11, Some(150), true),
        ("tag-1", 0, None, true),
        ("tag-1", u64::MAX, Some(u64::MAX), true),
        ("k1", 4, Some(150), false),
        ("k1", 10, Some(150), false),
        ("k1", 12, Some(150), false),
        ("k1", 7, Some(99), false),
        ("k", 7, Some(150), false),
        ("k10", 7, Some(150), false),
        ("tag-10", 7, None, false),
        ("", 7, None, false),
    ] {
        let member = if expiry.is_some_and(|expiry| expiry < 200) { 7 } else { 47 };
        let expiry = expiry.map(|expiry| SECONDS.saturating_add(expiry));
        let status = snapshot.revocation_status(&fingerprint(member), kid, iat, expiry);
        let expected = if covered { RevocationStatus::Revoked } else { RevocationStatus::NotCovered };
        assert_eq!(status, expected, "{kid} {iat} {expiry:?}");
    }
}

#[test]
fn invalid_block_coverage_is_rejected() {
    let new = |span, coverage| BlockBuilder::new(span, coverage, 0, 0, b"").err();
    let empty_range = ExpiryRange { expires_from: 9, expires_before: 9 };
    assert_eq!(new(empty_range, vec![]), Some(BlockError::InvalidCoverage));
    assert_eq!(new(ANY_EXPIRY, vec![coverage("k", 9, 8)]), Some(BlockError::InvalidCoverage));
    assert_eq!(
        new(ANY_EXPIRY, vec![coverage("k", 1, 5), coverage("k", 5, 8)]),
        Some(BlockError::InvalidCoverage)
    );
    assert_eq!(new(ANY_EXPIRY, vec![coverage(&"k".repeat(256), 1, 5)]), Some(BlockError::InvalidCoverage));
    assert_eq!(new(ANY_EXPIRY, vec![coverage("l", 5, 8), coverage("k", 1, 9)]), None, "in any order");
    let mut block = BlockBuilder::new(ANY_EXPIRY, vec![], 0, 2, b"").unwrap();
    let [low, high] = [[1; 32], [2; 32]].map(Fingerprint::from);
    block.add(high, false).unwrap();
    assert_eq!(block.add(low, false), Err(BlockError::OutOfOrder(low)));
}

#[test]
fn block_serialization_round_trips() {
    let block = block(ANY_EXPIRY, vec![coverage("k1", 5, 9)], 0..5_000, 500);
    assert_eq!((block.member_count(), block.revoked_count()), (5_000, 500));
    let bytes = block.to_bytes();
    let again = BuiltBlock::from_bytes(&bytes).unwrap();
    assert_eq!(again, block);
    for number in 0..5_000 {
        assert_eq!(again.contains(&fingerprint(number)), number < 500, "{number}");
    }
    let mut damaged = bytes;
    *damaged.last_mut().unwrap() ^= 1;
    assert!(BuiltBlock::from_bytes(&damaged).is_err());
}

/// A shard that is right for all members is used again, and no other.
#[test]
fn replaced_block_is_exact_and_keeps_unchanged_shards() {
    const MEMBERS: u64 = 80_000;
    let build =
        |previous: Option<&BuiltBlock>, is_member: &dyn Fn(u64) -> bool, is_revoked: &dyn Fn(u64) -> bool| {
            let mut listed: Vec<u64> = (0..MEMBERS).filter(|number| is_member(*number)).collect();
            listed.sort_by_key(|number| fingerprint(*number).prefix());
            let mut block =
                BlockBuilder::new(ANY_EXPIRY, vec![coverage("k1", 5, 9)], 39_000, 40_000, b"").unwrap();
            if let Some(previous) = previous {
                block = block.replacing(previous.clone());
            }
            for number in &listed {
                block.add(fingerprint(*number), is_revoked(*number)).unwrap();
            }
            let built = block.finish().unwrap();
            for number in listed {
                assert_eq!(built.contains(&fingerprint(number)), is_revoked(number), "{number}");
            }
            built
        };
    let shards = |block: &BuiltBlock| -> Vec<[u8; 32]> {
        let mut builder = builder();
        builder.install_block(block.clone()).unwrap();
        builder.checkpoint(1).unwrap();
        let objects = builder.build().unwrap().objects;
        let of_base = objects.iter().filter(|(entry, _)| entry.kind() == ObjectKind::Base);
        of_base.map(|(entry, _)| *entry.sha256()).collect()
    };
    let half = |number: u64| number.is_multiple_of(2);
    let first = build(None, &|number| number > 9, &half);
    assert_eq!(shards(&first).len(), 2);
    assert_eq!(shards(&build(Some(&first), &|number| number > 9, &half)), shards(&first));
    let halves = |number: u64| fingerprint(number).prefix() >> 63;
    let changed = (10..).find(|number| half(*number) && halves(*number) == 0).unwrap();
    let second = build(Some(&first), &|number| number > 9, &|number| half(number) && number != changed);
    let (before, after) = (shards(&first), shards(&second));
    let kept: Vec<bool> = before.iter().map(|shard| after.contains(shard)).collect();
    assert_eq!(kept.iter().filter(|kept| **kept).count(), 1);
    // New members, for which the old shards are right by chance only, and a block with another number of shards.
    build(Some(&second), &|_| true, &half);
    build(Some(&block(ANY_EXPIRY, vec![coverage("k1", 5, 9)], 0..90, 3)), &|_| true, &half);
}

/// Edges keep the old shards until they have all new ones.
#[test]
fn block_numbers_of_the_current_checkpoint_are_not_reused() {
    let mut builder = builder();
    let small = || block(ANY_EXPIRY, vec![coverage("k1", 5, 9)], 0..9, 3);
    let first = builder.install_block(small()).unwrap();
    builder.checkpoint(1).unwrap();
    assert!(builder.remove_block(first));
    let second = builder.install_block(small()).unwrap();
    assert_ne!(first, second);
    builder.checkpoint(2).unwrap();
    assert!(builder.remove_block(second));
    assert_eq!(builder.install_block(small()).unwrap(), first, "the number is free again");
}

#[test]
fn tail_raises_watermarks_and_checkpoint_lowers_them() {
    let mut builder = builder();
    builder.raise_watermark(1, Scope::Global, 50);
    builder.checkpoint(1).unwrap();
    builder.raise_watermark(2, Scope::Global, 60);
    builder.raise_watermark(2, Scope::User("u"), 70);
    builder.raise_watermark(3, Scope::Global, 65);
    let watermarks = |built: &BuiltBundle| {
        let snapshot = snapshot_of(built);
        [snapshot.watermark([Scope::Global]), snapshot.watermark([Scope::Global, Scope::User("u")])]
    };
    assert_eq!(watermarks(&builder.build().unwrap()), [Some(65), Some(70)]);
    assert!(builder.remove_watermark(Scope::Global));
    assert_eq!(watermarks(&builder.build().unwrap()), [Some(65), Some(70)]);
    assert!(builder.needs_checkpoint());
    builder.checkpoint(3).unwrap();
    assert_eq!(watermarks(&builder.build().unwrap()), [None, Some(70)]);
}

#[test]
fn tail_grows_in_segments_until_a_checkpoint_is_due() {
    let mut builder = builder();
    builder.checkpoint(0).unwrap();
    let mut before: Vec<Entry> = Vec::new();
    for number in 1..=4_400_u64 {
        builder.revoke(number, fingerprint(number)).unwrap();
        if number % 7 == 0 {
            builder.raise_watermark(number, Scope::User(&number.to_string()), number);
        }
        if number % 40 != 0 {
            continue;
        }
        let built = builder.build().unwrap();
        assert!(built.tail.len() <= 4, "{:?}", built.tail);
        let new: Vec<&Entry> = built.tail.iter().filter(|entry| !before.contains(entry)).collect();
        assert!(new.iter().all(|entry| entry.kind() == ObjectKind::Tail));
        before = built.tail;
    }
    assert!(builder.needs_checkpoint());
    let snapshot = snapshot_of(&builder.build().unwrap());
    for number in 1..=4_400 {
        assert_eq!(
            snapshot.revocation_status(&fingerprint(number), "", 0, None),
            RevocationStatus::Revoked,
            "{number}"
        );
    }
    builder.checkpoint(4_400).unwrap();
    assert!(!builder.needs_checkpoint());
    assert_eq!(builder.build().unwrap().tail, []);
}

#[test]
fn bundle_matches_the_committed_vectors() {
    let mut builder = builder();
    for number in 0..80 {
        builder.revoke(1, fingerprint(number)).unwrap();
    }
    builder.unrevoke(fingerprint(1_000)).unwrap();
    builder.raise_watermark(1, Scope::Operator("OP0123456789"), 1_700_000_000);
    builder.raise_watermark(1, Scope::Global, 1_600_000_000);
    builder.set_grant("OP0123456789/alice", b"statements").unwrap();
    let span = ExpiryRange { expires_from: 1_700_000_000, expires_before: 1_700_086_400 };
    let ranges = vec![coverage("k1", 5, 9), coverage("k2", 0, u64::MAX)];
    builder.install_block(block(span, ranges, 2_000..2_100, 10)).unwrap();
    builder.checkpoint(1).unwrap();
    builder.revoke(7, fingerprint(300)).unwrap();
    builder.raise_watermark(7, Scope::User("OP0123456789/alice"), 1_700_000_001);
    builder.revoke(1_000, fingerprint(301)).unwrap();
    let built = builder.build().unwrap();
    let checkpoint = checkpoint(&built, 41);
    let manifest = sign_manifest(&checkpoint, &built.tail, 42);
    let mut lines = format!("delegation {}\nmanifest {}\n", hex(&delegation(1)), hex(&manifest));
    for (entry, bytes) in [&checkpoint].into_iter().chain(&built.objects) {
        lines += &format!("{} {}\n", entry.slot(), hex(bytes));
    }
    assert_vectors("bundle-v2.txt", &lines);
    let manifest = open_manifest(&manifest).unwrap();
    let objects = fetch(&manifest, &[&built.objects, &[checkpoint]]);
    assert!(Snapshot::assemble(manifest, &objects, NOW).is_ok());
}
