//! The parts of a request that rules match.

use super::{AmbiguousRequest, host};
use crate::config::policy::is_token;

/// The parts of a request that rules match.
pub(super) struct RequestLine<'r> {
    pub(super) method: &'r str,
    /// The host, or empty if no rule needs it.
    pub(super) host: &'r str,
    pub(super) target: &'r [u8],
    /// The method that a CORS preflight asks for.
    pub(super) preflight: Option<&'r str>,
}

impl<'r> RequestLine<'r> {
    pub(super) fn from_headers(
        headers: impl Iterator<Item = (&'r str, &'r [u8])> + Clone,
        with_host: bool,
    ) -> Result<Self, AmbiguousRequest> {
        let method = single_header(headers.clone(), &[":method"], AmbiguousRequest::Method)?;
        let method = method.and_then(parse_method).ok_or(AmbiguousRequest::Method)?;
        let target = single_header(headers.clone(), &[":path"], AmbiguousRequest::Path)?
            .ok_or(AmbiguousRequest::Path)?;
        let host = if with_host {
            let authority = single_header(headers.clone(), &[":authority", "host"], AmbiguousRequest::Host)?;
            host::host_of_authority(authority.ok_or(AmbiguousRequest::Host)?)?
        } else {
            ""
        };
        // Fetch standard, section 4.8: a preflight has both headers.
        let has_origin = || headers.clone().any(|(name, _)| name.eq_ignore_ascii_case("origin"));
        let preflight = if method == "OPTIONS" && has_origin() {
            let requested =
                single_header(headers.clone(), &["access-control-request-method"], AmbiguousRequest::Method)?;
            requested.map(|requested| parse_method(requested).ok_or(AmbiguousRequest::Method)).transpose()?
        } else {
            None
        };
        Ok(Self { method, host, target, preflight })
    }
}

/// Returns the value of the header with one of these names, or `None` without one. Repeated headers must be equal.
fn single_header<'r>(
    headers: impl Iterator<Item = (&'r str, &'r [u8])>,
    names: &[&str],
    ambiguous: AmbiguousRequest,
) -> Result<Option<&'r [u8]>, AmbiguousRequest> {
    let mut found = None;
    for (name, value) in headers {
        if names.iter().any(|expected| expected.eq_ignore_ascii_case(name))
            && found.replace(value).is_some_and(|before| before != value)
        {
            return Err(ambiguous);
        }
    }
    Ok(found)
}

/// Parses a method (RFC 9110 sections 5.6.2 and 9.1). Lower case letters are refused: methods are case-sensitive, but
/// many upstreams treat `delete` as `DELETE`.
fn parse_method(bytes: &[u8]) -> Option<&str> {
    let text = core::str::from_utf8(bytes).ok()?;
    (is_token(text) && !text.bytes().any(|byte| byte.is_ascii_lowercase())).then_some(text)
}
