//! The control plane hears which version every worker of a process enforces, and which of them lag.

use crate::edge::{Edge, NOW_MS, configuration};
use harness::host::{Host, HttpCall, Pairs, World};

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
