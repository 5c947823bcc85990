//! An edge reports which version every worker of its process enforces, and no worker installs a mixture of two bundles.

use crate::host_edge::{HostEdge, NOW_MS, configuration};
use bundle::builder::ManifestFields;
use harness::fake_control_plane::{self, Responses};
use harness::host::{Faults, Host, HostState, HttpCall, Pairs, Shared};

/// Two workers of one process: the leader fetches, the other loads from shared data.
#[test]
fn edge_status_reports_every_worker() {
    let mut leader = HostEdge::start_with(configuration(), |_| ());
    let shared = leader.host.state().shared.clone();
    let mut state = HostState::new(configuration(), NOW_MS);
    state.shared = shared;
    // The start time identifies a worker.
    state.now = leader.host.state().now + 1;
    let (mut follower, taken) = Host::start(state).unwrap();
    assert!(taken);
    follower.tick().unwrap();

    // The leader reports a version once the other worker has it too.
    let served = leader.sign_next(|_| ());
    leader.host.serve_waiting(&served).unwrap();
    assert_eq!(leader.asked(), None, "the other worker has not loaded it yet");
    follow(&mut leader, &mut follower, 25);
    assert_eq!(leader.asked().unwrap(), "version=2; workers=2; oldest=2; lagging=0");

    // A worker that hangs does not stop the leader from fetching.
    let served = leader.sign_next(|_| ());
    leader.host.serve_waiting(&served).unwrap();
    leader.tick_later(75);
    assert_eq!(leader.asked().unwrap(), "version=3; workers=2; oldest=2; lagging=1");

    // A worker that has ended is removed.
    for _ in 0..6 {
        leader.tick_later(1000);
    }
    let served = leader.sign_next(|_| ());
    leader.host.serve_waiting(&served).unwrap();
    leader.tick_later(25);
    assert_eq!(leader.asked().unwrap(), "version=4; workers=1; oldest=4; lagging=0");
}

/// A leader stalls for longer than its lease while it waits for an object, and continues after another worker has shared a
/// later version.
#[test]
fn suspended_leader_loads_newer_shared_bundle() {
    let mut stalled = HostEdge::start_with(configuration(), |_| ());
    let shared = stalled.host.state().shared.clone();
    let mut other = worker(&shared, stalled.host.state().now + 1);
    other.tick().unwrap();
    let (second, third) = (stalled.sign_next(|_| ()), stalled.sign_next(|_| ()));
    let waiting = stalled.host.state().http_calls.pop().unwrap();
    stalled.host.answer_call(&waiting, 200, &second.manifest).unwrap();
    assert!(!stalled.host.state().http_calls.is_empty(), "the leader waits for an object");

    other.state().now += 2_000_000_000;
    other.serve(&third).unwrap();
    assert!(enforces(&mut other, 3));
    let now = other.state().now;
    stalled.host.state().now = now;
    stalled.host.serve_waiting(&second).unwrap();
    stalled.tick_later(25);
    assert!(enforces(&mut stalled.host, 3));
    // A new worker loads the complete later version.
    let mut fresh = worker(&shared, now + 2);
    fresh.tick().unwrap();
    assert!(enforces(&mut fresh, 3), "{:?}", fresh.state().log);
}

/// If shared data does not contain the leader's bundle, the leader fetches and shares it again.
#[test]
fn inconsistent_shared_bundle_is_shared_again() {
    let mut leader = HostEdge::start_with(configuration(), |_| ());
    let shared = leader.host.state().shared.clone();
    let mut follower = worker(&shared, leader.host.state().now + 1);
    follower.tick().unwrap();
    let second = leader.sign_next(|_| ());
    let is_write = |call: &str| (call == "proxy_set_shared_data").then_some(LOST);
    leader.host.state().faults = Faults::of(is_write);
    leader.host.serve_waiting(&second).unwrap();
    leader.host.state().faults = Faults::default();
    follow(&mut leader, &mut follower, 100);
    assert!(enforces(&mut leader.host, 2) && !enforces(&mut follower, 2));
    leader.host.serve_waiting(&second).unwrap();
    follow(&mut leader, &mut follower, 100);
    assert!(enforces(&mut follower, 2), "{:?}", leader.host.state().log);
}

/// The leader failed to write an object to shared data, and has stopped. A new worker fetches for itself, although every
/// response takes longer than a tick.
#[test]
fn inconsistent_shared_bundle_is_fetched_again() {
    let mut leader = HostEdge::start_with(configuration(), |_| ());
    let shared = leader.host.state().shared.clone();
    let (second, third) = (leader.sign_next(|_| ()), leader.sign_next(|_| ()));
    // The writes of the lease and of the first object fail; those of the manifest and the stamp succeed.
    let mut to_lose = 2;
    leader.host.state().faults = Faults::of(move |call| {
        let lost = call == "proxy_set_shared_data" && to_lose > 0;
        to_lose -= i32::from(lost);
        lost.then_some(LOST)
    });
    leader.host.serve_waiting(&second).unwrap();
    let mut fresh = worker(&shared, leader.host.state().now + 1);
    let mut waiting = Vec::new();
    for tick in 0..400 {
        fresh.state().now += 25_000_000;
        fresh.tick().unwrap();
        if tick == 40 {
            assert!(!enforces(&mut fresh, 2), "shared data was consistent");
        }
        waiting.extend(fresh.state().http_calls.drain(..).map(|call| (tick + 2, call)));
        while let Some(at) = waiting.iter().position(|(due, _)| *due <= tick) {
            let (_, call) = waiting.remove(at);
            fresh.reply(&call, &third).unwrap();
        }
    }
    assert!(enforces(&mut fresh, 3), "{:?}", fresh.state().log);
}

/// Another filter with the same `vm_id` keeps the lease or overwrites shared data all the time. Every worker still gets
/// each version before its bundle is stale.
#[test]
fn foreign_shared_data_does_not_stop_fetching() {
    const GARBAGE: &[u8] = &[0xff; 48];
    type Hostile = fn(&Shared, u64);
    let cases: [(&str, Hostile); 6] = [
        ("keeps the lease", |shared, now| shared.overwrite("/lease", &foreign_lease(now))),
        ("keeps the lease and changes the stamp", |shared, now| {
            shared.overwrite("/lease", &foreign_lease(now));
            shared.overwrite("/stamp", &u128::from(now).to_be_bytes());
        }),
        ("overwrites the stamp", |shared, now| shared.overwrite("/stamp", &u128::from(now).to_be_bytes())),
        ("overwrites the manifest", |shared, now| {
            shared.overwrite("/stamp", &u128::from(now).to_be_bytes());
            shared.overwrite("/manifest", GARBAGE);
        }),
        ("overwrites the objects", |shared, now| {
            shared.overwrite("/stamp", &u128::from(now).to_be_bytes());
            shared.overwrite("/0", GARBAGE);
        }),
        ("overwrites all of it", |shared, now| {
            shared.overwrite("", GARBAGE);
            shared.overwrite("/lease", &foreign_lease(now));
        }),
    ];
    for (what, hostile) in cases {
        let mut first = HostEdge::start_with(configuration(), |_| ());
        let shared = first.host.state().shared.clone();
        let mut second = worker(&shared, first.host.state().now + 1);
        // The next bundles have a lifetime of a minute, as in production.
        let mut served = first.sign_next(minute);
        let mut version = 2;
        first.host.serve_waiting(&served).unwrap();
        second.tick().unwrap();
        assert!(enforces(&mut first.host, 2) && enforces(&mut second, 2), "{what}");
        let mut calls = 0;
        for tick in 1..=5_000_u64 {
            // Re-sign the content every 5 s, with a change every minute.
            if tick % 200 == 0 {
                if tick % 1_600 == 0 {
                    version += 1;
                }
                served = first.sign_at(version, minute);
            }
            first.host.state().now += 25_000_000;
            let now = first.host.state().now;
            second.state().now = now;
            for host in [&mut first.host, &mut second] {
                hostile(&shared, now / 1_000_000);
                host.tick().unwrap();
                hostile(&shared, now / 1_000_000);
                // The control plane answers at once if it has a newer version.
                for call in std::mem::take(&mut host.state().http_calls) {
                    if is_manifest_call_of(&call, &served) {
                        host.state().http_calls.push(call);
                    } else {
                        calls += 1;
                        host.reply(&call, &served).unwrap();
                    }
                }
            }
            for host in [&mut first.host, &mut second] {
                let stale = host.state().log.iter().find(|line| line.contains("no fresh bundle"));
                assert_eq!(stale, None, "{what}, tick {tick}");
            }
        }
        assert!(enforces(&mut first.host, version), "{what}: {:?}", last_lines(&mut first.host));
        assert!(enforces(&mut second, version), "{what}: {:?}", last_lines(&mut second));
        // Two workers fetch 25 manifests in two minutes, without repeated fetches of all objects.
        assert!(calls < 300, "{what}: {calls} calls");
        let lines = first.host.state().log.len() + second.state().log.len();
        assert!(lines < 100, "{what}: {lines} lines in the log");
    }
}

/// A worker that fetched for itself loads from shared data again once another worker shares.
#[test]
fn worker_loads_shared_bundle_after_own_fetch() {
    let mut first = HostEdge::start_with(configuration(), |_| ());
    let shared = first.host.state().shared.clone();
    let mut second = worker(&shared, first.host.state().now + 1);
    let served = first.sign_next(minute);
    first.host.serve_waiting(&served).unwrap();
    second.tick().unwrap();
    // The first worker has stopped, and another filter keeps its lease.
    let mut alone = false;
    for _ in 0..1_600 {
        second.state().now += 25_000_000;
        let now = second.state().now / 1_000_000;
        shared.overwrite("/lease", &foreign_lease(now));
        second.tick().unwrap();
        alone |= !second.state().http_calls.is_empty();
    }
    assert!(alone, "{:?}", last_lines(&mut second));
    // The other filter has stopped, and the first worker leads again.
    let now = second.state().now;
    first.host.state().now = now;
    first.host.state().http_calls.clear();
    shared.overwrite("/lease", b"");
    let newer = first.sign_next(minute);
    for _ in 0..200 {
        first.tick_later(25);
        for call in std::mem::take(&mut first.host.state().http_calls) {
            if is_manifest_call_of(&call, &newer) {
                first.host.state().http_calls.push(call);
            } else {
                first.host.reply(&call, &newer).unwrap();
            }
        }
    }
    assert!(enforces(&mut first.host, 3), "{:?}", last_lines(&mut first.host));
    second.state().now = first.host.state().now;
    second.state().http_calls.clear();
    for _ in 0..80 {
        second.state().now += 25_000_000;
        first.tick_later(25);
        second.tick().unwrap();
    }
    assert!(enforces(&mut second, 3), "{:?}", last_lines(&mut second));
    assert!(second.state().http_calls.is_empty(), "it loads from shared data");
}

/// Returns a lease of an unknown worker, for most of a second.
fn foreign_lease(now_ms: u64) -> Vec<u8> {
    [666_u64.to_be_bytes(), (now_ms + 900).to_be_bytes()].concat()
}

fn minute(draft: &mut ManifestFields<'_>) {
    draft.expires_at = draft.issued_at + 60_000;
}

/// Returns true if the call requests a manifest newer than this one.
fn is_manifest_call_of(call: &HttpCall, served: &Responses) -> bool {
    let is_manifest = call.headers.get(":path").is_some_and(|path| path.starts_with(b"/edge/v1/manifest"));
    is_manifest && call.headers.get("if-none-match") == Some(fake_control_plane::etag(served).as_bytes())
}

fn last_lines(host: &mut Host) -> Vec<String> {
    host.state().log.iter().rev().take(12).rev().cloned().collect()
}

/// Starts another worker with this shared data, at this time in nanoseconds.
pub(crate) fn worker(shared: &Shared, now: u64) -> Host {
    let mut state = HostState::new(configuration(), NOW_MS);
    state.shared = shared.clone();
    state.now = now;
    let (host, taken) = Host::start(state).unwrap();
    assert!(taken);
    host
}

pub(crate) fn enforces(host: &mut Host, version: u64) -> bool {
    let last = host.state().log.iter().rev().find(|line| line.contains("enforcing bundle version"));
    last.is_some_and(|line| line.ends_with(&format!(" {version}")))
}

/// The status of an internal error of the host.
const LOST: u32 = 10;

fn follow(leader: &mut HostEdge, follower: &mut Host, millis: u64) {
    let now = leader.host.state().now + millis * 1_000_000;
    follower.state().now = now;
    follower.tick().unwrap();
    leader.tick_later(millis);
}

impl HostEdge {
    pub(crate) fn tick_later(&mut self, millis: u64) {
        self.host.state().now += millis * 1_000_000;
        self.host.tick().unwrap();
    }

    /// Returns the workers' status in the waiting manifest request.
    pub(crate) fn asked(&mut self) -> Option<String> {
        let asks = |call: &&HttpCall| {
            call.headers.get(":path").is_some_and(|path| path.starts_with(b"/edge/v1/manifest"))
        };
        let headers: &Pairs = &self.host.state().http_calls.iter().find(asks)?.headers;
        let status = headers.get("x-keystile-edge-status").expect("every request has it");
        Some(String::from_utf8(status.to_vec()).unwrap())
    }
}
