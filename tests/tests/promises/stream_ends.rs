//! An open stream whose credential is refused gets one closing action, from whichever callback, and no other stream gets
//! one: two closing actions on an HTTP/2 stream in one callback crash Envoy.

use crate::host_edge::{HostEdge, configuration, request};
use harness::host::{Faults, Outcome, Pairs, ROOT};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use token::Fingerprint;

#[test]
fn stream_is_ended_once_by_ticks() {
    let mut edge = Streams::start();
    let (revoked, others) = ([edge.open(0), edge.open(0)], [edge.open(1), edge.open(2)]);
    edge.revoke(0);
    edge.tick_for(3_000);
    assert_eq!(edge.ended(), revoked);
    // The subject is that of the stream, and the plugin context is effective again.
    assert_eq!(edge.edge.host.state().effective_context, ROOT);
    // Neither time, nor another version, nor another revocation ends it a second time.
    edge.revoke(1);
    edge.tick_for(3_000);
    assert_eq!(edge.ended(), [&revoked[..], &others[..1]].concat());
}

/// The trailers of a request that cannot be read are a reason to end it, too.
#[test]
fn stream_is_ended_once_by_its_own_callback_and_ticks() {
    let mut edge = Streams::start();
    let [by_trailers, by_tick] = [edge.open(0), edge.open(0)];
    edge.broken_trailers(by_trailers);
    edge.broken_trailers(by_trailers);
    assert_eq!(edge.ended(), [by_trailers]);
    edge.revoke(0);
    edge.tick_for(1_000);
    edge.broken_trailers(by_tick);
    edge.broken_trailers(by_trailers);
    assert_eq!(edge.ended(), [by_trailers, by_tick]);
}

/// The response that completes a bundle arrives in a callback of its own, before the next tick.
#[test]
fn stream_is_ended_once_when_a_bundle_arrives() {
    let mut edge = Streams::start();
    let stream = edge.open(0);
    edge.tick_for(500);
    edge.edge.content.revoke(1, edge.fingerprint(0)).unwrap();
    let served = edge.edge.sign_next(|_| ());
    edge.edge.host.serve_waiting(&served).unwrap();
    edge.tick_for(500);
    assert_eq!(edge.ended(), [stream]);
}

#[test]
fn host_failure_ends_no_other_stream_and_is_tried_again() {
    for call in ["proxy_set_effective_context", "proxy_send_local_response"] {
        for status in [2, 10] {
            let mut edge = Streams::start();
            let (revoked, _) = (edge.open(0), edge.open(1));
            edge.revoke_without_ticks(0);
            edge.edge.host.state().faults = Faults::of(move |made| (made == call).then_some(status));
            edge.tick_for(1_000);
            assert_eq!(edge.ended(), [0; 0], "{call} {status}");
            assert!(edge.edge.host.state().metric("keystile_end_failed") > 0, "{call} {status}");
            edge.edge.host.state().faults = Faults::default();
            edge.tick_for(2_000);
            // `BAD_ARGUMENT` (2) for a context means that the stream no longer exists.
            let is_gone = (call, status) == ("proxy_set_effective_context", 2);
            let expected = if is_gone { vec![] } else { vec![revoked] };
            assert_eq!(edge.ended(), expected, "{call} {status}");
        }
    }
}

#[test]
fn new_configuration_keeps_watching_streams() {
    let mut edge = Streams::start();
    let (revoked, other) = (edge.open(0), edge.open(1));
    let mut second = configuration();
    second["identity_prefix"] = json!("x-second-");
    edge.edge.host.state().configuration = second.to_string().into_bytes();
    assert_eq!(edge.edge.host.call::<_, u32>("proxy_on_configure", (ROOT, 2_u32)).unwrap(), 1);
    // The call of the previous configuration is never answered.
    edge.edge.host.state().http_calls.clear();
    edge.edge.content.revoke(1, edge.fingerprint(0)).unwrap();
    edge.edge.publish();
    edge.tick_for(1_000);
    assert_eq!(edge.ended(), [revoked]);
    edge.edge.host.close_stream(other).unwrap();
}

#[derive(Debug, Clone)]
enum Event {
    Open(usize),
    Close(prop::sample::Index),
    Trailers { stream: prop::sample::Index, are_broken: bool },
    Revoke(usize),
    Tick { millis: u64, fault: Option<(bool, u32)> },
}

fn event() -> impl Strategy<Value = Event> {
    let fault = prop::option::weighted(0.3, (any::<bool>(), 3_u32..12));
    prop_oneof![
        4 => (0..CREDENTIALS).prop_map(Event::Open),
        2 => any::<prop::sample::Index>().prop_map(Event::Close),
        2 => (any::<prop::sample::Index>(), any::<bool>())
            .prop_map(|(stream, are_broken)| Event::Trailers { stream, are_broken }),
        1 => (0..CREDENTIALS).prop_map(Event::Revoke),
        4 => (0_u64..1_500, fault).prop_map(|(millis, fault)| Event::Tick { millis, fault }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn random_event_sequences_end_each_refused_stream_once(events in vec(event(), 1..40)) {
        let mut edge = Streams::start();
        let mut revoked = BTreeSet::new();
        let mut broken = BTreeSet::new();
        for event in events {
            let open: Vec<_> = edge.open.keys().copied().collect();
            match event {
                Event::Open(credential) if !revoked.contains(&credential) => {
                    edge.open(credential);
                }
                Event::Close(stream) if !open.is_empty() => edge.close(*stream.get(&open)),
                Event::Trailers { stream, are_broken } if !open.is_empty() => {
                    let stream = *stream.get(&open);
                    if are_broken {
                        broken.insert(stream);
                        edge.broken_trailers(stream);
                    } else {
                        edge.edge.host.trailers_of(stream).unwrap();
                    }
                }
                Event::Revoke(credential) if revoked.insert(credential) => edge.revoke_without_ticks(credential),
                Event::Tick { millis, fault } => {
                    if let Some((is_context, status)) = fault {
                        let call = if is_context { "proxy_set_effective_context" } else { "proxy_send_local_response" };
                        edge.edge.host.state().faults = Faults::of(move |made| (made == call).then_some(status));
                    }
                    edge.edge.host.state().now += millis * 1_000_000;
                    edge.edge.host.tick().unwrap();
                    edge.edge.host.state().faults = Faults::default();
                }
                _ => {}
            }
            edge.check_actions(|stream, credential| revoked.contains(&credential) || broken.contains(&stream))?;
        }
        edge.tick_for(3_000);
        edge.check_actions(|stream, credential| revoked.contains(&credential) || broken.contains(&stream))?;
        let ended: BTreeSet<_> = edge.ended().into_iter().collect();
        for (stream, credential) in &edge.open {
            let expected = revoked.contains(credential) || broken.contains(stream);
            prop_assert_eq!(ended.contains(stream), expected, "stream {} of credential {}", stream, credential);
        }
    }
}

/// An edge with open streams.
struct Streams {
    edge: HostEdge,
    tokens: Vec<String>,
    /// The credential of each stream that the host has not deleted.
    open: BTreeMap<u32, usize>,
    revocations: u64,
    /// The number of closing actions that [`Self::check_actions`] has seen.
    checked: usize,
}

impl Streams {
    fn start() -> Self {
        let edge = HostEdge::start();
        let token = |number: usize| edge.eddsa.mint(&HostEdge::claims(number as u64)).expose().to_owned();
        let tokens = (0..CREDENTIALS).map(token).collect();
        Self { edge, tokens, open: BTreeMap::new(), revocations: 0, checked: 0 }
    }

    fn fingerprint(&self, credential: usize) -> Fingerprint {
        Fingerprint::digest(self.tokens[credential].as_bytes())
    }

    fn open(&mut self, credential: usize) -> u32 {
        let headers = request(&self.tokens[credential]);
        let stream = self.edge.host.open_stream().unwrap();
        let outcome = self.edge.host.headers(stream, &headers).unwrap();
        assert!(matches!(outcome, Outcome::Forwarded(_)), "{outcome:?}");
        self.open.insert(stream, credential);
        stream
    }

    fn close(&mut self, stream: u32) {
        self.edge.host.close_stream(stream).unwrap();
        self.open.remove(&stream);
    }

    /// Sends trailers that the host does not provide.
    fn broken_trailers(&mut self, stream: u32) {
        self.edge.host.state().request_trailers = Pairs::from_slice(&[("a", "b")]);
        let is_map = |made| (made == "proxy_get_header_map_pairs").then_some(10);
        self.edge.host.state().faults = Faults::of(is_map);
        assert!(!self.edge.host.trailers_of(stream).unwrap(), "trailers that cannot be read do not continue");
        self.edge.host.state().faults = Faults::default();
    }

    fn revoke(&mut self, credential: usize) {
        self.revoke_without_ticks(credential);
        self.tick_for(100);
    }

    /// Publishes the revocation, which takes no ticks if a request for the manifest is waiting.
    fn revoke_without_ticks(&mut self, credential: usize) {
        if self.edge.host.state().http_calls.is_empty() {
            self.tick_for(25);
        }
        self.revocations += 1;
        let fingerprint = self.fingerprint(credential);
        self.edge.content.revoke(self.revocations, fingerprint).unwrap();
        let served = self.edge.sign_next(|_| ());
        self.edge.host.serve_waiting(&served).unwrap();
    }

    fn tick_for(&mut self, millis: u64) {
        for _ in 0..millis.div_ceil(TICK_MS) {
            self.edge.host.state().now += TICK_MS * 1_000_000;
            self.edge.host.tick().unwrap();
        }
    }

    /// Returns the streams that were ended, in order.
    fn ended(&mut self) -> Vec<u32> {
        self.edge.host.state().closing_actions.iter().map(|(stream, _)| *stream).collect()
    }

    /// Checks the closing actions since the last call: each is for an open stream that may end, and its first.
    fn check_actions(&mut self, may_end: impl Fn(u32, usize) -> bool) -> Result<(), TestCaseError> {
        let ended = self.ended();
        for (at, stream) in ended.iter().enumerate().skip(self.checked) {
            let credential = self.open.get(stream).copied();
            let is_due = credential.is_some_and(|credential| may_end(*stream, credential));
            prop_assert!(is_due, "context {} is not a stream to end", stream);
            prop_assert!(!ended[..at].contains(stream), "stream {} was ended twice", stream);
        }
        self.checked = ended.len();
        Ok(())
    }
}

const CREDENTIALS: usize = 3;

const TICK_MS: u64 = 25;
