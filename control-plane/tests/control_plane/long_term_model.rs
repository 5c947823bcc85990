//! A revocation never ends before the credential that it refuses. Over years, with purges, compactions, restarts and clock
//! jumps, a running edge and a new one refuse what was revoked, and admit what was issued since.
//!
//! The model is a list of credentials, with their owners and whether they are permanently refused. The test controls the
//! clock.

use std::{sync::Arc, time::Duration};

use bundle::{Manifest, Objects, PublicKey, Snapshot};
use control_plane::{
    accounts::{CreatedKeysPolicy, create_user, delete_user},
    config::{self, Config},
    credentials::{
        api_keys::{
            CreateApiKey, create_api_key, disable_api_key, enable_api_key, expire_api_keys, rotate_tag_key,
        },
        auth_keys::{create_auth_key, delete_auth_key},
        tokens::{Lifetime, TokenRecipient, issue_token},
    },
    db::Store,
    domain::{Actor, ApiKeyId, AuthKeyId, OperatorId, RevocableKeyId, Subject},
    domain::{UnixMillis, UnixSeconds},
    installation::initialize_at,
    issuers::{self, jwks::IssuerKey},
    keys::{
        activate_pending_signing_key, key_set, keyring::open_generation, prune_signing_keys, renew_authority,
        retire_key, rotate_signing_key, tag_keys,
    },
    maintenance::purge_expired,
    platform::{clock::Clock, data_dir::DataDir},
    publishing::{OnDemandPublisher, Publications, compact_base},
    revocation::{AccessScope, RevocationTarget, revoke, unrevoke},
    service::Service,
};
use serde_json::json;
use tempfile::TempDir;
use token::{
    Claims, Fingerprint, Operator,
    api_key::{ApiKeyFields, Kind, Prefix},
    base64url,
    mint::SigningKey,
};
use verdict::{Decision, Gate, Policy};

use crate::postgres;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn model_keeps_refusals_over_years_on_sqlite() {
    let mut all = [0; 4];
    for (seed, replicas) in [(1, 1), (2, 2), (3, 1)] {
        let done = Model::run("sqlite:keystile.db".to_owned(), seed, replicas, 150).await;
        all.iter_mut().zip(done).for_each(|(sum, more)| *sum += more);
    }
    // Check that all parts were exercised: purged rows, built blocks, admitted and refused credentials.
    assert!(all.iter().all(|count| *count > 0), "{all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn model_keeps_refusals_over_years_on_postgres() {
    let url = tokio::task::spawn_blocking(postgres::database).await.unwrap();
    Model::run(url, 4, 2, 50).await;
}

/// The scopes of a revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
enum RevocationScope {
    Everything,
    Key(String),
    Operator(OperatorId),
    User(Subject),
    AuthKey(AuthKeyId),
    Session(String),
}

#[derive(Debug)]
struct Credential {
    what: &'static str,
    text: String,
    username: String,
    issued_at: u64,
    ends_at: Option<u64>,
    marks: Vec<RevocationScope>,
    /// Permanently.
    refused: bool,
    /// Until it is undone.
    revoked: bool,
    /// True if the credential is in the store, which then keeps its key until it expires.
    known: bool,
    api_key: Option<ApiKeyId>,
    disabled: bool,
}

struct Edge {
    held: Option<Snapshot>,
    objects: Objects,
}

impl Edge {
    fn new() -> Self {
        Self { held: None, objects: Objects::default() }
    }

    fn take(&mut self, from: &Publications, root: &PublicKey, now: u64, step: &str) {
        let manifest =
            Manifest::open(&from.latest().manifest, std::slice::from_ref(root), "default").unwrap();
        let order = |one: &Manifest| (one.delegation().epoch(), one.version(), one.issued_at());
        if let Some(held) = self.held.as_ref().map(Snapshot::manifest)
            && order(&manifest) <= order(held)
        {
            // A server answers 304 for these.
            assert_eq!(held.version(), manifest.version(), "{step}");
            return;
        }
        loop {
            let missing = self.objects.missing(&manifest, now);
            if missing.is_empty() {
                break;
            }
            for entry in missing {
                let bytes = from.object(entry.sha256()).or_else(|| from.secret_keys(entry.sha256()));
                let bytes = bytes.unwrap_or_else(|| panic!("{step}: {entry:?}"));
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
}

struct Replica {
    service: Arc<Service>,
    press: OnDemandPublisher,
}

struct Model {
    _folder: TempDir,
    data_dir: DataDir,
    config: Config,
    clock: Clock,
    random: u64,
    operators: Vec<OperatorId>,
    replicas: Vec<Replica>,
    gate: Gate,
    root: PublicKey,
    running: Edge,
    credentials: Vec<Credential>,
    auth_keys: Vec<(AuthKeyId, Subject)>,
    /// The revoked scopes, and the second of issue up to which each is revoked.
    marks: Vec<(RevocationScope, u64)>,
    issuer: SigningKey,
    /// The number of the next API key that is created outside of the store.
    stolen: u64,
    log: Vec<String>,
    renewed: u64,
    collected: u64,
    blocks: usize,
    admitted: usize,
}

impl Model {
    async fn run(url: String, seed: u64, replicas: usize, steps: usize) -> [usize; 4] {
        let mut model = Self::new(url, seed, replicas).await;
        for step in 0..steps {
            let what = model.step().await;
            model.log.push(format!("{step}: {what}"));
            model.compare().await;
        }
        for replica in &model.replicas {
            replica.service.close().await;
        }
        let refused = model.credentials.iter().filter(|credential| credential.refused).count();
        [usize::try_from(model.collected).unwrap(), model.blocks, model.admitted, refused]
    }

    async fn new(url: String, seed: u64, replicas: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::new(folder.path().join("data"));
        let mut config = Config { store: config::Store { url }, ..Config::default() };
        config.tokens.allow_never = true;
        let clock = Clock::manual(UnixMillis::from_seconds(UnixSeconds::new(1_800_000_000)));
        let made = initialize_at(&data_dir, &config, &clock).await.unwrap();
        let mut running = Vec::new();
        for _ in 0..replicas {
            running.push(Self::start(&data_dir, &config, &clock).await);
        }
        let service = &running[0].service;
        let policy = json!({
        "audience": "default",
        "root_keys": [service.root_key()],
        "control_plane": { "cluster": "none" },
        "tokens": { "issuer": config.tokens.issuer, "audiences": [config.tokens.audience] },
        "issuers": [{ "issuer": ISSUER, "audiences": ["api"] }],
        "api_keys": {},
        });
        let gate = Gate::new(Policy::from_json(policy.to_string().as_bytes()).unwrap());
        let root = service.root_key().parse().unwrap();
        let mut model = Self {
            _folder: folder,
            data_dir,
            config,
            clock,
            random: seed,
            operators: vec![made.operator],
            replicas: running,
            gate,
            root,
            running: Edge::new(),
            credentials: Vec::new(),
            auth_keys: Vec::new(),
            marks: Vec::new(),
            issuer: SigningKey::ed25519("other", &[9; 32]).unwrap(),
            stolen: 1_000_000,
            log: vec![format!("seed {seed}, {replicas} replicas")],
            renewed: 0,
            collected: 0,
            blocks: 0,
            admitted: 0,
        };
        model.renewed = model.now();
        model.install_issuer_keys().await;
        for _ in 0..8 {
            model.create_credential().await;
        }
        model
    }

    async fn start(data_dir: &DataDir, config: &Config, clock: &Clock) -> Replica {
        let service = Service::open_at(data_dir.clone(), config.clone(), clock.clone()).await.unwrap();
        let press = OnDemandPublisher::start(&service).await.unwrap();
        Replica { service: Arc::new(service), press }
    }

    async fn store(&self) -> Store {
        Store::open(&self.config.store.url, self.data_dir.path()).await.unwrap()
    }

    /// Stores a key set as if it had been fetched.
    async fn install_issuer_keys(&self) {
        let store = self.store().await;
        let mut write = store.upkeep().await.unwrap();
        let version = write.allocate_version(self.clock.now()).await.unwrap();
        issuers::add(write.db(), ISSUER, UnixSeconds::new(0)).await.unwrap();
        let mut record = issuers::find(write.db(), ISSUER).await.unwrap().unwrap();
        let public = self.issuer.verifying_key().public_bytes().unwrap();
        let key = base64url::encode(public);
        record.keys = vec![IssuerKey { kid: "other".to_owned(), alg: "EdDSA".to_owned(), key }];
        issuers::update(write.db(), &record).await.unwrap();
        key_set::set_version(write.db(), version).await.unwrap();
        write.commit().await.unwrap();
        store.close().await;
    }

    /// splitmix64
    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn pick_random<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let count = u64::try_from(from.len()).unwrap();
        if count == 0 { None } else { from.get(usize::try_from(self.random(count)).unwrap()) }
    }

    fn now(&self) -> u64 {
        self.clock.now().seconds().get()
    }

    fn service(&mut self) -> Arc<Service> {
        let at = self.random(u64::try_from(self.replicas.len()).unwrap());
        Arc::clone(&self.replicas[usize::try_from(at).unwrap()].service)
    }

    fn subject(&mut self) -> Subject {
        let operator = self.operators[0].clone();
        let user = ["ann", "bob", "cyd"][usize::try_from(self.random(3)).unwrap()];
        Subject { operator, user: Some(user.parse().unwrap()) }
    }

    async fn step(&mut self) -> String {
        // Credentials issued after a revocation have a later time.
        self.clock.advance(Duration::from_secs(5));
        match self.random(24) {
            0..5 => self.create_credential().await,
            5..8 => self.revoke_one().await,
            8..13 => self.revoke_all_of_one().await,
            13 => self.take_back().await,
            14 => self.toggle_api_key().await,
            15 => {
                let service = self.service();
                let done = compact_base(&service, &Actor::System).await.unwrap();
                self.blocks += done.blocks.len();
                format!("rebased {} blocks", done.blocks.len())
            }
            16 => {
                let at = self.random(u64::try_from(self.replicas.len()).unwrap());
                let at = usize::try_from(at).unwrap();
                self.replicas.remove(at).service.close().await;
                self.replicas.push(Self::start(&self.data_dir, &self.config, &self.clock).await);
                format!("restarted {at}")
            }
            17 | 18 => self.jump_clock().await,
            _ => self.wait().await,
        }
    }

    /// Lets days to years pass while servers run.
    async fn wait(&mut self) -> String {
        let days = [0, 1, 3, 4, 30, 90, 370][usize::try_from(self.random(7)).unwrap()];
        self.clock.advance(Duration::from_secs(days * 86_400 + 3600));
        if self.now() > self.renewed + 300 * 86_400 {
            let service = self.service();
            renew_authority(&service, &Actor::Admin, None, None).await.unwrap();
            self.renewed = self.now();
        }
        let service = self.service();
        let collected = self.run_background_tasks(&service).await;
        format!("{days} days later purged {collected}")
    }

    async fn run_background_tasks(&mut self, service: &Service) -> u64 {
        let rows = purge_expired(service).await.unwrap();
        let keys = prune_signing_keys(service).await.unwrap();
        activate_pending_signing_key(service).await.unwrap();
        expire_api_keys(service).await.unwrap();
        self.collected += rows;
        rows + u64::try_from(keys).unwrap()
    }

    /// Moves only the clock of the control plane, for two minutes, in which all replicas purge.
    async fn jump_clock(&mut self) -> String {
        let right = self.clock.now();
        let days = [1, 3, 40, 4000][usize::try_from(self.random(4)).unwrap()];
        let ahead = self.random(3) > 0;
        let millis = right.millis();
        let wrong = if ahead { millis + days * DAY_MS } else { millis.saturating_sub(days * DAY_MS) };
        self.clock.set(UnixMillis::from_millis(wrong));
        for at in 0..self.replicas.len() {
            let service = Arc::clone(&self.replicas[at].service);
            purge_expired(&service).await.unwrap();
            self.clock.advance(Duration::from_secs(60));
            purge_expired(&service).await.unwrap();
            if let Ok(done) = compact_base(&service, &Actor::System).await {
                self.blocks += done.blocks.len();
            }
            self.replicas[at].press.publish().await.unwrap();
        }
        self.clock.set(right.plus(Duration::from_secs(60 * 2)));
        format!("the clock was {days} days {} for two minutes", if ahead { "ahead" } else { "behind" })
    }

    async fn create_credential(&mut self) -> String {
        let subject = self.subject();
        let user = RevocationScope::User(subject.clone());
        let operator = RevocationScope::Operator(subject.operator.clone());
        let now = self.now();
        let service = self.service();
        let _ = create_user(&service, &Actor::Admin, &subject, None).await;
        let credential = |what, text: String, issued_at, ends_at, marks: Vec<RevocationScope>| Credential {
            what,
            text,
            username: String::new(),
            issued_at,
            ends_at,
            marks: [vec![RevocationScope::Everything], marks].concat(),
            refused: false,
            revoked: false,
            known: true,
            api_key: None,
            disabled: false,
        };
        let made = match self.random(8) {
            0..3 => {
                let lifetime = match self.random(3) {
                    0 => Lifetime::NEVER,
                    _ => Lifetime::try_from(1 + self.random(172_800)).unwrap(),
                };
                let auth_key = self.auth_key(&subject, &service).await;
                let bearer = match &auth_key {
                    Some(id) => TokenRecipient::AuthKey(id.clone()),
                    None => TokenRecipient::Subject(subject.clone()),
                };
                let issued = issue_token(&service, bearer, lifetime).await.unwrap();
                let kid = service.keys().current().signer().kid().to_owned();
                let subject = issued.subject;
                let mut marks = vec![
                    RevocationScope::Operator(subject.operator.clone()),
                    RevocationScope::User(subject),
                    RevocationScope::Key(kid),
                    RevocationScope::Session(issued.session.to_string()),
                ];
                marks.extend(auth_key.map(RevocationScope::AuthKey));
                let text = issued.token.expose().to_owned();
                credential("own token", text, now, issued.expires_at.map(UnixSeconds::get), marks)
            }
            // A token of a valid key that is not in the issuance log, as after a lost backup.
            3 => {
                let auth_key = self.auth_key(&subject, &service).await;
                let keyring = service.keys().current();
                let signer = keyring.signer();
                let exp = Some(now + self.random(10 * 366) * 86_400).filter(|_| self.random(2) == 0);
                let holder = auth_key.as_ref().map(|id| self.owner(id)).unwrap_or(subject);
                let claims = Claims {
                    iss: self.config.tokens.issuer.clone(),
                    sub: holder.to_string(),
                    aud: vec![self.config.tokens.audience.clone()],
                    iat: now,
                    exp,
                    nbf: None,
                    jti: self.random(u64::MAX).to_string(),
                    operator: Operator { operator_id: holder.operator.to_string() },
                    akid: auth_key.as_ref().map(ToString::to_string),
                    sid: None,
                };
                let mut marks = vec![
                    RevocationScope::Operator(holder.operator.clone()),
                    RevocationScope::User(holder),
                    RevocationScope::Key(signer.kid().to_owned()),
                ];
                marks.extend(auth_key.map(RevocationScope::AuthKey));
                let text = signer.mint(&claims).expose().to_owned();
                Credential {
                    known: false,
                    ..credential("own token, not in the issuance log", text, now, exp, marks)
                }
            }
            4 => {
                let expires_at = Some(now + self.random(400) * 86_400 + 60).filter(|_| self.random(2) == 0);
                let order = CreateApiKey {
                    owner: subject.clone(),
                    username: None,
                    prefix: Prefix::default(),
                    name: None,
                    metadata: None,
                    expires_at: expires_at.map(UnixSeconds::new),
                };
                let created = create_api_key(&service, &Actor::Admin, order).await.unwrap();
                let marks = vec![operator, user, RevocationScope::Key(created.key.kid())];
                let text = created.secret.expose().to_owned();
                Credential {
                    username: created.key.username.as_str().to_owned(),
                    api_key: Some(created.key.id),
                    ..credential("API key", text, now, expires_at, marks)
                }
            }
            // A stolen key can create credentials of any date for any user.
            5 => {
                let store = self.store().await;
                let generations = tag_keys::list(&mut store.reader().await.unwrap()).await.unwrap();
                store.close().await;
                let Some(generation) = self.pick_random(&generations).copied() else {
                    return "no generation yet".to_owned();
                };
                let minting = open_generation(&self.data_dir, &generation).unwrap();
                self.stolen += 1;
                let issued_at = now - self.random(2) * 86_400;
                let name =
                    if self.random(2) == 0 { subject.user.as_ref().unwrap().as_str() } else { "mallory" };
                let contents = ApiKeyFields {
                    prefix: &Prefix::default(),
                    operator: subject.operator.as_str(),
                    number: self.stolen,
                    issued_at,
                    expires_at: None,
                    random: [7; 4],
                    username: name,
                };
                let text = minting.mint(&contents).unwrap().expose().to_owned();
                let holder = Subject { user: Some(name.parse().unwrap()), ..subject.clone() };
                let marks =
                    vec![operator, RevocationScope::User(holder), RevocationScope::Key(generation.kid())];
                Credential {
                    username: name.to_owned(),
                    known: false,
                    ..credential("API key, unknown to the store", text, issued_at, None, marks)
                }
            }
            _ => {
                let exp = now + self.random(10 * 366) * 86_400 + 60;
                let payload = json!({
                "iss": ISSUER, "sub": "carol", "aud": "api", "iat": now, "exp": exp,
                "jti": self.random(u64::MAX).to_string(),
                });
                let text =
                    self.issuer.sign(r#"{"alg":"EdDSA","kid":"other"}"#, payload.to_string().as_bytes());
                credential("another issuer's token", text.expose().to_owned(), now, Some(exp), vec![])
            }
        };
        let what = format!("made {}, {:?} to {:?}", made.what, made.issued_at, made.ends_at);
        // Only a thief creates credentials dated before a revocation.
        let late =
            self.marks.iter().any(|(mark, until)| made.marks.contains(mark) && made.issued_at <= *until);
        self.credentials.push(Credential { refused: late, ..made });
        what
    }

    async fn auth_key(&mut self, subject: &Subject, service: &Service) -> Option<AuthKeyId> {
        let held = self.auth_keys.clone();
        match self.random(3) {
            0 => None,
            1 if !held.is_empty() => self.pick_random(&held).map(|(id, _)| id.clone()),
            _ => {
                let created = create_auth_key(service, &Actor::Admin, subject).await.unwrap();
                self.auth_keys.push((created.id.clone(), subject.clone()));
                Some(created.id)
            }
        }
    }

    fn owner(&self, id: &AuthKeyId) -> Subject {
        self.auth_keys.iter().find(|(held, _)| held == id).unwrap().1.clone()
    }

    /// Revokes by fingerprint, or by the credential itself.
    async fn revoke_one(&mut self) -> String {
        let good = |one: &Credential| !one.refused && !one.revoked && !one.disabled;
        let open: Vec<usize> =
            (0..self.credentials.len()).filter(|at| good(&self.credentials[*at])).collect();
        let Some(at) = self.pick_random(&open).copied() else { return "nothing to revoke".to_owned() };
        let service = self.service();
        let by_text = self.random(2) == 0;
        let one = &mut self.credentials[at];
        // An unknown credential must be an own token.
        let target = match by_text && (one.known && one.marks.len() > 1 || one.what.starts_with("own")) {
            true => RevocationTarget::Token(one.text.clone()),
            false => RevocationTarget::Fingerprint(Fingerprint::digest(one.text.as_bytes())),
        };
        let what = format!("revoked {} by {target:?}", one.what);
        match revoke(&service, &Actor::Admin, &AccessScope::Everything, target, None).await {
            Ok(_) => one.revoked = true,
            // The key is retired, and all its credentials are refused.
            Err(error) => assert!(error.code() == "token_key_unknown" && !one.known, "{what}: {error}"),
        }
        what
    }

    async fn revoke_all_of_one(&mut self) -> String {
        let (service, subject) = (self.service(), self.subject());
        let now = self.now();
        let kid = service.keys().current().signer().kid().to_owned();
        let tags = {
            let store = self.store().await;
            let tags = tag_keys::list(&mut store.reader().await.unwrap()).await.unwrap();
            store.close().await;
            tags
        };
        let auth_keys = self.auth_keys.clone();
        let revoked = async |target| {
            let done = revoke(&service, &Actor::Admin, &AccessScope::Everything, target, None).await;
            done.map(drop).map_err(|error| error.to_string())
        };
        let (mark, until) = match self.random(16) {
            0..3 => {
                let _ = create_user(&service, &Actor::Admin, &subject, None).await;
                revoked(RevocationTarget::Subject { subject: subject.clone(), instant: None }).await.unwrap();
                (RevocationScope::User(subject), now)
            }
            3 => {
                let subject = Subject { user: None, ..subject };
                revoked(RevocationTarget::Subject { subject: subject.clone(), instant: None }).await.unwrap();
                (RevocationScope::Operator(subject.operator), now)
            }
            4 => {
                revoked(RevocationTarget::Everything).await.unwrap();
                (RevocationScope::Everything, now)
            }
            5..7 => match self.pick_random(&auth_keys) {
                Some((id, _)) => {
                    revoked(RevocationTarget::Key(RevocableKeyId::AuthKey(id.clone()))).await.unwrap();
                    (RevocationScope::AuthKey(id.clone()), now)
                }
                None => return "no AuthKey".to_owned(),
            },
            7..10 => {
                let mark = |one: &Credential| {
                    one.marks.iter().find_map(|mark| match mark {
                        RevocationScope::Session(id) if one.ends_at.is_none_or(|end| end > now) => {
                            Some(id.clone())
                        }
                        _ => None,
                    })
                };
                let sessions: Vec<String> = self.credentials.iter().filter_map(mark).collect();
                match self.pick_random(&sessions) {
                    Some(id) => {
                        revoked(RevocationTarget::Key(RevocableKeyId::Session(id.parse().unwrap())))
                            .await
                            .unwrap();
                        (RevocationScope::Session(id.clone()), now)
                    }
                    None => return "no session".to_owned(),
                }
            }
            10 => {
                revoked(RevocationTarget::SigningKey(kid.clone())).await.unwrap();
                (RevocationScope::Key(kid), now)
            }
            11 => match self.pick_random(&tags) {
                Some(generation) => {
                    let kid = generation.kid();
                    revoked(RevocationTarget::SigningKey(kid.clone())).await.unwrap();
                    (RevocationScope::Key(kid), now)
                }
                None => return "no tag".to_owned(),
            },
            12 => {
                let kid = match self.pick_random(&tags) {
                    Some(generation) if self.random(2) == 0 => generation.kid(),
                    _ => kid,
                };
                retire_key(&service, &Actor::Admin, &kid).await.unwrap();
                (RevocationScope::Key(kid), u64::MAX)
            }
            13 => {
                if self.random(2) == 0 {
                    let _ = rotate_signing_key(&service, &Actor::Admin).await;
                } else {
                    let kind = if self.random(2) == 0 { Kind::Signed } else { Kind::Short };
                    rotate_tag_key(&service, &Actor::Admin, kind).await.unwrap();
                }
                return "rotated".to_owned();
            }
            14 => match self.pick_random(&auth_keys).cloned() {
                Some((id, _)) => {
                    delete_auth_key(&service, &Actor::Admin, &AccessScope::Everything, &id).await.unwrap();
                    self.auth_keys.retain(|(held, _)| *held != id);
                    (RevocationScope::AuthKey(id), u64::MAX)
                }
                None => return "no AuthKey".to_owned(),
            },
            _ => {
                let _ = create_user(&service, &Actor::Admin, &subject, None).await;
                delete_user(&service, &Actor::Admin, &subject, CreatedKeysPolicy::Keep).await.unwrap();
                self.auth_keys.retain(|(_, owner)| *owner != subject);
                self.credentials.iter_mut().for_each(|one| {
                    one.api_key =
                        one.api_key.filter(|_| !one.marks.contains(&RevocationScope::User(subject.clone())))
                });
                (RevocationScope::User(subject), now)
            }
        };
        for one in &mut self.credentials {
            one.refused |= one.marks.contains(&mark) && one.issued_at <= until;
        }
        let what = format!("revoked all of {mark:?}");
        self.marks.push((mark, until));
        what
    }

    async fn take_back(&mut self) -> String {
        let now = self.now();
        let good =
            |one: &Credential| one.revoked && !one.refused && one.ends_at.is_none_or(|end| end > now + 60);
        let open: Vec<usize> =
            (0..self.credentials.len()).filter(|at| good(&self.credentials[*at])).collect();
        let Some(at) = self.pick_random(&open).copied() else { return "nothing to un-revoke".to_owned() };
        let service = self.service();
        let one = &mut self.credentials[at];
        let fingerprint = Fingerprint::digest(one.text.as_bytes());
        unrevoke(&service, &Actor::Admin, &fingerprint).await.unwrap();
        one.revoked = false;
        format!("un-revoked {} {fingerprint}", one.what)
    }

    /// Disables or enables an API key.
    async fn toggle_api_key(&mut self) -> String {
        let now = self.now();
        let open: Vec<usize> = (0..self.credentials.len())
            .filter(|at| {
                let one = &self.credentials[*at];
                one.api_key.is_some()
                    && !one.refused
                    && !one.revoked
                    && one.ends_at.is_none_or(|end| end > now + 60)
            })
            .collect();
        let Some(at) = self.pick_random(&open).copied() else { return "no API key".to_owned() };
        let service = self.service();
        let one = &mut self.credentials[at];
        let id = one.api_key.unwrap();
        let authority = AccessScope::Everything;
        if one.disabled {
            enable_api_key(&service, &Actor::Admin, &authority, id).await.unwrap();
        } else {
            disable_api_key(&service, &Actor::Admin, &authority, id).await.unwrap();
        }
        one.disabled = !one.disabled;
        format!("{id} is disabled: {}", one.disabled)
    }

    /// Compares the decision of every edge about every credential with the model.
    async fn compare(&mut self) {
        let now = self.clock.now().millis();
        let step = self.log.last().cloned().unwrap_or_default();
        for at in 0..self.replicas.len() {
            let publications = self.replicas[at].press.publish().await.unwrap();
            self.running.take(&publications, &self.root, now, &step);
            let mut fresh = Edge::new();
            fresh.take(&publications, &self.root, now, &step);
            for one in &self.credentials {
                let ended = one.ends_at.is_some_and(|end| end <= now / 1000);
                let must_be_refused = one.refused || one.revoked || one.disabled;
                for (which, edge) in [("running", &self.running), ("fresh", &fresh)] {
                    let decision = self.ask(edge, one, now);
                    let admitted = matches!(decision, Decision::Admit(_));
                    let good = match admitted {
                        true => !must_be_refused,
                        false => must_be_refused || ended || !one.known,
                    };
                    self.admitted += usize::from(admitted);
                    assert!(
                        good,
                        "{}\nthe {which} edge at replica {at} about {one:?}: {decision:?}",
                        self.log.join("\n")
                    );
                }
            }
        }
    }

    fn ask(&self, edge: &Edge, one: &Credential, now: u64) -> Decision {
        let bearer = format!("Bearer {}", one.text);
        let mut headers = vec![("authorization", bearer.as_bytes())];
        if !one.username.is_empty() {
            headers.push(("x-username", one.username.as_bytes()));
        }
        self.gate.decide(headers.into_iter(), edge.held.as_ref(), now)
    }
}

const ISSUER: &str = "https://idp.example.com";
const DAY_MS: u64 = 86_400_000;
