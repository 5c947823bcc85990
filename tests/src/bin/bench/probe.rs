//! Requests at short intervals to each worker of an Envoy, which show for how long it does nothing else.

use anyhow::{Context, Result, ensure};
use harness::Envoy;
use rustix::process::setpriority_process;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Asks one worker every millisecond, in a thread of its own.
pub(crate) struct Probe {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Answer>>>,
}

/// An answer of a worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    /// The time of the request.
    pub(crate) at: Instant,
    pub(crate) latency_ms: f64,
    /// The latency without the time for which the worker or the probe was ready, but had no core.
    pub(crate) on_core_ms: f64,
    /// The CPU of the worker since its start.
    pub(crate) worker_cpu_ms: f64,
}

/// Starts a probe for each worker. No other client may open connections meanwhile.
pub(crate) async fn start(envoy: &Envoy) -> Result<Vec<Probe>> {
    let mut connections: Vec<Option<TcpStream>> = (0..envoy.settings().workers).map(|_| None).collect();
    let mut before = accepted(envoy).await?;
    while connections.iter().any(Option::is_none) {
        let mut connection = TcpStream::connect(envoy.address())?;
        connection.set_nodelay(true)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        ask(&mut connection)?;
        let after = accepted(envoy).await?;
        let worker = (0..after.len()).find(|&worker| after[worker] > before[worker]);
        connections[worker.context("no worker has the connection")?].get_or_insert(connection);
        before = after;
    }
    let probe = |(worker, connection)| Probe::start(connection, thread_of(envoy.id(), worker)?);
    connections.into_iter().flatten().enumerate().map(probe).collect()
}

impl Probe {
    fn start(mut connection: TcpStream, worker: PathBuf) -> Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_over);
        let thread = std::thread::Builder::new().name("probe".into()).spawn(move || {
            // Of this thread alone. Without the right to it, the probe waits for a core like every other thread.
            let _ = setpriority_process(None, -20);
            let mut answers = Vec::new();
            let probe = PathBuf::from("/proc/thread-self");
            let waited = || anyhow::Ok([Schedule::of(&worker)?, Schedule::of(&probe)?]);
            while !seen.load(Ordering::Relaxed) {
                let before = waited()?;
                let at = Instant::now();
                ask(&mut connection)?;
                let latency_ms = at.elapsed().as_secs_f64() * 1e3;
                let after = waited()?;
                // The probe waits after the worker has answered, so that these times do not overlap.
                let waited_ms: f64 =
                    before.iter().zip(&after).map(|(before, after)| after.waited_ms - before.waited_ms).sum();
                let on_core_ms = (latency_ms - waited_ms).max(0.0);
                let worker_cpu_ms = after[0].cpu_ms;
                answers.push(Answer { at, latency_ms, on_core_ms, worker_cpu_ms });
                std::thread::sleep(INTERVAL.saturating_sub(at.elapsed()));
            }
            Ok(answers)
        })?;
        Ok(Self { is_over, thread })
    }

    pub(crate) fn finish(self) -> Result<Vec<Answer>> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("a probe panicked")?
    }
}

/// The connections that each worker has accepted.
async fn accepted(envoy: &Envoy) -> Result<Vec<u64>> {
    let stats = envoy.stats("^listener.edge.worker_.*.downstream_cx_total$").await?;
    let count = |worker| stats.get(&format!("listener.edge.worker_{worker}.downstream_cx_total")).copied();
    (0..envoy.settings().workers).map(|worker| count(worker).context("no such worker")).collect()
}

/// Sends a request that the filter answers, so that the time does not depend on an upstream.
fn ask(connection: &mut TcpStream) -> Result<()> {
    connection.write_all(b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let size = connection.read(&mut chunk)?;
        ensure!(size > 0, "Envoy closed the connection");
        answer.extend_from_slice(&chunk[..size]);
        let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&answer[..end])?;
        ensure!(head.starts_with("HTTP/1.1 401"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.context("no length")?.parse()?;
        if answer.len() >= end + 4 + length {
            return Ok(());
        }
    }
}

/// The `/proc` folder of a worker's thread.
fn thread_of(process: u32, worker: usize) -> Result<PathBuf> {
    let name = format!("wrk:worker_{worker}");
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let folder = task?.path();
        if std::fs::read_to_string(folder.join("comm"))?.trim() == name {
            return Ok(folder);
        }
    }
    anyhow::bail!("Envoy has no thread {name}")
}

/// What the kernel counts for a thread.
struct Schedule {
    cpu_ms: f64,
    /// The time for which it was ready, but had no core.
    waited_ms: f64,
}

impl Schedule {
    fn of(thread: &std::path::Path) -> Result<Self> {
        let text = std::fs::read_to_string(thread.join("schedstat"))?;
        let mut fields = text.split_whitespace().map(str::parse::<f64>);
        let mut next = || anyhow::Ok(fields.next().context("/proc/PID/task/TID/schedstat")?? / 1e6);
        Ok(Self { cpu_ms: next()?, waited_ms: next()? })
    }
}

const INTERVAL: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(20);
