//! The cost of requests, in WebAssembly instructions and host calls, is recorded in costs.txt.
//!
//! Fuel depends only on the filter and the request, not on the load of the machine. costs.txt also names the toolchain
//! that built the filter. `KEYSTILE_UPDATE=1 cargo test --workspace --test promises costs` rewrites it.

use crate::host_edge::{HostEdge, NOW_MS, configuration, plain_request, request};
use crate::key_sets;
use crate::native_signatures;
use bundle::builder::SecretKey;
use harness::host::{Cost, Pairs};
use harness::tools;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write;
use token::api_key::{ApiKeyFields, Kind, MintingKey, Prefix};
use token::mint::SigningKey;
use token::{Algorithm, Claims, Fingerprint, VerifyingKey, base64url};

#[test]
fn request_costs_match_costs_txt() {
    let paid = measured();
    let built_by = std::fs::read_to_string(tools::root().join(TOOLCHAIN)).unwrap();
    let built_by = built_by.trim_end();
    let file = tools::root().join(FILE);
    if std::env::var_os("KEYSTILE_UPDATE").is_some() {
        std::fs::write(&file, render(built_by, &paid)).unwrap();
    }
    let recorded = std::fs::read_to_string(&file).unwrap();
    let (recorded_by, recorded) = recorded.split_once('\n').unwrap();
    let same_toolchain = recorded_by.strip_prefix(BUILT_BY) == Some(built_by);
    let recorded = parse(recorded);
    let names = |of: &BTreeMap<String, Paid>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&paid), names(&recorded), "{FILE} has other cases: {UPDATE}");
    for (name, Paid { amount, calls }) in &paid {
        let tolerance = match same_toolchain && name.ends_with("warm") {
            true => WARM_TOLERANCE,
            false => recorded[name].amount * TOLERANCE_PERCENT / 100,
        };
        let allowed = recorded[name].amount + tolerance;
        assert!(*amount <= allowed, "{name}: {amount}, but {} is recorded; {UPDATE}", recorded[name].amount);
        assert_eq!(*calls, recorded[name].calls, "{name}: calls to the host; {UPDATE}");
    }
}

/// An amount of fuel or pages, and the host calls.
struct Paid {
    amount: u64,
    calls: String,
}

fn measured() -> BTreeMap<String, Paid> {
    let mut paid = BTreeMap::new();
    let mut edge = HostEdge::start();
    let pages = |when: &str, edge: &HostEdge| {
        let amount = edge.host.memory_pages();
        (format!("pages of 64 KiB, {when}"), Paid { amount, calls: String::new() })
    };
    paid.extend([pages("with a bundle", &edge)]);
    let revoked = edge.eddsa.mint(&HostEdge::claims(1)).expose().to_owned();
    edge.content.revoke(1, Fingerprint::digest(revoked.as_bytes())).unwrap();
    edge.publish();
    let price = |name: &str, edge: &mut HostEdge, headers: &Pairs| {
        let (_, Cost { fuel, calls }) = edge.host.request_with_cost(headers).unwrap();
        let calls =
            calls.iter().map(|(call, times)| format!("{call} {times}")).collect::<Vec<_>>().join(", ");
        (format!("fuel, {name}"), Paid { amount: fuel, calls })
    };
    let tokens = |edge: &HostEdge, number: u64| {
        let claims = HostEdge::claims(number);
        [("EdDSA", edge.eddsa.mint(&claims)), ("HS256", edge.hs256.mint(&claims))]
    };
    // The first request can grow the memory.
    for (_, token) in tokens(&edge, 2) {
        edge.ask(&request(token.expose())).unwrap();
    }
    for (name, token) in tokens(&edge, 3) {
        for state in ["cold", "warm"] {
            paid.extend([price(&format!("{name}, {state}"), &mut edge, &request(token.expose()))]);
        }
    }
    let first = edge;
    let mut edge = native_signatures::edge();
    let es256 = |number| native_signatures::es256(&HostEdge::claims(number));
    // The first host has no `verify_signature`; the last one does.
    edge.ask(&request(&es256(4))).unwrap();
    paid.extend([price("ES256, cold", &mut edge, &request(&es256(5)))]);
    paid.extend([price("RS256, cold", &mut edge, &request(native_signatures::RS256))]);
    let mut edge = native_signatures::edge();
    let yes = |_: &[u8]| Ok(vec![0x08, 0x01]);
    edge.host.state().functions.insert("verify_signature".into(), Box::new(yes));
    edge.ask(&request(&es256(4))).unwrap();
    paid.extend([price("ES256, cold, verified by the host", &mut edge, &request(&es256(5)))]);
    // What a client without a valid token can make an edge compute, if an issuer has such keys and the host does not help.
    let mut edge = key_sets::edge();
    for (bits, token) in [("6144", key_sets::RS256_6144), ("8192", key_sets::RS256_8192)] {
        let bad = request(&key_sets::with_other_signature(token));
        edge.ask(&bad).unwrap_err();
        paid.extend([price(&format!("refused, RS256 with {bits} bits"), &mut edge, &bad)]);
    }
    let mut edge = every_kind();
    for (_, headers) in kinds(1) {
        edge.ask(&headers).unwrap();
    }
    for (name, headers) in kinds(2) {
        for state in ["cold", "warm"] {
            paid.extend([price(&format!("{name}, {state}"), &mut edge, &headers)]);
        }
    }
    let mut edge = first;
    // A client without a credential can make an edge parse 8 KiB of JSON.
    let header = |json: String| format!("{}..", base64url::encode(json.as_bytes()));
    let numbers = header(format!(r#"{{"a":[{}1]}}"#, "1e307,".repeat(1000)));
    let members: String = (0..120).map(|number| format!("\"{}{number:03}\":1,", "n".repeat(40))).collect();
    let names = header(format!(r#"{{{members}"a":1}}"#));
    let objects = header(format!(r#"{{"a":[{}{{}}]}}"#, r#"{"":0},"#.repeat(850)));
    let escapes = header(format!(r#"{{"a":"{}"}}"#, r"a".repeat(990)));
    for (name, headers) in [
        ("refused, no credential", plain_request()),
        ("refused, no token", request("abc")),
        ("refused, revoked", request(&revoked)),
        ("refused, a header of numbers", request(&numbers)),
        ("refused, a header of names", request(&names)),
        ("refused, a header of objects", request(&objects)),
        ("refused, a header of escapes", request(&escapes)),
    ] {
        paid.extend([price(name, &mut edge, &headers)]);
    }
    for number in 0..10_000 {
        let token = edge.hs256.mint(&HostEdge::claims(100 + number));
        edge.ask(&request(token.expose())).unwrap();
    }
    paid.extend([pages("after 10,000 credentials", &edge)]);
    paid
}

/// Returns an edge that also accepts API keys and tokens of another issuer.
fn every_kind() -> HostEdge {
    let mut configuration = configuration();
    configuration["tokens"]["prefixes"] = json!(["kauth-"]);
    configuration["api_keys"] = json!({});
    configuration["issuers"] = json!([{ "issuer": ELSEWHERE, "audiences": ["api"] }]);
    configuration["credentials"] = json!([
    { "header": "authorization", "scheme": "Bearer" },
    { "header": "x-soracom-token", "pair": "x-soracom-api-key" },
    ]);
    let mut edge = HostEdge::start_with(configuration, |_| ());
    let elsewhere = foreign_token();
    let public = elsewhere.verifying_key().public_material().unwrap();
    let foreign = VerifyingKey::foreign(ELSEWHERE, "idp", Algorithm::EdDsa, &public).unwrap();
    let signed = minting(Kind::Signed);
    edge.content.set_public_keys([edge.eddsa.verifying_key(), &foreign], [signed.generation_key()]).unwrap();
    let [tag, short] = [Kind::Format1, Kind::Short].map(generation);
    edge.content
        .set_secret_keys([
            SecretKey::Tag { generation: tag, secret: TAGS },
            SecretKey::ShortTag { generation: short, secret: TAGS },
        ])
        .unwrap();
    edge.publish();
    edge
}

/// Returns requests with one credential of each kind. They differ for each number.
fn kinds(number: u64) -> [(&'static str, Pairs); 6] {
    let eddsa = SigningKey::ed25519("key-1", &[2; 32]).unwrap();
    let claims = Claims { sid: Some("api-1".into()), ..HostEdge::claims(number) };
    let pair = eddsa.mint(&claims).expose().to_owned();
    let key = |kind| {
        let contents = ApiKeyFields {
            prefix: &Prefix::default(),
            operator: "OP0000000001",
            number,
            issued_at: NOW_MS / 1000 - 10,
            expires_at: Some(NOW_MS / 1000 + 60),
            random: [7; 4],
            username: "OP0000000001/alice",
        };
        let key = minting(kind).mint(&contents).unwrap();
        request(key.expose()).with("x-username", "OP0000000001/alice")
    };
    let claims =
        json!({ "iss": ELSEWHERE, "sub": "alice", "aud": "api", "exp": NOW_MS / 1000 + 60, "n": number });
    let foreign = foreign_token().sign(r#"{"alg":"EdDSA","kid":"idp"}"#, claims.to_string().as_bytes());
    [
        ("API key of format 1", key(Kind::Format1)),
        ("API key of format 2", key(Kind::Signed)),
        ("API key of the short form", key(Kind::Short)),
        ("Soracom's pair", plain_request().with("x-soracom-token", pair).with("x-soracom-api-key", "api-1")),
        ("Kuzzle's prefix", request(eddsa.mint_prefixed("kauth-", &HostEdge::claims(number)).expose())),
        ("EdDSA of another issuer", request(foreign.expose())),
    ]
}

fn minting(kind: Kind) -> MintingKey {
    MintingKey::new(generation(kind), kind, TAGS).unwrap()
}

fn generation(kind: Kind) -> u8 {
    match kind {
        Kind::Format1 => 1,
        Kind::Signed => 2,
        Kind::Short => 3,
    }
}

fn foreign_token() -> SigningKey {
    SigningKey::ed25519("idp", &[5; 32]).unwrap()
}

const ELSEWHERE: &str = "https://idp.example.com";
const TAGS: &[u8; 32] = &[6; 32];

fn render(built_by: &str, paid: &BTreeMap<String, Paid>) -> String {
    let mut text = format!("{BUILT_BY}{built_by}\n");
    for (name, Paid { amount, calls }) in paid {
        writeln!(text, "{name}\t{amount}\t{calls}").unwrap();
    }
    text
}

fn parse(text: &str) -> BTreeMap<String, Paid> {
    let line = |line: &str| {
        let [name, amount, calls] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        (name.to_owned(), Paid { amount: amount.parse().unwrap(), calls: calls.to_owned() })
    };
    text.lines().map(line).collect()
}

const FILE: &str = "tests/tests/promises/costs.txt";
const UPDATE: &str = "if this is intended: KEYSTILE_UPDATE=1 cargo test --workspace --test promises costs";

/// The file beside the filter in which plugin/proxy-wasm/build.sh records the compiler and `wasm-opt`.
const TOOLCHAIN: &str = "target/wasm/toolchain";
const BUILT_BY: &str = "built by ";

/// The tolerance between compiler versions.
const TOLERANCE_PERCENT: u64 = 10;

/// The permitted increase in instructions for a request with a known credential and the recorded toolchain. The same
/// source has the same cost; a small change elsewhere can shift it by this much.
const WARM_TOLERANCE: u64 = 300;
