//! The command line: one file per verb. stdout is data; hints and logs go to stderr.

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
mod paging;
mod permission;
mod repair;
mod revoke;
mod role;
mod serve;
mod show;
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
use clap::{Parser, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    config::{self, Config, ConfigError},
    home::Home,
    operations::{Publication, Publishing, Service},
};

/// Issues and revokes keys, and publishes the bundle that edges check them with
#[derive(Debug, Parser)]
#[command(name = "keystile", version, arg_required_else_help = true, after_help = EXIT_CODES)]
pub struct Command {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Args)]
struct Global {
    /// The data folder: database, keys, settings
    #[arg(long, global = true, env = "KEYSTILE_DATA", default_value = ".keystile", value_name = "FOLDER")]
    data: PathBuf,
    /// The settings; keystile.toml in the data folder if it is there
    #[arg(long, global = true, env = "KEYSTILE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print data as JSON
    #[arg(long, global = true)]
    json: bool,
    /// What the command works with, once it does.
    #[arg(skip)]
    attached: OnceLock<Attached>,
    /// With --json: what is to be printed when the command is done.
    #[arg(skip)]
    answer: Mutex<Option<Value>>,
}

#[derive(Debug)]
struct Attached {
    publishing: Publishing,
    /// The latest there was before the command.
    version: u64,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make the data folder, an operator and its first AuthKey, which is shown once
    Init(init::Init),
    /// Serve the API and publish to the edges
    Serve,
    /// Create, list and delete operators, and set what all their users may do
    #[command(subcommand)]
    Operator(operator::Operator),
    /// Create, list and delete users, and set what each may do
    #[command(subcommand)]
    User(user::User),
    /// Create, list and delete roles, and give them to users
    #[command(subcommand)]
    Role(role::Role),
    /// Issue and inspect tokens
    #[command(subcommand)]
    Token(token::Token),
    /// Refuse a credential everywhere, or all of an AuthKey, a session or a subject
    Revoke(revoke::Revoke),
    /// Take the revocation of a single credential back
    Unrevoke(unrevoke::Unrevoke),
    /// List, create and delete AuthKeys
    #[command(subcommand)]
    Authkey(authkey::Authkey),
    /// Create, list, disable, rotate and delete API keys
    #[command(subcommand)]
    Key(key::Key),
    /// List other issuers and fetch their keys
    #[command(subcommand)]
    Issuer(issuer::Issuer),
    /// Enroll, rotate, list and remove edges
    #[command(subcommand)]
    Edge(edge::Edge),
    /// Show, replace and renew the keys that edges believe
    #[command(subcommand)]
    Authority(authority::Authority),
    /// Show what edges are told, verify a manifest, or build the base anew
    #[command(subcommand)]
    Bundle(bundle::Bundle),
    /// Repair a database that was restored from a backup
    Restore(repair::Restore),
    /// Take back what a clock that was ahead has left
    #[command(subcommand)]
    Clock(clock::Clock),
    /// Show the latest changes
    Audit(audit::Audit),
    /// Check the installation and say what to do next
    Doctor,
}

/// Runs the command; prints why it failed.
pub async fn run(command: Command) -> ExitCode {
    let Command { global, verb } = command;
    let promises = match &verb {
        Verb::Revoke(_) => Promises::Always,
        _ => Promises::Changes,
    };
    let done = match verb {
        Verb::Init(verb) => verb.run(&global).await,
        Verb::Serve => serve::run(&global).await,
        Verb::Operator(verb) => verb.run(&global).await,
        Verb::User(verb) => verb.run(&global).await,
        Verb::Role(verb) => verb.run(&global).await,
        Verb::Token(verb) => verb.run(&global).await,
        Verb::Revoke(verb) => verb.run(&global).await,
        Verb::Unrevoke(verb) => verb.run(&global).await,
        Verb::Authkey(verb) => verb.run(&global).await,
        Verb::Key(verb) => verb.run(&global).await,
        Verb::Issuer(verb) => verb.run(&global).await,
        Verb::Edge(verb) => verb.run(&global).await,
        Verb::Authority(verb) => verb.run(&global).await,
        Verb::Bundle(verb) => verb.run(&global).await,
        Verb::Restore(verb) => verb.run(&global).await,
        Verb::Clock(verb) => verb.run(&global).await,
        Verb::Audit(verb) => verb.run(&global).await,
        Verb::Doctor => doctor::run(&global).await,
    };
    match global.conclude(done, promises).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Said) => ExitCode::FAILURE,
        Err(Failure::Done { code, but }) => {
            hint(but);
            ExitCode::from(code)
        }
        Err(failure) => {
            hint(format_args!("error: {failure}"));
            ExitCode::FAILURE
        }
    }
}

impl Global {
    fn home(&self) -> Home {
        Home::new(self.data.clone())
    }

    fn settings(&self) -> Result<Config, ConfigError> {
        let usual = self.home().config_file();
        let file = self.config.clone().or_else(|| usual.exists().then_some(usual));
        // A name or value that is not UTF-8 is none of ours.
        let environment = env::vars_os()
            .filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)));
        config::load(file.as_deref(), environment)
    }

    async fn service(&self) -> Result<Service, Failure> {
        let service = Service::attach(self.home(), self.settings()?).await?;
        let publishing = Publishing::of(&service);
        let version = publishing.latest().await?;
        let _ = self.attached.set(Attached { publishing, version });
        Ok(service)
    }

    /// One answer: as JSON, when the command is done, or as `text` writes it.
    fn print(&self, data: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if !self.json {
            return write(&text());
        }
        let data = serde_json::to_value(data)?;
        let before = self.answer.lock().unwrap_or_else(PoisonError::into_inner).replace(data);
        before.map_or(Ok(()), |before| write(&before.to_string()))
    }

    /// What every command ends with: one that changed what edges are told says whether a server has published it.
    async fn conclude(&self, done: Result<(), Failure>, promises: Promises) -> Result<(), Failure> {
        let published = match &done {
            Ok(()) => self.published(promises).await,
            Err(_) => Ok(None),
        };
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut answer) = answer {
            if let (Ok(Some((publication, _))), Some(members)) = (&published, answer.as_object_mut()) {
                members.insert("published".to_owned(), json!(*publication == Publication::Published));
            }
            write(&answer.to_string())?;
        }
        done?;
        match published? {
            Some((Publication::Published, version)) if promises == Promises::Always => {
                hint(format_args!("Edges refuse it from version {version} on."));
                Ok(())
            }
            None | Some((Publication::Published, _)) => Ok(()),
            Some((Publication::Pending { last, edges }, version)) => {
                let last = last.map_or("none ever has".to_owned(), |last| {
                    format!("the last did at {}", show::time(last))
                });
                let but = format!(
                    "It is durable, as version {version}, but nobody publishes it yet: no server has published it from \
                     this database ({last}). Edges hear of it as soon as one does: see `keystile doctor`."
                );
                if edges > 0 {
                    return Err(Failure::Done { code: UNPUBLISHED, but });
                }
                hint(but);
                Ok(())
            }
        }
    }

    /// `None` of a command that changed nothing that edges are told.
    async fn published(&self, promises: Promises) -> Result<Option<(Publication, u64)>, Failure> {
        let Some(Attached { publishing, version: before }) = self.attached.get() else { return Ok(None) };
        let version = publishing.latest().await?;
        if version == *before && promises == Promises::Changes {
            return Ok(None);
        }
        Ok(Some((publishing.reached(version).await?, version)))
    }
}

/// When a command speaks of what edges will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promises {
    Always,
    /// When it changed what they are told.
    Changes,
}

/// Why a command failed, with its causes.
#[derive(Debug)]
enum Failure {
    /// The command has told the details itself.
    Said,
    Because(String),
    /// It is done and durable, but not all that was asked for.
    Done {
        code: u8,
        but: String,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said => Ok(()),
            Self::Because(text) | Self::Done { but: text, .. } => f.write_str(text),
        }
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self::Because(text)
    }
}

fn write(answer: &str) -> Result<(), Failure> {
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

/// A live credential, from a file, a line of stdin, or the terminal without an echo. One that was given as an argument is
/// refused: it stands in the list of processes and in the shell's history.
fn credential(argument: Option<String>, file: Option<&Path>) -> Result<String, Failure> {
    if let Some(credential) = argument.filter(|argument| argument != "-") {
        let fingerprint = Fingerprint::of(credential.trim().as_bytes());
        return Err(Failure::Because(format!(
            "a credential is not taken from the command line, where the list of processes and the shell's history show \
             it: write it to stdin, name its file with --token-file, or give no value and be asked for it; `keystile \
             revoke` takes its fingerprint as well: --fingerprint {fingerprint}"
        )));
    }
    let line = match file {
        Some(file) => fs::read_to_string(file)
            .map_err(|error| Failure::Because(format!("`{}` can't be read: {error}", file.display())))?,
        None if io::stdin().is_terminal() => rpassword::prompt_password("The credential (not shown): ")?,
        None => {
            let mut line = String::new();
            io::stdin().read_line(&mut line)?;
            line
        }
    };
    let line = line.trim_end_matches(['\n', '\r']);
    if line.is_empty() {
        return Err(Failure::Because(
            "no credential was given: write it to stdin, or name its file with --token-file".to_owned(),
        ));
    }
    Ok(line.to_owned())
}

/// Verbs that can't be undone say what they would do, and do it with `--yes`.
fn confirmed(yes: bool, what: impl fmt::Display) -> Result<(), Failure> {
    if yes { Ok(()) } else { Err(Failure::Because(format!("this would {what}; add --yes to do it"))) }
}

/// It is durable, and edges are enrolled, but no server has published it.
const UNPUBLISHED: u8 = 3;

/// It is published, but not known to be enforced by every edge that may admit it still.
const UNENFORCED: u8 = 4;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed; stderr says why
  2  wrong arguments
  3  done and durable, but edges are enrolled and no server has published it yet
  4  --wait: done and published, but not every edge that may still admit it enforces it, or none is live";
