//! The command-line interface, one file per command. Data goes to stdout, hints and logs go to stderr.

mod audit;
mod authkey;
mod authority;
mod bundle;
mod clock;
mod doctor;
mod edge;
mod edge_files;
mod init;
mod issuer;
mod key;
mod operator;
mod output;
mod paging;
mod permission;
mod policy;
mod repair;
mod revoke;
mod role;
mod serve;
mod token;
mod unrevoke;
mod user;

use std::{
    env,
    error::Error,
    fmt, fs,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Mutex, OnceLock, PoisonError},
};

use ::token::Fingerprint;
use clap::Parser;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    config::{self, Config, ConfigError},
    platform::data_dir::DataDir,
    publishing::{PublicationStatus, RecordedPublications},
    service::Service,
};

/// The exit code if the change is durable and edges are enrolled, but no server has published it.
const EXIT_UNPUBLISHED: u8 = 3;

/// The exit code if the change is published, but an edge that may still admit the credential has not confirmed it.
const EXIT_NOT_ENFORCED: u8 = 4;

/// The exit code if `policy import` could not carry over a part of the source.
const EXIT_NOT_CARRIED_OVER: u8 = 5;

const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  failure; the reason is on stderr
  2  invalid arguments
  3  the change is durable, but edges are enrolled and no server has published it yet
  4  --wait: the change is published, but an edge that may still admit the credential does not enforce it yet, or no edge
     is live
  5  policy import: the policy is written, but a part of the source is not carried over";

/// Issues and revokes credentials, and publishes the bundle by which edges verify them
#[derive(Debug, Parser)]
#[command(name = "keystile", version, arg_required_else_help = true, after_help = EXIT_CODES)]
pub struct Command {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    subcommand: Subcommand,
}

#[derive(Debug, clap::Args)]
struct Global {
    /// The data folder, with database, keys and settings
    #[arg(long, global = true, env = "KEYSTILE_DATA", default_value = ".keystile", value_name = "FOLDER")]
    data: PathBuf,
    /// The settings file; by default keystile.toml in the data folder, if it exists
    #[arg(long, global = true, env = "KEYSTILE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print data as JSON
    #[arg(long, global = true)]
    json: bool,
    /// Set when the command opens the store.
    #[arg(skip)]
    attached: OnceLock<Attached>,
    /// With --json: the output, which is printed when the command ends.
    #[arg(skip)]
    answer: Mutex<Option<Value>>,
}

#[derive(Debug)]
struct Attached {
    publishing: RecordedPublications,
    /// The latest version before the command.
    version: u64,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    /// Create the data folder, an operator and its first AuthKey, which is shown once
    Init(init::Init),
    /// Run the server: the API, and the publisher for the edges
    Serve,
    /// Manage operators and their default permissions
    #[command(subcommand)]
    Operator(operator::Operator),
    /// Manage users and their permissions
    #[command(subcommand)]
    User(user::User),
    /// Manage roles and attach them to users
    #[command(subcommand)]
    Role(role::Role),
    /// Issue and inspect tokens
    #[command(subcommand)]
    Token(token::Token),
    /// Revoke a credential, or all credentials of an AuthKey, a session or a subject
    Revoke(Box<revoke::Revoke>),
    /// Undo the revocation of a single credential
    Unrevoke(unrevoke::Unrevoke),
    /// Manage AuthKeys, the long-lived secrets that are exchanged for tokens
    #[command(subcommand)]
    Authkey(authkey::Authkey),
    /// Manage API keys, signing keys and tag keys
    #[command(subcommand)]
    Key(key::Key),
    /// Manage the keys of other issuers
    #[command(subcommand)]
    Issuer(issuer::Issuer),
    /// Manage edges and their credentials
    #[command(subcommand)]
    Edge(edge::Edge),
    /// Show, rotate and renew the keys that edges trust
    #[command(subcommand)]
    Authority(authority::Authority),
    /// Show or export the bundle, verify a manifest, or compact the base
    #[command(subcommand)]
    Bundle(bundle::Bundle),
    /// Write policies of the filter
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Repair a database that was restored from a backup
    Restore(repair::Restore),
    /// Repair the effects of a clock that was ahead
    #[command(subcommand)]
    Clock(clock::Clock),
    /// Show the latest entries of the audit log
    Audit(audit::Audit),
    /// Check the installation and suggest the next step
    Doctor,
}

/// Runs the command, prints its error if it fails, and returns the exit code.
pub async fn run(command: Command) -> ExitCode {
    let Command { global, subcommand } = command;
    let report = match &subcommand {
        Subcommand::Revoke(_) => PublicationReport::Always,
        _ => PublicationReport::IfChanged,
    };
    let done = match subcommand {
        Subcommand::Init(command) => command.run(&global).await,
        Subcommand::Serve => serve::run(&global).await,
        Subcommand::Operator(command) => command.run(&global).await,
        Subcommand::User(command) => command.run(&global).await,
        Subcommand::Role(command) => command.run(&global).await,
        Subcommand::Token(command) => command.run(&global).await,
        Subcommand::Revoke(command) => command.run(&global).await,
        Subcommand::Unrevoke(command) => command.run(&global).await,
        Subcommand::Authkey(command) => command.run(&global).await,
        Subcommand::Key(command) => command.run(&global).await,
        Subcommand::Issuer(command) => command.run(&global).await,
        Subcommand::Edge(command) => command.run(&global).await,
        Subcommand::Authority(command) => command.run(&global).await,
        Subcommand::Bundle(command) => command.run(&global).await,
        Subcommand::Policy(command) => command.run(&global),
        Subcommand::Restore(command) => command.run(&global).await,
        Subcommand::Clock(command) => command.run(&global).await,
        Subcommand::Audit(command) => command.run(&global).await,
        Subcommand::Doctor => doctor::run(&global).await,
    };
    match global.finish(done, report).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::AlreadyReported) => ExitCode::FAILURE,
        Err(CliError::Incomplete { code, message }) => {
            hint(message);
            ExitCode::from(code)
        }
        Err(failure) => {
            hint(format_args!("error: {failure}"));
            ExitCode::FAILURE
        }
    }
}

impl Global {
    fn data_dir(&self) -> DataDir {
        DataDir::new(self.data.clone())
    }

    fn settings(&self) -> Result<Config, ConfigError> {
        let default = self.data_dir().config_file();
        let file = self.config.clone().or_else(|| default.exists().then_some(default));
        // Keystile's variables are UTF-8; ignore all others.
        let environment = env::vars_os()
            .filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)));
        config::load(file.as_deref(), environment)
    }

    async fn service(&self) -> Result<Service, CliError> {
        let service = Service::attach(self.data_dir(), self.settings()?).await?;
        let publishing = RecordedPublications::new(&service);
        let version = publishing.latest_version().await?;
        let _ = self.attached.set(Attached { publishing, version });
        Ok(service)
    }

    /// Prints the output of a command: `data` as JSON when the command ends, or `text` at once.
    fn print(&self, data: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), CliError> {
        if !self.json {
            return write_stdout(&text());
        }
        let data = serde_json::to_value(data)?;
        let before = self.answer.lock().unwrap_or_else(PoisonError::into_inner).replace(data);
        before.map_or(Ok(()), |before| write_stdout(&before.to_string()))
    }

    /// Ends a command. If it has changed the bundle, reports whether a server has published the change.
    async fn finish(&self, done: Result<(), CliError>, report: PublicationReport) -> Result<(), CliError> {
        let published = match &done {
            Ok(()) => self.publication(report).await,
            Err(_) => Ok(None),
        };
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut answer) = answer {
            if let (Ok(Some((publication, _))), Some(members)) = (&published, answer.as_object_mut()) {
                members.insert("published".to_owned(), json!(*publication == PublicationStatus::Published));
            }
            write_stdout(&answer.to_string())?;
        }
        done?;
        match published? {
            Some((PublicationStatus::Published, version)) if report == PublicationReport::Always => {
                hint(format_args!("Edges refuse it from version {version} on."));
                Ok(())
            }
            None | Some((PublicationStatus::Published, _)) => Ok(()),
            Some((PublicationStatus::Pending { last, edges }, version)) => {
                let last = last.map_or("no server ever has".to_owned(), |last| {
                    format!("the last publication was at {}", output::format_time(last))
                });
                let message = format!(
                    "The change is durable as version {version}, but no server has published it from this database yet \
                     ({last}). Edges get it as soon as a server publishes it; see `keystile doctor`."
                );
                if edges > 0 {
                    return Err(CliError::Incomplete { code: EXIT_UNPUBLISHED, message });
                }
                hint(message);
                Ok(())
            }
        }
    }

    /// Returns the state of publication and the version, or `None` if the command did not change the bundle.
    async fn publication(
        &self,
        report: PublicationReport,
    ) -> Result<Option<(PublicationStatus, u64)>, CliError> {
        let Some(Attached { publishing, version: before }) = self.attached.get() else { return Ok(None) };
        let version = publishing.latest_version().await?;
        if version == *before && report == PublicationReport::IfChanged {
            return Ok(None);
        }
        Ok(Some((publishing.wait_for_version(version).await?, version)))
    }
}

/// When a command reports the state of publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PublicationReport {
    Always,
    /// Only if the command has changed the bundle.
    IfChanged,
}

/// The reason why a command failed, with its causes.
#[derive(Debug)]
enum CliError {
    /// The command has printed the details itself.
    AlreadyReported,
    Message(String),
    /// The change is durable, but not everything that was requested has happened.
    Incomplete {
        code: u8,
        message: String,
    },
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyReported => Ok(()),
            Self::Message(text) | Self::Incomplete { message: text, .. } => f.write_str(text),
        }
    }
}

impl<E: Error> From<E> for CliError {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self::Message(text)
    }
}

fn write_stdout(answer: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(format!("{}\n", answer.trim_end_matches('\n')).as_bytes()).and_then(|()| out.flush())
    {
        // `keystile audit | head`
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

fn hint(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Reads a credential from a file, a line of stdin, or the terminal without echo. Rejects one that is given as an
/// argument, because the process list and the shell history show arguments.
fn read_credential(argument: Option<String>, file: Option<&Path>) -> Result<String, CliError> {
    if let Some(credential) = argument.filter(|argument| argument != "-") {
        let fingerprint = Fingerprint::digest(without_scheme(&credential).as_bytes());
        return Err(CliError::Message(format!(
            "a credential must not be an argument, because the process list and the shell history show arguments: write \
             it to stdin, name its file with --token-file, or omit the value to be prompted for it; `keystile revoke` \
             also accepts the fingerprint: --fingerprint {fingerprint}"
        )));
    }
    let line = match file {
        Some(file) => fs::read_to_string(file)
            .map_err(|error| CliError::Message(format!("cannot read `{}`: {error}", file.display())))?,
        None if io::stdin().is_terminal() => rpassword::prompt_password("Credential (not shown): ")?,
        None => {
            let mut line = String::new();
            io::stdin().read_line(&mut line)?;
            line
        }
    };
    let credential = without_scheme(&line);
    if credential.is_empty() {
        return Err(CliError::Message(
            "no credential given: write it to stdin, or name its file with --token-file".to_owned(),
        ));
    }
    if credential.contains(|character: char| character.is_whitespace() || matches!(character, '"' | '\'')) {
        return Err(CliError::Message(
            "expected the credential alone: leave out quotes, other words, and other lines (`Bearer` and \
             `Authorization: Bearer` in front of it may stay)"
                .to_owned(),
        ));
    }
    Ok(credential.to_owned())
}

/// Returns the credential of a line that may be copied from a header: `Authorization: Bearer CREDENTIAL`.
fn without_scheme(line: &str) -> &str {
    fn strip<'a>(line: &'a str, prefix: &str) -> Option<&'a str> {
        let (start, rest) = line.split_at_checked(prefix.len())?;
        start.eq_ignore_ascii_case(prefix).then_some(rest)
    }
    let line = line.trim();
    let value = strip(line, "authorization:").map_or(line, str::trim_start);
    match strip(value, "bearer") {
        Some(rest) if rest.starts_with(char::is_whitespace) => rest.trim_start(),
        _ => value,
    }
}

/// Requires `--yes` for a command that cannot be undone.
///
/// # Errors
///
/// What the command would do, if `yes` is false.
fn require_yes(yes: bool, what: impl fmt::Display) -> Result<(), CliError> {
    if yes { Ok(()) } else { Err(CliError::Message(format!("this would {what}; add --yes to do it"))) }
}
