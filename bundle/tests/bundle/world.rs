//! Keys that sign, and an edge that fetches.

use std::sync::Arc;

use bundle::{
    Delegation, Entry, Manifest, ManifestError, Objects, Snapshot, Standing,
    builder::{Builder, Built, CheckpointDraft, Delegates, Draft, Root, SnapshotKey, TailKey},
};
use token::{Fingerprint, mint::SigningKey};

pub(crate) type Object = (Entry, Arc<[u8]>);

/// Milliseconds.
pub(crate) const NOW: u64 = 1_700_000_000_000;

pub(crate) fn root() -> Root {
    Root::new(&[1; 32])
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
    let delegates = Delegates {
        audience: "default",
        epoch,
        issued_at: NOW,
        expires_at: NOW + 1_000_000_000,
        snapshot_keys: &[snapshot_key.public_key()],
        tail_keys: &[tail_key.public_key()],
    };
    root().delegate(&delegates).unwrap()
}

pub(crate) fn checkpoint(built: &Built, version: u64) -> Object {
    checkpoint_of(&built.checkpoint, version, built.cut)
}

pub(crate) fn checkpoint_of(entries: &[Entry], version: u64, cut: u64) -> Object {
    let draft = CheckpointDraft {
        audience: "default",
        version,
        issued_at: NOW,
        expires_at: NOW + 86_400_000,
        cut,
        entries,
    };
    snapshot_key().sign(&draft).unwrap()
}

pub(crate) fn signed(checkpoint: &Object, tail: &[Entry], version: u64) -> Vec<u8> {
    let delegation = delegation(1);
    let draft = Draft {
        delegation: &delegation,
        version,
        issued_at: NOW,
        expires_at: NOW + 60_000,
        checkpoint: checkpoint.0,
        tail,
    };
    tail_key().sign(&draft).unwrap()
}

pub(crate) fn open(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    Manifest::open(bytes, &[root().public_key()], "default")
}

pub(crate) fn opened_delegation() -> Delegation {
    Delegation::open(&delegation(1), &[root().public_key()], "default").unwrap()
}

/// With a key, without which there is no bundle.
pub(crate) fn builder() -> Builder {
    let mut builder = Builder::default();
    builder.keys([SigningKey::ed25519("k1", &[2; 32]).unwrap().verifying_key()]).unwrap();
    builder.secret_keys([("k2", &[3; 32][..])]).unwrap();
    builder
}

pub(crate) fn settled(builder: &mut Builder) -> Built {
    builder.settle(0).unwrap();
    builder.build().unwrap()
}

/// What an edge does: fetch what is missing until nothing is.
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

pub(crate) fn fetched(built: &Built) -> Snapshot {
    let checkpoint = checkpoint(built, 1);
    let manifest = open(&signed(&checkpoint, &built.tail, 1)).unwrap();
    let objects = fetch(&manifest, &[&built.objects, &[checkpoint]]);
    Snapshot::assemble(manifest, &objects, NOW).unwrap()
}

/// Of a credential that no base covers.
pub(crate) fn standing(snapshot: &Snapshot, fingerprint: &Fingerprint) -> Standing {
    snapshot.standing(fingerprint, "", 0, None)
}

pub(crate) fn fingerprint(number: u64) -> Fingerprint {
    Fingerprint::of(&number.to_be_bytes())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `lines` are the committed ones. Edges read what an older builder wrote: a change of a format must change its
/// version, never these.
pub(crate) fn assert_vectors(file: &str, lines: &str) {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("KEYSTILE_WRITE_VECTORS").is_some() {
        std::fs::write(&path, lines).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), lines);
}
