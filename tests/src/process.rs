use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A child process whose output goes to a log file. It is killed on drop, and by the kernel when its parent dies.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program`; `prepare` adds arguments and environment.
    pub fn start(program: &Path, log: PathBuf, prepare: impl FnOnce(&mut Command)) -> Result<Self> {
        Self::start_as(None, program, log, prepare)
    }

    /// Starts `program` as another user, which only root can.
    pub fn start_as(
        user: Option<&str>,
        program: &Path,
        log: PathBuf,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let output = OpenOptions::new().create(true).append(true).open(&log)?;
        let mut command = run_as_user(user);
        command.args(["--pdeathsig", "KILL"]).arg(program);
        prepare(&mut command);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child =
            command.spawn().with_context(|| format!("{} does not start (by setpriv)", program.display()))?;
        Ok(Self { child, log })
    }

    /// Starts `program` on one core, with taskset of util-linux, or on any core.
    pub fn start_on(
        core: Option<usize>,
        program: &Path,
        log: PathBuf,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let Some(core) = core else { return Self::start(program, log, prepare) };
        Self::start(Path::new("taskset"), log, |command| {
            command.args(["--cpu-list", &core.to_string()]).arg(program);
            prepare(command);
        })
    }

    /// Fails with the end of the log if the process has ended.
    pub fn ensure_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("ended with {status}:\n{}", self.log_tail()),
        }
    }

    /// Sends `signal` and waits for the end.
    pub fn end_with_signal(&mut self, signal: Signal) -> Result<ExitStatus> {
        kill_process(self.pid(), signal)?;
        self.wait(Duration::from_secs(30))
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if started.elapsed() > deadline {
                bail!("still running after {deadline:?}:\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let skipped = log.lines().count().saturating_sub(15);
        log.lines().skip(skipped).collect::<Vec<_>>().join("\n")
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program and returns its stdout. Fails with its stderr if the program fails.
pub fn output(command: &mut Command) -> Result<String> {
    output_with_stdin(command, Stdio::null(), &[0])
}

/// The same with a stdin, and with more exit codes that mean success.
pub fn output_with_stdin(command: &mut Command, stdin: Stdio, good: &[i32]) -> Result<String> {
    let program = Path::new(command.get_program()).file_name().map(OsStr::to_owned).unwrap_or_default();
    let output = command.stdin(stdin).output().with_context(|| format!("{program:?} does not start"))?;
    if !output.status.code().is_some_and(|code| good.contains(&code)) {
        let (error, text) =
            (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
        bail!("{program:?} ended with {}: {}{}", output.status, error.trim(), text.trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Returns a stdin with one line.
pub fn stdin_line(line: &str) -> Result<Stdio> {
    let mut file = tempfile::tempfile()?;
    writeln!(file, "{line}")?;
    file.rewind()?;
    Ok(Stdio::from(file))
}

/// Runs a program with setpriv of util-linux, which sets what std cannot set without unsafe code.
pub fn run_as_user(user: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    if let Some(user) = user {
        command.args(["--reuid", user, "--regid", user, "--init-groups"]);
    }
    command
}
