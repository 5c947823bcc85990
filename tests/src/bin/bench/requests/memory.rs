//! Measures the memory of a worker, as the difference that an additional worker makes.

use super::issuer::Issuer;
use super::{edges, millions, peers};
use crate::machine::Usage;
use crate::plot::{Bar, Kind, Plot};
use crate::report::{Budget, Section, Table};
use crate::{Scale, progress};
use anyhow::Result;
use harness::envoy::{FilterHost, Settings};
use harness::{Envoy, FakeControlPlane, Scratch, tools};
use serde::Serialize;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

#[derive(Debug, Serialize)]
pub(super) struct Memory {
    name: String,
    revocations: Option<u32>,
    one_worker_mib: f64,
    per_worker_mib: f64,
    /// The difference to an Envoy without a filter.
    added_per_worker_mib: f64,
    /// The memory that the VM of a worker reports.
    vm_mib: Option<f64>,
    loaded_in_seconds: Option<f64>,
}

pub(super) async fn measure(upstream: SocketAddr, issuers: &[Issuer], scale: Scale) -> Result<Vec<Memory>> {
    let mut found: Vec<Memory> = Vec::new();
    let mut add = |name: String, of: Option<(u32, Option<f64>, f64)>, [one, many]: [f64; 2]| {
        let per_worker_mib = (many - one) / (MANY - 1) as f64 / MIB;
        let none = found.first().map_or(per_worker_mib, |first: &Memory| first.per_worker_mib);
        found.push(Memory {
            name,
            revocations: of.map(|(revocations, ..)| revocations),
            one_worker_mib: one / MIB,
            per_worker_mib,
            added_per_worker_mib: per_worker_mib - none,
            vm_mib: of.and_then(|(_, vm, _)| vm).map(|vm| vm / MIB),
            loaded_in_seconds: of.map(|(.., seconds)| seconds),
        });
    };
    let scratch = Scratch::new()?;
    let peers = [
        ("no filter", vec![]),
        ("wasm that does nothing", vec![peers::empty_wasm(scratch.folder())?]),
        ("jwt_authn, cached", vec![peers::jwt_authn(issuers, Some(super::ROOM), &[])]),
    ];
    for (name, filters) in peers {
        let one = measure_peer(upstream, &filters, 1, scale).await?;
        add(name.into(), None, [one, measure_peer(upstream, &filters, MANY, scale).await?]);
    }
    for &revocations in edges::revocations(scale) {
        progress(&format!("requests: memory, {}", millions(revocations)));
        let (fake, took) = edges::start_ours(upstream, issuers, revocations).await?;
        let one = resident(fake.envoy.id(), scale).await?;
        let vm = fake.envoy.metric("keystile_vm_memory_bytes").await?;
        let many = measure_ours(&fake, upstream, FilterHost::Wasm, MANY, scale).await?;
        add(
            format!("Keystile in wasm, {}", millions(revocations)),
            Some((revocations, Some(vm as f64), took.as_secs_f64())),
            [one, many],
        );
        let started = Instant::now();
        let one = measure_ours(&fake, upstream, FilterHost::Module, 1, scale).await?;
        let took = started.elapsed();
        let many = measure_ours(&fake, upstream, FilterHost::Module, MANY, scale).await?;
        add(
            format!("Keystile as a module, {}", millions(revocations)),
            Some((revocations, None, took.as_secs_f64())),
            [one, many],
        );
    }
    Ok(found)
}

async fn measure_peer(upstream: SocketAddr, filters: &[Value], workers: usize, scale: Scale) -> Result<f64> {
    let scratch = Scratch::new()?;
    let settings = Settings { workers, ..edges::settings(&scratch, upstream, Some(filters.to_vec()))? };
    let envoy = Envoy::start(settings, scratch.folder()).await?;
    envoy.workers().await?;
    resident(envoy.id(), scale).await
}

/// An Envoy on the same bundle.
async fn measure_ours(
    fake: &FakeControlPlane,
    upstream: SocketAddr,
    host: FilterHost,
    workers: usize,
    scale: Scale,
) -> Result<f64> {
    let (envoy, _scratch) = edges::start_second(fake, upstream, host, workers).await?;
    resident(envoy.id(), scale).await
}

/// Returns the minimum over some seconds, because V8 frees the memory that compilation needs.
async fn resident(process: u32, scale: Scale) -> Result<f64> {
    let mut least = f64::INFINITY;
    for _ in 0..scale.of(20, 2) {
        tokio::time::sleep(Duration::from_millis(250)).await;
        least = least.min(Usage::of(process)?.resident_bytes);
    }
    Ok(least)
}

pub(super) fn report(memory: &[Memory], section: &mut Section) {
    let size =
        std::fs::metadata(tools::wasm().unwrap_or_default()).map(|file| file.len() as f64 / 1000.0).ok();
    section.method.push(format!(
        "Memory per worker is the growth of Envoy's resident memory for each additional worker, between 1 and {MANY}; Envoy's \
         main thread has a VM as well, which is only part of the first column."
    ));
    let rows = memory.iter().map(|memory| {
        let Memory {
            name,
            one_worker_mib,
            per_worker_mib,
            added_per_worker_mib,
            vm_mib,
            loaded_in_seconds,
            ..
        } = memory;
        let or_nothing =
            |figure: &Option<f64>| figure.map_or_else(String::new, |figure| format!("{figure:.1}"));
        vec![
            name.clone(),
            format!("{one_worker_mib:.1}"),
            format!("{per_worker_mib:.1}"),
            format!("{added_per_worker_mib:.1}"),
            or_nothing(vm_mib),
            or_nothing(loaded_in_seconds),
        ]
    });
    section.tables.push(Table {
        caption: String::new(),
        columns: vec![
            "filter",
            "Envoy with one worker, MiB",
            "each additional worker, MiB",
            "of it for the filter, MiB",
            "memory of its VM, MiB",
            "bundle loaded in, s",
        ],
        rows: rows.collect(),
    });
    section.budgets.push(Budget::at_most("size of the filter", size, 300.0, "KB"));
    if let Some(empty) = memory.iter().find(|memory| memory.vm_mib.is_some()) {
        let what = "memory of the VM of a worker with nothing revoked";
        section.budgets.push(Budget::at_most(what, empty.vm_mib, 4.0, "MiB"));
    }
    let bars = memory.iter().skip(1).map(|memory| Bar {
        label: memory.name.clone(),
        value: memory.added_per_worker_mib,
        ours: memory.revocations.is_some(),
    });
    section.plots.push(Plot {
        name: "memory".into(),
        title: "Memory that the filter takes per worker".into(),
        unit: "MiB",
        kind: Kind::Bars(bars.collect()),
    });
}

const MANY: usize = 8;
const MIB: f64 = 1024.0 * 1024.0;
