//! The last good bundle is kept until a better one is complete.

use bundle::builder::{Built, Draft, Publisher};
use proptest::prelude::*;
use token::Fingerprint;
use verdict::{Call, Refresh, Step};

use crate::world::{NOW_MS, builder, manifest, publisher};

fn refresh() -> Refresh {
    Refresh::new(vec![publisher().public_key()], "default".into(), 15)
}

/// A control plane that answers every object of `built`.
fn fetch_all(refresh: &mut Refresh, built: &Built, now: u64) -> Result<Step, verdict::Failure> {
    let mut step = Step::Pending;
    while let Some(call) = refresh.poll(now) {
        let Call::Object(entry) = call else { return Ok(step) };
        let (_, bytes) = built.objects.iter().find(|(built, _)| *built == entry).unwrap();
        step = refresh.handle_answer(call, 200, bytes.to_vec(), now, 0)?;
        if step != Step::Pending {
            return Ok(step);
        }
    }
    Ok(step)
}

fn bundle_of(revoked: u64) -> Built {
    let mut builder = builder();
    for number in 0..revoked {
        builder.revoke(Fingerprint::of(&number.to_be_bytes())).unwrap();
    }
    builder.build().unwrap()
}

fn load(refresh: &mut Refresh, built: &Built, version: u64, now: u64) {
    let call = refresh.poll(now).unwrap();
    refresh.handle_answer(call, 200, manifest(built, version, now), now, 0).unwrap();
    assert!(matches!(fetch_all(refresh, built, now), Ok(Step::Ready(_))));
    assert_eq!(refresh.current().unwrap().manifest().version(), version);
}

#[test]
fn the_first_call_asks_for_anything_at_once_and_later_ones_wait() {
    let mut refresh = refresh();
    let built = bundle_of(0);
    let call = refresh.poll(NOW_MS).unwrap();
    assert_eq!(call, Call::Manifest { have: 0, issued_at: 0, wait_seconds: 0 });
    assert_eq!(call.path(), "/edge/v1/manifest?have=0");
    assert_eq!(refresh.poll(NOW_MS + 5000), None, "one request at a time");
    refresh.handle_answer(call, 200, manifest(&built, 7, NOW_MS), NOW_MS, 0).unwrap();
    assert!(refresh.current().is_none(), "nothing is believed before it is complete");
    let Ok(Step::Ready(objects)) = fetch_all(&mut refresh, &built, NOW_MS) else { panic!("not ready") };
    assert_eq!(objects.len(), built.objects.len());
    let next = refresh.poll(NOW_MS).unwrap();
    assert_eq!(next, Call::Manifest { have: 7, issued_at: NOW_MS, wait_seconds: 15 });
    assert_eq!(next.etag().unwrap(), format!("\"7-{NOW_MS}\""));
}

#[test]
fn only_what_changed_is_fetched() {
    let mut refresh = refresh();
    load(&mut refresh, &bundle_of(20_000), 1, NOW_MS);
    let built = bundle_of(20_001);
    let call = refresh.poll(NOW_MS).unwrap();
    refresh.handle_answer(call, 200, manifest(&built, 2, NOW_MS), NOW_MS, 0).unwrap();
    let Ok(Step::Ready(objects)) = fetch_all(&mut refresh, &built, NOW_MS) else { panic!("not ready") };
    assert_eq!(objects.len(), 1);
    // The same content signed again needs no object at all.
    let call = refresh.poll(NOW_MS).unwrap();
    let step = refresh.handle_answer(call, 200, manifest(&built, 2, NOW_MS + 5000), NOW_MS + 5000, 0);
    assert_eq!(step, Ok(Step::Ready(vec![])));
    assert_eq!(refresh.current().unwrap().manifest().issued_at(), NOW_MS + 5000);
}

#[test]
fn what_is_not_a_better_bundle_changes_nothing() {
    let built = bundle_of(10);
    let later = NOW_MS + 1_000;
    let stranger = Publisher::new(&[9; 32]);
    let draft = |audience| Draft {
        audience,
        version: 9,
        issued_at: later,
        expires_at: later + 60_000,
        entries: &built.entries,
    };
    let good = manifest(&built, 9, later);
    for (bad, why) in [
        (stranger.sign(&draft("default")).unwrap(), "manifest_key_unknown"),
        (publisher().sign(&draft("other")).unwrap(), "manifest_audience_mismatch"),
        (good[..good.len() - 1].to_vec(), "manifest_signature_invalid"),
        (manifest(&built, 4, later), "manifest_older"),
        (manifest(&built, 5, NOW_MS - 1), "manifest_older"),
        (manifest(&built, 9, later - 60_000), "manifest_expired"),
        (manifest(&built, 9, later + 60_001), "manifest_from_future"),
        (vec![], "manifest_malformed"),
        (b"<html>".to_vec(), "manifest_malformed"),
    ] {
        let mut refresh = refresh();
        load(&mut refresh, &built, 5, NOW_MS);
        let call = refresh.poll(NOW_MS).unwrap();
        let failure = refresh.handle_answer(call, 200, bad, later, 0).unwrap_err();
        assert_eq!(failure.code(), why);
        assert_eq!(refresh.current().unwrap().manifest().version(), 5, "{why}");
        assert_eq!(refresh.poll(later), None, "backs off");
        assert!(refresh.poll(later + 250).is_some());
    }
}

#[test]
fn a_bad_object_is_refused_and_the_good_ones_need_not_be_fetched_again() {
    let (old, new) = (bundle_of(5), bundle_of(20_000));
    for (damage, why) in [
        (0, "object_hash_mismatch"),
        (1, "object_size_mismatch"),
        (2, "control_plane_status"),
        (3, "control_plane_unreachable"),
    ] {
        let mut refresh = refresh();
        load(&mut refresh, &old, 1, NOW_MS);
        let call = refresh.poll(NOW_MS).unwrap();
        refresh.handle_answer(call, 200, manifest(&new, 2, NOW_MS), NOW_MS, 0).unwrap();
        let calls: Vec<Call> = core::iter::from_fn(|| refresh.poll(NOW_MS)).collect();
        assert_eq!(calls.len(), 8, "one for each shard");
        let mut failures = 0;
        for (at, call) in calls.into_iter().enumerate() {
            let Call::Object(entry) = call else { panic!("{call:?}") };
            let mut bytes = new.objects.iter().find(|(built, _)| *built == entry).unwrap().1.to_vec();
            let mut status = 200;
            if at == 7 {
                match damage {
                    0 => bytes[0] ^= 1,
                    1 => bytes.push(0),
                    2 => status = 404,
                    _ => status = 0,
                }
            }
            if let Err(failure) = refresh.handle_answer(call, status, bytes, NOW_MS, 0) {
                assert_eq!(failure.code(), why);
                failures += 1;
            }
        }
        assert_eq!(failures, 1);
        assert_eq!(refresh.current().unwrap().manifest().version(), 1, "the last good one is kept");
        let later = NOW_MS + 10_000;
        let call = refresh.poll(later).unwrap();
        refresh.handle_answer(call, 200, manifest(&new, 2, later), later, 0).unwrap();
        let calls: Vec<Call> = core::iter::from_fn(|| refresh.poll(later)).collect();
        assert_eq!(calls.len(), 1, "{calls:?}");
        let Call::Object(entry) = calls[0] else { panic!("{calls:?}") };
        let bytes = new.objects.iter().find(|(built, _)| *built == entry).unwrap().1.to_vec();
        let Ok(Step::Ready(shared)) = refresh.handle_answer(calls[0], 200, bytes, later, 0) else {
            panic!("not ready")
        };
        assert_eq!(shared.len(), 8, "the other workers need those of the first attempt as well");
    }
}

#[test]
fn an_index_is_followed() {
    let built = bundle_of(600_000);
    let mut refresh = refresh();
    load(&mut refresh, &built, 1, NOW_MS);
}

#[test]
fn a_worker_takes_what_the_leader_shared_even_when_it_has_expired() {
    let built = bundle_of(600_000);
    let shared =
        |entry: &bundle::Entry| Some(built.objects.iter().find(|(built, _)| built == entry)?.1.to_vec());
    let mut follower = refresh();
    let bytes = manifest(&built, 3, NOW_MS - 3_600_000);
    assert!(follower.handle_shared(&bytes, |_| None).is_err());
    assert!(follower.current().is_none());
    follower.handle_shared(&bytes, shared).unwrap();
    assert_eq!(follower.current().unwrap().manifest().version(), 3);
    // Never back, and never unverified.
    follower.handle_shared(&manifest(&built, 2, NOW_MS), shared).unwrap();
    assert_eq!(follower.current().unwrap().manifest().version(), 3);
    let mut forged = manifest(&built, 4, NOW_MS);
    *forged.last_mut().unwrap() ^= 1;
    assert!(follower.handle_shared(&forged, shared).is_err());
    assert_eq!(follower.current().unwrap().manifest().version(), 3);
}

#[test]
fn where_nothing_waits_it_polls_once_a_second() {
    let mut refresh = refresh();
    load(&mut refresh, &bundle_of(0), 1, NOW_MS);
    let call = refresh.poll(NOW_MS).unwrap();
    refresh.handle_answer(call, 304, vec![], NOW_MS + 3, 0).unwrap();
    assert_eq!(refresh.poll(NOW_MS + 999), None);
    let call = refresh.poll(NOW_MS + 1000).unwrap();
    refresh.handle_answer(call, 304, vec![], NOW_MS + 16_000, 0).unwrap();
    assert!(refresh.poll(NOW_MS + 16_000).is_some(), "the control plane held the request: again at once");
}

#[test]
fn backs_off_further_each_time_and_not_for_ever() {
    for random in [0, u64::MAX, 12_345] {
        let (mut refresh, mut now, mut waits) = (refresh(), NOW_MS, vec![]);
        for _ in 0..12 {
            let call = refresh.poll(now).unwrap();
            assert!(refresh.handle_answer(call, 0, vec![], now, random).is_err());
            let start = now;
            while refresh.poll(now).is_none() {
                now += 1;
            }
            waits.push(now - start);
            refresh.stand_down();
        }
        assert!((125..=250).contains(&waits[0]), "{waits:?}");
        assert!(waits[1] >= 250 && waits[4] > waits[1], "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= 10_000), "{waits:?}");
    }
}

proptest! {
    /// Whatever comes in whatever order: the version never falls, and what is believed is complete.
    #[test]
    fn versions_only_grow(steps in prop::collection::vec((0..6_u8, 1..5_u64, 0..3_u64), 1..60)) {
        let bundles: Vec<Built> = (0..5).map(|n| bundle_of(n * 3)).collect();
        let (mut refresh, mut now, mut best) = (refresh(), NOW_MS, (0, 0));
        for (kind, version, earlier) in steps {
            now += 700;
            if let Some(call) = refresh.poll(now) {
                let (status, body) = match (kind, call) {
                    (0, _) => (0, vec![]),
                    (1, _) => (500, vec![]),
                    (2, _) => (200, b"junk".to_vec()),
                    (3, Call::Manifest { .. }) => (304, vec![]),
                    (_, Call::Manifest { .. }) => (200, manifest(&bundles[usize::try_from(version).unwrap()], version, now - earlier * 500)),
                    (_, Call::Object(entry)) => {
                        let all = bundles.iter().flat_map(|built| &built.objects);
                        (200, all.into_iter().find(|(built, _)| *built == entry).unwrap().1.to_vec())
                    }
                };
                let _ = refresh.handle_answer(call, status, body, now, 7);
            }
            let held = refresh.current().map_or((0, 0), |held| (held.manifest().version(), held.manifest().issued_at()));
            prop_assert!(held >= best);
            best = held;
        }
    }
}
