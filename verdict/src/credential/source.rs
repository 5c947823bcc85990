use alloc::string::String;

use serde::Deserialize;

use super::{is_like, is_same};
use crate::policy::{is_token, optional_header_name};

/// A place where a credential may be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "Fields"))]
#[serde(try_from = "Fields")]
pub struct CredentialSource {
    name: String,
    pub(super) place: Place,
    pair: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Header(Header),
    Cookie(String),
    Query(String),
}

/// A header, and what stands in it in front of the credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    name: String,
    before: Before,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Before {
    Nothing,
    /// An authentication scheme such as `Bearer` (RFC 9110 section 11.1).
    Scheme(String),
    /// Any text, exactly so.
    Prefix(String),
}

/// Where one credential is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Several;

impl CredentialSource {
    /// What rules call it by: `authorization`, `cookie:session`, `query:access_token`, or as configured.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `Authorization: Bearer`.
    pub(crate) fn bearer() -> Self {
        let header = Header { name: "authorization".into(), before: Before::Scheme("Bearer".into()) };
        Self { name: header.name.clone(), place: Place::Header(header), pair: None }
    }

    /// The header that must say which session a token belongs to.
    pub(crate) fn pair(&self) -> Option<&str> {
        self.pair.as_deref()
    }
}

impl Header {
    pub(super) fn is(&self, name: &str) -> bool {
        is_same(name, &self.name)
    }

    pub(super) fn is_like(&self, name: &str) -> bool {
        is_like(name, &self.name)
    }

    /// None when there is none in it; an error when there is more than one thing in it, as no credential has a comma.
    pub(super) fn credential<'r>(&self, value: &'r [u8]) -> Option<Result<&'r [u8], Several>> {
        if !value.contains(&b',') {
            return self.after(value.trim_ascii()).map(Ok);
        }
        self.holds(value).then_some(Err(Several))
    }

    /// Whether there is one in it, or several.
    pub(super) fn holds(&self, value: &[u8]) -> bool {
        self.after(value.trim_ascii()).is_some()
            || value.split(|byte| *byte == b',').any(|part| self.after(part.trim_ascii()).is_some())
    }

    /// RFC 9110 section 11.4: `scheme 1*SP token`.
    fn after<'r>(&self, part: &'r [u8]) -> Option<&'r [u8]> {
        match &self.before {
            Before::Nothing => Some(part),
            Before::Prefix(prefix) => part.strip_prefix(prefix.as_bytes()).map(<[u8]>::trim_ascii),
            Before::Scheme(scheme) => {
                let (start, rest) = part.split_at_checked(scheme.len())?;
                let ends = rest.first().is_none_or(u8::is_ascii_whitespace);
                (ends && start.eq_ignore_ascii_case(scheme.as_bytes())).then_some(rest.trim_ascii())
            }
        }
    }
}

/// A place where a credential may be: one of `header`, `cookie` and `query`.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Fields {
    /// A header, in lower case.
    #[serde(default, deserialize_with = "optional_header_name")]
    #[cfg_attr(feature = "schema", schemars(extend("pattern" = "^[a-z0-9_-]+$")))]
    header: Option<String>,
    /// A cookie.
    #[serde(default)]
    cookie: Option<String>,
    /// A query parameter.
    #[serde(default)]
    query: Option<String>,
    /// An authentication scheme such as `Bearer`, which precedes the credential in the header.
    #[serde(default)]
    scheme: Option<String>,
    /// A text that precedes the credential in the header.
    #[serde(default)]
    prefix: Option<String>,
    /// The header with the API key that the token of a pair names.
    #[serde(default, deserialize_with = "optional_header_name")]
    #[cfg_attr(feature = "schema", schemars(extend("pattern" = "^[a-z0-9_-]+$")))]
    pair: Option<String>,
    /// What rules call it by.
    #[serde(default)]
    name: Option<String>,
}

impl TryFrom<Fields> for CredentialSource {
    type Error = &'static str;

    fn try_from(fields: Fields) -> Result<Self, Self::Error> {
        let Fields { header, cookie, query, scheme, prefix, pair, name } = fields;
        let (usual, place) = place(header, cookie, query, before(scheme, prefix)?)?;
        Ok(Self { name: name.unwrap_or(usual), place, pair })
    }
}

fn before(scheme: Option<String>, prefix: Option<String>) -> Result<Before, &'static str> {
    Ok(match (scheme, prefix) {
        (None, None) => Before::Nothing,
        (Some(scheme), None) if is_token(&scheme) => Before::Scheme(scheme),
        (None, Some(prefix)) if is_plain(&prefix) => Before::Prefix(prefix),
        (Some(_), Some(_)) => return Err("has `scheme` and `prefix`: one of them"),
        (Some(_), None) => return Err("has a `scheme` that is none"),
        (None, Some(_)) => return Err("has a `prefix` that is empty, has a comma or cannot be seen"),
    })
}

/// And what it is called unless it has a name.
fn place(
    header: Option<String>,
    cookie: Option<String>,
    query: Option<String>,
    before: Before,
) -> Result<(String, Place), &'static str> {
    Ok(match (header, cookie, query) {
        (Some(name), None, None) if name != "cookie" => {
            (name.clone(), Place::Header(Header { name, before }))
        }
        (Some(_), None, None) => return Err("has the `header` of cookies: name a `cookie`"),
        (None, Some(name), None) if is_token(&name) && before == Before::Nothing => {
            (["cookie:", &name].concat(), Place::Cookie(name))
        }
        (None, None, Some(name)) if is_parameter(&name) && before == Before::Nothing => {
            (["query:", &name].concat(), Place::Query(name))
        }
        (None, Some(_), None) => return Err("has a `cookie` that is no name, or has `scheme` or `prefix`"),
        (None, None, Some(_)) => {
            return Err("has a `query` that is not of A-Z a-z 0-9 - . _ ~, or has `scheme` or `prefix`");
        }
        _ => return Err("needs one of `header`, `cookie` and `query`"),
    })
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| (byte.is_ascii_graphic() || byte == b' ') && byte != b',')
}

/// RFC 3986 section 2.3: what no one encodes.
fn is_parameter(name: &str) -> bool {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    !name.is_empty() && name.bytes().all(usual)
}
