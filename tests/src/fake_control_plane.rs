//! A fake control plane, which can publish and mint anything, and an edge that uses it.

use crate::envoy::Settings;
use crate::wait::DEADLINE;
use crate::{Connection, Envoy, Scratch, Upstream};
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use bundle::Entry;
use bundle::builder::{
    Builder, BuiltBundle, CheckpointFields, DelegationFields, ManifestFields, RootKey, SnapshotKey, TailKey,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use token::mint::SigningKey;
use token::{Claims, Operator};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[derive(Debug)]
pub struct FakeControlPlane {
    pub envoy: Envoy,
    pub authority: TestSigner,
    pub signing: SigningKey,
    /// The content of the bundle. `publish` sends it.
    pub content: Builder,
    pub version: u64,
    checkpoint: Option<Object>,
    served: watch::Sender<Responses>,
    asked: watch::Sender<ManifestRequests>,
    server: JoinHandle<()>,
    _upstream: Option<Upstream>,
    scratch: Scratch,
}

/// The number of manifest requests of the edge, and the position that it reported.
#[derive(Debug, Clone, Default)]
struct ManifestRequests {
    times: u64,
    having: String,
}

/// The responses of the edge endpoints.
#[derive(Debug, Clone, Default)]
pub struct Responses {
    pub manifest: Vec<u8>,
    /// Objects by hash in hex, as an honest control plane serves them.
    pub objects: BTreeMap<String, Vec<u8>>,
}

impl FakeControlPlane {
    pub async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// Starts an edge with the default settings, changed by `prepare`.
    pub async fn start_with(prepare: impl FnOnce(&mut Settings)) -> Self {
        let scratch = Scratch::new().unwrap();
        let mut settings =
            Settings::for_scratch(&scratch, plugin_configuration(&TestSigner::new(1))).unwrap();
        prepare(&mut settings);
        let upstream = Upstream::start(settings.upstream).await.unwrap();
        let mut control_plane = Self::start_before_upstream(scratch, settings).await;
        control_plane._upstream = Some(upstream);
        control_plane
    }

    /// For an upstream that is there already. Returns when all workers use the first bundle, which has the key
    /// [`FakeControlPlane::signing`] and revokes nothing.
    pub async fn start_before_upstream(scratch: Scratch, settings: Settings) -> Self {
        let signing = SigningKey::ed25519("key-1", &[2; 32]).unwrap();
        let mut content = Builder::default();
        content.set_verifying_keys([signing.verifying_key()]).unwrap();
        let served = watch::Sender::new(Responses::default());
        let asked = watch::Sender::new(ManifestRequests::default());
        let listener = TcpListener::bind(settings.control_plane).await.unwrap();
        let router = Router::new()
            .route("/edge/v1/manifest", get(manifest))
            .route("/edge/v1/objects/{sha256}", get(object))
            .route("/edge/v1/keys", get(secret_keys))
            .with_state((served.subscribe(), asked.clone()));
        let server = tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        let envoy = Envoy::start(settings, scratch.folder()).await.unwrap();
        let mut control_plane = Self {
            envoy,
            authority: TestSigner::new(1),
            signing,
            content,
            version: 0,
            checkpoint: None,
            served,
            asked,
            server,
            _upstream: None,
            scratch,
        };
        control_plane.publish();
        control_plane.workers().await;
        control_plane
    }

    /// The folder of the edge's files.
    pub fn folder(&self) -> &std::path::Path {
        self.scratch.folder()
    }

    /// Returns claims that the edge admits.
    pub fn claims(&self) -> Claims {
        claims(now_ms())
    }

    /// Returns a token that the edge admits, a different one at each call.
    pub fn token(&self) -> String {
        self.mint(&self.claims())
    }

    pub fn mint(&self, claims: &Claims) -> String {
        self.signing.mint(claims).expose().to_owned()
    }

    /// Sends the content as the next version.
    pub fn publish(&mut self) {
        self.version += 1;
        let needed = self.checkpoint.is_none() || self.content.needs_checkpoint();
        if needed {
            self.content.checkpoint(self.version).unwrap();
        }
        let content = self.content.build().unwrap();
        if needed {
            self.checkpoint = Some(self.authority.sign_checkpoint(&content, self.version, now_ms(), |_| ()));
        }
        let checkpoint = self.checkpoint.as_ref().unwrap();
        self.serve(self.authority.sign_manifest(&content, checkpoint, self.version, now_ms(), |_| ()));
    }

    /// Builds a response from some content with its own checkpoint, and a manifest of the current version, changed by
    /// `change`.
    pub fn sign<'a>(
        &'a self,
        content: &'a BuiltBundle,
        change: impl FnOnce(&mut ManifestFields<'a>),
    ) -> Responses {
        let now = now_ms();
        let checkpoint = self.authority.sign_checkpoint(content, self.version, now, |_| ());
        self.authority.sign_manifest(content, &checkpoint, self.version, now, change)
    }

    pub fn serve(&self, served: Responses) {
        self.served.send_replace(served);
    }

    /// Serves a bundle that the edge must accept, and waits until the edge has installed it and sends the next request.
    pub async fn serve_until_taken(&self, served: Responses) {
        self.serve_until_taken_within(DEADLINE, served).await;
    }

    /// As [`serve_until_taken`](Self::serve_until_taken), for what takes long to load.
    pub async fn serve_until_taken_within(&self, deadline: Duration, served: Responses) {
        let etag = etag(&served);
        self.serve(served);
        self.wait_for_requests(deadline, |asked| asked.having == etag).await;
    }

    /// Serves a bundle that the edge, whose request must be waiting, must refuse. Waits until the edge sends the next
    /// request.
    pub async fn serve_until_refused(&self, served: Responses) {
        let before = self.asked.borrow().clone();
        self.serve(served);
        let after = self.wait_for_requests(DEADLINE, |asked| asked.times > before.times).await;
        assert_eq!(after.having, before.having, "the edge accepted it");
    }

    async fn wait_for_requests(
        &self,
        deadline: Duration,
        done: impl Fn(&ManifestRequests) -> bool,
    ) -> ManifestRequests {
        let mut asked = self.asked.subscribe();
        let reached = asked.wait_for(done);
        let reached = tokio::time::timeout(deadline, reached).await;
        reached.expect("the edge requests a manifest").unwrap().clone()
    }

    /// Opens a connection to each worker, all of which have a bundle.
    pub async fn workers(&self) -> Vec<Connection> {
        self.envoy.wait_admitting(&self.token()).await.unwrap()
    }

    /// Stops the control plane.
    pub fn stop_responding(&self) {
        self.server.abort();
    }
}

type Shared = (watch::Receiver<Responses>, watch::Sender<ManifestRequests>);

/// Answers at once if the edge has another manifest. Otherwise waits for a newer one, as long as the edge requested.
async fn manifest(State((mut served, asked)): State<Shared>, headers: HeaderMap) -> impl IntoResponse {
    let having =
        headers.get(header::IF_NONE_MATCH).and_then(|tag| tag.to_str().ok()).unwrap_or_default().to_owned();
    asked.send_modify(|asked| {
        asked.times += 1;
        asked.having.clone_from(&having);
    });
    let changed = served.wait_for(|served| !served.manifest.is_empty() && etag(served) != having);
    match tokio::time::timeout(Duration::from_secs(2), changed).await {
        Ok(Ok(served)) => ([(header::ETAG, etag(&served))], served.manifest.clone()).into_response(),
        _ => StatusCode::NOT_MODIFIED.into_response(),
    }
}

#[derive(Deserialize)]
struct ManifestQuery {
    sha256: String,
}

async fn secret_keys(
    shared: State<Shared>,
    Query(ManifestQuery { sha256 }): Query<ManifestQuery>,
) -> impl IntoResponse {
    object(shared, Path(sha256)).await
}

async fn object(State((served, _)): State<Shared>, Path(sha256): Path<String>) -> impl IntoResponse {
    served.borrow().objects.get(&sha256).cloned().ok_or(StatusCode::NOT_FOUND)
}

/// Returns `"VERSION-ISSUEDMS"` from their positions in a manifest, which may be forged.
pub fn etag(served: &Responses) -> String {
    let number = |at: usize| {
        served.manifest.get(at..at + 8).map(|bytes| u64::from_be_bytes(bytes.try_into().unwrap()))
    };
    match (number(12), number(20)) {
        (Some(version), Some(issued_at)) => format!("\"{version}-{issued_at}\""),
        _ => "\"none\"".to_owned(),
    }
}

/// Returns claims that the edge admits, different ones at each call. `now` is in milliseconds.
pub fn claims(now: u64) -> Claims {
    let now = now / 1000;
    Claims {
        iss: ISSUER.into(),
        sub: "OP0000000001".into(),
        aud: vec!["api".into()],
        iat: now - 10,
        exp: Some(now + 3600),
        nbf: None,
        jti: format!("{:032x}", next_number()),
        operator: Operator { operator_id: "OP0000000001".into() },
        akid: None,
        sid: None,
    }
}

type Object = (Entry, Arc<[u8]>);

/// The keys that sign bundles.
#[derive(Debug)]
pub struct TestSigner {
    pub root: RootKey,
    pub snapshot: SnapshotKey,
    pub tail: TailKey,
    pub delegation: Vec<u8>,
}

impl TestSigner {
    pub fn new(seed: u8) -> Self {
        let root = RootKey::new(&[seed; 32]);
        let snapshot = SnapshotKey::new(&[seed.wrapping_add(100); 32]);
        let tail = TailKey::new(&[seed.wrapping_add(200); 32]);
        let mut authority = Self { root, snapshot, tail, delegation: Vec::new() };
        authority.delegation = authority.sign_delegation(AUDIENCE, 1);
        authority
    }

    /// Signs a delegation without an expiry.
    pub fn sign_delegation(&self, audience: &str, epoch: u64) -> Vec<u8> {
        let delegates = DelegationFields {
            audience,
            epoch,
            issued_at: 0,
            expires_at: u64::MAX,
            snapshot_keys: &[self.snapshot.public_key()],
            tail_keys: &[self.tail.public_key()],
        };
        self.root.delegate(&delegates).unwrap()
    }

    /// Signs an honest checkpoint, changed by `change`. `now` is in milliseconds.
    pub fn sign_checkpoint<'a>(
        &'a self,
        content: &'a BuiltBundle,
        version: u64,
        now: u64,
        change: impl FnOnce(&mut CheckpointFields<'a>),
    ) -> Object {
        let mut draft = CheckpointFields {
            audience: AUDIENCE,
            version,
            issued_at: now,
            expires_at: now + 86_400_000,
            covered_until: content.covered_until,
            entries: &content.checkpoint,
        };
        change(&mut draft);
        self.snapshot.sign(&draft).unwrap()
    }

    /// Signs an honest manifest, changed by `change`, and returns it with all objects.
    pub fn sign_manifest<'a>(
        &'a self,
        content: &'a BuiltBundle,
        checkpoint: &Object,
        version: u64,
        now: u64,
        change: impl FnOnce(&mut ManifestFields<'a>),
    ) -> Responses {
        let mut draft = ManifestFields {
            delegation: &self.delegation,
            version,
            issued_at: now,
            // The default maximum lifetime at an edge.
            expires_at: now + 300_000,
            checkpoint: checkpoint.0,
            tail: &content.tail,
        };
        change(&mut draft);
        let manifest = self.tail.sign(&draft).unwrap();
        let hashed = |(entry, bytes): &Object| (hex(entry.sha256()), bytes.to_vec());
        let objects = content.objects.iter().chain([checkpoint]).map(hashed).collect();
        Responses { manifest, objects }
    }
}

pub fn plugin_configuration(authority: &TestSigner) -> Value {
    json!({
        "audience": AUDIENCE,
        "root_keys": [authority.root.public_key().to_string()],
        "control_plane": {
            "cluster": "keystile",
            "authority": "keystile",
            "wait_seconds": 2,
        },
        "tokens": { "issuer": ISSUER, "audiences": ["api"], "leeway_seconds": 5 },
        "credentials": [{ "header": "authorization", "scheme": "Bearer" }, { "header": "x-api-token" }],
    })
}

pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_millis().try_into().unwrap()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

const AUDIENCE: &str = "default";
pub const ISSUER: &str = "https://keystile.test";
