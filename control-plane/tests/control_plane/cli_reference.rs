//! docs/cli-reference.md is the help of every command.

use std::{env, fmt::Write as _, fs};

use clap::CommandFactory as _;
use control_plane::cli::Command;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cli-reference.md");

const INTRODUCTION: &str = "# Command reference

The help of every command, generated from the program. [cli.md](cli.md) explains how to use the commands. The options of \
                            `keystile` itself apply to every command.
";

/// `KEYSTILE_UPDATE=1` rewrites the file.
#[test]
fn committed_reference_is_current() {
    let mut command = Command::command()
        .disable_help_flag(true)
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .mut_args(|argument| argument.global(false).hide_env_values(true));
    command.build();
    let mut reference = INTRODUCTION.to_owned();
    append(&mut reference, &mut command, "keystile");
    if env::var_os("KEYSTILE_UPDATE").is_some() {
        fs::write(PATH, &reference).unwrap();
    }
    let committed = fs::read_to_string(PATH).unwrap_or_default();
    assert!(committed == reference, "{PATH} is not current: run this test with KEYSTILE_UPDATE=1");
}

/// Appends the help of a command and of its subcommands.
fn append(reference: &mut String, command: &mut clap::Command, name: &str) {
    let help = command.render_long_help().to_string();
    let help = help.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    write!(reference, "\n## {name}\n\n```text\n{}\n```\n", help.trim_end()).unwrap();
    for subcommand in command.get_subcommands_mut().filter(|subcommand| !subcommand.is_hide_set()) {
        let name = format!("{name} {}", subcommand.get_name());
        append(reference, subcommand, &name);
    }
}
