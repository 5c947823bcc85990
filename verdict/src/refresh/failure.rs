use alloc::{format, string::String};
use core::fmt;

use bundle::{AdvanceError, Incomplete, ManifestError, ObjectError, Regression};
use token::json::{self, Value};

/// Why a refresh failed; what was held is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The control plane did not answer. The host, or a proxy in between, may have answered in its place.
    #[error("no answer from the control plane{}", or_nothing("; ", .0.as_ref()))]
    Unreachable(Option<Substitute>),
    /// The control plane answered with an error, and says why unless what answered is something else.
    #[error("the control plane answered {0}{problem}", problem = or_nothing(" ", .1.as_ref()))]
    Status(u16, Option<Problem>),
    /// The bundle is no longer fresh, and the control plane has nothing newer than this version.
    #[error(
        "the control plane has nothing newer than version {0}, which is held and no longer fresh: its publisher \
         stands still, its database went back, or the thief of a tail key signed that version (`keystile doctor`; \
         if stolen, `keystile authority rotate tail`)"
    )]
    NotRenewed(u64),
    /// The manifest is malformed or not signed by a delegated key.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// By so many seconds.
    #[error("the {0} expired {1} s ago by this edge's clock")]
    Expired(Signed, u64),
    /// Issued so many seconds from now.
    #[error("the manifest was issued {0} s ahead of this edge's clock")]
    FromFuture(u64),
    /// Below what the policy demands.
    #[error("{what} {offered} was offered, and the configuration demands {floor} at least")]
    BelowFloor {
        /// `epoch` or `version`.
        what: &'static str,
        /// The least that the policy accepts.
        floor: u64,
        /// What the manifest has.
        offered: u64,
    },
    /// It would have this edge forget something.
    #[error("{0}")]
    Regression(Regression),
    /// An object is not what the manifest names.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The objects do not make a whole bundle.
    #[error("{0}")]
    Incomplete(Incomplete),
}

/// The answer of a proxy that got none from the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Substitute {
    /// The HTTP status.
    pub status: u16,
    /// The body, where it is a line of plain text: Envoy says there why it failed to connect.
    pub text: String,
}

/// What the control plane says of an error (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The stable code of the error.
    pub code: String,
    /// The text for a reader.
    pub detail: String,
}

impl Problem {
    /// `None` where the body is not an error of the control plane: somebody else answered.
    fn read(body: &[u8]) -> Option<Self> {
        let Ok(Value::Object(members)) = json::parse(body) else { return None };
        let text = |name| members.get(name).and_then(Value::as_str).map(printable);
        Some(Self { code: text("code")?, detail: text("detail").unwrap_or_default() })
    }
}

/// What comes from the network into a line of the log: of bounded length, without control characters.
fn printable(text: &str) -> String {
    let printable = |character: &char| character.is_ascii_graphic() || *character == ' ';
    text.chars().filter(printable).take(MAX_TEXT).collect()
}

const MAX_TEXT: usize = 200;

/// What has a signature and a lifetime of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// The manifest, with the tail.
    Manifest,
    /// The checkpoint.
    Checkpoint,
    /// The root's signature over the keys of the control plane.
    Delegation,
}

impl Failure {
    /// What an answer means that brings no manifest and no object. Status 0 is no answer at all.
    pub(super) fn of_status(status: u16, body: &[u8]) -> Self {
        match Problem::read(body) {
            _ if status == 0 => Self::Unreachable(None),
            // All that a gateway answers with in the place of a server that is silent: RFC 9110 section 15.6, and the
            // codes of their own that some use.
            None if matches!(status, 408 | 502 | 503 | 504 | 520..=527) => {
                let text = core::str::from_utf8(body).ok().filter(|text| !text.contains('<'));
                Self::Unreachable(Some(Substitute { status, text: text.map(printable).unwrap_or_default() }))
            }
            problem => Self::Status(status, problem),
        }
    }

    /// Whether what is in between gave up before the control plane answered, `after` that many milliseconds: it may be
    /// less patient than the request.
    pub(super) fn is_cut(&self, after: u64) -> bool {
        match self {
            Self::Unreachable(Some(Substitute { status: 408 | 504 | 524, .. })) => true,
            // Who refuses a connection does so at once.
            Self::Unreachable(_) => after >= HELD_AT_LEAST_MS,
            _ => false,
        }
    }

    /// Returns the stable code for logs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "control_plane_unreachable",
            Self::Status(..) => "control_plane_status",
            Self::NotRenewed(_) => "manifest_not_renewed",
            Self::Manifest(error) => error.code(),
            Self::Expired(Signed::Manifest, _) => "manifest_expired",
            Self::Expired(Signed::Checkpoint, _) => "checkpoint_expired",
            Self::Expired(Signed::Delegation, _) => "delegation_expired",
            Self::FromFuture(_) => "manifest_from_future",
            Self::BelowFloor { .. } => "manifest_below_floor",
            Self::Regression(regression) => regression.code(),
            Self::Object(error) => error.code(),
            Self::Incomplete(_) => "bundle_incomplete",
        }
    }
}

/// The text of what is there, after a separator.
fn or_nothing<T: fmt::Display>(separator: &str, text: Option<&T>) -> String {
    text.map_or_else(String::new, |text| format!("{separator}{text}"))
}

impl fmt::Display for Substitute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, text } = self;
        write!(f, "the proxy in between says {status}")?;
        if text.is_empty() { Ok(()) } else { write!(f, ": {text}") }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manifest => "manifest",
            Self::Checkpoint => "checkpoint",
            Self::Delegation => "delegation",
        })
    }
}

/// Milliseconds.
const HELD_AT_LEAST_MS: u64 = 1000;

impl From<Regression> for Failure {
    fn from(regression: Regression) -> Self {
        Self::Regression(regression)
    }
}

impl From<Incomplete> for Failure {
    fn from(incomplete: Incomplete) -> Self {
        Self::Incomplete(incomplete)
    }
}

impl From<AdvanceError> for Failure {
    fn from(rejected: AdvanceError) -> Self {
        match rejected {
            AdvanceError::Incomplete(incomplete) => Self::Incomplete(incomplete),
            AdvanceError::Regression(regression) => Self::Regression(regression),
        }
    }
}
