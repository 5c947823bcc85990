//! The worker that stores a bundle wakes all others, so that none waits for a tick. No queue ever has more than one entry,
//! regardless of what happens to its worker, and where wake-ups do not work, ticks are as frequent as before.

use crate::filter_crash::{trap, trapping};
use crate::host_edge::{HostEdge, NOW_MS, configuration, request};
use crate::workers::{enforces, worker};
use harness::client::request_without_credential;
use harness::host::{Faults, Host, HostState, Outcome, ROOT, Shared};
use harness::{FakeControlPlane, client, eventually, tools};
use serde_json::json;
use std::collections::BTreeMap;
use token::Claims;

#[test]
fn stored_bundle_wakes_every_worker_once() {
    let mut process = Process::start(3);
    for version in 2..10 {
        process.publish_waking(version);
        for host in process.hosts() {
            host.state().counts.clear();
        }
        process.leader.host.run_queue_callbacks().unwrap();
        // No worker waits for a tick, and no time has passed.
        let expected = format!("version={version}; workers=4; oldest={version}; lagging=0");
        assert_eq!(process.leader.asked().unwrap(), expected);
        assert_eq!(process.leader.host.state().counts.get("proxy_enqueue_shared_queue"), None);
    }
    assert!(process.lengths().values().all(|length| *length == 0), "{:?}", process.lengths());
    assert_eq!(process.longest(), 1);
    let loads = |host: &mut Host, by| host.state().metric(&format!("keystile_bundle_loads_by_{by}"));
    process.tick_all(25);
    for follower in &mut process.followers {
        assert_eq!((loads(follower, "wake"), loads(follower, "tick")), (8, 0));
    }
}

/// One entry for each worker, and one for the leader when the last worker has loaded the bundle.
#[test]
fn wake_ups_take_one_entry_per_worker() {
    let mut process = Process::start(3);
    for host in process.hosts() {
        host.state().counts.clear();
    }
    process.publish_waking(2);
    let entries = |host: &mut Host| host.state().counts.get("proxy_enqueue_shared_queue").copied();
    assert_eq!(entries(&mut process.leader.host), Some(4));
    assert_eq!(process.followers.iter_mut().map(entries).collect::<Vec<_>>(), [None, None, Some(1)]);
    // Neither ticks nor heartbeats wake a worker while there is nothing new.
    process.leader.host.run_queue_callbacks().unwrap();
    for host in process.hosts() {
        host.state().counts.clear();
    }
    (0..100).for_each(|_| process.tick_all(250));
    for host in process.hosts() {
        assert_eq!(entries(host), None);
    }
}

/// While the VM of a worker has failed, or its thread hangs, entries are added and callbacks are lost.
#[test]
fn queue_of_a_worker_that_takes_no_entries_does_not_grow() {
    let mut process = Process::start(2);
    let hanging = process.followers.remove(0);
    for version in 2..52 {
        process.publish_waking(version);
        // The leader waits for the hanging worker for two ticks.
        process.tick_all(60);
        process.run_callbacks();
    }
    assert_eq!(process.longest(), 1);
    assert_eq!(process.lengths().values().sum::<usize>(), 1, "that of the hanging worker");
    // After its last heartbeat has expired, it gets no more entries.
    (0..6).for_each(|_| process.tick_all(1000));
    process.leader.host.state().counts.clear();
    process.publish_waking(52);
    assert_eq!(process.leader.host.state().counts["proxy_enqueue_shared_queue"], 2);
    drop(hanging);
}

/// The new VM gets the callbacks for the queue of the old one until it has a queue of its own, and after a while takes
/// the row and the queue of one that has ended.
#[test]
fn reloaded_vm_is_woken_and_queues_are_used_again() {
    let mut process = Process::start(2);
    for version in (2..62).step_by(3) {
        process.followers[0].restart().unwrap();
        process.publish_waking(version);
        process.tick_all(60);
        process.run_callbacks();
        process.publish_waking(version + 1);
        (0..6).for_each(|_| process.tick_all(1000));
        process.run_callbacks();
        process.publish_waking(version + 2);
        process.run_callbacks();
    }
    let lengths = process.lengths();
    assert!(lengths.len() <= 5, "{lengths:?}");
    assert_eq!(process.longest(), 1);
}

/// A crash while an entry is in the queue loses its callback. The first tick of the new VM loads the bundle.
#[test]
fn reloaded_vm_loads_what_a_lost_entry_announced() {
    let mut process = Process::start(1);
    let served = process.leader.sign_next(|_| ());
    process.leader.host.serve_waiting(&served).unwrap();
    process.followers[0].restart().unwrap();
    assert_eq!(process.followers[0].run_queue_callbacks().unwrap(), 0, "they are lost");
    process.tick_all(60);
    process.run_callbacks();
    assert!(enforces(&mut process.followers[0], 2));
    process.publish_waking(3);
    assert_eq!(process.longest(), 1);
}

/// Envoy makes another plugin context in the same VM, and deletes the old one when its listener has drained.
#[test]
fn replaced_configuration_has_its_own_queue() {
    let mut process = Process::start(1);
    let follower = &mut process.followers[0];
    follower.create_context(NEW, 0).unwrap();
    let mut changed = configuration();
    changed["identity_prefix"] = json!("x-second-");
    follower.state().configuration = changed.to_string().into_bytes();
    assert_eq!(follower.call::<_, u32>("proxy_on_configure", (NEW, 2_u32)).unwrap(), 1);
    // Both contexts have ticks meanwhile.
    follower.tick_of(NEW).unwrap();
    process.tick_all(25);
    process.run_callbacks();
    process.publish_waking(2);
    process.run_callbacks();
    let both = process.followers[0].state().log.iter().filter(|line| line.ends_with("version 2")).count();
    assert_eq!(both, 2);

    process.followers[0].delete_context(ROOT).unwrap();
    process.publish_waking(3);
    // The leader waits for the old context as for a worker that hangs.
    process.leader.host.state().now += 60_000_000;
    process.leader.host.tick().unwrap();
    for version in 4..9 {
        process.publish_waking(version);
        process.leader.host.state().now += 60_000_000;
        process.leader.host.tick().unwrap();
    }
    assert_eq!(process.longest(), 1);
}

/// Such hosts are as fast as the ticks, which stay frequent.
#[test]
fn host_without_queues_or_callbacks_keeps_frequent_ticks() {
    const CALLS: [&str; 5] = [
        "proxy_register_shared_queue",
        "proxy_resolve_shared_queue",
        "proxy_enqueue_shared_queue",
        "proxy_dequeue_shared_queue",
        NO_CALLBACKS,
    ];
    for (call, status) in CALLS.iter().flat_map(|call| [1, 2, 10, 12].map(|status| (*call, status))) {
        let mut process = Process::start_with(1, |state| {
            state.faults = Faults::of(move |made| (made == call).then_some(status));
        });
        for version in 2..6 {
            (0..100).for_each(|_| process.tick_all(25));
            let served = process.leader.sign_next(|_| ());
            process.leader.host.serve_waiting(&served).unwrap();
            if call != NO_CALLBACKS {
                process.run_callbacks();
            }
            process.tick_all(25);
            assert!(enforces(&mut process.followers[0], version), "{call} {status}");
            process.tick_all(25);
            assert!(process.leader.asked().is_some(), "{call} {status}");
            for host in process.hosts() {
                assert_eq!(host.state().tick_period_ms, Some(25), "{call} {status}");
            }
        }
        assert!(process.longest() <= 1, "{call} {status}");
    }
}

/// Another filter registers a queue of this name, or a worker that believes it has this row.
#[test]
fn worker_whose_queue_was_taken_over_registers_it_again() {
    let mut process = Process::start(1);
    for version in [2, 4, 6] {
        for name in process.lengths().into_keys() {
            process.shared.queues.borrow_mut().register(name, 999, 1);
        }
        let served = process.leader.sign_next(|_| ());
        process.leader.host.serve_waiting(&served).unwrap();
        process.run_callbacks();
        assert!(!enforces(&mut process.followers[0], version));
        process.tick_all(250);
        assert!(enforces(&mut process.followers[0], version));
        process.run_callbacks();
        (0..2).for_each(|_| process.tick_all(25));
        process.publish_waking(version + 1);
        // The leader has lost its queue, too, and notices nothing: it has no news to miss.
        process.tick_all(25);
        process.tick_all(25);
    }
}

#[test]
fn entries_of_another_filter_are_removed() {
    let mut process = Process::start(1);
    for name in process.lengths().into_keys() {
        let mut queues = process.shared.queues.borrow_mut();
        let queue = queues.resolve(&name).unwrap();
        (0..1000).for_each(|_| assert!(queues.enqueue(queue, vec![1; 100])));
    }
    process.run_callbacks();
    assert!(process.lengths().values().all(|length| *length == 0), "{:?}", process.lengths());
    process.publish_waking(2);
}

/// Ticks are rare while nothing needs them, and frequent again at the first tick that finds work.
#[test]
fn idle_worker_has_rare_ticks() {
    let mut process = Process::start(1);
    let token = process.leader.eddsa.mint(&HostEdge::claims(1)).expose().to_owned();
    let good = request(&token);
    process.idle();
    // A stream.
    let stream = process.followers[0].open_stream().unwrap();
    assert!(matches!(process.followers[0].headers(stream, &good).unwrap(), Outcome::Forwarded(_)));
    process.tick_all(250);
    assert_eq!(process.periods(), [250, 25]);
    (0..100).for_each(|_| process.tick_all(25));
    assert_eq!(process.periods(), [250, 25], "the stream is open");
    process.followers[0].close_stream(stream).unwrap();
    process.idle();
    // Some requests, each of which reads the clock.
    for _ in 0..249 {
        let (_, cost) = process.followers[0].request_with_cost(&good).unwrap();
        assert_eq!(cost.calls.get("proxy_get_current_time_nanoseconds"), Some(&1));
    }
    process.tick_all(250);
    assert_eq!(process.periods(), [250, 250]);
    // Many requests.
    for _ in 0..250 {
        process.followers[0].request(&good).unwrap();
    }
    process.tick_all(250);
    assert_eq!(process.periods(), [250, 25]);
    let (_, cost) = process.followers[0].request_with_cost(&good).unwrap();
    assert_eq!(cost.calls.get("proxy_get_current_time_nanoseconds"), None, "the last tick was 25 ms ago");
    process.idle();
}

/// Between two rare ticks, requests are decided by the host's clock.
#[test]
fn token_expires_between_rare_ticks() {
    let mut process = Process::start(1);
    process.idle();
    let follower = &mut process.followers[0];
    let exp = NOW_MS / 1000 + 60;
    let claims = Claims { exp: Some(exp), ..HostEdge::claims(1) };
    let expires_at = exp * 1_000_000_000;
    let good = request(process.leader.eddsa.mint(&claims).expose());
    follower.state().now = expires_at - 1_000_000;
    assert!(matches!(follower.request(&good).unwrap(), Outcome::Forwarded(_)));
    follower.state().now = expires_at + LEEWAY_NANOS;
    match follower.request(&good).unwrap() {
        Outcome::Answered(response) => assert_eq!(response.details, "keystile_token_expired"),
        other => panic!("{other:?}"),
    }
}

/// The lease of a leader that has ended expires although ticks are rare.
#[test]
fn idle_worker_becomes_leader_when_the_leader_ends() {
    let mut process = Process::start(1);
    process.idle();
    process.leader.host.state().http_calls.clear();
    let Process { followers, .. } = &mut process;
    for tick in 1.. {
        followers[0].state().now += 250_000_000;
        followers[0].tick().unwrap();
        if !followers[0].state().http_calls.is_empty() {
            assert!(tick <= 5, "{tick} rare ticks");
            break;
        }
        assert!(tick < 100);
    }
}

#[tokio::test]
async fn workers_in_envoy_are_woken_before_and_after_a_crash() {
    let folder = tempfile::TempDir::new().unwrap();
    let wasm = trapping(&tools::wasm().unwrap(), folder.path());
    let mut control_plane = FakeControlPlane::start_with(|settings| settings.wasm = wasm).await;
    let mut workers = control_plane.workers().await;
    let good = control_plane.token();
    loads_are_by_wake(&mut control_plane).await;
    for worker in &mut workers {
        worker.send(trap(&good)).await.unwrap().expect(503).unwrap();
        eventually("the VM is back", async || worker.get(&good).await?.expect(200)).await;
        loads_are_by_wake(&mut control_plane).await;
    }
    let reloaded = control_plane.envoy.stats("^wasm.keystile.vm_reload_success$").await.unwrap();
    assert_eq!(reloaded.values().sum::<u64>(), 2);
}

#[tokio::test]
async fn workers_in_envoy_are_woken_after_an_update_and_while_the_old_listener_drains() {
    for drain_seconds in [600, 1] {
        let mut control_plane = FakeControlPlane::start_with(|settings| {
            settings.has_listener_file = true;
            settings.drain_seconds = drain_seconds;
        })
        .await;
        // A connection to the old listener, which keeps its plugin contexts while it drains.
        let old = control_plane.workers().await;
        for realm in ["second", "third"] {
            let mut configuration = control_plane.envoy.settings().plugin_configuration.clone();
            configuration["realm"] = json!(realm);
            let folder = control_plane.folder().to_owned();
            control_plane.envoy.push_plugin_configuration(configuration, &folder).unwrap();
            let address = control_plane.envoy.address();
            eventually("the new configuration is in use", async || {
                let response = client::send(address, request_without_credential()).await?;
                anyhow::ensure!(format!("{:?}", response.headers).contains(realm));
                Ok(())
            })
            .await;
            loads_are_by_wake(&mut control_plane).await;
        }
        if drain_seconds == 1 {
            eventually("the old listeners have drained", async || {
                let draining =
                    control_plane.envoy.stats("^listener_manager.total_listeners_draining$").await?;
                anyhow::ensure!(draining.values().sum::<u64>() == 0, "{draining:?}");
                Ok(())
            })
            .await;
            loads_are_by_wake(&mut control_plane).await;
        }
        drop(old);
    }
}

/// Publishes until all workers have loaded a bundle because they were woken. A tick can come first by chance.
async fn loads_are_by_wake(control_plane: &mut FakeControlPlane) {
    let loads = async |control_plane: &FakeControlPlane| -> anyhow::Result<[u64; 2]> {
        let envoy = &control_plane.envoy;
        Ok([
            envoy.metric("keystile_bundle_loads_by_wake").await?,
            envoy.metric("keystile_bundle_loads_by_tick").await?,
        ])
    };
    let mut seen = Vec::new();
    for _ in 0..20 {
        let before = loads(control_plane).await.unwrap();
        control_plane.publish();
        let mut added = [0; 2];
        // Two workers and the VM of the main thread, of which one leads.
        eventually("the other workers load the bundle", async || {
            let after = loads(control_plane).await?;
            added = [after[0] - before[0], after[1] - before[1]];
            anyhow::ensure!(added[0] + added[1] >= 2, "{added:?}");
            Ok(())
        })
        .await;
        if added[1] == 0 {
            return;
        }
        seen.push(added);
    }
    panic!("bundles are loaded by ticks: {seen:?} by wake-ups and by ticks");
}

/// The workers of one process.
struct Process {
    leader: HostEdge,
    followers: Vec<Host>,
    shared: Shared,
}

impl Process {
    /// Starts workers whose queues are known to work.
    fn start(followers: usize) -> Self {
        let mut process = Self::start_with(followers, |_| ());
        process.run_callbacks();
        process
    }

    fn start_with(followers: usize, prepare: impl Fn(&mut HostState)) -> Self {
        let mut leader = HostEdge::start_with(configuration(), &prepare);
        let shared = leader.host.state().shared.clone();
        let now = leader.host.state().now;
        let start = |number| {
            // The start time identifies a worker.
            let mut follower = worker(&shared, now + number);
            follower.state().now = now;
            prepare(follower.state());
            follower.tick().unwrap();
            follower
        };
        let followers = (1..).take(followers).map(start).collect();
        Self { leader, followers, shared }
    }

    fn hosts(&mut self) -> impl Iterator<Item = &mut Host> {
        [&mut self.leader.host].into_iter().chain(&mut self.followers)
    }

    fn run_callbacks(&mut self) {
        for host in self.hosts() {
            host.run_queue_callbacks().unwrap();
        }
    }

    fn tick_all(&mut self, millis: u64) {
        for host in self.hosts() {
            host.state().now += millis * 1_000_000;
            host.tick().unwrap();
        }
    }

    /// Serves the next version, which every follower enforces without a tick.
    fn publish_waking(&mut self, version: u64) {
        let served = self.leader.sign_next(|_| ());
        self.leader.host.serve_waiting(&served).unwrap();
        for follower in &mut self.followers {
            assert!(!enforces(follower, version));
            follower.run_queue_callbacks().unwrap();
            assert!(enforces(follower, version), "{:?}", follower.state().log);
        }
    }

    /// Lets time pass until all workers have rare ticks.
    fn idle(&mut self) {
        (0..41).for_each(|_| self.tick_all(25));
        assert!(self.periods().iter().all(|period| *period == 250), "{:?}", self.periods());
    }

    fn periods(&mut self) -> Vec<u32> {
        self.hosts().map(|host| host.state().tick_period_ms.unwrap()).collect()
    }

    fn lengths(&self) -> BTreeMap<String, usize> {
        self.shared.queues.borrow().lengths()
    }

    fn longest(&self) -> usize {
        self.shared.queues.borrow().longest()
    }
}

const NO_CALLBACKS: &str = "no call fails, but there are no callbacks";

/// The ID of a second plugin context.
const NEW: u32 = 2;

/// More than the tolerance for the times in a token.
const LEEWAY_NANOS: u64 = 10_000_000_000;
