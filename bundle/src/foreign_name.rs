//! Names of subjects, clients, sessions and tokens of other issuers: `ISSUER#NAME`.
//!
//! The issuer ends at the first `#`. In it, `#` is written `%23`, and a `%` before `23` or `25` is written `%25`. The name
//! is written as it is. So two different pairs of issuer and name are never written alike, regardless of the characters that an
//! issuer puts into a claim. A name of this deployment contains no `#` and is never written like one of another issuer.

use alloc::string::String;

/// The longest name, in bytes. A token with a subject whose name is longer is refused, so that each subject can be revoked.
pub const MAX_FOREIGN_NAME_BYTES: usize = 2048;

/// Returns the name of something that another issuer names in a claim.
///
/// ```
/// assert_eq!(bundle::foreign_name("https://idp.example", "u-1"), "https://idp.example#u-1");
/// assert_eq!(bundle::foreign_name("a#b", "c"), "a%23b#c");
/// assert_eq!(bundle::foreign_name("a", "b#c"), "a#b#c");
/// ```
pub fn foreign_name(issuer: &str, name: &str) -> String {
    let mut out = String::with_capacity(issuer.len().saturating_add(name.len()).saturating_add(1));
    let mut rest = issuer.chars();
    while let Some(character) = rest.next() {
        match character {
            '#' => out.push_str("%23"),
            '%' if matches!(rest.as_str().as_bytes(), [b'2', b'3' | b'5', ..]) => out.push_str("%25"),
            other => out.push(other),
        }
    }
    out.push('#');
    out.push_str(name);
    out
}

/// Returns the issuer and the name of a [`foreign_name`], or `None` for any other text: each pair has one spelling.
#[cfg(feature = "builder")]
pub fn split_foreign_name(text: &str) -> Option<(String, &str)> {
    let (written, name) = text.split_once('#')?;
    let mut issuer = String::new();
    let mut rest = written;
    while let Some((before, after)) = rest.split_once('%') {
        issuer.push_str(before);
        let (character, after) = match (after.strip_prefix("23"), after.strip_prefix("25")) {
            (Some(after), _) => ('#', after),
            (_, Some(after)) => ('%', after),
            _ => ('%', after),
        };
        issuer.push(character);
        rest = after;
    }
    issuer.push_str(rest);
    (foreign_name(&issuer, name) == text).then_some((issuer, name))
}

/// Returns whether an edge that does not know this spelling could confuse the name with another one. Such an edge writes
/// the issuer as it is.
#[cfg(feature = "builder")]
pub(crate) fn is_ambiguous_to_older_edges(text: &str) -> bool {
    text.split_once('#').is_some_and(|(issuer, name)| {
        name.contains('#') || ["%23", "%25"].iter().any(|escape| issuer.contains(escape))
    })
}

#[cfg(all(test, feature = "builder"))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Issuers and names out of the characters that matter.
    const PARTS: &str = "[#%235a ]{0,6}";

    proptest! {
        #[test]
        fn foreign_names_are_injective(issuer in PARTS, name in PARTS, others in (PARTS, PARTS)) {
            let text = foreign_name(&issuer, &name);
            let split = split_foreign_name(&text);
            prop_assert_eq!(split, Some((issuer.clone(), &*name)));
            let same = text == foreign_name(&others.0, &others.1);
            prop_assert_eq!(same, (issuer, name) == others);
        }

        #[test]
        fn each_name_has_one_spelling(text in "[#%235a]{0,8}") {
            if let Some((issuer, name)) = split_foreign_name(&text) {
                prop_assert_eq!(foreign_name(&issuer, name), text);
            }
        }

        /// An edge that writes the issuer as it is agrees about all names that are not marked, and confuses none of them.
        #[test]
        fn older_edges_agree_about_unambiguous_names(issuer in PARTS, name in PARTS, others in (PARTS, PARTS)) {
            let text = foreign_name(&issuer, &name);
            let older = |issuer: &str, name: &str| alloc::format!("{issuer}#{name}");
            if !is_ambiguous_to_older_edges(&text) {
                prop_assert_eq!(&text, &older(&issuer, &name));
                let same = text == older(&others.0, &others.1);
                prop_assert_eq!(same, (issuer, name) == others);
            }
        }
    }

    #[test]
    fn names_in_another_spelling_are_rejected() {
        for text in ["", "a", "OP0123456789/alice", "a%2523"] {
            assert_eq!(split_foreign_name(text), None, "{text}");
        }
        // Without a need for it, nothing is escaped.
        assert_eq!(split_foreign_name("a%20b#c"), Some((String::from("a%20b"), "c")));
        assert_eq!(foreign_name("a%20b", "c"), "a%20b#c");
    }
}
