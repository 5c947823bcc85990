//! What the thief of a key, a cache and somebody on the way can do to an edge, and what they cannot: SECURITY.md has
//! the table, each row of it is a test here.

use bundle::{
    Entry, RevocationStatus, Scope,
    builder::{
        Builder, BuiltBundle, CheckpointFields, DelegationFields, ManifestFields, RootKey, SnapshotKey,
        TailKey,
    },
};
use token::Fingerprint;
use verdict::{Call, Failure, Floor, Freshness, Progress, Refresh, Step};

use crate::world::{
    NOW_MS, Object, Published, builder, checkpoint, delegation, over, refresh, root, snapshot_key, tail_key,
};

/// An edge that holds two revocations and a watermark: one revocation settled, the rest in the tail.
struct Scene {
    edge: Refresh,
    content: Builder,
    checkpoint: Object,
}

const SETTLED: u64 = 1;
const LATE: u64 = 2;

impl Scene {
    fn set() -> Self {
        let mut content = builder();
        content.revoke(1, fingerprint(SETTLED)).unwrap();
        content.checkpoint(10).unwrap();
        let checkpoint = checkpoint(&content.build().unwrap(), 10, NOW_MS);
        content.revoke(11, fingerprint(LATE)).unwrap();
        content.raise_watermark(12, Scope::Global, 500);
        let mut scene = Self { edge: refresh(), content, checkpoint };
        let honest = scene.honest(12);
        take(&mut scene.edge, &honest, NOW_MS).unwrap();
        scene.assert_remembers();
        scene
    }

    fn honest(&mut self, version: u64) -> Published {
        over(&self.checkpoint, &self.content.build().unwrap(), version, NOW_MS + version)
    }

    /// Offers it, and sees it refused for this reason and nothing forgotten.
    fn in_vain(&mut self, what: &str, published: &Published, why: &str) {
        let failure = take(&mut self.edge, published, NOW_MS + 1_000).expect_err(what);
        assert_eq!(failure.code(), why, "{what}");
        self.assert_remembers();
    }

    fn assert_remembers(&self) {
        let snapshot = self.edge.current().unwrap();
        for number in [SETTLED, LATE] {
            assert_eq!(
                snapshot.revocation_status(&fingerprint(number), "", 0, None),
                RevocationStatus::Revoked,
                "{number}"
            );
        }
        assert_eq!(snapshot.watermark([Scope::Global]), Some(500));
    }
}

fn fingerprint(number: u64) -> Fingerprint {
    Fingerprint::of(&number.to_be_bytes())
}

/// As an edge that leads: asks, whatever came before, fetches, believes or not.
pub(crate) fn take(edge: &mut Refresh, published: &Published, now: u64) -> Result<(), Failure> {
    edge.stand_down();
    while let Some(call) = edge.poll(now) {
        let (status, body) = match call {
            Call::Manifest { .. } => (200, published.manifest.clone()),
            Call::Object(entry) => published.object(&entry).map_or((404, Vec::new()), |bytes| (200, bytes)),
        };
        if let Step::Ready(_) = edge.handle_answer(call, status, body, now, 0)? {
            return Ok(());
        }
    }
    panic!("neither taken nor refused")
}

/// What the thief of a tail key signs over a checkpoint that he cannot make.
fn by_tail_key(
    checkpoint: &Object,
    tail: &BuiltBundle,
    version: u64,
    change: impl FnOnce(&mut ManifestFields<'_>),
) -> Published {
    let delegation = delegation(1);
    let mut draft = ManifestFields {
        delegation: &delegation,
        version,
        issued_at: NOW_MS + version.min(999),
        expires_at: NOW_MS + 60_000,
        checkpoint: checkpoint.0,
        tail: &tail.tail,
    };
    change(&mut draft);
    let objects = tail.objects.iter().chain([checkpoint]).cloned().collect();
    Published { manifest: tail_key().sign(&draft).unwrap(), objects }
}

/// A tail of these operations alone, over the same settled content.
fn tail(operations: impl FnOnce(&mut Builder)) -> BuiltBundle {
    let mut content = builder();
    content.revoke(1, fingerprint(SETTLED)).unwrap();
    content.checkpoint(10).unwrap();
    operations(&mut content);
    content.build().unwrap()
}

#[test]
fn the_thief_of_a_tail_key_takes_nothing_back_at_a_running_edge() {
    let mut scene = Scene::set();
    let held = scene.checkpoint.clone();
    let watermark = |content: &mut Builder, instant| {
        content.raise_watermark(12, Scope::Global, instant);
    };
    for (what, tail) in [
        ("an empty tail", tail(|_| ())),
        ("no revocation", tail(|content| watermark(content, 500))),
        ("no watermark", tail(|content| assert!(content.revoke(11, fingerprint(LATE)).unwrap()))),
        (
            "a lower watermark",
            tail(|content| {
                content.revoke(11, fingerprint(LATE)).unwrap();
                watermark(content, 499);
            }),
        ),
        (
            "another revocation in its place",
            tail(|content| {
                content.revoke(11, fingerprint(99)).unwrap();
                watermark(content, 500);
            }),
        ),
        (
            // So that the next checkpoint would seem to have taken it in.
            "an earlier number",
            tail(|content| {
                content.revoke(9, fingerprint(LATE)).unwrap();
                watermark(content, 500);
            }),
        ),
    ] {
        scene.in_vain(what, &by_tail_key(&held, &tail, 13, |_| ()), "tail_lost");
    }
    // An older checkpoint, from before the revocation that is settled now.
    let older = checkpoint(&builder_settled_at(5), 5, NOW_MS);
    let whole = tail(|content| {
        content.revoke(11, fingerprint(LATE)).unwrap();
        watermark(content, 500);
    });
    let mut replayed = by_tail_key(&older, &whole, 13, |_| ());
    replayed.objects.extend(builder_settled_at(5).objects);
    scene.in_vain("an older checkpoint", &replayed, "checkpoint_older");
    // What only a snapshot key may say.
    let own = tail_key().sign_body(held.1[..held.1.len() - 64].to_vec());
    let own: Object = (Entry::for_bytes(bundle::ObjectKind::Checkpoint, 0, &own).unwrap(), own.into());
    let forged = by_tail_key(&own, &whole, 13, |_| ());
    scene.in_vain("a checkpoint of his own", &forged, "checkpoint_signature_invalid");
    // Nor does he get an epoch of his own.
    let delegates = DelegationFields {
        audience: "default",
        epoch: 2,
        issued_at: NOW_MS,
        expires_at: NOW_MS + 1_000_000,
        snapshot_keys: &[snapshot_key().public_key()],
        tail_keys: &[tail_key().public_key()],
    };
    let own_root = RootKey::new(&[77; 32]).delegate(&delegates).unwrap();
    let forged = by_tail_key(&held, &tail(|_| ()), 13, |draft| draft.version = 13);
    let body = [&forged.manifest[..36], &u16::try_from(own_root.len()).unwrap().to_be_bytes(), &own_root];
    let end = 38 + delegation(1).len();
    let body = [&body.concat(), &forged.manifest[end..forged.manifest.len() - 64]].concat();
    let forged = Published { manifest: tail_key().sign_body(body), ..forged };
    scene.in_vain("an epoch of his own", &forged, "delegation_key_unknown");
}

fn builder_settled_at(number: u64) -> BuiltBundle {
    let mut content = builder();
    content.checkpoint(number).unwrap();
    content.build().unwrap()
}

/// He can deny service: refuse good credentials, and run up the version so that the honest are refused. The next epoch
/// ends that, and a checkpoint takes back what he added.
#[test]
fn the_thief_of_a_tail_key_denies_service_until_the_next_epoch() {
    let mut scene = Scene::set();
    let held = scene.checkpoint.clone();
    let tail = tail(|content| {
        content.revoke(11, fingerprint(LATE)).unwrap();
        content.raise_watermark(12, Scope::Global, 500);
        content.revoke(13, fingerprint(3)).unwrap();
    });
    let bogus = by_tail_key(&held, &tail, 13, |draft| draft.version = u64::MAX);
    take(&mut scene.edge, &bogus, NOW_MS + 1_000).unwrap();
    let good = |edge: &Refresh| edge.current().unwrap().revocation_status(&fingerprint(3), "", 0, None);
    assert_eq!(good(&scene.edge), RevocationStatus::Revoked);
    let honest = scene.honest(14);
    scene.in_vain("the honest", &honest, "manifest_older");
    // The root delegates to another tail key; the snapshot key signs what is true.
    scene.content.checkpoint(15).unwrap();
    let built = scene.content.build().unwrap();
    let (checkpoint, new_key) = (checkpoint(&built, 15, NOW_MS), TailKey::new(&[9; 32]));
    let next = in_epoch(2, &snapshot_key(), &new_key, &checkpoint, &built, 15);
    take(&mut scene.edge, &next, NOW_MS + 2_000).unwrap();
    assert_eq!(good(&scene.edge), RevocationStatus::NotCovered);
    scene.assert_remembers();
    // Nothing that the stolen key signs is believed any more.
    scene.in_vain("the stolen key again", &bogus, "epoch_older");
}

fn in_epoch(
    epoch: u64,
    snapshot_key: &SnapshotKey,
    tail_key: &TailKey,
    checkpoint: &Object,
    built: &BuiltBundle,
    version: u64,
) -> Published {
    let delegates = DelegationFields {
        audience: "default",
        epoch,
        issued_at: NOW_MS,
        expires_at: NOW_MS + 1_000_000_000,
        snapshot_keys: &[snapshot_key.public_key()],
        tail_keys: &[tail_key.public_key()],
    };
    let delegation = root().delegate(&delegates).unwrap();
    let draft = ManifestFields {
        delegation: &delegation,
        version,
        issued_at: NOW_MS + version,
        expires_at: NOW_MS + 60_000,
        checkpoint: checkpoint.0,
        tail: &built.tail,
    };
    let objects = built.objects.iter().chain([checkpoint]).cloned().collect();
    Published { manifest: tail_key.sign(&draft).unwrap(), objects }
}

/// He can hide what is revoked from now on, for as long as he is on the way and has a newer manifest of his own each time;
/// one that he gets through alone lasts no longer than the edge allows, whatever it claims.
#[test]
fn the_thief_of_a_tail_key_freezes_a_running_edge_for_as_long_as_it_allows() {
    const YEARS: u64 = 10 * 365 * 86_400_000;
    let max = 300_000;
    for (what, claimed, ahead, fresh_for) in [
        ("ten years", YEARS, 0, max),
        ("for ever", u64::MAX - 2 * NOW_MS, 0, max),
        // Dated into the future, as far as clocks may be apart: it counts from when it came.
        ("in a minute", YEARS, 60_000, max),
        ("as the honest", 60_000, 0, 60_000),
        ("as the honest, in a minute", 60_000, 60_000, 60_000),
    ] {
        let mut scene = Scene::set();
        let received = NOW_MS + 1_000;
        let held = scene.checkpoint.clone();
        let tail = scene.content.build().unwrap();
        let forged = by_tail_key(&held, &tail, (1 << 63) - 1, |draft| {
            draft.issued_at = received + ahead;
            draft.expires_at = draft.issued_at + claimed;
        });
        take(&mut scene.edge, &forged, received).unwrap();
        let freshness = |edge: &Refresh, grace, now| Freshness::of(edge.current().unwrap(), grace, now);
        let end = received + fresh_for;
        assert_eq!(freshness(&scene.edge, 0, end - 1), Freshness::Fresh, "{what}");
        assert_eq!(freshness(&scene.edge, 0, end), Freshness::Expired, "{what}");
        assert_eq!(freshness(&scene.edge, 5_000, end + 4_999), Freshness::Stale, "{what}");
        assert_eq!(freshness(&scene.edge, 5_000, end + 5_000), Freshness::Expired, "{what}");
        // Sent again, it gains nothing; the honest are refused, and the log says by what.
        for later in [received + 30_000, end - 1] {
            scene.edge.stand_down();
            let call = scene.edge.poll(later).unwrap();
            let _ = scene.edge.handle_answer(call, 200, forged.manifest.clone(), later, 0);
            assert_eq!(freshness(&scene.edge, 0, end), Freshness::Expired, "{what}");
        }
        scene.content.revoke(14, fingerprint(3)).unwrap();
        let honest = over(&held, &scene.content.build().unwrap(), 14, end);
        let failure = take(&mut scene.edge, &honest, end).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "version 14 is not newer than the current version 9223372036854775807"
        );
        // An honest control plane has nothing that is newer than that.
        scene.edge.stand_down();
        let call = scene.edge.poll(end).unwrap();
        let failure = scene.edge.handle_answer(call, 304, vec![], end, 0).unwrap_err();
        assert_eq!(failure.code(), "manifest_not_renewed", "{what}");
        scene.assert_remembers();
    }
    // A worker that starts afresh finds it in shared data, and counts from when it was issued.
    let scene = Scene::set();
    let tail = tail(|_| ());
    let forged = by_tail_key(&scene.checkpoint, &tail, 99, |draft| draft.expires_at = NOW_MS + YEARS);
    let mut fresh = refresh();
    let now = NOW_MS + 200_000;
    let taken = fresh.handle_shared(&forged.manifest, now, |entry| forged.object(entry));
    assert_eq!(taken, Ok(Progress::Done));
    assert_eq!(fresh.current().unwrap().expires_at(), NOW_MS + 99 + max);
    // By the network it is taken no more once that is over.
    let failure = take(&mut refresh(), &forged, NOW_MS + 99 + max).unwrap_err();
    assert_eq!(failure.code(), "manifest_expired");
}

/// An edge whose clock is behind by less than a minute is not fresh for longer than the others.
#[test]
fn freshness_counts_from_receipt_where_the_clock_is_behind() {
    let mut edge = refresh();
    let built = builder_settled_at(1);
    let checkpoint = checkpoint(&built, 1, NOW_MS);
    for (version, behind) in [(1, 0), (2, 50_000), (3, 59_000)] {
        take(&mut edge, &over(&checkpoint, &built, version, NOW_MS + behind), NOW_MS).unwrap();
        assert_eq!(edge.current().unwrap().expires_at(), NOW_MS + 60_000, "{behind}");
    }
}

/// What the edge allows is a setting, and no manifest is taken that is older.
#[test]
fn an_edge_bounds_freshness_as_it_is_configured() {
    let built = builder_settled_at(1);
    let checkpoint = checkpoint(&built, 1, NOW_MS);
    for (seconds, expected) in [(10, 10_000), (60, 60_000), (86_400, 60_000)] {
        let mut edge =
            Refresh::new(vec![root().public_key()], "default".into(), 15, seconds, Floor::default());
        take(&mut edge, &over(&checkpoint, &built, 1, NOW_MS), NOW_MS + 500).unwrap();
        assert_eq!(edge.current().unwrap().expires_at(), NOW_MS + expected, "{seconds}");
        let mut late =
            Refresh::new(vec![root().public_key()], "default".into(), 15, seconds, Floor::default());
        let failure = take(&mut late, &over(&checkpoint, &built, 1, NOW_MS), NOW_MS + expected).unwrap_err();
        assert_eq!(failure.code(), "manifest_expired", "{seconds}");
    }
}

/// An edge that starts afresh remembers nothing: he can show it the last checkpoint without the tail since, for as long
/// as that lives, or until `min_epoch` is raised.
#[test]
fn the_thief_of_a_tail_key_hides_the_tail_from_a_fresh_edge_for_a_day() {
    let scene = Scene::set();
    let truncated = |now: u64| {
        by_tail_key(&scene.checkpoint, &tail(|_| ()), 13, |draft| {
            (draft.issued_at, draft.expires_at) = (now, now + 60_000);
        })
    };
    let mut fresh = refresh();
    take(&mut fresh, &truncated(NOW_MS), NOW_MS).unwrap();
    let standing = |number| fresh.current().unwrap().revocation_status(&fingerprint(number), "", 0, None);
    assert_eq!(
        (standing(SETTLED), standing(LATE)),
        (RevocationStatus::Revoked, RevocationStatus::NotCovered)
    );
    // One that has it already stops being fresh with the checkpoint, whatever the manifest says.
    let day = NOW_MS + 86_400_000;
    take(&mut fresh, &truncated(day - 1), day - 1).unwrap();
    let freshness = |now| Freshness::of(fresh.current().unwrap(), 0, now);
    assert_eq!((freshness(day - 1), freshness(day)), (Freshness::Fresh, Freshness::Expired));
    let failure = take(&mut refresh(), &truncated(day), day).unwrap_err();
    assert_eq!(failure.code(), "checkpoint_expired");
    let floor = Floor { epoch: 2, version: 0 };
    let mut wary = Refresh::new(vec![root().public_key()], "default".into(), 15, 300, floor);
    assert_eq!(take(&mut wary, &truncated(NOW_MS), NOW_MS).unwrap_err().code(), "manifest_below_floor");
}

/// He signs no manifest, so without a tail key nothing of his arrives.
#[test]
fn the_thief_of_a_snapshot_key_needs_a_tail_key_as_well() {
    let mut scene = Scene::set();
    let forgiven = checkpoint(&builder_settled_at(99), 99, NOW_MS);
    let delegation = delegation(1);
    let draft = ManifestFields {
        delegation: &delegation,
        version: 99,
        issued_at: NOW_MS + 1,
        expires_at: NOW_MS + 60_000,
        checkpoint: forgiven.0,
        tail: &[],
    };
    let manifest = TailKey::new(&[101; 32]).sign(&draft).unwrap();
    let forged = Published { manifest, objects: vec![forgiven.clone()] };
    scene.in_vain("signed with the snapshot key's seed", &forged, "manifest_key_unknown");
    let honest = scene.honest(13);
    let body = honest.manifest[..honest.manifest.len() - 64].to_vec();
    let forged = Published { manifest: snapshot_key().sign_body(body), ..honest };
    scene.in_vain("signed by it", &forged, "manifest_signature_invalid");
    // With both he can say what he likes, until the next epoch: that of the root alone.
    let both = by_tail_key(&forgiven, &builder_settled_at(99), 99, |_| ());
    take(&mut scene.edge, &both, NOW_MS + 1_000).unwrap();
    let standing =
        |edge: &Refresh| edge.current().unwrap().revocation_status(&fingerprint(SETTLED), "", 0, None);
    assert_eq!(standing(&scene.edge), RevocationStatus::NotCovered);
    let (new_snapshot_key, new_tail_key) = (SnapshotKey::new(&[8; 32]), TailKey::new(&[9; 32]));
    scene.content.checkpoint(15).unwrap();
    let built = scene.content.build().unwrap();
    let draft = CheckpointFields {
        audience: "default",
        version: 15,
        issued_at: NOW_MS,
        expires_at: NOW_MS + 86_400_000,
        covered_until: built.covered_until,
        entries: &built.checkpoint,
    };
    let checkpoint = new_snapshot_key.sign(&draft).unwrap();
    let next = in_epoch(2, &new_snapshot_key, &new_tail_key, &checkpoint, &built, 15);
    take(&mut scene.edge, &next, NOW_MS + 2_000).unwrap();
    scene.assert_remembers();
    // A checkpoint of the stolen key is none under the new delegation.
    let stolen = in_epoch(2, &new_snapshot_key, &new_tail_key, &forgiven, &builder_settled_at(99), 100);
    scene.in_vain("a checkpoint of the stolen key", &stolen, "checkpoint_key_unknown");
}

/// Afresh or not, a manifest that only a snapshot key signed is none.
#[test]
fn the_thief_of_a_snapshot_key_has_nothing_to_show_to_a_fresh_edge() {
    let mut scene = Scene::set();
    let honest = scene.honest(13);
    let body = honest.manifest[..honest.manifest.len() - 64].to_vec();
    let by_it = Published { manifest: snapshot_key().sign_body(body.clone()), ..honest };
    let failure = take(&mut refresh(), &by_it, NOW_MS + 1_000).unwrap_err();
    assert_eq!(failure.code(), "manifest_signature_invalid");
    // Nor does a checkpoint of his become part of an honest manifest.
    let forgiven = checkpoint(&builder_settled_at(99), 99, NOW_MS);
    let mut honest = scene.honest(14);
    honest.objects.retain(|(entry, _)| entry.kind() != bundle::ObjectKind::Checkpoint);
    honest.objects.push(forgiven);
    let failure = take(&mut refresh(), &honest, NOW_MS + 1_000).unwrap_err();
    assert_eq!(failure.code(), "control_plane_status", "what the manifest names is not there");
}

/// Who has both, or a root, says what he likes to any edge, until other keys follow.
#[test]
fn who_has_both_keys_or_a_root_says_anything() {
    let forgiven = checkpoint(&builder_settled_at(99), 99, NOW_MS);
    let both = by_tail_key(&forgiven, &builder_settled_at(99), 99, |_| ());
    let own = RootKey::new(&[77; 32]);
    for fresh in [false, true] {
        let mut edge = if fresh { refresh() } else { Scene::set().edge };
        take(&mut edge, &both, NOW_MS + 1_000).unwrap();
        let standing =
            |edge: &Refresh| edge.current().unwrap().revocation_status(&fingerprint(SETTLED), "", 0, None);
        assert_eq!(standing(&edge), RevocationStatus::NotCovered, "both, fresh: {fresh}");
        // Whose root is pinned decides: one of the thief is none, and a stolen one delegates to whom he likes.
        let mut edge = if fresh { refresh() } else { Scene::set().edge };
        let keys = (SnapshotKey::new(&[66; 32]), TailKey::new(&[67; 32]));
        let built = builder_settled_at(99);
        for (root, taken) in [(RootKey::new(&[77; 32]), false), (root(), true)] {
            let stolen = all_by(&root, &keys, &built);
            assert_eq!(take(&mut edge, &stolen, NOW_MS + 1_000).is_ok(), taken, "root, fresh: {fresh}");
        }
        assert_eq!(standing(&edge), RevocationStatus::NotCovered, "root, fresh: {fresh}");
    }
    // `min_epoch` keeps the old keys from those that start afresh, other `root_keys` the stolen root.
    let floor = Floor { epoch: 2, version: 0 };
    let mut wary = Refresh::new(vec![root().public_key()], "default".into(), 15, 300, floor);
    assert_eq!(take(&mut wary, &both, NOW_MS).unwrap_err().code(), "manifest_below_floor");
    let mut other = Refresh::new(vec![own.public_key()], "default".into(), 15, 300, Floor::default());
    assert_eq!(take(&mut other, &both, NOW_MS).unwrap_err().code(), "delegation_key_unknown");
}

/// Under an epoch that no honest one has reached.
fn all_by(
    root: &RootKey,
    (snapshot_key, tail_key): &(SnapshotKey, TailKey),
    built: &BuiltBundle,
) -> Published {
    let delegates = DelegationFields {
        audience: "default",
        epoch: 1_000,
        issued_at: NOW_MS,
        expires_at: NOW_MS + 1_000_000_000,
        snapshot_keys: &[snapshot_key.public_key()],
        tail_keys: &[tail_key.public_key()],
    };
    let delegation = root.delegate(&delegates).unwrap();
    let draft = CheckpointFields {
        audience: "default",
        version: 1,
        issued_at: NOW_MS,
        expires_at: NOW_MS + 86_400_000,
        covered_until: built.covered_until,
        entries: &built.checkpoint,
    };
    let checkpoint = snapshot_key.sign(&draft).unwrap();
    let draft = ManifestFields {
        delegation: &delegation,
        version: 1,
        issued_at: NOW_MS,
        expires_at: NOW_MS + 60_000,
        checkpoint: checkpoint.0,
        tail: &built.tail,
    };
    let objects = built.objects.iter().chain([&checkpoint]).cloned().collect();
    Published { manifest: tail_key.sign(&draft).unwrap(), objects }
}

/// To an edge that starts afresh a manifest can be replayed while it lives, and no longer than this edge allows; a floor
/// bounds how far back.
#[test]
fn who_is_on_the_way_replays_to_a_fresh_edge_what_still_lives() {
    let mut scene = Scene::set();
    let recorded = scene.honest(13);
    let issued_at = NOW_MS + 13;
    take(&mut refresh(), &recorded, issued_at + 59_999).unwrap();
    let failure = take(&mut refresh(), &recorded, issued_at + 60_000).unwrap_err();
    assert_eq!(failure.code(), "manifest_expired");
    let floor = Floor { epoch: 0, version: 14 };
    let mut wary = Refresh::new(vec![root().public_key()], "default".into(), 15, 300, floor);
    assert_eq!(take(&mut wary, &recorded, NOW_MS).unwrap_err().code(), "manifest_below_floor");
}

/// Who holds no key can withhold, replay and mix what was signed.
#[test]
fn a_cache_or_somebody_on_the_way_can_only_withhold() {
    let mut scene = Scene::set();
    let old = scene.honest(12);
    scene.content.revoke(13, fingerprint(3)).unwrap();
    let new = scene.honest(13);
    take(&mut scene.edge, &new, NOW_MS + 100).unwrap();
    scene.in_vain("the last one again", &old, "manifest_older");
    let withheld = Published { manifest: scene.honest(14).manifest, objects: Vec::new() };
    scene.content.revoke(15, fingerprint(4)).unwrap();
    let mut newest = scene.honest(15);
    scene.in_vain("an object is missing", &Published { objects: vec![], ..newest }, "control_plane_status");
    newest = scene.honest(15);
    let entry = *newest.objects.last().map(|(entry, _)| entry).unwrap();
    let other = newest.objects.first().unwrap().1.clone();
    let segment =
        newest.objects.iter_mut().rfind(|(entry, _)| entry.kind() == bundle::ObjectKind::Tail).unwrap();
    segment.1 = other;
    scene.in_vain("an object is another", &newest, "object_size_mismatch");
    assert!(newest.object(&entry).is_some());
    take(&mut scene.edge, &withheld, NOW_MS + 1_000).unwrap();
    // Withheld, it goes stale, and says so.
    let snapshot = scene.edge.current().unwrap();
    assert_eq!(Freshness::of(snapshot, 60_000, NOW_MS + 60_000 + 14), Freshness::Stale);
    assert_eq!(Freshness::of(snapshot, 60_000, NOW_MS + 120_000 + 14), Freshness::Expired);
}

#[test]
fn an_edge_whose_clock_is_an_hour_off_takes_nothing_and_forgets_nothing() {
    for (what, now, why) in [
        ("ahead", NOW_MS + 3_600_000, "manifest_expired"),
        ("behind", NOW_MS - 3_600_000, "manifest_from_future"),
    ] {
        let mut scene = Scene::set();
        let honest = scene.honest(13);
        let failure = take(&mut scene.edge, &honest, now).expect_err(what);
        assert_eq!(failure.code(), why, "{what}");
        scene.assert_remembers();
    }
}

/// A delegation ends at its time, whatever is signed under it.
#[test]
fn nothing_outlives_its_delegation() {
    let end = NOW_MS + 7 * 86_400_000;
    let built = builder_settled_at(1);
    let late = |issued_at| over(&checkpoint(&built, 1, issued_at), &built, 1, issued_at);
    let mut edge = refresh();
    take(&mut edge, &late(end - 1), end - 1).unwrap();
    assert_eq!(Freshness::of(edge.current().unwrap(), 0, end), Freshness::Expired);
    assert_eq!(take(&mut refresh(), &late(end), end).unwrap_err().code(), "delegation_expired");
}

#[test]
fn a_floor_holds_for_an_edge_that_starts_afresh() {
    let mut scene = Scene::set();
    let honest = scene.honest(13);
    for (floor, taken) in [(13, true), (14, false)] {
        let floor = Floor { epoch: 1, version: floor };
        let mut edge = Refresh::new(vec![root().public_key()], "default".into(), 15, 300, floor);
        assert_eq!(take(&mut edge, &honest, NOW_MS).is_ok(), taken, "{floor:?}");
    }
}
