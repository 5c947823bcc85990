//! The binary `keystile`.

use std::process::ExitCode;

use clap::Parser as _;
use control_plane::cli::{self, Command};

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(Command::parse()).await
}
