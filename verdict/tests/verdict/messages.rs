//! What users read: the message of each refusal, and those of invalid configurations. `data/messages.txt` contains all of
//! them, so that a change of the texts is reviewed in one place.

use std::fmt::Write as _;

use verdict::{AmbiguousCredential, Reason};

use crate::fixtures::policy;

/// The refusals, then a configuration error per entry: members of the configuration, and the error in the next line.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/messages.txt");

const CONFIGURATIONS: &str = "\n# Invalid members of the plugin configuration\n\n";

/// `KEYSTILE_UPDATE=1` rewrites the messages. A new configuration is added to the file by hand, with an empty line below.
#[test]
fn messages_are_those_that_were_reviewed() {
    let recorded = std::fs::read_to_string(FILE).unwrap();
    let (_, configurations) = recorded.split_once(CONFIGURATIONS).unwrap();
    let mut current = refusals() + CONFIGURATIONS;
    for members in configurations.lines().step_by(2) {
        let error = policy(members).expect_err(members);
        writeln!(current, "{members}\n    {error}").unwrap();
    }
    if std::env::var_os("KEYSTILE_UPDATE").is_some() {
        std::fs::write(FILE, &current).unwrap();
    }
    assert_eq!(std::fs::read_to_string(FILE).unwrap(), current, "KEYSTILE_UPDATE=1 rewrites {FILE}");
}

fn refusals() -> String {
    let mut text = String::from("# Refusals: code, status, message\n\n");
    for reason in Reason::ALL {
        for reason in variants(reason) {
            writeln!(text, "{} {} {reason}", reason.code(), reason.status()).unwrap();
        }
    }
    text
}

/// Returns the reasons that have the code of this one.
fn variants(reason: Reason) -> Vec<Reason> {
    use AmbiguousCredential::{Comma, Companion, Encoding, Several, SimilarName};
    match reason {
        Reason::CredentialAmbiguous(_) => {
            [Several, SimilarName, Comma, Encoding, Companion].map(Reason::CredentialAmbiguous).into()
        }
        other => vec![other],
    }
}

/// A message is a sentence without a capital letter and a period, as `Display` of an error. It never quotes a value.
#[test]
fn messages_are_plain_sentences() {
    for reason in Reason::ALL.into_iter().flat_map(variants) {
        let message = reason.to_string();
        assert!(message.starts_with(|first: char| first.is_ascii_lowercase() || first == '`'), "{message}");
        assert!(!message.ends_with('.') && message.is_ascii(), "{message}");
    }
}
