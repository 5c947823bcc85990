//! No input of clients, hosts or the network makes the filter trap, or admit a request that it should refuse. The cases
//! in which the SDK panics are in sdk_traps.rs.

use crate::host_edge::{HostEdge, NOW_MS, configuration, plain_request, request};
use bundle::builder::ManifestFields;
use harness::fake_control_plane::{Responses, TestSigner};
use harness::host::{Faults, Host, HostState, Outcome, Pairs};
use harness::{Connection, client, fake_control_plane::FakeControlPlane};
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use proptest::collection::vec;
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

#[test]
fn failing_host_calls_never_trap_or_admit() {
    for call in CALLS {
        for status in
            [1, 2, 3, 7, 8, 10, 12, 255].into_iter().filter(|status| !makes_the_sdk_trap(call, *status))
        {
            let mut edge = HostEdge::start();
            let token = edge.eddsa.mint(&HostEdge::claims(1));
            edge.host.state().faults = Faults::of(move |made| (made == *call).then_some(status));
            let forged = request(token.expose()).with("x-keystile-subject", "root");
            for _ in 0..2 {
                match edge.host.request(&forged).unwrap() {
                    Outcome::Forwarded(headers) => assert_identity_cleared(&headers),
                    Outcome::Answered(_) | Outcome::Held => {}
                }
                let refused = edge.ask(&plain_request()).unwrap_err();
                assert!(["keystile_credential_missing", "keystile_host_error", "held"].contains(&&*refused));
                if let Some(trailers) =
                    edge.host.trailers(&Pairs::from_slice(&[("x-keystile-subject", "root")])).unwrap()
                {
                    assert_eq!(trailers, Pairs::default());
                }
                edge.host.state().now += 25_000_000;
                edge.host.tick().unwrap();
            }
            edge.publish_unheard();
        }
    }
}

#[test]
fn host_failures_at_configuration_never_trap_or_admit() {
    for call in CALLS {
        for status in [1, 2, 10, 12] {
            let mut state = HostState::new(configuration(), NOW_MS);
            state.faults = Faults::of(move |made| (made == *call).then_some(status));
            let (mut host, taken) = Host::start(state).unwrap();
            let impossible = ["proxy_get_buffer_bytes", "proxy_set_tick_period_milliseconds"].contains(call);
            assert_eq!(taken, !impossible, "{call}");
            assert!(!matches!(host.request(&plain_request()).unwrap(), Outcome::Forwarded(_)), "{call}");
        }
    }
}

/// If the clock and HTTP calls fail, a tick ends after one attempt.
#[test]
fn host_without_time_or_http_calls_never_traps_or_admits() {
    let mut edge = HostEdge::start();
    let waiting = edge.host.state().http_calls.pop().unwrap();
    edge.host.answer_call(&waiting, 0, b"").unwrap();
    // Past every back-off.
    edge.host.state().now += 60_000_000_000;
    edge.host.state().counts.clear();
    let mut asked = false;
    // The clock fails only after the call, because a tick without the time does nothing.
    edge.host.state().faults = Faults::of(move |call| match call {
        "proxy_http_call" => {
            asked = true;
            Some(10)
        }
        "proxy_get_current_time_nanoseconds" if asked => Some(10),
        _ => None,
    });
    edge.host.tick().unwrap();
    assert_eq!(edge.host.state().counts["proxy_http_call"], 1);
}

/// Headers of random bytes, which no codec would permit.
#[test]
fn random_byte_requests_never_trap_or_admit() {
    let mut edge = HostEdge::start();
    let token = edge.hs256.mint(&HostEdge::claims(1)).expose().to_owned();
    let mut random = Random(1);
    for _ in 0..100_000 {
        let mut headers = Pairs::default();
        for _ in 0..1 + random.below(12) {
            let name = *random.pick(NAMES);
            let value = random.value(&token);
            headers.0.push((name.as_bytes().to_vec(), value));
        }
        if random.below(50) == 0 {
            headers.0.push((random.bytes(20), Vec::new()));
        }
        match edge.host.request(&headers).unwrap() {
            Outcome::Answered(response) if response.status < 500 => {}
            // Codecs permit no names that are not text.
            Outcome::Answered(response) if response.details == "keystile_host_error" => {
                assert!(headers.0.iter().any(|(name, _)| std::str::from_utf8(name).is_err()));
            }
            other => panic!("{headers:?}: {other:?}"),
        }
    }
    edge.ask(&request(&token)).unwrap();
}

/// A filter in front of Keystile may delay a request, so that other requests start and end in between.
#[test]
fn interleaved_requests_never_trap_or_admit() {
    let mut edge = HostEdge::start();
    let token = edge.eddsa.mint(&HostEdge::claims(1));
    let good = request(token.expose());
    let streams = [(); 4].map(|()| edge.host.open_stream().unwrap());
    for at in [2, 0, 3] {
        let outcome = edge.host.headers(streams[at], &good).unwrap();
        assert!(matches!(outcome, Outcome::Forwarded(_)), "{outcome:?}");
        edge.host.close_stream(streams[at]).unwrap();
    }
    edge.host.close_stream(streams[1]).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interleaved_requests_in_envoy_never_trap_or_admit() {
    let control_plane = FakeControlPlane::start_with(|settings| settings.delays = true).await;
    let address = control_plane.envoy.address();
    let clients = (0..16).map(|_| {
        let token = control_plane.token();
        tokio::spawn(async move {
            let mut connection = Connection::open(address).await.unwrap();
            for _ in 0..20 {
                connection.get(&token).await.unwrap().expect(200).unwrap();
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
}

/// Every byte that HTTP/1.1 can carry in a value, through the real Envoy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_requests_through_envoy_never_trap_or_admit() {
    // Envoy closes the connection for these itself.
    let control_plane =
        FakeControlPlane::start_with(|settings| settings.headers_with_underscores_action = "ALLOW").await;
    let address = control_plane.envoy.address();
    let clients = (0..8).map(|number| {
        let token = control_plane.token();
        tokio::spawn(async move {
            let mut random = Random(number + 1);
            let mut connection = Connection::open(address).await.unwrap();
            for _ in 0..100_000 / 8 {
                let mut request = client::request_without_credential();
                for _ in 0..1 + random.below(8) {
                    let name = HeaderName::try_from(*random.pick(&NAMES[3..])).unwrap();
                    let value = random.value(&token);
                    let carried =
                        value.into_iter().filter(|byte| *byte >= b' ' && *byte != 0x7f).collect::<Vec<_>>();
                    request.headers_mut().append(name, HeaderValue::from_bytes(&carried).unwrap());
                }
                let response = connection.send(request).await.unwrap();
                assert!(
                    [400, 401, 431].contains(&response.status),
                    "{}: {}",
                    response.status,
                    response.text()
                );
            }
            let mut request = client::request_without_credential();
            request.headers_mut().insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
            connection.send(request).await.unwrap().expect(200).unwrap();
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    let traps = control_plane.envoy.stats("^wasm.*vm_reload").await.unwrap();
    assert_eq!(traps.values().sum::<u64>(), 0, "{traps:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// A host with random failures, during requests, responses and ticks.
    #[test]
    fn random_event_sequences_never_trap_or_admit(
        events in vec(event(), 1..40),
        faults in vec(prop_oneof![3 => Just(None), 1 => (1_u32..16).prop_map(Some)], 1..50),
    ) {
        let mut edge = HostEdge::start();
        let token = edge.hs256.mint(&HostEdge::claims(1)).expose().to_owned();
        let next = Rc::new(RefCell::new(faults.into_iter().cycle()));
        let may_trap = Rc::new(Cell::new(false));
        let may_trap_now = Rc::clone(&may_trap);
        edge.host.state().faults = Faults::of(move |call| {
            let status = next.borrow_mut().next().flatten()?;
            may_trap_now.set(may_trap_now.get() || makes_the_sdk_trap(call, status));
            Some(status)
        });
        for event in events {
            match event {
                Event::Tick(millis) => {
                    let state = edge.host.state();
                    state.now = state.now.wrapping_add_signed(millis * 1_000_000);
                    edge.restart_after_an_expected_trap(Host::tick, &may_trap);
                }
                Event::QueueReady(queue) => {
                    edge.restart_after_an_expected_trap(|host| host.queue_ready(queue), &may_trap);
                }
                Event::Answer(status, body) => {
                    if let Some(call) = edge.host.state().http_calls.pop() {
                        edge.restart_after_an_expected_trap(|host| host.answer_call(&call, status, &body), &may_trap);
                    }
                }
                Event::Request(headers) => {
                    let outcome = edge.host.request(&Pairs(headers)).unwrap();
                    prop_assert!(!matches!(outcome, Outcome::Forwarded(_)), "{outcome:?}");
                }
                Event::GoodRequest => {
                    let forged = request(&token).with("x-keystile-operator", "root");
                    if let Outcome::Forwarded(headers) = edge.host.request(&forged).unwrap() {
                        assert_identity_cleared(&headers);
                    }
                }
                Event::Trailers(trailers) => {
                    edge.host.trailers(&Pairs(trailers)).unwrap();
                }
            }
        }
    }

    #[test]
    fn random_configurations_never_trap_or_admit(at in any::<prop::sample::Index>(), change in vec(any::<u8>(), 0..9), cut in 0_usize..9) {
        let mut json = configuration().to_string().into_bytes();
        let from = at.index(json.len());
        let to = (from + cut).min(json.len());
        json.splice(from..to, change);
        let mut state = HostState::new("", NOW_MS);
        state.configuration = json;
        let (mut host, _) = Host::start(state).unwrap();
        prop_assert!(!matches!(host.request(&plain_request()).unwrap(), Outcome::Forwarded(_)));
        host.tick().unwrap();
    }

    /// A bundle whose bytes differ from the signed ones has no effect.
    #[test]
    fn random_bundles_never_trap_or_admit(
        object in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        change in vec(any::<u8>(), 0..9),
        cut in 0_usize..9,
        resigned in any::<bool>(),
    ) {
        let mut edge = HostEdge::start();
        let token = edge.eddsa.mint(&HostEdge::claims(1)).expose().to_owned();
        let mut served = edge.sign_next(|_: &mut ManifestFields<'_>| ());
        let Responses { manifest, objects } = &mut served;
        let chosen = object.index(objects.len() + 1);
        let bytes = objects.values_mut().nth(chosen).unwrap_or(manifest);
        let from = at.index(bytes.len());
        let to = (from + cut).min(bytes.len());
        bytes.splice(from..to, change);
        if resigned {
            let body = manifest.len().saturating_sub(64);
            *manifest = TestSigner::new(1).tail.sign_body(manifest[..body].to_vec());
        }
        edge.host.serve(&served).unwrap();
        prop_assert!(edge.ask(&plain_request()).is_err());
        prop_assert!(edge.ask(&request(&token)).is_ok());
    }
}

#[derive(Debug, Clone)]
enum Event {
    Tick(i64),
    QueueReady(u32),
    Answer(u16, Vec<u8>),
    Request(Vec<(Vec<u8>, Vec<u8>)>),
    GoodRequest,
    Trailers(Vec<(Vec<u8>, Vec<u8>)>),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => prop_oneof![3 => Just(25), 1 => -10_000_000_i64..10_000_000].prop_map(Event::Tick),
        1 => prop_oneof![Just(1), any::<u32>()].prop_map(Event::QueueReady),
        3 => (prop_oneof![Just(200), Just(304), Just(0), any::<u16>()], vec(any::<u8>(), 0..300))
            .prop_map(|(status, body)| Event::Answer(status, body)),
        3 => pairs().prop_map(Event::Request),
        2 => Just(Event::GoodRequest),
        1 => pairs().prop_map(Event::Trailers),
    ]
}

fn pairs() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
    let name = prop_oneof![
        4 => prop::sample::select(NAMES).prop_map(|name| name.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..20),
    ];
    vec((name, vec(any::<u8>(), 0..100)), 0..12)
}

/// Checks that no header of the client about its identity remains.
fn assert_identity_cleared(headers: &Pairs) {
    assert_eq!(headers.get("x-keystile-subject"), Some(b"OP0000000001".as_slice()));
    assert_eq!(headers.get("x-keystile-operator"), Some(b"OP0000000001".as_slice()));
    assert_eq!(headers.get("authorization"), None);
}

impl HostEdge {
    /// Serves the next version to the filter, which may fail to fetch it.
    fn publish_unheard(&mut self) {
        let served = self.sign_next(|_| ());
        // The host may refuse the HTTP call.
        let _ = self.host.serve(&served);
    }

    /// Runs a callback of the filter. If it traps, which it may only do where the SDK panics, a new VM takes its place.
    fn restart_after_an_expected_trap(
        &mut self,
        callback: impl FnOnce(&mut Host) -> anyhow::Result<()>,
        may_trap: &Cell<bool>,
    ) {
        may_trap.set(false);
        if let Err(trap) = callback(&mut self.host) {
            assert!(may_trap.get(), "{trap:?}");
            let faults = std::mem::take(&mut self.host.state().faults);
            self.host.restart().unwrap();
            self.host.state().faults = faults;
        }
    }
}

/// SplitMix64: pseudo-random bytes that are the same at every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.byte()).collect()
    }

    /// Generates any bytes, or a credential with one byte changed, with and without a scheme.
    fn value(&mut self, token: &str) -> Vec<u8> {
        let mut value = match self.below(3) {
            0 => self.bytes(200),
            _ => {
                let mut token = token.as_bytes().to_vec();
                let at = self.below(token.len());
                token[at] ^= self.byte().max(1);
                token
            }
        };
        if self.below(2) == 0 {
            value.splice(0..0, *b"Bearer ");
        }
        value
    }
}

const NAMES: &[&str] = &[
    ":path",
    ":method",
    ":authority",
    "authorization",
    "x-api-token",
    "x-keystile-subject",
    "x_keystile_operator",
    "cookie",
    "x-forwarded-for",
    "x-request-id",
    "accept",
    "x-other",
];

/// The two calls for which the SDK does not return every status: see sdk_traps.rs.
fn makes_the_sdk_trap(call: &str, status: u32) -> bool {
    match call {
        "proxy_http_call" => ![2, 10].contains(&status),
        "proxy_set_effective_context" => true,
        _ => false,
    }
}

const CALLS: &[&str] = &[
    "proxy_log",
    "proxy_get_current_time_nanoseconds",
    "proxy_set_tick_period_milliseconds",
    "proxy_get_buffer_bytes",
    "proxy_get_header_map_pairs",
    "proxy_set_header_map_pairs",
    "proxy_remove_header_map_value",
    "proxy_add_header_map_value",
    "proxy_get_header_map_value",
    "proxy_get_property",
    "proxy_set_property",
    "proxy_call_foreign_function",
    "proxy_get_shared_data",
    "proxy_set_shared_data",
    "proxy_register_shared_queue",
    "proxy_resolve_shared_queue",
    "proxy_enqueue_shared_queue",
    "proxy_dequeue_shared_queue",
    "proxy_http_call",
    "proxy_send_local_response",
    "proxy_define_metric",
    "proxy_increment_metric",
    "proxy_record_metric",
    "environ_sizes_get",
    "environ_get",
    "random_get",
];
