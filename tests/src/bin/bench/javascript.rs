//! Measures the JavaScript package beside `jose`, on Node and workerd.

use crate::Scale;
use crate::report::{Budget, Section, Table};
use anyhow::{Context, Result};
use harness::process::output;
use harness::tools;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::process::Command;

/// The output of plugin/javascript/test/bench.mjs for one runtime.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Measured {
    /// By algorithm.
    microseconds: BTreeMap<String, Costs>,
    memory: Memory,
}

/// CPU time for each token in microseconds, and the medians of the ratios of the rounds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Costs {
    new: f64,
    known: f64,
    jose: f64,
    ratio_new: f64,
    ratio_known: f64,
}

/// The resident memory of a process that verified tokens with one of them, in bytes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    nothing: u64,
    jose: u64,
    keystile: u64,
}

pub(crate) fn measure(scale: Scale) -> Result<Section> {
    let mut command = Command::new(tools::root().join("plugin/javascript/test/test.sh"));
    command.arg("bench.mjs").args(scale.of(None, Some("--quick")));
    let text = output(&mut command)?;
    let line = text.lines().last().unwrap_or_default();
    let runtimes: BTreeMap<String, Measured> = serde_json::from_str(line).with_context(|| text.clone())?;
    let method = [
        "Each runtime verifies the same tokens, taken from the same requests, with the gate and with `jose`, with the same \
         requirements on issuer and audience. `jose` does nothing else; the gate also looks up revocations, decides by rules \
         and prepares the headers for the upstream. The figures are CPU time of the whole process, without that of a run that \
         only makes the requests: medians of rounds in which all take turns."
            .to_owned(),
        "The memory is what the process has resident after 6,000 verifications, without that of a process that only made the \
         requests. Most of the gate's is the compiled module."
            .to_owned(),
    ];
    let mut section = Section::new("The JavaScript package beside jose", method, json!(runtimes));
    for (runtime, Measured { microseconds, memory }) in &runtimes {
        for (algorithm, costs) in microseconds {
            section.budgets.push(Budget::at_least(
                format!("{runtime}, {algorithm}: jose's verification against a known credential"),
                costs.ratio_known,
                MIN_KNOWN_RATIO,
                "times",
            ));
            if BUDGETED_NEW.contains(&algorithm.as_str()) {
                section.budgets.push(Budget::at_most(
                    format!("{runtime}, {algorithm}: a new credential against jose's verification"),
                    costs.ratio_new,
                    MAX_NEW_RATIO,
                    "times",
                ));
            }
        }
        let rows = microseconds.iter().map(|(algorithm, costs)| {
            let Costs { new, known, jose, ratio_new, ratio_known } = costs;
            vec![
                algorithm.clone(),
                format!("{known:.1}"),
                format!("{new:.1}"),
                format!("{jose:.1}"),
                format!("{ratio_known:.1}"),
                format!("{ratio_new:.2}"),
            ]
        });
        section.tables.push(Table {
            caption: format!("{runtime}: CPU for each request, in microseconds"),
            columns: vec!["token", "known", "new", "jose", "jose / known", "new / jose"],
            rows: rows.collect(),
        });
        let megabytes = |bytes: u64| format!("{:.1}", bytes.saturating_sub(memory.nothing) as f64 / 1e6);
        section.tables.push(Table {
            caption: format!("{runtime}: memory in MB"),
            columns: vec!["gate", "jose"],
            rows: vec![vec![megabytes(memory.keystile), megabytes(memory.jose)]],
        });
    }
    Ok(section)
}

/// How many times as long jose's verification takes as a known credential, at least.
const MIN_KNOWN_RATIO: f64 = 5.0;

/// How many times as long a new credential takes as jose's verification, at most.
const MAX_NEW_RATIO: f64 = 1.2;

const BUDGETED_NEW: [&str; 2] = ["EdDSA", "ES256"];
