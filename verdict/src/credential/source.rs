//! Configured locations of credentials.

use alloc::{borrow::Cow, string::String, vec::Vec};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use token::base64url;

use super::{eq_ignore_case, eq_normalized, query::decode_first};
use crate::{
    config::policy::{is_token, optional_header_name},
    decision::AmbiguousCredential,
};

/// The header with a list of protocols (RFC 6455 section 11.3.4). Browsers can send a credential with a WebSocket in no
/// other header.
const PROTOCOL_LIST: &str = "sec-websocket-protocol";

/// A location of credentials in requests.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "Fields"))]
#[serde(try_from = "Fields")]
pub struct CredentialSource {
    name: String,
    pub(super) location: CredentialLocation,
    /// The text that precedes the credential, or nothing.
    prefix: String,
    /// Whether the prefix is an authentication scheme such as `Bearer` (RFC 9110 section 11.1).
    is_scheme: bool,
    encoding: Encoding,
    pair: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CredentialLocation {
    Header(String),
    Cookie(String),
    Query(String),
}

/// How the credential is encoded after the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Nothing,
    Base64Url,
    /// User name and password of the scheme `Basic` (RFC 7617): the password, or the user name if the password is empty.
    Basic,
    BasicUsername,
    BasicPassword,
}

impl Encoding {
    const fn is_basic(self) -> bool {
        !matches!(self, Self::Nothing | Self::Base64Url)
    }
}

/// A credential, or the reason why another parser could find another one.
pub(super) type Found<'r> = Result<Cow<'r, [u8]>, AmbiguousCredential>;

impl CredentialSource {
    /// Returns the name that rules use: the configured name, or else the header name, `cookie:NAME` or `query:NAME`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the source `Authorization: Bearer`.
    pub(crate) fn bearer() -> Self {
        let name = String::from("authorization");
        Self {
            name: name.clone(),
            location: CredentialLocation::Header(name),
            prefix: "Bearer".into(),
            is_scheme: true,
            encoding: Encoding::Nothing,
            pair: None,
        }
    }

    /// Returns the header that must contain the session that the token names.
    pub(crate) fn pair_header(&self) -> Option<&str> {
        self.pair.as_deref()
    }

    /// Returns whether clients can send the credential as RFC 7617 describes.
    pub(crate) fn is_basic_authorization(&self) -> bool {
        self.encoding.is_basic() && self.is_header("authorization")
    }

    /// Returns the name of the header in which the location is, in lower case.
    pub(crate) fn header_name(&self) -> &str {
        match &self.location {
            CredentialLocation::Header(name) => name,
            CredentialLocation::Cookie(_) => "cookie",
            CredentialLocation::Query(_) => ":path",
        }
    }

    /// Returns whether the source is a header of this name, ignoring case.
    pub(super) fn is_header(&self, name: &str) -> bool {
        matches!(&self.location, CredentialLocation::Header(header) if eq_ignore_case(name, header))
    }

    /// Returns whether the source is a header that some upstreams map to the same name.
    pub(super) fn resembles_header(&self, name: &str) -> bool {
        matches!(&self.location, CredentialLocation::Header(header) if eq_normalized(name, header))
    }

    /// Returns whether a prefix precedes credentials, so that other values can be in this location.
    pub(super) fn has_prefix(&self) -> bool {
        !self.prefix.is_empty()
    }

    /// Returns whether the header is a list, of which the credential is one entry.
    pub(super) fn is_list(&self) -> bool {
        self.has_prefix() && self.resembles_header(PROTOCOL_LIST)
    }

    /// Returns the credential in the value of a header. Returns `None` if there is none.
    pub(super) fn in_header<'r>(&self, value: &'r [u8]) -> Option<Found<'r>> {
        if !has_comma(value) {
            return self.decode(self.strip_prefix(value)?);
        }
        if !self.is_list() {
            return self.has_credential(value).then_some(Err(AmbiguousCredential::Comma));
        }
        let mut found = split_list(value).filter_map(|entry| self.strip_prefix(entry));
        let first = found.next()?;
        if found.next().is_some() { Some(Err(AmbiguousCredential::Several)) } else { self.decode(first) }
    }

    /// Returns whether the value of a header contains a credential in any part between commas.
    fn has_credential(&self, value: &[u8]) -> bool {
        // A single credential is found without a search for commas.
        self.strip_prefix(value).is_some() || split_list(value).any(|part| self.strip_prefix(part).is_some())
    }

    /// Returns the value of a header without the credential, which is empty if nothing remains. Returns `None` if it
    /// has no credential.
    pub(super) fn without_credential(&self, value: &[u8]) -> Option<Vec<u8>> {
        if !self.has_credential(value) {
            return None;
        }
        let mut remaining = Vec::new();
        if self.is_list() {
            for entry in split_list(value).filter(|entry| self.strip_prefix(entry).is_none()) {
                let entry = entry.trim_ascii();
                if !remaining.is_empty() && !entry.is_empty() {
                    remaining.extend(b", ");
                }
                remaining.extend(entry);
            }
        }
        Some(remaining)
    }

    /// Returns the credential in the value of a cookie or a query parameter. Returns `None` if there is none.
    pub(super) fn in_value<'r>(&self, value: &'r [u8]) -> Option<Found<'r>> {
        let value = match &self.location {
            CredentialLocation::Cookie(_) => unquote(value),
            _ => value,
        };
        self.decode(self.strip_encoded_prefix(value)?)
    }

    /// Returns the text after the scheme or prefix in the value of a cookie or a query parameter, without white space before
    /// it, as in a header. All of these characters can be percent-encoded.
    fn strip_encoded_prefix<'r>(&self, value: &'r [u8]) -> Option<&'r [u8]> {
        if !self.has_prefix() {
            return Some(value);
        }
        let mut text = value;
        let after_prefix = loop {
            match strip_encoded(text, &self.prefix, self.is_scheme) {
                Some(rest) => break rest,
                None => text = skip_space(text)?,
            }
        };
        let mut credential = after_prefix;
        while let Some(rest) = skip_space(credential) {
            credential = rest;
        }
        // A space separates a scheme from the credential.
        let is_separated = !self.is_scheme || credential.is_empty() || credential.len() < after_prefix.len();
        is_separated.then_some(credential)
    }

    /// Returns the text after the scheme or prefix, without white space around it. RFC 9110 section 11.4:
    /// `scheme 1*SP token`.
    fn strip_prefix<'r>(&self, part: &'r [u8]) -> Option<&'r [u8]> {
        let (start, rest) = trim_spaces(part).split_at_checked(self.prefix.len())?;
        let is_prefix = if self.is_scheme {
            start.eq_ignore_ascii_case(self.prefix.as_bytes())
                && rest.first().is_none_or(|byte| is_space(*byte))
        } else {
            start == self.prefix.as_bytes()
        };
        is_prefix.then_some(trim_spaces(rest))
    }

    /// Decodes the credential. It has one encoding only, since base64 is decoded strictly; which spelling of the
    /// decoded credential is valid does not depend on it. Returns `None` if the decoded credential is empty.
    fn decode<'r>(&self, text: &'r [u8]) -> Option<Found<'r>> {
        let decoded = match self.encoding {
            Encoding::Nothing => return Some(Ok(Cow::Borrowed(text))),
            _ if text.is_empty() => return None,
            Encoding::Base64Url => base64url::decode(text),
            _ => STANDARD.decode(text).ok(),
        };
        let part = decoded.as_ref().and_then(|decoded| self.credential_part(decoded));
        let Some(part) = part else { return Some(Err(AmbiguousCredential::Encoding)) };
        (!part.is_empty()).then(|| Ok(Cow::Owned(part.to_vec())))
    }

    /// Returns the part of a decoded text that is the credential, or `None` for `Basic` without a colon. A password can
    /// contain colons (RFC 7617 section 2).
    fn credential_part<'d>(&self, decoded: &'d [u8]) -> Option<&'d [u8]> {
        if self.encoding == Encoding::Base64Url {
            return Some(decoded);
        }
        let (username, rest) = decoded.split_at_checked(decoded.iter().position(|byte| *byte == b':')?)?;
        let password = rest.strip_prefix(b":")?;
        let is_username = match self.encoding {
            Encoding::Basic => password.is_empty(),
            encoding => encoding == Encoding::BasicUsername,
        };
        Some(if is_username { username } else { password })
    }
}

/// Returns whether a value contains a comma. A credential has some hundred bytes, so eight are searched at a time, as memchr
/// does with as many as the platform has in a word.
fn has_comma(value: &[u8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOP_BITS: u64 = u64::from_ne_bytes([0x80; 8]);
    let (words, rest) = value.as_chunks();
    let in_word = |word: &[u8; 8]| {
        // A comma becomes a zero byte. The subtraction sets the highest bit of the first zero byte, and of no byte before it.
        let word = u64::from_le_bytes(*word) ^ u64::from_le_bytes([b','; 8]);
        word.wrapping_sub(ONES) & !word & TOP_BITS != 0
    };
    words.iter().any(in_word) || rest.contains(&b',')
}

fn split_list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',')
}

/// Removes the quotes of a quoted cookie value (RFC 6265 section 4.1.1), which can be percent-encoded.
fn unquote(value: &[u8]) -> &[u8] {
    let inner = |quote: &[u8]| value.strip_prefix(quote)?.strip_suffix(quote);
    inner(b"\"").or_else(|| inner(b"%22")).map_or(value, <[u8]>::trim_ascii)
}

/// Removes a prefix whose characters can be percent-encoded. A space can be a `+`.
fn strip_encoded<'r>(text: &'r [u8], prefix: &str, ignore_case: bool) -> Option<&'r [u8]> {
    prefix.bytes().try_fold(text, |rest, expected| {
        let (byte, rest) = decode_first(rest)?;
        let matches = byte == expected
            || (expected == b' ' && byte == b'+')
            || (ignore_case && byte.eq_ignore_ascii_case(&expected));
        matches.then_some(rest)
    })
}

/// Removes the first character, which can be percent-encoded, if some upstream takes it for white space.
fn skip_space(text: &[u8]) -> Option<&[u8]> {
    let (byte, rest) = decode_first(text)?;
    (byte == b'+' || is_space(byte)).then_some(rest)
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
    /// The authentication scheme that precedes the credential, such as `Bearer`. With `Basic`, the credential is the
    /// password, or the user name if the password is empty.
    #[serde(default)]
    scheme: Option<String>,
    /// A text that precedes the credential.
    #[serde(default)]
    prefix: Option<String>,
    /// What the text after the prefix is: base64url of the credential, or, with the scheme `Basic`, a user name and a
    /// password, one of which is the credential.
    #[serde(default)]
    #[cfg_attr(
        feature = "schema",
        schemars(extend("enum" = ["base64url", "basic_username", "basic_password"]))
    )]
    encoding: Option<String>,
    /// The header with the session that was issued together with the token, such as `x-soracom-api-key`.
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
        let Fields { header, cookie, query, scheme, prefix, encoding, pair, name } = fields;
        let (default_name, location) = location(header, cookie, query)?;
        let is_basic = scheme.as_ref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("Basic"));
        let encoding = match (encoding.as_deref(), is_basic) {
            (None, false) => Encoding::Nothing,
            (None, true) => Encoding::Basic,
            (Some("base64url"), false) => Encoding::Base64Url,
            (Some("basic_username"), true) => Encoding::BasicUsername,
            (Some("basic_password"), true) => Encoding::BasicPassword,
            _ => {
                return Err(
                    "`encoding` must be `base64url`, or, with the scheme `Basic`, `basic_username` or \
                            `basic_password`",
                );
            }
        };
        let is_scheme = scheme.is_some();
        let prefix = match (scheme, prefix) {
            (None, None) => String::new(),
            (Some(scheme), None) if is_token(&scheme) => scheme,
            (None, Some(prefix)) if is_visible(&prefix) => prefix,
            (Some(_), Some(_)) => return Err("`scheme` and `prefix` are mutually exclusive"),
            (Some(_), None) => return Err("`scheme` is not an HTTP authentication scheme"),
            (None, Some(_)) => return Err("`prefix` must be printable ASCII without commas, and not empty"),
        };
        Ok(Self { name: name.unwrap_or(default_name), location, prefix, is_scheme, encoding, pair })
    }
}

/// Returns the location with its default name.
fn location(
    header: Option<String>,
    cookie: Option<String>,
    query: Option<String>,
) -> Result<(String, CredentialLocation), &'static str> {
    Ok(match (header, cookie, query) {
        (Some(name), None, None) if name != "cookie" => (name.clone(), CredentialLocation::Header(name)),
        (Some(_), None, None) => {
            return Err("`header` must not be `cookie`: use `cookie` with the name of the cookie");
        }
        (None, Some(name), None) if is_token(&name) => {
            (["cookie:", &name].concat(), CredentialLocation::Cookie(name))
        }
        (None, None, Some(name)) if is_parameter(&name) => {
            (["query:", &name].concat(), CredentialLocation::Query(name))
        }
        (None, Some(_), None) => return Err("`cookie` must be a cookie name"),
        (None, None, Some(_)) => return Err("`query` must consist of A-Z a-z 0-9 - . _ ~"),
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

/// Returns whether some upstream takes a byte for white space. Upstreams take more for it than HTTP does, such as a no-break
/// space (0xA0), so every byte counts that is not visible ASCII.
const fn is_space(byte: u8) -> bool {
    !byte.is_ascii_graphic()
}

/// Returns a text without white space around it.
fn trim_spaces(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_space(*first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && is_space(*last)
    {
        text = rest;
    }
    text
}
