//! One file of test vectors, tests/data/vectors.json, is valid in every host: in the library, in the filter in Wasmtime, and in
//! the real Envoy, equal to the byte.
//!
//! The decision and the code of each vector are written down in `cases`. Responses and forwarded headers are those of the
//! library when the file was generated, and a change of them shows in the file.
//! `KEYSTILE_UPDATE=1 cargo test --workspace --test promises vectors` rewrites it.

mod cases;
mod in_process;
mod keys;
mod suite;

use harness::Scratch;
use harness::envoy::Settings;
use harness::host::{Host, HostState, Outcome, Pairs};
use harness::vectors::{self, Decision, Expected, Forwarded, Line, Response, Vector, Vectors};
use in_process::Edge;
use serde_json::Value;
use std::collections::BTreeSet;
use suite::Suite;
use verdict::Reason;

#[test]
fn vectors_file_is_current() {
    let mut suite = Suite::default();
    cases::add_all(&mut suite);
    let text = suite.finish().to_text().unwrap();
    let file = vectors::file();
    if std::env::var_os("KEYSTILE_UPDATE").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let recorded = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = recorded.lines().zip(text.lines()).position(|(recorded, current)| recorded != current);
    assert!(
        recorded == text,
        "{} differs from line {differs:?}: KEYSTILE_UPDATE=1 rewrites it",
        file.display()
    );
}

/// Each code that a single request can have is in the file.
#[test]
fn vectors_cover_every_reason() {
    let vectors = Vectors::load().unwrap();
    let found: BTreeSet<&str> =
        vectors.vectors.iter().filter_map(|vector| vector.expected.reason.as_deref()).collect();
    let missing = Reason::ALL.map(|reason| reason.code()).into_iter().filter(|code| !found.contains(code));
    assert_eq!(missing.collect::<Vec<_>>(), UNREACHABLE);
    assert!(vectors.vectors.len() >= 150, "{} vectors", vectors.vectors.len());
}

/// Whether a signature of P-521 can be verified depends on the host, and a text without the prefix is no API key.
const UNREACHABLE: [&str; 2] = ["token_algorithm_unsupported", "api_key_prefix_unknown"];

#[test]
fn vectors_hold_in_library() {
    let vectors = Vectors::load().unwrap();
    for (policy, group) in vectors.by_policy() {
        let mut edge = Edge::start(&vectors.configuration(policy).unwrap(), vectors.clock_ms);
        // The second time, the cache has the credential.
        for vector in group.iter().chain(&group) {
            let outcome = edge.outcome(&vector.request, vectors.time_of(vector));
            assert_eq!(outcome, vector.expected, "{}", vector.name);
        }
    }
}

#[test]
fn vectors_hold_in_wasmtime() {
    let vectors = Vectors::load().unwrap();
    for (policy, group) in vectors.by_policy() {
        let configuration = vectors.configuration(policy).unwrap();
        let (mut host, accepted) = Host::start(HostState::new(configuration, vectors.clock_ms)).unwrap();
        assert!(accepted, "{policy}: {:?}", host.state().log);
        for vector in group.iter().chain(&group) {
            assert_eq!(outcome_in(&mut host, &vectors, vector), vector.expected, "{}", vector.name);
        }
    }
}

/// Returns what the filter did. It does not tell whether a forwarded request was admitted, so that is taken as expected.
fn outcome_in(host: &mut Host, vectors: &Vectors, vector: &Vector) -> Expected {
    let state = host.state();
    state.now = vectors.time_of(vector) * 1_000_000;
    state.properties.clear();
    if let Some(address) = &vector.request.client_address {
        state.properties.insert("source.address".into(), format!("{address}:50000").into_bytes());
    }
    let pairs = vector.request.to_pairs();
    let pairs = Pairs(pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect());
    let outcome = host.request(&pairs).unwrap();
    let reason = host.state().properties.remove("keystile.reason");
    let reason = reason.map(|code| String::from_utf8(code).unwrap());
    match outcome {
        Outcome::Forwarded(pairs) => {
            let decision = match vector.expected.decision {
                Decision::Refused => Decision::Passed,
                other => other,
            };
            let (pseudo, headers): (Vec<Line>, Vec<Line>) =
                lines(&pairs).into_iter().partition(|line| line.name.starts_with(':'));
            let path = pseudo.into_iter().find(|line| line.name == ":path").unwrap().value;
            Expected { decision, reason, response: None, forwarded: Some(Forwarded { path, headers }) }
        }
        Outcome::Answered(response) => {
            assert_eq!(response.details, format!("keystile_{}", reason.as_deref().unwrap_or("?")));
            let response = Response {
                status: response.status.try_into().unwrap(),
                headers: lines(&response.headers),
                body: String::from_utf8(response.body).unwrap(),
            };
            Expected { decision: Decision::Refused, reason, response: Some(response), forwarded: None }
        }
        Outcome::Held => panic!("{} is held", vector.name),
    }
}

fn lines(pairs: &Pairs) -> Vec<Line> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    pairs.0.iter().map(|(name, value)| Line::new(&text(name), text(value))).collect()
}

/// Vectors that need another clock than the real one are left out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vectors_hold_in_envoy() {
    let vectors = Vectors::load().unwrap();
    let settings = Settings::for_scratch(&Scratch::new().unwrap(), Value::Null).unwrap();
    vectors::envoy::check(&vectors, &|configuration| Ok(settings.filter(configuration))).await.unwrap();
}
