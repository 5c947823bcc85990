//! Errors of fetching a bundle.

use alloc::{format, string::String};
use core::fmt;

use bundle::{AdvanceError, Incomplete, ManifestError, ObjectError, Regression};
use token::json::{self, Value};

/// Maximum number of characters of a text from the network.
const MAX_TEXT_LEN: usize = 200;

/// Minimum duration of a request that counts as timed out, in milliseconds.
const MIN_TIMEOUT_MS: u64 = 1000;

/// Why a refresh failed. The current bundle is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    /// The control plane did not respond. A proxy may have responded in its place.
    #[error("no response from the control plane{}", optional_suffix("; ", .0.as_ref()))]
    Unreachable(Option<ProxyResponse>),
    /// The control plane responded with an error status, and with a problem document if the response is its own.
    #[error("the control plane responded with status {0}{problem}", problem = optional_suffix(" ", .1.as_ref()))]
    Status(u16, Option<ProblemDocument>),
    /// The bundle is no longer fresh, and the control plane has no version newer than this one.
    #[error(
        "the control plane has no version newer than {0}, which is no longer fresh: its publisher does not run, its \
         database was rolled back, or version {0} was signed with a stolen tail key (check with `keystile doctor`; \
         replace a stolen key with `keystile authority rotate tail`)"
    )]
    NotRenewed(u64),
    /// The manifest is malformed or not signed by a delegated key.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The part expired this number of seconds ago.
    #[error("the {0} expired {1} s ago by this edge's clock")]
    Expired(SignedPart, u64),
    /// The manifest was issued this number of seconds in the future.
    #[error("the manifest was issued {0} s ahead of this edge's clock")]
    FromFuture(u64),
    /// The epoch or version is lower than the configured minimum.
    #[error("the {what} {offered} of the manifest is below the configured minimum {minimum}")]
    BelowMinimum {
        /// `epoch` or `version`.
        what: &'static str,
        /// The configured minimum.
        minimum: u64,
        /// The value in the manifest.
        offered: u64,
    },
    /// The bundle would roll back what the current one contains.
    #[error("{0}")]
    Regression(Regression),
    /// An object does not match the manifest.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// Objects of the bundle are missing.
    #[error("{0}")]
    Incomplete(Incomplete),
}

/// The response of a proxy that received none from the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyResponse {
    /// The HTTP status.
    pub status: u16,
    /// The body if it is plain text. Envoy describes there why it could not connect.
    pub text: String,
}

/// The problem document of the control plane (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProblemDocument {
    /// The stable code of the error.
    pub code: String,
    /// The description of the error.
    pub detail: String,
}

impl ProblemDocument {
    /// Parses a problem document, or returns `None` if the body is not an error of the control plane.
    fn parse(body: &[u8]) -> Option<Self> {
        let Ok(Value::Object(members)) = json::parse(body) else { return None };
        let text = |name| members.get(name).and_then(Value::as_str).map(printable);
        Some(Self { code: text("code")?, detail: text("detail").unwrap_or_default() })
    }
}

/// Makes text from the network safe for a log line: limits its length and removes control characters.
fn printable(text: &str) -> String {
    let printable = |character: &char| character.is_ascii_graphic() || *character == ' ';
    text.chars().filter(printable).take(MAX_TEXT_LEN).collect()
}

/// A part of a bundle with its own signature and lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignedPart {
    /// The manifest, with the tail.
    Manifest,
    /// The checkpoint.
    Checkpoint,
    /// The delegation: the root key's signature over the keys of the control plane.
    Delegation,
}

impl RefreshError {
    /// Returns the failure for a response without a manifest or an object. Status 0 means that there was no response.
    pub(super) fn from_status(status: u16, body: &[u8]) -> Self {
        match ProblemDocument::parse(body) {
            _ if status == 0 => Self::Unreachable(None),
            // The statuses with which gateways replace a missing response: RFC 9110 section 15.6 and non-standard ones.
            None if matches!(status, 408 | 502 | 503 | 504 | 520..=527) => {
                let text = core::str::from_utf8(body).ok().filter(|text| !text.contains('<'));
                Self::Unreachable(Some(ProxyResponse {
                    status,
                    text: text.map(printable).unwrap_or_default(),
                }))
            }
            problem => Self::Status(status, problem),
        }
    }

    /// Returns whether a proxy timed out the request, `after` this number of milliseconds. Its timeout may be shorter
    /// than the wait of the request.
    pub(super) fn is_timeout(&self, after: u64) -> bool {
        match self {
            Self::Unreachable(Some(ProxyResponse { status: 408 | 504 | 524, .. })) => true,
            // A refused connection fails at once.
            Self::Unreachable(_) => after >= MIN_TIMEOUT_MS,
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
            Self::Expired(SignedPart::Manifest, _) => "manifest_expired",
            Self::Expired(SignedPart::Checkpoint, _) => "checkpoint_expired",
            Self::Expired(SignedPart::Delegation, _) => "delegation_expired",
            Self::FromFuture(_) => "manifest_from_future",
            Self::BelowMinimum { .. } => "manifest_below_floor",
            Self::Regression(regression) => regression.code(),
            Self::Object(error) => error.code(),
            Self::Incomplete(_) => "bundle_incomplete",
        }
    }
}

/// Formats `text` after a separator, or nothing.
fn optional_suffix<T: fmt::Display>(separator: &str, text: Option<&T>) -> String {
    text.map_or_else(String::new, |text| format!("{separator}{text}"))
}

impl fmt::Display for ProxyResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, text } = self;
        write!(f, "a proxy responded with status {status}")?;
        if text.is_empty() { Ok(()) } else { write!(f, ": {text}") }
    }
}

impl fmt::Display for ProblemDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl fmt::Display for SignedPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manifest => "manifest",
            Self::Checkpoint => "checkpoint",
            Self::Delegation => "delegation",
        })
    }
}

impl From<Regression> for RefreshError {
    fn from(regression: Regression) -> Self {
        Self::Regression(regression)
    }
}

impl From<Incomplete> for RefreshError {
    fn from(incomplete: Incomplete) -> Self {
        Self::Incomplete(incomplete)
    }
}

impl From<AdvanceError> for RefreshError {
    fn from(rejected: AdvanceError) -> Self {
        match rejected {
            AdvanceError::Incomplete(incomplete) => Self::Incomplete(incomplete),
            AdvanceError::Regression(regression) => Self::Regression(regression),
        }
    }
}

/// Returns what to check if a request was not sent, or was sent without a valid credential.
///
/// `status` is that of the response, or the host's error, and `unknown_cluster` the error of a host without that cluster.
pub fn failure_hint<E: fmt::Display + PartialEq>(
    status: Result<u16, E>,
    unknown_cluster: E,
    cluster: &str,
    has_credential: bool,
) -> String {
    match status {
        Err(error) if error == unknown_cluster => {
            format!("; the host refused to send it ({error}): is there a cluster `{cluster}`?")
        }
        Err(error) => format!(
            "; the host did not send it ({error}): where it adds the edge credential, as Envoy's `credential_injector` \
             does, is the file with the secret there, and may the host read it?"
        ),
        Ok(401) if has_credential => {
            "; the edge credential is wrong, or was removed or replaced: `keystile edge \
             rotate` makes another"
                .into()
        }
        Ok(401) => format!(
            "; the host adds no edge credential to requests for the cluster `{cluster}`, or one that is wrong, or was \
             removed or replaced: `keystile edge rotate` makes another"
        ),
        Ok(_) => String::new(),
    }
}
