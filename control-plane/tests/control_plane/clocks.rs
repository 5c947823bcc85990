//! The effects of a clock that was ahead are detected, delay no caller, and can be repaired.

use std::time::{Duration, Instant};

use bundle::{RevocationStatus, Scope};
use control_plane::{
    clock::{self, Clock},
    config::{self, Config},
    home::Home,
    model::{Actor, ApiKey, EdgeReport, OperatorId, Subject},
    operations::{
        ApiKeyOrder, Authority, Bearer, ClockError, Confirmed, Lifetime, Service, Target, check_clock,
        create_api_key, disable_api_key, enable_api_key, expire_api_keys, instants_ahead, issue, rebase,
        repair_clock, revoke,
    },
    publisher::OnDemand,
    store::edges,
};
use token::api_key::Prefix;

use crate::{on_both, world::World};

on_both! {
    async fn what_a_clock_that_was_ahead_refuses_is_taken_back(world: World) {
        let (service, clock) = manual(&world).await;
        let operator: OperatorId = world.operator.parse().unwrap();
        let alice = Subject { operator: operator.clone(), user: Some("alice".parse().unwrap()) };
        let day = Lifetime::try_from(86_400).unwrap();
        let issued = async || issue(&service, Bearer::Subject(alice.clone()), day).await;
        let refused = async |target| {
            revoke(&service, &Actor::Admin, &Authority::Everything, target, None).await.unwrap()
        };
        let mut press = OnDemand::start(&service).await.unwrap();
        let early = issued().await.unwrap();

        let right = clock.now();
        clock.advance(Duration::from_secs(10));
        clock.set(right.plus(DAY));
        let ahead = issued().await.unwrap();
        clock.advance(Duration::from_secs(5));
        let other = issued().await.unwrap();
        clock.advance(Duration::from_secs(5));
        refused(Target::Fingerprint(other.fingerprint)).await;
        assert_eq!(rebase(&service, &Actor::System).await.unwrap().blocks.len(), 1);
        refused(Target::Subject { subject: alice.clone(), instant: None }).await;
        refused(Target::Everything).await;
        press.publish().await.unwrap();

        // When the clock is correct again, callers do not wait.
        clock.set(right.plus(Duration::from_secs(60)));
        press.publish().await.unwrap();
        let began = Instant::now();
        let told = issued().await.unwrap_err().to_string();
        assert!(told.contains("the watermark of") && told.contains("keystile clock repair"), "{told}");
        let order = ApiKeyOrder {
            owner: alice.clone(),
            username: None,
            prefix: Prefix::default(),
            name: None,
            metadata: None,
            expires_at: None,
        };
        let told = create_api_key(&service, &Actor::Admin, order).await.unwrap_err().to_string();
        assert!(told.contains("keystile clock repair"), "{told}");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert!(instants_ahead(&service).await.unwrap().len() >= 3);

        let done = repair_clock(&service, &Actor::Admin, true).await.unwrap();
        assert_eq!((done.watermarks.len(), done.covered.len()), (2, 1), "{done:?}");
        assert_eq!(instants_ahead(&service).await.unwrap(), []);
        let late = issued().await.unwrap();
        let snapshot = &press.publish().await.unwrap().latest().snapshot;
        let kid = service.keys().current().signer().kid().to_owned();
        let now = clock.now().seconds();
        let standing = |one: &control_plane::operations::Issued, at| {
            let covered = snapshot.watermark([Scope::Global]).is_some_and(|instant| at <= instant);
            (snapshot.revocation_status(&one.fingerprint, &kid, at, one.expires_at), covered)
        };
        let ahead_at = right.plus(DAY).seconds();
        assert!(standing(&early, right.seconds()).1, "credentials issued until now stay refused");
        assert_eq!(standing(&ahead, ahead_at), (RevocationStatus::Revoked, false), "and those dated later");
        assert_eq!(standing(&other, ahead_at + 5), (RevocationStatus::Revoked, false), "which the base contained before");
        assert_eq!(standing(&late, now + 1), (RevocationStatus::NotCovered, false));
        // The base is built again, from the correct time on.
        refused(Target::Fingerprint(late.fingerprint)).await;
        rebase(&service, &Actor::System).await.unwrap();
        issued().await.unwrap();
    }
}

on_both! {
    async fn repair_clock_takes_back_that_api_keys_expired(world: World) {
        let (service, clock) = manual(&world).await;
        let owner = Subject { operator: world.operator.parse().unwrap(), user: None };
        let ends_at = clock.now().seconds() + 3600;
        let create = async || {
            let order = ApiKeyOrder {
                owner: owner.clone(),
                username: None,
                prefix: Prefix::default(),
                name: None,
                metadata: None,
                expires_at: Some(ends_at),
            };
            create_api_key(&service, &Actor::Admin, order).await.unwrap().key
        };
        let (good, disabled, leaked) = (create().await, create().await, create().await);
        let everything = &Authority::Everything;
        disable_api_key(&service, &Actor::Admin, everything, disabled.id).await.unwrap();
        let target = Target::Fingerprint(leaked.fingerprint);
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
        let standing = async |key: &ApiKey| {
            let mut press = OnDemand::start(&service).await.unwrap();
            let snapshot = press.publish().await.unwrap().latest().snapshot.clone();
            snapshot.revocation_status(&key.fingerprint, &key.kid(), key.issued_at, key.ends_at)
        };
        assert_ne!(standing(&good).await, RevocationStatus::Revoked);
        assert_eq!(standing(&disabled).await, RevocationStatus::Revoked);
        assert_eq!(standing(&leaked).await, RevocationStatus::Revoked);
        enable_api_key(&service, &Actor::Admin, everything, disabled.id).await.unwrap();
        assert_ne!(standing(&disabled).await, RevocationStatus::Revoked);
        assert!(enable_api_key(&service, &Actor::Admin, everything, leaked.id).await.is_err());

        clock.set(right.plus(Duration::from_secs(3601)));
        assert_eq!(expire_api_keys(&service).await.unwrap(), 2);
        assert_eq!(standing(&good).await, RevocationStatus::Revoked);
    }
}

/// An edge refuses a manifest that was signed ahead of its own clock.
#[tokio::test]
async fn a_clock_that_edges_disagree_with_revokes_nothing_up_to_now() {
    let world = World::on_sqlite().await;
    world.edge("e1");
    let (service, clock) = manual(&world).await;
    let store = world.store().await;
    let seen = async |at: u64, signed: u64| {
        let mut write = store.write().await.unwrap();
        let report = EdgeReport { version: 1, issued_at: Some(signed * 1000), workers: None };
        edges::seen(&mut write, &"e1".parse().unwrap(), at, &report).await.unwrap();
        write.commit().await.unwrap();
    };
    let now = clock.now().seconds();
    assert!(matches!(check_clock(&service).await, Ok(Confirmed::Nobody)));
    seen(now, now - 20).await;
    assert!(matches!(check_clock(&service).await, Ok(Confirmed::Yes)));
    // A server that was off for a week has no report of an edge yet.
    clock.set(clock.now().plus(7 * DAY));
    let later = clock.now().seconds();
    assert!(matches!(check_clock(&service).await, Ok(Confirmed::Nobody)));
    assert!(matches!(repair_clock(&service, &Actor::Admin, false).await, Err(ClockError::Unconfirmed)));
    // The edge polls, and keeps its bundle.
    seen(later, now - 20).await;
    let told = check_clock(&service).await.unwrap_err();
    assert_eq!(told.code(), "clock_ahead");
    // The edge accepts the current manifest.
    seen(later + 1, later).await;
    assert!(matches!(check_clock(&service).await, Ok(Confirmed::Yes)));

    // The command behaves the same. Its clock is the system clock.
    let now = clock::now().seconds();
    seen(now, now - 3600).await;
    let complaint = world.complaint(&["revoke", "--everything", "--yes"]);
    assert!(complaint.contains("ahead of") && complaint.contains("--force"), "{complaint}");
    let user = format!("{}/alice", world.operator);
    world.json(&["user", "create", &user]);
    let complaint = world.complaint(&["user", "delete", &user, "--yes"]);
    assert!(complaint.contains("ahead of") && complaint.contains("--force"), "{complaint}");
    world.json(&["user", "delete", &user, "--yes", "--force"]);
    world.json(&["revoke", "--fingerprint", &"ab".repeat(32)]);
    world.json(&["revoke", "--everything", "--yes", "--force"]);
}

async fn manual(world: &World) -> (Service, Clock) {
    let clock = Clock::manual(clock::now());
    let store = config::Store { url: world.url.clone() };
    let config = Config { store, ..Config::default() };
    (Service::open_at(Home::new(world.data()), config, clock.clone()).await.unwrap(), clock)
}

const DAY: Duration = Duration::from_secs(86_400);
