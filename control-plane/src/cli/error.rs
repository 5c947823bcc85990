//! Why a command failed.

use std::{error::Error, fmt};

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
