//! One fuzz target per decoder: a short run of each in `cargo test`, a long one by `cargo bolero test`.
//!
//! Each is given arbitrary bytes and a valid encoding with arbitrary edits, behind a right hash or signature: what an
//! edge would meet if the publisher itself went wrong.

use bolero::check;
use bundle::{
    Entry, Kind, Manifest, Objects, Scope, Snapshot, base,
    builder::{Builder, Draft, Publisher},
};
use token::{Fingerprint, mint::SigningKey};

type Edits = Vec<(u16, u8)>;

fn valid() -> Vec<(Entry, Vec<u8>)> {
    let mut builder = Builder::default();
    builder.keys([SigningKey::ed25519("k1", &[2; 32]).unwrap().verifying_key()]).unwrap();
    builder.secret_keys([("k2", &[3; 32][..])]).unwrap();
    for number in 0..300u64 {
        builder.revoke(Fingerprint::of(&number.to_be_bytes())).unwrap();
        builder.watermark(Scope::User(&number.to_string()), number);
        builder.grant(&number.to_string(), &number.to_be_bytes()[7 - usize::from(number > 99)..]).unwrap();
    }
    builder.build().unwrap().objects.into_iter().map(|(entry, bytes)| (entry, bytes.to_vec())).collect()
}

fn edited(bytes: &[u8], edits: &Edits) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, byte) in edits {
        match usize::from(*at) % (bytes.len() + 1) {
            at if at == bytes.len() => bytes.push(*byte),
            at if at % 5 == 0 => drop(bytes.remove(at)),
            at => bytes[at] = *byte,
        }
    }
    bytes
}

/// Opens the object, and asks it everything if it opens.
fn object(kind: Kind, bytes: Vec<u8>) {
    let Some(entry) = Entry::of(kind, 0, &bytes) else { return };
    let mut others = valid();
    others.retain(|(other, _)| other.kind() != kind);
    others.push((entry, bytes));
    others.sort_by_key(|(entry, _)| *entry);
    let mut objects = Objects::default();
    for (entry, bytes) in &others {
        if objects.open(*entry, bytes.clone()).is_err() {
            return;
        }
    }
    let entries: Vec<Entry> = others.iter().map(|(entry, _)| *entry).collect();
    let publisher = Publisher::new(&[1; 32]);
    let draft = Draft { audience: "a", version: 1, issued_at: 1, expires_at: 2, entries: &entries };
    let manifest = Manifest::open(&publisher.sign(&draft).unwrap(), &[publisher.public_key()], "a").unwrap();
    let Ok(snapshot) = Snapshot::assemble(manifest, &objects) else { return };
    for number in 0..310u64 {
        let _ = snapshot.standing(&Fingerprint::of(&number.to_be_bytes()));
        let _ = snapshot.watermark([Scope::User(&number.to_string())]);
        let _ = snapshot.grant(&number.to_string());
    }
    for extreme in [[0; 32], [255; 32]] {
        let _ = snapshot.standing(&Fingerprint::from(extreme));
    }
}

macro_rules! object_targets {
    ($($name:ident: $kind:expr),* $(,)?) => {$(
        #[test]
        fn $name() {
            let valid = valid();
            let bytes = valid.iter().find(|(entry, _)| entry.kind() == $kind).map_or(&[][..], |(_, bytes)| bytes);
            check!().with_type::<(Vec<u8>, Edits)>().for_each(|(arbitrary, edits)| {
                object($kind, arbitrary.clone());
                object($kind, edited(bytes, edits));
            });
        }
    )*};
}

object_targets! {
    keys: Kind::Keys,
    secret_keys: Kind::SecretKeys,
    revocations: Kind::Revocations,
    watermarks: Kind::Watermarks,
    index: Kind::Index,
    grants: Kind::Grants,
}

/// Not yet an object of a bundle, so read on its own.
#[test]
fn base() {
    let fingerprint = |number: u64| Fingerprint::of(&number.to_be_bytes());
    let members = |numbers: std::ops::Range<u64>| numbers.map(fingerprint).filter(|f| f.prefix() >> 63 == 0);
    let sets = [(0, 0), (5, 20), (90, 800)];
    let valids = sets.map(|(revoked, all)| {
        base::build(1, 0, b"", members(0..revoked), members(revoked..all)).unwrap().bytes().to_vec()
    });
    check!().with_type::<(Vec<u8>, Edits)>().for_each(|(arbitrary, edits)| {
        let edited = valids.iter().map(|valid| edited(valid, edits));
        for bytes in edited.chain([arbitrary.clone()]) {
            let Ok(shard) = base::Shard::read(bytes.clone(), 0) else { continue };
            assert_eq!(shard.bytes(), bytes, "one spelling");
            for fingerprint in (0..50).map(fingerprint).chain([[0; 32].into(), [255; 32].into()]) {
                let _ = shard.contains(&fingerprint);
            }
        }
    });
}

#[test]
fn manifest() {
    let publisher = Publisher::new(&[1; 32]);
    let entries: Vec<Entry> = valid().into_iter().map(|(entry, _)| entry).collect();
    let draft = Draft { audience: "a", version: 1, issued_at: 1, expires_at: 2, entries: &entries };
    let valid = publisher.sign(&draft).unwrap();
    let open = |bytes: &[u8]| Manifest::open(bytes, &[publisher.public_key()], "a");
    check!().with_type::<(Vec<u8>, Edits)>().for_each(|(arbitrary, edits)| {
        assert!(open(arbitrary).is_err(), "nobody signed it");
        let _ = open(&publisher.sign_body(arbitrary.clone()));
        let body = edited(&valid[..valid.len() - 64], edits);
        if let Ok(manifest) = open(&publisher.sign_body(body.clone())) {
            assert_eq!(&manifest.bytes()[..body.len()], body, "one spelling");
        }
    });
}
