//! Keys of other issuers are fetched, stored and published, and stay in use if the issuer's server fails.

use std::time::Duration;

use control_plane::{
    clock,
    config::{self, Config, Issuer},
    data_dir::DataDir,
    jwks::Fetcher,
    model::{Actor, IssuerRecord},
    operations::{
        RefreshError, RefreshMode, RefreshOutcome, Service, list_issuers, refresh_issuer, sync_issuers,
    },
    publisher, store,
};
use serde_json::json;

use crate::{
    fake_idp::{Behavior, FakeIdp, key},
    for_each_backend,
    test_env::{TestEnv, eventually, json_text},
};

for_each_backend! {
    async fn issuer_keys_are_added_changed_and_removed(env: TestEnv) {
        let idp = FakeIdp::start().await;
        let service = set_issuer(&env, &[&idp.origin]).await;
        sync_issuers(&service).await.unwrap();
        assert!(matches!(refresh_if_due(&env, &service, &idp).await, Ok(RefreshOutcome::Changed(_))));
        assert_eq!(published_issuer_keys(&service, &idp).await, ["first"]);
        assert_eq!(idp.take_requests(), [("/.well-known/openid-configuration".to_owned(), false), ("/keys".to_owned(), false)]);
        // An unchanged set creates no version and no key set.
        let version = version(&env).await;
        assert_eq!(refresh_if_due(&env, &service, &idp).await.unwrap(), RefreshOutcome::Same);
        assert_eq!(idp.take_requests().last().unwrap(), &("/keys".to_owned(), true));
        assert_eq!(version, self::version(&env).await);
        idp.set_keys(&["first", "second"]);
        assert!(matches!(refresh_if_due(&env, &service, &idp).await, Ok(RefreshOutcome::Changed(_))));
        assert_eq!(published_issuer_keys(&service, &idp).await, ["first", "second"]);
        idp.set_keys(&["second"]);
        assert!(matches!(refresh_if_due(&env, &service, &idp).await, Ok(RefreshOutcome::Changed(_))));
        assert_eq!(published_issuer_keys(&service, &idp).await, ["second"]);
        let record = record(&service).await;
        assert_eq!((record.failures, record.error, record.keys.len()), (0, None, 1));
        let lines = env.json(&["audit", "--limit", "1"]);
        assert_eq!([&lines[0]["action"], &lines[0]["target"]].map(json_text), ["issuer.keys", &idp.origin]);
        assert_eq!(lines[0]["detail"]["after"], json!(["second"]));

        // An issuer that is removed from the settings is no longer trusted.
        let without = set_issuer(&env, &[]).await;
        sync_issuers(&without).await.unwrap();
        let none: [&str; 0] = [];
        assert_eq!(published_issuer_keys(&without, &idp).await, none);
    }

    async fn last_good_key_set_survives_restart(env: TestEnv) {
        let mut idp = FakeIdp::start().await;
        let service = set_issuer(&env, &[&idp.origin]).await;
        sync_issuers(&service).await.unwrap();
        refresh_if_due(&env, &service, &idp).await.unwrap();
        service.close().await;
        idp.stop().await;
        let service = set_issuer(&env, &[&idp.origin]).await;
        sync_issuers(&service).await.unwrap();
        assert!(refresh_if_due(&env, &service, &idp).await.unwrap_err().to_string().contains("no connection"));
        assert_eq!(published_issuer_keys(&service, &idp).await, ["first"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_issuer_responses_keep_last_good_key_set() {
    let env = TestEnv::on_sqlite().await;
    let (idp, other) = (FakeIdp::start().await, FakeIdp::start().await);
    let service = set_issuer(&env, &[&idp.origin]).await;
    sync_issuers(&service).await.unwrap();
    refresh_if_due(&env, &service, &idp).await.unwrap();
    let version = version(&env).await;
    let set = |keys| json!({ "keys": keys }).to_string();
    let responses = [
        (Behavior::Status(500), "status 500"),
        (Behavior::Status(404), "status 404"),
        (Behavior::Status(304), "status 304"),
        (Behavior::Body("<html>".to_owned()), "the discovery document lacks"),
        (Behavior::Endless, "more than 262144 bytes"),
        (Behavior::Short, "cut off"),
        (Behavior::Slow, "no answer in time"),
        (Behavior::OtherIssuer, "has another `issuer`"),
        (Behavior::Redirect(other.origin.clone()), "redirect to another host"),
        (
            Behavior::Redirect("/.well-known/openid-configuration".to_owned()),
            "redirect to another host, or too many",
        ),
    ];
    for (behavior, expected) in responses {
        idp.set_behavior(behavior.clone());
        let refused = refresh_if_due(&env, &service, &idp).await.unwrap_err().to_string();
        assert!(refused.contains(expected), "{behavior:?}: {refused}");
        assert_eq!(published_issuer_keys(&service, &idp).await, ["first"]);
    }
    assert_eq!(other.take_requests(), []);
    let record = record(&service).await;
    assert_eq!(record.failures, 10);
    assert!(record.error.unwrap().contains("redirect"));
    assert!(record.due_at > clock::now().seconds() + 600, "retries are delayed");

    // Valid key sets that are not accepted.
    let direct = Issuer { jwks_url: Some(format!("{}/keys", idp.origin)), ..issuer(&idp.origin) };
    let service = with_issuers(&env, vec![direct]).await;
    for (body, expected) in [
        (set(json!([])), "the key set is empty"),
        (set(json!([{ "kty": "oct", "kid": "s", "k": "AAAA" }, key("new")])), "symmetric key"),
        (set(json!([key("new"), key("new")])), "two usable keys"),
        (set(json!([{ "kty": "RSA", "n": "AAAA", "e": "AQAB" }])), "no usable key"),
        ("{}".to_owned(), "malformed"),
    ] {
        idp.set_behavior(Behavior::Body(body));
        let refused = refresh_if_due(&env, &service, &idp).await.unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
        assert_eq!(published_issuer_keys(&service, &idp).await, ["first"]);
    }
    assert_eq!(self::version(&env).await, version, "edges got no change");
    idp.set_behavior(Behavior::Good);
    idp.set_keys(&["new"]);
    assert!(matches!(refresh_if_due(&env, &service, &idp).await, Ok(RefreshOutcome::Changed(_))));
    assert_eq!(published_issuer_keys(&service, &idp).await, ["new"]);
    assert_eq!(self::record(&service).await.failures, 0);
}

#[tokio::test]
async fn refresh_interval_follows_cache_control_within_bounds() {
    let env = TestEnv::on_sqlite().await;
    let idp = FakeIdp::start().await;
    let service = set_issuer(&env, &[&idp.origin]).await;
    sync_issuers(&service).await.unwrap();
    for (header, expected) in [
        ("public, max-age=3600", 3600),
        ("max-age=1", 60),
        ("no-store", 60),
        ("max-age=99999999", 86_400),
        ("public", 300),
    ] {
        idp.set_header("cache-control", header);
        refresh_if_due(&env, &service, &idp).await.unwrap();
        let record = record(&service).await;
        let pause = record.due_at - record.fetched_at.unwrap();
        assert_eq!(pause, expected, "{header}");
    }
    let fetcher = fetcher();
    let again = |wanted| refresh_issuer(&service, &fetcher, &Actor::Admin, &idp.origin, wanted);
    idp.take_requests();
    assert_eq!(again(RefreshMode::IfDue).await.unwrap(), RefreshOutcome::NotDue);
    assert!(matches!(again(RefreshMode::Immediately).await, Err(RefreshError::TooSoon { .. })));
    assert_eq!(idp.take_requests(), []);
    let unknown =
        refresh_issuer(&service, &fetcher, &Actor::Admin, "https://else.example", RefreshMode::Immediately)
            .await;
    assert!(matches!(unknown, Err(RefreshError::NotConfigured(_))));
}

/// Refreshes with the server and the settings file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_refreshes_issuer_keys_in_background() {
    let env = TestEnv::on_sqlite().await;
    let idp = FakeIdp::start().await;
    let settings = env.data().join("keystile.toml");
    let mut text = std::fs::read_to_string(&settings).unwrap();
    text += &format!("\n[[issuers]]\nissuer = '{}'\n", idp.origin);
    std::fs::write(&settings, text).unwrap();
    let listed = env.json(&["issuer", "list"]);
    assert_eq!((&listed[0]["keys"], &listed[0]["fetched_at"]), (&json!([]), &json!(null)));
    let _server = env.serve();
    let kids = eventually("the keys", async || {
        let listed = env.json(&["issuer", "list"]);
        listed[0]["keys"].as_array().filter(|keys| !keys.is_empty()).cloned()
    })
    .await;
    assert_eq!(kids, [json!({ "kid": "first", "alg": "EdDSA" })]);
    assert!(env.stderr_of_failure(&["issuer", "refresh", &idp.origin]).contains("seconds ago"));
    assert!(env.stderr_of_failure(&["issuer", "refresh", "https://else.example"]).contains("unknown issuer"));
}

async fn set_issuer(env: &TestEnv, names: &[&String]) -> Service {
    with_issuers(env, names.iter().map(|name| issuer(name)).collect()).await
}

async fn with_issuers(env: &TestEnv, issuers: Vec<Issuer>) -> Service {
    let store = config::Store { url: env.url.clone() };
    let config = Config { store, issuers, ..Config::default() };
    Service::open(DataDir::new(env.data()), config).await.unwrap()
}

fn issuer(name: &str) -> Issuer {
    serde_json::from_value(json!({ "issuer": name })).unwrap()
}

fn fetcher() -> Fetcher {
    Fetcher::new(Duration::from_secs(1)).unwrap()
}

/// Refreshes a due issuer, as the server does.
async fn refresh_if_due(
    env: &TestEnv,
    service: &Service,
    idp: &FakeIdp,
) -> Result<RefreshOutcome, RefreshError> {
    let mut write = env.store().await.write().await.unwrap();
    let record = store::issuers::find(&mut write, &idp.origin).await.unwrap().unwrap();
    store::issuers::update(&mut write, &IssuerRecord { due_at: 0, ..record }).await.unwrap();
    write.commit().await.unwrap();
    refresh_issuer(service, &fetcher(), &Actor::System, &idp.origin, RefreshMode::IfDue).await
}

async fn record(service: &Service) -> IssuerRecord {
    list_issuers(service).await.unwrap().pop().unwrap().1.unwrap()
}

async fn version(env: &TestEnv) -> u64 {
    store::versions::current(&mut env.store().await.reader().await.unwrap()).await.unwrap().number
}

/// Returns the keys of the issuer in the current bundle.
async fn published_issuer_keys(service: &Service, idp: &FakeIdp) -> Vec<&'static str> {
    let publication = publisher::preview(service).await.unwrap();
    let held = |kid: &&str| publication.snapshot.issuer_key(&idp.origin, kid).is_some();
    ["first", "second", "new"].into_iter().filter(held).collect()
}
