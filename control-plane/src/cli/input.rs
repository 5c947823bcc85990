//! What commands read and require.

use std::{
    fmt, fs,
    io::{self, IsTerminal as _},
    path::Path,
};

use ::token::Fingerprint;

use super::CliError;

/// Reads a credential from a file, a line of stdin, or the terminal without echo. Rejects one that is given as an
/// argument, because the process list and the shell history show arguments.
pub(super) fn read_credential(argument: Option<String>, file: Option<&Path>) -> Result<String, CliError> {
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
pub(super) fn require_yes(yes: bool, what: impl fmt::Display) -> Result<(), CliError> {
    if yes { Ok(()) } else { Err(CliError::Message(format!("this would {what}; add --yes to do it"))) }
}
