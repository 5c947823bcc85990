//! Errors in permission documents.

use alloc::string::String;
use core::fmt;

/// An error in a permission document with its location, such as `statement 2, condition, column 14: unknown name
/// `now``.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{location}{message}")]
pub struct PermissionError {
    pub(super) location: ErrorLocation,
    pub(super) message: String,
}

/// The location of an error. Statements, names and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ErrorLocation {
    Document,
    /// Statements count from 1, as their readers do.
    Statement(usize),
    Effect(usize),
    /// The names of a statement, and the position in the list.
    Api(usize, Option<usize>),
    Condition(usize),
    Column(usize, usize),
    /// An unknown member.
    Member(usize, String),
}

impl PermissionError {
    pub(super) fn new(location: ErrorLocation, message: impl Into<String>) -> Self {
        Self { location, message: message.into() }
    }

    /// Returns the number of the statement, from 1, if the error is in a statement.
    pub const fn statement(&self) -> Option<usize> {
        match &self.location {
            ErrorLocation::Document => None,
            ErrorLocation::Statement(statement)
            | ErrorLocation::Effect(statement)
            | ErrorLocation::Api(statement, _)
            | ErrorLocation::Condition(statement)
            | ErrorLocation::Column(statement, _)
            | ErrorLocation::Member(statement, _) => Some(*statement),
        }
    }

    /// Returns the column of the condition, in characters from 1, if it is known.
    pub const fn column(&self) -> Option<usize> {
        match &self.location {
            ErrorLocation::Column(_, column) => Some(*column),
            _ => None,
        }
    }
}

/// Formats the location as the prefix of a message.
impl fmt::Display for ErrorLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document => Ok(()),
            Self::Statement(statement) => write!(f, "statement {statement}: "),
            Self::Effect(statement) => write!(f, "statement {statement}, effect: "),
            Self::Api(statement, None) => write!(f, "statement {statement}, api: "),
            Self::Api(statement, Some(api)) => write!(f, "statement {statement}, api {api}: "),
            Self::Condition(statement) => write!(f, "statement {statement}, condition: "),
            Self::Column(statement, column) => {
                write!(f, "statement {statement}, condition, column {column}: ")
            }
            Self::Member(statement, member) => write!(f, "statement {statement}, `{member}`: "),
        }
    }
}
