//! Watermarks of issuers, clients, sessions and tokens of other issuers, and what they require of an edge.

use bundle::{
    Entry, Malformed, ObjectError, ObjectKind, Scope,
    builder::{Builder, BuiltBundle},
};

use crate::fixtures::{build_with_checkpoint, builder, open_delegation, snapshot_of};

const SCOPES: [Scope<'static>; 4] = [
    Scope::Issuer("https://idp.example"),
    Scope::Client("https://idp.example#x"),
    Scope::IssuerSession("https://idp.example#x"),
    Scope::TokenId("https://idp.example#x"),
];

fn requires_holders(built: &BuiltBundle) -> bool {
    built.checkpoint.iter().any(|entry| entry.kind() == ObjectKind::Requirements)
}

#[test]
fn holder_scopes_are_distinct_and_require_edges_that_check_them() {
    for scope in SCOPES {
        let mut builder = builder();
        let before = build_with_checkpoint(&mut builder);
        assert!(!requires_holders(&before), "older edges read a bundle without such scopes");
        assert!(!snapshot_of(&before).has_holders());

        // The tail cannot carry the requirement, so the first watermark needs a checkpoint, and later ones do not.
        assert!(builder.raise_watermark(1, scope, 7));
        assert!(builder.needs_checkpoint());
        // An edge that gets it in the tail checks it nevertheless.
        let snapshot = snapshot_of(&builder.build().unwrap());
        assert!(snapshot.has_holders());
        assert_eq!(snapshot.watermark([scope]), Some(7));
        builder.checkpoint(1).unwrap();
        assert!(builder.raise_watermark(2, scope, 9) && !builder.needs_checkpoint());
        let built = builder.build().unwrap();
        assert!(requires_holders(&built) && built.tail.len() == 1);
        let snapshot = snapshot_of(&built);
        assert!(snapshot.has_holders());
        for other in SCOPES {
            assert_eq!(snapshot.watermark([other]), (other == scope).then_some(9), "{scope:?} {other:?}");
        }

        // Without the last such scope, the requirement ends with the next checkpoint.
        assert!(builder.remove_watermark(scope) && builder.needs_checkpoint());
        let built = build_with_checkpoint(&mut builder);
        assert!(!requires_holders(&built));
        assert_eq!(snapshot_of(&built).watermark([scope]), None);
    }
}

/// Edges of every version agree about most subjects of other issuers.
#[test]
fn only_subjects_that_older_edges_confuse_require_newer_ones() {
    let changes: [fn(&mut Builder, &str); 2] = [
        |builder, subject| assert!(builder.raise_watermark(1, Scope::User(subject), 7)),
        |builder, subject| assert_eq!(builder.set_grant(subject, b"grant"), Ok(true)),
    ];
    for (subject, expected) in [
        ("OP0123456789/alice", false),
        ("https://idp.example#u-1", false),
        ("https://idp.example/a%20b#u-1", false),
        ("https://idp.example#a#b", true),
        ("https://idp.example%23a#b", true),
        ("https://idp.example%2523#b", true),
    ] {
        for change in changes {
            let mut builder = builder();
            change(&mut builder, subject);
            assert_eq!(requires_holders(&build_with_checkpoint(&mut builder)), expected, "{subject}");
            builder.remove_watermark(Scope::User(subject));
            builder.remove_grant(subject);
            assert!(!requires_holders(&build_with_checkpoint(&mut builder)), "{subject}");
        }
    }
}

#[test]
fn unknown_requirements_are_rejected() {
    for (bytes, is_known) in
        [(&[1][..], true), (&[0], false), (&[2], false), (&[3], false), (&[], false), (&[1, 0], false)]
    {
        let entry = Entry::for_bytes(ObjectKind::Requirements, 0, bytes).unwrap();
        match entry.open(bytes.to_vec(), &open_delegation()) {
            Ok(_) => assert!(is_known, "{bytes:?}"),
            Err(ObjectError::Malformed(Malformed(_))) => assert!(!is_known, "{bytes:?}"),
            Err(error) => panic!("{bytes:?}: {error}"),
        }
    }
}
