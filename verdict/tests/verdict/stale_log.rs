//! Each stale policy logs when it starts and when it ends.

use verdict::{LogLine, StalenessWatch};

use crate::fixtures::{NOW_MS, builder, gate_with, snapshot};

fn summarize(lines: Vec<LogLine>) -> Vec<(char, String)> {
    let policy = |line: &str| line.split('`').nth(1).unwrap().to_owned();
    let lines = lines.into_iter().map(|line| match line {
        LogLine::Info(line) => ('I', policy(&line)),
        LogLine::Warning(line) => ('W', policy(&line)),
        LogLine::Error(line) => ('E', policy(&line)),
    });
    lines.collect()
}

#[test]
fn each_stale_policy_logs_its_start_and_end() {
    let gate = gate_with(
        r#""outage_grace_seconds": 100, "rules": [
            { "path": "/a", "stale": "deny" },
            { "path": "/b", "stale": { "issued_within_seconds": 30 } },
            { "path": "/c", "stale": { "outage_grace_seconds": 100 } },
            { "path": "/d", "stale": "deny" },
            { "path": "/e" }
        ]"#,
    );
    let snapshot = snapshot(&mut builder());
    let (grace, deny, recent) = ("outage_grace_seconds 100", "deny", "issued_within_seconds 30");
    let mut watch = StalenessWatch::default();
    let expires = NOW_MS + 60_000;
    for (now, expected) in [
        (NOW_MS, vec![]),
        (expires - 1, vec![]),
        (expires, vec![('W', grace), ('E', deny), ('W', recent)]),
        (expires + 1, vec![]),
        (expires + 59_999, vec![]),
        (expires + 60_000, vec![('W', grace), ('E', deny), ('W', recent)]),
        (expires + 100_000, vec![('E', grace)]),
        (expires + 100_001, vec![]),
        // A new manifest is loaded.
        (NOW_MS, vec![('I', grace), ('I', deny), ('I', recent)]),
        (NOW_MS + 1, vec![]),
    ] {
        let lines = summarize(watch.observe(&gate, &snapshot, now));
        let lines: Vec<_> = lines.iter().map(|(severity, policy)| (*severity, policy.as_str())).collect();
        assert_eq!(lines, expected, "{now}");
    }
}
