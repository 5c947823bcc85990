use anyhow::{Context, Result};
use harness::{process::output, tools};
use rustix::param::clock_ticks_per_second;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;
use std::process::Command;

/// The machine and the software of a measurement.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_gb: f64,
    pub(crate) kernel: String,
    pub(crate) envoy: String,
    /// The load average of the last minute before the run. Above 0, other processes were running.
    pub(crate) load_before: f64,
}

impl Machine {
    pub(crate) fn read() -> Result<Self> {
        let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
        let memory = std::fs::read_to_string("/proc/meminfo")?;
        let load = std::fs::read_to_string("/proc/loadavg")?;
        Ok(Self {
            cpu: field(&cpus, "model name").unwrap_or("unknown").to_owned(),
            cores: cpus.lines().filter(|line| line.starts_with("processor")).count(),
            memory_gb: kilobytes(&memory, "MemTotal").context("MemTotal")? / 1e6,
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            envoy: output(Command::new(tools::envoy()?).arg("--version"))?
                .split_once("version: ")
                .and_then(|(_, version)| version.split('/').nth(1))
                .unwrap_or("unknown")
                .to_owned(),
            load_before: load.split(' ').next().unwrap_or_default().parse()?,
        })
    }

    /// Restricts this thread, and all threads and processes that it starts, to one core, or to none.
    pub(crate) fn keep_to(&self, core: Option<usize>) -> Result<()> {
        let mut set = CpuSet::new();
        match core {
            Some(core) if core < self.cores => set.set(core),
            _ => (0..self.cores).for_each(|core| set.set(core)),
        }
        Ok(sched_setaffinity(None, &set)?)
    }
}

/// The CPU time that a process has used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) resident_bytes: f64,
    /// The largest `resident_bytes` so far.
    pub(crate) peak_bytes: f64,
}

impl Usage {
    pub(crate) fn of(process: u32) -> Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
        Ok(Self {
            cpu_seconds: Self::cpu_seconds_of(process)?,
            resident_bytes: kilobytes(&status, "VmRSS").context("VmRSS")? * 1024.0,
            peak_bytes: kilobytes(&status, "VmHWM").context("VmHWM")? * 1024.0,
        })
    }

    /// Returns the CPU time of a process, which may have ended if no parent has waited for it.
    pub(crate) fn cpu_seconds_of(process: u32) -> Result<f64> {
        // utime and stime
        Ok(stat_fields(process)?[11..13].iter().sum::<f64>() / clock_ticks_per_second() as f64)
    }

    /// Returns the CPU time of a process and its children, including those that have ended.
    pub(crate) fn cpu_seconds_of_tree(process: u32) -> Result<f64> {
        let mut ticks = stat_fields(process)?[11..15].iter().sum::<f64>();
        for entry in std::fs::read_dir("/proc")? {
            let Some(other) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // It may have ended meanwhile.
            let Ok(fields) = stat_fields(other) else { continue };
            if fields[1] == f64::from(process) {
                ticks += fields[11..15].iter().sum::<f64>();
            }
        }
        Ok(ticks / clock_ticks_per_second() as f64)
    }
}

/// Returns the numbers in /proc/PID/stat from field 3 on; those that are no numbers as 0. Field 4 is the parent.
fn stat_fields(process: u32) -> Result<Vec<f64>> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, which may contain spaces, ends with the last parenthesis.
    let (_, fields) = stat.rsplit_once(") ").context("/proc/PID/stat")?;
    Ok(fields.split(' ').map(|field| field.trim().parse().unwrap_or_default()).collect())
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

fn kilobytes(text: &str, name: &str) -> Option<f64> {
    field(text, name)?.strip_suffix(" kB")?.parse().ok()
}
