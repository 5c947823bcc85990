//! Measures how many AuthKeys per second are exchanged for tokens, each of which is written durably first.

use crate::load::Load;
use crate::machine::Usage;
use crate::plot::{Bar, Kind, Plot};
use crate::report::{Budget, Section, Table};
use crate::statistics::Spread;
use crate::{Scale, block_on, progress};
use anyhow::{Context, Result};
use harness::{ControlPlane, Scratch};
use serde::Serialize;
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) fn measure(scale: Scale) -> Result<Section> {
    block_on(measured(scale))
}

#[derive(Debug, Serialize)]
struct Rate {
    name: &'static str,
    per_second: Spread,
    cpu_us: Option<Spread>,
    p50_us: Option<Spread>,
    p99_us: Option<Spread>,
}

async fn measured(scale: Scale) -> Result<Section> {
    let scratch = Scratch::new()?;
    let control_plane = control_plane(&scratch).await?;
    let load = Load::new(scratch.folder(), CONNECTIONS)?;
    let root = control_plane.root();
    let body = json!({ "authKeyId": root.auth_key_id, "authKey": root.auth_key }).to_string();
    let exchange = format!(
        "POST /v1/auth HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let subjects = [
        ("AuthKey to token, durable", load.requests("exchange", [exchange])?),
        (
            "`GET /healthz` of the same server",
            load.requests("health", ["GET /healthz HTTP/1.1\r\nhost: bench\r\n\r\n".to_owned()])?,
        ),
    ];
    let (rounds, duration) = (scale.of(3, 1), Duration::from_secs(scale.of(5, 1)));
    let mut runs = subjects.each_ref().map(|_| Vec::new());
    let mut writes = Vec::new();
    for round in 1..=rounds {
        for ((name, requests), runs) in subjects.iter().zip(&mut runs) {
            let before = Usage::of(control_plane.id()?)?;
            let outcome = load.run(control_plane.address(), requests, duration).await.context(*name)?;
            let cpu = Usage::of(control_plane.id()?)?.cpu_seconds - before.cpu_seconds;
            progress(&format!(
                "tokens: round {round} of {rounds}: {name}: {:.0} in a second",
                outcome.requests as f64 / outcome.seconds
            ));
            runs.push((cpu * 1e6 / outcome.requests as f64, outcome));
        }
        writes.push(durable_writes(scratch.folder(), duration.min(Duration::from_secs(2)))?);
    }
    let mut rates = Vec::new();
    for ((name, _), runs) in subjects.iter().zip(&runs) {
        let per_second = runs.iter().map(|(_, outcome)| outcome.requests as f64 / outcome.seconds);
        rates.push(Rate {
            name,
            per_second: Spread::of(per_second).context("no rounds")?,
            cpu_us: Spread::of(runs.iter().map(|(cpu, _)| *cpu)),
            p50_us: Spread::of(runs.iter().map(|(_, outcome)| outcome.p50_us)),
            p99_us: Spread::of(runs.iter().map(|(_, outcome)| outcome.p99_us)),
        });
    }
    let per_second = Spread::of(writes).context("no rounds")?;
    rates.push(Rate {
        name: "4 KiB appended and fsync'ed, one after the other",
        per_second,
        cpu_us: None,
        p50_us: None,
        p99_us: None,
    });
    Ok(section(&rates))
}

/// Starts the server on core 0, without other processes.
async fn control_plane(scratch: &Scratch) -> Result<ControlPlane> {
    let folder = scratch.folder();
    let mut control_plane =
        ControlPlane::open(folder.join("data"), folder.join("control-plane.log"), scratch.address(8780));
    control_plane.set_setting("KEYSTILE_LOG__LEVEL", "warn");
    // One client and one operator, without limits.
    for limit in
        ["SERVER__REQUESTS_PER_SECOND", "SERVER__REQUESTS_PER_CONNECTION", "LIMITS__TOKENS_PER_MINUTE"]
    {
        control_plane.set_setting(&format!("KEYSTILE_{limit}"), 0);
    }
    control_plane.init()?;
    control_plane.set_core(0);
    control_plane.serve().await?;
    Ok(control_plane)
}

/// Returns the number of durable writes per second of this disk.
fn durable_writes(folder: &Path, duration: Duration) -> Result<f64> {
    let mut file = File::create(folder.join("durable"))?;
    let started = Instant::now();
    let mut writes = 0.0;
    while started.elapsed() < duration {
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        writes += 1.0;
    }
    Ok(writes / started.elapsed().as_secs_f64())
}

fn section(rates: &[Rate]) -> Section {
    let method = [format!(
        "`POST /v1/auth` with one AuthKey, by wrk with {CONNECTIONS} connections; the server, on SQLite, keeps to one core, wrk to the other. \
         The server answers after it has written the session with `synchronous = FULL`, as in production. The peer is what the same server does \
         when there is nothing to do, and how often the disk alone confirms a write: more tokens than that share a commit."
    )];
    let mut section = Section::new("Tokens issued", method, json!(rates));
    let micros =
        |spread: Option<Spread>| spread.map_or_else(String::new, |spread| format!("{:.0}", spread.median));
    let rows = rates.iter().map(|Rate { name, per_second, cpu_us, p50_us, p99_us }| {
        vec![(*name).to_owned(), per_second.text(0), micros(*cpu_us), micros(*p50_us), micros(*p99_us)]
    });
    let columns = vec!["measurement", "per second", "CPU each, µs", "p50, µs", "p99, µs"];
    section.tables.push(Table { caption: String::new(), columns, rows: rows.collect() });
    if let Some(tokens) = rates.first() {
        let what = "AuthKey to token, durable, one core";
        section.budgets.push(Budget::at_least(what, tokens.per_second.median, 5_000.0, "a second"));
    }
    let bars = rates.iter().zip(0..).map(|(rate, number)| Bar {
        label: rate.name.replace('`', ""),
        value: rate.per_second.median,
        ours: number == 0,
    });
    section.plots.push(Plot {
        name: "tokens".into(),
        title: "Per second".into(),
        unit: "",
        kind: Kind::Bars(bars.collect()),
    });
    section
}

/// The number of requests that wait for one commit.
const CONNECTIONS: usize = 64;
