//! The life cycle of a VM that several plugin configurations share, and the exports that the host can call.

use crate::host_edge::{HostEdge, NOW_MS, configuration, plain_request, request};
use harness::host::{Host, HostState, Outcome, Pairs, ROOT};
use serde_json::json;

/// The filter exports only the callbacks that it uses, because the host calls each one, some for every chunk of a body.
#[test]
fn filter_exports_only_what_it_needs() {
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
        "proxy_on_queue_ready",
        "proxy_on_request_headers",
        "proxy_on_request_trailers",
        "proxy_on_tick",
    ];
    assert_eq!(exports, expected);
}

/// Two filters with one `vm_id`, or an old and a new configuration of the same filter.
#[test]
fn plugin_contexts_have_separate_configurations() {
    let mut edge = HostEdge::start();
    let good = request(edge.eddsa.mint(&HostEdge::claims(1)).expose());
    let second = edge.configure_another(2);
    edge.host.tick_of(second).unwrap();

    let [old, new] = [ROOT, second].map(|plugin_context| edge.open(100 + plugin_context, plugin_context));
    edge.is_forwarded_with(old, &good, "x-keystile-subject");
    edge.is_forwarded_with(new, &good, "x-second-subject");

    // A stream that outlives its plugin context is refused: no tick updates its bundle or its clock any more.
    let orphan = edge.open(110, ROOT);
    edge.host.delete_context(ROOT).unwrap();
    let outcome = edge.host.headers(orphan, &good).unwrap();
    assert!(
        matches!(&outcome, Outcome::Answered(answer) if answer.details == "keystile_host_error"),
        "{outcome:?}"
    );
    edge.host.close_stream(orphan).unwrap();

    let stream = edge.open(111, second);
    edge.is_forwarded_with(stream, &good, "x-second-subject");
    let stream = edge.open(112, second);
    assert!(matches!(edge.host.headers(stream, &plain_request()).unwrap(), Outcome::Answered(_)));
}

/// A response belongs to the plugin context that made the call.
#[test]
fn response_for_deleted_plugin_context_is_ignored() {
    let mut edge = HostEdge::start();
    let good = request(edge.eddsa.mint(&HostEdge::claims(1)).expose());
    let second = edge.configure_another(2);
    let waiting = edge.host.state().http_calls.pop().unwrap();
    let served = edge.sign_next(|_| ());
    edge.host.delete_context(ROOT).unwrap();
    edge.host.answer_call(&waiting, 200, &served.manifest).unwrap();
    let stream = edge.open(110, second);
    edge.is_forwarded_with(stream, &good, "x-second-subject");
}

#[test]
fn plugin_context_without_configuration_refuses() {
    let mut edge = HostEdge::start();
    let good = request(edge.eddsa.mint(&HostEdge::claims(1)).expose());
    edge.host.create_context(2, 0).unwrap();
    let stream = edge.open(100, 2);
    assert!(matches!(edge.host.headers(stream, &good).unwrap(), Outcome::Answered(_)));
    edge.host.tick_of(2).unwrap();
    // A refused plugin configuration creates no context.
    edge.host.state().configuration = b"{}".to_vec();
    assert_eq!(edge.host.call::<_, u32>("proxy_on_configure", (2_u32, 2_u32)).unwrap(), 0);
    let stream = edge.open(101, 2);
    assert!(matches!(edge.host.headers(stream, &good).unwrap(), Outcome::Answered(_)));
}

/// Open streams use the new configuration.
#[test]
fn plugin_context_can_be_reconfigured() {
    let mut edge = HostEdge::start();
    let good = request(edge.eddsa.mint(&HostEdge::claims(1)).expose());
    let stream = edge.open(100, ROOT);
    edge.host.state().configuration = second_configuration();
    assert_eq!(edge.host.call::<_, u32>("proxy_on_configure", (ROOT, 2_u32)).unwrap(), 1);
    edge.is_forwarded_with(stream, &good, "x-second-subject");
}

/// A VM that Envoy starts to validate a configuration makes no HTTP call.
#[test]
fn vm_without_ticks_makes_no_http_calls() {
    let (mut host, accepted) = Host::start(HostState::new(configuration(), NOW_MS)).unwrap();
    assert!(accepted);
    assert!(host.state().http_calls.is_empty());
    host.delete_context(ROOT).unwrap();
}

fn second_configuration() -> Vec<u8> {
    let mut second = configuration();
    second["identity_prefix"] = json!("x-second-");
    second.to_string().into_bytes()
}

impl HostEdge {
    fn configure_another(&mut self, plugin_context: u32) -> u32 {
        self.host.create_context(plugin_context, 0).unwrap();
        self.host.state().configuration = second_configuration();
        let accepted = self.host.call::<_, u32>("proxy_on_configure", (plugin_context, 2_u32)).unwrap();
        assert_eq!(accepted, 1, "{:?}", self.host.state().log);
        plugin_context
    }

    fn open(&mut self, stream: u32, plugin_context: u32) -> u32 {
        self.host.create_context(stream, plugin_context).unwrap();
        stream
    }

    fn is_forwarded_with(&mut self, stream: u32, headers: &Pairs, name: &str) {
        match self.host.headers(stream, headers).unwrap() {
            Outcome::Forwarded(headers) => assert!(headers.get(name).is_some(), "{name}: {headers:?}"),
            outcome => panic!("{outcome:?}"),
        }
        self.host.close_stream(stream).unwrap();
    }
}
