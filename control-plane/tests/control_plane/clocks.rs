//! The effects of a clock that was ahead are detected, delay no caller, and can be repaired.

use std::time::{Duration, Instant};

use bundle::{RevocationStatus, Scope};
use control_plane::{
    config::{self, Config},
    credentials::{
        api_keys::{CreateApiKey, create_api_key, disable_api_key, enable_api_key, expire_api_keys},
        tokens::{Lifetime, TokenRecipient, issue_token},
    },
    domain::UnixSeconds,
    domain::{Actor, ApiKey, EdgeReport, OperatorId, Subject, Version},
    edges,
    maintenance::{ClockConfirmation, ClockError, check_clock, instants_ahead, repair_clock},
    platform::{
        clock::{self, Clock},
        data_dir::DataDir,
    },
    publishing::{OnDemandPublisher, compact_base},
    revocation::{AccessScope, RevocationTarget, revoke},
    service::Service,
};
use token::api_key::Prefix;

use crate::{for_each_backend, test_env::TestEnv};

for_each_backend! {
    async fn clock_repair_lowers_future_watermarks(env: TestEnv) {
        let (service, clock) = manual(&env).await;
        let operator: OperatorId = env.operator.parse().unwrap();
        let alice = Subject { operator: operator.clone(), user: Some("alice".parse().unwrap()) };
        let day = Lifetime::try_from(86_400).unwrap();
        let issued = async || issue_token(&service, TokenRecipient::Subject(alice.clone()), day).await;
        let refused = async |target| {
            revoke(&service, &Actor::Admin, &AccessScope::Everything, target, None).await.unwrap()
        };
        let mut press = OnDemandPublisher::start(&service).await.unwrap();
        let early = issued().await.unwrap();

        let right = clock.now();
        clock.advance(Duration::from_secs(10));
        clock.set(right.plus(DAY));
        let ahead = issued().await.unwrap();
        clock.advance(Duration::from_secs(5));
        let other = issued().await.unwrap();
        clock.advance(Duration::from_secs(5));
        refused(RevocationTarget::Fingerprint(other.fingerprint)).await;
        assert_eq!(compact_base(&service, &Actor::System).await.unwrap().blocks.len(), 1);
        refused(RevocationTarget::Subject { subject: alice.clone(), instant: None }).await;
        refused(RevocationTarget::Everything).await;
        press.publish().await.unwrap();

        // When the clock is correct again, callers do not wait.
        clock.set(right.plus(Duration::from_secs(60)));
        press.publish().await.unwrap();
        let began = Instant::now();
        let message = issued().await.unwrap_err().to_string();
        assert!(message.contains("the watermark of") && message.contains("A clock that was ahead"), "{message}");
        let order = CreateApiKey {
            owner: alice.clone(),
            username: None,
            prefix: Prefix::default(),
            name: None,
            metadata: None,
            expires_at: None,
        };
        let message = create_api_key(&service, &Actor::Admin, order).await.unwrap_err().to_string();
        assert!(message.contains("A clock that was ahead has caused this"), "{message}");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert!(instants_ahead(&service).await.unwrap().len() >= 3);

        let done = repair_clock(&service, &Actor::Admin, true).await.unwrap();
        assert_eq!((done.watermarks.len(), done.covered.len()), (2, 1), "{done:?}");
        assert_eq!(instants_ahead(&service).await.unwrap(), []);
        let late = issued().await.unwrap();
        let snapshot = &press.publish().await.unwrap().latest().snapshot;
        let kid = service.keys().current().signer().kid().to_owned();
        let now = clock.now().seconds().get();
        let status = |one: &control_plane::credentials::tokens::IssuedToken, at| {
            let covered = snapshot.watermark([Scope::Global]).is_some_and(|instant| at <= instant);
            (snapshot.revocation_status(&one.fingerprint, &kid, at, one.expires_at.map(UnixSeconds::get)), covered)
        };
        let ahead_at = right.plus(DAY).seconds().get();
        assert!(status(&early, right.seconds().get()).1, "credentials issued until now stay refused");
        assert_eq!(status(&ahead, ahead_at), (RevocationStatus::Revoked, false), "and those dated later");
        assert_eq!(status(&other, ahead_at + 5), (RevocationStatus::Revoked, false), "which the base contained before");
        assert_eq!(status(&late, now + 1), (RevocationStatus::NotCovered, false));
        // The base is built again, from the correct time on.
        refused(RevocationTarget::Fingerprint(late.fingerprint)).await;
        compact_base(&service, &Actor::System).await.unwrap();
        issued().await.unwrap();
    }
}

for_each_backend! {
    async fn clock_repair_restores_early_expired_api_keys(env: TestEnv) {
        let (service, clock) = manual(&env).await;
        let owner = Subject { operator: env.operator.parse().unwrap(), user: None };
        let ends_at = clock.now().seconds().get() + 3600;
        let create = async || {
            let order = CreateApiKey {
                owner: owner.clone(),
                username: None,
                prefix: Prefix::default(),
                name: None,
                metadata: None,
                expires_at: Some(UnixSeconds::new(ends_at)),
            };
            create_api_key(&service, &Actor::Admin, order).await.unwrap().key
        };
        let (good, disabled, leaked) = (create().await, create().await, create().await);
        let everything = &AccessScope::Everything;
        disable_api_key(&service, &Actor::Admin, everything, disabled.id).await.unwrap();
        let target = RevocationTarget::Fingerprint(leaked.fingerprint);
        // Callers cannot use a reserved reason; otherwise the repair could undo their revocation.
        for reserved in ["expired", "disabled", "rotated"] {
            let error = revoke(&service, &Actor::Admin, everything, target.clone(), Some(reserved)).await.unwrap_err();
            assert!(error.to_string().contains("reserved"), "{error}");
        }
        revoke(&service, &Actor::Admin, everything, target, Some("leaked")).await.unwrap();

        let right = clock.now();
        clock.set(right.plus(DAY));
        assert_eq!(expire_api_keys(&service).await.unwrap(), 3);
        clock.set(right.plus(Duration::from_secs(60)));
        let done = repair_clock(&service, &Actor::Admin, true).await.unwrap();
        assert_eq!(done.unexpired, [good.id]);
        let status = async |key: &ApiKey| {
            let mut press = OnDemandPublisher::start(&service).await.unwrap();
            let snapshot = press.publish().await.unwrap().latest().snapshot.clone();
            snapshot.revocation_status(&key.fingerprint, &key.kid(), key.issued_at.get(), key.ends_at.map(UnixSeconds::get))
        };
        assert_ne!(status(&good).await, RevocationStatus::Revoked);
        assert_eq!(status(&disabled).await, RevocationStatus::Revoked);
        assert_eq!(status(&leaked).await, RevocationStatus::Revoked);
        enable_api_key(&service, &Actor::Admin, everything, disabled.id).await.unwrap();
        assert_ne!(status(&disabled).await, RevocationStatus::Revoked);
        assert!(enable_api_key(&service, &Actor::Admin, everything, leaked.id).await.is_err());

        clock.set(right.plus(Duration::from_secs(3601)));
        assert_eq!(expire_api_keys(&service).await.unwrap(), 2);
        assert_eq!(status(&good).await, RevocationStatus::Revoked);
    }
}

/// An edge refuses a manifest that was signed ahead of its own clock.
#[tokio::test]
async fn revocation_up_to_now_is_rejected_if_edge_clocks_disagree() {
    let env = TestEnv::on_sqlite().await;
    env.enroll_edge("e1");
    let (service, clock) = manual(&env).await;
    let store = env.store().await;
    let seen = async |at: u64, signed: u64| {
        let mut write = store.upkeep().await.unwrap();
        let report = EdgeReport { version: Version::new(1), issued_at: Some(signed * 1000), workers: None };
        edges::record_report(write.db(), &"e1".parse().unwrap(), UnixSeconds::new(at), &report)
            .await
            .unwrap();
        write.commit().await.unwrap();
    };
    let now = clock.now().seconds().get();
    assert!(matches!(check_clock(&service).await, Ok(ClockConfirmation::NoOtherClock)));
    seen(now, now - 20).await;
    assert!(matches!(check_clock(&service).await, Ok(ClockConfirmation::Confirmed)));
    // A server that was off for a week has no report of an edge yet.
    clock.set(clock.now().plus(7 * DAY));
    let later = clock.now().seconds().get();
    assert!(matches!(check_clock(&service).await, Ok(ClockConfirmation::NoOtherClock)));
    assert!(matches!(repair_clock(&service, &Actor::Admin, false).await, Err(ClockError::Unconfirmed)));
    // The edge polls, and keeps its bundle.
    seen(later, now - 20).await;
    let message = check_clock(&service).await.unwrap_err();
    assert_eq!(message.code(), "clock_ahead");
    // The edge accepts the current manifest.
    seen(later + 1, later).await;
    assert!(matches!(check_clock(&service).await, Ok(ClockConfirmation::Confirmed)));

    // The command behaves the same. Its clock is the system clock.
    let now = clock::now().seconds().get();
    seen(now, now - 3600).await;
    let stderr = env.stderr_of_failure(&["revoke", "--everything", "--yes"]);
    assert!(stderr.contains("ahead of") && stderr.contains("--force"), "{stderr}");
    let user = format!("{}/alice", env.operator);
    env.json(&["user", "create", &user]);
    let stderr = env.stderr_of_failure(&["user", "delete", &user, "--yes"]);
    assert!(stderr.contains("ahead of") && stderr.contains("--force"), "{stderr}");
    env.json(&["user", "delete", &user, "--yes", "--force"]);
    env.json(&["revoke", "--fingerprint", &"ab".repeat(32)]);
    env.json(&["revoke", "--everything", "--yes", "--force"]);
}

async fn manual(env: &TestEnv) -> (Service, Clock) {
    let clock = Clock::manual(clock::now());
    let store = config::Store { url: env.url.clone() };
    let config = Config { store, ..Config::default() };
    (Service::open_at(DataDir::new(env.data()), config, clock.clone()).await.unwrap(), clock)
}

const DAY: Duration = Duration::from_secs(86_400);
