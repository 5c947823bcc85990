//! A bundle in the configuration does for hosts that cannot fetch one, and is believed no longer than it says.

use crate::edge::{Edge, NOW_MS, configuration, plain, request};
use bundle::InlineBundle;
use harness::forge::{Authority, Served};
use harness::host::{Faults, Host, UNIMPLEMENTED, World};
use harness::{Envoy, Scratch, Upstream, client, envoy::Settings, eventually, forge};
use serde_json::{Value, json};
use token::Fingerprint;

/// As on Google's proxies: no calls out, timers, metrics, shared data or filter state.
#[test]
fn decides_where_the_host_can_do_nothing_else() {
    let mut press = Edge::start();
    let (good, revoked) = (press.eddsa.mint(&Edge::claims(1)), press.hs256.mint(&Edge::claims(2)));
    press.content.revoke(1, Fingerprint::digest(revoked.expose().as_bytes())).unwrap();
    let served = press.next(|draft| draft.expires_at = NOW_MS + DAY_MS);
    let mut configuration = carrying(&served);
    configuration["outage_grace_seconds"] = json!(60);
    configuration["max_manifest_lifetime_seconds"] = json!(DAY_MS / 1000);
    let mut world = World::new(configuration, NOW_MS);
    world.faults = Faults::of(|call| LACKING.contains(&call).then_some(UNIMPLEMENTED));
    let (host, taken) = Host::start(world).unwrap();
    assert!(taken);
    let mut edge = Edge::around(host);
    let forwarded = edge.ask(&request(good.expose()).with("x-keystile-subject", "root")).unwrap();
    assert_eq!(forwarded.get("x-keystile-subject"), Some(b"OP0000000001".as_slice()));
    assert_eq!(edge.ask(&request(revoked.expose())).unwrap_err(), "keystile_revoked");
    assert_eq!(edge.ask(&plain()).unwrap_err(), "keystile_credential_missing");
    // No tick tells the time: every request asks.
    edge.host.world().now = (NOW_MS + DAY_MS + 30_000) * 1_000_000;
    let mut late = Edge::claims(3);
    (late.iat, late.exp) = (late.iat + DAY_MS / 1000, late.exp.map(|exp| exp + DAY_MS / 1000));
    let late = edge.eddsa.mint(&late);
    edge.ask(&request(late.expose())).unwrap();
    assert_eq!(edge.ask(&request(good.expose())).unwrap_err(), "keystile_token_expired");
    edge.host.world().now += 60_000 * 1_000_000;
    assert_eq!(edge.ask(&request(late.expose())).unwrap_err(), "keystile_bundle_stale");
}

#[test]
fn is_refused_with_its_configuration_unless_it_is_whole_and_ours() {
    let mut press = Edge::start();
    let whole = press.next(|_| ());
    let mut other = Authority::new(1);
    other.delegation = other.delegate("other", 1);
    let foreign = press.next_by(&other, |_| ());
    let mut forged = press.next(|_| ());
    *forged.manifest.last_mut().unwrap() ^= 1;
    let mut incomplete = press.next(|_| ());
    incomplete.objects.pop_first();
    for (served, taken, told) in [
        (whole, true, "enforcing bundle version"),
        (foreign, false, "`bundle` of the configuration is refused"),
        (forged, false, "`bundle` of the configuration is refused"),
        (incomplete, false, "`bundle` of the configuration is refused"),
    ] {
        let (mut host, accepted) = Host::start(World::new(carrying(&served), NOW_MS)).unwrap();
        assert_eq!(accepted, taken, "{:?}", host.world().log);
        assert!(taken || host.world().log.iter().any(|line| line.contains(told)), "{:?}", host.world().log);
    }
}

#[tokio::test]
async fn decides_in_envoy_without_a_control_plane() {
    let mut press = Edge::start();
    press.host.world().now = forge::now_ms() * 1_000_000;
    let served = press.next(|_| ());
    let scratch = Scratch::new().unwrap();
    let settings = Settings::on(&scratch, carrying(&served)).unwrap();
    let _upstream = Upstream::start(settings.upstream).await.unwrap();
    let envoy = Envoy::start(settings, scratch.folder()).await.unwrap();
    let token = press.eddsa.mint(&forge::claims(forge::now_ms())).expose().to_owned();
    for worker in &mut envoy.admitting(&token).await.unwrap() {
        worker.send(client::without_credential()).await.unwrap().expect(401).unwrap();
    }
    eventually("metrics count", async || {
        anyhow::ensure!(envoy.metric("keystile_admitted").await? > 0);
        Ok(())
    })
    .await;
}

fn carrying(served: &Served) -> Value {
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
