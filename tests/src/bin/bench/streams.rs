//! Open streams: the time from a revocation to the end of each affected one, and the cost of thousands of others.

use crate::machine::Usage;
use crate::plot::{Kind as PlotKind, Plot};
use crate::probe::{self, Answer};
use crate::report::{Budget, Section, Table};
use crate::statistics::{Quantiles, Spread};
use crate::waiting::{allow_connections, thin_out};
use crate::{Scale, block_on, progress};
use anyhow::{Context, Result, anyhow, ensure};
use bundle::Scope;
use harness::envoy::Settings;
use harness::fake_control_plane::{TestSigner, now_ms, plugin_configuration};
use harness::streams::{Client, Kind, OpenStream, StreamUpstream, Version};
use harness::{FakeControlPlane, Scratch, eventually};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use token::Fingerprint;
use tokio::task::JoinSet;

pub(crate) fn measure(scale: Scale) -> Result<Section> {
    block_on(measured(scale))
}

async fn measured(scale: Scale) -> Result<Section> {
    // A stream over HTTP/1.1 takes two in this process, and two in Envoy: to the client and to the upstream.
    allow_connections(scale.of(16_000, 1_000))?;
    let of_each = scale.of(1_000, 10);
    let mut delays = Vec::new();
    for round in 1..=scale.of(3, 1) {
        progress(&format!("streams: ends, round {round}, {of_each} streams of each kind"));
        delays.extend(ends(&every_kind(), false, of_each, scale).await?);
        delays.extend(ends(&[(Kind::Grpc, Version::Http2)], true, of_each, scale).await?);
    }
    let idle = idle(scale).await?;
    section(of_each, scale, &delays, &idle)
}

/// Every kind that an upstream with HTTP/1.1 serves. Envoy ends an upload after its `request_timeout` of a minute, so
/// uploads come last.
fn every_kind() -> Vec<(Kind, Version)> {
    let kinds = [Kind::WebSocket, Kind::Events, Kind::Download, Kind::Poll, Kind::Upload];
    let both = |kind| [Version::Http1, Version::Http2].map(|version| (kind, version));
    kinds.into_iter().flat_map(both).collect()
}

/// An edge in front of an upstream with streams.
struct Edge {
    control_plane: FakeControlPlane,
    client: Arc<Client>,
    _upstream: StreamUpstream,
}

impl Edge {
    /// Without the filter if `filters_instead` is an empty list.
    async fn start(
        beat: Duration,
        http2_upstream: bool,
        filters_instead: Option<Vec<Value>>,
    ) -> Result<Self> {
        let scratch = Scratch::new()?;
        let settings = Settings {
            http2_upstream,
            filters_instead,
            upgrades: true,
            route_timeout_seconds: 0,
            max_upstream_streams: 20_000,
            access_log: false,
            ..Settings::for_scratch(&scratch, plugin_configuration(&TestSigner::new(1)))?
        };
        let upstream = StreamUpstream::start(settings.upstream, beat).await?;
        let control_plane = FakeControlPlane::start_before_upstream(scratch, settings).await;
        let client = Arc::new(Client::new(control_plane.envoy.address(), beat));
        Ok(Self { control_plane, client, _upstream: upstream })
    }

    /// Opens a stream of each kind with each of the tokens.
    async fn open(&self, kinds: &[(Kind, Version)], tokens: &[String]) -> Result<Vec<OpenStream>> {
        let mut streams = Vec::new();
        let before = self.at_upstream().await?;
        for (kind, version) in kinds.iter().copied() {
            let mut opening = JoinSet::new();
            for share in tokens.chunks(tokens.len().div_ceil(OPENERS).max(1)) {
                let (client, share) = (Arc::clone(&self.client), share.to_vec());
                opening.spawn(async move {
                    let mut streams = Vec::new();
                    for token in &share {
                        streams.push(client.open(kind, version, "", token).await?);
                    }
                    anyhow::Ok(streams)
                });
            }
            while let Some(opened) = opening.join_next().await {
                streams.extend(opened??);
            }
        }
        self.reaches(before + streams.len() as u64).await;
        Ok(streams)
    }

    /// The number of streams that Envoy has open to the upstream.
    async fn at_upstream(&self) -> Result<u64> {
        let gauge = "cluster.upstream.upstream_rq_active";
        let stats = self.control_plane.envoy.stats(&format!("^{gauge}$")).await?;
        stats.get(gauge).copied().context("no such gauge")
    }

    /// Waits until Envoy has this many streams open to the upstream.
    async fn reaches(&self, expected: u64) {
        eventually("the streams reach the upstream", async || {
            let open = self.at_upstream().await?;
            ensure!(open == expected, "{open} instead of {expected}");
            Ok(())
        })
        .await;
    }

    /// Different tokens of this subject that were issued a minute ago.
    fn tokens(&self, subject: &str, count: usize) -> Vec<String> {
        let one = |_| {
            let mut claims = self.control_plane.claims();
            claims.iat = now_ms() / 1000 - 60;
            claims.sub = subject.into();
            self.control_plane.mint(&claims)
        };
        (0..count).map(one).collect()
    }

    /// Refuses every token of this subject. Returns the time before the manifest is built.
    fn raise_watermark(&mut self, subject: &str) -> Result<Instant> {
        let published = Instant::now();
        let (version, now) = (self.control_plane.version, now_ms() / 1000);
        ensure!(
            self.control_plane.content.raise_watermark(version, Scope::User(subject), now - 30),
            "raised before"
        );
        self.control_plane.publish();
        Ok(published)
    }

    /// Refuses this token. Returns the time before the manifest is built.
    fn revoke(&mut self, token: &str) -> Result<Instant> {
        let published = Instant::now();
        let fingerprint = Fingerprint::digest(token.as_bytes());
        let revoked = self.control_plane.content.revoke(self.control_plane.version, fingerprint);
        ensure!(revoked.map_err(|error| anyhow!("{error}"))?, "revoked before");
        self.control_plane.publish();
        Ok(published)
    }
}

/// A stream that ended because of a manifest.
#[derive(Debug, Clone, Copy)]
struct Delay {
    cause: Cause,
    version: Version,
    is_grpc: bool,
    milliseconds: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// One of a few credentials with a stream of each kind.
    Fingerprint,
    /// Half of all streams.
    Watermark,
}

/// Opens `of_each` streams of each kind, revokes the credentials of a few, and raises a watermark for half of them.
async fn ends(
    kinds: &[(Kind, Version)],
    http2_upstream: bool,
    of_each: usize,
    scale: Scale,
) -> Result<Vec<Delay>> {
    let few = scale.of(10, 2);
    let mut edge = Edge::start(BEAT, http2_upstream, None).await?;
    let revoked = edge.tokens("OP0000000001/revoked", few);
    let (mut survivors, mut victims, mut few_each) = (Vec::new(), Vec::new(), Vec::new());
    for kind in kinds.chunks(1) {
        let survivor = edge.tokens("OP0000000001/survivor", of_each / 2 - few);
        survivors.extend(edge.open(kind, &survivor).await?);
        victims.extend(edge.open(kind, &edge.tokens("OP0000000001/victim", of_each / 2)).await?);
        for (number, token) in revoked.chunks(1).enumerate() {
            few_each.extend(edge.open(kind, token).await?.into_iter().map(|stream| (number, stream)));
        }
    }
    tokio::time::sleep(SETTLING).await;
    ensure!(survivors.iter().chain(&victims).all(OpenStream::is_open), "a stream ended before the change");

    let mut delays = Vec::new();
    for (number, token) in revoked.iter().enumerate() {
        let published = edge.revoke(token)?;
        let (affected, rest) = few_each.into_iter().partition(|(of, _)| *of == number);
        few_each = rest;
        let affected: Vec<(usize, OpenStream)> = affected;
        for (_, stream) in affected {
            delays.push(delay(Cause::Fingerprint, published, stream).await?);
        }
    }
    let published = edge.raise_watermark("OP0000000001/victim")?;
    for stream in victims {
        delays.push(delay(Cause::Watermark, published, stream).await?);
    }
    ensure!(survivors.iter().all(OpenStream::is_open), "a stream of a good credential ended");
    Ok(delays)
}

/// Waits for the end of a stream.
async fn delay(cause: Cause, published: Instant, stream: OpenStream) -> Result<Delay> {
    let (kind, version) = (stream.kind, stream.version);
    let end = stream.ended_within(PATIENCE).await?;
    ensure!(
        end.at >= published && if kind.has_response() { end.is_cut_off } else { end.status == 401 },
        "{kind:?} over {version:?} ended otherwise: status {}, {}",
        end.status,
        end.body
    );
    let milliseconds = end.at.duration_since(published).as_secs_f64() * 1e3;
    Ok(Delay { cause, version, is_grpc: kind == Kind::Grpc, milliseconds })
}

/// What open streams cost.
struct Idle {
    count: usize,
    /// The cores that Envoy takes with the filter and without, before the streams are open and while they are.
    cores_before: [f64; 2],
    cores: Vec<[f64; 2]>,
    /// Of Envoy with the filter and without, before the streams are open and while they are.
    memory: [[Memory; 2]; 2],
    quiet: Vec<Window>,
    checked: Vec<Window>,
    ended: Vec<Window>,
}

async fn idle(scale: Scale) -> Result<Idle> {
    let count = scale.of(10_000, 90);
    let kinds = [Kind::Events, Kind::Download, Kind::Grpc].map(|kind| (kind, Version::Http2));
    let mut ours = Edge::start(LONG_BEAT, true, None).await?;
    let bare = Edge::start(LONG_BEAT, true, Some(Vec::new())).await?;
    // Both have allocated what any request needs.
    for edge in [&ours, &bare] {
        let tokens = edge.tokens("OP0000000001/warm-up", scale.of(300, 3));
        drop(edge.open(&kinds, &tokens).await?);
        edge.reaches(0).await;
    }
    let period = Duration::from_secs(scale.of(10, 1));
    tokio::time::sleep(SETTLING).await;
    let cores_before = cores(&ours, &bare, period).await?;
    let memory = async || anyhow::Ok([Memory::of(&ours).await?, Memory::of(&bare).await?]);
    let before = memory().await?;

    progress(&format!("streams: {count} idle streams, twice"));
    let survivors = open_share(&ours, &kinds, "OP0000000001/survivor", count / 2).await?;
    let mut others = open_share(&bare, &kinds, "OP0000000001/survivor", count / 2).await?;
    let mut victims = open_share(&ours, &kinds, &victim(0), count - count / 2).await?;
    others.extend(open_share(&bare, &kinds, &victim(0), count - count / 2).await?);
    tokio::time::sleep(2 * SETTLING).await;
    let with = memory().await?;
    let mut all_cores = Vec::new();
    for _ in 0..scale.of(3, 1) {
        all_cores.push(cores(&ours, &bare, period).await?);
    }
    let all = || survivors.iter().chain(&others);
    ensure!(all().chain(&victims).all(OpenStream::is_open), "a stream ended by itself");

    progress("streams: the longest stall of a worker");
    let probes = probe::start(&ours.control_plane.envoy).await?;
    let mut marks = Vec::new();
    for number in 0..scale.of(10, 1) {
        marks.push(Mark::wait(Phase::Quiet, Instant::now()).await);
        let unknown = format!("unknown credential {number}");
        marks.push(Mark::wait(Phase::Checked, ours.revoke(&unknown)?).await);
    }
    for round in 0..scale.of(3, 1) {
        let refused = ours.raise_watermark(&victim(round))?;
        marks.push(Mark::wait(Phase::Ended, refused).await);
        for stream in victims.drain(..) {
            stream.ended_within(PATIENCE).await?;
        }
        ensure!(all().all(OpenStream::is_open), "a stream of a good credential ended");
        victims = open_share(&ours, &kinds, &victim(round + 1), count - count / 2).await?;
        tokio::time::sleep(SETTLING).await;
        marks.push(Mark::wait(Phase::Quiet, Instant::now()).await);
    }
    let mut answers = Vec::new();
    for probe in probes {
        answers.push(probe.finish()?);
    }
    let of = |phase: Phase| {
        marks.iter().filter(|mark| mark.phase == phase).map(|mark| Window::of(mark, &answers)).collect()
    };
    Ok(Idle {
        count,
        cores_before,
        cores: all_cores,
        memory: [before, with],
        quiet: of(Phase::Quiet),
        checked: of(Phase::Checked),
        ended: of(Phase::Ended),
    })
}

fn victim(round: usize) -> String {
    format!("OP0000000001/victim-{round}")
}

/// Opens `count` streams, about as many of each kind.
async fn open_share(
    edge: &Edge,
    kinds: &[(Kind, Version)],
    subject: &str,
    count: usize,
) -> Result<Vec<OpenStream>> {
    let mut streams = Vec::new();
    for (number, kind) in kinds.iter().enumerate() {
        let share = count / kinds.len() + usize::from(number < count % kinds.len());
        streams.extend(edge.open(std::slice::from_ref(kind), &edge.tokens(subject, share)).await?);
    }
    Ok(streams)
}

/// The cores that the Envoys with and without the filter take, in the same period.
async fn cores(ours: &Edge, bare: &Edge, period: Duration) -> Result<[f64; 2]> {
    let read = || anyhow::Ok([ours, bare].map(|edge| Usage::of(edge.control_plane.envoy.id())));
    let (clock, before) = (Instant::now(), read()?);
    tokio::time::sleep(period).await;
    let (seconds, after) = (clock.elapsed().as_secs_f64(), read()?);
    let [ours, bare] = after;
    let [ours_before, bare_before] = before;
    Ok([
        (ours?.cpu_seconds - ours_before?.cpu_seconds) / seconds,
        (bare?.cpu_seconds - bare_before?.cpu_seconds) / seconds,
    ])
}

/// The memory of an Envoy, in bytes.
#[derive(Debug, Clone, Copy, Serialize)]
struct Memory {
    resident: f64,
    /// The objects of Envoy itself, by its allocator.
    allocated: f64,
    /// The memory of the largest VM, which grows by 64 KiB; 0 without the filter.
    vm: f64,
}

impl Memory {
    async fn of(edge: &Edge) -> Result<Self> {
        let envoy = &edge.control_plane.envoy;
        let memory: Value = serde_json::from_str(&envoy.admin("/memory").await?)?;
        // The VMs set the gauge in turn, that of the main thread as well, which has no streams.
        let mut vm = 0;
        for _ in 0..50 {
            vm = envoy.metric("keystile_vm_memory_bytes").await?.max(vm);
            tokio::time::sleep(Duration::from_millis(17)).await;
        }
        Ok(Self {
            resident: Usage::of(envoy.id())?.resident_bytes,
            allocated: memory["allocated"].as_str().context("no allocated memory")?.parse()?,
            vm: vm as f64,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Quiet,
    Checked,
    Ended,
}

/// A period of the probes.
struct Mark {
    phase: Phase,
    from: Instant,
    until: Instant,
}

impl Mark {
    async fn wait(phase: Phase, from: Instant) -> Self {
        tokio::time::sleep(WINDOW).await;
        Self { phase, from, until: Instant::now() }
    }
}

/// What the probes of all workers found in a period, in milliseconds.
struct Window {
    latency: Vec<f64>,
    /// Without the time for which the worker waited for a core.
    on_core: Vec<f64>,
    /// The CPU of the busiest worker.
    cpu: f64,
    /// The slowest answers by the time on a core.
    slowest: Vec<Slow>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Slow {
    /// The time from the change to the request.
    after_ms: f64,
    latency_ms: f64,
    on_core_ms: f64,
}

impl Window {
    fn of(mark: &Mark, answers: &[Vec<Answer>]) -> Self {
        let within = |answer: &&Answer| answer.at >= mark.from && answer.at < mark.until;
        let all: Vec<&Answer> = answers.iter().flatten().filter(within).collect();
        let slow = |answer: &&Answer| Slow {
            after_ms: answer.at.duration_since(mark.from).as_secs_f64() * 1e3,
            latency_ms: answer.latency_ms,
            on_core_ms: answer.on_core_ms,
        };
        let mut slowest: Vec<Slow> = all.iter().map(slow).collect();
        slowest.sort_by(|one, other| other.on_core_ms.total_cmp(&one.on_core_ms));
        slowest.truncate(5);
        let cpu = |of: &Vec<Answer>| {
            let mut inside = of.iter().filter(within).map(|answer| answer.worker_cpu_ms);
            inside.next().map_or(0.0, |first| inside.next_back().unwrap_or(first) - first)
        };
        Self {
            latency: all.iter().map(|answer| answer.latency_ms).collect(),
            on_core: all.iter().map(|answer| answer.on_core_ms).collect(),
            cpu: answers.iter().map(cpu).fold(0.0, f64::max),
            slowest,
        }
    }
}

/// Some windows of the same phase.
struct Stall {
    latency: Quantiles,
    on_core: Quantiles,
    longest: Spread,
    longest_on_core: Spread,
    cpu: Spread,
    slowest: Vec<Slow>,
}

impl Stall {
    fn of(windows: &[Window]) -> Result<Self> {
        let all = |of: fn(&Window) -> &Vec<f64>| {
            let values: Vec<f64> = windows.iter().flat_map(of).copied().collect();
            Quantiles::of(&values).context("the probes found nothing")
        };
        let longest = |of: fn(&Window) -> &Vec<f64>| {
            let each = windows.iter().map(|window| of(window).iter().copied().fold(0.0, f64::max));
            Spread::of(each).context("no windows")
        };
        Ok(Self {
            latency: all(|window| &window.latency)?,
            on_core: all(|window| &window.on_core)?,
            longest: longest(|window| &window.latency)?,
            longest_on_core: longest(|window| &window.on_core)?,
            cpu: Spread::of(windows.iter().map(|window| window.cpu)).context("no windows")?,
            slowest: windows.iter().flat_map(|window| &window.slowest).copied().collect(),
        })
    }

    fn figures(&self) -> Value {
        let Self { latency, on_core, longest, longest_on_core, cpu, slowest } = self;
        json!({
            "latency_ms": latency,
            "latency_on_core_ms": on_core,
            "longest_of_each_window_ms": longest,
            "longest_of_each_window_on_core_ms": longest_on_core,
            "cpu_ms_of_each_window": cpu,
            "slowest_of_each_window": slowest,
        })
    }
}

fn section(of_each: usize, scale: Scale, delays: &[Delay], idle: &Idle) -> Result<Section> {
    let group = |keep: &dyn Fn(&Delay) -> bool| -> Vec<f64> {
        delays.iter().filter(|delay| keep(delay)).map(|delay| delay.milliseconds).collect()
    };
    let mut rows = Vec::new();
    let mut ends = Vec::new();
    let mut lines = Vec::new();
    let mut budgets = Vec::new();
    for (cause, name, key) in [
        (Cause::Watermark, "a watermark that covers half of the streams", "watermark"),
        (Cause::Fingerprint, "one revoked credential with a stream of each kind", "fingerprint"),
    ] {
        for (what, values) in [
            ("HTTP/1.1", group(&|of| of.cause == cause && of.version == Version::Http1)),
            ("HTTP/2", group(&|of| of.cause == cause && of.version == Version::Http2 && !of.is_grpc)),
            ("gRPC", group(&|of| of.cause == cause && of.is_grpc)),
        ] {
            let quantiles = Quantiles::of(&values).context("no streams")?;
            let Quantiles { count, p50, p99, max } = quantiles;
            rows.push(vec![
                name.to_owned(),
                what.to_owned(),
                count.to_string(),
                format!("{p50:.0}"),
                format!("{p99:.0}"),
                format!("{max:.0}"),
            ]);
            ends.push(json!({ "cause": key, "protocol": what, "delay_ms": quantiles }));
            lines.push((format!("{key}, {what}"), thin_out(&values)));
        }
        let all = Quantiles::of(&group(&|of| of.cause == cause)).context("no streams")?;
        for (which, value) in [("p99", all.p99), ("max", all.max)] {
            let what = format!("published to ended at the client, {name}, {which}");
            budgets.push(Budget::at_most(what, value, 1_000.0, "ms"));
        }
    }
    let Idle { count, cores_before, cores, memory: [before, with], .. } = idle;
    let per_stream =
        |of: fn(&Memory) -> f64| [0, 1].map(|edge| (of(&with[edge]) - of(&before[edge])) / *count as f64);
    let resident = per_stream(|memory| memory.resident);
    let allocated = per_stream(|memory| memory.allocated);
    // Each worker has about its share of the streams.
    let vm = per_stream(|memory| WORKERS * memory.vm);
    let percent = |which: usize| Spread::of(cores.iter().map(|cores| cores[which] * 100.0));
    let (ours, bare) = (percent(0).context("no windows")?, percent(1).context("no windows")?);
    let added = Spread::of(cores.iter().map(|[ours, bare]| (ours - bare) * 100.0)).context("no windows")?;
    let by_filter = (cores_before[0] - cores_before[1]) * 100.0;
    let by_streams = added.median - by_filter;
    let [quiet, checked, ended] =
        [Stall::of(&idle.quiet)?, Stall::of(&idle.checked)?, Stall::of(&idle.ended)?];
    let figures = json!({
        "streams_of_each_kind": of_each,
        "ends": ends,
        "idle_streams": count,
        "idle_percent": { "keystile": ours, "no_filter": bare, "added": added, "added_by_streams": by_streams },
        "without_streams_percent": { "keystile": cores_before[0] * 100.0, "no_filter": cores_before[1] * 100.0 },
        "stalls": { "no_change": quiet.figures(), "all_checked": checked.figures(), "half_ended": ended.figures() },
        "memory": {
            "keystile": { "before": before[0], "with": with[0] },
            "no_filter": { "before": before[1], "with": with[1] },
        },
    });
    let mut section = Section::new("Open streams", method(of_each, scale, idle), figures);
    budgets.push(Budget::at_most(
        format!("CPU that {count} idle streams add to the filter while nothing changes"),
        by_streams,
        2.0,
        "% of a core",
    ));
    for (name, stall) in [("all streams are checked", &checked), ("half of the streams end", &ended)] {
        let what =
            format!("{count} streams, the longest stall of a worker that has a core when {name}, median");
        budgets.push(Budget::at_most(what, stall.longest_on_core.median, 5.0, "ms"));
    }
    section.budgets = budgets;
    section.tables.push(Table {
        caption: "From publishing a manifest to the end of a stream at the client:".into(),
        columns: vec!["manifest", "streams", "ended", "p50, ms", "p99, ms", "max, ms"],
        rows,
    });
    let bytes = |what: &str, [ours, bare]: [f64; 2]| {
        let all = [ours, bare, ours - bare].map(|bytes| format!("{bytes:.0}"));
        [vec![what.to_owned()], all.into()].concat()
    };
    section.tables.push(Table {
        caption: format!("{count} idle streams:"),
        columns: vec!["what", "Keystile", "no filter", "added"],
        rows: vec![
            vec![
                "CPU without streams, % of a core".into(),
                format!("{:.2}", cores_before[0] * 100.0),
                format!("{:.2}", cores_before[1] * 100.0),
                format!("{by_filter:.2}"),
            ],
            vec!["CPU, % of a core".into(), ours.text(2), bare.text(2), added.text(2)],
            bytes("resident memory of a stream, bytes", resident),
            bytes("objects of Envoy for a stream, bytes", allocated),
            bytes("memory of the VMs for a stream, bytes", vm),
            vec![
                "memory of the largest VM before and with the streams, MB".into(),
                format!("{:.2}, {:.2}", before[0].vm / 1e6, with[0].vm / 1e6),
                String::new(),
                String::new(),
            ],
        ],
    });
    let stall = |name: &str, Stall { latency, on_core, longest, longest_on_core, cpu, .. }: &Stall| {
        vec![
            name.to_owned(),
            latency.count.to_string(),
            format!("{:.2}", latency.p50),
            format!("{:.2}", latency.p99),
            longest.text(1),
            format!("{:.2}", on_core.p99),
            longest_on_core.text(1),
            cpu.text(0),
        ]
    };
    section.tables.push(Table {
        caption: format!("Answers of the workers of {count} streams:"),
        columns: vec![
            "within a second",
            "requests",
            "p50, ms",
            "p99, ms",
            "longest, ms",
            "p99 with a core, ms",
            "longest with a core, ms",
            "CPU of the worker, ms",
        ],
        rows: vec![
            stall("nothing changes", &quiet),
            stall("all streams are checked", &checked),
            stall("half of the streams end", &ended),
        ],
    });
    section.plots.push(Plot {
        name: "streams".into(),
        title: "Share of the affected streams that have ended, over time since the manifest".into(),
        unit: "ms",
        kind: PlotKind::Shares(lines),
    });
    Ok(section)
}

fn method(of_each: usize, scale: Scale, idle: &Idle) -> [String; 3] {
    [
        format!(
            "One Envoy with two workers; {of_each} WebSockets, event streams, downloads, long polls and uploads each over HTTP/1.1 and as many \
             over HTTP/2, and {of_each} gRPC streams at an Envoy of their own. {} credentials with a stream of each kind are revoked, one after the \
             other; then a watermark refuses half of the streams. The clock starts before the manifest is built and ends when the client has read \
             the end of the stream. Client and upstream share the cores with Envoy.",
            scale.of(10, 2)
        ),
        format!(
            "{} streams without traffic (events, downloads and gRPC over HTTP/2) are open at an Envoy with the filter and at one without, whose CPU \
             is read in the same periods. Each has a credential of its own. Memory is the difference to before the streams are open; the heap of the allocator, and of a VM, may \
             have had room before.",
            idle.count
        ),
        "Every millisecond, a thread sends a request without a credential to each worker, on a connection of its own; the filter answers it. A \
         manifest that affects no stream has all streams checked; a watermark ends half of them. The times with a core leave out the time for \
         which the threads of the worker and of the probe were ready but had no core, as the kernel counts it."
            .to_owned(),
    ]
}

/// The number of streams that are opened at once.
const OPENERS: usize = 8;
/// The workers of each Envoy.
const WORKERS: f64 = 2.0;
/// Long enough for thousands of streams to leave the machine idle.
const BEAT: Duration = Duration::from_secs(20);
/// Shorter than Envoy's `stream_idle_timeout`, five minutes.
const LONG_BEAT: Duration = Duration::from_secs(120);
const SETTLING: Duration = Duration::from_secs(2);
/// The filter has checked all streams by then.
const WINDOW: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(20);
