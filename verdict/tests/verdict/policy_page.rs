//! POLICY.md and the parser say the same.

use std::collections::BTreeSet;

use crate::world::policy;

const PAGE: &str = include_str!("../../POLICY.md");

#[test]
fn the_example_is_a_policy() {
    let (_, rest) = PAGE.split_once("```json\n{").unwrap();
    let (members, _) = rest.split_once("}\n```").unwrap();
    let read = policy(members.trim_end()).unwrap();
    assert_eq!(read.rules.len(), 6);
}

/// The members that the error names where one is unknown.
fn known(members: &str) -> BTreeSet<String> {
    let error = policy(members).unwrap_err();
    let (_, offered) = error.split_once("expected ").unwrap_or_else(|| panic!("{error}"));
    offered.split('`').skip(1).step_by(2).map(Into::into).collect()
}

/// The first column of the first table under a heading.
fn listed(heading: &str) -> BTreeSet<String> {
    let (_, section) = PAGE.split_once(heading).unwrap_or_else(|| panic!("{heading}"));
    let rows = section.lines().skip_while(|line| !line.starts_with("| member")).skip(2);
    rows.take_while(|line| line.starts_with('|')).map(|line| line.split('`').nth(1).unwrap().into()).collect()
}

#[test]
fn every_member_is_listed_and_no_other() {
    for (heading, probe) in [
        ("## A member of `credentials`", r#""credentials": [{ "?": 1 }]"#),
        ("## `api_keys`", r#""api_keys": { "?": 1 }"#),
        ("## A member of `issuers`", r#""issuers": [{ "?": 1 }]"#),
        ("## `identity`", r#""identity": { "?": 1 }"#),
        ("## `assertion`", r#""identity": { "assertion": { "?": 1 } }"#),
        ("## A member of `rules`", r#""rules": [{ "?": 1 }]"#),
        ("## `operations`", r#""rules": [{ "operations": { "?": 1 } }]"#),
        ("## `client_address`", r#""client_address": { "?": 1 }"#),
        ("## `answers`", r#""answers": { "?": 1 }"#),
    ] {
        assert_eq!(known(probe), listed(heading), "{heading}");
    }
    let all = known(r#""?": 1"#);
    let here = listed("# Policy");
    assert!(here.is_subset(&all), "{here:?}");
    let elsewhere = [
        "audience",
        "root_keys",
        "min_epoch",
        "min_version",
        "control_plane",
        "max_manifest_lifetime_seconds",
        "tokens",
        "identity_prefix",
        "strip_credential",
        "outage_grace_seconds",
        "realm",
        "allow_inline_secrets",
    ];
    assert_eq!(all.difference(&here).map(String::as_str).collect::<BTreeSet<_>>(), BTreeSet::from(elsewhere));
}
