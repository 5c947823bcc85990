//! The guarantees of the store for operations, on both databases.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use control_plane::{
    accounts::{operators, users},
    audit,
    credentials::{
        auth_keys::{self, create_auth_key},
        coverage,
        issued::{self, IssueOutcome},
    },
    db::{Executor, NEVER_EXPIRES, Store, Unobserved, versions},
    domain::{
        Actor, Event, IssuedCredential, OperatorId, Revocation, RevocationChange, Subject, Version,
        Watermark, WatermarkScope,
    },
    domain::{UnixMillis, UnixSeconds},
    platform::clock,
    publishing::{CompactBaseError, blocks, compact_base},
    revocation::{revocations, watermarks},
};
use token::Fingerprint;
use tokio::time::timeout;

use crate::{for_each_backend, test_env::TestEnv};

for_each_backend! {
    async fn issued_prefixes_are_unique(env: TestEnv) {
        let store = env.store().await;
        let mut write = store.upkeep().await.unwrap();
        let (first, second, third) = (fingerprint(1, 1), fingerprint(1, 2), fingerprint(u64::MAX, 3));
        assert_eq!(issued::insert(write.db(), &issuance(first)).await.unwrap(), IssueOutcome::Inserted);
        assert_eq!(issued::insert(write.db(), &issuance(first)).await.unwrap(), IssueOutcome::PrefixTaken);
        assert_eq!(issued::insert(write.db(), &issuance(second)).await.unwrap(), IssueOutcome::PrefixTaken);
        let taken = revocations::insert(write.db(), &revocation(second), v(2)).await.unwrap();
        assert_eq!(taken, revocations::RevokeOutcome::PrefixTaken);
        let new = revocations::insert(write.db(), &revocation(third), v(2)).await.unwrap();
        assert_eq!(new, revocations::RevokeOutcome::Revoked);
        let again = revocations::insert(write.db(), &revocation(third), v(3)).await.unwrap();
        assert_eq!(again, revocations::RevokeOutcome::AlreadyRevoked);
        assert_eq!(issued::insert(write.db(), &issuance(third)).await.unwrap(), IssueOutcome::PrefixTaken);
        write.commit().await.unwrap();
        let mut reader = store.reader().await.unwrap();
        assert_eq!(issued::find(&mut reader, &first).await.unwrap(), Some(issuance(first)));
        assert_eq!(issued::find(&mut reader, &second).await.unwrap(), None);
        assert_eq!(revocations::find(&mut reader, &third).await.unwrap(), Some(revocation(third)));
    }

    /// A fingerprint has one row, with its last operation.
    async fn latest_change_of_fingerprint_wins(env: TestEnv) {
        let store = env.store().await;
        let one = fingerprint(1, 1);
        let restored = RevocationChange::Restored { fingerprint: one, expires_at: UnixSeconds::new(2) };
        let revoked = RevocationChange::Revoked(revocation(one));
        let mut write = store.upkeep().await.unwrap();
        assert!(!revocations::unrevoke(write.db(), &one, UnixSeconds::new(5), v(1)).await.unwrap());
        for round in 0..3 {
            let version = 10 * round;
            let done = revocations::insert(write.db(), &revocation(one), v(version + 2)).await.unwrap();
            assert_eq!(done, revocations::RevokeOutcome::Revoked);
            assert_eq!(changes_since(write.db(), v(version + 1)).await, [(v(version + 2), revoked.clone())]);
            assert!(revocations::unrevoke(write.db(), &one, UnixSeconds::new(5), v(version + 3)).await.unwrap());
            assert!(!revocations::unrevoke(write.db(), &one, UnixSeconds::new(5), v(version + 4)).await.unwrap());
            assert_eq!(revocations::find(write.db(), &one).await.unwrap(), None);
            assert_eq!(changes_since(write.db(), Version::ZERO).await, [(v(version + 3), restored.clone())]);
            assert_eq!(versions::current(write.db()).await.unwrap().checkpoint, v(version + 3));
            assert_eq!(changes_since(write.db(), v(version + 3)).await, []);
        }
        // The prefix stays reserved after an un-revocation.
        let same = revocations::insert(write.db(), &revocation(fingerprint(1, 2)), v(40)).await.unwrap();
        assert_eq!(same, revocations::RevokeOutcome::PrefixTaken);
        assert_eq!(issued::insert(write.db(), &issuance(fingerprint(1, 2))).await.unwrap(), IssueOutcome::PrefixTaken);
    }

    /// Lists read what they need of all their rows at once.
    async fn revocations_are_found_and_counted_for_many(env: TestEnv) {
        let store = env.store().await;
        let mut write = store.upkeep().await.unwrap();
        let all: Vec<Fingerprint> = (0..1000).map(|number| fingerprint(number, 0)).collect();
        assert_eq!(revocations::find_revoked(write.db(), &[]).await.unwrap().len(), 0);
        for (number, version) in [(1, 10), (2, 20), (999, 30)] {
            revocations::insert(write.db(), &revocation(fingerprint(number, 0)), v(version)).await.unwrap();
        }
        revocations::unrevoke(write.db(), &fingerprint(2, 0), UnixSeconds::new(5), v(25)).await.unwrap();
        let global = Watermark { scope: WatermarkScope::Global, instant: UnixSeconds::new(1), ends_at: NEVER_EXPIRES };
        watermarks::raise(write.db(), &global, v(28)).await.unwrap();
        let revoked = revocations::find_revoked(write.db(), &all).await.unwrap();
        assert_eq!(revoked, [1, 999].map(|number| fingerprint(number, 0)).into());
        // Another fingerprint with the same prefix.
        assert!(!revocations::find_revoked(write.db(), &[fingerprint(1, 7)]).await.unwrap().contains(&fingerprint(1, 7)));
        let versions = BTreeSet::from([0, 10, 25, 28, 30].map(v));
        let newer = revocations::count_changes_since(write.db(), &versions).await.unwrap();
        assert_eq!(newer, [(0, 4), (10, 3), (25, 2), (28, 1), (30, 0)].map(|(version, count)| (v(version), count)).into());
        assert!(revocations::count_changes_since(write.db(), &BTreeSet::new()).await.unwrap().is_empty());
    }

    async fn uncommitted_changes_are_rolled_back(env: TestEnv) {
        let store = env.store().await;
        let before = versions::current(&mut store.reader().await.unwrap()).await.unwrap();
        let mut write = store.upkeep().await.unwrap();
        write.allocate_version(clock::now()).await.unwrap();
        issued::insert(write.db(), &issuance(fingerprint(1, 1))).await.unwrap();
        drop(write);
        let mut reader = store.reader().await.unwrap();
        assert_eq!(versions::current(&mut reader).await.unwrap(), before);
        assert_eq!(issued::find(&mut reader, &fingerprint(1, 1)).await.unwrap(), None);
    }

    /// A reader that sees a version sees all changes up to it, so that reading from there misses nothing.
    async fn versions_are_ordered_by_commit(env: TestEnv) {
        let store = env.store().await;
        let start = versions::current(&mut store.reader().await.unwrap()).await.unwrap().number;
        let writers = (0..8_u64).map(|writer| {
            let (url, data) = (env.url.clone(), env.data());
            tokio::spawn(async move {
                let store = Store::open(&url, &data).await.unwrap();
                for number in 0..5 {
                    let mut write = store.upkeep().await.unwrap();
                    let version = write.allocate_version(clock::now()).await.unwrap();
                    let one = revocation(fingerprint(writer * 100 + number, version.get()));
                    let one = Revocation { revoked_at: UnixSeconds::new(version.get()), ..one };
                    revocations::insert(write.db(), &one, version).await.unwrap();
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
            for (_, change) in changes_since(&mut read, version).await {
                let RevocationChange::Revoked(Revocation { revoked_at: version, .. }) = change else {
                    panic!("there was no un-revocation")
                };
                assert!(seen.last().is_none_or(|last| *last < version), "{version} is late or duplicate");
                seen.insert(version);
            }
            assert_eq!(seen.last().map_or(start, |last: &UnixSeconds| v(last.get())), now, "the change of version {now} is missing");
            version = now;
            assert!(began.elapsed() < Duration::from_secs(60), "only {} came", seen.len());
        }
        for writer in writers {
            writer.await.unwrap();
        }
    }

    /// A version is greater than the last one, even if the clock goes back, and at least the time.
    async fn versions_follow_the_clock_and_never_decrease(env: TestEnv) {
        let store = env.store().await;
        let start = versions::current(&mut store.reader().await.unwrap()).await.unwrap().number.get();
        for (millis, expected) in [
            (start + 1000, start + 1000),
            (start + 1000, start + 1001),
            (start - 1000, start + 1002),
            (start + 1003, start + 1003),
            (start + 5000, start + 5000),
        ] {
            let mut write = store.upkeep().await.unwrap();
            assert_eq!(write.allocate_version(UnixMillis::from_millis(millis)).await.unwrap(), v(expected));
            write.commit().await.unwrap();
        }
    }

    async fn read_transaction_sees_one_snapshot(env: TestEnv) {
        let store = env.store().await;
        let mut read = store.read().await.unwrap();
        let before = versions::current(&mut read).await.unwrap();
        let mut write = store.upkeep().await.unwrap();
        write.allocate_version(clock::now()).await.unwrap();
        write.commit().await.unwrap();
        assert_eq!(versions::current(&mut read).await.unwrap(), before);
        drop(read);
        assert!(versions::current(&mut store.read().await.unwrap()).await.unwrap().number > before.number);
    }

    async fn watermark_only_rises(env: TestEnv) {
        let store = env.store().await;
        let subject: Subject = "OP0000000001/alice".parse().unwrap();
        let mut write = store.upkeep().await.unwrap();
        for (instant, version, raised) in [(10, 5, true), (10, 6, false), (9, 7, false), (11, 8, true)] {
            let watermark = Watermark { scope: subject.clone().into(), instant: UnixSeconds::new(instant), ends_at: NEVER_EXPIRES };
            assert_eq!(watermarks::raise(write.db(), &watermark, v(version)).await.unwrap(), raised);
        }
        let held = Watermark { scope: subject.clone().into(), instant: UnixSeconds::new(11), ends_at: NEVER_EXPIRES };
        assert_eq!(watermarks::since(write.db(), v(7)).await.unwrap(), [(v(8), held)]);
        assert_eq!(watermarks::since(write.db(), v(8)).await.unwrap(), []);
        assert_eq!(watermarks::highest_applicable(write.db(), "k", &subject, None, None).await.unwrap(), Some(UnixSeconds::new(11)));
        let other: Subject = "OP0000000001".parse().unwrap();
        assert_eq!(watermarks::highest_applicable(write.db(), "k", &other, None, None).await.unwrap(), None);
        let global = Watermark { scope: WatermarkScope::Global, instant: UnixSeconds::new(12), ends_at: NEVER_EXPIRES };
        watermarks::raise(write.db(), &global, v(9)).await.unwrap();
        assert_eq!(watermarks::highest_applicable(write.db(), "k", &other, None, None).await.unwrap(), Some(UnixSeconds::new(12)));
    }

    async fn latest_issue_in_scope_is_found(env: TestEnv) {
        let store = env.store().await;
        let mut write = store.upkeep().await.unwrap();
        for (number, subject, issued_at) in [(1, "OP0000000001", 100), (2, "OP0000000001/alice", 101), (3, "OP0000000002", 102)] {
            let subject = subject.parse().unwrap();
            let one = IssuedCredential { subject, issued_at: UnixSeconds::new(issued_at), ..issuance(fingerprint(number, 0)) };
            issued::insert(write.db(), &one).await.unwrap();
        }
        let operator: OperatorId = "OP0000000001".parse().unwrap();
        let scope = WatermarkScope::Operator(operator.clone());
        assert_eq!(issued::latest_issue(write.db(), &scope, UnixSeconds::new(99), UnixSeconds::new(u64::MAX)).await.unwrap(), Some(UnixSeconds::new(101)));
        assert_eq!(issued::latest_issue(write.db(), &scope, UnixSeconds::new(101), UnixSeconds::new(u64::MAX)).await.unwrap(), None);
        let scope = WatermarkScope::User(operator, "alice".parse().unwrap());
        assert_eq!(issued::latest_issue(write.db(), &scope, UnixSeconds::new(99), UnixSeconds::new(u64::MAX)).await.unwrap(), Some(UnixSeconds::new(101)));
        assert_eq!(issued::latest_issue(write.db(), &WatermarkScope::Global, UnixSeconds::new(99), UnixSeconds::new(u64::MAX)).await.unwrap(), Some(UnixSeconds::new(102)));
        let scope = WatermarkScope::SigningKey("other".to_owned());
        assert_eq!(issued::latest_issue(write.db(), &scope, UnixSeconds::new(99), UnixSeconds::new(u64::MAX)).await.unwrap(), None);
    }

    async fn commits_of_other_processes_are_noticed(env: TestEnv) {
        let mut changes = env.store().await.listen_for_commits().await.unwrap();
        // The first call always returns, for the changes before it.
        timeout(Duration::from_secs(10), changes.next()).await.expect("the changes before").unwrap();
        let other = env.store().await;
        let mut write = other.upkeep().await.unwrap();
        write.allocate_version(clock::now()).await.unwrap();
        write.commit().await.unwrap();
        timeout(Duration::from_millis(500), changes.next()).await.expect("in time").unwrap();
    }

    async fn the_audit_log_has_no_gaps(env: TestEnv) {
        let store = env.store().await;
        for round in 0..3 {
            let mut draft = store.draft(&Actor::System, clock::now, &Unobserved).await.unwrap();
            let event = |issuer: &str| Event::IssuerAdded { issuer: format!("{issuer}{round}") };
            draft.record(event("a"));
            draft.record(event("b"));
            if round != 1 {
                draft.commit_recorded().await.unwrap();
            }
        }
        let lines = audit::list_newest(&mut store.reader().await.unwrap(), 10).await.unwrap();
        let numbers: Vec<u64> = lines.iter().map(|line| line.seq).collect();
        assert_eq!(numbers, [5, 4, 3, 2, 1]);
        assert_eq!(lines[0].target, "b2");
    }

    async fn optional_columns_round_trip(env: TestEnv) {
        let store = env.store().await;
        let mut write = store.upkeep().await.unwrap();
        let key = auth_keys::list(write.db(), None).await.unwrap().remove(0);
        assert_eq!((key.subject.user.clone(), key.last_used_at), (None, None));
        let subject: Subject = format!("{}/alice", key.subject.operator).parse().unwrap();
        let user = subject.user.clone().unwrap();
        assert!(operators::insert_user(write.db(), &subject.operator, &user, UnixSeconds::new(1)).await.unwrap());
        assert!(!operators::insert_user(write.db(), &subject.operator, &user, UnixSeconds::new(1)).await.unwrap());
        let mut other = key.clone();
        other.id = "keyId-other".parse().unwrap();
        other.subject = subject.clone();
        auth_keys::insert(write.db(), &other).await.unwrap();
        for (at, kept) in [(7, 7), (6, 7), (8, 8)] {
            auth_keys::record_use(write.db(), &other.id, UnixSeconds::new(at)).await.unwrap();
            let found = auth_keys::find(write.db(), &other.id).await.unwrap().unwrap();
            assert_eq!((found.subject, found.last_used_at), (subject.clone(), Some(UnixSeconds::new(kept))));
        }
        assert!(auth_keys::delete(write.db(), &other.id).await.unwrap());
        assert!(!auth_keys::delete(write.db(), &other.id).await.unwrap());
    }

    async fn insert_fails_for_deleted_auth_key(env: TestEnv) {
        let store = env.store().await;
        let mut write = store.upkeep().await.unwrap();
        let held = auth_keys::list(write.db(), None).await.unwrap().pop().unwrap();
        let of = |number| IssuedCredential { auth_key: Some(held.id.clone()), ..issuance(fingerprint(number, 0)) };
        assert_eq!(issued::insert(write.db(), &of(1)).await.unwrap(), IssueOutcome::Inserted);
        assert_eq!(issued::insert(write.db(), &of(1)).await.unwrap(), IssueOutcome::PrefixTaken);
        assert!(auth_keys::delete(write.db(), &held.id).await.unwrap());
        assert_eq!(issued::insert(write.db(), &of(2)).await.unwrap(), IssueOutcome::AuthKeyGone);
        assert_eq!(issued::find(write.db(), &fingerprint(2, 0)).await.unwrap(), None);
    }

    /// A builder that was suspended until its lease expired can neither renew it nor install a base.
    async fn only_one_builder_gets_the_lease(env: TestEnv) {
        let store = env.store().await;
        let mut write = store.upkeep().await.unwrap();
        let at = |seconds| UnixMillis::from_seconds(UnixSeconds::new(seconds));
        assert!(versions::acquire_build_lease(write.db(), at(100), at(160)).await.unwrap());
        assert!(!versions::acquire_build_lease(write.db(), at(159), at(219)).await.unwrap());
        assert!(versions::renew_build_lease(write.db(), at(160), at(175)).await.unwrap());
        assert!(!versions::acquire_build_lease(write.db(), at(174), at(234)).await.unwrap());
        assert!(versions::acquire_build_lease(write.db(), at(175), at(235)).await.unwrap());
        assert!(!versions::renew_build_lease(write.db(), at(175), at(300)).await.unwrap());
        assert!(!versions::release_build_lease(write.db(), at(175)).await.unwrap());
        assert!(versions::release_build_lease(write.db(), at(235)).await.unwrap());
        assert!(versions::acquire_build_lease(write.db(), at(100), at(160)).await.unwrap());
    }

    async fn builder_that_lost_its_lease_installs_nothing(env: TestEnv) {
        let (service, store) = (env.service().await, env.store().await);
        let far = clock::now().plus(Duration::from_secs(300));
        for _ in 0..100 {
            env.json(&["revoke", "--token", &env.issue_root_token()]);
            let held = blocks::list(&mut store.reader().await.unwrap()).await.unwrap();
            let building = compact_base(&service, &Actor::System);
            let stealing = async {
                for _ in 0..1000 {
                    let mut write = store.upkeep().await.unwrap();
                    let now = clock::now();
                    // A lease that expires at once, while there is no other.
                    let stolen = !versions::acquire_build_lease(write.db(), now, now).await.unwrap()
                        && versions::acquire_build_lease(write.db(), far, far).await.unwrap();
                    write.commit().await.unwrap();
                    if stolen {
                        return;
                    }
                }
            };
            let (built, ()) = tokio::join!(building, stealing);
            if matches!(built, Err(CompactBaseError::LeaseLost)) {
                assert_eq!(blocks::list(&mut store.reader().await.unwrap()).await.unwrap(), held);
                assert!(matches!(compact_base(&service, &Actor::System).await, Err(CompactBaseError::AlreadyRunning)));
                return;
            }
            let mut write = store.upkeep().await.unwrap();
            versions::release_build_lease(write.db(), far).await.unwrap();
            write.commit().await.unwrap();
        }
        panic!("the lease was not taken over in time");
    }

    /// A watermark or base is committed between the choice of the time of issue and the insertion.
    async fn insert_fails_for_covered_time_of_issue(env: TestEnv) {
        let store = env.store().await;
        let mut write = store.upkeep().await.unwrap();
        assert_eq!(coverage::latest_issued_second(write.db(), UnixSeconds::new(50)).await.unwrap(), UnixSeconds::new(0));
        let of = |number, issued_at| IssuedCredential { issued_at, ..issuance(fingerprint(number, 0)) };
        let scopes = [
            WatermarkScope::Session("api-00000000-0000-4000-8000-000000000000".parse().unwrap()),
            "OP0000000001/alice".parse::<Subject>().unwrap().into(),
            "OP0000000001".parse::<Subject>().unwrap().into(),
            WatermarkScope::SigningKey("k".to_owned()),
            WatermarkScope::Global,
        ];
        for (number, scope) in (1..).zip(scopes) {
            let instant = number * 10;
            let watermark = Watermark { scope, instant: UnixSeconds::new(instant), ends_at: NEVER_EXPIRES };
            watermarks::raise(write.db(), &watermark, v(2)).await.unwrap();
            assert_eq!(issued::insert(write.db(), &of(number, UnixSeconds::new(instant))).await.unwrap(), IssueOutcome::Covered);
            assert_eq!(issued::insert(write.db(), &of(number, UnixSeconds::new(instant + 1))).await.unwrap(), IssueOutcome::Inserted);
        }
        coverage::raise_floor(write.db(), &["k".to_owned()], UnixSeconds::new(60)).await.unwrap();
        assert_eq!(issued::insert(write.db(), &of(6, UnixSeconds::new(60))).await.unwrap(), IssueOutcome::Covered);
        assert_eq!(issued::insert(write.db(), &of(6, UnixSeconds::new(61))).await.unwrap(), IssueOutcome::Inserted);
        // A clock that is ahead does not move the coverage beyond the issued credentials.
        assert_eq!(coverage::latest_issued_second(write.db(), UnixSeconds::new(1_000_000)).await.unwrap(), UnixSeconds::new(61));
        assert_eq!(coverage::latest_issued_second(write.db(), UnixSeconds::new(61)).await.unwrap(), UnixSeconds::new(60));
    }

    async fn expired_rows_are_purged(env: TestEnv) {
        let store = env.store().await;
        let mut write = store.upkeep().await.unwrap();
        for (number, expires_at) in [(1, 10), (2, 20), (3, 30)] {
            let fingerprint = fingerprint(number, 0);
            issued::insert(write.db(), &IssuedCredential { expires_at: UnixSeconds::new(expires_at), ..issuance(fingerprint) }).await.unwrap();
            revocations::insert(write.db(), &Revocation { expires_at: UnixSeconds::new(expires_at), ..revocation(fingerprint) }, v(2)).await.unwrap();
        }
        assert_eq!(issued::purge(write.db(), UnixSeconds::new(20)).await.unwrap(), 1);
        assert_eq!(revocations::purge(write.db(), UnixSeconds::new(21)).await.unwrap(), 2);
        assert_eq!(issued::find(write.db(), &fingerprint(1, 0)).await.unwrap(), None);
        assert!(issued::find(write.db(), &fingerprint(2, 0)).await.unwrap().is_some());
        assert!(revocations::find(write.db(), &fingerprint(3, 0)).await.unwrap().is_some());
    }
}

/// A key that is created during the deletion of its user waits for the commit, and then belongs to a new user. Otherwise the
/// key would outlive the deletion.
#[tokio::test]
async fn key_creation_waits_for_concurrent_user_deletion() {
    let env = TestEnv::on_postgres().await;
    let (service, store) = (env.service().await, env.store().await);
    let subject: Subject = format!("{}/alice", env.operator).parse().unwrap();
    let name = subject.user.clone().unwrap();
    create_auth_key(&service, &Actor::Admin, &subject).await.unwrap();
    let mut write = store.upkeep().await.unwrap();
    write.allocate_version(clock::now()).await.unwrap();
    auth_keys::delete_all(write.db(), &subject.operator, Some(&name)).await.unwrap();
    users::delete(write.db(), &subject.operator, Some(&name)).await.unwrap();
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

const fn v(number: u64) -> Version {
    Version::new(number)
}

async fn changes_since(executor: &mut impl Executor, version: Version) -> Vec<(Version, RevocationChange)> {
    let changes = revocations::since(executor, version).await.unwrap();
    changes.into_iter().map(|listed| (listed.version, listed.change)).collect()
}

fn fingerprint(prefix: u64, rest: u64) -> Fingerprint {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&prefix.to_be_bytes());
    bytes[24..].copy_from_slice(&rest.to_be_bytes());
    Fingerprint::from(bytes)
}

fn issuance(fingerprint: Fingerprint) -> IssuedCredential {
    IssuedCredential {
        fingerprint,
        kid: "k".to_owned(),
        subject: "OP0000000001/alice".parse().unwrap(),
        auth_key: None,
        session: Some("api-00000000-0000-4000-8000-000000000000".parse().unwrap()),
        issued_at: UnixSeconds::new(1),
        expires_at: UnixSeconds::new(2),
    }
}

fn revocation(fingerprint: Fingerprint) -> Revocation {
    Revocation { fingerprint, expires_at: UnixSeconds::new(2), reason: None, revoked_at: UnixSeconds::new(1) }
}
