//! Fixtures: keys, bundles, policies and requests.

use std::{borrow::Cow, sync::Arc};

use bundle::{
    Entry, Manifest, Objects, Snapshot,
    builder::{
        Builder, BuiltBundle, CheckpointFields, DelegationFields, ManifestFields, RootKey, SnapshotKey,
        TailKey,
    },
};
use token::{Claims, Operator, mint::SigningKey};
use verdict::{
    Decision, Environment, Forward, ForwardedHeader, Gate, Headers, MinimumPosition, PassReason, Policy,
    Refresh, permission::Permissions,
};

/// 2023-11-14, in seconds since the Unix epoch.
pub(crate) const NOW: u64 = 1_700_000_000;
pub(crate) const NOW_MS: u64 = NOW * 1000;

pub(crate) fn root() -> RootKey {
    RootKey::new(&[1; 32])
}

pub(crate) fn snapshot_key() -> SnapshotKey {
    SnapshotKey::new(&[101; 32])
}

pub(crate) fn tail_key() -> TailKey {
    TailKey::new(&[201; 32])
}

/// Returns a delegation that is valid for a week, from an hour before `NOW`.
pub(crate) fn delegation(epoch: u64) -> Vec<u8> {
    let delegates = DelegationFields {
        audience: "default",
        epoch,
        issued_at: NOW_MS - 3_600_000,
        expires_at: NOW_MS + 7 * 86_400_000,
        snapshot_keys: &[snapshot_key().public_key()],
        tail_keys: &[tail_key().public_key()],
    };
    root().delegate(&delegates).unwrap()
}

pub(crate) fn signing_key() -> SigningKey {
    SigningKey::ed25519("k1", &[2; 32]).unwrap()
}

pub(crate) fn builder() -> Builder {
    let mut builder = Builder::default();
    builder.set_verifying_keys([signing_key().verifying_key()]).unwrap();
    builder.set_secret_keys([("k2", &[3; 32][..])]).unwrap();
    builder
}

pub(crate) type Object = (Entry, Arc<[u8]>);

/// A published bundle.
pub(crate) struct Published {
    pub(crate) manifest: Vec<u8>,
    pub(crate) objects: Vec<Object>,
}

impl Published {
    pub(crate) fn object(&self, entry: &Entry) -> Option<Vec<u8>> {
        Some(self.objects.iter().find(|(built, _)| built == entry)?.1.to_vec())
    }
}

pub(crate) fn checkpoint(built: &BuiltBundle, version: u64, issued_at: u64) -> Object {
    let fields = CheckpointFields {
        audience: "default",
        version,
        issued_at,
        expires_at: issued_at + 86_400_000,
        covered_until: built.covered_until,
        entries: &built.checkpoint,
    };
    snapshot_key().sign(&fields).unwrap()
}

/// Returns a bundle of epoch 1 that is valid for a minute.
pub(crate) fn bundle_over(
    checkpoint: &Object,
    built: &BuiltBundle,
    version: u64,
    issued_at: u64,
) -> Published {
    let fields = ManifestFields {
        delegation: &delegation(1),
        version,
        issued_at,
        expires_at: issued_at + 60_000,
        checkpoint: checkpoint.0,
        tail: &built.tail,
    };
    let objects = built.objects.iter().chain([checkpoint]).cloned().collect();
    Published { manifest: tail_key().sign(&fields).unwrap(), objects }
}

/// Returns a bundle with a checkpoint that was issued at `NOW`.
pub(crate) fn publish(built: &BuiltBundle, version: u64, issued_at: u64) -> Published {
    bundle_over(&checkpoint(built, version, NOW_MS), built, version, issued_at)
}

pub(crate) fn manifest(bytes: &[u8]) -> Manifest {
    Manifest::open(bytes, &[root().public_key()], "default").unwrap()
}

pub(crate) fn snapshot(builder: &mut Builder) -> Snapshot {
    builder.checkpoint(1).unwrap();
    snapshot_without_checkpoint(builder)
}

/// Returns a snapshot with the content of the last checkpoint, and with a tail of what was added since.
pub(crate) fn snapshot_without_checkpoint(builder: &mut Builder) -> Snapshot {
    let published = publish(&builder.build().unwrap(), 1, NOW_MS);
    let manifest = manifest(&published.manifest);
    let mut objects = Objects::default();
    loop {
        let missing = objects.missing(&manifest, NOW_MS);
        if missing.is_empty() {
            return Snapshot::assemble(manifest, &objects, NOW_MS).unwrap();
        }
        for entry in missing {
            objects.open(&manifest, entry, published.object(&entry).unwrap()).unwrap();
        }
    }
}

pub(crate) fn configuration() -> String {
    format!("{{\n{}\n}}", members("").join(",\n"))
}

/// Returns the default members that `overrides` does not contain.
fn members(overrides: &str) -> Vec<String> {
    let overrides: serde_json::Value = serde_json::from_str(&format!("{{{overrides}}}")).unwrap_or_default();
    let root_keys = format!(r#"["{}"]"#, root().public_key());
    let defaults = [
        ("audience", r#""default""#),
        ("root_keys", &root_keys),
        ("control_plane", r#"{ "cluster": "keystile" }"#),
        ("tokens", r#"{ "issuer": "https://keystile.local", "audiences": ["api"] }"#),
        (
            "credentials",
            r#"[{ "header": "authorization", "scheme": "Bearer" }, { "header": "x-api-token" }]"#,
        ),
    ];
    let kept = defaults.iter().filter(|(name, _)| overrides.get(name).is_none());
    kept.map(|(name, value)| format!("\"{name}\": {value}")).collect()
}

pub(crate) fn refresh() -> Refresh {
    Refresh::new(vec![root().public_key()], "default".into(), 15, 300, MinimumPosition::default())
}

pub(crate) fn gate() -> Gate {
    Gate::new(Policy::from_json(configuration().as_bytes()).unwrap())
}

pub(crate) fn claims() -> Claims {
    Claims {
        iss: "https://keystile.local".into(),
        sub: "OP0123456789/alice".into(),
        aud: vec!["api".into()],
        iat: NOW - 10,
        exp: Some(NOW + 3600),
        nbf: None,
        jti: "j".into(),
        operator: Operator { operator_id: "OP0123456789".into() },
        akid: Some("keyId-1".into()),
        sid: Some("api-1".into()),
    }
}

/// Parses the default configuration with more members or other values.
pub(crate) fn policy(more: &str) -> Result<Policy, String> {
    policy_with_env(more, "KEYSTILE_ASSERTION=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\0")
}

/// Parses the default configuration with more members or other values, and with these environment variables.
pub(crate) fn policy_with_env(more: &str, environment: &str) -> Result<Policy, String> {
    let configuration = format!("{{ {more}, {} }}", members(more).join(","));
    let environment = Environment::from_block(environment.into());
    Policy::from_json_with_env(configuration.as_bytes(), &environment).map_err(|error| error.to_string())
}

pub(crate) fn gate_with(members: &str) -> Gate {
    Gate::new(policy(members).unwrap_or_else(|error| panic!("{members}: {error}")))
}

pub(crate) fn bearer(claims: &Claims) -> String {
    format!("Bearer {}", signing_key().mint(claims).expose())
}

pub(crate) fn alice_bearer() -> String {
    bearer(&claims())
}

pub(crate) fn set_grant(builder: &mut Builder, subject: &str, statements: &str) {
    let permissions = Permissions::from_json(statements.as_bytes()).unwrap();
    builder.set_grant(subject, permissions.as_bytes()).unwrap();
}

/// Returns the decision in one word, or the code of the refusal.
pub(crate) fn decision_code(
    gate: &Gate,
    snapshot: Option<&Snapshot>,
    line: &str,
    more: &[(&str, &str)],
) -> &'static str {
    decision_code_at(gate, snapshot, line, more, NOW_MS)
}

pub(crate) fn decision_code_at(
    gate: &Gate,
    snapshot: Option<&Snapshot>,
    line: &str,
    more: &[(&str, &str)],
    now: u64,
) -> &'static str {
    let (method, path) = line.split_once(' ').unwrap();
    let first = [(":method", method), (":path", path), (":authority", "api.example.com:8443")];
    let headers = first.iter().chain(more).map(|(name, value)| (*name, value.as_bytes()));
    match gate.decide(headers, snapshot, now) {
        Decision::Admit(_) => "admitted",
        Decision::Pass(PassReason::Public(_)) => "public",
        Decision::Pass(PassReason::Anonymous(_)) => "anonymous",
        Decision::Pass(PassReason::Preflight(_)) => "preflight",
        Decision::Pass(PassReason::Reported(refusal)) => panic!("{refusal:?} is not enforced"),
        Decision::Refuse(refusal) => refusal.reason().code(),
    }
}

/// Returns the headers that the upstream receives, applied like a host does.
pub(crate) fn forwarded_headers<'a>(
    gate: &'a Gate,
    headers: &Headers<'a>,
    decision: &'a Decision,
) -> Vec<ForwardedHeader<'a>> {
    let mut all: Vec<ForwardedHeader<'a>> =
        headers.iter().map(|(name, value)| (*name, Cow::Borrowed(*value))).collect();
    match gate.forward_headers(headers, decision, NOW_MS) {
        Forward::Unchanged => all,
        Forward::Edited { removed, added } => {
            all.retain(|(name, _)| !removed.iter().any(|removed| name.eq_ignore_ascii_case(removed)));
            all.extend(added);
            all
        }
        Forward::ReplaceAll(replacement) => replacement,
    }
}
