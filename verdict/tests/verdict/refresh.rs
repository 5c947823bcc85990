//! The current bundle is kept until a newer one is complete.

use std::collections::BTreeMap;

use bundle::{
    Coverage, Entry, ExpiryRange, ObjectKind, RevocationStatus,
    builder::{BlockBuilder, Builder, BuiltBundle},
};
use proptest::prelude::*;
use token::Fingerprint;
use verdict::{FetchRequest, FetchStep, Progress, Refresh, RefreshError};

use crate::fixtures::{NOW, NOW_MS, Published, builder, bundle_over, checkpoint, publish, refresh};

/// Answers object requests, 16 at a time like a host. Returns the shared objects and the result.
fn fetch_all(
    refresh: &mut Refresh,
    published: &Published,
    now: u64,
) -> Result<(Vec<Entry>, Vec<Entry>), RefreshError> {
    let mut early = Vec::new();
    loop {
        let requests: Vec<FetchRequest> = std::iter::from_fn(|| refresh.poll(now)).collect();
        assert!(!requests.is_empty() && requests.len() <= 16, "{requests:?}");
        for request in requests {
            let FetchRequest::Object(entry) = request else { panic!("{request:?}") };
            let bytes = published.object(&entry).unwrap();
            let entries = |objects: Vec<(Entry, Vec<u8>)>| objects.into_iter().map(|(entry, _)| entry);
            match refresh.handle_response(request, 200, bytes, now, 0)? {
                FetchStep::Pending => {}
                FetchStep::Share(objects) => early.extend(entries(objects)),
                FetchStep::Ready(objects) => return Ok((early, entries(objects).collect())),
            }
        }
    }
}

fn deliver_manifest(
    refresh: &mut Refresh,
    published: &Published,
    now: u64,
) -> Result<FetchStep, RefreshError> {
    let request = refresh.poll(now).unwrap();
    refresh.handle_response(request, 200, published.manifest.clone(), now, 0)
}

fn fetch_bundle(refresh: &mut Refresh, published: &Published, now: u64) {
    deliver_manifest(refresh, published, now).unwrap();
    fetch_all(refresh, published, now).unwrap();
}

fn version(refresh: &Refresh) -> u64 {
    refresh.current().unwrap().manifest().version()
}

fn fingerprint(number: u64) -> Fingerprint {
    Fingerprint::digest(&number.to_be_bytes())
}

/// Returns a builder with this number of revocations in the checkpoint.
fn builder_with_checkpoint(revoked: u64) -> Builder {
    let mut builder = builder();
    for number in 0..revoked {
        builder.revoke(1, fingerprint(number)).unwrap();
    }
    builder.checkpoint(1).unwrap();
    builder
}

fn bundle_of(revoked: u64) -> BuiltBundle {
    builder_with_checkpoint(revoked).build().unwrap()
}

/// Returns a block of 40,000 credentials of `kid` that expire within a day of `NOW`. One in eight is revoked.
fn build_block(kid: &str) -> bundle::builder::BuiltBlock {
    let span = ExpiryRange { expires_from: NOW, expires_before: NOW + 86_400 };
    let coverage = Coverage { kid: kid.into(), iat_low: 0, iat_high: NOW };
    // As many shards as for a thousand times as many credentials.
    let mut block = BlockBuilder::new(span, vec![coverage], 5_000_000, 35_000_000, b"test").unwrap();
    let of = |number: u64| Fingerprint::digest(format!("{kid} {number}").as_bytes());
    let members: BTreeMap<u64, (Fingerprint, bool)> =
        (0..40_000).map(|number| (of(number).prefix(), (of(number), number % 8 == 0))).collect();
    members.values().for_each(|(fingerprint, revoked)| block.add(*fingerprint, *revoked).unwrap());
    block.finish().unwrap()
}

#[test]
fn the_first_request_does_not_wait() {
    let mut refresh = refresh();
    let published = publish(&bundle_of(0), 7, NOW_MS);
    let request = refresh.poll(NOW_MS).unwrap();
    assert_eq!(request, FetchRequest::Manifest { epoch: 0, have: 0, issued_at: 0, wait_seconds: 0 });
    assert_eq!(request.path(), "/edge/v1/manifest?have=0&epoch=0");
    assert_eq!(refresh.poll(NOW_MS + 5000), None, "one request at a time");
    refresh.handle_response(request, 200, published.manifest.clone(), NOW_MS, 0).unwrap();
    assert!(refresh.current().is_none(), "nothing is believed before it is complete");
    let (early, last) = fetch_all(&mut refresh, &published, NOW_MS).unwrap();
    assert_eq!(early.len() + last.len(), published.objects.len());
    let next = refresh.poll(NOW_MS).unwrap();
    let epoch = refresh.current().unwrap().manifest().delegation().epoch();
    assert_eq!(next, FetchRequest::Manifest { epoch, have: 7, issued_at: NOW_MS, wait_seconds: 15 });
    assert_eq!(next.path(), format!("/edge/v1/manifest?have=7&epoch={epoch}"));
    assert_eq!(next.etag().unwrap(), format!("\"7-{NOW_MS}\""));
}

#[test]
fn only_changed_objects_are_fetched() {
    let mut refresh = refresh();
    let mut builder = builder_with_checkpoint(20_000);
    builder.install_block(build_block("k1")).unwrap();
    builder.checkpoint(1).unwrap();
    let built = builder.build().unwrap();
    let checkpoint = checkpoint(&built, 1, NOW_MS);
    fetch_bundle(&mut refresh, &bundle_over(&checkpoint, &built, 1, NOW_MS), NOW_MS);
    // Each further revocation is one small object.
    for (version, number) in (2..).zip(20_000..20_400) {
        builder.revoke(version, fingerprint(number)).unwrap();
        let published = bundle_over(&checkpoint, &builder.build().unwrap(), version, NOW_MS);
        deliver_manifest(&mut refresh, &published, NOW_MS).unwrap();
        let (early, last) = fetch_all(&mut refresh, &published, NOW_MS).unwrap();
        let fetched = [early, last].concat();
        let bytes: u32 = fetched.iter().map(Entry::size).sum();
        assert!(fetched.iter().all(|entry| entry.kind() == ObjectKind::Tail), "{fetched:?}");
        assert!(bytes < 5_500, "{bytes} bytes after {version}");
        let snapshot = refresh.current().unwrap();
        assert_eq!(snapshot.revocation_status(&fingerprint(number), "", 0, None), RevocationStatus::Revoked);
    }
    // The same contents with a new signature need no object.
    let published = bundle_over(&checkpoint, &builder.build().unwrap(), 401, NOW_MS + 5000);
    assert_eq!(deliver_manifest(&mut refresh, &published, NOW_MS + 5000), Ok(FetchStep::Ready(vec![])));
    assert_eq!(refresh.current().unwrap().manifest().issued_at(), NOW_MS + 5000);
}

/// No object in use is replaced before the new bundle is complete, and most objects of a new base are shared before
/// that.
#[test]
fn a_new_base_is_shared_while_the_old_one_stays_complete() {
    let mut refresh = refresh();
    let mut builder = builder_with_checkpoint(10);
    let old = builder.install_block(build_block("k1")).unwrap();
    builder.checkpoint(1).unwrap();
    let before = publish(&builder.build().unwrap(), 1, NOW_MS);
    fetch_bundle(&mut refresh, &before, NOW_MS);
    let slots = |published: &Published| -> BTreeMap<String, Entry> {
        published.objects.iter().map(|(entry, _)| (entry.slot(), *entry)).collect()
    };
    let in_use = slots(&before);
    assert_eq!(in_use.len(), before.objects.len(), "no two objects share a slot");

    builder.install_block(build_block("k2")).unwrap();
    builder.remove_block(old);
    builder.checkpoint(2).unwrap();
    let after = publish(&builder.build().unwrap(), 2, NOW_MS);
    deliver_manifest(&mut refresh, &after, NOW_MS).unwrap();
    let (early, last) = fetch_all(&mut refresh, &after, NOW_MS).unwrap();
    assert!(early.iter().all(|entry| in_use.get(&entry.slot()).is_none_or(|old| old == entry)), "{early:?}");
    assert!(early.len() >= 128 && last.len() < 10, "{} early, {} last", early.len(), last.len());
    let again = in_use.keys().filter(|slot| slot.starts_with("base/")).count();
    assert!(again >= 128, "{again}");
}

#[test]
fn invalid_and_older_bundles_change_nothing() {
    let built = bundle_of(10);
    let later = NOW_MS + 1_000;
    let held = || publish(&built, 5, NOW_MS);
    let manifest = |version, issued_at| publish(&built, version, issued_at).manifest;
    let good = manifest(9, later);
    for (bad, why) in [
        (good[..good.len() - 1].to_vec(), "manifest_signature_invalid"),
        (manifest(4, later), "manifest_older"),
        (manifest(5, NOW_MS - 1), "manifest_older"),
        (manifest(9, later - 60_000), "manifest_expired"),
        (manifest(9, later + 60_001), "manifest_from_future"),
        (vec![], "manifest_malformed"),
        (b"<html>".to_vec(), "manifest_malformed"),
    ] {
        let mut refresh = refresh();
        fetch_bundle(&mut refresh, &held(), NOW_MS);
        let request = refresh.poll(NOW_MS).unwrap();
        let failure = refresh.handle_response(request, 200, bad, later, 0).unwrap_err();
        assert_eq!(failure.code(), why);
        assert_eq!(version(&refresh), 5, "{why}");
        assert_eq!(refresh.poll(later), None, "backs off");
        assert!(refresh.poll(later + 250).is_some());
    }
}

#[test]
fn manifests_are_accepted_up_to_a_minute_before_their_time_of_signing() {
    let built = bundle_of(0);
    for (ahead, expected) in [(60_000, None), (60_001, Some("manifest_from_future"))] {
        let offered = deliver_manifest(&mut refresh(), &publish(&built, 1, NOW_MS + ahead), NOW_MS);
        assert_eq!(offered.err().map(|failure| failure.code()), expected, "{ahead}");
    }
}

/// What a response can contain instead of the requested object.
#[derive(Debug, Clone, Copy)]
enum Damage {
    FlippedBit,
    Lengthened,
    Truncated,
    /// Another shard of the same bundle.
    Neighbour,
    /// An object of another bundle with the same signing keys, slot and length.
    Swapped,
    NotFound,
    Unreachable,
}

/// Returns an object of a bundle that differs from `bundle_of(20_000)` in one revocation, with the same slot and
/// length.
fn swapped_for(entry: &Entry) -> Vec<u8> {
    // Leading bits determine the shard.
    let slot = entry.slot();
    let shard: u64 = slot.rsplit('/').next().unwrap().parse().unwrap();
    let is_in_shard = |number: &u64| fingerprint(*number).prefix() >> 61 == shard;
    let last = (0..20_000).rev().find(is_in_shard).unwrap();
    let instead = (100_000..).filter(is_in_shard).take(200);
    let mut found = instead.filter_map(|number| {
        let mut builder = builder();
        for number in (0..20_000).filter(|number| *number != last).chain([number]) {
            builder.revoke(1, fingerprint(number)).unwrap();
        }
        builder.checkpoint(1).unwrap();
        let other = publish(&builder.build().unwrap(), 3, NOW_MS);
        let (found, bytes) = other.objects.iter().find(|(other, _)| other.slot() == slot)?;
        (found.size() == entry.size() && found != entry).then(|| bytes.to_vec())
    });
    found.next().expect("an object of the same length")
}

#[test]
fn valid_objects_are_kept_when_another_is_invalid() {
    let old = publish(&bundle_of(5), 1, NOW_MS);
    let new = publish(&bundle_of(20_000), 2, NOW_MS);
    for (damage, why) in [
        (Damage::FlippedBit, "object_hash_mismatch"),
        (Damage::Lengthened, "object_size_mismatch"),
        (Damage::Truncated, "object_size_mismatch"),
        (Damage::Neighbour, "object_size_mismatch"),
        (Damage::Swapped, "object_hash_mismatch"),
        (Damage::NotFound, "control_plane_status"),
        (Damage::Unreachable, "control_plane_unreachable"),
    ] {
        let mut refresh = refresh();
        fetch_bundle(&mut refresh, &old, NOW_MS);
        deliver_manifest(&mut refresh, &new, NOW_MS).unwrap();
        // The checkpoint comes first, because it names the others.
        let request = refresh.poll(NOW_MS).unwrap();
        let FetchRequest::Object(entry) = request else { panic!("{request:?}") };
        refresh.handle_response(request, 200, new.object(&entry).unwrap(), NOW_MS, 0).unwrap();
        let requests: Vec<FetchRequest> = core::iter::from_fn(|| refresh.poll(NOW_MS)).collect();
        assert_eq!(requests.len(), 8, "one for each shard");
        let FetchRequest::Object(first) = requests[0] else { panic!("{requests:?}") };
        let mut failures = 0;
        for (at, request) in requests.into_iter().enumerate() {
            let FetchRequest::Object(entry) = request else { panic!("{request:?}") };
            let mut bytes = new.object(&entry).unwrap();
            let mut status = 200;
            if at == 7 {
                match damage {
                    Damage::FlippedBit => bytes[0] ^= 1,
                    Damage::Lengthened => bytes.push(0),
                    Damage::Truncated => bytes.truncate(bytes.len() / 2),
                    Damage::Neighbour => bytes = new.object(&first).unwrap(),
                    Damage::Swapped => {
                        let whole = bytes;
                        bytes = swapped_for(&entry);
                        assert!(bytes.len() == whole.len() && bytes != whole);
                    }
                    Damage::NotFound => status = 404,
                    Damage::Unreachable => status = 0,
                }
            }
            if let Err(failure) = refresh.handle_response(request, status, bytes, NOW_MS, 0) {
                assert_eq!(failure.code(), why, "{damage:?}");
                failures += 1;
            }
        }
        assert_eq!(failures, 1, "{damage:?}");
        assert_eq!(version(&refresh), 1, "the last good one is kept");
        let later = NOW_MS + 10_000;
        let again = publish(&bundle_of(20_000), 2, later);
        deliver_manifest(&mut refresh, &again, later).unwrap();
        let requests: Vec<FetchRequest> = core::iter::from_fn(|| refresh.poll(later)).collect();
        assert_eq!(requests.len(), 1, "{requests:?}");
        let FetchRequest::Object(entry) = requests[0] else { panic!("{requests:?}") };
        let step = refresh.handle_response(requests[0], 200, new.object(&entry).unwrap(), later, 0);
        let Ok(FetchStep::Ready(shared)) = step else { panic!("{step:?}") };
        let slots: Vec<String> = shared.iter().map(|(entry, _)| entry.slot()).collect();
        assert!(slots.contains(&"checkpoint/0/0".into()), "of the first attempt as well: {slots:?}");
    }
}

#[test]
fn indexes_are_followed() {
    let mut refresh = refresh();
    fetch_bundle(&mut refresh, &publish(&bundle_of(600_000), 1, NOW_MS), NOW_MS);
}

/// The host handles requests between the calls.
#[test]
fn workers_load_64_kib_per_call() {
    let mut builder = builder_with_checkpoint(600_000);
    builder.install_block(build_block("k1")).unwrap();
    builder.checkpoint(1).unwrap();
    let published = publish(&builder.build().unwrap(), 3, NOW_MS);
    let mut follower = refresh();
    let mut requests = 0;
    loop {
        let mut read = 0;
        let progress = follower.handle_shared(&published.manifest, NOW_MS, |entry| {
            read += entry.size();
            published.object(entry)
        });
        assert!(read <= 64 * 1024, "{read} bytes at once");
        requests += 1;
        match progress.unwrap() {
            Progress::Continue => {
                assert!(follower.current().is_none(), "nothing is believed before it is complete")
            }
            Progress::Done => break,
        }
    }
    let bytes: usize = published.objects.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(requests > bytes / (64 * 1024), "{requests} for {bytes} bytes");
    assert_eq!(version(&follower), 3);
}

#[test]
fn workers_load_expired_bundles() {
    let built = bundle_of(100);
    let shared = publish(&built, 3, NOW_MS - 3_600_000);
    let all = |published: &Published, follower: &mut Refresh| {
        follower.handle_shared(&published.manifest, NOW_MS, |entry| published.object(entry))
    };
    let mut follower = refresh();
    assert!(follower.handle_shared(&shared.manifest, NOW_MS, |_| None).is_err());
    assert!(follower.current().is_none());
    assert_eq!(all(&shared, &mut follower), Ok(Progress::Done));
    assert_eq!(version(&follower), 3);
    // Neither older nor unverified bundles are loaded.
    assert_eq!(all(&publish(&built, 2, NOW_MS), &mut follower), Ok(Progress::Done));
    assert_eq!(version(&follower), 3);
    let mut forged = publish(&built, 4, NOW_MS);
    *forged.manifest.last_mut().unwrap() ^= 1;
    assert_eq!(all(&forged, &mut follower).unwrap_err().code(), "manifest_signature_invalid");
    assert_eq!(version(&follower), 3);
}

/// A leader that crashes leaves the old manifest beside some new objects.
#[test]
fn incomplete_shared_bundles_are_not_loaded() {
    let (old, new) = (publish(&bundle_of(10), 1, NOW_MS), publish(&bundle_of(11), 2, NOW_MS));
    let mut follower = refresh();
    let mixed = |entry: &Entry| {
        let by_slot = new.objects.iter().find(|(new, _)| new.slot() == entry.slot());
        by_slot.map(|(_, bytes)| bytes.to_vec())
    };
    let failure = follower.handle_shared(&old.manifest, NOW_MS, mixed).unwrap_err();
    assert!(matches!(failure, RefreshError::Object(_)), "{failure:?}");
    assert!(follower.current().is_none());
    // The next leader completes it.
    assert_eq!(follower.handle_shared(&new.manifest, NOW_MS, mixed), Ok(Progress::Done));
    assert_eq!(version(&follower), 2);
}

#[test]
fn expired_blocks_are_dropped() {
    let mut refresh = refresh();
    let mut builder = builder_with_checkpoint(0);
    builder.install_block(build_block("k1")).unwrap();
    builder.checkpoint(1).unwrap();
    let built = builder.build().unwrap();
    let checkpoint = checkpoint(&built, 1, NOW_MS + 80_000_000);
    let [revoked, good] = [b"k1 0", b"k1 1"].map(|text| Fingerprint::digest(text));
    let of = |refresh: &Refresh, one| {
        refresh.current().unwrap().revocation_status(&one, "k1", NOW - 9, Some(NOW + 9))
    };
    let both = |refresh: &Refresh| [of(refresh, revoked), of(refresh, good)];
    let known = [RevocationStatus::Revoked, RevocationStatus::Good];
    fetch_bundle(&mut refresh, &bundle_over(&checkpoint, &built, 1, NOW_MS), NOW_MS);
    assert_eq!(both(&refresh), known);
    // The last second plus the permitted clock skew. After that all credentials of the block have expired. If the clock
    // was wrong, their revocation status is unknown.
    for (seconds, expected) in [(86_400 + 299, known), (86_400 + 300, [RevocationStatus::Revoked; 2])] {
        let later = NOW_MS + seconds * 1000;
        let published = bundle_over(&checkpoint, &built, 1, later);
        assert_eq!(deliver_manifest(&mut refresh, &published, later), Ok(FetchStep::Ready(vec![])));
        assert_eq!(both(&refresh), expected, "{seconds}");
    }
    // The clock was ahead and is corrected: the block is fetched again.
    let published = bundle_over(&checkpoint, &built, 2, NOW_MS + 1000);
    deliver_manifest(&mut refresh, &published, NOW_MS + 1000).unwrap();
    let (early, last) = fetch_all(&mut refresh, &published, NOW_MS + 1000).unwrap();
    assert!([early, last].concat().iter().any(|entry| entry.kind() == ObjectKind::Base));
    assert_eq!(both(&refresh), known);
    // A new edge does not fetch the block.
    let later = NOW_MS + 86_700_000;
    let mut fresh = crate::fixtures::refresh();
    let published = bundle_over(&checkpoint, &built, 1, later);
    deliver_manifest(&mut fresh, &published, later).unwrap();
    let (early, last) = fetch_all(&mut fresh, &published, later).unwrap();
    assert!([early, last].concat().iter().all(|entry| entry.kind() != ObjectKind::Base));
}

/// A leader that was suspended while another worker led can leave objects of two bundles.
#[test]
fn inconsistent_bundles_are_fetched_again() {
    let mut refresh = refresh();
    let published = publish(&bundle_of(20_000), 3, NOW_MS);
    fetch_bundle(&mut refresh, &published, NOW_MS);
    for round in 0..2 {
        refresh.reshare_all();
        let request = refresh.poll(NOW_MS).unwrap();
        assert!(matches!(request, FetchRequest::Manifest { have: 0, wait_seconds: 0, .. }), "{request:?}");
        assert_eq!(version(&refresh), 3, "what is held stays in use");
        if round == 0 {
            // Older bundles are still rejected.
            let older = crate::fixtures::publish(&bundle_of(1), 2, NOW_MS).manifest;
            let failure = refresh.handle_response(request, 200, older, NOW_MS, 0).unwrap_err();
            assert_eq!(failure.code(), "manifest_older");
            continue;
        }
        refresh.handle_response(request, 200, published.manifest.clone(), NOW_MS, 0).unwrap();
        let (early, last) = fetch_all(&mut refresh, &published, NOW_MS).unwrap();
        assert_eq!(early.len() + last.len(), published.objects.len());
    }
    let request = refresh.poll(NOW_MS).unwrap();
    assert!(matches!(request, FetchRequest::Manifest { have: 3, .. }), "{request:?}");
}

/// Responses to aborted requests are ignored, and a request without a response times out.
#[test]
fn responses_to_aborted_requests_are_ignored() {
    let mut refresh = refresh();
    let (old, new) = (publish(&bundle_of(0), 1, NOW_MS), publish(&bundle_of(20_000), 2, NOW_MS));
    deliver_manifest(&mut refresh, &old, NOW_MS).unwrap();
    let lost = refresh.poll(NOW_MS).unwrap();
    refresh.abort();
    deliver_manifest(&mut refresh, &new, NOW_MS).unwrap();
    assert_eq!(refresh.handle_response(lost, 0, vec![], NOW_MS, 0), Ok(FetchStep::Pending));
    fetch_all(&mut refresh, &new, NOW_MS).unwrap();
    assert_eq!(version(&refresh), 2);
    let never = refresh.poll(NOW_MS).unwrap();
    assert_eq!(refresh.poll(NOW_MS + 15_000 + 10_000), None);
    assert!(refresh.poll(NOW_MS + 15_000 + 10_001).is_some(), "{never:?} is lost");
}

#[test]
fn unheld_requests_are_a_second_apart() {
    let mut refresh = refresh();
    fetch_bundle(&mut refresh, &publish(&bundle_of(0), 1, NOW_MS), NOW_MS);
    let request = refresh.poll(NOW_MS).unwrap();
    refresh.handle_response(request, 304, vec![], NOW_MS + 3, 0).unwrap();
    assert_eq!(refresh.poll(NOW_MS + 999), None);
    for (asked, answered) in [(1000, 16_000), (16_000, 16_200)] {
        let request = refresh.poll(NOW_MS + asked).unwrap();
        refresh.handle_response(request, 304, vec![], NOW_MS + answered, 0).unwrap();
    }
    assert!(refresh.poll(NOW_MS + 16_200).is_some(), "the control plane held the request: again at once");
}

/// Simulates a control plane that re-signs an unchanged bundle every 5 s, behind a proxy that times out requests after
/// `patience` seconds. Returns each wait and whether it succeeded. The bundle stays fresh.
fn poll_behind_proxy(patience: u64, cut: u16, minutes: u64) -> Vec<(u64, bool)> {
    let built = bundle_of(0);
    let checkpoint = checkpoint(&built, 1, NOW_MS);
    let (mut refresh, mut now, end) = (refresh(), NOW_MS, NOW_MS + minutes * 60_000);
    let mut asked = Vec::new();
    while now < end {
        let Some(request) = refresh.poll(now) else {
            now += 25;
            continue;
        };
        let FetchRequest::Manifest { wait_seconds, issued_at, .. } = request else {
            unreachable!("all objects are there")
        };
        let is_cut = wait_seconds > patience;
        asked.push((wait_seconds, is_cut));
        now += wait_seconds.min(patience) * 1000 + 5;
        let signed_at = (now - NOW_MS) / 5_000 * 5_000 + NOW_MS;
        let (status, body) = match () {
            () if is_cut => (cut, b"<html>Gateway Time-out</html>".to_vec()),
            () if signed_at <= issued_at => (304, vec![]),
            () => (200, bundle_over(&checkpoint, &built, 1, signed_at).manifest),
        };
        match refresh.handle_response(request, status, body, now, 7) {
            Ok(FetchStep::Ready(_)) | Err(_) => {}
            Ok(FetchStep::Pending | FetchStep::Share(_)) if refresh.current().is_some() => {}
            Ok(_) => {
                drop(fetch_all(&mut refresh, &bundle_over(&checkpoint, &built, 1, signed_at), now).unwrap())
            }
        }
        let held = refresh.current().unwrap();
        assert!(now < held.refresh_due_at() + 5_000, "it is {} ms old", now - held.manifest().issued_at());
    }
    asked
}

#[test]
fn proxy_timeouts_shorten_the_wait() {
    for cut in [504, 408, 503, 502, 524, 0] {
        for patience in [1, 2, 4, 5, 7, 10, 14] {
            let asked = poll_behind_proxy(patience, cut, 20);
            let cut_off = asked.iter().filter(|(_, cut)| *cut).count();
            assert!((1..12).contains(&cut_off), "{cut} after {patience} s: {cut_off} of {}", asked.len());
            // A longer wait is tried again, but rarely.
            let (early, late) = asked.split_at(6);
            assert!(early.iter().any(|(_, cut)| *cut), "{early:?}");
            assert!(
                late.iter().any(|(_, cut)| *cut),
                "{cut} after {patience} s: it never asks for more again"
            );
        }
    }
    // Without a proxy timeout the configured wait is used.
    assert!(poll_behind_proxy(15, 504, 5).iter().skip(1).all(|(wait, cut)| !cut && *wait == 15));
}

/// If the proxy times out at once, the edge polls without waiting.
#[test]
fn immediate_timeouts_disable_the_wait() {
    let asked = poll_behind_proxy(0, 504, 10);
    let cut_off = asked.iter().filter(|(_, cut)| *cut).count();
    assert!(cut_off < 10, "{cut_off} of {}", asked.len());
    assert!(asked.len() > 300, "asked {} times in ten minutes", asked.len());
}

/// After a proxy is reconfigured, the wait is back at the configured value within a quarter of an hour.
#[test]
fn shortened_waits_grow_again() {
    let mut refresh = refresh();
    let bundle_with_version = |version| publish(&bundle_of(0), version, NOW_MS);
    fetch_bundle(&mut refresh, &bundle_with_version(1), NOW_MS);
    let mut waits = Vec::new();
    for _ in 0..4 {
        let request = refresh.poll(NOW_MS + 10_000).unwrap();
        waits.push(request.wait_seconds());
        refresh.handle_response(request, 504, vec![], NOW_MS + 10_000, 0).unwrap_err();
        refresh.abort();
    }
    assert_eq!(waits, [15, 7, 3, 1]);
    let (mut version, mut wait) = (1, 0);
    for minute in 0..=300 {
        let now = NOW_MS + 20_000 + minute * 60_000;
        version += 1;
        let built = bundle_of(0);
        let checkpoint = checkpoint(&built, version, now);
        refresh.abort();
        fetch_bundle(&mut refresh, &bundle_over(&checkpoint, &built, version, now), now);
        wait = refresh.poll(now + 1).unwrap().wait_seconds();
        if wait == 15 {
            break;
        }
        assert!(minute < 300, "{wait}");
    }
    assert_eq!(wait, 15);
}

/// A refused connection or an error of the control plane does not shorten the wait.
#[test]
fn only_timeouts_shorten_the_wait() {
    for (status, body, after) in [
        (0, "", 100),
        (503, "upstream connect error or disconnect/reset before headers", 100),
        (503, r#"{"code":"store_unavailable","detail":"try again"}"#, 5_000),
        (500, "", 5_000),
        (401, r#"{"code":"edge_credential_refused","detail":"unknown"}"#, 100),
    ] {
        let mut refresh = refresh();
        fetch_bundle(&mut refresh, &publish(&bundle_of(0), 1, NOW_MS), NOW_MS);
        let request = refresh.poll(NOW_MS).unwrap();
        refresh.handle_response(request, status, body.into(), NOW_MS + after, 0).unwrap_err();
        let next = refresh.poll(NOW_MS + after + 250).unwrap();
        assert_eq!(next.wait_seconds(), 15, "{status} {body}");
    }
}

/// After half its lifetime, the bundle has to be replaced without waiting.
#[test]
fn requests_do_not_wait_after_half_the_lifetime() {
    let mut refresh = refresh();
    fetch_bundle(&mut refresh, &publish(&bundle_of(0), 1, NOW_MS), NOW_MS);
    for (age, wait) in
        [(0, 15), (14_000, 15), (20_000, 10), (29_500, 0), (30_000, 0), (59_000, 0), (90_000, 0)]
    {
        refresh.abort();
        assert_eq!(refresh.poll(NOW_MS + age).unwrap().wait_seconds(), wait, "{age}");
    }
    // All edges poll then: every 5 s suffices.
    refresh.abort();
    let request = refresh.poll(NOW_MS + 31_000).unwrap();
    refresh.handle_response(request, 304, vec![], NOW_MS + 31_010, 0).unwrap();
    assert_eq!(refresh.poll(NOW_MS + 35_999), None);
    assert!(refresh.poll(NOW_MS + 36_000).is_some());
}

/// Log texts name who responded, and how.
#[test]
fn failures_name_who_responded() {
    let refused = r#"{"type":"about:blank","title":"Unauthorized","status":401,"code":"edge_credential_refused",
        "detail":"this edge credential is not known: `keystile edge enroll`\r\nforged: line"}"#;
    let long = format!(r#"{{"code":"{}","detail":"{}"}}"#, "c".repeat(5_000), "d".repeat(5_000));
    for (status, body, code, expected) in [
        (0, "", "control_plane_unreachable", "no response from the control plane".into()),
        (
            503,
            "upstream connect error or disconnect/reset before headers. reset reason: connection timeout",
            "control_plane_unreachable",
            "no response from the control plane; a proxy responded with status 503: upstream connect error or \
             disconnect/reset before headers. reset reason: connection timeout"
                .to_owned(),
        ),
        (
            504,
            "<html><h1>504 Gateway Time-out</h1></html>",
            "control_plane_unreachable",
            "no response from the control plane; a proxy responded with status 504".into(),
        ),
        (
            401,
            refused,
            "control_plane_status",
            "the control plane responded with status 401 edge_credential_refused: this edge credential is not known: \
             `keystile edge enroll`forged: line"
                .into(),
        ),
        (
            503,
            r#"{"code":"store_unavailable","detail":"try again"}"#,
            "control_plane_status",
            "the control plane responded with status 503 store_unavailable: try again".into(),
        ),
        (404, "", "control_plane_status", "the control plane responded with status 404".into()),
        (404, r#"{"detail":"x"}"#, "control_plane_status", "the control plane responded with status 404".into()),
        (
            500,
            &long,
            "control_plane_status",
            format!("the control plane responded with status 500 {}: {}", "c".repeat(200), "d".repeat(200)),
        ),
    ] {
        let mut refresh = refresh();
        let request = refresh.poll(NOW_MS).unwrap();
        let failure = refresh.handle_response(request, status, body.into(), NOW_MS, 0).unwrap_err();
        assert_eq!((failure.code(), failure.to_string()), (code, expected), "{status} {body}");
    }
}

#[test]
fn retry_delay_grows_and_is_bounded() {
    for random in [0, u64::MAX, 12_345] {
        let (mut refresh, mut now, mut waits) = (refresh(), NOW_MS, vec![]);
        for _ in 0..12 {
            let request = refresh.poll(now).unwrap();
            assert!(refresh.handle_response(request, 0, vec![], now, random).is_err());
            let start = now;
            while refresh.poll(now).is_none() {
                now += 1;
            }
            waits.push(now - start);
            refresh.abort();
        }
        assert!((125..=250).contains(&waits[0]), "{waits:?}");
        assert!(waits[1] >= 250 && waits[4] > waits[1], "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= 10_000), "{waits:?}");
    }
}

proptest! {
    /// For any sequence of events, the version never decreases and the current bundle is complete.
    #[test]
    fn versions_only_grow(steps in prop::collection::vec((0..6_u8, 1..5_u64, 0..3_u64), 1..60)) {
        let bundles: Vec<BuiltBundle> = (0..5).map(|n| bundle_of(n * 3)).collect();
        let (mut refresh, mut now, mut best) = (refresh(), NOW_MS, (0, 0));
        let mut objects: BTreeMap<Entry, Vec<u8>> = BTreeMap::new();
        for (kind, version, earlier) in steps {
            now += 700;
            if let Some(request) = refresh.poll(now) {
                let (status, body) = match (kind, request) {
                    (0, _) => (0, vec![]),
                    (1, _) => (500, vec![]),
                    (2, _) => (200, b"junk".to_vec()),
                    (3, FetchRequest::Manifest { .. }) => (304, vec![]),
                    (_, FetchRequest::Manifest { .. }) => {
                        let built = &bundles[usize::try_from(version).unwrap()];
                        let published = publish(built, version, now - earlier * 500);
                        objects.extend(published.objects.iter().map(|(entry, bytes)| (*entry, bytes.to_vec())));
                        (200, published.manifest)
                    }
                    (_, FetchRequest::Object(entry)) => (200, objects[&entry].clone()),
                };
                let _ = refresh.handle_response(request, status, body, now, 7);
            }
            let held = refresh.current().map_or((0, 0), |held| (held.manifest().version(), held.manifest().issued_at()));
            prop_assert!(held >= best);
            best = held;
        }
    }
}
