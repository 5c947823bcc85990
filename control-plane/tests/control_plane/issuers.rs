//! Keys of other issuers are fetched, stored and published, and stay in use if the issuer's server fails.

use std::time::Duration;

use control_plane::{
    clock,
    config::{self, Config, Issuer},
    home::Home,
    jwks::Fetcher,
    model::{Actor, IssuerRecord},
    operations::{RefreshError, Refreshed, Service, Wanted, adopt_issuers, list_issuers, refresh_issuer},
    publisher, store,
};
use serde_json::json;

use crate::{
    idp::{Idp, Mood, key},
    on_both,
    world::{World, eventually, text},
};

on_both! {
    async fn keys_come_change_and_go(world: World) {
        let idp = Idp::start().await;
        let service = with(&world, &[&idp.origin]).await;
        adopt_issuers(&service).await.unwrap();
        assert!(matches!(due(&world, &service, &idp).await, Ok(Refreshed::Changed(_))));
        assert_eq!(published(&service, &idp).await, ["first"]);
        assert_eq!(idp.asked(), [("/.well-known/openid-configuration".to_owned(), false), ("/keys".to_owned(), false)]);
        // An unchanged set creates no version and no key set.
        let version = version(&world).await;
        assert_eq!(due(&world, &service, &idp).await.unwrap(), Refreshed::Same);
        assert_eq!(idp.asked().last().unwrap(), &("/keys".to_owned(), true));
        assert_eq!(version, self::version(&world).await);
        idp.publishes(&["first", "second"]);
        assert!(matches!(due(&world, &service, &idp).await, Ok(Refreshed::Changed(_))));
        assert_eq!(published(&service, &idp).await, ["first", "second"]);
        idp.publishes(&["second"]);
        assert!(matches!(due(&world, &service, &idp).await, Ok(Refreshed::Changed(_))));
        assert_eq!(published(&service, &idp).await, ["second"]);
        let record = record(&service).await;
        assert_eq!((record.failures, record.error, record.keys.len()), (0, None, 1));
        let lines = world.json(&["audit", "--limit", "1"]);
        assert_eq!([&lines[0]["action"], &lines[0]["target"]].map(text), ["issuer.keys", &idp.origin]);
        assert_eq!(lines[0]["detail"]["after"], json!(["second"]));

        // An issuer that is removed from the settings is no longer trusted.
        let without = with(&world, &[]).await;
        adopt_issuers(&without).await.unwrap();
        let none: [&str; 0] = [];
        assert_eq!(published(&without, &idp).await, none);
    }

    async fn the_last_good_set_survives_a_restart(world: World) {
        let mut idp = Idp::start().await;
        let service = with(&world, &[&idp.origin]).await;
        adopt_issuers(&service).await.unwrap();
        due(&world, &service, &idp).await.unwrap();
        service.close().await;
        idp.dies().await;
        let service = with(&world, &[&idp.origin]).await;
        adopt_issuers(&service).await.unwrap();
        assert!(due(&world, &service, &idp).await.unwrap_err().to_string().contains("no connection"));
        assert_eq!(published(&service, &idp).await, ["first"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_issuer_does_the_last_good_set_holds() {
    let world = World::on_sqlite().await;
    let (idp, other) = (Idp::start().await, Idp::start().await);
    let service = with(&world, &[&idp.origin]).await;
    adopt_issuers(&service).await.unwrap();
    due(&world, &service, &idp).await.unwrap();
    let version = version(&world).await;
    let set = |keys| json!({ "keys": keys }).to_string();
    let lies = [
        (Mood::Status(500), "status 500"),
        (Mood::Status(404), "status 404"),
        (Mood::Status(304), "status 304"),
        (Mood::Body("<html>".to_owned()), "the discovery document lacks"),
        (Mood::Endless, "more than 262144 bytes"),
        (Mood::Short, "cut off"),
        (Mood::Slow, "no answer in time"),
        (Mood::Liar, "has another `issuer`"),
        (Mood::Redirect(other.origin.clone()), "redirect to another host"),
        (
            Mood::Redirect("/.well-known/openid-configuration".to_owned()),
            "redirect to another host, or too many",
        ),
    ];
    for (mood, expected) in lies {
        idp.becomes(mood.clone());
        let refused = due(&world, &service, &idp).await.unwrap_err().to_string();
        assert!(refused.contains(expected), "{mood:?}: {refused}");
        assert_eq!(published(&service, &idp).await, ["first"]);
    }
    assert_eq!(other.asked(), []);
    let record = record(&service).await;
    assert_eq!(record.failures, 10);
    assert!(record.error.unwrap().contains("redirect"));
    assert!(record.due_at > clock::now().seconds() + 600, "retries are delayed");

    // Valid key sets that are not accepted.
    let direct = Issuer { jwks_url: Some(format!("{}/keys", idp.origin)), ..issuer(&idp.origin) };
    let service = with_issuers(&world, vec![direct]).await;
    for (body, expected) in [
        (set(json!([])), "the key set is empty"),
        (set(json!([{ "kty": "oct", "kid": "s", "k": "AAAA" }, key("new")])), "symmetric key"),
        (set(json!([key("new"), key("new")])), "two usable keys"),
        (set(json!([{ "kty": "RSA", "n": "AAAA", "e": "AQAB" }])), "no usable key"),
        ("{}".to_owned(), "malformed"),
    ] {
        idp.becomes(Mood::Body(body));
        let refused = due(&world, &service, &idp).await.unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
        assert_eq!(published(&service, &idp).await, ["first"]);
    }
    assert_eq!(self::version(&world).await, version, "edges got no change");
    idp.becomes(Mood::Good);
    idp.publishes(&["new"]);
    assert!(matches!(due(&world, &service, &idp).await, Ok(Refreshed::Changed(_))));
    assert_eq!(published(&service, &idp).await, ["new"]);
    assert_eq!(self::record(&service).await.failures, 0);
}

#[tokio::test]
async fn an_issuer_is_asked_as_often_as_it_wishes_within_bounds() {
    let world = World::on_sqlite().await;
    let idp = Idp::start().await;
    let service = with(&world, &[&idp.origin]).await;
    adopt_issuers(&service).await.unwrap();
    for (header, expected) in [
        ("public, max-age=3600", 3600),
        ("max-age=1", 60),
        ("no-store", 60),
        ("max-age=99999999", 86_400),
        ("public", 300),
    ] {
        idp.says("cache-control", header);
        due(&world, &service, &idp).await.unwrap();
        let record = record(&service).await;
        let pause = record.due_at - record.fetched_at.unwrap();
        assert_eq!(pause, expected, "{header}");
    }
    let fetcher = fetcher();
    let again = |wanted| refresh_issuer(&service, &fetcher, &Actor::Admin, &idp.origin, wanted);
    idp.asked();
    assert_eq!(again(Wanted::Due).await.unwrap(), Refreshed::NotDue);
    assert!(matches!(again(Wanted::Now).await, Err(RefreshError::TooSoon { .. })));
    assert_eq!(idp.asked(), []);
    let unknown =
        refresh_issuer(&service, &fetcher, &Actor::Admin, "https://else.example", Wanted::Now).await;
    assert!(matches!(unknown, Err(RefreshError::NotConfigured(_))));
}

/// Refreshes with the server and the settings file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_reaches_the_edges_by_itself() {
    let world = World::on_sqlite().await;
    let idp = Idp::start().await;
    let settings = world.data().join("keystile.toml");
    let mut text = std::fs::read_to_string(&settings).unwrap();
    text += &format!("\n[[issuers]]\nissuer = '{}'\n", idp.origin);
    std::fs::write(&settings, text).unwrap();
    let listed = world.json(&["issuer", "list"]);
    assert_eq!((&listed[0]["keys"], &listed[0]["fetched_at"]), (&json!([]), &json!(null)));
    let _server = world.serve();
    let kids = eventually("the keys", async || {
        let listed = world.json(&["issuer", "list"]);
        listed[0]["keys"].as_array().filter(|keys| !keys.is_empty()).cloned()
    })
    .await;
    assert_eq!(kids, [json!({ "kid": "first", "alg": "EdDSA" })]);
    assert!(world.complaint(&["issuer", "refresh", &idp.origin]).contains("seconds ago"));
    assert!(world.complaint(&["issuer", "refresh", "https://else.example"]).contains("unknown issuer"));
}

async fn with(world: &World, names: &[&String]) -> Service {
    with_issuers(world, names.iter().map(|name| issuer(name)).collect()).await
}

async fn with_issuers(world: &World, issuers: Vec<Issuer>) -> Service {
    let store = config::Store { url: world.url.clone() };
    let config = Config { store, issuers, ..Config::default() };
    Service::open(Home::new(world.data()), config).await.unwrap()
}

fn issuer(name: &str) -> Issuer {
    serde_json::from_value(json!({ "issuer": name })).unwrap()
}

fn fetcher() -> Fetcher {
    Fetcher::new(Duration::from_secs(1)).unwrap()
}

/// Refreshes a due issuer, as the server does.
async fn due(world: &World, service: &Service, idp: &Idp) -> Result<Refreshed, RefreshError> {
    let mut write = world.store().await.write().await.unwrap();
    let record = store::issuers::find(&mut write, &idp.origin).await.unwrap().unwrap();
    store::issuers::update(&mut write, &IssuerRecord { due_at: 0, ..record }).await.unwrap();
    write.commit().await.unwrap();
    refresh_issuer(service, &fetcher(), &Actor::System, &idp.origin, Wanted::Due).await
}

async fn record(service: &Service) -> IssuerRecord {
    list_issuers(service).await.unwrap().pop().unwrap().1.unwrap()
}

async fn version(world: &World) -> u64 {
    store::versions::current(&mut world.store().await.reader().await.unwrap()).await.unwrap().number
}

/// Returns the keys of the issuer in the current bundle.
async fn published(service: &Service, idp: &Idp) -> Vec<&'static str> {
    let publication = publisher::preview(service).await.unwrap();
    let held = |kid: &&str| publication.snapshot.issuer_key(&idp.origin, kid).is_some();
    ["first", "second", "new"].into_iter().filter(held).collect()
}
