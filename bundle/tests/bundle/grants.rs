//! Grants round-trip through a bundle.

use std::collections::BTreeMap;

use bundle::{Entry, MAX_GRANT_BYTES, ObjectKind, Snapshot, builder::BuiltBundle};
use proptest::prelude::*;

use crate::fixtures::{
    NOW, build_with_checkpoint, builder, checkpoint_of, fetch, open_manifest, sign_manifest, snapshot_of,
};

fn grants(built: &BuiltBundle) -> usize {
    built.objects.iter().filter(|(entry, _)| entry.kind() == ObjectKind::Grants).count()
}

#[test]
fn grants_are_set_replaced_and_removed() {
    let mut builder = builder();
    let built = build_with_checkpoint(&mut builder);
    assert_eq!(grants(&built), 0, "without grants there is no object that older edges do not know");
    assert_eq!(snapshot_of(&built).grant("OP1/alice"), None);

    assert_eq!(builder.set_grant("OP1/alice", b"one"), Ok(true));
    assert_eq!(builder.set_grant("OP1/alice", b"one"), Ok(false));
    assert_eq!(builder.set_grant("OP1/bob", b""), Ok(true));
    let snapshot = snapshot_of(&build_with_checkpoint(&mut builder));
    assert_eq!(snapshot.grant("OP1/alice"), Some(&b"one"[..]));
    assert_eq!(snapshot.grant("OP1/bob"), Some(&b""[..]), "an empty grant is a grant");
    assert_eq!(snapshot.grant("OP1/carol"), None);

    assert_eq!(builder.set_grant("OP1/alice", b"two"), Ok(true));
    assert!(builder.remove_grant("OP1/bob") && !builder.remove_grant("OP1/bob"));
    let snapshot = snapshot_of(&build_with_checkpoint(&mut builder));
    assert_eq!((snapshot.grant("OP1/alice"), snapshot.grant("OP1/bob")), (Some(&b"two"[..]), None));

    assert!(builder.remove_grant("OP1/alice"));
    assert_eq!(grants(&build_with_checkpoint(&mut builder)), 0);
}

#[test]
fn changed_grant_changes_one_object() {
    let mut builder = builder();
    for number in 0..2000 {
        builder.set_grant(&format!("OP1/{number}"), format!("{number}").repeat(30).as_bytes()).unwrap();
    }
    let before = build_with_checkpoint(&mut builder);
    assert!(grants(&before) > 4);
    builder.set_grant("OP1/7", b"other").unwrap();
    let after = build_with_checkpoint(&mut builder);
    let changed = after.objects.iter().filter(|(entry, _)| !before.checkpoint.contains(entry)).count();
    assert_eq!(changed, 1);
}

#[test]
fn missing_grant_shard_makes_a_bundle_incomplete() {
    let mut builder = builder();
    for number in 0..2000 {
        builder.set_grant(&format!("OP1/{number}"), &[7; 100][..number % 100]).unwrap();
    }
    let built = build_with_checkpoint(&mut builder);
    for left_out in built.checkpoint.iter().filter(|entry| entry.kind() == ObjectKind::Grants) {
        let named: Vec<Entry> = built.checkpoint.iter().filter(|entry| *entry != left_out).copied().collect();
        let checkpoint = checkpoint_of(&named, 1, 0);
        let manifest = open_manifest(&sign_manifest(&checkpoint, &[], 1)).unwrap();
        let objects = fetch(&manifest, &[&built.objects, &[checkpoint]]);
        assert!(Snapshot::assemble(manifest, &objects, NOW).is_err());
    }
}

#[test]
fn equal_grants_are_stored_once() {
    let mut builder = builder();
    let role = [9; 8000];
    for number in 0..500 {
        builder.set_grant(&format!("OP1/{number}"), &role).unwrap();
    }
    let built = build_with_checkpoint(&mut builder);
    let bytes: usize = built.objects.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes < 130 * (role.len() + 100), "{bytes}");
    let snapshot = snapshot_of(&built);
    assert!((0..500).all(|number| snapshot.grant(&format!("OP1/{number}")) == Some(&role[..])));
}

#[test]
fn grants_up_to_the_size_limit_are_accepted() {
    let mut builder = builder();
    for number in 0..64u8 {
        assert_eq!(builder.set_grant(&number.to_string(), &[number; MAX_GRANT_BYTES]), Ok(true));
    }
    assert!(builder.set_grant("x", &[0; MAX_GRANT_BYTES + 1]).is_err());
    let snapshot = snapshot_of(&build_with_checkpoint(&mut builder));
    for number in 0..64u8 {
        assert_eq!(snapshot.grant(&number.to_string()), Some(&[number; MAX_GRANT_BYTES][..]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_grants_round_trip(
        steps in prop::collection::vec(("[a-z]{1,2}", prop::option::of(prop::collection::vec(0..3_u8, 0..300))), 0..300),
    ) {
        let mut builder = builder();
        let mut expected: BTreeMap<&str, &[u8]> = BTreeMap::new();
        for (at, (subject, grant)) in steps.iter().enumerate() {
            match grant {
                Some(grant) => {
                    let new = expected.insert(subject, grant) != Some(grant);
                    prop_assert_eq!(builder.set_grant(subject, grant), Ok(new));
                }
                None => prop_assert_eq!(builder.remove_grant(subject), expected.remove(&subject[..]).is_some()),
            }
            if at % 50 == 0 {
                build_with_checkpoint(&mut builder);
            }
        }
        let snapshot = snapshot_of(&build_with_checkpoint(&mut builder));
        for (subject, _) in &steps {
            prop_assert_eq!(snapshot.grant(subject), expected.get(&subject[..]).copied());
        }
    }
}
