//! Measures a revocation set in each known data structure, and checks every result.

mod build;

use crate::plot::{Bar, Kind as PlotKind, Plot};
use crate::report::{Budget, Section, Table};
use crate::{Scale, progress};
use anyhow::{Context, Result, ensure};
use build::{Built, build};
use harness::process::output;
use harness::{Scratch, tools};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sets::{Kind, Set, Universe, fingerprint};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

pub(crate) fn measure(scale: Scale) -> Result<Section> {
    let universes =
        scale.of([(1_000_000, 100_000), (10_000_000, 1_000_000)], [(20_000, 200), (20_000, 2_000)]);
    section("Revocations in memory and on the wire", "structures", &universes)
}

/// Takes some minutes and 5 GB of memory.
pub(crate) fn measure_100m(scale: Scale) -> Result<Section> {
    let universes =
        scale.of([(100_000_000, 1_000_000), (100_000_000, 10_000_000)], [(40_000, 400), (40_000, 4_000)]);
    section("Revocations among 100 million", "scale-100m", &universes)
}

/// One structure over one universe.
#[derive(Debug, Serialize)]
struct Found {
    structure: &'static str,
    issued: u32,
    revoked: u32,
    wire_bytes: usize,
    bits_for_each_revoked: f64,
    /// The encoded size as a multiple of N * H(r / N).
    times_bound: f64,
    objects: usize,
    build_cpu_seconds: f64,
    exceptions: usize,
    false_positives: usize,
    false_negatives: usize,
    #[serde(flatten)]
    timed: Timed,
    /// The time of a look-up, without the time of an empty loop.
    good_net_ns: f64,
    revoked_net_ns: f64,
}

/// The output of tests/sets/time.mjs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Timed {
    v8: String,
    vm_bytes: usize,
    longest_open_ms: f64,
    /// The same in a new VM, including compilation by V8.
    longest_cold_open_ms: f64,
    all_open_ms: f64,
    good_ns: f64,
    good_hits: f64,
    revoked_ns: f64,
    revoked_hits: f64,
}

fn section(title: &'static str, name: &str, universes: &[(u32, u32)]) -> Result<Section> {
    let scratch = Scratch::new()?;
    let mut found = Vec::new();
    for &(issued, revoked) in universes {
        let universe = Universe { issued, revoked };
        let nothing = measure_in_v8(scratch.folder(), Kind::Nothing, universe, &Built::default())?;
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Nothing) {
            let one = measure_one(scratch.folder(), kind, universe, &nothing)?;
            progress(&format!(
                "{name}: {revoked} of {issued}: {}: {} bytes, {:.3} times the bound, built in {:.1} s of CPU",
                one.structure, one.wire_bytes, one.times_bound, one.build_cpu_seconds
            ));
            found.push(one);
        }
    }
    Ok(report(title, name, universes, &found))
}

fn measure_one(folder: &Path, kind: Kind, universe: Universe, nothing: &Timed) -> Result<Found> {
    let Universe { issued, revoked } = universe;
    let built = build(kind, universe)?;
    let mut set = Set::new(kind);
    for object in &built.objects {
        set.open(object.clone());
    }
    let contains = |number: &u32| set.contains(&fingerprint(*number));
    let false_positives = (revoked..issued).filter(contains).count();
    let false_negatives = (0..revoked).filter(|number| !contains(number)).count();
    let timed = measure_in_v8(folder, kind, universe, &built)?;
    ensure!(
        timed.revoked_hits == 1.0 || false_negatives > 0,
        "{} has other results in V8: of the revoked, {} are",
        name_of(kind),
        timed.revoked_hits
    );
    let bits = built.bytes() as f64 * 8.0;
    Ok(Found {
        structure: name_of(kind),
        issued,
        revoked,
        wire_bytes: built.bytes(),
        bits_for_each_revoked: bits / f64::from(revoked),
        times_bound: bits / universe.bound(),
        objects: built.objects.len(),
        build_cpu_seconds: built.seconds,
        exceptions: built.exceptions,
        false_positives,
        false_negatives,
        good_net_ns: timed.good_ns - nothing.good_ns,
        revoked_net_ns: timed.revoked_ns - nothing.revoked_ns,
        timed,
    })
}

/// Loads and queries a structure in V8.
fn measure_in_v8(folder: &Path, kind: Kind, universe: Universe, built: &Built) -> Result<Timed> {
    let path = folder.join("objects");
    let mut file = BufWriter::new(File::create(&path)?);
    for object in &built.objects {
        file.write_all(&u32::try_from(object.len())?.to_le_bytes())?;
        file.write_all(object)?;
    }
    file.flush()?;
    let module = tools::root().join("target/wasm/sets.wasm");
    ensure!(module.exists(), "{} is missing; tests/sets/build.sh makes it", module.display());
    let place = Kind::ALL.iter().position(|other| *other == kind).context("no such structure")?;
    let mut command = Command::new("node");
    command.arg(tools::root().join("tests/sets/time.mjs")).arg(module).arg(path);
    command.args([place.to_string(), universe.issued.to_string(), universe.revoked.to_string()]);
    Ok(serde_json::from_str(&output(&mut command)?)?)
}

const fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Nothing => "nothing",
        Kind::Base => "Keystile's base",
        Kind::Prefixes => "sorted 64-bit prefixes",
        Kind::Fuse8 => "binary fuse 8 + exceptions",
        Kind::Fuse16 => "binary fuse 16 + exceptions",
        Kind::Rice => "Rice coding + exceptions",
        Kind::Clubcard => "clubcard",
    }
}

fn report(title: &'static str, name: &str, universes: &[(u32, u32)], found: &[Found]) -> Section {
    let v8 = found.first().map_or("unknown", |found| &found.timed.v8);
    let method = [
        "Which of N issued credentials are the r revoked, in every structure known for it. No structure can take less than N · H(r/N) bits on \
         average; each is quoted as times that. All N are looked up: *wrongly revoked* and *wrongly good* count the wrong \
         results. *Exceptions* are good credentials that the structure alone would refuse and that are listed beside it, 8 bytes each (32 in \
         clubcard). Keystile's figure includes the 40 bytes that the index takes for each of its objects."
            .to_owned(),
        format!(
            "Look-ups and loading are timed in wasm on V8 {v8} (Node; Envoy's engine too), compiled as the filter is: nanoseconds for one look-up, \
             less that of an empty loop, best of 7 passes over 200,000 members. *Longest stall* is the longest time to load one object, SHA-256 \
             included: the others have one or two objects, each of which blocks a worker until it is loaded. In brackets: the same in a new VM, \
             where V8 compiles at the same time. Building is CPU time of one thread."
        ),
    ];
    let mut section = Section::new(title, method, json!(found));
    for &(issued, revoked) in universes {
        let bound = Universe { issued, revoked }.bound();
        let of = || found.iter().filter(move |one| (one.issued, one.revoked) == (issued, revoked));
        let rows = of().map(|one| {
            vec![
                one.structure.to_owned(),
                format!("{:.3}", one.wire_bytes as f64 / f64::from(revoked)),
                format!("{:.3}", one.timed.vm_bytes as f64 / f64::from(revoked)),
                format!("{:.3}", one.times_bound),
                one.false_positives.to_string(),
                one.false_negatives.to_string(),
                one.exceptions.to_string(),
                format!("{:.2}", one.build_cpu_seconds),
                format!("{:.0} / {:.0}", one.good_net_ns, one.revoked_net_ns),
                format!("{:.2} ({:.2})", one.timed.longest_open_ms, one.timed.longest_cold_open_ms),
                format!("{:.1}", one.timed.all_open_ms),
            ]
        });
        section.tables.push(Table {
            caption: format!(
                "**{} revoked of {}**: the bound is {:.0} bytes, {:.3} for each.",
                group_digits(revoked),
                group_digits(issued),
                bound / 8.0,
                bound / 8.0 / f64::from(revoked)
            ),
            columns: vec![
                "structure",
                "bytes per revoked, wire",
                "in the VM",
                "times the bound",
                "wrongly revoked",
                "wrongly good",
                "exceptions",
                "build, s",
                "look-up good / revoked, ns",
                "longest stall (in a new VM), ms",
                "loading, ms",
            ],
            rows: rows.collect(),
        });
        for one in of().filter(|one| one.structure == name_of(Kind::Base)) {
            let what = |what: &str| format!("{} of {}: {what}", group_digits(revoked), group_digits(issued));
            let wrong = one.false_positives + one.false_negatives;
            let vm = one.timed.vm_bytes as f64 * 8.0 / bound;
            section.budgets.push(Budget::at_most(
                what("memory in the VM beside the bound"),
                vm,
                1.15,
                "times",
            ));
            section.budgets.push(Budget::at_most(what("wrong answers"), wrong as f64, 0.0, ""));
            section.budgets.push(Budget::at_most(
                what("longest stall"),
                one.timed.longest_open_ms,
                5.0,
                "ms",
            ));
        }
        let bars = of().map(|one| Bar {
            label: one.structure.to_owned(),
            value: one.times_bound,
            ours: one.structure == name_of(Kind::Base),
        });
        section.plots.push(Plot {
            name: format!("{name}-{revoked}-of-{issued}"),
            title: format!(
                "{} revoked of {}: multiple of the minimum",
                group_digits(revoked),
                group_digits(issued)
            ),
            unit: "times",
            kind: PlotKind::Bars(bars.collect()),
        });
    }
    section
}

/// Formats a number with commas.
fn group_digits(number: u32) -> String {
    let digits = number.to_string();
    let groups: Vec<String> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| group.iter().map(|digit| char::from(*digit)).collect())
        .collect();
    groups.join(",")
}
