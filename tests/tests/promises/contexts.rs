//! The life cycle of a VM that several plugin configurations share, and what the host can call in it.

use crate::edge::{Edge, NOW_MS, configuration, plain, request};
use harness::host::{Host, Outcome, Pairs, ROOT, World};
use serde_json::json;

/// A host pays for each export: it calls all of them, some for every request or every chunk of a body.
#[test]
fn nothing_is_exported_that_the_filter_does_not_need() {
    let mut exports = Host::exports().unwrap();
    exports.sort();
    let expected = [
        "_initialize",
        "malloc",
        "memory",
        "proxy_abi_version_0_2_1",
        "proxy_on_configure",
        "proxy_on_context_create",
        "proxy_on_delete",
        "proxy_on_http_call_response",
        "proxy_on_request_headers",
        "proxy_on_request_trailers",
        "proxy_on_tick",
    ];
    assert_eq!(exports, expected);
}

/// Two filters with one `vm_id`, or an old and a new configuration of the same filter.
#[test]
fn each_plugin_context_decides_by_its_own_configuration_until_it_is_deleted() {
    let mut edge = Edge::start();
    let good = request(edge.eddsa.mint(&Edge::claims(1)).expose());
    let second = edge.configure_another(2);
    edge.host.call::<_, ()>("proxy_on_tick", second).unwrap();

    let [old, new] = [ROOT, second].map(|plugin_context| edge.open(100 + plugin_context, plugin_context));
    edge.is_forwarded_with(old, &good, "x-keystile-subject");
    edge.is_forwarded_with(new, &good, "x-second-subject");

    // A stream that outlives its plugin context is refused: no tick updates its bundle or its clock any more.
    let orphan = edge.open(110, ROOT);
    edge.host.call::<_, ()>("proxy_on_delete", ROOT).unwrap();
    let outcome = edge.host.headers(orphan, &good).unwrap();
    assert!(
        matches!(&outcome, Outcome::Answered(answer) if answer.details == "keystile_host_error"),
        "{outcome:?}"
    );
    edge.host.close(orphan).unwrap();

    let stream = edge.open(111, second);
    edge.is_forwarded_with(stream, &good, "x-second-subject");
    let stream = edge.open(112, second);
    assert!(matches!(edge.host.headers(stream, &plain()).unwrap(), Outcome::Answered(_)));
}

/// A response belongs to the plugin context that made the call.
#[test]
fn a_response_for_a_plugin_context_that_was_deleted_goes_nowhere() {
    let mut edge = Edge::start();
    let good = request(edge.eddsa.mint(&Edge::claims(1)).expose());
    let second = edge.configure_another(2);
    let waiting = edge.host.world().http_calls.pop().unwrap();
    let served = edge.next(|_| ());
    edge.host.call::<_, ()>("proxy_on_delete", ROOT).unwrap();
    edge.host.answer(&waiting, 200, &served.manifest).unwrap();
    let stream = edge.open(110, second);
    edge.is_forwarded_with(stream, &good, "x-second-subject");
}

#[test]
fn a_plugin_context_without_a_configuration_admits_nothing() {
    let mut edge = Edge::start();
    let good = request(edge.eddsa.mint(&Edge::claims(1)).expose());
    edge.host.call::<_, ()>("proxy_on_context_create", (2_u32, 0_u32)).unwrap();
    let stream = edge.open(100, 2);
    assert!(matches!(edge.host.headers(stream, &good).unwrap(), Outcome::Answered(_)));
    edge.host.call::<_, ()>("proxy_on_tick", 2_u32).unwrap();
    // One that the filter refuses is none.
    edge.host.world().configuration = b"{}".to_vec();
    assert_eq!(edge.host.call::<_, u32>("proxy_on_configure", (2_u32, 2_u32)).unwrap(), 0);
    let stream = edge.open(101, 2);
    assert!(matches!(edge.host.headers(stream, &good).unwrap(), Outcome::Answered(_)));
}

/// Streams that were opened before decide by the new configuration.
#[test]
fn a_plugin_context_can_be_configured_again() {
    let mut edge = Edge::start();
    let good = request(edge.eddsa.mint(&Edge::claims(1)).expose());
    let stream = edge.open(100, ROOT);
    edge.host.world().configuration = second_configuration();
    assert_eq!(edge.host.call::<_, u32>("proxy_on_configure", (ROOT, 2_u32)).unwrap(), 1);
    edge.is_forwarded_with(stream, &good, "x-second-subject");
}

/// The same VM as Envoy starts it to try a configuration: nothing is called out for.
#[test]
fn a_vm_that_never_ticks_makes_no_calls_out() {
    let (mut host, accepted) = Host::start(World::new(configuration(), NOW_MS)).unwrap();
    assert!(accepted);
    assert!(host.world().http_calls.is_empty());
    host.call::<_, ()>("proxy_on_delete", ROOT).unwrap();
}

fn second_configuration() -> Vec<u8> {
    let mut second = configuration();
    second["identity_prefix"] = json!("x-second-");
    second.to_string().into_bytes()
}

impl Edge {
    fn configure_another(&mut self, plugin_context: u32) -> u32 {
        self.host.call::<_, ()>("proxy_on_context_create", (plugin_context, 0_u32)).unwrap();
        self.host.world().configuration = second_configuration();
        let accepted = self.host.call::<_, u32>("proxy_on_configure", (plugin_context, 2_u32)).unwrap();
        assert_eq!(accepted, 1, "{:?}", self.host.world().log);
        plugin_context
    }

    fn open(&mut self, stream: u32, plugin_context: u32) -> u32 {
        self.host.call::<_, ()>("proxy_on_context_create", (stream, plugin_context)).unwrap();
        stream
    }

    fn is_forwarded_with(&mut self, stream: u32, headers: &Pairs, name: &str) {
        match self.host.headers(stream, headers).unwrap() {
            Outcome::Forwarded(headers) => assert!(headers.get(name).is_some(), "{name}: {headers:?}"),
            outcome => panic!("{outcome:?}"),
        }
        self.host.close(stream).unwrap();
    }
}
