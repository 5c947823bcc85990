use anyhow::{Context, Result};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use tempfile::TempDir;

/// A folder and a loopback address for one test. If the test fails, its logs are printed.
#[derive(Debug)]
pub struct Scratch {
    folder: TempDir,
    host: Ipv4Addr,
}

impl Scratch {
    pub fn new() -> Result<Self> {
        let folder = TempDir::with_prefix("keystile-").context("no temporary folder")?;
        Ok(Self { folder, host: unused_host()? })
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn address(&self, port: u16) -> SocketAddr {
        (self.host, port).into()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for entry in std::fs::read_dir(self.folder()).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                let text = std::fs::read(&path).unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                let skipped = text.lines().count().saturating_sub(LOG_LINES);
                eprintln!("--- {} (its last {LOG_LINES} lines)", path.display());
                text.lines().skip(skipped).for_each(|line| eprintln!("{line}"));
            }
        }
    }
}

/// Selects an address of 127.0.0.0/8, all of which is loopback, so that no search for free ports is necessary.
fn unused_host() -> Result<Ipv4Addr> {
    // Random among 2^22, so that two tests do not get the same address.
    let [a, b, c, ..] = RandomState::new().hash_one(()).to_be_bytes();
    let host = Ipv4Addr::new(127, a | 1, b, c | 1);
    TcpListener::bind((host, 0))
        .with_context(|| format!("{host} is not a loopback address here; it is on Linux"))?;
    Ok(host)
}

const LOG_LINES: usize = 200;
