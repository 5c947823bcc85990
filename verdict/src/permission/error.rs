use alloc::string::String;
use core::fmt;

/// What is wrong with a permission document, and where: `statement 2, condition, column 14: unknown name `now``.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}{message}")]
pub struct PermissionError {
    pub(super) place: Place,
    pub(super) message: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Document,
    /// Statements count from 1, as their readers do.
    Statement(usize),
    Effect(usize),
    /// With the number of the name in a list.
    Api(usize, Option<usize>),
    Condition(usize),
    Column(usize, usize),
    /// A member that has no place here.
    Member(usize, String),
}

impl PermissionError {
    pub(super) fn new(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into() }
    }

    /// Which statement it is about, from 1.
    pub const fn statement(&self) -> Option<usize> {
        match &self.place {
            Place::Document => None,
            Place::Statement(statement)
            | Place::Effect(statement)
            | Place::Api(statement, _)
            | Place::Condition(statement)
            | Place::Column(statement, _)
            | Place::Member(statement, _) => Some(*statement),
        }
    }

    /// Which character of its condition, from 1.
    pub const fn column(&self) -> Option<usize> {
        match &self.place {
            Place::Column(_, column) => Some(*column),
            _ => None,
        }
    }
}

/// What precedes the message.
impl fmt::Display for Place {
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
