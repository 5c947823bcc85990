use anyhow::{Context, Result, ensure};
use harness::process::output;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Load from wrk: one closed loop for each connection, on one thread.
#[derive(Debug)]
pub(crate) struct Load {
    connections: usize,
    script: PathBuf,
    folder: PathBuf,
}

/// The result of a run of wrk. All requests must succeed, because a failed one takes another path through the filter.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
    failed: u64,
    broken: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

impl Load {
    pub(crate) fn new(folder: &Path, connections: usize) -> Result<Self> {
        let script = folder.join("wrk.lua");
        std::fs::write(&script, include_str!("wrk.lua"))?;
        Ok(Self { connections, script, folder: folder.to_owned() })
    }

    /// Writes GET requests to a file. They differ by these header lines.
    pub(crate) fn gets(&self, name: &str, headers: impl IntoIterator<Item = String>) -> Result<PathBuf> {
        let request = |header: String| format!("GET / HTTP/1.1\r\nhost: bench\r\n{header}\r\n\r\n");
        self.requests(name, headers.into_iter().map(request))
    }

    /// Writes complete requests to a file, one on a line.
    pub(crate) fn requests(&self, name: &str, whole: impl IntoIterator<Item = String>) -> Result<PathBuf> {
        let path = self.folder.join(name);
        let lines: Vec<String> = whole.into_iter().map(|request| request.replace("\r\n", "\t")).collect();
        std::fs::write(&path, lines.join("\n") + "\n")?;
        Ok(path)
    }

    /// Fails unless every request was answered with success.
    pub(crate) async fn run(&self, to: SocketAddr, requests: &Path, duration: Duration) -> Result<Outcome> {
        let mut command = Command::new("wrk");
        command.args(["--threads", "1", "--connections", &self.connections.to_string(), "--timeout", "20s"]);
        command.args(["--duration", &format!("{}s", duration.as_secs().max(1))]);
        command.arg("--script").arg(&self.script).arg(format!("http://{to}")).arg("--").arg(requests);
        let said = tokio::task::spawn_blocking(move || output(&mut command)).await?.context("wrk")?;
        let line = said.lines().find(|line| line.starts_with('{')).context("wrk printed no result")?;
        let outcome: Outcome = serde_json::from_str(line)?;
        let Outcome { requests, failed, broken, .. } = outcome;
        ensure!(requests > 0, "no request was answered");
        ensure!(failed == 0, "{failed} of {requests} requests were answered with a status of 400 or above");
        ensure!(broken == 0, "{broken} connections broke or timed out");
        Ok(outcome)
    }
}
