//! Edges agree with a set of fingerprints after random sequences of operations: issue, revoke, un-revoke, watermark,
//! expiry, compaction, restart, and edges that change between two publishers.

use std::{collections::BTreeMap, fs, time::Duration};

use bundle::{Manifest, Objects, PublicKey, RevocationStatus, Scope, Snapshot};
use control_plane::{
    accounts::operators,
    config::{self, Config},
    credentials::issued,
    db::{Store, versions},
    domain::UnixSeconds,
    domain::{Actor, IssuedCredential, OperatorId, Subject, UserName},
    maintenance::purge_expired,
    platform::{
        clock::{self, Clock},
        data_dir::DataDir,
        telemetry::Metrics,
    },
    publishing::{self, Publications, compact_base},
    revocation::{AccessScope, RevocationOutcome, RevocationTarget, revoke, unrevoke},
    service::Service,
};
use token::Fingerprint;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{for_each_backend, test_env::TestEnv};

for_each_backend! {
    async fn model_edges_agree_with_plain_set(env: TestEnv) {
        let clock = Clock::manual(clock::now());
        for seed in [1, 2] {
            let mut model = Model::new(&env, seed, &clock).await;
            for step in 0..STEPS {
                let what = model.step().await;
                model.compare(&format!("seed {seed}, step {step}: {what}")).await;
            }
            let Model { blocks, covered, taken_back, .. } = model;
            assert!(blocks > 5 && covered > 1000 && taken_back > 5, "{blocks} {covered} {taken_back}");
            model.end().await;
        }
    }
}

/// splitmix64
fn draw(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % below
}

struct Credential {
    fingerprint: Fingerprint,
    kid: String,
    user: String,
    issued_at: u64,
    expires_at: u64,
    revoked: bool,
}

struct Publisher {
    service: Service,
    publications: Publications,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Publisher {
    async fn start(env: &TestEnv, clock: &Clock) -> Self {
        let store = config::Store { url: env.url.clone() };
        let config = Config { store, ..Config::default() };
        let service = Service::open_at(DataDir::new(env.data()), config, clock.clone()).await.unwrap();
        let stop = CancellationToken::new();
        let (publications, tasks) = publishing::start(&service, Metrics::new(), stop.clone()).await.unwrap();
        Self { service, publications, stop, tasks }
    }

    async fn end(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
        self.service.close().await;
    }
}

/// Keeps its bundle from one step to the next, as a running edge does.
struct Edge {
    root: PublicKey,
    objects: Objects,
    held: Option<Snapshot>,
}

impl Edge {
    /// Refuses a bundle that lacks a revocation.
    fn install(&mut self, from: &Publications, now: u64, step: &str) {
        let manifest =
            Manifest::open(&from.latest().manifest, std::slice::from_ref(&self.root), "default").unwrap();
        let held = self.held.as_ref().map(Snapshot::manifest);
        if held.is_some_and(|held| order(&manifest) <= order(held)) {
            // A server answers 304 for these.
            assert_eq!(held.unwrap().version(), manifest.version(), "{step}");
            return;
        }
        loop {
            let missing = self.objects.missing(&manifest, now);
            if missing.is_empty() {
                break;
            }
            for entry in missing {
                let bytes = from.object(entry.sha256()).unwrap_or_else(|| panic!("{step}: {entry:?}"));
                self.objects.open(&manifest, entry, bytes.to_vec()).unwrap();
            }
        }
        self.held = Some(match self.held.take() {
            None => Snapshot::assemble(manifest, &self.objects, now).unwrap(),
            Some(held) => {
                held.advance(manifest, &self.objects, now).unwrap_or_else(|error| panic!("{step}: {error:?}"))
            }
        });
    }

    fn is_covered(&self, credential: &Credential) -> bool {
        let Credential { fingerprint, kid, issued_at, expires_at, .. } = credential;
        let status =
            self.held.as_ref().unwrap().revocation_status(fingerprint, kid, *issued_at, Some(*expires_at));
        status == RevocationStatus::Good
    }

    fn admits(&self, operator: &str, credential: &Credential) -> bool {
        let Credential { fingerprint, kid, user, issued_at, expires_at, .. } = credential;
        let snapshot = self.held.as_ref().unwrap();
        let subject = format!("{operator}/{user}");
        let scopes =
            [Scope::Global, Scope::SigningKey(kid), Scope::Operator(operator), Scope::User(&subject)];
        snapshot.revocation_status(fingerprint, kid, *issued_at, Some(*expires_at))
            != RevocationStatus::Revoked
            && snapshot.watermark(scopes).is_none_or(|instant| *issued_at > instant)
    }
}

fn order(manifest: &Manifest) -> (u64, u64, u64) {
    (manifest.delegation().epoch(), manifest.version(), manifest.issued_at())
}

struct Model<'a> {
    env: &'a TestEnv,
    /// Each step advances the clock by a second, because a base covers only earlier seconds.
    clock: Clock,
    store: Store,
    random: u64,
    /// The state of the generator that chooses damages.
    damage: u64,
    operator: OperatorId,
    kid: String,
    publishers: Vec<Publisher>,
    /// An edge that runs, and changes from publisher to publisher.
    edge: Edge,
    credentials: Vec<Credential>,
    /// The tokens by user.
    watermarks: BTreeMap<String, u64>,
    /// Counts what was exercised: built blocks, results from blocks, un-revocations.
    blocks: usize,
    covered: usize,
    taken_back: usize,
}

impl<'a> Model<'a> {
    async fn new(env: &'a TestEnv, seed: u64, clock: &Clock) -> Self {
        let publishers = vec![Publisher::start(env, clock).await, Publisher::start(env, clock).await];
        let operator = OperatorId::random();
        let store = env.store().await;
        let mut write = store.upkeep().await.unwrap();
        let now = clock.now().seconds().get();
        operators::insert(write.db(), &operator, UnixSeconds::new(now)).await.unwrap();
        for user in USERS {
            operators::insert_user(write.db(), &operator, &user.parse().unwrap(), UnixSeconds::new(now))
                .await
                .unwrap();
        }
        write.commit().await.unwrap();
        let kid = publishers[0].service.keys().current().signer().kid().to_owned();
        let root = publishers[0].service.root_key().parse().unwrap();
        let edge = Edge { root, objects: Objects::default(), held: None };
        let mut model = Self {
            env,
            clock: clock.clone(),
            store,
            random: seed,
            damage: seed,
            operator,
            kid,
            publishers,
            edge,
            credentials: Vec::new(),
            watermarks: BTreeMap::new(),
            blocks: 0,
            covered: 0,
            taken_back: 0,
        };
        model.issue(300).await;
        model
    }

    fn random(&mut self, below: u64) -> u64 {
        draw(&mut self.random, below)
    }

    async fn step(&mut self) -> String {
        self.clock.advance(Duration::from_secs(1));
        match self.random(20) {
            0..5 => {
                let count = 1 + self.random(40);
                self.issue(count).await;
                format!("issued {count}")
            }
            5..11 => {
                let count = 1 + self.random(12);
                for _ in 0..count {
                    self.revoke().await;
                }
                format!("revoked {count}")
            }
            11..14 => {
                let taken_back = self.unrevoke().await;
                format!("un-revoked {taken_back:?}")
            }
            14 => {
                let user = self.raise().await;
                format!("watermark of {user}")
            }
            15..17 => {
                // What a compaction has kept may be lost or damaged before the next one, which is by another server.
                let damage = if draw(&mut self.damage, 2) == 0 { self.damage_cache() } else { "nothing" };
                let at = usize::try_from(draw(&mut self.damage, 2)).unwrap();
                let done = compact_base(&self.publishers[at].service, &Actor::System).await.unwrap();
                self.blocks += done.blocks.len();
                format!("rebased by {at}, damaged {damage}: {:?}", done.blocks)
            }
            17 => format!("collected {}", purge_expired(&self.publishers[1].service).await.unwrap()),
            18 => {
                let at = usize::try_from(self.random(2)).unwrap();
                self.publishers.remove(at).end().await;
                self.publishers.push(Publisher::start(self.env, &self.clock).await);
                format!("restarted publisher {at}")
            }
            _ => {
                // Both start without state.
                while let Some(publisher) = self.publishers.pop() {
                    publisher.end().await;
                }
                for _ in 0..2 {
                    self.publishers.push(Publisher::start(self.env, &self.clock).await);
                }
                "restarted all".to_owned()
            }
        }
    }

    /// Damages a random file of the universe.
    fn damage_cache(&mut self) -> &'static str {
        let folder = self.env.data().join("cache/universe");
        let mut files: Vec<_> =
            fs::read_dir(folder).into_iter().flatten().map(|file| file.unwrap().path()).collect();
        files.sort_unstable();
        if files.is_empty() {
            return "nothing";
        }
        let file = &files[usize::try_from(draw(&mut self.damage, files.len() as u64)).unwrap()];
        let mut bytes = fs::read(file).unwrap();
        match draw(&mut self.damage, 3) {
            0 => {
                fs::remove_file(file).unwrap();
                return "by deletion";
            }
            1 if !bytes.is_empty() => {
                let at = usize::try_from(draw(&mut self.damage, bytes.len() as u64)).unwrap();
                bytes[at] ^= 1 << draw(&mut self.damage, 8);
            }
            _ => bytes.truncate(bytes.len() / 64 * 32),
        }
        fs::write(file, bytes).unwrap();
        "by a change"
    }

    async fn issue(&mut self, count: u64) {
        let mut write = self.store.upkeep().await.unwrap();
        for _ in 0..count {
            let mut bytes = [0; 32];
            for chunk in bytes.chunks_mut(8) {
                chunk.copy_from_slice(&self.random(u64::MAX).to_be_bytes());
            }
            let now = self.clock.now().seconds().get();
            // Some have expired and will be purged. The others are distributed over several blocks.
            let expires_at = match self.random(10) {
                0 => now - 100_000,
                _ => now + 7200 + self.random(150_000),
            };
            let user = USERS[usize::try_from(self.random(4)).unwrap()].to_owned();
            let issuance = IssuedCredential {
                fingerprint: Fingerprint::from(bytes),
                kid: self.kid.clone(),
                subject: Subject {
                    operator: self.operator.clone(),
                    user: Some(user.parse::<UserName>().unwrap()),
                },
                auth_key: None,
                session: None,
                issued_at: UnixSeconds::new(now),
                expires_at: UnixSeconds::new(expires_at),
            };
            match issued::insert(write.db(), &issuance).await.unwrap() {
                issued::IssueOutcome::Inserted => {}
                // The watermark includes the current second.
                issued::IssueOutcome::Covered => continue,
                other => panic!("{other:?}"),
            }
            let IssuedCredential { fingerprint, kid, issued_at, expires_at, .. } = issuance;
            self.credentials.push(Credential {
                fingerprint,
                kid,
                user,
                issued_at: issued_at.get(),
                expires_at: expires_at.get(),
                revoked: false,
            });
        }
        write.commit().await.unwrap();
    }

    fn pick(&mut self, revoked: bool) -> Option<usize> {
        let now = self.clock.now().seconds().get();
        let open: Vec<usize> = (0..self.credentials.len())
            .filter(|at| self.credentials[*at].revoked == revoked)
            .filter(|at| !revoked || self.credentials[*at].expires_at > now)
            .collect();
        let count = u64::try_from(open.len()).unwrap();
        (count > 0).then(|| open[usize::try_from(self.random(count)).unwrap()])
    }

    async fn revoke(&mut self) {
        let Some(at) = self.pick(false) else { return };
        let target = RevocationTarget::Fingerprint(self.credentials[at].fingerprint);
        let service = &self.publishers[0].service;
        match revoke(service, &Actor::Admin, &AccessScope::Everything, target, None).await {
            Ok(_) => self.credentials[at].revoked = true,
            Err(error) => panic!("{error}"),
        }
    }

    async fn unrevoke(&mut self) -> Option<Fingerprint> {
        let at = self.pick(true)?;
        let fingerprint = self.credentials[at].fingerprint;
        unrevoke(&self.publishers[1].service, &Actor::Admin, &fingerprint).await.unwrap();
        self.credentials[at].revoked = false;
        self.taken_back += 1;
        Some(fingerprint)
    }

    async fn raise(&mut self) -> String {
        let user = USERS[usize::try_from(self.random(4)).unwrap()].to_owned();
        let subject = Subject { operator: self.operator.clone(), user: Some(user.parse().unwrap()) };
        let target = RevocationTarget::Subject {
            subject,
            instant: Some(UnixSeconds::new(self.clock.now().seconds().get() - self.random(3))),
        };
        let service = &self.publishers[0].service;
        let done = revoke(service, &Actor::Admin, &AccessScope::Everything, target, None).await.unwrap();
        let RevocationOutcome::Scope(watermark) = done.outcome else { panic!("no watermark") };
        let held = self.watermarks.entry(user.clone()).or_default();
        *held = watermark.instant.max(UnixSeconds::new(*held)).get();
        user
    }

    /// Checks the running edge at each publisher, and a new edge at each.
    async fn compare(&mut self, step: &str) {
        let version = versions::current(&mut self.store.reader().await.unwrap()).await.unwrap().number;
        for publisher in [0, 1, 0] {
            let publications = &self.publishers[publisher].publications;
            publications.wait_for_version(version).await;
            self.edge.install(publications, self.clock.now().millis(), step);
            let mut fresh = Edge { root: self.edge.root.clone(), objects: Objects::default(), held: None };
            fresh.install(publications, self.clock.now().millis(), step);
            let now = self.clock.now().seconds().get();
            for credential in self.credentials.iter().filter(|credential| credential.expires_at > now + 5) {
                let watermark = self.watermarks.get(&credential.user);
                let good =
                    !credential.revoked && watermark.is_none_or(|instant| credential.issued_at > *instant);
                for (which, edge) in [("running", &self.edge), ("fresh", &fresh)] {
                    assert_eq!(
                        edge.admits(self.operator.as_str(), credential),
                        good,
                        "{step}: the {which} edge about {} of publisher {publisher}",
                        credential.fingerprint
                    );
                }
                self.covered += usize::from(fresh.is_covered(credential));
            }
        }
    }

    async fn end(self) {
        for publisher in self.publishers {
            publisher.end().await;
        }
    }
}

const USERS: [&str; 4] = ["ann", "bob", "cyd", "dan"];

const STEPS: usize = 60;
