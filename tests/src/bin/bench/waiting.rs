//! Measures thousands of waiting edges: their cost on one core of a control plane, and the time until the last one has a
//! change.

use crate::machine::Usage;
use crate::plot::{Kind, Plot};
use crate::report::{Budget, Section, Table};
use crate::statistics::Quantiles;
use crate::{Scale, block_on, progress};
use anyhow::{Context, Result, ensure};
use harness::{ControlPlane, Scratch};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub(crate) fn measure(scale: Scale) -> Result<Section> {
    block_on(measured(scale))
}

async fn measured(scale: Scale) -> Result<Section> {
    let (edges, enrolled, revocations) = (scale.of(10_000, 100), scale.of(500, 2), scale.of(20, 3));
    allow_connections(edges + 500)?;
    let scratch = Scratch::new()?;
    let folder = scratch.folder();
    let mut control_plane =
        ControlPlane::open(folder.join("data"), folder.join("control-plane.log"), scratch.address(8780));
    control_plane.set_setting("KEYSTILE_LOG__LEVEL", "warn");
    control_plane.init()?;
    control_plane.set_core(0);
    control_plane.serve().await?;
    let empty = Usage::of(control_plane.id()?)?;

    progress(&format!("waiting: enrolling {enrolled} edges"));
    let credentials: Vec<String> = (0..enrolled)
        .map(|number| Ok(control_plane.enroll(&format!("edge-{number}"))?.credential))
        .collect::<Result<_>>()?;
    progress(&format!("waiting: {edges} connections"));
    let (news, mut arrivals) = mpsc::unbounded_channel();
    let mut polling = JoinSet::new();
    for number in 0..edges {
        let mut edge = Edge::new(control_plane.address(), credentials[number % enrolled].clone());
        // An address has about 28,000 ephemeral ports.
        edge.source = Some(Ipv4Addr::new(127, 1, 0, u8::try_from(1 + number % 8)?));
        edge.poll().await.with_context(|| format!("edge {number}"))?.context("no manifest at first")?;
        let news = news.clone();
        polling.spawn(async move {
            loop {
                if edge.poll().await?.is_some() && news.send((number, Instant::now())).is_err() {
                    return anyhow::Ok(());
                }
            }
        });
    }
    wait_until_polling(&mut polling).await?;
    let before = Usage::of(control_plane.id()?)?;
    let clock = Instant::now();
    let idle = Duration::from_secs(scale.of(30, 2));
    progress(&format!("waiting: all edges wait; measuring for {} s", idle.as_secs()));
    tokio::time::sleep(idle).await;
    let after = Usage::of(control_plane.id()?)?;
    let idle_cores = (after.cpu_seconds - before.cpu_seconds) / clock.elapsed().as_secs_f64();

    let mut found = Found { each: Vec::new(), last: Vec::new(), cpu_ms: Vec::new() };
    let operator = control_plane.token().await?;
    for number in 1..=revocations {
        let token = control_plane.token().await?;
        wait_until_polling(&mut polling).await?;
        while arrivals.try_recv().is_ok() {}
        let before = Usage::of(control_plane.id()?)?;
        let acknowledged = control_plane.revoke(&operator, json!({ "token": token })).await?;
        let mut missing: Vec<bool> = vec![true; edges];
        let mut last: f64 = 0.0;
        for _ in 0..edges {
            let delay = loop {
                let arrival = timeout(PATIENCE, arrivals.recv()).await.context("an edge was not answered")?;
                let (edge, instant) = arrival.context("the edges are gone")?;
                if std::mem::take(&mut missing[edge]) {
                    break instant.saturating_duration_since(acknowledged);
                }
            };
            found.each.push(delay.as_secs_f64() * 1e3);
            last = last.max(delay.as_secs_f64() * 1e3);
        }
        found.last.push(last);
        found.cpu_ms.push((Usage::of(control_plane.id()?)?.cpu_seconds - before.cpu_seconds) * 1e3);
        progress(&format!("waiting: revocation {number} of {revocations}: the last after {last:.0} ms"));
    }
    let resident = Usage::of(control_plane.id()?)?.resident_bytes;
    section(edges, enrolled, [empty.resident_bytes, resident], idle_cores, &found)
}

struct Found {
    each: Vec<f64>,
    last: Vec<f64>,
    cpu_ms: Vec<f64>,
}

/// Gives the edges time to wait again. Fails if one of them has ended.
async fn wait_until_polling(polling: &mut JoinSet<Result<()>>) -> Result<()> {
    tokio::time::sleep(SETTLING).await;
    match polling.try_join_next() {
        Some(ended) => ended?.and(Err(anyhow::anyhow!("an edge has ended"))),
        None => Ok(()),
    }
}

pub(crate) fn allow_connections(count: usize) -> Result<()> {
    let count = count as u64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    ensure!(
        maximum.is_none_or(|maximum| maximum >= count),
        "{count} open files are needed, {maximum:?} allowed; raise the limit: ulimit -Hn {count}"
    );
    if current.is_some_and(|current| current < count) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(count), maximum })?;
    }
    Ok(())
}

/// A simulated edge: one connection with waiting requests for manifests.
pub(crate) struct Edge {
    control_plane: SocketAddr,
    credential: String,
    source: Option<Ipv4Addr>,
    version: u64,
    stream: Option<TcpStream>,
}

impl Edge {
    pub(crate) fn start_enrolled(control_plane: &ControlPlane, name: &str) -> Result<Self> {
        Ok(Self::new(control_plane.address(), control_plane.enroll(name)?.credential))
    }

    fn new(control_plane: SocketAddr, credential: String) -> Self {
        Self { control_plane, credential, source: None, version: 0, stream: None }
    }

    /// Waits for a manifest, and returns its version; `None` if there was no new one for as long as the control plane waits.
    pub(crate) async fn poll(&mut self) -> Result<Option<u64>> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        let request = format!(
            "GET /edge/v1/manifest?have={} HTTP/1.1\r\nhost: keystile\r\nauthorization: Bearer {}\r\nprefer: wait=30\r\n\r\n",
            self.version, self.credential
        );
        stream.write_all(request.as_bytes()).await?;
        // Allocates no buffer before the response arrives.
        timeout(PATIENCE, stream.readable()).await.context("the control plane does not answer")??;
        let (status, etag) = read_answer(&mut stream).await?;
        self.stream = Some(stream);
        ensure!(matches!(status, 200 | 304), "status {status} for an edge");
        let version = etag.context("no version in the answer")?;
        let news = version > self.version;
        self.version = version;
        Ok(news.then_some(version))
    }

    async fn connect(&self) -> Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if let Some(source) = self.source {
            socket.bind((source, 0).into())?;
        }
        let stream = socket.connect(self.control_plane).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Reads a response, and returns the status and the version in the entity tag.
async fn read_answer(stream: &mut TcpStream) -> Result<(u16, Option<u64>)> {
    let mut answer = Vec::with_capacity(4096);
    let head = loop {
        ensure!(stream.read_buf(&mut answer).await? > 0, "the control plane hung up");
        if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(&answer[..head]).to_lowercase();
    let status = text.split(' ').nth(1).context("no status")?.parse()?;
    let header = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    // A 304 has no body, even if it has a length.
    let length = if status == 304 { 0 } else { header("content-length").context("no length")?.parse()? };
    while answer.len() < head + length {
        ensure!(stream.read_buf(&mut answer).await? > 0, "the control plane hung up");
    }
    let tag = header("etag").and_then(|tag| tag.trim_matches('"').split('-').next()?.parse().ok());
    Ok((status, tag))
}

fn section(
    edges: usize,
    enrolled: usize,
    resident: [f64; 2],
    idle_cores: f64,
    found: &Found,
) -> Result<Section> {
    let [empty, full] = resident.map(|bytes| bytes / 1e6);
    let revocations = found.last.len();
    let each = Quantiles::of(&found.each).context("no revocations")?;
    let last = Quantiles::of(&found.last).context("no revocations")?;
    let cpu = Quantiles::of(&found.cpu_ms).context("no revocations")?;
    let method = [format!(
        "{edges} simulated edges, each on a connection of its own under one of {enrolled} edge credentials, wait for the next manifest by long \
         polling (HTTP/1.1); the server, on SQLite, keeps to one core, the edges to the other. Then {revocations} revocations: the clock starts \
         at the acknowledgement and ends for an edge when it has read the new manifest. The peer is the same server before the first edge came."
    )];
    let figures = json!({
        "edges": edges,
        "credentials": enrolled,
        "resident_mb_without_edges": empty,
        "resident_mb": full,
        "idle_cores": idle_cores,
        "answered_ms": each,
        "last_answered_ms": last,
        "cpu_ms_for_each_revocation": cpu,
    });
    let mut section = Section::new("Waiting edges", method, figures);
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let delay = |of: Quantiles| format!("{:.1} / {:.1} / {:.1} ms", of.p50, of.p99, of.max);
    section.tables.push(Table {
        caption: String::new(),
        columns: vec!["what", "measured"],
        rows: vec![
            row("resident memory without edges", format!("{empty:.0} MB")),
            row(
                "resident memory at the end",
                format!("{full:.0} MB, {:.1} kB an edge", (full - empty) * 1e3 / edges as f64),
            ),
            row("CPU without changes", format!("{idle_cores:.2} cores")),
            row("CPU for a revocation", format!("{:.0} ms", cpu.p50)),
            row("an edge gets the change, p50 / p99 / max", delay(each)),
            row("the last edge gets the change, p50 / p99 / max", delay(last)),
        ],
    });
    let what = |what: &str| format!("{edges} waiting edges, {what}");
    section.budgets.push(Budget::at_most(what("resident memory"), full, 1_000.0, "MB"));
    section.budgets.push(Budget::at_most(what("cores without changes"), idle_cores, 1.0, "cores"));
    section.plots.push(Plot {
        name: "waiting".into(),
        title: format!("Share of {edges} waiting edges with the change, over time since the acknowledgement"),
        unit: "ms",
        kind: Kind::Shares(vec![
            ("an edge".into(), thin_out(&found.each)),
            ("the last edge".into(), found.last.clone()),
        ]),
    });
    Ok(section)
}

/// Returns about two thousand of the values, evenly by rank, which is the resolution of a plot.
pub(crate) fn thin_out(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let step = values.len().div_ceil(2_000).max(1);
    values.into_iter().rev().step_by(step).collect()
}

/// After this time all edges wait again.
const SETTLING: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(60);
