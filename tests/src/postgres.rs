use crate::process::{Process, output, run_as_user};
use crate::wait::DEADLINE;
use crate::{Scratch, tools};
use anyhow::{Context, Result, ensure};
use rustix::process::{Signal, getuid};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A PostgreSQL server for one test, in the scratch folder.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    address: SocketAddr,
}

impl Postgres {
    pub async fn start(scratch: &Scratch) -> Result<Self> {
        // PostgreSQL refuses to run as root. Its package creates this user.
        let user = getuid().is_root().then_some("postgres");
        let folder = scratch.folder().join("postgres");
        prepare_folder(user, &folder)?;
        let data = folder.join("data");
        let initdb = tools::postgres("initdb")?;
        output(
            run_as_user(user)
                .arg(initdb)
                .args([
                    "--username=keystile",
                    "--auth=trust",
                    "--encoding=UTF8",
                    "--locale=C",
                    "--no-sync",
                    "-D",
                ])
                .arg(&data),
        )?;
        let address = scratch.address(5432);
        let log = scratch.folder().join("postgres.log");
        let mut process = Process::start_as(user, &tools::postgres("postgres")?, log, |command| {
            command.arg("-D").arg(&data).arg("-k").arg(&folder);
            command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
        })?;
        let started = Instant::now();
        while let Err(error) = TcpStream::connect(address) {
            process.ensure_alive().context("PostgreSQL does not start")?;
            ensure!(started.elapsed() < DEADLINE, "PostgreSQL does not respond: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { process, address })
    }

    /// Runs a statement and returns its output.
    pub fn run(&self, statement: &str) -> Result<String> {
        let mut psql = std::process::Command::new(tools::postgres("psql")?);
        output(psql.args(["-At", "-v", "ON_ERROR_STOP=1", "-c", statement, &self.url()]))
    }

    /// Returns the process ID of the server.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn url(&self) -> String {
        format!("postgres://keystile@{}/postgres", self.address)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // The fast shutdown also ends the helper processes.
        let _ = self.process.end_with_signal(Signal::INT);
    }
}

fn prepare_folder(user: Option<&str>, folder: &PathBuf) -> Result<()> {
    std::fs::create_dir(folder)?;
    if let Some(user) = user {
        output(std::process::Command::new("chown").arg(user).arg(folder))?;
        // Only root can enter the scratch folder, but the server must be able to.
        output(
            std::process::Command::new("chmod").arg("a+x").arg(folder.parent().context("a scratch folder")?),
        )?;
    }
    Ok(())
}
