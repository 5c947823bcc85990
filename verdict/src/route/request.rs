use super::{Unroutable, host};

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
        let method = method.and_then(token).ok_or(Unroutable::Method)?;
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
            asked.map(|asked| token(asked).ok_or(Unroutable::Method)).transpose()?
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

/// RFC 9110 section 5.6.2.
fn token(bytes: &[u8]) -> Option<&str> {
    let text = core::str::from_utf8(bytes).ok()?;
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (!text.is_empty() && text.bytes().all(usual)).then_some(text)
}
