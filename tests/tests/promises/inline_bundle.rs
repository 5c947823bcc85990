//! A bundle in the configuration serves hosts that cannot fetch one, and is fresh only until its manifest expires.

use crate::host_edge::{HostEdge, NOW_MS, configuration, plain_request, request};
use bundle::InlineBundle;
use harness::fake_control_plane::{Responses, TestSigner};
use harness::host::{Faults, Host, HostState, Outcome, UNIMPLEMENTED};
use harness::{Envoy, Scratch, Upstream, client, envoy::Settings, eventually, fake_control_plane};
use serde_json::{Value, json};
use token::Fingerprint;

/// A host like Google's proxies: without outgoing calls, timers, metrics, shared data or filter state.
#[test]
fn inline_bundle_decides_without_host_calls() {
    let mut press = HostEdge::start();
    let (good, revoked) = (press.eddsa.mint(&HostEdge::claims(1)), press.hs256.mint(&HostEdge::claims(2)));
    press.content.revoke(1, Fingerprint::digest(revoked.expose().as_bytes())).unwrap();
    let served = press.sign_next(|draft| draft.expires_at = NOW_MS + DAY_MS);
    let mut configuration = configuration_with_bundle(&served);
    configuration["outage_grace_seconds"] = json!(60);
    configuration["max_manifest_lifetime_seconds"] = json!(DAY_MS / 1000);
    let mut state = HostState::new(configuration, NOW_MS);
    state.faults = Faults::of(|call| LACKING.contains(&call).then_some(UNIMPLEMENTED));
    let (host, taken) = Host::start(state).unwrap();
    assert!(taken);
    let mut edge = HostEdge::start_empty(host);
    let forwarded = edge.ask(&request(good.expose()).with("x-keystile-subject", "root")).unwrap();
    assert_eq!(forwarded.get("x-keystile-subject"), Some(b"OP0000000001".as_slice()));
    assert_eq!(edge.ask(&request(revoked.expose())).unwrap_err(), "keystile_revoked");
    assert_eq!(edge.ask(&plain_request()).unwrap_err(), "keystile_credential_missing");
    // Without ticks, every request reads the clock.
    edge.host.state().now = (NOW_MS + DAY_MS + 30_000) * 1_000_000;
    let mut late = HostEdge::claims(3);
    (late.iat, late.exp) = (late.iat + DAY_MS / 1000, late.exp.map(|exp| exp + DAY_MS / 1000));
    let late = edge.eddsa.mint(&late);
    edge.ask(&request(late.expose())).unwrap();
    assert_eq!(edge.ask(&request(good.expose())).unwrap_err(), "keystile_token_expired");
    edge.host.state().now += 60_000 * 1_000_000;
    assert_eq!(edge.ask(&request(late.expose())).unwrap_err(), "keystile_bundle_stale");
}

/// Google Cloud Service Extensions give a plugin 1 ms of CPU for a request and 16 MiB of memory.
#[test]
fn inline_bundle_stays_within_limits_of_service_extensions() {
    let mut press = HostEdge::start();
    for number in 0..REVOCATIONS {
        press.content.revoke(1, Fingerprint::digest(&number.to_be_bytes())).unwrap();
    }
    let served = press.sign_next(|_| ());
    let mut state = HostState::new(configuration_with_bundle(&served), NOW_MS);
    state.faults = Faults::of(|call| LACKING.contains(&call).then_some(UNIMPLEMENTED));
    let (host, taken) = Host::start(state).unwrap();
    assert!(taken);
    let mut edge = HostEdge::start_empty(host);
    // More credentials than the cache has entries.
    for number in 0..5000 {
        let claims = HostEdge::claims(number);
        let token = if number % 10 == 0 { edge.eddsa.mint(&claims) } else { edge.hs256.mint(&claims) };
        for state in ["new", "known"] {
            let (outcome, cost) = edge.host.request_with_cost(&request(token.expose())).unwrap();
            assert!(matches!(outcome, Outcome::Forwarded(_)), "{outcome:?}");
            assert!(cost.fuel <= MAX_FUEL, "{number}, {state}: {}", cost.fuel);
        }
    }
    assert!(edge.host.memory_pages() <= MAX_PAGES, "{} pages", edge.host.memory_pages());
}

#[test]
fn incomplete_or_foreign_inline_bundle_is_rejected() {
    let mut press = HostEdge::start();
    let whole = press.sign_next(|_| ());
    let mut other = TestSigner::new(1);
    other.delegation = other.sign_delegation("other", 1);
    let foreign = press.sign_next_with(&other, |_| ());
    let mut forged = press.sign_next(|_| ());
    *forged.manifest.last_mut().unwrap() ^= 1;
    let mut incomplete = press.sign_next(|_| ());
    incomplete.objects.pop_first();
    for (served, taken, message) in [
        (whole, true, "enforcing bundle version"),
        (foreign, false, "`bundle` of the configuration is refused"),
        (forged, false, "`bundle` of the configuration is refused"),
        (incomplete, false, "`bundle` of the configuration is refused"),
    ] {
        let (mut host, accepted) =
            Host::start(HostState::new(configuration_with_bundle(&served), NOW_MS)).unwrap();
        assert_eq!(accepted, taken, "{:?}", host.state().log);
        assert!(
            taken || host.state().log.iter().any(|line| line.contains(message)),
            "{:?}",
            host.state().log
        );
    }
}

#[tokio::test]
async fn inline_bundle_decides_in_envoy_without_control_plane() {
    let mut press = HostEdge::start();
    press.host.state().now = fake_control_plane::now_ms() * 1_000_000;
    let served = press.sign_next(|_| ());
    let scratch = Scratch::new().unwrap();
    let settings = Settings::for_scratch(&scratch, configuration_with_bundle(&served)).unwrap();
    let _upstream = Upstream::start(settings.upstream).await.unwrap();
    let envoy = Envoy::start(settings, scratch.folder()).await.unwrap();
    let token =
        press.eddsa.mint(&fake_control_plane::claims(fake_control_plane::now_ms())).expose().to_owned();
    for worker in &mut envoy.wait_admitting(&token).await.unwrap() {
        worker.send(client::request_without_credential()).await.unwrap().expect(401).unwrap();
    }
    eventually("metrics count", async || {
        anyhow::ensure!(envoy.metric("keystile_admitted").await? > 0);
        Ok(())
    })
    .await;
}

fn configuration_with_bundle(served: &Responses) -> Value {
    let mut configuration = configuration();
    let members = configuration.as_object_mut().unwrap();
    members.remove("control_plane");
    let bundle = InlineBundle::encode(&served.manifest, served.objects.values().map(Vec::as_slice)).unwrap();
    members.insert("bundle".into(), json!(bundle));
    configuration
}

const LACKING: &[&str] = &[
    "proxy_set_tick_period_milliseconds",
    "proxy_get_shared_data",
    "proxy_set_shared_data",
    "proxy_http_call",
    "proxy_define_metric",
    "proxy_increment_metric",
    "proxy_record_metric",
    "proxy_set_property",
    "proxy_call_foreign_function",
];

const DAY_MS: u64 = 24 * 3_600_000;

/// 350 KB of revocations, as a configuration of 1 MiB can have them.
const REVOCATIONS: u64 = 50_000;

/// 1 ms. V8 executes 20 instructions of the filter in a nanosecond on the machine of docs/benchmarks.md; 4 leave a margin for
/// slower ones.
const MAX_FUEL: u64 = 4_000_000;

/// 16 MiB in pages of 64 KiB.
const MAX_PAGES: u64 = 256;
