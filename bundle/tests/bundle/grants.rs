//! What subjects were granted is found again, and nothing else.

use std::collections::BTreeMap;

use bundle::{Entry, Kind, MAX_GRANT_BYTES, Snapshot, builder::Built};
use proptest::prelude::*;

use crate::world::{NOW, builder, checkpoint_of, fetch, fetched, open, settled, signed};

fn grants(built: &Built) -> usize {
    built.objects.iter().filter(|(entry, _)| entry.kind() == Kind::Grants).count()
}

#[test]
fn nobody_has_a_grant_until_it_is_given() {
    let mut builder = builder();
    let built = settled(&mut builder);
    assert_eq!(grants(&built), 0, "a bundle without grants is the one that older edges read");
    assert_eq!(fetched(&built).grant("OP1/alice"), None);

    assert_eq!(builder.grant("OP1/alice", b"one"), Ok(true));
    assert_eq!(builder.grant("OP1/alice", b"one"), Ok(false));
    assert_eq!(builder.grant("OP1/bob", b""), Ok(true));
    let snapshot = fetched(&settled(&mut builder));
    assert_eq!(snapshot.grant("OP1/alice"), Some(&b"one"[..]));
    assert_eq!(snapshot.grant("OP1/bob"), Some(&b""[..]), "a grant of nothing is a grant");
    assert_eq!(snapshot.grant("OP1/carol"), None);

    assert_eq!(builder.grant("OP1/alice", b"two"), Ok(true));
    assert!(builder.ungrant("OP1/bob") && !builder.ungrant("OP1/bob"));
    let snapshot = fetched(&settled(&mut builder));
    assert_eq!((snapshot.grant("OP1/alice"), snapshot.grant("OP1/bob")), (Some(&b"two"[..]), None));

    assert!(builder.ungrant("OP1/alice"));
    assert_eq!(grants(&settled(&mut builder)), 0);
}

#[test]
fn a_change_touches_one_object() {
    let mut builder = builder();
    for number in 0..2000 {
        builder.grant(&format!("OP1/{number}"), format!("{number}").repeat(30).as_bytes()).unwrap();
    }
    let before = settled(&mut builder);
    assert!(grants(&before) > 4);
    builder.grant("OP1/7", b"other").unwrap();
    let after = settled(&mut builder);
    let changed = after.objects.iter().filter(|(entry, _)| !before.checkpoint.contains(entry)).count();
    assert_eq!(changed, 1);
}

#[test]
fn a_shard_without_its_neighbours_is_no_set() {
    let mut builder = builder();
    for number in 0..2000 {
        builder.grant(&format!("OP1/{number}"), &[7; 100][..number % 100]).unwrap();
    }
    let built = settled(&mut builder);
    for left_out in built.checkpoint.iter().filter(|entry| entry.kind() == Kind::Grants) {
        let named: Vec<Entry> = built.checkpoint.iter().filter(|entry| *entry != left_out).copied().collect();
        let checkpoint = checkpoint_of(&named, 1, 0);
        let manifest = open(&signed(&checkpoint, &[], 1)).unwrap();
        let objects = fetch(&manifest, &[&built.objects, &[checkpoint]]);
        assert!(Snapshot::assemble(manifest, &objects, NOW).is_err());
    }
}

#[test]
fn subjects_share_what_is_the_same() {
    let mut builder = builder();
    let role = [9; 8000];
    for number in 0..500 {
        builder.grant(&format!("OP1/{number}"), &role).unwrap();
    }
    let built = settled(&mut builder);
    let bytes: usize = built.objects.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes < 130 * (role.len() + 100), "{bytes}");
    let snapshot = fetched(&built);
    assert!((0..500).all(|number| snapshot.grant(&format!("OP1/{number}")) == Some(&role[..])));
}

#[test]
fn the_largest_grants_fit_and_larger_ones_are_refused() {
    let mut builder = builder();
    for number in 0..64u8 {
        assert_eq!(builder.grant(&number.to_string(), &[number; MAX_GRANT_BYTES]), Ok(true));
    }
    assert!(builder.grant("x", &[0; MAX_GRANT_BYTES + 1]).is_err());
    let snapshot = fetched(&settled(&mut builder));
    for number in 0..64u8 {
        assert_eq!(snapshot.grant(&number.to_string()), Some(&[number; MAX_GRANT_BYTES][..]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_grants_are_found_again(
        steps in prop::collection::vec(("[a-z]{1,2}", prop::option::of(prop::collection::vec(0..3_u8, 0..300))), 0..300),
    ) {
        let mut builder = builder();
        let mut expected: BTreeMap<&str, &[u8]> = BTreeMap::new();
        for (at, (subject, grant)) in steps.iter().enumerate() {
            match grant {
                Some(grant) => {
                    let new = expected.insert(subject, grant) != Some(grant);
                    prop_assert_eq!(builder.grant(subject, grant), Ok(new));
                }
                None => prop_assert_eq!(builder.ungrant(subject), expected.remove(&subject[..]).is_some()),
            }
            if at % 50 == 0 {
                settled(&mut builder);
            }
        }
        let snapshot = fetched(&settled(&mut builder));
        for (subject, _) in &steps {
            prop_assert_eq!(snapshot.grant(subject), expected.get(&subject[..]).copied());
        }
    }
}
