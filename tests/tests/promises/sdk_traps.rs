//! The cases in which the SDK panics, all of which are faults of the host: the request at hand is not admitted, and
//! the VM that replaces the one that trapped has its bundle, without the control plane.

use crate::edge::{Edge, plain, request};
use anyhow::Result;
use harness::host::{Faults, Host, HttpCall, Interruption, Outcome, Pairs, ROOT};
use token::Fingerprint;

#[test]
fn a_call_that_fails_with_a_status_the_sdk_does_not_know() {
    for status in [1, 3, 4, 7, 8, 9, 12, 255, u32::MAX] {
        traps(&format!("status {status}"), |edge| {
            edge.fail("proxy_http_call", status);
            edge.next_request()
        });
    }
}

#[test]
fn a_call_with_an_id_that_is_in_use() {
    traps("two objects at a time", |edge| {
        edge.content.revoke(2, Fingerprint::digest(b"another")).unwrap();
        edge.content.set_secret_keys([("key-3", [4; 32].as_slice())]).unwrap();
        let served = edge.next(|_| ());
        edge.host.world().fixed_call_id = Some(77);
        edge.host.serve_waiting(&served)
    });
}

#[test]
fn a_response_to_no_call() {
    traps("unknown", |edge| {
        let call = HttpCall { token: 4711, ..edge.waiting_call() };
        edge.host.answer(&call, 200, b"")
    });
    traps("answered before", |edge| {
        let call = edge.waiting_call();
        edge.host.answer(&call, 0, b"").unwrap();
        edge.host.answer(&call, 0, b"")
    });
    traps("before the call returns", |edge| {
        let id = edge.host.world().last_call_id + 1;
        edge.interrupt("proxy_http_call", "proxy_on_http_call_response", &[ROOT, id, 0, 0, 0]);
        edge.next_request()
    });
}

#[test]
fn a_response_whose_context_the_host_does_not_select() {
    for status in [1, 2, 10, 12, 255] {
        traps(&format!("status {status}"), |edge| {
            let call = edge.waiting_call();
            edge.fail("proxy_set_effective_context", status);
            edge.host.answer(&call, 0, b"")
        });
    }
}

#[test]
fn a_context_that_exists_already_or_has_no_plugin_context() {
    traps("plugin context", |edge| edge.host.call("proxy_on_context_create", (ROOT, 0_u32)));
    traps("stream", |edge| {
        let stream = edge.host.open().unwrap();
        edge.host.call("proxy_on_context_create", (stream, ROOT))
    });
    traps("stream of an unknown plugin context", |edge| {
        edge.host.call("proxy_on_context_create", (50_u32, 49_u32))
    });
}

#[test]
fn a_callback_for_an_unknown_context() {
    traps("configuration", |edge| edge.host.call::<_, u32>("proxy_on_configure", (9_u32, 0_u32)).map(drop));
    traps("tick", |edge| edge.host.call("proxy_on_tick", 9_u32));
    traps("deletion", |edge| edge.host.call("proxy_on_delete", 9_u32));
    traps("headers", |edge| {
        let good = edge.good_request();
        not_admitted(edge.host.headers(9, &good))
    });
    traps("headers of a stream that has ended", |edge| {
        let good = edge.good_request();
        let stream = edge.host.open().unwrap();
        edge.host.close(stream).unwrap();
        not_admitted(edge.host.headers(stream, &good))
    });
    traps("trailers", |edge| edge.host.call::<_, u32>("proxy_on_request_trailers", (9_u32, 0_u32)).map(drop));
}

/// The SDK borrows all streams, or all plugin contexts, while it runs a callback of one.
#[test]
fn a_callback_within_another() {
    traps("tick in a tick", |edge| {
        edge.interrupt("proxy_get_current_time_nanoseconds", "proxy_on_tick", &[ROOT]);
        edge.host.tick()
    });
    traps("configuration in a tick", |edge| {
        edge.interrupt("proxy_get_shared_data", "proxy_on_configure", &[ROOT, 0]);
        edge.host.tick()
    });
    traps("stream created in a tick", |edge| {
        edge.interrupt("proxy_get_shared_data", "proxy_on_context_create", &[99, ROOT]);
        edge.host.tick()
    });
    traps("request in a request", |edge| {
        let good = edge.good_request();
        let other = edge.host.open().unwrap();
        edge.interrupt("proxy_get_header_map_pairs", "proxy_on_request_headers", &[other, 1, 1]);
        not_admitted(edge.host.request(&good))
    });
    traps("end of a stream in its request", |edge| {
        let good = edge.good_request();
        let stream = edge.host.open().unwrap();
        edge.interrupt("proxy_add_header_map_value", "proxy_on_delete", &[stream]);
        not_admitted(edge.host.headers(stream, &good))
    });
    traps("response in a request", |edge| {
        let good = edge.good_request();
        let call = edge.waiting_call();
        let arguments = [ROOT, call.token, 0, 0, 0];
        edge.interrupt("proxy_get_header_map_pairs", "proxy_on_http_call_response", &arguments);
        not_admitted(edge.host.request(&good))
    });
}

#[test]
fn an_allocation_that_does_not_fit() {
    traps("more than a slice may have", |edge| edge.host.call::<_, u32>("malloc", u32::MAX).map(drop));
    traps("more than there is", |edge| {
        edge.host.call::<_, u32>("malloc", 0x7fff_0000_u32).unwrap();
        edge.host.call::<_, u32>("malloc", 0x7fff_0000_u32).map(drop)
    });
}

/// The panic hook says where, and quotes nothing.
#[test]
fn are_logged_with_their_place() {
    let mut edge = Edge::start();
    edge.host.call::<_, ()>("proxy_on_tick", 9_u32).unwrap_err();
    let log = edge.host.world().log.concat();
    assert!(log.contains("keystile: panicked at ") && log.contains("dispatcher.rs:"), "{log}");
}

/// These the SDK lets through to the filter: a request is refused while a tick uses the worker, and a tick is skipped
/// while a request does.
#[test]
fn interruptions_that_the_sdk_allows_do_not_trap() {
    let mut edge = Edge::start();
    let good = edge.good_request();
    let stream = edge.host.open().unwrap();
    edge.host.world().request_headers = good.clone();
    edge.interrupt("proxy_get_shared_data", "proxy_on_request_headers", &[stream, 1, 1]);
    edge.host.tick().unwrap();
    let world = edge.host.world();
    assert_eq!(world.interrupted, Some(1), "the request pauses");
    assert_eq!(world.response.take().unwrap().details, "keystile_host_error");
    edge.host.close(stream).unwrap();

    edge.interrupt("proxy_get_header_map_pairs", "proxy_on_tick", &[ROOT]);
    let outcome = edge.host.request(&good).unwrap();
    assert!(matches!(outcome, Outcome::Forwarded(_)), "{outcome:?}");
    assert!(edge.host.world().interruption.is_none(), "the tick was not run");

    edge.interrupt("proxy_get_header_map_pairs", "proxy_on_configure", &[ROOT, 0]);
    let outcome = edge.host.request(&good).unwrap();
    assert!(matches!(outcome, Outcome::Forwarded(_)), "{outcome:?}");
    assert_eq!(edge.host.world().interrupted, Some(0), "the configuration is refused");
    edge.publish();
    edge.ask(&plain()).unwrap_err();
}

/// Lets the host do what makes the SDK panic.
fn traps(case: &str, act: impl FnOnce(&mut Edge) -> Result<()>) {
    let mut edge = Edge::start();
    let good = edge.good_request();
    let revoked = edge.eddsa.mint(&Edge::claims(2)).expose().to_owned();
    edge.content.revoke(1, Fingerprint::digest(revoked.as_bytes())).unwrap();
    edge.publish();
    let trap = act(&mut edge).expect_err(case);
    assert!(format!("{trap:?}").contains("unreachable"), "{case}: {trap:?}");

    let world = edge.host.world();
    (world.faults, world.interruption, world.fixed_call_id) = Default::default();
    edge.host.restart().unwrap();
    edge.ask(&good).unwrap_or_else(|reason| panic!("{case}: {reason}"));
    assert_eq!(edge.ask(&request(&revoked)).unwrap_err(), "keystile_revoked", "{case}");
    edge.host.tick().unwrap();
    edge.publish();
}

/// An outcome that is no trap fails the test, whatever it is.
fn not_admitted(outcome: Result<Outcome>) -> Result<()> {
    outcome.map(|outcome| panic!("no trap: {outcome:?}"))
}

impl Edge {
    fn good_request(&self) -> Pairs {
        request(self.eddsa.mint(&Self::claims(1)).expose())
    }

    /// The request for a manifest, which the control plane holds.
    fn waiting_call(&mut self) -> HttpCall {
        self.host.world().http_calls.pop().unwrap()
    }

    /// Ends the request that waits, and lets the filter send the next one.
    fn next_request(&mut self) -> Result<()> {
        let waiting = self.waiting_call();
        self.host.answer(&waiting, 0, b"")?;
        // Past every back-off.
        self.host.world().now += 60_000_000_000;
        Host::tick(&mut self.host)
    }

    fn fail(&mut self, call: &'static str, status: u32) {
        self.host.world().faults = Faults::of(move |made| (made == call).then_some(status));
    }

    fn interrupt(&mut self, call: &'static str, callback: &'static str, arguments: &[u32]) {
        let arguments = arguments.to_vec();
        self.host.world().interruption = Some(Interruption { call, callback, arguments });
    }
}
