//! What users read about invalid settings: `data/settings_messages.txt` contains the errors, so that a change of the texts is
//! reviewed in one place.

use std::fmt::Write as _;

use control_plane::config;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/settings_messages.txt");

/// The first lines of the file, without an entry.
const HEAD: usize = 2;

/// `KEYSTILE_UPDATE=1` rewrites the messages. New settings are added to the file by hand, with an empty line below.
#[test]
fn settings_messages_are_those_that_were_reviewed() {
    let recorded = std::fs::read_to_string(FILE).unwrap();
    let lines: Vec<&str> = recorded.lines().collect();
    let (head, entries) = lines.split_at(HEAD);
    let mut current = head.join("\n") + "\n";
    for settings in entries.iter().step_by(2) {
        writeln!(current, "{settings}\n    {}", error(settings)).unwrap();
    }
    if std::env::var_os("KEYSTILE_UPDATE").is_some() {
        std::fs::write(FILE, &current).unwrap();
    }
    assert_eq!(std::fs::read_to_string(FILE).unwrap(), current, "KEYSTILE_UPDATE=1 rewrites {FILE}");
    assert!(entries.len() >= 120, "{} lines", entries.len());
}

/// Returns the error for settings, with the causes.
fn error(settings: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keystile.toml");
    let (toml, variable) = match settings.split_once('=').filter(|_| settings.starts_with("KEYSTILE_")) {
        Some((name, value)) => (String::new(), Some((name.to_owned(), value.to_owned()))),
        None => (settings.replace("\\n", "\n"), None),
    };
    std::fs::write(&file, toml).unwrap();
    let error = config::load(Some(&file), variable.into_iter()).expect_err(settings).to_string();
    error.replace(file.to_str().unwrap(), "keystile.toml")
}
