//! The commands.

use std::process::ExitCode;

use clap::Parser;

use super::{
    CliError, Global, audit, authkey, authority, bundle, clock, doctor, edge, global::PublicationReport,
    init, issuer, key, operator, output::hint, policy, repair, revoke, role, serve, token, unrevoke, user,
};

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
