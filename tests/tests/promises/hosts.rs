//! The promises hold in both hosts: `tests/hosts.sh` runs the tests with the filter as a native module, except those in
//! hosts.txt, which has the reasons.

use std::process::Command;

const EXCEPTIONS: &str = include_str!("hosts.txt");

#[test]
fn every_exception_names_tests_and_a_reason() {
    let listed = Command::new(std::env::current_exe().unwrap())
        .args(["--list", "--format", "terse"])
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let tests: Vec<&str> = listed.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    assert!(tests.len() > 100, "{listed}");
    let mut names: Vec<&str> = Vec::new();
    for line in EXCEPTIONS.lines().filter(|line| !line.starts_with('#')) {
        let (name, reason) = line.split_once("  ").expect("a name, two spaces, and a reason");
        assert!(reason.len() > 10, "{line}");
        // `--skip` looks for a name anywhere, so it must not occur within others.
        let matched: Vec<&&str> = tests.iter().filter(|test| test.contains(name)).collect();
        assert!(!matched.is_empty(), "no test is named {name}");
        assert!(matched.iter().all(|test| test.starts_with(name)), "{name}: {matched:?}");
        names.push(name);
    }
    assert!(names.is_sorted(), "in the order of the names");
    let remaining = tests.iter().filter(|test| !names.iter().any(|name| test.starts_with(name))).count();
    assert!(remaining > 60, "{remaining} tests run with the module");
}
