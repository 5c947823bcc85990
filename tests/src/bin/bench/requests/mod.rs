//! What a check costs a request: one Envoy worker for each filter, all at once, one after the other under load.

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
    let issuers = Issuer::all()?;
    let tokens = Tokens::written(&load, &issuers, scale)?;
    let edges = edges::start(&scratch, upstream, &issuers, &tokens, scale).await?;
    let subjects = subjects(&edges, &tokens);
    let rounds = rounds(&load, &edges, &subjects, scale).await?;
    let results: Vec<Cost> =
        subjects.iter().zip(&rounds).map(|(subject, runs)| cost(subject, runs)).collect();
    let costs = compared(results, &rounds);
    drop(edges);
    let memory = memory::measure(upstream, &issuers, scale).await?;
    Ok(section(scale, &costs, &memory))
}

/// Files of requests.
struct Tokens {
    /// Without a credential.
    plain: PathBuf,
    /// Those that `api_key_auth` knows.
    api_keys: Vec<String>,
    kinds: Vec<Kind>,
}

/// One kind of credential: as many as fit every cache, and more than fit any.
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
        Ok(Self {
            plain: load.gets("plain", ["authorization: none".to_owned()])?,
            api_keys: api_keys[..WARM].to_vec(),
            kinds,
        })
    }
}

/// One row of the report: a filter, and what it is sent.
struct Subject<'a> {
    name: String,
    edge: &'a Edge,
    requests: PathBuf,
    /// What it stands beside, and how many times that it may cost at most, if the design says so.
    peer: Option<(String, Option<f64>)>,
}

fn subjects<'a>(edges: &'a [Edge], tokens: &Tokens) -> Vec<Subject<'a>> {
    let mut subjects = Vec::new();
    for edge in edges {
        let mut add = |name: String, requests: &PathBuf, peer: Option<(String, Option<f64>)>| {
            subjects.push(Subject { name, edge, requests: requests.clone(), peer });
        };
        match edge.revocations {
            Some(revocations) => {
                let loaded = millions(revocations);
                for Kind { name, warm, cold } in &tokens.kinds {
                    let (cached, uncached) = match *name {
                        API_KEY => ("api_key_auth".to_owned(), "api_key_auth".to_owned()),
                        name => {
                            (format!("jwt_authn, cached, {name}"), format!("jwt_authn, no cache, {name}"))
                        }
                    };
                    let budget = (*name != API_KEY).then_some(1.0);
                    add(format!("Keystile, warm, {name}, {loaded}"), warm, Some((cached, budget)));
                    let budget = cold_budget(name);
                    add(format!("Keystile, cold, {name}, {loaded}"), cold, Some((uncached, budget)));
                }
            }
            None if edge.name.starts_with("jwt_authn") => {
                for Kind { name, warm, .. } in tokens.kinds.iter().filter(|kind| kind.name != API_KEY) {
                    add(format!("{}, {name}", edge.name), warm, None);
                }
            }
            None if edge.name == "api_key_auth" => {
                for Kind { warm, .. } in tokens.kinds.iter().filter(|kind| kind.name == API_KEY) {
                    add(edge.name.into(), warm, None);
                }
            }
            None => add(edge.name.into(), &tokens.plain, None),
        }
    }
    subjects
}

/// DESIGN.md, "Budgets": times what native `jwt_authn` takes without its cache.
fn cold_budget(algorithm: &str) -> Option<f64> {
    match algorithm {
        "HS256" => Some(0.5),
        "EdDSA" => Some(1.2),
        "ES256" => Some(2.0),
        _ => None,
    }
}

/// One subject in one round.
struct Run {
    cpu_us: f64,
    /// Without a filter, right before it: a machine is not the same from one minute to the next.
    none_us: f64,
    outcome: Outcome,
}

impl Run {
    fn added_us(&self) -> f64 {
        self.cpu_us - self.none_us
    }
}

/// By subject, then by round. Round after round, so that what changes on the machine changes for all.
async fn rounds(
    load: &Load,
    edges: &[Edge],
    subjects: &[Subject<'_>],
    scale: Scale,
) -> Result<Vec<Vec<Run>>> {
    let (rounds, duration) = (scale.of(5, 1), Duration::from_secs(scale.of(2, 1)));
    let none = subjects.first().context("nothing is measured")?;
    progress(&format!(
        "requests: {} filters, {} subjects, {rounds} rounds of {} s each: {} s",
        edges.len(),
        subjects.len(),
        duration.as_secs(),
        subjects.len() as u64 * rounds * (duration * 2 + scale.of(WARM_UP, Duration::ZERO)).as_secs()
    ));
    let mut runs: Vec<Vec<Run>> = subjects.iter().map(|_| Vec::new()).collect();
    for round in 1..=rounds {
        for (subject, runs) in subjects.iter().zip(&mut runs) {
            let Subject { name, edge, requests, .. } = subject;
            if scale == Scale::Full {
                load.run(edge.address(), requests, WARM_UP).await.with_context(|| name.clone())?;
            }
            let (none_us, _) = run(load, none, duration).await?;
            let (cpu_us, outcome) = run(load, subject, duration).await?;
            let run = Run { cpu_us, none_us, outcome };
            progress(&format!("requests: round {round} of {rounds}: {name}: {:.1} us added", run.added_us()));
            runs.push(run);
        }
    }
    Ok(runs)
}

/// CPU of Envoy for each request, in microseconds.
async fn run(load: &Load, subject: &Subject<'_>, duration: Duration) -> Result<(f64, Outcome)> {
    let Subject { name, edge, requests, .. } = subject;
    let before = Usage::of(edge.id())?;
    let outcome = load.run(edge.address(), requests, duration).await.with_context(|| name.clone())?;
    let after = Usage::of(edge.id())?;
    Ok(((after.cpu_seconds - before.cpu_seconds) * 1e6 / outcome.requests as f64, outcome))
}

/// What the report says of a subject.
#[derive(Debug, Serialize)]
struct Cost {
    name: String,
    ours: bool,
    requests: u64,
    /// Of Envoy's CPU, for each request.
    total_us: Option<Spread>,
    /// The same against no filter right before.
    added_us: Option<Spread>,
    p50_us: Option<Spread>,
    p99_us: Option<Spread>,
    requests_per_second: Option<Spread>,
    peer: Option<String>,
    /// How many times what the peer added in the same round.
    ratio: Option<Spread>,
    budget: Option<f64>,
}

fn cost(subject: &Subject<'_>, runs: &[Run]) -> Cost {
    let spread = |value: fn(&Run) -> f64| Spread::of(runs.iter().map(value));
    Cost {
        name: subject.name.clone(),
        ours: subject.edge.revocations.is_some(),
        requests: runs.iter().map(|run| run.outcome.requests).sum(),
        total_us: spread(|run| run.cpu_us),
        added_us: spread(Run::added_us),
        p50_us: spread(|run| run.outcome.p50_us),
        p99_us: spread(|run| run.outcome.p99_us),
        requests_per_second: spread(|run| run.outcome.requests as f64 / run.outcome.seconds),
        peer: subject.peer.as_ref().map(|(name, _)| name.clone()),
        ratio: None,
        budget: subject.peer.as_ref().and_then(|(_, budget)| *budget),
    }
}

/// Adds how many times its peer's each cost is; leaves it open where noise made a round's difference to no filter
/// negative, since a ratio of such says nothing.
fn compared(mut costs: Vec<Cost>, rounds: &[Vec<Run>]) -> Vec<Cost> {
    let names: Vec<String> = costs.iter().map(|cost| cost.name.clone()).collect();
    for (cost, runs) in costs.iter_mut().zip(rounds) {
        let peer = cost.peer.as_ref().and_then(|peer| names.iter().position(|name| name == peer));
        let Some(peer) = peer else { continue };
        let added = runs.iter().zip(&rounds[peer]).map(|(run, peer)| (run.added_us(), peer.added_us()));
        let added: Vec<(f64, f64)> = added.collect();
        if added.iter().all(|(ours, peers)| *ours > 0.0 && *peers > 0.0) {
            cost.ratio = Spread::of(added.iter().map(|(ours, peers)| ours / peers));
        }
    }
    costs
}

fn section(scale: Scale, costs: &[Cost], memory: &[memory::Memory]) -> Section {
    let cold = scale.of(COLD, WARM);
    let method = [
        format!(
            "One Envoy worker (`--concurrency 1`) for each filter, on a core of its own; wrk with {} connections and the \
             upstream on the other. CPU is utime + stime of the Envoy process, divided by the requests answered; *added* \
             is the difference to the same without a filter right before, so that the first row shows the noise. Medians of \
             the rounds, with the least and the largest. Any answer but success ends the run.",
            CONNECTIONS
        ),
        format!(
            "*Warm*: {WARM} tokens in turn. *Cold*: {cold} tokens in turn, more than any cache holds. *Cached*: `jwt_authn` \
             with room for {} tokens. The CPU that the service behind `ext_authz` takes is not counted. Latencies are of \
             closed loops that keep the worker busy: they compare, they promise nothing.",
            ROOM
        ),
    ];
    let figures = json!({ "costs": costs, "memory": memory });
    let mut section = Section::new("What a check costs a request", method, figures);
    let text =
        |spread: &Option<Spread>, decimals| spread.map_or_else(String::new, |spread| spread.text(decimals));
    let rows = costs.iter().map(|cost| {
        let Cost { name, added_us, total_us, p50_us, p99_us, peer, ratio, .. } = cost;
        let median = |of: &Option<Spread>| of.map_or_else(String::new, |of| format!("{:.0}", of.median));
        vec![
            name.clone(),
            text(added_us, 1),
            text(total_us, 1),
            median(p50_us),
            median(p99_us),
            match (peer, ratio) {
                (Some(peer), Some(ratio)) => format!("{} times {peer}", ratio.text(2)),
                (Some(peer), None) => format!("lost in the noise beside {peer}"),
                _ => String::new(),
            },
        ]
    });
    section.tables.push(Table {
        caption: String::new(),
        columns: vec!["filter", "CPU added, µs", "CPU in all, µs", "p50, µs", "p99, µs", "beside its peer"],
        rows: rows.collect(),
    });
    for cost in costs {
        if let (Some(budget), Some(peer)) = (cost.budget, &cost.peer) {
            let what = format!("CPU added: {} beside {peer}", cost.name);
            let ratio = cost.ratio.map(|ratio| ratio.median);
            section.budgets.push(Budget::at_most(what, ratio, budget, "times"));
        }
    }
    let bars = costs.iter().skip(1).filter_map(|cost| {
        Some(Bar { label: cost.name.clone(), value: cost.added_us?.median, ours: cost.ours })
    });
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

/// Distinct credentials that every cache has room for.
const WARM: usize = 2_000;

/// What `jwt_authn` has room for: it evicts long before it is full, and four algorithms share it.
pub(super) const ROOM: usize = 20 * WARM;

/// More than any cache here holds, and than are sent in a round.
const COLD: usize = 50_000;

/// Before every measurement: the one before it may have pushed these credentials out of a cache.
const WARM_UP: Duration = Duration::from_secs(1);

/// Enough to keep one worker busy, few enough that the latency is not all queue.
const CONNECTIONS: usize = 16;
