//! Keys of other issuers are fetched, stored and published, and stay in use if the issuer's server fails.

use std::time::Duration;

use control_plane::{
    config::{self, Config, Issuer},
    db::versions,
    domain::Actor,
    domain::UnixSeconds,
    issuers::IssuerRecord,
    issuers::{
        self, RefreshError, RefreshMode, RefreshOutcome, jwks::Fetcher, list_issuers, refresh_issuer,
        sync_issuers,
    },
    platform::{clock, data_dir::DataDir},
    publishing,
    service::Service,
};
use serde_json::{Value, json};
use token::{Algorithm, Fingerprint};

use crate::{
    fake_idp::{Behavior, CA_FILE, FakeIdp, key},
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
        (
            Behavior::Body("<html>".to_owned()),
            "expected a discovery document with `issuer` and `jwks_uri`, got an HTML page",
        ),
        (Behavior::Body(set(json!([key("new")]))), "got a key set; set `jwks_url` to this URL"),
        (
            Behavior::Body(r#"{"issuer":"x","issuer":"y","jwks_uri":"z"}"#.to_owned()),
            "got a discovery document",
        ),
        (Behavior::Body(r#"{"error":"x"}"#.to_owned()), "got an error message"),
        (Behavior::Endless, "more than 262144 bytes"),
        (Behavior::Short, "cut off"),
        (Behavior::Slow, "no answer in time"),
        (Behavior::OtherIssuer, "has another `issuer`, `https://else.example`"),
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
    assert_eq!(record.failures, 13);
    assert!(record.error.unwrap().contains("redirect"));
    assert!(record.due_at > UnixSeconds::new(clock::now().seconds().get() + 600), "retries are delayed");

    // Valid key sets that are not accepted.
    let direct = Issuer { jwks_url: Some(format!("{}/keys", idp.origin)), ..issuer(&idp.origin) };
    let service = with_issuers(&env, vec![direct]).await;
    for (body, expected) in [
        (set(json!([])), "the key set is empty"),
        (set(json!([{ "kty": "oct", "kid": "s", "k": "AAAA" }, key("new")])), "symmetric key"),
        (set(json!([key("new"), { "kty": "EC", "d": "AAAA" }])), "private key"),
        (set(json!([{ "kty": "RSA", "n": "AAAA", "e": "AQAB" }])), "no usable key"),
        ("{}".to_owned(), "expected a key set, got an empty object"),
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
        let pause = record.due_at.since(record.fetched_at.unwrap());
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c5_shortest_and_longest_age_are_settings() {
    let env = TestEnv::on_sqlite().await;
    let idp = FakeIdp::start().await;
    let source = json!({ "issuer": idp.origin, "min_age": "90s", "max_age": "10m" });
    let service = with_issuers(&env, vec![serde_json::from_value(source).unwrap()]).await;
    sync_issuers(&service).await.unwrap();
    for (header, expected) in [("max-age=3600", 600), ("max-age=1", 90), ("max-age=100", 100)] {
        idp.set_header("cache-control", header);
        refresh_if_due(&env, &service, &idp).await.unwrap();
        let record = record(&service).await;
        assert_eq!(record.due_at.since(record.fetched_at.unwrap()), expected, "{header}");
    }
}

/// Appends sections to the settings file.
fn add_settings(env: &TestEnv, sections: &str) {
    let settings = env.data().join("keystile.toml");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, format!("{text}\n{sections}\n")).unwrap();
}

/// Waits until the only issuer has keys with these names.
async fn wait_for_kids(env: &TestEnv, expected: &[&str]) {
    eventually(&format!("{expected:?}"), async || {
        let listed = env.json(&["issuer", "list"]);
        let kids: Vec<_> =
            listed[0]["keys"].as_array().unwrap().iter().map(|key| json_text(&key["kid"])).collect();
        (kids == expected).then_some(())
    })
    .await;
}

for_each_backend! {
    /// The set may be cached for an hour, and the fetch is bounded however many edges report, and regardless of what they report.
    async fn c5_reported_missing_key_is_fetched_at_most_once_per_interval(env: TestEnv) {
        let idp = FakeIdp::start().await;
        idp.set_header("cache-control", "max-age=3600");
        add_settings(&env, &format!("[[issuers]]\nissuer = '{}'\nmin_refresh = '2s'", idp.origin));
        let edge = env.enroll_edge("edge");
        let server = env.serve();
        wait_for_kids(&env, &["first"]).await;
        let report = async |issuers: &str, credential: &str| {
            let request = server.manifest(credential, 0, 0).header("x-keystile-missing-keys", issuers);
            request.send().await.unwrap().status()
        };
        let known = Fingerprint::digest(idp.origin.as_bytes()).to_string();
        idp.set_keys(&["first", "second"]);
        idp.take_requests();
        // Neither another issuer nor a caller without a credential causes a fetch.
        let other = Fingerprint::digest(b"https://else.example").to_string();
        for malformed in [other.as_str(), "", "x", &known[1..], &format!("{other},{other},"), &idp.origin] {
            assert_eq!(report(malformed, &edge).await, 200);
        }
        assert_eq!(report(&known, "wrong").await, 401);
        assert_eq!(idp.take_requests(), []);
        let started = std::time::Instant::now();
        assert_eq!(report(&format!("{other}, {known}"), &edge).await, 200);
        wait_for_kids(&env, &["first", "second"]).await;
        // A flood after the fetch causes one more in each interval.
        while started.elapsed() < Duration::from_secs(5) {
            report(&known, &edge).await;
        }
        let fetches = idp.take_requests().into_iter().filter(|(path, _)| path == "/keys").count();
        assert!((2..=4).contains(&fetches), "{fetches} fetches in 5 s");
    }

    async fn c6_key_file_is_read_again_when_it_changes(env: TestEnv) {
        let file = env.data().join("keys.json");
        let set = |keys: Value| json!({ "keys": keys }).to_string();
        std::fs::write(&file, set(json!([key("first")]))).unwrap();
        // A relative path starts in the data folder.
        add_settings(&env, "[[issuers]]\nissuer = 'https://idp.example'\njwks_file = 'keys.json'");
        let _server = env.serve();
        wait_for_kids(&env, &["first"]).await;
        std::fs::write(&file, set(json!([key("first"), key("second")]))).unwrap();
        wait_for_kids(&env, &["first", "second"]).await;
        std::fs::write(&file, "{").unwrap();
        let error = eventually("the error", async || {
            env.json(&["issuer", "list"])[0]["error"].as_str().map(str::to_owned)
        })
        .await;
        assert!(error.contains("expected a key set, got invalid JSON"), "{error}");
        wait_for_kids(&env, &["first", "second"]).await;
        // As a Kubernetes volume is replaced.
        let next = env.data().join("next.json");
        std::fs::write(&next, set(json!([key("second")]))).unwrap();
        std::fs::rename(&next, &file).unwrap();
        wait_for_kids(&env, &["second"]).await;
        assert_eq!(env.json(&["issuer", "list"])[0]["error"], json!(null));
    }

    async fn c8_doctor_list_and_refresh_tell_what_is_wrong_with_keys(env: TestEnv) {
        let run = |arguments: &[&str]| {
            let output = env.run(arguments);
            (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
        };
        let file = env.data().join("keys.json");
        let issuer = "https://idp.example";
        add_settings(&env, &format!("[[issuers]]\nissuer = '{issuer}'\njwks_file = 'keys.json'\nmin_refresh = '1s'"));
        let issuer_line = |text: &str| {
            text.lines().find(|line| line.contains(issuer)).unwrap_or_default().to_owned()
        };
        let (_, before, _) = run(&["doctor"]);
        assert!(issuer_line(&before).starts_with("note  issuer"), "{before}");
        // No key at all.
        let (code, _, error) = run(&["issuer", "refresh", issuer]);
        assert!(code == Some(1) && error.contains("cannot read `jwks_file`"), "{error}");
        let (code, found, hint) = run(&["doctor"]);
        assert_eq!(code, Some(1), "{found}");
        let line = issuer_line(&found);
        assert!(line.starts_with("BAD   issuer") && line.contains("no keys") && line.contains("jwks_file"), "{line}");
        assert!(hint.contains("issuer refresh"), "{hint}");
        let (_, table, _) = run(&["issuer", "list"]);
        assert!(issuer_line(&table).contains("cannot read `jwks_file`"), "{table}");
        assert!(issuer_line(&table).contains("none"), "{table}");
        // Some keys are left out: one as it should be, then one that tokens may name.
        let encryption = json!({ "kty": "RSA", "use": "enc", "kid": "enc" });
        let odd = json!({ "kty": "EC", "crv": "secp256k1", "kid": "odd" });
        for (keys, state) in [
            (json!([key("first"), encryption]), "ok    issuer"),
            (json!([key("first"), encryption, odd]), "note  issuer"),
        ] {
            std::fs::write(&file, json!({ "keys": keys }).to_string()).unwrap();
            let (_, refreshed, _) = eventually("a refresh", async || {
                let done = run(&["issuer", "refresh", issuer]);
                (done.0 != Some(1)).then_some(done)
            })
            .await;
            assert!(refreshed.contains("left out: `enc`: is not for signatures"), "{refreshed}");
            let (code, found, _) = run(&["doctor"]);
            let line = issuer_line(&found);
            assert!(code == Some(0) && line.starts_with(state), "{found}");
            assert!(line.contains("1 usable keys: first (EdDSA)") && line.contains("left out: `enc`"), "{line}");
            let (_, table, _) = run(&["issuer", "list"]);
            assert!(table.starts_with("ISSUER") && table.contains("LEFT OUT"), "{table}");
            assert!(issuer_line(&table).contains("`enc`: is not for signatures (`use`)"), "{table}");
        }
        let (_, table, _) = run(&["issuer", "list"]);
        assert!(issuer_line(&table).contains("`odd`: is of an unknown kind"), "{table}");
        // The last keys stay in use.
        std::fs::write(&file, "<html>").unwrap();
        eventually("the failure", async || run(&["issuer", "refresh", issuer]).2.contains("HTML").then_some(())).await;
        let (code, found, _) = run(&["doctor"]);
        let line = issuer_line(&found);
        assert!(code == Some(0) && line.starts_with("note  issuer"), "{found}");
        assert!(line.contains("the last fetch failed") && line.contains("an HTML page"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c6_private_authority_is_trusted_by_ca_file() {
    let env = TestEnv::on_sqlite().await;
    let idp = FakeIdp::start_tls().await;
    let with_ca = |file: Option<&str>| {
        let mut source = json!({ "issuer": idp.origin });
        if let Some(file) = file {
            source["ca_file"] = json!(file);
        }
        serde_json::from_value(source).unwrap()
    };
    std::fs::write(env.data().join("empty.pem"), "no certificate").unwrap();
    let service = with_issuers(&env, vec![with_ca(None)]).await;
    sync_issuers(&service).await.unwrap();
    for (file, expected) in [
        (None, "the certificate of the server is not trusted"),
        (Some("missing.pem"), "cannot read `ca_file`"),
        (Some("empty.pem"), "no valid certificate in PEM"),
        (Some("."), "cannot read `ca_file`: it is not a file"),
    ] {
        let service = with_issuers(&env, vec![with_ca(file)]).await;
        let refused = refresh_if_due(&env, &service, &idp).await.unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
        assert_eq!(idp.take_requests(), []);
    }
    let service = with_issuers(&env, vec![with_ca(Some(CA_FILE))]).await;
    assert!(matches!(refresh_if_due(&env, &service, &idp).await, Ok(RefreshOutcome::Changed(_))));
    assert_eq!(published_issuer_keys(&service, &idp).await, ["first"]);
    // An issuer with TLS names a URL without.
    let downgrade = json!({ "issuer": idp.origin, "jwks_uri": "http://192.0.2.1/keys" }).to_string();
    idp.set_behavior(Behavior::Body(downgrade));
    let refused = refresh_if_due(&env, &service, &idp).await.unwrap_err().to_string();
    assert!(refused.contains("`jwks_uri` is not an https URL"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c6_keys_in_the_settings_are_published() {
    let env = TestEnv::on_sqlite().await;
    let idp = FakeIdp::start().await;
    let source = |kid: &str| {
        let jwks = json!({ "keys": [key(kid)] }).to_string();
        vec![serde_json::from_value(json!({ "issuer": idp.origin, "jwks": jwks })).unwrap()]
    };
    for kid in ["first", "second"] {
        let service = with_issuers(&env, source(kid)).await;
        sync_issuers(&service).await.unwrap();
        assert!(matches!(refresh_if_due(&env, &service, &idp).await, Ok(RefreshOutcome::Changed(_))));
        assert_eq!(published_issuer_keys(&service, &idp).await, [kid]);
        assert_eq!(refresh_if_due(&env, &service, &idp).await.unwrap(), RefreshOutcome::Same);
    }
    assert_eq!(idp.take_requests(), []);
}

/// One kid for several algorithms, P-521 and a large RSA key pass from the set to the bundle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c1_keys_of_one_kid_are_published() {
    let env = TestEnv::on_sqlite().await;
    let rsa = |alg: &str, bytes: usize| {
        let modulus = [vec![0xc1; bytes - 1], vec![0xab]].concat();
        json!({ "kty": "RSA", "kid": "one", "alg": alg, "n": token::base64url::encode(&modulus), "e": "AQAB" })
    };
    let set = json!({ "keys": [rsa("RS256", 256), rsa("RS384", 256), rsa("PS256", 1024), key("one")] });
    let source = json!({ "issuer": "https://idp.example", "jwks": set.to_string(), "max_rsa_bits": 8192 });
    let service = with_issuers(&env, vec![serde_json::from_value(source).unwrap()]).await;
    sync_issuers(&service).await.unwrap();
    let done =
        refresh_issuer(&service, &fetcher(), &Actor::System, "https://idp.example", RefreshMode::IfDue).await;
    assert!(matches!(done, Ok(RefreshOutcome::Changed(_))), "{done:?}");
    let publication = publishing::preview(&service).await.unwrap();
    for algorithm in [Algorithm::Rs256, Algorithm::Rs384, Algorithm::Ps256, Algorithm::EdDsa] {
        let found = publication.snapshot.issuer_key("https://idp.example", "one", algorithm.name()).unwrap();
        assert_eq!(found.algorithm(), algorithm);
    }
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
    let mut write = env.store().await.upkeep().await.unwrap();
    let record = issuers::find(write.db(), &idp.origin).await.unwrap().unwrap();
    issuers::update(write.db(), &IssuerRecord { due_at: UnixSeconds::new(0), ..record }).await.unwrap();
    write.commit().await.unwrap();
    refresh_issuer(service, &fetcher(), &Actor::System, &idp.origin, RefreshMode::IfDue).await
}

async fn record(service: &Service) -> IssuerRecord {
    list_issuers(service).await.unwrap().pop().unwrap().1.unwrap()
}

async fn version(env: &TestEnv) -> u64 {
    versions::current(&mut env.store().await.reader().await.unwrap()).await.unwrap().number.get()
}

/// Returns the keys of the issuer in the current bundle.
async fn published_issuer_keys(service: &Service, idp: &FakeIdp) -> Vec<&'static str> {
    let publication = publishing::preview(service).await.unwrap();
    let held = |kid: &&str| publication.snapshot.issuer_key(&idp.origin, kid, "EdDSA").is_ok();
    ["first", "second", "new"].into_iter().filter(held).collect()
}
