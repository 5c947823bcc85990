//! The command-line interface, one file per command. Data goes to stdout, hints and logs go to stderr.

mod audit;
mod authkey;
mod authority;
mod bundle;
mod clock;
mod command;
mod doctor;
mod edge;
mod edge_files;
mod error;
mod exit_code;
mod global;
mod hints;
mod init;
mod input;
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

pub use command::{Command, run};
use error::CliError;
use exit_code::{EXIT_NOT_CARRIED_OVER, EXIT_NOT_ENFORCED};
use global::Global;
use input::{read_credential, require_yes};
use output::{hint, write_stdout};
