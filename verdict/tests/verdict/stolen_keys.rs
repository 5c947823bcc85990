//! What an attacker with a stolen key, a cache, or a network position can do to an edge. SECURITY.md has the table;
//! each of its rows is a test in this file.

use bundle::{
    Entry, RevocationStatus, Scope,
    builder::{
        Builder, BuiltBundle, CheckpointFields, DelegationFields, ManifestFields, RootKey, SnapshotKey,
        TailKey,
    },
};
use token::Fingerprint;
use verdict::{FetchRequest, FetchStep, Freshness, MinimumPosition, Progress, Refresh, RefreshError};

use crate::fixtures::{
    NOW_MS, Object, Published, builder, bundle_over, checkpoint, delegation, refresh, root, snapshot_key,
    tail_key,
};

const IN_CHECKPOINT: u64 = 1;

const IN_TAIL: u64 = 2;

/// An edge with two revocations and a watermark: one revocation is in the checkpoint, the rest is in the tail.
struct Fixture {
    edge: Refresh,
    content: Builder,
    checkpoint: Object,
}

impl Fixture {
    fn new() -> Self {
        let mut content = builder();
        content.revoke(1, fingerprint(IN_CHECKPOINT)).unwrap();
        content.checkpoint(10).unwrap();
        let checkpoint = checkpoint(&content.build().unwrap(), 10, NOW_MS);
        content.revoke(11, fingerprint(IN_TAIL)).unwrap();
        content.raise_watermark(12, Scope::Global, 500);
        let mut fixture = Self { edge: refresh(), content, checkpoint };
        let honest = fixture.honest_bundle(12);
        fetch(&mut fixture.edge, &honest, NOW_MS).unwrap();
        fixture.assert_unchanged();
        fixture
    }

    fn honest_bundle(&mut self, version: u64) -> Published {
        bundle_over(&self.checkpoint, &self.content.build().unwrap(), version, NOW_MS + version)
    }

    /// Offers a bundle and checks that it is rejected with this code and that the edge keeps its state.
    fn assert_rejected(&mut self, what: &str, published: &Published, why: &str) {
        let failure = fetch(&mut self.edge, published, NOW_MS + 1_000).expect_err(what);
        assert_eq!(failure.code(), why, "{what}");
        self.assert_unchanged();
    }

    fn assert_unchanged(&self) {
        let snapshot = self.edge.current().unwrap();
        for number in [IN_CHECKPOINT, IN_TAIL] {
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
    Fingerprint::digest(&number.to_be_bytes())
}

/// Makes the leading edge fetch the published bundle.
pub(crate) fn fetch(edge: &mut Refresh, published: &Published, now: u64) -> Result<(), RefreshError> {
    edge.abort();
    while let Some(request) = edge.poll(now) {
        let (status, body) = match request {
            FetchRequest::Manifest { .. } => (200, published.manifest.clone()),
            FetchRequest::Object(entry) => {
                published.object(&entry).map_or((404, Vec::new()), |bytes| (200, bytes))
            }
        };
        if let FetchStep::Ready(_) = edge.handle_response(request, status, body, now, 0)? {
            return Ok(());
        }
    }
    panic!("neither accepted nor rejected")
}

/// Signs a manifest with a stolen tail key over a checkpoint that the attacker cannot create.
fn sign_with_tail_key(
    checkpoint: &Object,
    tail: &BuiltBundle,
    version: u64,
    change: impl FnOnce(&mut ManifestFields<'_>),
) -> Published {
    let delegation = delegation(1);
    let mut fields = ManifestFields {
        delegation: &delegation,
        version,
        issued_at: NOW_MS + version.min(999),
        expires_at: NOW_MS + 60_000,
        checkpoint: checkpoint.0,
        tail: &tail.tail,
    };
    change(&mut fields);
    let objects = tail.objects.iter().chain([checkpoint]).cloned().collect();
    Published { manifest: tail_key().sign(&fields).unwrap(), objects }
}

/// Builds a tail with these operations over the same checkpoint.
fn build_tail(operations: impl FnOnce(&mut Builder)) -> BuiltBundle {
    let mut content = builder();
    content.revoke(1, fingerprint(IN_CHECKPOINT)).unwrap();
    content.checkpoint(10).unwrap();
    operations(&mut content);
    content.build().unwrap()
}

#[test]
fn stolen_tail_key_cannot_revert_a_running_edge() {
    let mut fixture = Fixture::new();
    let held = fixture.checkpoint.clone();
    let watermark = |content: &mut Builder, instant| {
        content.raise_watermark(12, Scope::Global, instant);
    };
    for (what, tail) in [
        ("an empty tail", build_tail(|_| ())),
        ("no revocation", build_tail(|content| watermark(content, 500))),
        ("no watermark", build_tail(|content| assert!(content.revoke(11, fingerprint(IN_TAIL)).unwrap()))),
        (
            "a lower watermark",
            build_tail(|content| {
                content.revoke(11, fingerprint(IN_TAIL)).unwrap();
                watermark(content, 499);
            }),
        ),
        (
            "another revocation in its place",
            build_tail(|content| {
                content.revoke(11, fingerprint(99)).unwrap();
                watermark(content, 500);
            }),
        ),
        (
            // The next checkpoint would then seem to include it.
            "an earlier number",
            build_tail(|content| {
                content.revoke(9, fingerprint(IN_TAIL)).unwrap();
                watermark(content, 500);
            }),
        ),
    ] {
        fixture.assert_rejected(what, &sign_with_tail_key(&held, &tail, 13, |_| ()), "tail_lost");
    }
    // An older checkpoint that lacks the revocation.
    let older = checkpoint(&bundle_with_checkpoint_at(5), 5, NOW_MS);
    let whole = build_tail(|content| {
        content.revoke(11, fingerprint(IN_TAIL)).unwrap();
        watermark(content, 500);
    });
    let mut replayed = sign_with_tail_key(&older, &whole, 13, |_| ());
    replayed.objects.extend(bundle_with_checkpoint_at(5).objects);
    fixture.assert_rejected("an older checkpoint", &replayed, "checkpoint_older");
    // Objects that require the snapshot key.
    let own = tail_key().sign_body(held.1[..held.1.len() - 64].to_vec());
    let own: Object = (Entry::for_bytes(bundle::ObjectKind::Checkpoint, 0, &own).unwrap(), own.into());
    let forged = sign_with_tail_key(&own, &whole, 13, |_| ());
    fixture.assert_rejected("a checkpoint of the attacker", &forged, "checkpoint_signature_invalid");
    // The attacker cannot create an epoch.
    let fields = DelegationFields {
        audience: "default",
        epoch: 2,
        issued_at: NOW_MS,
        expires_at: NOW_MS + 1_000_000,
        snapshot_keys: &[snapshot_key().public_key()],
        tail_keys: &[tail_key().public_key()],
    };
    let own_root = RootKey::new(&[77; 32]).delegate(&fields).unwrap();
    let forged = sign_with_tail_key(&held, &build_tail(|_| ()), 13, |fields| fields.version = 13);
    let body = [&forged.manifest[..36], &u16::try_from(own_root.len()).unwrap().to_be_bytes(), &own_root];
    let end = 38 + delegation(1).len();
    let body = [&body.concat(), &forged.manifest[end..forged.manifest.len() - 64]].concat();
    let forged = Published { manifest: tail_key().sign_body(body), ..forged };
    fixture.assert_rejected("an epoch of the attacker", &forged, "delegation_key_unknown");
}

fn bundle_with_checkpoint_at(number: u64) -> BuiltBundle {
    let mut content = builder();
    content.checkpoint(number).unwrap();
    content.build().unwrap()
}

/// The attacker can deny service: revoke valid credentials, and raise the version so that honest manifests are
/// rejected. The next epoch ends this, and a checkpoint reverts the revocations.
#[test]
fn stolen_tail_key_denies_service_until_the_next_epoch() {
    let mut fixture = Fixture::new();
    let held = fixture.checkpoint.clone();
    let tail = build_tail(|content| {
        content.revoke(11, fingerprint(IN_TAIL)).unwrap();
        content.raise_watermark(12, Scope::Global, 500);
        content.revoke(13, fingerprint(3)).unwrap();
    });
    let bogus = sign_with_tail_key(&held, &tail, 13, |fields| fields.version = u64::MAX);
    fetch(&mut fixture.edge, &bogus, NOW_MS + 1_000).unwrap();
    let good = |edge: &Refresh| edge.current().unwrap().revocation_status(&fingerprint(3), "", 0, None);
    assert_eq!(good(&fixture.edge), RevocationStatus::Revoked);
    let honest = fixture.honest_bundle(14);
    fixture.assert_rejected("an honest manifest", &honest, "manifest_older");
    // The root key delegates to another tail key, and the snapshot key signs the true state.
    fixture.content.checkpoint(15).unwrap();
    let built = fixture.content.build().unwrap();
    let (checkpoint, new_key) = (checkpoint(&built, 15, NOW_MS), TailKey::new(&[9; 32]));
    let next = sign_in_epoch(2, &snapshot_key(), &new_key, &checkpoint, &built, 15);
    fetch(&mut fixture.edge, &next, NOW_MS + 2_000).unwrap();
    assert_eq!(good(&fixture.edge), RevocationStatus::NotCovered);
    fixture.assert_unchanged();
    // Nothing that the stolen key signs is accepted any more.
    fixture.assert_rejected("the stolen key again", &bogus, "epoch_older");
}

fn sign_in_epoch(
    epoch: u64,
    snapshot_key: &SnapshotKey,
    tail_key: &TailKey,
    checkpoint: &Object,
    built: &BuiltBundle,
    version: u64,
) -> Published {
    let fields = DelegationFields {
        audience: "default",
        epoch,
        issued_at: NOW_MS,
        expires_at: NOW_MS + 1_000_000_000,
        snapshot_keys: &[snapshot_key.public_key()],
        tail_keys: &[tail_key.public_key()],
    };
    let delegation = root().delegate(&fields).unwrap();
    let fields = ManifestFields {
        delegation: &delegation,
        version,
        issued_at: NOW_MS + version,
        expires_at: NOW_MS + 60_000,
        checkpoint: checkpoint.0,
        tail: &built.tail,
    };
    let objects = built.objects.iter().chain([checkpoint]).cloned().collect();
    Published { manifest: tail_key.sign(&fields).unwrap(), objects }
}

/// The attacker can hide new revocations while on the network path and able to send newer manifests. A manifest lasts
/// no longer than the edge permits, regardless of its expiry.
#[test]
fn stolen_tail_key_freezes_a_running_edge_for_the_maximum_lifetime() {
    const YEARS: u64 = 10 * 365 * 86_400_000;
    let max = 300_000;
    for (what, claimed, ahead, fresh_for) in [
        ("ten years", YEARS, 0, max),
        ("the maximum", u64::MAX - 2 * NOW_MS, 0, max),
        // It is dated as far into the future as the clock skew permits: freshness counts from receipt.
        ("in a minute", YEARS, 60_000, max),
        ("as the honest", 60_000, 0, 60_000),
        ("as the honest, in a minute", 60_000, 60_000, 60_000),
    ] {
        let mut fixture = Fixture::new();
        let received = NOW_MS + 1_000;
        let held = fixture.checkpoint.clone();
        let tail = fixture.content.build().unwrap();
        let forged = sign_with_tail_key(&held, &tail, (1 << 63) - 1, |fields| {
            fields.issued_at = received + ahead;
            fields.expires_at = fields.issued_at + claimed;
        });
        fetch(&mut fixture.edge, &forged, received).unwrap();
        let freshness = |edge: &Refresh, grace, now| Freshness::classify(edge.current().unwrap(), grace, now);
        let end = received + fresh_for;
        assert_eq!(freshness(&fixture.edge, 0, end - 1), Freshness::Fresh, "{what}");
        assert_eq!(freshness(&fixture.edge, 0, end), Freshness::Expired, "{what}");
        assert_eq!(freshness(&fixture.edge, 5_000, end + 4_999), Freshness::Stale, "{what}");
        assert_eq!(freshness(&fixture.edge, 5_000, end + 5_000), Freshness::Expired, "{what}");
        // Replaying it has no effect. Honest manifests are rejected, and the log contains the reason.
        for later in [received + 30_000, end - 1] {
            fixture.edge.abort();
            let request = fixture.edge.poll(later).unwrap();
            let _ = fixture.edge.handle_response(request, 200, forged.manifest.clone(), later, 0);
            assert_eq!(freshness(&fixture.edge, 0, end), Freshness::Expired, "{what}");
        }
        fixture.content.revoke(14, fingerprint(3)).unwrap();
        let honest = bundle_over(&held, &fixture.content.build().unwrap(), 14, end);
        let failure = fetch(&mut fixture.edge, &honest, end).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "version 14 is not newer than the current version 9223372036854775807"
        );
        // An honest control plane has no newer version.
        fixture.edge.abort();
        let request = fixture.edge.poll(end).unwrap();
        let failure = fixture.edge.handle_response(request, 304, vec![], end, 0).unwrap_err();
        assert_eq!(failure.code(), "manifest_not_renewed", "{what}");
        fixture.assert_unchanged();
    }
    // A new worker finds it in shared data and counts from its time of issue.
    let fixture = Fixture::new();
    let tail = build_tail(|_| ());
    let forged =
        sign_with_tail_key(&fixture.checkpoint, &tail, 99, |fields| fields.expires_at = NOW_MS + YEARS);
    let mut fresh = refresh();
    let now = NOW_MS + 200_000;
    let taken = fresh.handle_shared(&forged.manifest, now, |entry| forged.object(entry));
    assert_eq!(taken, Ok(Progress::Done));
    assert_eq!(fresh.current().unwrap().expires_at(), NOW_MS + 99 + max);
    // From the network it is no longer accepted after that.
    let failure = fetch(&mut refresh(), &forged, NOW_MS + 99 + max).unwrap_err();
    assert_eq!(failure.code(), "manifest_expired");
}

/// An edge whose clock is behind by less than a minute is not fresh for longer than others.
#[test]
fn freshness_counts_from_receipt_if_the_clock_is_behind() {
    let mut edge = refresh();
    let built = bundle_with_checkpoint_at(1);
    let checkpoint = checkpoint(&built, 1, NOW_MS);
    for (version, behind) in [(1, 0), (2, 50_000), (3, 59_000)] {
        fetch(&mut edge, &bundle_over(&checkpoint, &built, version, NOW_MS + behind), NOW_MS).unwrap();
        assert_eq!(edge.current().unwrap().expires_at(), NOW_MS + 60_000, "{behind}");
    }
}

/// The maximum lifetime is configurable, and older manifests are rejected.
#[test]
fn maximum_lifetime_bounds_freshness() {
    let built = bundle_with_checkpoint_at(1);
    let checkpoint = checkpoint(&built, 1, NOW_MS);
    for (seconds, expected) in [(10, 10_000), (60, 60_000), (86_400, 60_000)] {
        let mut edge = Refresh::new(
            vec![root().public_key()],
            "default".into(),
            15,
            seconds,
            MinimumPosition::default(),
        );
        fetch(&mut edge, &bundle_over(&checkpoint, &built, 1, NOW_MS), NOW_MS + 500).unwrap();
        assert_eq!(edge.current().unwrap().expires_at(), NOW_MS + expected, "{seconds}");
        let mut late = Refresh::new(
            vec![root().public_key()],
            "default".into(),
            15,
            seconds,
            MinimumPosition::default(),
        );
        let failure =
            fetch(&mut late, &bundle_over(&checkpoint, &built, 1, NOW_MS), NOW_MS + expected).unwrap_err();
        assert_eq!(failure.code(), "manifest_expired", "{seconds}");
    }
}

/// An edge without state can be shown the last checkpoint without the later tail, until that checkpoint expires or
/// `min_epoch` is raised.
#[test]
fn stolen_tail_key_hides_the_tail_from_a_new_edge_for_a_day() {
    let fixture = Fixture::new();
    let truncated = |now: u64| {
        sign_with_tail_key(&fixture.checkpoint, &build_tail(|_| ()), 13, |fields| {
            (fields.issued_at, fields.expires_at) = (now, now + 60_000);
        })
    };
    let mut fresh = refresh();
    fetch(&mut fresh, &truncated(NOW_MS), NOW_MS).unwrap();
    let revocation_status =
        |number| fresh.current().unwrap().revocation_status(&fingerprint(number), "", 0, None);
    assert_eq!(
        (revocation_status(IN_CHECKPOINT), revocation_status(IN_TAIL)),
        (RevocationStatus::Revoked, RevocationStatus::NotCovered)
    );
    // An edge that has it stops being fresh when the checkpoint expires, even if the manifest declares a later time.
    let day = NOW_MS + 86_400_000;
    fetch(&mut fresh, &truncated(day - 1), day - 1).unwrap();
    let freshness = |now| Freshness::classify(fresh.current().unwrap(), 0, now);
    assert_eq!((freshness(day - 1), freshness(day)), (Freshness::Fresh, Freshness::Expired));
    let failure = fetch(&mut refresh(), &truncated(day), day).unwrap_err();
    assert_eq!(failure.code(), "checkpoint_expired");
    let minimum = MinimumPosition { epoch: 2, version: 0 };
    let mut wary = Refresh::new(vec![root().public_key()], "default".into(), 15, 300, minimum);
    assert_eq!(fetch(&mut wary, &truncated(NOW_MS), NOW_MS).unwrap_err().code(), "manifest_below_floor");
}

/// A snapshot key cannot sign manifests, so it is useless without a tail key.
#[test]
fn stolen_snapshot_key_needs_a_tail_key() {
    let mut fixture = Fixture::new();
    let forgiven = checkpoint(&bundle_with_checkpoint_at(99), 99, NOW_MS);
    let delegation = delegation(1);
    let fields = ManifestFields {
        delegation: &delegation,
        version: 99,
        issued_at: NOW_MS + 1,
        expires_at: NOW_MS + 60_000,
        checkpoint: forgiven.0,
        tail: &[],
    };
    let manifest = TailKey::new(&[101; 32]).sign(&fields).unwrap();
    let forged = Published { manifest, objects: vec![forgiven.clone()] };
    fixture.assert_rejected("signed with the snapshot key's seed", &forged, "manifest_key_unknown");
    let honest = fixture.honest_bundle(13);
    let body = honest.manifest[..honest.manifest.len() - 64].to_vec();
    let forged = Published { manifest: snapshot_key().sign_body(body), ..honest };
    fixture.assert_rejected("signed by it", &forged, "manifest_signature_invalid");
    // With both keys the attacker controls the edge until the next epoch, which only the root key can create.
    let both = sign_with_tail_key(&forgiven, &bundle_with_checkpoint_at(99), 99, |_| ());
    fetch(&mut fixture.edge, &both, NOW_MS + 1_000).unwrap();
    let revocation_status =
        |edge: &Refresh| edge.current().unwrap().revocation_status(&fingerprint(IN_CHECKPOINT), "", 0, None);
    assert_eq!(revocation_status(&fixture.edge), RevocationStatus::NotCovered);
    let (new_snapshot_key, new_tail_key) = (SnapshotKey::new(&[8; 32]), TailKey::new(&[9; 32]));
    fixture.content.checkpoint(15).unwrap();
    let built = fixture.content.build().unwrap();
    let fields = CheckpointFields {
        audience: "default",
        version: 15,
        issued_at: NOW_MS,
        expires_at: NOW_MS + 86_400_000,
        covered_until: built.covered_until,
        entries: &built.checkpoint,
    };
    let checkpoint = new_snapshot_key.sign(&fields).unwrap();
    let next = sign_in_epoch(2, &new_snapshot_key, &new_tail_key, &checkpoint, &built, 15);
    fetch(&mut fixture.edge, &next, NOW_MS + 2_000).unwrap();
    fixture.assert_unchanged();
    // A checkpoint of the stolen key is invalid under the new delegation.
    let stolen =
        sign_in_epoch(2, &new_snapshot_key, &new_tail_key, &forgiven, &bundle_with_checkpoint_at(99), 100);
    fixture.assert_rejected("a checkpoint of the stolen key", &stolen, "checkpoint_key_unknown");
}

/// A manifest that is signed with a snapshot key is invalid.
#[test]
fn stolen_snapshot_key_cannot_serve_a_new_edge() {
    let mut fixture = Fixture::new();
    let honest = fixture.honest_bundle(13);
    let body = honest.manifest[..honest.manifest.len() - 64].to_vec();
    let by_it = Published { manifest: snapshot_key().sign_body(body.clone()), ..honest };
    let failure = fetch(&mut refresh(), &by_it, NOW_MS + 1_000).unwrap_err();
    assert_eq!(failure.code(), "manifest_signature_invalid");
    // Nor can such a checkpoint become part of an honest manifest.
    let forgiven = checkpoint(&bundle_with_checkpoint_at(99), 99, NOW_MS);
    let mut honest = fixture.honest_bundle(14);
    honest.objects.retain(|(entry, _)| entry.kind() != bundle::ObjectKind::Checkpoint);
    honest.objects.push(forgiven);
    let failure = fetch(&mut refresh(), &honest, NOW_MS + 1_000).unwrap_err();
    assert_eq!(failure.code(), "control_plane_status", "what the manifest names is not there");
}

/// An attacker with both keys, or with a root key, controls any edge until the keys are replaced.
#[test]
fn both_keys_or_a_root_key_control_any_edge() {
    let forgiven = checkpoint(&bundle_with_checkpoint_at(99), 99, NOW_MS);
    let both = sign_with_tail_key(&forgiven, &bundle_with_checkpoint_at(99), 99, |_| ());
    let own = RootKey::new(&[77; 32]);
    for fresh in [false, true] {
        let mut edge = if fresh { refresh() } else { Fixture::new().edge };
        fetch(&mut edge, &both, NOW_MS + 1_000).unwrap();
        let revocation_status = |edge: &Refresh| {
            edge.current().unwrap().revocation_status(&fingerprint(IN_CHECKPOINT), "", 0, None)
        };
        assert_eq!(revocation_status(&edge), RevocationStatus::NotCovered, "both, fresh: {fresh}");
        // Only pinned root keys count: an unknown root key is rejected, and a stolen one fields to any key.
        let mut edge = if fresh { refresh() } else { Fixture::new().edge };
        let keys = (SnapshotKey::new(&[66; 32]), TailKey::new(&[67; 32]));
        let built = bundle_with_checkpoint_at(99);
        for (root, taken) in [(RootKey::new(&[77; 32]), false), (root(), true)] {
            let stolen = sign_all_with(&root, &keys, &built);
            assert_eq!(fetch(&mut edge, &stolen, NOW_MS + 1_000).is_ok(), taken, "root, fresh: {fresh}");
        }
        assert_eq!(revocation_status(&edge), RevocationStatus::NotCovered, "root, fresh: {fresh}");
    }
    // `min_epoch` protects edges without state from the old keys, and other `root_keys` from the stolen root key.
    let minimum = MinimumPosition { epoch: 2, version: 0 };
    let mut wary = Refresh::new(vec![root().public_key()], "default".into(), 15, 300, minimum);
    assert_eq!(fetch(&mut wary, &both, NOW_MS).unwrap_err().code(), "manifest_below_floor");
    let mut other =
        Refresh::new(vec![own.public_key()], "default".into(), 15, 300, MinimumPosition::default());
    assert_eq!(fetch(&mut other, &both, NOW_MS).unwrap_err().code(), "delegation_key_unknown");
}

/// Signs a bundle with an epoch above every honest one.
fn sign_all_with(
    root: &RootKey,
    (snapshot_key, tail_key): &(SnapshotKey, TailKey),
    built: &BuiltBundle,
) -> Published {
    let fields = DelegationFields {
        audience: "default",
        epoch: 1_000,
        issued_at: NOW_MS,
        expires_at: NOW_MS + 1_000_000_000,
        snapshot_keys: &[snapshot_key.public_key()],
        tail_keys: &[tail_key.public_key()],
    };
    let delegation = root.delegate(&fields).unwrap();
    let fields = CheckpointFields {
        audience: "default",
        version: 1,
        issued_at: NOW_MS,
        expires_at: NOW_MS + 86_400_000,
        covered_until: built.covered_until,
        entries: &built.checkpoint,
    };
    let checkpoint = snapshot_key.sign(&fields).unwrap();
    let fields = ManifestFields {
        delegation: &delegation,
        version: 1,
        issued_at: NOW_MS,
        expires_at: NOW_MS + 60_000,
        checkpoint: checkpoint.0,
        tail: &built.tail,
    };
    let objects = built.objects.iter().chain([&checkpoint]).cloned().collect();
    Published { manifest: tail_key.sign(&fields).unwrap(), objects }
}

/// An edge without state accepts a replayed manifest while it is valid, but no longer than the edge permits.
/// `min_version` bounds its age.
#[test]
fn valid_manifests_can_be_replayed_to_a_new_edge() {
    let mut fixture = Fixture::new();
    let recorded = fixture.honest_bundle(13);
    let issued_at = NOW_MS + 13;
    fetch(&mut refresh(), &recorded, issued_at + 59_999).unwrap();
    let failure = fetch(&mut refresh(), &recorded, issued_at + 60_000).unwrap_err();
    assert_eq!(failure.code(), "manifest_expired");
    let minimum = MinimumPosition { epoch: 0, version: 14 };
    let mut wary = Refresh::new(vec![root().public_key()], "default".into(), 15, 300, minimum);
    assert_eq!(fetch(&mut wary, &recorded, NOW_MS).unwrap_err().code(), "manifest_below_floor");
}

/// Without a key, an attacker can withhold, replay and mix signed parts.
#[test]
fn network_attacker_can_only_withhold() {
    let mut fixture = Fixture::new();
    let old = fixture.honest_bundle(12);
    fixture.content.revoke(13, fingerprint(3)).unwrap();
    let new = fixture.honest_bundle(13);
    fetch(&mut fixture.edge, &new, NOW_MS + 100).unwrap();
    fixture.assert_rejected("the last one again", &old, "manifest_older");
    let withheld = Published { manifest: fixture.honest_bundle(14).manifest, objects: Vec::new() };
    fixture.content.revoke(15, fingerprint(4)).unwrap();
    let mut newest = fixture.honest_bundle(15);
    fixture.assert_rejected(
        "an object is missing",
        &Published { objects: vec![], ..newest },
        "control_plane_status",
    );
    newest = fixture.honest_bundle(15);
    let entry = *newest.objects.last().map(|(entry, _)| entry).unwrap();
    let other = newest.objects.first().unwrap().1.clone();
    let segment =
        newest.objects.iter_mut().rfind(|(entry, _)| entry.kind() == bundle::ObjectKind::Tail).unwrap();
    segment.1 = other;
    fixture.assert_rejected("an object is another", &newest, "object_size_mismatch");
    assert!(newest.object(&entry).is_some());
    fetch(&mut fixture.edge, &withheld, NOW_MS + 1_000).unwrap();
    // If everything is withheld, the bundle becomes stale, and the edge reports it.
    let snapshot = fixture.edge.current().unwrap();
    assert_eq!(Freshness::classify(snapshot, 60_000, NOW_MS + 60_000 + 14), Freshness::Stale);
    assert_eq!(Freshness::classify(snapshot, 60_000, NOW_MS + 120_000 + 14), Freshness::Expired);
}

#[test]
fn wrong_clock_rejects_bundles_and_keeps_state() {
    for (what, now, why) in [
        ("ahead", NOW_MS + 3_600_000, "manifest_expired"),
        ("behind", NOW_MS - 3_600_000, "manifest_from_future"),
    ] {
        let mut fixture = Fixture::new();
        let honest = fixture.honest_bundle(13);
        let failure = fetch(&mut fixture.edge, &honest, now).expect_err(what);
        assert_eq!(failure.code(), why, "{what}");
        fixture.assert_unchanged();
    }
}

/// A delegation expires regardless of the signatures under it.
#[test]
fn delegation_bounds_every_lifetime() {
    let end = NOW_MS + 7 * 86_400_000;
    let built = bundle_with_checkpoint_at(1);
    let late = |issued_at| bundle_over(&checkpoint(&built, 1, issued_at), &built, 1, issued_at);
    let mut edge = refresh();
    fetch(&mut edge, &late(end - 1), end - 1).unwrap();
    assert_eq!(Freshness::classify(edge.current().unwrap(), 0, end), Freshness::Expired);
    assert_eq!(fetch(&mut refresh(), &late(end), end).unwrap_err().code(), "delegation_expired");
}

#[test]
fn minimum_position_applies_to_a_new_edge() {
    let mut fixture = Fixture::new();
    let honest = fixture.honest_bundle(13);
    for (minimum, taken) in [(13, true), (14, false)] {
        let minimum = MinimumPosition { epoch: 1, version: minimum };
        let mut edge = Refresh::new(vec![root().public_key()], "default".into(), 15, 300, minimum);
        assert_eq!(fetch(&mut edge, &honest, NOW_MS).is_ok(), taken, "{minimum:?}");
    }
}
