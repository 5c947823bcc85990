//! `make bench` measures each figure and that of its peer in the same run.
//!
//! `bench [--quick] [PART..]` measures the named parts, or those that `make bench` runs, and writes
//! target/bench/report.json, report.md and its plots. Progress goes to stderr.

mod compaction;
mod javascript;
mod load;
mod machine;
mod plain;
mod plot;
mod probe;
mod propagation;
mod report;
mod requests;
mod statistics;
mod streams;
mod structures;
mod tokens;
mod waiting;

use anyhow::{Context, Result};
use harness::tools;
use machine::Machine;
use report::{Budget, Report, Section};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// One part of the benchmark.
struct Part {
    name: &'static str,
    /// Runs only if it is named.
    on_demand: bool,
    /// The core of the benchmark, wrk and the upstream. The measured process runs on another one.
    core: Option<usize>,
    measure: fn(Scale) -> Result<Section>,
}

const PARTS: [Part; 9] = [
    Part { name: "requests", on_demand: false, core: Some(1), measure: requests::measure },
    Part { name: "structures", on_demand: false, core: None, measure: structures::measure },
    Part { name: "scale-100m", on_demand: true, core: None, measure: structures::measure_100m },
    Part { name: "propagation", on_demand: false, core: None, measure: propagation::measure },
    Part { name: "waiting", on_demand: false, core: Some(1), measure: waiting::measure },
    Part { name: "streams", on_demand: false, core: None, measure: streams::measure },
    Part { name: "tokens", on_demand: false, core: Some(1), measure: tokens::measure },
    Part { name: "compaction", on_demand: false, core: None, measure: compaction::measure },
    Part { name: "javascript", on_demand: false, core: None, measure: javascript::measure },
];

/// The extent of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    Full,
    /// Sufficient to show that the benchmark works. The figures have no meaning.
    Quick,
}

impl Scale {
    fn of<T>(self, full: T, quick: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
        }
    }
}

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Vec<String>) -> Result<()> {
    let (flags, named): (Vec<_>, Vec<_>) = arguments.into_iter().partition(|word| word.starts_with('-'));
    let scale = match flags.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Scale::Full,
        ["--quick"] => Scale::Quick,
        _ => anyhow::bail!("usage: bench [--quick] [PART..]; the parts are {}", names().join(", ")),
    };
    if let Some(stranger) = named.iter().find(|name| !names().contains(&name.as_str())) {
        anyhow::bail!("there is no part `{stranger}`; the parts are {}", names().join(", "));
    }
    let asked = |part: &&Part| {
        if named.is_empty() { !part.on_demand } else { named.iter().any(|name| name == part.name) }
    };
    let machine = Machine::read()?;
    let started = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut sections = Vec::new();
    for part in PARTS.iter().filter(asked) {
        progress(&format!("{}: begins", part.name));
        let clock = Instant::now();
        machine.keep_to(part.core)?;
        let mut section = (part.measure)(scale).with_context(|| format!("part `{}`", part.name))?;
        section.part = part.name;
        section.seconds = clock.elapsed().as_secs_f64();
        if scale == Scale::Quick {
            section.budgets.iter_mut().for_each(Budget::leave_open);
        }
        progress(&format!("{}: done in {:.0} s", part.name, section.seconds));
        sections.push(section);
    }
    let report = Report { quick: scale == Scale::Quick, started, machine, sections };
    let folder = folder();
    report.write(&folder)?;
    progress(&format!("{}", folder.join("report.md").display()));
    Ok(())
}

/// Returns the folder for the results: KEYSTILE_BENCH_OUT, or target/bench.
fn folder() -> PathBuf {
    std::env::var_os("KEYSTILE_BENCH_OUT").map_or_else(|| tools::root().join("target/bench"), PathBuf::from)
}

fn names() -> Vec<&'static str> {
    PARTS.iter().map(|part| part.name).collect()
}

fn progress(line: &str) {
    eprintln!("bench: {line}");
}

/// Runs one part's future on threads that keep to the part's core.
fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(future)
}
