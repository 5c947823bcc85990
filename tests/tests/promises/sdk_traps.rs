//! The cases in which the SDK panics, all of which are faults of the host. The current request is not admitted, and the
//! new VM gets its bundle without the control plane.

use crate::host_edge::{HostEdge, plain_request, request};
use anyhow::Result;
use harness::host::{Faults, Host, HttpCall, Interruption, Outcome, Pairs, ROOT};
use token::Fingerprint;

#[test]
fn callout_status_unknown_to_sdk_traps() {
    for status in [1, 3, 4, 7, 8, 9, 12, 255, u32::MAX] {
        assert_traps(&format!("status {status}"), |edge| {
            edge.fail_call("proxy_http_call", status);
            edge.next_request()
        });
    }
}

#[test]
fn callout_id_in_use_traps() {
    assert_traps("two objects at a time", |edge| {
        edge.content.revoke(2, Fingerprint::digest(b"another")).unwrap();
        edge.content.set_secret_keys([("key-3", [4; 32].as_slice())]).unwrap();
        let served = edge.sign_next(|_| ());
        edge.host.state().fixed_call_id = Some(77);
        edge.host.serve_waiting(&served)
    });
}

#[test]
fn response_to_unknown_callout_traps() {
    assert_traps("unknown", |edge| {
        let call = HttpCall { token: 4711, ..edge.waiting_call() };
        edge.host.answer_call(&call, 200, b"")
    });
    assert_traps("answered before", |edge| {
        let call = edge.waiting_call();
        edge.host.answer_call(&call, 0, b"").unwrap();
        edge.host.answer_call(&call, 0, b"")
    });
    assert_traps("before the call returns", |edge| {
        let id = edge.host.state().last_call_id + 1;
        edge.interrupt_call("proxy_http_call", "proxy_on_http_call_response", &[ROOT, id, 0, 0, 0]);
        edge.next_request()
    });
}

#[test]
fn response_without_selected_context_traps() {
    for status in [1, 2, 10, 12, 255] {
        assert_traps(&format!("status {status}"), |edge| {
            let call = edge.waiting_call();
            edge.fail_call("proxy_set_effective_context", status);
            edge.host.answer_call(&call, 0, b"")
        });
    }
}

#[test]
fn duplicate_or_orphan_context_traps() {
    assert_traps("plugin context", |edge| edge.host.call("proxy_on_context_create", (ROOT, 0_u32)));
    assert_traps("stream", |edge| {
        let stream = edge.host.open_stream().unwrap();
        edge.host.call("proxy_on_context_create", (stream, ROOT))
    });
    assert_traps("stream of an unknown plugin context", |edge| {
        edge.host.call("proxy_on_context_create", (50_u32, 49_u32))
    });
}

#[test]
fn callback_for_unknown_context_traps() {
    assert_traps("configuration", |edge| {
        edge.host.call::<_, u32>("proxy_on_configure", (9_u32, 0_u32)).map(drop)
    });
    assert_traps("tick", |edge| edge.host.call("proxy_on_tick", 9_u32));
    assert_traps("deletion", |edge| edge.host.call("proxy_on_delete", 9_u32));
    assert_traps("headers", |edge| {
        let good = edge.good_request();
        not_admitted(edge.host.headers(9, &good))
    });
    assert_traps("headers of a stream that has ended", |edge| {
        let good = edge.good_request();
        let stream = edge.host.open_stream().unwrap();
        edge.host.close_stream(stream).unwrap();
        not_admitted(edge.host.headers(stream, &good))
    });
    assert_traps("trailers", |edge| {
        edge.host.call::<_, u32>("proxy_on_request_trailers", (9_u32, 0_u32)).map(drop)
    });
}

/// The SDK borrows all streams, or all plugin contexts, while it runs a callback of one.
#[test]
fn nested_callback_traps() {
    assert_traps("tick in a tick", |edge| {
        edge.interrupt_call("proxy_get_current_time_nanoseconds", "proxy_on_tick", &[ROOT]);
        edge.host.tick()
    });
    assert_traps("configuration in a tick", |edge| {
        edge.interrupt_call("proxy_get_shared_data", "proxy_on_configure", &[ROOT, 0]);
        edge.host.tick()
    });
    assert_traps("stream created in a tick", |edge| {
        edge.interrupt_call("proxy_get_shared_data", "proxy_on_context_create", &[99, ROOT]);
        edge.host.tick()
    });
    assert_traps("request in a request", |edge| {
        let good = edge.good_request();
        let other = edge.host.open_stream().unwrap();
        edge.interrupt_call("proxy_get_header_map_pairs", "proxy_on_request_headers", &[other, 1, 1]);
        not_admitted(edge.host.request(&good))
    });
    assert_traps("end of a stream in its request", |edge| {
        let good = edge.good_request();
        let stream = edge.host.open_stream().unwrap();
        edge.interrupt_call("proxy_add_header_map_value", "proxy_on_delete", &[stream]);
        not_admitted(edge.host.headers(stream, &good))
    });
    assert_traps("response in a request", |edge| {
        let good = edge.good_request();
        let call = edge.waiting_call();
        let arguments = [ROOT, call.token, 0, 0, 0];
        edge.interrupt_call("proxy_get_header_map_pairs", "proxy_on_http_call_response", &arguments);
        not_admitted(edge.host.request(&good))
    });
}

#[test]
fn oversized_allocation_traps() {
    assert_traps("more than the maximum of a slice", |edge| {
        edge.host.call::<_, u32>("malloc", u32::MAX).map(drop)
    });
    assert_traps("more than the memory", |edge| {
        edge.host.call::<_, u32>("malloc", 0x7fff_0000_u32).unwrap();
        edge.host.call::<_, u32>("malloc", 0x7fff_0000_u32).map(drop)
    });
}

/// The panic hook logs the location, and no value.
#[test]
fn traps_are_logged_with_location() {
    let mut edge = HostEdge::start();
    edge.host.call::<_, ()>("proxy_on_tick", 9_u32).unwrap_err();
    let log = edge.host.state().log.concat();
    assert!(log.contains("keystile: panicked at ") && log.contains("dispatcher.rs:"), "{log}");
}

/// The SDK passes these to the filter: it refuses a request during a tick, and skips a tick during a request.
#[test]
fn nested_calls_allowed_by_sdk_do_not_trap() {
    let mut edge = HostEdge::start();
    let good = edge.good_request();
    let stream = edge.host.open_stream().unwrap();
    edge.host.state().request_headers = good.clone();
    edge.interrupt_call("proxy_get_shared_data", "proxy_on_request_headers", &[stream, 1, 1]);
    edge.host.tick().unwrap();
    let state = edge.host.state();
    assert_eq!(state.interrupted, Some(1), "the request pauses");
    assert_eq!(state.response.take().unwrap().details, "keystile_host_error");
    edge.host.close_stream(stream).unwrap();

    edge.interrupt_call("proxy_get_header_map_pairs", "proxy_on_tick", &[ROOT]);
    let outcome = edge.host.request(&good).unwrap();
    assert!(matches!(outcome, Outcome::Forwarded(_)), "{outcome:?}");
    assert!(edge.host.state().interruption.is_none(), "the tick was not run");

    edge.interrupt_call("proxy_get_header_map_pairs", "proxy_on_configure", &[ROOT, 0]);
    let outcome = edge.host.request(&good).unwrap();
    assert!(matches!(outcome, Outcome::Forwarded(_)), "{outcome:?}");
    assert_eq!(edge.host.state().interrupted, Some(0), "the configuration is refused");
    edge.publish();
    edge.ask(&plain_request()).unwrap_err();
}

/// Makes the host cause a panic of the SDK.
fn assert_traps(case: &str, act: impl FnOnce(&mut HostEdge) -> Result<()>) {
    let mut edge = HostEdge::start();
    let good = edge.good_request();
    let revoked = edge.eddsa.mint(&HostEdge::claims(2)).expose().to_owned();
    edge.content.revoke(1, Fingerprint::digest(revoked.as_bytes())).unwrap();
    edge.publish();
    let trap = act(&mut edge).expect_err(case);
    assert!(format!("{trap:?}").contains("unreachable"), "{case}: {trap:?}");

    let state = edge.host.state();
    (state.faults, state.interruption, state.fixed_call_id) = Default::default();
    edge.host.restart().unwrap();
    edge.ask(&good).unwrap_or_else(|reason| panic!("{case}: {reason}"));
    assert_eq!(edge.ask(&request(&revoked)).unwrap_err(), "keystile_revoked", "{case}");
    edge.host.tick().unwrap();
    edge.publish();
}

/// Fails the test if the outcome is not a trap.
fn not_admitted(outcome: Result<Outcome>) -> Result<()> {
    outcome.map(|outcome| panic!("no trap: {outcome:?}"))
}

impl HostEdge {
    fn good_request(&self) -> Pairs {
        request(self.eddsa.mint(&Self::claims(1)).expose())
    }

    /// Returns the waiting request for a manifest.
    fn waiting_call(&mut self) -> HttpCall {
        self.host.state().http_calls.pop().unwrap()
    }

    /// Ends the waiting request, and lets the filter send the next one.
    fn next_request(&mut self) -> Result<()> {
        let waiting = self.waiting_call();
        self.host.answer_call(&waiting, 0, b"")?;
        // Past every back-off.
        self.host.state().now += 60_000_000_000;
        Host::tick(&mut self.host)
    }

    fn fail_call(&mut self, call: &'static str, status: u32) {
        self.host.state().faults = Faults::of(move |made| (made == call).then_some(status));
    }

    fn interrupt_call(&mut self, call: &'static str, callback: &'static str, arguments: &[u32]) {
        let arguments = arguments.to_vec();
        self.host.state().interruption = Some(Interruption { call, callback, arguments });
    }
}
