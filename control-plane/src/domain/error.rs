//! What errors of contexts have in common. They say what has happened, and no interface is named: each interface renders
//! code and kind in its own form.

use std::{error::Error, time::Duration};

/// The kind of an error, from which an interface derives its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request is invalid as it is.
    Invalid,
    /// The caller is not who it claims to be.
    Unauthenticated,
    /// The caller may not do this.
    Forbidden,
    /// What the request names does not exist, or belongs to another operator.
    NotFound,
    /// The request contradicts what exists.
    Conflict,
    /// A limit is reached. A rate limit ends after this time, others when something is deleted.
    Limited(Option<Duration>),
    /// The control plane cannot do it now. Details are for the log only.
    Unavailable,
}

/// An error of a context.
pub trait CoreError: Error {
    /// Returns the code, which never changes.
    fn code(&self) -> &'static str;

    /// Returns the kind.
    fn kind(&self) -> ErrorKind;
}
