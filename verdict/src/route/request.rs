use super::{Unroutable, host};
use crate::policy::is_token;

/// What rules look at.
pub(super) struct Request<'r> {
    pub(super) method: &'r str,
    /// Empty where no rule asks for it.
    pub(super) host: &'r str,
    pub(super) target: &'r [u8],
    /// The method that a CORS preflight asks for.
    pub(super) preflight: Option<&'r str>,
}

impl<'r> Request<'r> {
    pub(super) fn of(
        headers: impl Iterator<Item = (&'r str, &'r [u8])> + Clone,
        with_host: bool,
    ) -> Result<Self, Unroutable> {
        let method = only(headers.clone(), &[":method"], Unroutable::Method)?;
        let method = method.and_then(name).ok_or(Unroutable::Method)?;
        let target = only(headers.clone(), &[":path"], Unroutable::Path)?.ok_or(Unroutable::Path)?;
        let host = if with_host {
            let authority = only(headers.clone(), &[":authority", "host"], Unroutable::Host)?;
            host::named(authority.ok_or(Unroutable::Host)?)?
        } else {
            ""
        };
        // Fetch standard, section 4.8: both headers make a preflight.
        let has_origin = || headers.clone().any(|(name, _)| name.eq_ignore_ascii_case("origin"));
        let preflight = if method == "OPTIONS" && has_origin() {
            let asked = only(headers.clone(), &["access-control-request-method"], Unroutable::Method)?;
            asked.map(|asked| name(asked).ok_or(Unroutable::Method)).transpose()?
        } else {
            None
        };
        Ok(Self { method, host, target, preflight })
    }
}

/// None when there is none; several must be the same.
fn only<'r>(
    headers: impl Iterator<Item = (&'r str, &'r [u8])>,
    names: &[&str],
    several: Unroutable,
) -> Result<Option<&'r [u8]>, Unroutable> {
    let mut found = None;
    for (name, value) in headers {
        if names.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
            && found.replace(value).is_some_and(|before| before != value)
        {
            return Err(several);
        }
    }
    Ok(found)
}

/// A method (RFC 9110 sections 5.6.2 and 9.1) without small letters: methods differ by case, and yet many an upstream
/// takes `delete` for `DELETE`.
fn name(bytes: &[u8]) -> Option<&str> {
    let text = core::str::from_utf8(bytes).ok()?;
    (is_token(text) && !text.bytes().any(|byte| byte.is_ascii_lowercase())).then_some(text)
}
