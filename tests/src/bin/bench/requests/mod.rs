//! Measures the cost of a check for a request: one Envoy worker for each filter, loaded one after another.

mod edges;
mod issuer;
mod memory;
mod peers;

use crate::load::{Load, Outcome};
use crate::machine::Usage;
use crate::plain::Plain;
use crate::plot::{self, Bar, Plot};
use crate::report::{Budget, Section, Table};
use crate::statistics::Spread;
use crate::{Scale, block_on, progress};
use anyhow::{Context, Result};
use edges::Edge;
use harness::Scratch;
use harness::envoy::FilterHost;
use issuer::Issuer;
use serde::Serialize;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) fn measure(scale: Scale) -> Result<Section> {
    block_on(measured(scale))
}

async fn measured(scale: Scale) -> Result<Section> {
    let scratch = Scratch::new()?;
    let upstream = scratch.address(8081);
    let _upstream = Plain::start(upstream).await?;
    let load = Load::new(scratch.folder(), CONNECTIONS)?;
    let issuers = Issuer::all_issuers()?;
    let tokens = Tokens::written(&load, &issuers, scale)?;
    let mut edges = edges::start(&scratch, upstream, &issuers, &tokens, scale).await?;
    let subjects = subjects(&edges, &tokens);
    let rounds = rounds(&load, &mut edges, &subjects, scale).await?;
    let costs = costs(&subjects, &rounds)?;
    drop(edges);
    let memory = memory::measure(upstream, &issuers, scale).await?;
    Ok(section(scale, &costs, &memory))
}

/// The files of requests.
struct Tokens {
    /// The API keys that `api_key_auth` knows.
    api_keys: Vec<String>,
    kinds: Vec<Kind>,
}

/// One kind of credential: a number that fits into every cache, and a number that fits into none.
struct Kind {
    name: &'static str,
    warm: PathBuf,
    cold: PathBuf,
}

impl Tokens {
    fn written(load: &Load, issuers: &[Issuer], scale: Scale) -> Result<Self> {
        let cold = scale.of(COLD, WARM);
        let mut kinds = Vec::new();
        for issuer in issuers {
            let name = issuer.algorithm;
            progress(&format!("requests: {WARM} and {cold} tokens with {name}"));
            let headers = issuer.headers(cold)?;
            kinds.push(Kind {
                name,
                warm: load.gets(&format!("warm-{name}"), headers[..WARM].iter().cloned())?,
                cold: load.gets(&format!("cold-{name}"), headers)?,
            });
        }
        let api_keys = edges::api_keys(cold)?;
        let headers = |count: usize| api_keys[..count].iter().map(|key| format!("x-api-key: {key}"));
        kinds.push(Kind {
            name: API_KEY,
            warm: load.gets("warm-api-keys", headers(WARM))?,
            cold: load.gets("cold-api-keys", headers(cold))?,
        });
        Ok(Self { api_keys: api_keys[..WARM].to_vec(), kinds })
    }
}

/// One row of the report: a filter and its requests.
struct Subject {
    name: String,
    /// The index of the Envoy.
    edge: usize,
    ours: bool,
    /// The kind of its credentials.
    kind: &'static str,
    requests: PathBuf,
    peers: Vec<Peer>,
}

/// A row to compare with, and the maximum multiple of its cost, if the design has one.
type Peer = (String, Option<f64>);

fn subjects(edges: &[Edge], tokens: &Tokens) -> Vec<Subject> {
    let mut subjects = Vec::new();
    for (at, edge) in edges.iter().enumerate() {
        let mut add = |name: String, kind: &'static str, requests: &PathBuf, peers: Vec<Peer>| {
            let (requests, ours) = (requests.clone(), edge.ours.is_some());
            subjects.push(Subject { name, edge: at, ours, kind, requests, peers });
        };
        for Kind { name: kind, warm, cold } in &tokens.kinds {
            match (edge.ours, edge.name) {
                // The number of revocations is the same question for every kind of credential.
                (Some((_, 1..)), _) if *kind != "HS256" => {}
                (Some((host, revocations)), _) => {
                    let name =
                        |state| format!("{}, {state}, {kind}, {}", host_name(host), millions(revocations));
                    add(name("warm"), kind, warm, warm_peers(host, kind));
                    add(name("cold"), kind, cold, cold_peers(host, kind));
                }
                (None, NO_FILTER) => add(no_filter(kind), kind, warm, Vec::new()),
                (None, name) if name.starts_with("jwt_authn") && *kind != API_KEY => {
                    add(format!("{name}, {kind}"), kind, warm, Vec::new());
                }
                (None, "api_key_auth") if *kind == API_KEY => add(edge.name.into(), kind, warm, Vec::new()),
                (None, name)
                    if !name.starts_with("jwt_authn") && name != "api_key_auth" && *kind == "HS256" =>
                {
                    add(name.into(), kind, warm, Vec::new());
                }
                _ => {}
            }
        }
    }
    subjects
}

const fn host_name(host: FilterHost) -> &'static str {
    match host {
        FilterHost::Wasm => "Keystile in wasm",
        FilterHost::Module => "Keystile as a module",
    }
}

/// Returns the name of the row with the same requests and no filter.
fn no_filter(kind: &str) -> String {
    format!("{NO_FILTER}, {kind}")
}

/// The peers of known credentials, with the budgets of the design.
fn warm_peers(host: FilterHost, kind: &str) -> Vec<Peer> {
    let equal = (format!("jwt_authn with headers, cached, {kind}"), Some(0.7));
    let barest = (format!("jwt_authn, cached, {kind}"), Some(1.25));
    match (host, kind) {
        (_, API_KEY) => vec![("api_key_auth".to_owned(), None)],
        (FilterHost::Wasm, "HS256") => vec![(EDITS.to_owned(), Some(1.5)), (equal.0, None)],
        (FilterHost::Wasm, _) => vec![(equal.0, None)],
        (FilterHost::Module, _) => vec![equal, barest],
    }
}

/// The peers of new credentials, with the budgets of the design.
fn cold_peers(host: FilterHost, kind: &str) -> Vec<Peer> {
    let budget = match (host, kind) {
        (_, API_KEY) => return vec![("api_key_auth".to_owned(), None)],
        (FilterHost::Wasm, "HS256" | "ES256") => Some(1.25),
        (FilterHost::Wasm, "EdDSA") => Some(1.05),
        (FilterHost::Wasm, _) => None,
        (FilterHost::Module, "HS256" | "EdDSA") => Some(0.5),
        (FilterHost::Module, _) => Some(0.7),
    };
    vec![
        (format!("jwt_authn, no cache, {kind}"), budget),
        (format!("jwt_authn with headers, no cache, {kind}"), None),
    ]
}

/// One subject in one round.
struct Run {
    cpu_us: f64,
    outcome: Outcome,
}

/// Returns the runs by subject, then by round. Each round runs all subjects, in new processes, so that changes of the
/// machine affect all.
async fn rounds(
    load: &Load,
    edges: &mut [Edge],
    subjects: &[Subject],
    scale: Scale,
) -> Result<Vec<Vec<Run>>> {
    let rounds = scale.of(9, 1);
    progress(&format!(
        "requests: {} filters, {} subjects, {rounds} rounds: {} s and the starts",
        edges.len(),
        subjects.len(),
        subjects.len() as u64 * rounds * (SLICE + scale.of(SLICE, Duration::ZERO)).as_secs()
    ));
    let mut runs: Vec<Vec<Run>> = subjects.iter().map(|_| Vec::new()).collect();
    for round in 1..=rounds {
        if round > 1 {
            progress(&format!("requests: round {round} of {rounds}: starting all filters again"));
            for edge in &mut *edges {
                edge.restart().await?;
            }
        }
        for (subject, runs) in subjects.iter().zip(&mut runs) {
            let Some(edge) = edges.get(subject.edge) else { continue };
            if scale == Scale::Full {
                // The previous run may have evicted these credentials from a cache.
                run(load, edge, subject).await?;
            }
            let run = run(load, edge, subject).await?;
            progress(&format!("requests: round {round} of {rounds}: {}: {:.1} us", subject.name, run.cpu_us));
            runs.push(run);
        }
    }
    Ok(runs)
}

async fn run(load: &Load, edge: &Edge, subject: &Subject) -> Result<Run> {
    let Subject { name, requests, .. } = subject;
    let before = Usage::of(edge.id())?;
    let outcome = load.run(edge.address(), requests, SLICE).await.with_context(|| name.clone())?;
    let after = Usage::of(edge.id())?;
    Ok(Run { cpu_us: (after.cpu_seconds - before.cpu_seconds) * 1e6 / outcome.requests as f64, outcome })
}

/// The results of a subject.
#[derive(Debug, Serialize)]
struct Cost {
    name: String,
    ours: bool,
    requests: u64,
    /// Envoy's CPU per request.
    total_us: Spread,
    /// The difference of the minimum to the minimum without a filter.
    added_us: f64,
    p50_us: Spread,
    p99_us: Spread,
    requests_per_second: Spread,
    comparisons: Vec<Comparison>,
}

/// A result beside that of a peer.
#[derive(Debug, Serialize)]
struct Comparison {
    peer: String,
    /// The multiple of what the peer adds; `None` if noise hides one of them.
    ratio: Option<f64>,
    budget: Option<f64>,
}

fn costs(subjects: &[Subject], rounds: &[Vec<Run>]) -> Result<Vec<Cost>> {
    let spread = |runs: &[Run], value: fn(&Run) -> f64| {
        Spread::of(runs.iter().map(value)).context("a subject without a run")
    };
    let mut costs: Vec<Cost> = Vec::new();
    for (subject, runs) in subjects.iter().zip(rounds) {
        let total_us = spread(runs, |run| run.cpu_us)?;
        let none = no_filter(subject.kind);
        let none = costs.iter().find(|cost| cost.name == none).map_or(total_us.min, |cost| cost.total_us.min);
        let added_us = total_us.min - none;
        let compare = |(peer, budget): &Peer| {
            let peers = costs.iter().find(|cost| cost.name == *peer).map(|cost| cost.added_us);
            let ratio = peers.filter(|peers| *peers > 0.0 && added_us > 0.0).map(|peers| added_us / peers);
            Comparison { peer: peer.clone(), ratio, budget: *budget }
        };
        costs.push(Cost {
            name: subject.name.clone(),
            ours: subject.ours,
            requests: runs.iter().map(|run| run.outcome.requests).sum(),
            total_us,
            added_us,
            p50_us: spread(runs, |run| run.outcome.p50_us)?,
            p99_us: spread(runs, |run| run.outcome.p99_us)?,
            requests_per_second: spread(runs, |run| run.outcome.requests as f64 / run.outcome.seconds)?,
            comparisons: subject.peers.iter().map(compare).collect(),
        });
    }
    Ok(costs)
}

impl Comparison {
    fn text(&self) -> String {
        let Self { peer, ratio, .. } = self;
        match ratio {
            Some(ratio) => format!("{ratio:.2} times {peer}"),
            None => format!("lost in the noise beside {peer}"),
        }
    }
}

fn section(scale: Scale, costs: &[Cost], memory: &[memory::Memory]) -> Section {
    let cold = scale.of(COLD, WARM);
    let method = [
        format!(
            "One Envoy worker (`--concurrency 1`) for each filter, on a core of its own; wrk with {} connections and the \
             upstream on the other. CPU is utime + stime of the Envoy process, divided by the requests answered, in slices of \
             a second, one filter after the other, round after round, each round in new processes, because a process has a bias \
             of its own of up to 1.5 µs (the layout of its memory). Other activity of the machine can only increase it, so \
             the minimum of the rounds counts: *added* is its difference to the minimum without a filter, for requests of \
             the same kind and size. Without a filter the credential reaches the upstream; Keystile and `jwt_authn` remove \
             it. In brackets: the median and the maximum. A response other than success ends the run.",
            CONNECTIONS
        ),
        format!(
            "*jwt_authn with headers* removes the token and adds three headers with claims, as Keystile does for these tokens; \
             *jwt_authn* adds none. *wasm that only edits headers* reads all headers in one call, removes one and adds three, as Keystile does for \
             these tokens, and decides nothing: every wasm filter that sends an identity to the upstream has this cost. \
             *Warm*: {WARM} tokens in turn. *Cold*: {cold} tokens in turn, more than fit into any cache. *Cached*: \
             `jwt_authn` with a cache for {} tokens. The CPU of the service behind `ext_authz` is not counted. Latencies \
             are those of closed loops that keep the worker busy: they are for comparison only.",
            ROOM
        ),
    ];
    let figures = json!({ "costs": costs, "memory": memory });
    let mut section = Section::new("What a check costs a request", method, figures);
    let rows = costs.iter().map(|cost| {
        let Cost { name, added_us, total_us, p50_us, p99_us, comparisons, .. } = cost;
        let median = |of: &Spread| format!("{:.0}", of.median);
        vec![
            name.clone(),
            format!("{added_us:.1}"),
            format!("{:.1} ({:.1}, {:.1})", total_us.min, total_us.median, total_us.max),
            median(p50_us),
            median(p99_us),
            comparisons.iter().map(Comparison::text).collect::<Vec<_>>().join("; "),
        ]
    });
    section.tables.push(Table {
        caption: String::new(),
        columns: vec!["filter", "CPU added, µs", "CPU in all, µs", "p50, µs", "p99, µs", "beside its peer"],
        rows: rows.collect(),
    });
    for cost in costs {
        for Comparison { peer, ratio, budget } in &cost.comparisons {
            if let Some(budget) = budget {
                let what = format!("CPU added: {} beside {peer}", cost.name);
                section.budgets.push(Budget::at_most(what, *ratio, *budget, "times"));
            }
        }
    }
    let filters = costs.iter().filter(|cost| !cost.name.starts_with(NO_FILTER));
    let bars = filters.map(|cost| Bar { label: cost.name.clone(), value: cost.added_us, ours: cost.ours });
    section.plots.push(Plot {
        name: "requests".into(),
        title: "CPU added to a request".into(),
        unit: "µs",
        kind: plot::Kind::Bars(bars.collect()),
    });
    memory::report(memory, &mut section);
    section
}

fn millions(count: u32) -> String {
    match count {
        0 => "nothing revoked".into(),
        large if large >= 1_000_000 => format!("{} million revoked", large / 1_000_000),
        small => format!("{small} revoked"),
    }
}

const API_KEY: &str = "API key";

const NO_FILTER: &str = "no filter";

/// The wasm filter that does as many host calls as Keystile.
const EDITS: &str = "wasm that only edits headers";

/// A number of distinct credentials that fits into every cache.
const WARM: usize = 2_000;

/// The size of the cache of `jwt_authn`. It evicts long before it is full, and four algorithms share it.
pub(super) const ROOM: usize = 20 * WARM;

/// More than fit into any cache here, and more than a round sends.
const COLD: usize = 50_000;

/// A short duration allows many rounds, because disturbances of a machine last seconds.
const SLICE: Duration = Duration::from_secs(1);

/// Sufficient to keep one worker busy, without a latency that is only queueing.
const CONNECTIONS: usize = 16;
