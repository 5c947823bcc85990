//! The command line: one file per verb. stdout is data; hints and logs go to stderr.

mod audit;
mod authkey;
mod authority;
mod bundle;
mod clock;
mod doctor;
mod edge;
mod init;
mod issuer;
mod key;
mod operator;
mod permission;
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
    fmt,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use serde::Serialize;

use crate::{
    config::{self, Config, ConfigError},
    home::Home,
    operations::Service,
};

/// Issues and revokes keys, and publishes the bundle that edges check them with
#[derive(Debug, Parser)]
#[command(name = "keystile", version, arg_required_else_help = true)]
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
    /// Enroll, list and remove edges
    #[command(subcommand)]
    Edge(edge::Edge),
    /// Show, replace and renew the keys that edges believe
    #[command(subcommand)]
    Authority(authority::Authority),
    /// Show what edges are told, verify a manifest, or build the base anew
    #[command(subcommand)]
    Bundle(bundle::Bundle),
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
        Verb::Clock(verb) => verb.run(&global).await,
        Verb::Audit(verb) => verb.run(&global).await,
        Verb::Doctor => doctor::run(&global).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Said) => ExitCode::FAILURE,
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
        Ok(Service::attach(self.home(), self.settings()?).await?)
    }

    /// One answer: as JSON, or as `text` writes it.
    fn print(&self, data: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        let answer = if self.json { serde_json::to_string(data)? } else { text() };
        write(&answer)
    }
}

/// Why a command failed, with its causes.
#[derive(Debug)]
enum Failure {
    /// The command has told the details itself.
    Said,
    Because(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said => Ok(()),
            Self::Because(text) => f.write_str(text),
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

/// An argument, or a line of stdin for `-`: what is secret need not stand in the list of processes.
fn argument_or_stdin(argument: String) -> Result<String, Failure> {
    if argument != "-" {
        return Ok(argument);
    }
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// Verbs that can't be undone say what they would do, and do it with `--yes`.
fn confirmed(yes: bool, what: impl fmt::Display) -> Result<(), Failure> {
    if yes { Ok(()) } else { Err(Failure::Because(format!("this would {what}; add --yes to do it"))) }
}
