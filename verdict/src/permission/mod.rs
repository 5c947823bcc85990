//! Permissions of subjects: permission documents of Soracom (SAM permission syntax).
//!
//! ```json
//! {"statements": [{"effect": "allow", "api": ["Sim:list*"], "condition": "ipAddress('10.0.0.0/24')"}]}
//! ```
//!
//! * The default is to deny. One active `deny` overrides every `allow`, wherever they come from: default permissions,
//!   roles and the user's own statements form one list, whose order has no effect.
//! * `api` is a name, `Tag:*`, `Tag:prefix*` or `*`, or a list of these.
//! * A statement without `condition` is active. One with a condition is active if the condition is true.
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
//! **A comparison with an unknown value is *unknown*.** Values that can be unknown are a path variable that the path
//! does not have, the user name of the root user, and the address of the client. `not unknown` is unknown, and `and`
//! and `or` follow Kleene's logic. An `allow` whose condition is unknown is inactive; a `deny` whose condition is
//! unknown is active. So neither `not` nor `!=` turns an unknown value into a permission.
//!
//! `currentDate` is the day in UTC, and dates compare by day: `currentDate <= date(2026, 12, 31)` is true until the end
//! of that day. An IPv4-mapped IPv6 address (`::ffff:10.0.0.1`) equals its IPv4 address. A network may have host bits
//! set, as in `10.0.0.1/24`, which Soracom's examples contained for years; it means `10.0.0.0/24`.
//!
//! Documents are compiled when they are published. Edges receive [`Permissions::as_bytes`], which is evaluated in
//! place: no parsing, no allocation and no recursion per request.

mod bytecode;
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

pub use bytecode::InvalidBytecode;
pub use error::PermissionError;
pub use evaluate::evaluate;

pub(crate) use condition::is_variable;
pub(crate) use pattern::is_name;

/// Maximum size of a permission document. A statement for each of 500 operations takes 20 KiB.
pub const MAX_DOCUMENT_BYTES: usize = 32 * 1024;

/// Maximum size of the compiled statements of one subject. Four such subjects fit into one object of a bundle.
pub const MAX_COMPILED_BYTES: usize = bundle::MAX_GRANT_BYTES;

/// Compiled permission statements, checked up to the last byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions {
    bytes: Vec<u8>,
}

impl Permissions {
    /// Compiles a permission document.
    ///
    /// # Errors
    ///
    /// Returns an error with its location if the document is not JSON, has an unknown member, name or type, or is too
    /// long.
    pub fn from_json(json: &[u8]) -> Result<Self, PermissionError> {
        document::compile(json).map(|bytes| Self { bytes })
    }

    /// Decodes the bytes of [`as_bytes`](Self::as_bytes).
    ///
    /// # Errors
    ///
    /// Returns [`InvalidBytecode`] for bytes that [`as_bytes`](Self::as_bytes) cannot return.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, InvalidBytecode> {
        bytecode::check(&bytes)?;
        Ok(Self { bytes })
    }

    /// Concatenates statements, such as default permissions, roles and a user's own statements. Returns `None` if the
    /// result exceeds [`MAX_COMPILED_BYTES`].
    pub fn concat<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let mut bytes = Vec::from([bytecode::FORMAT]);
        for part in parts {
            bytes.extend(part.bytes.get(1..).unwrap_or_default());
        }
        (bytes.len() <= MAX_COMPILED_BYTES).then_some(Self { bytes })
    }

    /// Returns the compiled statements, as a bundle contains them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Decides whether the statements allow the operation.
    pub fn decide(&self, request: &AccessRequest<'_>) -> AccessDecision {
        // The bytecode was checked on construction, so evaluation does not fail.
        evaluate(&self.bytes, request).unwrap_or(AccessDecision::Denied)
    }
}

/// An operation that a subject wants to perform, and its context.
#[derive(Debug, Clone, Copy)]
pub struct AccessRequest<'a> {
    /// The name of the operation, such as `Sim:getSim`.
    pub api: &'a str,
    /// The name of the user, or `None` for the root user.
    pub user_name: Option<&'a str>,
    /// The address of the client, if it is known.
    pub client: Option<IpAddr>,
    /// The current time in seconds since the Unix epoch.
    pub now: u64,
    /// The name and value of each path variable.
    pub variables: &'a [(&'a str, &'a str)],
}

/// The decision about an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessDecision {
    /// An `allow` is active and no `deny` is.
    Allowed,
    /// A `deny` is active.
    Denied,
    /// No `allow` is active.
    NotAllowed,
}
