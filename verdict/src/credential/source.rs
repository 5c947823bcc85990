//! Configured locations of credentials.

use alloc::string::String;

use serde::Deserialize;

use super::{eq_ignore_case, eq_normalized};
use crate::policy::{is_token, optional_header_name};

/// A location of credentials in requests.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "Fields"))]
#[serde(try_from = "Fields")]
pub struct CredentialSource {
    name: String,
    pub(super) location: CredentialLocation,
    pair: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CredentialLocation {
    Header(Header),
    Cookie(String),
    Query(String),
}

/// A header, and what precedes the credential in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    name: String,
    value_prefix: ValuePrefix,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum ValuePrefix {
    Nothing,
    /// An authentication scheme such as `Bearer` (RFC 9110 section 11.1).
    Scheme(String),
    /// A fixed text.
    Prefix(String),
}

/// The error for a value that contains, or that some parser takes for, more than one credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MultipleCredentials;

impl CredentialSource {
    /// Returns the name that rules use: the configured name, or else the header name, `cookie:NAME` or `query:NAME`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the source `Authorization: Bearer`.
    pub(crate) fn bearer() -> Self {
        let header =
            Header { name: "authorization".into(), value_prefix: ValuePrefix::Scheme("Bearer".into()) };
        Self { name: header.name.clone(), location: CredentialLocation::Header(header), pair: None }
    }

    /// Returns the header that must contain the session that the token names.
    pub(crate) fn pair_header(&self) -> Option<&str> {
        self.pair.as_deref()
    }
}

impl Header {
    /// Returns whether the header has this name, ignoring case.
    pub(super) fn name_equals(&self, name: &str) -> bool {
        eq_ignore_case(name, &self.name)
    }

    /// Returns whether the header has a name that some upstreams map to the same name.
    pub(super) fn name_resembles(&self, name: &str) -> bool {
        eq_normalized(name, &self.name)
    }

    /// Returns the credential, `None` if there is none, or an error if the value has a comma and contains a credential.
    pub(super) fn credential<'r>(&self, value: &'r [u8]) -> Option<Result<&'r [u8], MultipleCredentials>> {
        if !value.contains(&b',') {
            return self.strip_prefix(value.trim_ascii()).map(Ok);
        }
        self.contains_credential(value).then_some(Err(MultipleCredentials))
    }

    /// Returns whether the value contains a credential in any part between commas.
    pub(super) fn contains_credential(&self, value: &[u8]) -> bool {
        self.strip_prefix(value.trim_ascii()).is_some()
            || value.split(|byte| *byte == b',').any(|part| self.strip_prefix(part.trim_ascii()).is_some())
    }

    /// Returns the credential after the scheme or prefix. RFC 9110 section 11.4: `scheme 1*SP token`.
    fn strip_prefix<'r>(&self, part: &'r [u8]) -> Option<&'r [u8]> {
        match &self.value_prefix {
            ValuePrefix::Nothing => Some(part),
            ValuePrefix::Prefix(prefix) => part.strip_prefix(prefix.as_bytes()).map(<[u8]>::trim_ascii),
            ValuePrefix::Scheme(scheme) => {
                let (start, rest) = part.split_at_checked(scheme.len())?;
                let ends = rest.first().is_none_or(u8::is_ascii_whitespace);
                (ends && start.eq_ignore_ascii_case(scheme.as_bytes())).then_some(rest.trim_ascii())
            }
        }
    }
}

/// A location of credentials: one of `header`, `cookie` and `query`.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Fields {
    /// The name of a header, in lower case.
    #[serde(default, deserialize_with = "optional_header_name")]
    #[cfg_attr(feature = "schema", schemars(extend("pattern" = "^[a-z0-9_-]+$")))]
    header: Option<String>,
    /// The name of a cookie.
    #[serde(default)]
    cookie: Option<String>,
    /// The name of a query parameter.
    #[serde(default)]
    query: Option<String>,
    /// The authentication scheme that precedes the credential in the header, such as `Bearer`.
    #[serde(default)]
    scheme: Option<String>,
    /// A text that precedes the credential in the header.
    #[serde(default)]
    prefix: Option<String>,
    /// The header with the API key of a pair of token and API key.
    #[serde(default, deserialize_with = "optional_header_name")]
    #[cfg_attr(feature = "schema", schemars(extend("pattern" = "^[a-z0-9_-]+$")))]
    pair: Option<String>,
    /// The name that rules use for this location.
    #[serde(default)]
    name: Option<String>,
}

impl TryFrom<Fields> for CredentialSource {
    type Error = &'static str;

    fn try_from(fields: Fields) -> Result<Self, Self::Error> {
        let Fields { header, cookie, query, scheme, prefix, pair, name } = fields;
        let (default_name, location) = location(header, cookie, query, value_prefix(scheme, prefix)?)?;
        Ok(Self { name: name.unwrap_or(default_name), location, pair })
    }
}

fn value_prefix(scheme: Option<String>, prefix: Option<String>) -> Result<ValuePrefix, &'static str> {
    Ok(match (scheme, prefix) {
        (None, None) => ValuePrefix::Nothing,
        (Some(scheme), None) if is_token(&scheme) => ValuePrefix::Scheme(scheme),
        (None, Some(prefix)) if is_visible(&prefix) => ValuePrefix::Prefix(prefix),
        (Some(_), Some(_)) => return Err("`scheme` and `prefix` are mutually exclusive"),
        (Some(_), None) => return Err("`scheme` is not an HTTP authentication scheme"),
        (None, Some(_)) => return Err("`prefix` must be printable ASCII without commas, and not empty"),
    })
}

/// Returns the location with its default name.
fn location(
    header: Option<String>,
    cookie: Option<String>,
    query: Option<String>,
    value_prefix: ValuePrefix,
) -> Result<(String, CredentialLocation), &'static str> {
    Ok(match (header, cookie, query) {
        (Some(name), None, None) if name != "cookie" => {
            (name.clone(), CredentialLocation::Header(Header { name, value_prefix }))
        }
        (Some(_), None, None) => {
            return Err("`header` must not be `cookie`: use `cookie` with the name of the cookie");
        }
        (None, Some(name), None) if is_token(&name) && value_prefix == ValuePrefix::Nothing => {
            (["cookie:", &name].concat(), CredentialLocation::Cookie(name))
        }
        (None, None, Some(name)) if is_parameter(&name) && value_prefix == ValuePrefix::Nothing => {
            (["query:", &name].concat(), CredentialLocation::Query(name))
        }
        (None, Some(_), None) => return Err("`cookie` must be a cookie name, without `scheme` and `prefix`"),
        (None, None, Some(_)) => {
            return Err("`query` must consist of A-Z a-z 0-9 - . _ ~, without `scheme` and `prefix`");
        }
        _ => return Err("exactly one of `header`, `cookie` and `query` is required"),
    })
}

fn is_visible(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| (byte.is_ascii_graphic() || byte == b' ') && byte != b',')
}

/// Returns whether a name has only unreserved characters (RFC 3986 section 2.3), which clients do not encode.
fn is_parameter(name: &str) -> bool {
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    !name.is_empty() && name.bytes().all(is_unreserved)
}
