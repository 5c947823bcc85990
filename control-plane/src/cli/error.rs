//! Why a command failed.

use std::{error::Error, fmt};

use super::hints;

/// The reason why a command failed, with its causes.
#[derive(Debug)]
pub(super) enum CliError {
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

impl<E: Error + 'static> From<E> for CliError {
    fn from(error: E) -> Self {
        Self::Message(describe(&error))
    }
}

/// Returns the text of an error with its causes, and what an admin can do about it.
pub(super) fn describe(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // The database driver repeats the text of a cause in its own.
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    match hints::of(error) {
        Some(hint) => format!("{text}; {hint}"),
        None => text,
    }
}
