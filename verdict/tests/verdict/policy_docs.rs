//! POLICY.md agrees with the parser, and docs/errors.md with the reasons.

use std::collections::BTreeSet;

use verdict::Reason;

use crate::fixtures::policy;

const PAGE: &str = include_str!("../../POLICY.md");

#[test]
fn the_example_is_valid() {
    let (_, rest) = PAGE.split_once("```json\n{").unwrap();
    let (members, _) = rest.split_once("}\n```").unwrap();
    let read = policy(members.trim_end()).unwrap();
    assert_eq!(read.rules.len(), 6);
}

/// Returns the members that the error for an unknown member lists.
fn known_members(members: &str) -> BTreeSet<String> {
    let error = policy(members).unwrap_err();
    let (_, offered) = error.split_once("expected ").unwrap_or_else(|| panic!("{error}"));
    offered.split('`').skip(1).step_by(2).map(Into::into).collect()
}

/// Returns the first column of the first table under a heading.
fn listed_members(heading: &str) -> BTreeSet<String> {
    let (_, section) = PAGE.split_once(heading).unwrap_or_else(|| panic!("{heading}"));
    let rows = section.lines().skip_while(|line| !line.starts_with("| member")).skip(2);
    rows.take_while(|line| line.starts_with('|')).map(|line| line.split('`').nth(1).unwrap().into()).collect()
}

#[test]
fn exactly_the_known_members_are_listed() {
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
        assert_eq!(known_members(probe), listed_members(heading), "{heading}");
    }
    let all = known_members(r#""?": 1"#);
    let here = listed_members("# Policy");
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
        "outage_grace_seconds",
        "realm",
        "allow_inline_secrets",
    ];
    assert_eq!(all.difference(&here).map(String::as_str).collect::<BTreeSet<_>>(), BTreeSet::from(elsewhere));
}

/// `docs/errors.md` has one row for each reason, in the order of [`Reason::ALL`].
#[test]
fn errors_page_lists_exactly_the_reasons() {
    let page = include_str!("../../../docs/errors.md");
    let rows = page.lines().skip_while(|line| !line.starts_with("| code |")).skip(2);
    let listed: Vec<(&str, u16)> = rows
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let columns: Vec<&str> = line.split('|').map(str::trim).collect();
            (columns[1].trim_matches('`'), columns[2].parse().unwrap())
        })
        .collect();
    let reasons: Vec<(&str, u16)> = Reason::ALL.map(|reason| (reason.code(), reason.status())).to_vec();
    assert_eq!(listed, reasons);
}
