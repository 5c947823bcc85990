//! What a subject may do: Soracom's permission documents (SAM permission syntax).
//!
//! ```json
//! {"statements": [{"effect": "allow", "api": ["Sim:list*"], "condition": "ipAddress('10.0.0.0/24')"}]}
//! ```
//!
//! * Nothing is allowed without an `allow`; one active `deny` beats every `allow`, wherever either comes from: default
//!   permissions, roles and a user's own statements are one list, in which the order means nothing.
//! * `api` is a name, `Tag:*`, `Tag:prefix*` or `*`; or a list of these.
//! * A statement without `condition` is active. One with a condition is active when the condition is true.
//!
//! ```text
//! condition  = or          or   = and *("or" and)     and  = not *("and" not)
//! not        = *"not" ( "(" or ")" / comparison / "ipAddress" "(" text ")" )
//! comparison = operand ("==" / "!=" / "<" / "<=" / ">" / ">=") operand        of the same type
//! operand    = text / number / "samUserName" / "pathVariable" "(" text ")"
//!            / "currentDate" / "date" "(" year "," month "," day ")"
//! text       = "'" any characters but ' and \ "'"
//! number     = 1*DIGIT, leading zeros allowed
//! ```
//!
//! **What cannot be known is neither true nor false.** A path variable that the path does not have, the name of a user
//! that is none (root), the address of a client that is not known: a comparison with it is *unknown*, `not unknown` is
//! unknown, and `and` and `or` go by Kleene's logic. An `allow` whose condition is unknown is inactive; a `deny` whose
//! condition is unknown is active. So no `not` and no `!=` turns not knowing into permission.
//!
//! `currentDate` is the day in UTC, and dates compare by day: `currentDate <= date(2026, 12, 31)` holds for all of that
//! day. An IPv4 address is the same written as an IPv6 one (`::ffff:10.0.0.1`). A network may have host bits set, as in
//! `10.0.0.1/24`, which Soracom's own examples had for years; it means `10.0.0.0/24`.
//!
//! A document is parsed and typed when it is published. What edges get is [`Permissions::as_bytes`], which is
//! interpreted in place: no parsing, no allocation and no recursion for a request.

mod code;
mod condition;
mod date;
mod document;
mod encode;
mod error;
mod evaluate;
mod lexer;
mod network;
mod pattern;

use alloc::vec::Vec;
use core::net::IpAddr;

pub use code::Malformed;
pub use error::PermissionError;
pub use evaluate::evaluate;

pub(crate) use condition::is_variable;
pub(crate) use pattern::is_name;

/// Statements, compiled and checked through to the last byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions {
    bytes: Vec<u8>,
}

impl Permissions {
    /// Parses a permission document; the error names the place.
    ///
    /// # Errors
    ///
    /// Returns an error with the statement, and the column of its condition, if the document is not JSON, has an unknown
    /// member, name or type, or is too long.
    pub fn from_json(json: &[u8]) -> Result<Self, PermissionError> {
        document::compile(json).map(|bytes| Self { bytes })
    }

    /// Reads what [`as_bytes`](Self::as_bytes) wrote.
    ///
    /// # Errors
    ///
    /// Returns [`Malformed`] for bytes that [`as_bytes`](Self::as_bytes) cannot have written.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, Malformed> {
        code::check(&bytes)?;
        Ok(Self { bytes })
    }

    /// The statements of all of them: default permissions, roles and a user's own. None if they are too many.
    pub fn merged<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let mut bytes = Vec::from([code::FORMAT]);
        for part in parts {
            bytes.extend(part.bytes.get(1..).unwrap_or_default());
        }
        (bytes.len() <= MAX_COMPILED_BYTES).then_some(Self { bytes })
    }

    /// Returns the compiled statements, as the bundle carries them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns whether the statements allow what is asked.
    pub fn rule(&self, question: &Question<'_>) -> Ruling {
        // Malformed cannot happen: every byte was checked.
        evaluate(&self.bytes, question).unwrap_or(Ruling::Denied)
    }
}

/// May this be done?
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The name of the operation, such as `Sim:getSim`.
    pub api: &'a str,
    /// None for the root user of an operator.
    pub user_name: Option<&'a str>,
    /// The address of the client; `None` where it is not known.
    pub client: Option<IpAddr>,
    /// Seconds since the Unix epoch.
    pub now: u64,
    /// Name and value of each variable in the path.
    pub variables: &'a [(&'a str, &'a str)],
}

/// The answer to a [`Question`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// An `allow` is active and no `deny` is.
    Allowed,
    /// A `deny` is active.
    Denied,
    /// No `allow` is active.
    NotAllowed,
}

/// A document of statements for each of 500 operations takes 20 KiB.
pub const MAX_DOCUMENT_BYTES: usize = 32 * 1024;

/// All statements of one subject: four such subjects fit one object of a bundle.
pub const MAX_COMPILED_BYTES: usize = bundle::MAX_GRANT_BYTES;
