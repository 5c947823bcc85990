//! What an edge knows of a credential: tail, settled revocations, restorations and base, the last word first.

use bundle::{
    Coverage, Entry, Kind, Scope, Snapshot, Span, Standing,
    builder::{Block, BlockBuilder, BlockError, Built},
};
use token::Fingerprint;

use crate::world::{
    NOW, assert_vectors, builder, checkpoint, delegation, fetch, fetched, fingerprint, hex, open, signed,
};

const FOREVER: Span = Span { expires_from: 0, expires_before: u64::MAX };

const SECONDS: u64 = NOW / 1000;

fn coverage(kid: &str, iat_low: u64, iat_high: u64) -> Coverage {
    Coverage { kid: kid.into(), iat_low, iat_high }
}

/// Of `members`, the first `revoked` are.
pub(crate) fn block(
    span: Span,
    coverage: Vec<Coverage>,
    members: std::ops::Range<u64>,
    revoked: u64,
) -> Block {
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
fn the_last_word_counts() {
    let mut builder = builder();
    // 0..10 are revoked by the base, 10..100 are good.
    let number = builder.install(block(FOREVER, vec![coverage("k1", 5, 9)], 0..100, 10)).unwrap();
    builder.settle(1).unwrap();
    let asked = |snapshot: &Snapshot, number| snapshot.standing(&fingerprint(number), "k1", 7, Some(50));
    let all = |built: &Built| {
        let snapshot = fetched(built);
        [0, 1, 50, 51].map(|number| asked(&snapshot, number))
    };
    use Standing::{Good, Revoked};
    assert_eq!(all(&builder.build().unwrap()), [Revoked, Revoked, Good, Good]);
    // A revocation since then, and an un-revocation, which waits for a checkpoint.
    builder.revoke(2, fingerprint(50)).unwrap();
    assert_eq!(builder.restore(fingerprint(1)), Ok(true));
    assert_eq!(builder.restore(fingerprint(1)), Ok(false));
    assert_eq!(all(&builder.build().unwrap()), [Revoked, Revoked, Revoked, Good]);
    assert!(builder.needs_checkpoint());
    builder.settle(2).unwrap();
    assert!(!builder.needs_checkpoint());
    assert_eq!(all(&builder.build().unwrap()), [Revoked, Good, Revoked, Good]);
    // Revoked again, from the tail and once it is settled; and what was only in the tail is restored.
    builder.revoke(3, fingerprint(1)).unwrap();
    assert_eq!(all(&builder.build().unwrap()), [Revoked, Revoked, Revoked, Good]);
    builder.settle(3).unwrap();
    assert_eq!(all(&builder.build().unwrap()), [Revoked, Revoked, Revoked, Good]);
    builder.revoke(4, fingerprint(51)).unwrap();
    builder.restore(fingerprint(51)).unwrap();
    assert_eq!(all(&builder.build().unwrap())[3], Revoked, "the tail loses nothing before a checkpoint");
    builder.settle(4).unwrap();
    assert_eq!(all(&builder.build().unwrap())[3], Good);
    // Without its block nothing is covered, and only what is listed is revoked.
    assert!(builder.drop_block(number) && !builder.drop_block(number));
    builder.settle(5).unwrap();
    assert_eq!(all(&builder.build().unwrap()), [Standing::NotCovered, Revoked, Revoked, Good]);
}

#[test]
fn a_base_is_asked_only_about_what_it_covers() {
    let mut builder = builder();
    let spans = [
        Span { expires_from: SECONDS + 100, expires_before: SECONDS + 200 },
        Span { expires_from: SECONDS + 200, expires_before: u64::MAX },
    ];
    let ranges = || vec![coverage("k1", 5, 9), coverage("k1", 11, 11), coverage("tag-1", 0, u64::MAX)];
    // Every member is revoked, so that an answer by chance shows.
    builder.install(block(spans[0], ranges(), 0..40, 40)).unwrap();
    builder.install(block(spans[1], ranges(), 40..80, 40)).unwrap();
    builder.settle(1).unwrap();
    let snapshot = fetched(&builder.build().unwrap());
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
        let standing = snapshot.standing(&fingerprint(member), kid, iat, expiry);
        let expected = if covered { Standing::Revoked } else { Standing::NotCovered };
        assert_eq!(standing, expected, "{kid} {iat} {expiry:?}");
    }
}

#[test]
fn a_block_is_refused_whose_coverage_is_not_clear() {
    let new = |span, coverage| BlockBuilder::new(span, coverage, 0, 0, b"").err();
    let upside_down = Span { expires_from: 9, expires_before: 9 };
    assert_eq!(new(upside_down, vec![]), Some(BlockError::Coverage));
    assert_eq!(new(FOREVER, vec![coverage("k", 9, 8)]), Some(BlockError::Coverage));
    assert_eq!(new(FOREVER, vec![coverage("k", 1, 5), coverage("k", 5, 8)]), Some(BlockError::Coverage));
    assert_eq!(new(FOREVER, vec![coverage(&"k".repeat(256), 1, 5)]), Some(BlockError::Coverage));
    assert_eq!(new(FOREVER, vec![coverage("l", 5, 8), coverage("k", 1, 9)]), None, "in any order");
    let mut block = BlockBuilder::new(FOREVER, vec![], 0, 2, b"").unwrap();
    let [low, high] = [[1; 32], [2; 32]].map(Fingerprint::from);
    block.add(high, false).unwrap();
    assert_eq!(block.add(low, false), Err(BlockError::Order(low)));
}

#[test]
fn a_block_is_kept_and_taken_up_again() {
    let block = block(FOREVER, vec![coverage("k1", 5, 9)], 0..5_000, 500);
    assert_eq!((block.members(), block.revoked()), (5_000, 500));
    let bytes = block.to_bytes();
    let again = Block::from_bytes(&bytes).unwrap();
    assert_eq!(again, block);
    for number in 0..5_000 {
        assert_eq!(again.contains(&fingerprint(number)), number < 500, "{number}");
    }
    let mut damaged = bytes;
    *damaged.last_mut().unwrap() ^= 1;
    assert!(Block::from_bytes(&damaged).is_err());
}

/// Edges hold the old shards until the new ones are complete.
#[test]
fn a_new_block_never_takes_the_number_of_one_that_edges_hold() {
    let mut builder = builder();
    let small = || block(FOREVER, vec![coverage("k1", 5, 9)], 0..9, 3);
    let first = builder.install(small()).unwrap();
    builder.settle(1).unwrap();
    assert!(builder.drop_block(first));
    let second = builder.install(small()).unwrap();
    assert_ne!(first, second);
    builder.settle(2).unwrap();
    assert!(builder.drop_block(second));
    assert_eq!(builder.install(small()).unwrap(), first, "nobody holds that any more");
}

#[test]
fn a_watermark_in_the_tail_counts_and_only_a_checkpoint_lowers_it() {
    let mut builder = builder();
    builder.watermark(1, Scope::Global, 50);
    builder.settle(1).unwrap();
    builder.watermark(2, Scope::Global, 60);
    builder.watermark(2, Scope::User("u"), 70);
    builder.watermark(3, Scope::Global, 65);
    let watermarks = |built: &Built| {
        let snapshot = fetched(built);
        [snapshot.watermark([Scope::Global]), snapshot.watermark([Scope::Global, Scope::User("u")])]
    };
    assert_eq!(watermarks(&builder.build().unwrap()), [Some(65), Some(70)]);
    assert!(builder.remove_watermark(Scope::Global));
    assert_eq!(watermarks(&builder.build().unwrap()), [Some(65), Some(70)]);
    assert!(builder.needs_checkpoint());
    builder.settle(3).unwrap();
    assert_eq!(watermarks(&builder.build().unwrap()), [None, Some(70)]);
}

#[test]
fn the_tail_grows_in_segments_and_asks_for_a_checkpoint() {
    let mut builder = builder();
    builder.settle(0).unwrap();
    let mut before: Vec<Entry> = Vec::new();
    for number in 1..=4_400_u64 {
        builder.revoke(number, fingerprint(number)).unwrap();
        if number % 7 == 0 {
            builder.watermark(number, Scope::User(&number.to_string()), number);
        }
        if number % 40 != 0 {
            continue;
        }
        let built = builder.build().unwrap();
        assert!(built.tail.len() <= 4, "{:?}", built.tail);
        let new: Vec<&Entry> = built.tail.iter().filter(|entry| !before.contains(entry)).collect();
        assert!(new.iter().all(|entry| entry.kind() == Kind::Tail));
        before = built.tail;
    }
    assert!(builder.needs_checkpoint());
    let snapshot = fetched(&builder.build().unwrap());
    for number in 1..=4_400 {
        assert_eq!(snapshot.standing(&fingerprint(number), "", 0, None), Standing::Revoked, "{number}");
    }
    builder.settle(4_400).unwrap();
    assert!(!builder.needs_checkpoint());
    assert_eq!(builder.build().unwrap().tail, []);
}

#[test]
fn the_committed_vectors_are_what_is_built() {
    let mut builder = builder();
    for number in 0..80 {
        builder.revoke(1, fingerprint(number)).unwrap();
    }
    builder.restore(fingerprint(1_000)).unwrap();
    builder.watermark(1, Scope::Operator("OP0123456789"), 1_700_000_000);
    builder.watermark(1, Scope::Global, 1_600_000_000);
    builder.grant("OP0123456789/alice", b"statements").unwrap();
    let span = Span { expires_from: 1_700_000_000, expires_before: 1_700_086_400 };
    let ranges = vec![coverage("k1", 5, 9), coverage("k2", 0, u64::MAX)];
    builder.install(block(span, ranges, 2_000..2_100, 10)).unwrap();
    builder.settle(1).unwrap();
    builder.revoke(7, fingerprint(300)).unwrap();
    builder.watermark(7, Scope::User("OP0123456789/alice"), 1_700_000_001);
    builder.revoke(1_000, fingerprint(301)).unwrap();
    let built = builder.build().unwrap();
    let checkpoint = checkpoint(&built, 41);
    let manifest = signed(&checkpoint, &built.tail, 42);
    let mut lines = format!("delegation {}\nmanifest {}\n", hex(&delegation(1)), hex(&manifest));
    for (entry, bytes) in [&checkpoint].into_iter().chain(&built.objects) {
        lines += &format!("{} {}\n", entry.slot(), hex(bytes));
    }
    assert_vectors("bundle-v2.txt", &lines);
    let manifest = open(&manifest).unwrap();
    let objects = fetch(&manifest, &[&built.objects, &[checkpoint]]);
    assert!(Snapshot::assemble(manifest, &objects, NOW).is_ok());
}
