//! An open stream ends with its credential: each reason to refuse a new request ends a stream that was admitted before.

use std::{collections::BTreeMap, time::Duration};

use bundle::{
    Objects, Scope, Snapshot,
    builder::{Builder, SecretKey},
    foreign_name,
};
use proptest::prelude::*;
use token::{Algorithm, Fingerprint, mint::SigningKey};
use verdict::{Admitted, Cache, Decision, Gate, OpenStreams, Request, SoftwareVerifier};

use crate::fixtures::{NOW, NOW_MS, bearer, builder, claims, gate, gate_with, manifest, publish, set_grant};

const TICK_MS: u64 = 25;

/// The headers of a request, as a host would serialize them.
fn serialized(line: &str, authorization: &str) -> Vec<u8> {
    let (method, path) = line.split_once(' ').unwrap();
    format!(":method {method}\n:path {path}\n:authority api.example.com\nauthorization {authorization}")
        .into()
}

fn decode(bytes: &[u8]) -> Option<Vec<(&str, &[u8])>> {
    let text = str::from_utf8(bytes).ok()?;
    text.lines().map(|line| line.split_once(' ').map(|(name, value)| (name, value.as_bytes()))).collect()
}

/// Returns the snapshot of a bundle of this version.
fn snapshot(builder: &mut Builder, version: u64, issued_at: u64) -> Snapshot {
    builder.checkpoint(version).unwrap();
    let published = publish(&builder.build().unwrap(), version, issued_at);
    let manifest = manifest(&published.manifest);
    let mut objects = Objects::default();
    loop {
        let missing = objects.missing(&manifest, issued_at);
        if missing.is_empty() {
            return Snapshot::assemble(manifest, &objects, issued_at).unwrap();
        }
        for entry in missing {
            objects.open(&manifest, entry, published.object(&entry).unwrap()).unwrap();
        }
    }
}

/// A worker with its open streams. The handle of a stream is its number in the order of admission.
struct Worker {
    gate: Gate,
    cache: Cache,
    streams: OpenStreams<u64>,
    admitted: u64,
}

impl Worker {
    fn new(gate: Gate) -> Self {
        let streams = OpenStreams::new(gate.policy().max_open_streams);
        Self { gate, cache: Cache::new(4096, b"seed"), streams, admitted: 0 }
    }

    /// Opens a stream. Returns its number in the table and its handle.
    fn open(&mut self, line: &str, authorization: &str, snapshot: &Snapshot, now: u64) -> (u64, u64) {
        let bytes = serialized(line, authorization);
        let headers = decode(&bytes).unwrap();
        let request = Request { headers: &headers, peer: None, snapshot: Some(snapshot), now };
        let Decision::Admit(admission) = self.gate.decide_with(&request, &mut self.cache, &SoftwareVerifier)
        else {
            panic!("{line} is not admitted");
        };
        let identity = admission.into_identity();
        self.admitted += 1;
        let handle = self.admitted;
        let number = self.streams.add(Admitted { handle, identity, headers: bytes, peer: None, now });
        (number, handle)
    }

    /// Ticks once. Returns the streams that end, each with the code of its refusal.
    fn tick(&mut self, snapshot: &Snapshot, now: u64) -> Vec<(u64, &'static str)> {
        let checked = self.streams.check(&self.gate, snapshot, now, decode);
        checked.ended.into_iter().map(|ended| (ended.handle, ended.refusal.reason().code())).collect()
    }

    /// Ticks for a while. Returns the streams that end.
    fn run(&mut self, snapshot: &Snapshot, now: &mut u64, duration: Duration) -> Vec<(u64, &'static str)> {
        let end = *now + u64::try_from(duration.as_millis()).unwrap();
        let mut ended = Vec::new();
        while *now < end {
            *now += TICK_MS;
            ended.extend(self.tick(snapshot, *now));
        }
        ended
    }
}

/// A change of the bundle that refuses the credential.
type Change = Box<dyn Fn(&mut Builder)>;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn whatever_refuses_a_request_ends_a_stream() {
    let token = bearer(&claims());
    let fingerprint = Fingerprint::digest(&token.as_bytes()["Bearer ".len()..]);
    let revoke = move |builder: &mut Builder| assert!(builder.revoke(1, fingerprint).unwrap());
    let watermark =
        |scope: Scope<'static>| move |builder: &mut Builder| assert!(builder.raise_watermark(1, scope, NOW));
    let minute = 60_000;
    let cases: [(&str, Change, u64, &str); 11] = [
        ("revoked", Box::new(revoke), 0, "revoked"),
        ("watermark of all", Box::new(watermark(Scope::Global)), 0, "watermark"),
        ("watermark of the operator", Box::new(watermark(Scope::Operator("OP0123456789"))), 0, "watermark"),
        ("watermark of the user", Box::new(watermark(Scope::User("OP0123456789/alice"))), 0, "watermark"),
        ("watermark of the AuthKey", Box::new(watermark(Scope::AuthKey("keyId-1"))), 0, "watermark"),
        ("watermark of the session", Box::new(watermark(Scope::Session("api-1"))), 0, "watermark"),
        ("watermark of the signing key", Box::new(watermark(Scope::SigningKey("k1"))), 0, "watermark"),
        ("expired", Box::new(|_: &mut Builder| ()), 3_606_000, "token_expired"),
        ("key removed", Box::new(|builder| builder.set_verifying_keys([]).unwrap()), 0, "token_key_unknown"),
        (
            "permission taken away",
            Box::new(|builder| assert!(builder.remove_grant("OP0123456789/alice"))),
            0,
            "permission_denied",
        ),
        ("control plane silent", Box::new(|_| ()), minute + 15 * minute, "bundle_stale"),
    ];
    for (name, change, later, code) in cases {
        let mut builder = builder();
        set_grant(
            &mut builder,
            "OP0123456789/alice",
            r#"{"statements":[{"effect":"allow","api":"Sim:getSim"}]}"#,
        );
        let mut worker =
            Worker::new(gate_with(r#""rules": [{ "path": "/sims/{id}", "permission": "Sim:getSim" }]"#));
        let mut now = NOW_MS;
        let first = snapshot(&mut builder, 1, now);
        let (_, handle) = worker.open("GET /sims/1", &token, &first, now);
        assert_eq!(worker.run(&first, &mut now, 3 * SECOND), [], "{name}: nothing has changed");

        change(&mut builder);
        now += later;
        // The last bundle of a silent control plane is the first one.
        let issued_at = if code == "bundle_stale" { NOW_MS } else { now };
        let second = snapshot(&mut builder, 2, issued_at);
        let began = now;
        let mut ended = Vec::new();
        while ended.is_empty() && now < began + 2000 {
            now += TICK_MS;
            ended = worker.tick(&second, now);
        }
        assert_eq!(ended, [(handle, code)], "{name}");
        assert!(now - began <= 1000, "{name}: after {} ms", now - began);
        assert!(worker.streams.is_empty(), "{name}");
    }
}

/// A stream with a token of another issuer ends with each scope that contains the token, and with no other.
#[test]
fn a2_a_watermark_of_a_holder_of_another_issuer_ends_open_streams() {
    const ISSUER: &str = "https://idp.example";
    let secret = [9; 32];
    let key = SigningKey::hs256("k", &secret).unwrap();
    let payload = serde_json::json!({
        "iss": ISSUER, "sub": "u-1", "aud": "api", "iat": NOW - 10, "exp": NOW + 3600,
        "sid": "s-1", "jti": "j-1", "client_id": "c-1",
    });
    let token = key.sign(r#"{"alg":"HS256","kid":"k"}"#, payload.to_string().as_bytes());
    let token = format!("Bearer {}", token.expose());
    let name = |name: &str| foreign_name(ISSUER, name);
    let (subject, session, id, client) = (name("u-1"), name("s-1"), name("j-1"), name("c-1"));
    let (other, local) = (name("s-2"), "api-1");
    for (scope, ends) in [
        (Scope::User(&subject), true),
        (Scope::IssuerSession(&session), true),
        (Scope::TokenId(&id), true),
        (Scope::Client(&client), true),
        (Scope::Issuer(ISSUER), true),
        (Scope::IssuerSession(&other), false),
        (Scope::TokenId(&session), false),
        (Scope::Session(local), false),
        (Scope::Issuer("https://other.example"), false),
    ] {
        let mut builder = builder();
        let secret =
            SecretKey::Token { issuer: ISSUER, kid: "k", algorithm: Algorithm::Hs256, secret: &secret };
        builder.set_secret_keys([secret]).unwrap();
        let policy = r#""issuers": [{ "issuer": "https://idp.example", "audiences": ["api"] }]"#;
        let mut worker = Worker::new(gate_with(policy));
        let mut now = NOW_MS;
        let first = snapshot(&mut builder, 1, now);
        let (_, handle) = worker.open("GET /", &token, &first, now);
        assert_eq!(worker.run(&first, &mut now, SECOND), []);
        assert!(builder.raise_watermark(1, scope, NOW));
        let second = snapshot(&mut builder, 2, now);
        let expected = if ends { vec![(handle, "watermark")] } else { Vec::new() };
        assert_eq!(worker.run(&second, &mut now, SECOND), expected, "{scope:?}");
    }
}

#[test]
fn a_permission_is_checked_again_with_the_variables_and_the_date_of_the_request() {
    let statements = r#"{"statements":[{"effect":"allow","api":"Sim:getSim",
        "condition":"pathVariable('id') == '1' and currentDate <= date(2023, 11, 14)"}]}"#;
    let mut builder = builder();
    set_grant(&mut builder, "OP0123456789/alice", statements);
    let gate = gate_with(r#""rules": [{ "path": "/sims/{id}", "permission": "Sim:getSim" }]"#);
    let mut worker = Worker::new(gate);
    let mut now = NOW_MS;
    let current = snapshot(&mut builder, 1, now);
    worker.open("GET /sims/1", &bearer(&claims()), &current, now);
    assert_eq!(worker.run(&current, &mut now, 2 * SECOND), []);
    // The day ends 6,400 seconds after `NOW`, later than the token and the bundle.
    let mut lasting = claims();
    lasting.exp = None;
    let mut worker = Worker::new(gate_with(
        r#""rules": [{ "path": "/sims/{id}", "permission": "Sim:getSim" }], "outage_grace_seconds": 100000"#,
    ));
    worker.open("GET /sims/1", &bearer(&lasting), &current, now);
    assert_eq!(worker.run(&current, &mut now, 2 * SECOND), []);
    now = (NOW + 6400) * 1000;
    assert_eq!(worker.run(&current, &mut now, SECOND).len(), 1, "the condition is false on the next day");
}

#[test]
fn a_rule_keeps_streams_open_and_they_are_counted() {
    let token = bearer(&claims());
    let fingerprint = Fingerprint::digest(&token.as_bytes()["Bearer ".len()..]);
    let mut builder = builder();
    let mut worker = Worker::new(gate_with(
        r#""open_streams": "keep", "rules": [{ "path": "/ends", "open_streams": "end" }, { "path": "/**" }]"#,
    ));
    let mut now = NOW_MS;
    let first = snapshot(&mut builder, 1, now);
    let (_, ends) = worker.open("GET /ends", &token, &first, now);
    let (kept, _) = worker.open("GET /kept", &token, &first, now);
    worker.run(&first, &mut now, 2 * SECOND);
    assert_eq!(worker.streams.kept(), 0);

    builder.revoke(1, fingerprint).unwrap();
    let second = snapshot(&mut builder, 2, now);
    assert_eq!(worker.run(&second, &mut now, 2 * SECOND), [(ends, "revoked")]);
    assert_eq!(worker.streams.kept(), 1);
    builder.unrevoke(fingerprint).unwrap();
    let third = snapshot(&mut builder, 3, now);
    worker.run(&third, &mut now, 2 * SECOND);
    assert_eq!(worker.streams.kept(), 0, "the revocation was taken back");

    assert!(builder.raise_watermark(2, Scope::Global, NOW));
    let fourth = snapshot(&mut builder, 4, now);
    worker.run(&fourth, &mut now, 2 * SECOND);
    assert_eq!(worker.streams.kept(), 1);
    assert!(worker.streams.remove(kept).is_some());
    assert_eq!(worker.streams.kept(), 0, "the client has closed it");
}

#[test]
fn report_mode_ends_nothing_and_reports_each_stream_once() {
    let token = bearer(&claims());
    let fingerprint = Fingerprint::digest(&token.as_bytes()["Bearer ".len()..]);
    let mut builder = builder();
    let mut worker = Worker::new(gate_with(r#""mode": "report""#));
    let first = snapshot(&mut builder, 1, NOW_MS);
    worker.open("GET /", &token, &first, NOW_MS);
    builder.revoke(1, fingerprint).unwrap();
    let second = snapshot(&mut builder, 2, NOW_MS);
    let mut reported = Vec::new();
    for tick in 1..200 {
        let checked = worker.streams.check(&worker.gate, &second, NOW_MS + tick * TICK_MS, decode);
        assert!(checked.ended.is_empty());
        reported.extend(checked.reported.into_iter().map(verdict::Reason::code));
    }
    assert_eq!(reported, ["revoked"]);
    assert_eq!(worker.streams.enforced_version(2), Some(2));
}

/// A worker must not stall: one call checks a bounded number of streams and ends a bounded number.
#[test]
fn ten_thousand_streams_are_ended_in_bounded_steps() {
    const STREAMS: usize = 10_000;
    let token = bearer(&claims());
    let mut builder = builder();
    let mut worker = Worker::new(gate());
    let mut now = NOW_MS;
    let first = snapshot(&mut builder, 1, now);
    for _ in 0..STREAMS {
        worker.open("GET /", &token, &first, now);
    }
    assert_eq!(worker.run(&first, &mut now, 2 * SECOND), []);
    assert_eq!(worker.streams.enforced_version(1), Some(1));
    assert!(builder.raise_watermark(1, Scope::Global, NOW));
    let second = snapshot(&mut builder, 2, now);
    let (mut ended, mut ticks) = (0, 0_u64);
    while ended < STREAMS {
        now += TICK_MS;
        ticks += 1;
        let step = worker.tick(&second, now).len();
        assert!(step <= 48, "{step} streams in one call");
        assert!(ended + step == STREAMS || worker.streams.enforced_version(2) == Some(1));
        assert_eq!(worker.streams.has_more_to_end(), step == 48);
        ended += step;
    }
    // Ticks of 10 ms while there are more to end: 2.1 seconds.
    assert!(ticks <= 210, "{ticks} ticks");
    assert!(worker.streams.is_empty());
    assert_eq!(worker.streams.enforced_version(2), Some(2));
}

/// Ends of other streams leave gaps in front of a stream. They must neither delay its checks nor pile up.
#[test]
fn a_stream_is_checked_behind_any_number_of_streams_that_have_ended() {
    let token = bearer(&claims());
    let mut builder = builder();
    let mut worker = Worker::new(gate());
    let mut now = NOW_MS;
    let first = snapshot(&mut builder, 1, now);
    // More requests within a tick than the table stores completely in one.
    let numbers: Vec<u64> = (0..5000).map(|_| worker.open("GET /", &token, &first, now).0).collect();
    let (_, last) = worker.open("GET /", &token, &first, now);
    numbers.into_iter().for_each(|number| worker.streams.forget(number));
    assert_eq!(worker.streams.len(), 1);
    assert!(builder.raise_watermark(1, Scope::Global, NOW));
    let second = snapshot(&mut builder, 2, now);
    now += TICK_MS;
    assert_eq!(worker.tick(&second, now), [(last, "watermark")]);
}

#[test]
fn streams_beyond_the_maximum_are_checked_for_revocation_at_once_and_for_time_less_often() {
    let mut expiring = claims();
    expiring.exp = Some(NOW + 100);
    let tokens = [bearer(&expiring), bearer(&claims())];
    let mut builder = builder();
    let mut worker = Worker::new(gate_with(r#""max_open_streams": 10, "outage_grace_seconds": 100000"#));
    let mut now = NOW_MS;
    let first = snapshot(&mut builder, 1, now);
    let handles: Vec<u64> = (0..30).map(|n| worker.open("GET /", &tokens[n % 2], &first, now).1).collect();
    worker.run(&first, &mut now, 5 * SECOND);
    assert_eq!(worker.streams.take_over_max(), 20);
    assert_eq!(worker.streams.take_over_max(), 0);
    assert_eq!(worker.streams.len(), 30);

    now = (NOW + 105) * 1000;
    let soon: Vec<u64> = worker.run(&first, &mut now, SECOND).into_iter().map(|(handle, _)| handle).collect();
    let young = |handle: &&u64| **handle > 20 && **handle % 2 == 1;
    assert!(handles.iter().filter(young).all(|handle| soon.contains(handle)), "{soon:?}");
    let later = worker.run(&first, &mut now, 11 * SECOND);
    assert_eq!(soon.len() + later.len(), 15, "never unwatched");

    assert!(builder.raise_watermark(1, Scope::Global, NOW));
    let second = snapshot(&mut builder, 2, NOW_MS);
    assert_eq!(worker.run(&second, &mut now, Duration::from_millis(50)).len(), 15);
}

#[test]
fn a_stream_that_was_not_ended_is_tried_again() {
    let token = bearer(&claims());
    let mut builder = builder();
    let mut worker = Worker::new(gate());
    let mut now = NOW_MS;
    let first = snapshot(&mut builder, 1, now);
    worker.open("GET /", &token, &first, now);
    worker.run(&first, &mut now, SECOND);
    assert!(builder.raise_watermark(1, Scope::Global, NOW));
    let second = snapshot(&mut builder, 2, now);
    for attempt in 0..3 {
        let mut ended = Vec::new();
        let began = now;
        while ended.is_empty() {
            now += TICK_MS;
            ended = worker.streams.check(&worker.gate, &second, now, decode).ended;
        }
        assert!(now - began <= 1500, "attempt {attempt}");
        worker.streams.put_back(ended.pop().unwrap());
        assert_eq!(worker.streams.enforced_version(2), None, "the stream is open");
    }
    assert_eq!(worker.streams.len(), 1);
    assert_eq!(worker.run(&second, &mut now, 2 * SECOND).len(), 1);
    assert_eq!(worker.streams.enforced_version(2), Some(2));
}

#[derive(Debug, Clone)]
enum Event {
    Open(usize),
    Close(prop::sample::Index),
    Revoke(usize),
    Unrevoke(usize),
    Ticks(u64),
    Publish,
}

fn event() -> impl Strategy<Value = Event> {
    use Event::*;
    prop_oneof![
        8 => (0..8_usize).prop_map(Open),
        4 => any::<prop::sample::Index>().prop_map(Close),
        2 => (0..8_usize).prop_map(Revoke),
        1 => (0..8_usize).prop_map(Unrevoke),
        4 => (1..60_u64).prop_map(Ticks),
        3 => Just(Publish),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Streams open, close and are revoked in any order: each handle comes back at most once, only refused streams
    /// end, and a version that counts as enforced has no stream left that it refuses.
    #[test]
    fn the_table_agrees_with_a_list(events in prop::collection::vec(event(), 1..80), max in 1..6_usize) {
        let tokens: Vec<String> = (0..8_u8).map(|n| {
            let mut claims = claims();
            claims.jti = format!("j{n}");
            bearer(&claims)
        }).collect();
        let fingerprint = |n: usize| Fingerprint::digest(&tokens[n].as_bytes()["Bearer ".len()..]);
        let mut builder = builder();
        let mut worker = Worker::new(gate_with(&format!(r#""max_open_streams": {max}"#)));
        let (mut now, mut version, mut operation) = (NOW_MS, 1, 0);
        let mut current = snapshot(&mut builder, version, now);
        // By handle: the number in the table and the token.
        let mut open: BTreeMap<u64, (u64, usize)> = BTreeMap::new();
        let (mut revoked, mut published) = ([false; 8], [false; 8]);
        for event in events {
            match event {
                Event::Open(token) if !published[token] => {
                    let (number, handle) = worker.open("GET /", &tokens[token], &current, now);
                    open.insert(handle, (number, token));
                }
                Event::Close(index) if !open.is_empty() => {
                    let handle = *index.get(&open.keys().copied().collect::<Vec<_>>());
                    let (number, _) = open.remove(&handle).unwrap();
                    prop_assert_eq!(worker.streams.remove(number), Some(handle));
                    prop_assert_eq!(worker.streams.remove(number), None);
                }
                Event::Revoke(token) => {
                    operation += 1;
                    builder.revoke(operation, fingerprint(token)).unwrap();
                    revoked[token] = true;
                }
                Event::Unrevoke(token) if revoked[token] => {
                    builder.unrevoke(fingerprint(token)).unwrap();
                    revoked[token] = false;
                }
                Event::Publish => {
                    version += 1;
                    published = revoked;
                    current = snapshot(&mut builder, version, now);
                }
                Event::Ticks(ticks) => for _ in 0..ticks {
                    now += TICK_MS;
                    for (handle, code) in worker.tick(&current, now) {
                        prop_assert_eq!(code, "revoked");
                        let (_, token) = open.remove(&handle).expect("an open stream, once");
                        prop_assert!(published[token], "of a good credential");
                    }
                    if worker.streams.enforced_version(version) == Some(version) {
                        prop_assert!(open.values().all(|(_, token)| !published[*token]));
                    }
                },
                Event::Open(_) | Event::Close(_) | Event::Unrevoke(_) => {}
            }
            prop_assert_eq!(worker.streams.len(), open.len());
            let any = worker.streams.any_handle();
            prop_assert_eq!(any.is_some(), !open.is_empty());
            prop_assert!(any.is_none_or(|handle| open.contains_key(handle)), "a stream that has ended");
        }
    }
}
