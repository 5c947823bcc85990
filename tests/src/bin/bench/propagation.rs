//! Measures the time from an acknowledged revocation to its refusal by every worker.

use crate::machine::Usage;
use crate::plot::{Kind, Plot};
use crate::report::{Budget, Section, Table};
use crate::statistics::Quantiles;
use crate::waiting::Edge;
use crate::{Scale, block_on, progress};
use anyhow::{Context, Result, ensure};
use harness::envoy::{FilterHost, Settings};
use harness::{Connection, ControlPlane, Envoy, Scratch, Store, Upstream};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub(crate) fn measure(scale: Scale) -> Result<Section> {
    block_on(measured(scale))
}

async fn measured(scale: Scale) -> Result<Section> {
    let mut runs = Vec::new();
    for host in [FilterHost::Wasm, FilterHost::Module] {
        runs.push(run(scale, host).await.with_context(|| host.name())?);
    }
    section(&runs)
}

/// The figures of one host of the filter.
struct Run {
    host: FilterHost,
    envoys: usize,
    workers: usize,
    revocations: usize,
    delays: Delays,
    requests_per_second: f64,
    cores: f64,
}

async fn run(scale: Scale, host: FilterHost) -> Result<Run> {
    let (envoys, revocations) = (scale.of(8, 2), scale.of(1_000, 5));
    let scratch = Scratch::new()?;
    let upstream = Upstream::start(scratch.address(8081)).await?;
    let settings = [
        ("KEYSTILE_LOG__LEVEL", "warn".to_owned()),
        ("KEYSTILE_LIMITS__TOKENS_PER_MINUTE", "0".to_owned()),
        ("KEYSTILE_LIMITS__REVOCATIONS_PER_MINUTE", "0".to_owned()),
    ];
    let control_plane = ControlPlane::start(&scratch, Store::Sqlite, &settings).await?;
    let mut edges = Vec::new();
    for number in 0..envoys {
        edges.push(edge(&control_plane, &upstream, host, &format!("edge-{number}")).await?);
    }
    let operator = control_plane.token().await?;
    let mut workers = Vec::new();
    for (envoy, _) in &edges {
        workers.extend(envoy.wait_admitting(&operator).await?);
    }
    let (news, mut arrived) = mpsc::unbounded_channel();
    let watcher = tokio::spawn(watch_manifests(Edge::start_enrolled(&control_plane, "watcher")?, news));

    progress(&format!(
        "propagation: {}: {envoys} Envoys with {} workers in all, {revocations} revocations",
        host.name(),
        workers.len()
    ));
    let (started, before) = (Instant::now(), cpu_seconds(&edges, &control_plane)?);
    let mut delays = Delays::default();
    for number in 1..=revocations {
        revoke(&control_plane, &operator, &mut workers, &mut arrived, &mut delays)
            .await
            .with_context(|| format!("revocation {number}"))?;
        if number % 100 == 0 {
            progress(&format!("propagation: {number} of {revocations}"));
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let cores = (cpu_seconds(&edges, &control_plane)? - before) / seconds;
    watcher.abort();
    let requests_per_second = delays.asked as f64 / seconds;
    Ok(Run { host, envoys, workers: workers.len(), revocations, delays, requests_per_second, cores })
}

async fn edge(
    control_plane: &ControlPlane,
    upstream: &Upstream,
    host: FilterHost,
    name: &str,
) -> Result<(Envoy, Scratch)> {
    let scratch = Scratch::new()?;
    let files = scratch.folder().join("edge");
    let enrolled = control_plane.enroll_into(name, &files)?;
    let mut settings = Settings {
        control_plane: control_plane.address(),
        upstream: upstream.address(),
        edge_files: Some(files),
        access_log: false,
        ..Settings::for_scratch(&scratch, enrolled.plugin_configuration)?
    };
    settings.use_filter_host(host)?;
    Ok((Envoy::start(settings, scratch.folder()).await?, scratch))
}

/// Returns the CPU time of the Envoys and the control plane.
fn cpu_seconds(edges: &[(Envoy, Scratch)], control_plane: &ControlPlane) -> Result<f64> {
    let processes = edges.iter().map(|(envoy, _)| Ok(envoy.id())).chain([control_plane.id()]);
    processes.map(|process| Ok(Usage::of(process?)?.cpu_seconds)).sum()
}

/// Delays in milliseconds after the acknowledgement.
#[derive(Default)]
struct Delays {
    /// Until a client that only waits has a newer manifest.
    manifest: Vec<f64>,
    each_worker: Vec<f64>,
    every_worker: Vec<f64>,
    /// The number of requests sent to the workers.
    asked: usize,
}

async fn revoke(
    control_plane: &ControlPlane,
    operator: &str,
    workers: &mut Vec<Connection>,
    arrived: &mut mpsc::UnboundedReceiver<Instant>,
    delays: &mut Delays,
) -> Result<()> {
    let token = control_plane.token().await?;
    let mut asking = JoinSet::new();
    let (admitted, mut admitting) = mpsc::unbounded_channel();
    for worker in workers.drain(..) {
        asking.spawn(until_refused(worker, token.clone(), admitted.clone()));
    }
    drop(admitted);
    // Waits until every worker has admitted the token. A failure is reported below.
    for _ in 0..asking.len() {
        admitting.recv().await;
    }
    let sent = Instant::now();
    let acknowledged = control_plane.revoke(operator, json!({ "token": token })).await?;
    let milliseconds = |instant: Instant| instant.saturating_duration_since(acknowledged).as_secs_f64() * 1e3;
    let mut last: f64 = 0.0;
    while let Some(refused) = asking.join_next().await {
        let (worker, instant, asked) = refused??;
        ensure!(instant > sent, "a worker refused before the revocation");
        workers.push(worker);
        delays.asked += asked;
        delays.each_worker.push(milliseconds(instant));
        last = last.max(milliseconds(instant));
    }
    delays.every_worker.push(last);
    let manifest = loop {
        let instant = timeout(PATIENCE, arrived.recv()).await.context("a waiting client gets no manifest")?;
        match instant.context("the waiting client has ended")? {
            instant if instant > sent => break instant,
            _of_an_earlier_one => {}
        }
    };
    delays.manifest.push(milliseconds(manifest));
    Ok(())
}

/// Sends requests to one worker until it refuses. Returns the time and the number of requests.
async fn until_refused(
    mut worker: Connection,
    token: String,
    admitted: mpsc::UnboundedSender<()>,
) -> Result<(Connection, Instant, usize)> {
    let started = Instant::now();
    for asked in 1.. {
        let answer = worker.get(&token).await?;
        match answer.status {
            200 => {
                ensure!(started.elapsed() < PATIENCE, "still admitted after {PATIENCE:?}");
                if asked == 1 {
                    admitted.send(())?;
                }
            }
            401 if answer.code() == "revoked" => {
                ensure!(asked > 1, "a worker refused a token that it had never admitted");
                return Ok((worker, Instant::now(), asked));
            }
            other => anyhow::bail!("status {other} after a revocation: {}", answer.text()),
        }
        tokio::time::sleep(PAUSE).await;
    }
    anyhow::bail!("too many requests")
}

/// Records when a new manifest arrives.
async fn watch_manifests(mut edge: Edge, news: mpsc::UnboundedSender<Instant>) -> Result<()> {
    loop {
        if edge.poll().await?.is_some() {
            news.send(Instant::now())?;
        }
    }
}

fn section(runs: &[Run]) -> Result<Section> {
    let method = [
        format!(
            "Revocations, one after the other, at the real control plane; Envoys with two workers each on this machine, all with \
             the filter in one of its hosts. Every worker gets a request with the token every {} ms on its own connection: that is \
             the load too, and the pause is part of the figures.",
            PAUSE.as_millis()
        ),
        "The clock starts when the response to `POST /revocations` arrives. The peer is a client that only waits for the manifest: \
         what lies between it and a worker's refusal is Envoy's and the filter's."
            .to_owned(),
    ];
    let (mut figures, mut rows, mut budgets, mut shares) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in runs {
        let Run { host, envoys, workers, revocations, delays, requests_per_second, cores } = run;
        let (host, name) = (*host, host.name());
        let named = [
            ("a client that only waits has the new manifest", &delays.manifest),
            ("a worker refuses (any of them)", &delays.each_worker),
            ("every worker refuses", &delays.every_worker),
        ];
        let mut quantiles = Vec::new();
        for (what, values) in named {
            let of = Quantiles::of(values).context("no revocations")?;
            let Quantiles { p50, p99, max, count } = of;
            rows.push(vec![
                format!("{name}: {what}"),
                count.to_string(),
                format!("{p50:.1}"),
                format!("{p99:.1}"),
                format!("{max:.1}"),
            ]);
            shares.push((format!("{name}: {what}"), values.clone()));
            quantiles.push(of);
        }
        figures.push(json!({
            "host": name,
            "envoys": envoys,
            "workers": workers,
            "revocations": revocations,
            "requests_per_second": requests_per_second,
            "cores": cores,
            "manifest_ms": quantiles[0],
            "each_worker_ms": quantiles[1],
            "every_worker_ms": quantiles[2],
        }));
        let every = quantiles[2];
        let (p50, p99) = match host {
            FilterHost::Wasm => (10.0, 40.0),
            FilterHost::Module => (5.0, 20.0),
        };
        for (what, measured, budget) in [("p50", every.p50, p50), ("p99", every.p99, p99)] {
            let what = format!("{name}: revoked to refused by every worker of {envoys} Envoys, {what}");
            budgets.push(Budget::at_most(what, measured, budget, "ms"));
        }
    }
    let mut section = Section::new("From a revocation to its refusal", method, json!(figures));
    let columns = vec!["after the acknowledgement", "measured", "p50, ms", "p99, ms", "max, ms"];
    section.tables.push(Table { caption: String::new(), columns, rows });
    section.budgets = budgets;
    section.plots.push(Plot {
        name: "propagation".into(),
        title: "Share of the revocations in effect, over time since the acknowledgement".into(),
        unit: "ms",
        kind: Kind::Shares(shares),
    });
    Ok(section)
}

const PAUSE: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(60);
