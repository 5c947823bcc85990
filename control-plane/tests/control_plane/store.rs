//! The guarantees of the store for operations, on both databases.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use control_plane::{
    clock::{self, Time},
    model::{Actor, Issuance, OperatorId, Revocation, RevocationChange, Subject, Watermark, WatermarkScope},
    operations::{RebaseError, create_auth_key, rebase},
    store::{
        NEVER, Store, audit, auth_keys, blocks, coverage,
        issued::{self, Inserted},
        operators, revocations, users, versions, watermarks,
    },
};
use serde_json::json;
use token::Fingerprint;
use tokio::time::timeout;

use crate::{on_both, world::World};

on_both! {
    async fn no_two_credentials_share_a_prefix(world: World) {
        let store = world.store().await;
        let mut write = store.write().await.unwrap();
        let (first, second, third) = (fingerprint(1, 1), fingerprint(1, 2), fingerprint(u64::MAX, 3));
        assert_eq!(issued::insert(&mut write, &issuance(first)).await.unwrap(), Inserted::Yes);
        assert_eq!(issued::insert(&mut write, &issuance(first)).await.unwrap(), Inserted::PrefixTaken);
        assert_eq!(issued::insert(&mut write, &issuance(second)).await.unwrap(), Inserted::PrefixTaken);
        let taken = revocations::insert(&mut write, &revocation(second), 2).await.unwrap();
        assert_eq!(taken, revocations::Inserted::PrefixTaken);
        let new = revocations::insert(&mut write, &revocation(third), 2).await.unwrap();
        assert_eq!(new, revocations::Inserted::Yes);
        let again = revocations::insert(&mut write, &revocation(third), 3).await.unwrap();
        assert_eq!(again, revocations::Inserted::Before);
        assert_eq!(issued::insert(&mut write, &issuance(third)).await.unwrap(), Inserted::PrefixTaken);
        write.commit().await.unwrap();
        let mut reader = store.reader().await.unwrap();
        assert_eq!(issued::find(&mut reader, &first).await.unwrap(), Some(issuance(first)));
        assert_eq!(issued::find(&mut reader, &second).await.unwrap(), None);
        assert_eq!(revocations::find(&mut reader, &third).await.unwrap(), Some(revocation(third)));
    }

    /// A fingerprint has one row, with its last operation.
    async fn the_newest_operation_wins(world: World) {
        let store = world.store().await;
        let one = fingerprint(1, 1);
        let restored = RevocationChange::Restored { fingerprint: one, expires_at: 2 };
        let revoked = RevocationChange::Revoked(revocation(one));
        let mut write = store.write().await.unwrap();
        assert!(!revocations::restore(&mut write, &one, 5, 1).await.unwrap());
        for round in 0..3 {
            let version = 10 * round;
            let done = revocations::insert(&mut write, &revocation(one), version + 2).await.unwrap();
            assert_eq!(done, revocations::Inserted::Yes);
            assert_eq!(revocations::since(&mut write, version + 1).await.unwrap(), [(version + 2, revoked.clone())]);
            assert!(revocations::restore(&mut write, &one, 5, version + 3).await.unwrap());
            assert!(!revocations::restore(&mut write, &one, 5, version + 4).await.unwrap());
            assert_eq!(revocations::find(&mut write, &one).await.unwrap(), None);
            assert_eq!(revocations::since(&mut write, 0).await.unwrap(), [(version + 3, restored.clone())]);
            assert_eq!(versions::current(&mut write).await.unwrap().checkpoint, version + 3);
            assert_eq!(revocations::since(&mut write, version + 3).await.unwrap(), []);
        }
        // The prefix stays reserved after an un-revocation.
        let same = revocations::insert(&mut write, &revocation(fingerprint(1, 2)), 40).await.unwrap();
        assert_eq!(same, revocations::Inserted::PrefixTaken);
        assert_eq!(issued::insert(&mut write, &issuance(fingerprint(1, 2))).await.unwrap(), Inserted::PrefixTaken);
    }

    async fn what_is_not_committed_never_was(world: World) {
        let store = world.store().await;
        let before = versions::current(&mut store.reader().await.unwrap()).await.unwrap();
        let mut write = store.write().await.unwrap();
        versions::allocate(&mut write, clock::now()).await.unwrap();
        issued::insert(&mut write, &issuance(fingerprint(1, 1))).await.unwrap();
        drop(write);
        let mut reader = store.reader().await.unwrap();
        assert_eq!(versions::current(&mut reader).await.unwrap(), before);
        assert_eq!(issued::find(&mut reader, &fingerprint(1, 1)).await.unwrap(), None);
    }

    /// A reader that sees a version sees all changes up to it, so that reading from there misses nothing.
    async fn versions_are_ordered_by_commit(world: World) {
        let store = world.store().await;
        let start = versions::current(&mut store.reader().await.unwrap()).await.unwrap().number;
        let writers = (0..8_u64).map(|writer| {
            let (url, data) = (world.url.clone(), world.data());
            tokio::spawn(async move {
                let store = Store::open(&url, &data).await.unwrap();
                for number in 0..5 {
                    let mut write = store.write().await.unwrap();
                    let version = versions::allocate(&mut write, clock::now()).await.unwrap();
                    let one = revocation(fingerprint(writer * 100 + number, version));
                    let one = Revocation { revoked_at: version, ..one };
                    revocations::insert(&mut write, &one, version).await.unwrap();
                    write.commit().await.unwrap();
                }
                store.close().await;
            })
        });
        let writers: Vec<_> = writers.collect();
        let began = Instant::now();
        let (mut version, mut seen) = (start, BTreeSet::new());
        while seen.len() < 40 {
            let mut read = store.read().await.unwrap();
            let now = versions::current(&mut read).await.unwrap().number;
            for (_, change) in revocations::since(&mut read, version).await.unwrap() {
                let RevocationChange::Revoked(Revocation { revoked_at: version, .. }) = change else {
                    panic!("there was no un-revocation")
                };
                assert!(seen.last().is_none_or(|last| *last < version), "{version} is late or duplicate");
                seen.insert(version);
            }
            assert_eq!(seen.last().copied().unwrap_or(start), now, "the change of version {now} is missing");
            version = now;
            assert!(began.elapsed() < Duration::from_secs(60), "only {} came", seen.len());
        }
        for writer in writers {
            writer.await.unwrap();
        }
    }

    /// A version is greater than the last one, even if the clock goes back, and at least the time.
    async fn versions_follow_the_clock_but_never_back(world: World) {
        let store = world.store().await;
        let start = versions::current(&mut store.reader().await.unwrap()).await.unwrap().number;
        for (millis, expected) in [
            (start + 1000, start + 1000),
            (start + 1000, start + 1001),
            (start - 1000, start + 1002),
            (start + 1003, start + 1003),
            (start + 5000, start + 5000),
        ] {
            let mut write = store.write().await.unwrap();
            assert_eq!(versions::allocate(&mut write, Time::from_millis(millis)).await.unwrap(), expected);
            write.commit().await.unwrap();
        }
    }

    async fn a_snapshot_stands_still(world: World) {
        let store = world.store().await;
        let mut read = store.read().await.unwrap();
        let before = versions::current(&mut read).await.unwrap();
        let mut write = store.write().await.unwrap();
        versions::allocate(&mut write, clock::now()).await.unwrap();
        write.commit().await.unwrap();
        assert_eq!(versions::current(&mut read).await.unwrap(), before);
        drop(read);
        assert!(versions::current(&mut store.read().await.unwrap()).await.unwrap().number > before.number);
    }

    async fn a_watermark_only_ever_grows(world: World) {
        let store = world.store().await;
        let subject: Subject = "OP0000000001/alice".parse().unwrap();
        let mut write = store.write().await.unwrap();
        for (instant, version, raised) in [(10, 5, true), (10, 6, false), (9, 7, false), (11, 8, true)] {
            let watermark = Watermark { scope: subject.clone().into(), instant, ends_at: NEVER };
            assert_eq!(watermarks::raise(&mut write, &watermark, version).await.unwrap(), raised);
        }
        let held = Watermark { scope: subject.clone().into(), instant: 11, ends_at: NEVER };
        assert_eq!(watermarks::since(&mut write, 7).await.unwrap(), [(8, held)]);
        assert_eq!(watermarks::since(&mut write, 8).await.unwrap(), []);
        assert_eq!(watermarks::highest_applicable(&mut write, "k", &subject, None, None).await.unwrap(), Some(11));
        let other: Subject = "OP0000000001".parse().unwrap();
        assert_eq!(watermarks::highest_applicable(&mut write, "k", &other, None, None).await.unwrap(), None);
        let global = Watermark { scope: WatermarkScope::Global, instant: 12, ends_at: NEVER };
        watermarks::raise(&mut write, &global, 9).await.unwrap();
        assert_eq!(watermarks::highest_applicable(&mut write, "k", &other, None, None).await.unwrap(), Some(12));
    }

    async fn the_latest_issue_of_a_scope_is_found(world: World) {
        let store = world.store().await;
        let mut write = store.write().await.unwrap();
        for (number, subject, issued_at) in [(1, "OP0000000001", 100), (2, "OP0000000001/alice", 101), (3, "OP0000000002", 102)] {
            let subject = subject.parse().unwrap();
            let one = Issuance { subject, issued_at, ..issuance(fingerprint(number, 0)) };
            issued::insert(&mut write, &one).await.unwrap();
        }
        let operator: OperatorId = "OP0000000001".parse().unwrap();
        let scope = WatermarkScope::Operator(operator.clone());
        assert_eq!(issued::latest(&mut write, &scope, 99, u64::MAX).await.unwrap(), Some(101));
        assert_eq!(issued::latest(&mut write, &scope, 101, u64::MAX).await.unwrap(), None);
        let scope = WatermarkScope::User(operator, "alice".parse().unwrap());
        assert_eq!(issued::latest(&mut write, &scope, 99, u64::MAX).await.unwrap(), Some(101));
        assert_eq!(issued::latest(&mut write, &WatermarkScope::Global, 99, u64::MAX).await.unwrap(), Some(102));
        let scope = WatermarkScope::SigningKey("other".to_owned());
        assert_eq!(issued::latest(&mut write, &scope, 99, u64::MAX).await.unwrap(), None);
    }

    async fn another_process_is_heard_of_at_once(world: World) {
        let mut changes = world.store().await.changes().await.unwrap();
        // The first call always returns, for the changes before it.
        timeout(Duration::from_secs(10), changes.next()).await.expect("the changes before").unwrap();
        let other = world.store().await;
        let mut write = other.write().await.unwrap();
        versions::allocate(&mut write, clock::now()).await.unwrap();
        write.commit().await.unwrap();
        timeout(Duration::from_millis(500), changes.next()).await.expect("in time").unwrap();
    }

    async fn the_audit_log_has_no_gaps(world: World) {
        let store = world.store().await;
        for round in 0..3 {
            let mut write = store.write().await.unwrap();
            let change = |target| audit::Change {
                at: clock::now(),
                actor: &Actor::System,
                action: "test",
                target,
                detail: json!({ "round": round }),
            };
            audit::append_all(&mut write, &[change("a"), change("b")]).await.unwrap();
            if round != 1 {
                write.commit().await.unwrap();
            }
        }
        let lines = audit::newest(&mut store.reader().await.unwrap(), 10).await.unwrap();
        let numbers: Vec<u64> = lines.iter().map(|line| line.seq).collect();
        assert_eq!(numbers, [5, 4, 3, 2, 1]);
        assert_eq!((lines[0].target.as_str(), lines[0].detail["round"].as_u64()), ("b", Some(2)));
    }

    async fn optional_columns_are_kept(world: World) {
        let store = world.store().await;
        let mut write = store.write().await.unwrap();
        let key = auth_keys::list(&mut write, None).await.unwrap().remove(0);
        assert_eq!((key.subject.user.clone(), key.last_used_at), (None, None));
        let subject: Subject = format!("{}/alice", key.subject.operator).parse().unwrap();
        let user = subject.user.clone().unwrap();
        assert!(operators::insert_user(&mut write, &subject.operator, &user, 1).await.unwrap());
        assert!(!operators::insert_user(&mut write, &subject.operator, &user, 1).await.unwrap());
        let mut other = key.clone();
        other.id = "keyId-other".parse().unwrap();
        other.subject = subject.clone();
        auth_keys::insert(&mut write, &other).await.unwrap();
        for (at, kept) in [(7, 7), (6, 7), (8, 8)] {
            auth_keys::used(&mut write, &other.id, at).await.unwrap();
            let found = auth_keys::find(&mut write, &other.id).await.unwrap().unwrap();
            assert_eq!((found.subject, found.last_used_at), (subject.clone(), Some(kept)));
        }
        assert!(auth_keys::delete(&mut write, &other.id).await.unwrap());
        assert!(!auth_keys::delete(&mut write, &other.id).await.unwrap());
    }

    async fn nothing_is_issued_for_an_auth_key_that_is_gone(world: World) {
        let store = world.store().await;
        let mut write = store.write().await.unwrap();
        let held = auth_keys::list(&mut write, None).await.unwrap().pop().unwrap();
        let of = |number| Issuance { auth_key: Some(held.id.clone()), ..issuance(fingerprint(number, 0)) };
        assert_eq!(issued::insert(&mut write, &of(1)).await.unwrap(), Inserted::Yes);
        assert_eq!(issued::insert(&mut write, &of(1)).await.unwrap(), Inserted::PrefixTaken);
        assert!(auth_keys::delete(&mut write, &held.id).await.unwrap());
        assert_eq!(issued::insert(&mut write, &of(2)).await.unwrap(), Inserted::AuthKeyGone);
        assert_eq!(issued::find(&mut write, &fingerprint(2, 0)).await.unwrap(), None);
    }

    /// A builder that was suspended until its lease expired can neither renew it nor install a base.
    async fn of_several_builders_one_has_the_claim(world: World) {
        let store = world.store().await;
        let mut write = store.write().await.unwrap();
        let at = Time::from_seconds;
        assert!(versions::acquire_build_lease(&mut write, at(100), at(160)).await.unwrap());
        assert!(!versions::acquire_build_lease(&mut write, at(159), at(219)).await.unwrap());
        assert!(versions::renew_build_lease(&mut write, at(160), at(175)).await.unwrap());
        assert!(!versions::acquire_build_lease(&mut write, at(174), at(234)).await.unwrap());
        assert!(versions::acquire_build_lease(&mut write, at(175), at(235)).await.unwrap());
        assert!(!versions::renew_build_lease(&mut write, at(175), at(300)).await.unwrap());
        assert!(!versions::release_build_lease(&mut write, at(175)).await.unwrap());
        assert!(versions::release_build_lease(&mut write, at(235)).await.unwrap());
        assert!(versions::acquire_build_lease(&mut write, at(100), at(160)).await.unwrap());
    }

    async fn a_builder_that_lost_its_claim_installs_nothing(world: World) {
        let (service, store) = (world.service().await, world.store().await);
        let far = clock::now().plus(Duration::from_secs(300));
        for _ in 0..100 {
            world.json(&["revoke", "--token", &world.token()]);
            let held = blocks::list(&mut store.reader().await.unwrap()).await.unwrap();
            let building = rebase(&service, &Actor::System);
            let stealing = async {
                for _ in 0..1000 {
                    let mut write = store.write().await.unwrap();
                    let now = clock::now();
                    // A lease that expires at once, while there is no other.
                    let stolen = !versions::acquire_build_lease(&mut write, now, now).await.unwrap()
                        && versions::acquire_build_lease(&mut write, far, far).await.unwrap();
                    write.commit().await.unwrap();
                    if stolen {
                        return;
                    }
                }
            };
            let (built, ()) = tokio::join!(building, stealing);
            if matches!(built, Err(RebaseError::ClaimLost)) {
                assert_eq!(blocks::list(&mut store.reader().await.unwrap()).await.unwrap(), held);
                assert!(matches!(rebase(&service, &Actor::System).await, Err(RebaseError::UnderWay)));
                return;
            }
            let mut write = store.write().await.unwrap();
            versions::release_build_lease(&mut write, far).await.unwrap();
            write.commit().await.unwrap();
        }
        panic!("the lease was not taken over in time");
    }

    /// A watermark or base is committed between the choice of the time of issue and the insertion.
    async fn nothing_is_entered_that_is_refused_from_the_start(world: World) {
        let store = world.store().await;
        let mut write = store.write().await.unwrap();
        assert_eq!(coverage::latest_issued_second(&mut write, 50).await.unwrap(), 0);
        let of = |number, issued_at| Issuance { issued_at, ..issuance(fingerprint(number, 0)) };
        let scopes = [
            WatermarkScope::Session("api-00000000-0000-4000-8000-000000000000".parse().unwrap()),
            "OP0000000001/alice".parse::<Subject>().unwrap().into(),
            "OP0000000001".parse::<Subject>().unwrap().into(),
            WatermarkScope::SigningKey("k".to_owned()),
            WatermarkScope::Global,
        ];
        for (number, scope) in (1..).zip(scopes) {
            let instant = number * 10;
            let watermark = Watermark { scope, instant, ends_at: NEVER };
            watermarks::raise(&mut write, &watermark, 2).await.unwrap();
            assert_eq!(issued::insert(&mut write, &of(number, instant)).await.unwrap(), Inserted::Covered);
            assert_eq!(issued::insert(&mut write, &of(number, instant + 1)).await.unwrap(), Inserted::Yes);
        }
        coverage::raise_floor(&mut write, &["k".to_owned()], 60).await.unwrap();
        assert_eq!(issued::insert(&mut write, &of(6, 60)).await.unwrap(), Inserted::Covered);
        assert_eq!(issued::insert(&mut write, &of(6, 61)).await.unwrap(), Inserted::Yes);
        // A clock that is ahead does not move the coverage beyond the issued credentials.
        assert_eq!(coverage::latest_issued_second(&mut write, 1_000_000).await.unwrap(), 61);
        assert_eq!(coverage::latest_issued_second(&mut write, 61).await.unwrap(), 60);
    }

    async fn what_has_expired_is_collected(world: World) {
        let store = world.store().await;
        let mut write = store.write().await.unwrap();
        for (number, expires_at) in [(1, 10), (2, 20), (3, 30)] {
            let fingerprint = fingerprint(number, 0);
            issued::insert(&mut write, &Issuance { expires_at, ..issuance(fingerprint) }).await.unwrap();
            revocations::insert(&mut write, &Revocation { expires_at, ..revocation(fingerprint) }, 2).await.unwrap();
        }
        assert_eq!(issued::collect(&mut write, 20).await.unwrap(), 1);
        assert_eq!(revocations::collect(&mut write, 21).await.unwrap(), 2);
        assert_eq!(issued::find(&mut write, &fingerprint(1, 0)).await.unwrap(), None);
        assert!(issued::find(&mut write, &fingerprint(2, 0)).await.unwrap().is_some());
        assert!(revocations::find(&mut write, &fingerprint(3, 0)).await.unwrap().is_some());
    }
}

/// A key that is created during the deletion of its user waits for the commit, and then belongs to a new user. Otherwise the
/// key would outlive the deletion.
#[tokio::test]
async fn a_key_that_is_made_while_its_owner_goes_waits_for_that() {
    let world = World::on_postgres().await;
    let (service, store) = (world.service().await, world.store().await);
    let subject: Subject = format!("{}/alice", world.operator).parse().unwrap();
    let name = subject.user.clone().unwrap();
    create_auth_key(&service, &Actor::Admin, &subject).await.unwrap();
    let mut write = store.write().await.unwrap();
    versions::allocate(&mut write, clock::now()).await.unwrap();
    auth_keys::delete_all(&mut write, &subject.operator, Some(&name)).await.unwrap();
    users::delete(&mut write, &subject.operator, Some(&name)).await.unwrap();
    let going = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        write.commit().await.unwrap();
    };
    let (made, ()) = tokio::join!(create_auth_key(&service, &Actor::Admin, &subject), going);
    made.unwrap();
    // The key belongs to a new user `alice`.
    let mut reader = store.reader().await.unwrap();
    assert!(operators::user_exists(&mut reader, &subject.operator, &name).await.unwrap());
}

fn fingerprint(prefix: u64, rest: u64) -> Fingerprint {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&prefix.to_be_bytes());
    bytes[24..].copy_from_slice(&rest.to_be_bytes());
    Fingerprint::from(bytes)
}

fn issuance(fingerprint: Fingerprint) -> Issuance {
    Issuance {
        fingerprint,
        kid: "k".to_owned(),
        subject: "OP0000000001/alice".parse().unwrap(),
        auth_key: None,
        session: Some("api-00000000-0000-4000-8000-000000000000".parse().unwrap()),
        issued_at: 1,
        expires_at: 2,
    }
}

fn revocation(fingerprint: Fingerprint) -> Revocation {
    Revocation { fingerprint, expires_at: 2, reason: None, revoked_at: 1 }
}
