//! The control plane hears which version every worker of a process enforces, and which of them lag; and no worker mixes
//! what another has shared.

use crate::edge::{Edge, NOW_MS, configuration};
use harness::host::{Faults, Host, HttpCall, Pairs, Shared, World};

/// Two workers of one process: the leader asks, the other follows.
#[test]
fn is_told_of_every_worker_with_each_request() {
    let mut leader = Edge::with(configuration(), |_| ());
    let shared = leader.host.world().shared.clone();
    let mut world = World::new(configuration(), NOW_MS);
    world.shared = shared;
    // Workers are told apart by the time of their start.
    world.now = leader.host.world().now + 1;
    let (mut follower, taken) = Host::start(world).unwrap();
    assert!(taken);
    follower.tick().unwrap();

    // What the leader takes, it tells once the other has it too.
    let served = leader.next(|_| ());
    leader.host.serve_waiting(&served).unwrap();
    assert_eq!(leader.asked(), None, "the other worker has not seen it yet");
    follow(&mut leader, &mut follower, 25);
    assert_eq!(leader.asked().unwrap(), "version=2; workers=2; oldest=2; lagging=0");

    // One that hangs does not keep the leader from asking.
    let served = leader.next(|_| ());
    leader.host.serve_waiting(&served).unwrap();
    leader.tick_later(75);
    assert_eq!(leader.asked().unwrap(), "version=3; workers=2; oldest=2; lagging=1");

    // One that is gone is forgotten.
    for _ in 0..6 {
        leader.tick_later(1000);
    }
    let served = leader.next(|_| ());
    leader.host.serve_waiting(&served).unwrap();
    leader.tick_later(25);
    assert_eq!(leader.asked().unwrap(), "version=4; workers=1; oldest=4; lagging=0");
}

/// It waits for an object, stalls for longer than its lease, and comes back when another has shared something later.
#[test]
fn a_leader_that_was_suspended_takes_what_another_shared_meanwhile() {
    let mut stalled = Edge::with(configuration(), |_| ());
    let shared = stalled.host.world().shared.clone();
    let mut other = worker(&shared, stalled.host.world().now + 1);
    other.tick().unwrap();
    let (second, third) = (stalled.next(|_| ()), stalled.next(|_| ()));
    let waiting = stalled.host.world().http_calls.pop().unwrap();
    stalled.host.answer(&waiting, 200, &second.manifest).unwrap();
    assert!(!stalled.host.world().http_calls.is_empty(), "it waits for an object");

    other.world().now += 2_000_000_000;
    other.serve(&third).unwrap();
    assert!(enforces(&mut other, 3));
    let now = other.world().now;
    stalled.host.world().now = now;
    stalled.host.serve_waiting(&second).unwrap();
    stalled.tick_later(25);
    assert!(enforces(&mut stalled.host, 3));
    // Whoever starts now finds the later one, whole.
    let mut fresh = worker(&shared, now + 2);
    fresh.tick().unwrap();
    assert!(enforces(&mut fresh, 3), "{:?}", fresh.world().log);
}

/// What a leader finds in shared data is not what it holds: all of it is fetched and shared once more.
#[test]
fn what_was_not_shared_as_it_is_held_is_shared_again() {
    let mut leader = Edge::with(configuration(), |_| ());
    let shared = leader.host.world().shared.clone();
    let mut follower = worker(&shared, leader.host.world().now + 1);
    follower.tick().unwrap();
    let second = leader.next(|_| ());
    let is_write = |call: &str| (call == "proxy_set_shared_data").then_some(LOST);
    leader.host.world().faults = Faults::of(is_write);
    leader.host.serve_waiting(&second).unwrap();
    leader.host.world().faults = Faults::default();
    follow(&mut leader, &mut follower, 100);
    assert!(enforces(&mut leader.host, 2) && !enforces(&mut follower, 2));
    leader.host.serve_waiting(&second).unwrap();
    follow(&mut leader, &mut follower, 100);
    assert!(enforces(&mut follower, 2), "{:?}", leader.host.world().log);
}

/// The leader lost an object on the way to shared data, and is silent since. Whoever starts then fetches for itself,
/// though every answer takes longer than a tick.
#[test]
fn what_does_not_belong_together_is_fetched_by_whoever_finds_it() {
    let mut leader = Edge::with(configuration(), |_| ());
    let shared = leader.host.world().shared.clone();
    let (second, third) = (leader.next(|_| ()), leader.next(|_| ()));
    // The lease, which it has anyway, and the first object; manifest and stamp arrive.
    let mut to_lose = 2;
    leader.host.world().faults = Faults::of(move |call| {
        let lost = call == "proxy_set_shared_data" && to_lose > 0;
        to_lose -= i32::from(lost);
        lost.then_some(LOST)
    });
    leader.host.serve_waiting(&second).unwrap();
    let mut fresh = worker(&shared, leader.host.world().now + 1);
    let mut waiting = Vec::new();
    for tick in 0..400 {
        fresh.world().now += 25_000_000;
        fresh.tick().unwrap();
        if tick == 40 {
            assert!(!enforces(&mut fresh, 2), "nothing was torn");
        }
        waiting.extend(fresh.world().http_calls.drain(..).map(|call| (tick + 2, call)));
        while let Some(at) = waiting.iter().position(|(due, _)| *due <= tick) {
            let (_, call) = waiting.remove(at);
            fresh.reply(&call, &third).unwrap();
        }
    }
    assert!(enforces(&mut fresh, 3), "{:?}", fresh.world().log);
}

/// Another worker of the process with this shared data, started at this nanosecond.
fn worker(shared: &Shared, now: u64) -> Host {
    let mut world = World::new(configuration(), NOW_MS);
    world.shared = shared.clone();
    world.now = now;
    let (host, taken) = Host::start(world).unwrap();
    assert!(taken);
    host
}

fn enforces(host: &mut Host, version: u64) -> bool {
    let last = host.world().log.iter().rev().find(|line| line.contains("enforcing bundle version"));
    last.is_some_and(|line| line.ends_with(&format!(" {version}")))
}

/// The host's status for an error of its own.
const LOST: u32 = 10;

fn follow(leader: &mut Edge, follower: &mut Host, millis: u64) {
    let now = leader.host.world().now + millis * 1_000_000;
    follower.world().now = now;
    follower.tick().unwrap();
    leader.tick_later(millis);
}

impl Edge {
    fn tick_later(&mut self, millis: u64) {
        self.host.world().now += millis * 1_000_000;
        self.host.tick().unwrap();
    }

    /// What the manifest request that waits for an answer says of the workers.
    fn asked(&mut self) -> Option<String> {
        let asks = |call: &&HttpCall| {
            call.headers.get(":path").is_some_and(|path| path.starts_with(b"/edge/v1/manifest"))
        };
        let headers: &Pairs = &self.host.world().http_calls.iter().find(asks)?.headers;
        let status = headers.get("x-keystile-edge-status").expect("every request tells");
        Some(String::from_utf8(status.to_vec()).unwrap())
    }
}
