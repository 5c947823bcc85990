//! Signing keys, signed messages, and an edge that fetches objects.

use std::sync::Arc;

use bundle::{
    Delegation, Entry, Manifest, ManifestError, Objects, RevocationStatus, Snapshot,
    builder::{
        Builder, BuiltBundle, CheckpointFields, DelegationFields, ManifestFields, RootKey, SnapshotKey,
        TailKey,
    },
};
use token::{Fingerprint, mint::SigningKey};

pub(crate) type Object = (Entry, Arc<[u8]>);

/// Milliseconds since the Unix epoch.
pub(crate) const NOW: u64 = 1_700_000_000_000;

pub(crate) fn root() -> RootKey {
    RootKey::new(&[1; 32])
}

pub(crate) fn snapshot_key() -> SnapshotKey {
    SnapshotKey::new(&[2; 32])
}

pub(crate) fn tail_key() -> TailKey {
    TailKey::new(&[3; 32])
}

pub(crate) fn delegation(epoch: u64) -> Vec<u8> {
    delegation_to(epoch, &snapshot_key(), &tail_key())
}

pub(crate) fn delegation_to(epoch: u64, snapshot_key: &SnapshotKey, tail_key: &TailKey) -> Vec<u8> {
    let fields = DelegationFields {
        audience: "default",
        epoch,
        issued_at: NOW,
        expires_at: NOW + 1_000_000_000,
        snapshot_keys: &[snapshot_key.public_key()],
        tail_keys: &[tail_key.public_key()],
    };
    root().delegate(&fields).unwrap()
}

pub(crate) fn checkpoint(built: &BuiltBundle, version: u64) -> Object {
    checkpoint_of(&built.checkpoint, version, built.covered_until)
}

pub(crate) fn checkpoint_of(entries: &[Entry], version: u64, covered_until: u64) -> Object {
    let fields = CheckpointFields {
        audience: "default",
        version,
        issued_at: NOW,
        expires_at: NOW + 86_400_000,
        covered_until,
        entries,
    };
    snapshot_key().sign(&fields).unwrap()
}

pub(crate) fn sign_manifest(checkpoint: &Object, tail: &[Entry], version: u64) -> Vec<u8> {
    let delegation = delegation(1);
    let fields = ManifestFields {
        delegation: &delegation,
        version,
        issued_at: NOW,
        expires_at: NOW + 60_000,
        checkpoint: checkpoint.0,
        tail,
    };
    tail_key().sign(&fields).unwrap()
}

pub(crate) fn open_manifest(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    Manifest::open(bytes, &[root().public_key()], "default")
}

pub(crate) fn open_delegation() -> Delegation {
    Delegation::open(&delegation(1), &[root().public_key()], "default").unwrap()
}

/// Returns a builder with keys, because a bundle without keys is incomplete.
pub(crate) fn builder() -> Builder {
    let mut builder = Builder::default();
    builder.set_verifying_keys([SigningKey::ed25519("k1", &[2; 32]).unwrap().verifying_key()]).unwrap();
    builder.set_secret_keys([("k2", &[3; 32][..])]).unwrap();
    builder
}

pub(crate) fn build_with_checkpoint(builder: &mut Builder) -> BuiltBundle {
    builder.checkpoint(0).unwrap();
    builder.build().unwrap()
}

/// Fetches the missing objects until none is missing, as an edge does.
pub(crate) fn fetch(manifest: &Manifest, objects: &[&[Object]]) -> Objects {
    let mut held = Objects::default();
    loop {
        let missing = held.missing(manifest, NOW);
        if missing.is_empty() {
            return held;
        }
        for entry in missing {
            let (_, bytes) = objects.iter().copied().flatten().find(|(built, _)| *built == entry).unwrap();
            held.open(manifest, entry, bytes.to_vec()).unwrap();
        }
    }
}

pub(crate) fn snapshot_of(built: &BuiltBundle) -> Snapshot {
    let checkpoint = checkpoint(built, 1);
    let manifest = open_manifest(&sign_manifest(&checkpoint, &built.tail, 1)).unwrap();
    let objects = fetch(&manifest, &[&built.objects, &[checkpoint]]);
    Snapshot::assemble(manifest, &objects, NOW).unwrap()
}

/// Returns the status of a credential that no base covers.
pub(crate) fn uncovered_status(snapshot: &Snapshot, fingerprint: &Fingerprint) -> RevocationStatus {
    snapshot.revocation_status(fingerprint, "", 0, None)
}

pub(crate) fn fingerprint(number: u64) -> Fingerprint {
    Fingerprint::digest(&number.to_be_bytes())
}

/// Asserts that `lines` are the committed vectors. Edges read the bytes of older builders, so a change of the format must
/// change its version, never these vectors. With KEYSTILE_WRITE_VECTORS set, writes the file instead.
pub(crate) fn assert_vectors(file: &str, lines: &str) {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("KEYSTILE_WRITE_VECTORS").is_some() {
        std::fs::write(&path, lines).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), lines);
}
