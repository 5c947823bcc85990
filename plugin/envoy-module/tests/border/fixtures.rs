//! Bundles, configurations and tokens.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use bundle::{
    Entry, InlineBundle,
    builder::{Builder, CheckpointFields, DelegationFields, ManifestFields, RootKey, SnapshotKey, TailKey},
};
use serde_json::{Value, json};
use token::{Claims, Fingerprint, Operator, mint::SigningKey};

use crate::host::{Callout, Config};

const ISSUER: &str = "https://keystile.test";

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

/// A control plane: what it publishes, and the keys.
pub(crate) struct ControlPlane {
    audience: String,
    signing: SigningKey,
    pub(crate) content: Builder,
    version: u64,
    manifest: Vec<u8>,
    objects: Vec<(Entry, Arc<[u8]>)>,
}

impl ControlPlane {
    /// Has an audience of its own, so that tests of one process do not share a fetch.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let signing = SigningKey::ed25519("k1", &[2; 32]).unwrap();
        let mut content = Builder::default();
        content.set_verifying_keys([signing.verifying_key()]).unwrap();
        let audience = format!("a{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut new =
            Self { audience, signing, content, version: 0, manifest: Vec::new(), objects: Vec::new() };
        new.publish();
        new
    }

    pub(crate) fn publish(&mut self) {
        let (root, snapshot, tail) =
            (RootKey::new(&[1; 32]), SnapshotKey::new(&[101; 32]), TailKey::new(&[201; 32]));
        self.version += 1;
        self.content.checkpoint(self.version).unwrap();
        let built = self.content.build().unwrap();
        let issued_at = now_ms();
        let checkpoint = CheckpointFields {
            audience: &self.audience,
            version: self.version,
            issued_at,
            expires_at: issued_at + 86_400_000,
            covered_until: built.covered_until,
            entries: &built.checkpoint,
        };
        let checkpoint = snapshot.sign(&checkpoint).unwrap();
        let delegation = DelegationFields {
            audience: &self.audience,
            epoch: 1,
            issued_at: 0,
            expires_at: u64::MAX,
            snapshot_keys: &[snapshot.public_key()],
            tail_keys: &[tail.public_key()],
        };
        let manifest = ManifestFields {
            delegation: &root.delegate(&delegation).unwrap(),
            version: self.version,
            issued_at,
            expires_at: issued_at + 300_000,
            checkpoint: checkpoint.0,
            tail: &built.tail,
        };
        self.manifest = tail.sign(&manifest).unwrap();
        self.objects = built.objects.iter().chain([&checkpoint]).cloned().collect();
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Returns a configuration that fetches the bundle.
    pub(crate) fn configuration(&self) -> Value {
        json!({
            "audience": self.audience,
            "root_keys": [RootKey::new(&[1; 32]).public_key().to_string()],
            "control_plane": { "cluster": "keystile", "wait_seconds": 2 },
            "tokens": { "issuer": ISSUER, "audiences": ["api"] },
            "filter_state": ["reason", "subject"],
        })
    }

    /// Returns a configuration that contains the bundle.
    pub(crate) fn inline_configuration(&self) -> Value {
        let mut configuration = self.configuration();
        let objects = self.objects.iter().map(|(_, bytes)| &**bytes);
        configuration["bundle"] = json!(InlineBundle::encode(&self.manifest, objects).unwrap());
        configuration.as_object_mut().unwrap().remove("control_plane");
        configuration
    }

    /// Returns a new token.
    pub(crate) fn token(&self) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let now = now_ms() / 1000;
        let claims = Claims {
            iss: ISSUER.into(),
            sub: "OP0000000001".into(),
            aud: vec!["api".into()],
            iat: now - 10,
            exp: Some(now + 3600),
            nbf: None,
            jti: NEXT.fetch_add(1, Ordering::Relaxed).to_string(),
            operator: Operator { operator_id: "OP0000000001".into() },
            akid: None,
            sid: None,
        };
        self.signing.mint(&claims).expose().to_owned()
    }

    pub(crate) fn revoke(&mut self, token: &str) {
        let number = self.version + 1;
        self.content.revoke(number, Fingerprint::digest(token.as_bytes())).unwrap();
        self.publish();
    }

    /// Answers the calls of an edge, except those that wait for a newer version.
    pub(crate) fn serve(&self, config: &Config) {
        let mut waiting = Vec::new();
        loop {
            let callouts = config.take_callouts();
            if callouts.is_empty() {
                return config.put_back(waiting);
            }
            waiting.extend(callouts.into_iter().filter(|callout| !self.answer(config, callout)));
        }
    }

    /// Returns false if the edge has this version already. The call then stays unanswered.
    fn answer(&self, config: &Config, callout: &Callout) -> bool {
        assert_eq!(callout.cluster, "keystile");
        let path = callout.headers.iter().find(|(name, _)| name == ":path").unwrap();
        let path = String::from_utf8(path.1.clone()).unwrap();
        if path.starts_with("/edge/v1/manifest?") {
            if path.contains(&format!("have={}&", self.version)) {
                return false;
            }
            let (begin, end) = self.manifest.split_at(7);
            config.respond(callout.id, Some(200), &[begin, &[], end]);
        } else {
            let is_asked = |(entry, _): &&(Entry, Arc<[u8]>)| {
                path.ends_with(&Fingerprint::from(*entry.sha256()).to_string())
            };
            let (_, bytes) = self.objects.iter().find(is_asked).unwrap();
            config.respond(callout.id, Some(200), &[bytes]);
        }
        true
    }
}
