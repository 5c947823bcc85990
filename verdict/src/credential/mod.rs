//! Finds the credential of a request and removes it.
//!
//! **A request with more than one credential is refused.** Two credentials, a repeated header, or a list where one
//! value is expected could let an upstream use a different credential from the one that was checked. A rule that names
//! sources is searched for these alone.
//!
//! | place | one credential | refused as ambiguous |
//! |---|---|---|
//! | header | `x-api-key: ks_live_...` | twice; a comma in it, as proxies join doubled headers; as `x_api_key` or `x.api.key` |
//! | header with a scheme | `Authorization: Bearer eyJ...` | the same; and the scheme in any part between commas |
//! | `Basic` | `Authorization: Basic a3NfbGl2ZV8uLi46` | the same; base64 that is not strict, or without a colon |
//! | list of protocols | `Sec-WebSocket-Protocol: app-v1, app-token.eyJ...` | two entries with the prefix |
//! | cookie | `session=eyJ...` | twice, in one header or several; after a comma, white space or a quote; its name in another case, in percent-encoding, or as PHP reads it |
//! | query parameter | `?access_token=eyJ...` | twice; after `;`; its name in percent-encoding, in another case, or as PHP reads it (`access.token`) |
//!
//! The text around a credential can have several spellings: quotes around the value of a cookie, and a percent-encoded
//! prefix. The credential itself is used as it was sent, and the fingerprint is that of the credential alone. A
//! credential that would have to be decoded (`%`, `+`, quotes in it) is not valid.

mod cookie;
mod query;
mod source;

use alloc::{borrow::Cow, vec::Vec};

pub use source::CredentialSource;

use crate::decision::{AmbiguousCredential, Headers, Reason};
use source::{CredentialLocation, Found};

/// Each byte of a header name after the normalization of [`name_has_prefix`].
static NORMALIZED: [u8; 256] = normalized();

/// The only credential of a request, with its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PresentedCredential<'r, 's> {
    pub(crate) credential: Cow<'r, [u8]>,
    pub(crate) source: &'s CredentialSource,
}

/// The function that gets each value of a cookie or query parameter.
type Visit<'v, 'r> = &'v mut dyn FnMut(&'r [u8]) -> Visited;
type Visited = Result<(), AmbiguousCredential>;

/// A credential that may be empty, with its source.
type Located<'r, 's> = Option<(Found<'r>, &'s CredentialSource)>;

/// Finds the credential. No credential and an ambiguous one are different errors.
pub(crate) fn find<'r, 's>(
    sources: &'s [CredentialSource],
    headers: &Headers<'r>,
) -> Result<PresentedCredential<'r, 's>, Reason> {
    let mut found = None;
    let mut take = |located: Located<'r, 's>| {
        let Some((credential, source)) = located else { return Ok(()) };
        let credential = credential?;
        if !credential.is_empty() && found.replace(PresentedCredential { credential, source }).is_some() {
            return Err(AmbiguousCredential::Several);
        }
        Ok(())
    };
    // One bit for each source: where the credential is, and where other values are.
    let (mut found_in, mut others_in) = (0, 0);
    let lengths = NameLengths::of(sources.iter().map(CredentialSource::header_name));
    for (name, value) in headers.iter().filter(|(name, _)| lengths.contains(name)) {
        let (mut bit, mut is_header) = (1_u64, false);
        for source in sources {
            bit = bit.rotate_left(1);
            let is_searched = match &source.location {
                CredentialLocation::Header(header) => {
                    // All sources of the header are searched together.
                    if !is_header && eq_normalized(name, header) {
                        is_header = true;
                        take(in_header(sources, name, value))?;
                    }
                    false
                }
                CredentialLocation::Cookie(_) => name.eq_ignore_ascii_case("cookie"),
                CredentialLocation::Query(_) => *name == ":path",
            };
            if is_searched {
                let mut visit = |value| {
                    let located = in_value(sources, source, value);
                    *(if located.is_some() { &mut found_in } else { &mut others_in }) |= bit;
                    take(located)
                };
                match &source.location {
                    CredentialLocation::Header(_) => {}
                    CredentialLocation::Cookie(cookie) => cookie::visit_values(value, cookie, &mut visit)?,
                    CredentialLocation::Query(parameter) => {
                        query::visit_values(value, parameter, &mut visit)?
                    }
                }
            }
        }
    }
    let found = found.ok_or(Reason::CredentialMissing)?;
    // Another parser could read another value of the cookie or parameter, which has no prefix.
    if found_in & others_in != 0 && found.source.has_prefix() {
        return Err(AmbiguousCredential::Several.into());
    }
    Ok(found)
}

/// Returns the credential in a header. The first matching source wins: `Bearer` comes before the whole header.
fn in_header<'r, 's>(sources: &'s [CredentialSource], name: &str, value: &'r [u8]) -> Located<'r, 's> {
    let mut found: Located<'r, 's> = None;
    let mut similar = None;
    for source in sources.iter().filter(|source| source.resembles_header(name)) {
        let Some(credential) = source.in_header(value) else { continue };
        if !source.is_header(name) {
            similar = similar.or(Some(source).filter(|_| !is_empty(&credential)));
        } else if let Some((credential, first)) = &mut found {
            // Each entry of a list can be a credential of another source.
            if first.is_list() && source.is_list() {
                *credential = Err(AmbiguousCredential::Several);
            }
        } else {
            found = Some((credential, source));
        }
    }
    let found = found.filter(|(credential, _)| !is_empty(credential));
    found.or(similar.map(|source| (Err(AmbiguousCredential::SimilarName), source)))
}

/// Returns the credential of a source in a value of its cookie or parameter, unless an earlier source of this location
/// has it.
fn in_value<'r, 's>(
    sources: &[CredentialSource],
    source: &'s CredentialSource,
    value: &'r [u8],
) -> Located<'r, 's> {
    let mut same = sources.iter().filter(|other| other.location == source.location && !value.is_empty());
    let credential = same.find_map(|other| Some((other.in_value(value)?, other)));
    let (credential, _) = credential.filter(|(_, first)| core::ptr::eq(*first, source))?;
    // No credential contains a comma.
    Some((if value.contains(&b',') { Err(AmbiguousCredential::Comma) } else { credential }, source))
}

fn is_empty(credential: &Found<'_>) -> bool {
    credential.as_ref().is_ok_and(|credential| credential.is_empty())
}

/// Returns the only value of a header that accompanies a credential, or an empty value without it.
pub(crate) fn paired_header<'r>(name: &str, headers: &Headers<'r>) -> Result<&'r [u8], Reason> {
    let mut values = headers.iter().filter(|(header, _)| eq_normalized(header, name));
    match (values.next(), values.next()) {
        (None, _) => Ok(&[]),
        (Some((header, value)), None) if header.eq_ignore_ascii_case(name) => Ok(value),
        _ => Err(AmbiguousCredential::Companion.into()),
    }
}

/// The result of removing credentials from a header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stripped<'r> {
    /// The header contains no credential.
    Unchanged,
    /// The header with the credential removed.
    Changed(Cow<'r, [u8]>),
    /// The whole header is removed.
    Removed,
}

/// Removes everything from the header that could be a credential.
pub(crate) fn strip<'r>(sources: &[CredentialSource], name: &str, value: &'r [u8]) -> Stripped<'r> {
    let mut stripped = Stripped::Unchanged;
    for source in sources {
        let current = match &stripped {
            Stripped::Unchanged => value,
            Stripped::Changed(value) => value,
            Stripped::Removed => return stripped,
        };
        let is_credential = |value: &[u8]| source.in_value(value).is_some();
        let remaining: Option<Vec<u8>> = match &source.location {
            CredentialLocation::Header(header) if eq_normalized(name, header) => {
                source.without_credential(current)
            }
            CredentialLocation::Cookie(cookie) if name.eq_ignore_ascii_case("cookie") => {
                cookie::without(current, cookie, &is_credential)
            }
            CredentialLocation::Query(parameter) if name == ":path" => {
                query::without(current, parameter, &is_credential)
            }
            _ => None,
        };
        if let Some(remaining) = remaining {
            // A header can be removed. The path cannot.
            let is_removed = remaining.is_empty() && name != ":path";
            stripped = if is_removed { Stripped::Removed } else { Stripped::Changed(Cow::Owned(remaining)) };
        }
    }
    stripped
}

/// The lengths of some header names. Most headers of a request have none of these lengths, so that their names need not be
/// compared with any of these names: all comparisons here are of names of the same length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct NameLengths(u64);

impl NameLengths {
    pub(crate) fn of<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        Self(names.into_iter().fold(0, |bits, name| bits | Self::bit(name)))
    }

    pub(crate) const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn contains(self, name: &str) -> bool {
        self.0 & Self::bit(name) != 0
    }

    /// Returns the bit of a length. All names above 62 bytes have the same one.
    fn bit(name: &str) -> u64 {
        1 << name.len().min(63)
    }
}

#[expect(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "evaluated by the compiler")]
const fn normalized() -> [u8; 256] {
    let mut table = [b'-'; 256];
    let mut byte = 0;
    while byte < u8::MAX {
        if byte.is_ascii_alphanumeric() {
            table[byte as usize] = byte.to_ascii_lowercase();
        }
        byte += 1;
    }
    table
}

/// Returns whether a header name starts with `prefix` after normalization. CGI (RFC 3875 section 4.1.18) and similar
/// interfaces map `-`, or every character that is not a letter or digit, to `_`, so `x.keystile.subject` counts as an
/// identity header.
pub(crate) fn name_has_prefix(name: &str, prefix: &str) -> bool {
    let fold = |byte: &u8| NORMALIZED.get(usize::from(*byte));
    let start = name.as_bytes().get(..prefix.len());
    start.is_some_and(|start| start.iter().zip(prefix.as_bytes()).all(|(a, b)| fold(a) == fold(b)))
}

/// Returns whether two header names are equal, ignoring case. Comparing bytes first saves a tenth of the time, since
/// most hosts use lower case.
pub(crate) fn eq_ignore_case(name: &str, other: &str) -> bool {
    name == other || name.eq_ignore_ascii_case(other)
}

/// Returns whether two header names are equal after the normalization of [`name_has_prefix`].
pub(crate) fn eq_normalized(name: &str, other: &str) -> bool {
    name.len() == other.len() && name_has_prefix(name, other)
}

#[cfg(test)]
mod tests {
    use std::{string::String, vec::Vec};

    use super::*;
    use crate::config;

    const SOURCES: &str = r#"[
        { "header": "authorization", "scheme": "Bearer" },
        { "header": "x-token", "prefix": "t=" },
        { "header": "x-api-key" },
        { "cookie": "session" },
        { "query": "access_token" }
    ]"#;

    fn sources() -> Vec<CredentialSource> {
        parse_sources(SOURCES)
    }

    fn parse_sources(json: &str) -> Vec<CredentialSource> {
        config::from_json(json.as_bytes()).unwrap()
    }

    type Lines = &'static [(&'static str, &'static str)];

    fn headers(lines: Lines) -> Vec<(&'static str, &'static [u8])> {
        lines.iter().map(|(name, value)| (*name, value.as_bytes())).collect()
    }

    #[test]
    fn find_returns_the_only_credential() {
        const MISSING: Result<&str, Reason> = Err(Reason::CredentialMissing);
        // The test `ambiguous_credentials_have_a_reason` distinguishes the kinds.
        const AMBIGUOUS: Result<&str, Reason> =
            Err(Reason::CredentialAmbiguous(AmbiguousCredential::Several));
        let cases: &[(Lines, Result<&str, Reason>)] = &[
            (&[("authorization", "Bearer a")], Ok("a")),
            (&[("Authorization", "bearer  a ")], Ok("a")),
            (&[("authorization", "Basic a")], MISSING),
            (&[("authorization", "Bearer")], MISSING),
            (&[("authorization", "Bearer, a")], AMBIGUOUS),
            (&[("authorization", "Basic a, Bearer")], AMBIGUOUS),
            (&[("authorization", "Basic a, b")], MISSING),
            (&[("authorization", "Bearer ")], MISSING),
            (&[("authorization", "Bearera")], MISSING),
            (&[("authorization", "Bearer a,Bearer a")], AMBIGUOUS),
            (&[("authorization", "Basic b, bearer a")], AMBIGUOUS),
            (&[("authorization", "Bearer a, Basic b")], AMBIGUOUS),
            (&[("authorization", "Digest a=\"b\", c=\"d\"")], MISSING),
            (&[("authorization", "Bearer a"), ("authorization", "Bearer a")], AMBIGUOUS),
            (&[("authorization", "Bearer a"), ("authorization", "Basic a")], Ok("a")),
            (&[("x-token", "t=a")], Ok("a")),
            (&[("x-token", "T=a")], MISSING),
            (&[("x-token", "u=a, t=a")], AMBIGUOUS),
            (&[("x-api-key", "b")], Ok("b")),
            (&[("x-api-key", "")], MISSING),
            (&[("x-api-key", "a,b")], AMBIGUOUS),
            (&[("x-api-key", "a"), ("X-Api-Key", "b")], AMBIGUOUS),
            (&[("x_api_key", "b")], AMBIGUOUS),
            (&[("x_api_key", "")], MISSING),
            (&[("x-api-key", "a"), ("X.Api.Key", "b")], AMBIGUOUS),
            (&[("authorization", "Bearer a"), ("x_token", "t=b")], AMBIGUOUS),
            (&[("authorization", "Bearer a"), ("x_token", "u=b")], Ok("a")),
            (&[("other", "Bearer a")], MISSING),
            (&[("authorization", "Basic a"), ("x-api-key", "b")], Ok("b")),
            (&[("authorization", "Bearer a"), ("x-api-key", "b")], AMBIGUOUS),
            (&[("cookie", "a=1; session=b; c=2")], Ok("b")),
            (&[("cookie", "a=1;session=b")], Ok("b")),
            (&[("Cookie", "session = b")], Ok("b")),
            (&[("cookie", "session=\"b\"")], Ok("b")),
            (&[("cookie", "session=%22b%22")], Ok("b")),
            (&[("cookie", "session=\"b")], Ok("\"b")),
            (&[("cookie", "session=\"")], Ok("\"")),
            (&[("cookie", "session=\"\"")], MISSING),
            (&[("cookie", "session=\"\"b\"\"")], Ok("\"b\"")),
            (&[("cookie", "a=1"), ("cookie", "session=b")], Ok("b")),
            (&[("cookie", "session=; a=1")], MISSING),
            (&[("cookie", "session")], MISSING),
            (&[("cookie", "Session=b")], AMBIGUOUS),
            (&[("cookie", "session=b; a=1, session=c")], AMBIGUOUS),
            (&[("cookie", "session=b; a=1,session=c")], AMBIGUOUS),
            (&[("cookie", "session=b; a=1 session=c")], AMBIGUOUS),
            (&[("cookie", "session=b; a=1\tsession =c")], AMBIGUOUS),
            (&[("cookie", "session=b; a=1\x0bsession=c")], AMBIGUOUS),
            (&[("cookie", "session=b; a=1\u{a0}session=c")], AMBIGUOUS),
            (&[("cookie", "session=b; a=\"1\"session=c")], AMBIGUOUS),
            (&[("cookie", "session=b; a=\"1\" SESSION=c")], AMBIGUOUS),
            (&[("cookie", "session=b; SESSION=c")], AMBIGUOUS),
            (&[("cookie", "session=b; a= session=c")], AMBIGUOUS),
            (&[("cookie", "session=b; session\x0b=c")], AMBIGUOUS),
            (&[("cookie", "session=b; a=x session\u{a0} =c")], AMBIGUOUS),
            (&[("cookie", "session=b, session=c")], AMBIGUOUS),
            (&[("cookie", "session=b session=c")], AMBIGUOUS),
            (&[("cookie", "session=b a=1, session=c")], AMBIGUOUS),
            (&[("cookie", "session=b; x session=c")], AMBIGUOUS),
            (&[("cookie", "session=b; x, session = c")], AMBIGUOUS),
            (&[("cookie", "session=b; \"session=c")], AMBIGUOUS),
            (&[("cookie", "session=b; %73ession=c")], AMBIGUOUS),
            (&[("cookie", "session=b; session[]=c")], AMBIGUOUS),
            (&[("cookie", "session=b; +session=c")], AMBIGUOUS),
            (&[("cookie", "session=b; session%00=c")], AMBIGUOUS),
            (&[("cookie", "a=1, session=b")], AMBIGUOUS),
            (&[("cookie", "session=b"), ("cookie", "a=1, session=c")], AMBIGUOUS),
            (&[("cookie", "session=b"), ("Cookie", "a=1 Session=c")], AMBIGUOUS),
            (&[("cookie", "$Version=1, session=b")], AMBIGUOUS),
            (&[("cookie", "$Version=1; session=b; $Path=/")], Ok("b")),
            // No parser starts a name within a word.
            (&[("cookie", "session=b; next=/x?session=c")], Ok("b")),
            (&[("cookie", "session=b; a=xsession=c; b=x.session=d")], Ok("b")),
            (&[("cookie", "session=b; a=1,xsession=c; sessions=1")], Ok("b")),
            (&[("cookie", "session=b==")], Ok("b==")),
            (&[("cookie", "a=session; session=b")], Ok("b")),
            (&[("cookie", "a=1, session; session=b")], Ok("b")),
            (&[("cookie", "xsession=b")], MISSING),
            (&[("cookie", "session=b; session=b")], AMBIGUOUS),
            (&[("cookie", "session=b"), ("cookie", "session=c")], AMBIGUOUS),
            (&[("cookie", "a=\"x; session=b; y\"; session=c")], AMBIGUOUS),
            (&[("cookie", "session=b"), ("authorization", "Bearer a")], AMBIGUOUS),
            (&[(":path", "/p?a=1&access_token=b")], Ok("b")),
            (&[(":path", "/p?access_token=b#access_token=c")], Ok("b#access_token=c")),
            (&[(":path", "/p/access_token=b?")], MISSING),
            (&[(":path", "/p?access_token")], MISSING),
            (&[(":path", "/p?access_token=")], MISSING),
            (&[(":path", "/p?xaccess_token=b&access_tokenx=b")], MISSING),
            (&[(":path", "/p?access_token=b%2e+")], Ok("b%2e+")),
            (&[(":path", "/p?access_token=b&access_token=b")], AMBIGUOUS),
            (&[(":path", "/p?access_token=b&%61ccess_token=b")], AMBIGUOUS),
            (&[(":path", "/p?access%5Ftoken=b")], AMBIGUOUS),
            (&[(":path", "/p?Access_Token=b")], AMBIGUOUS),
            (&[(":path", "/p?a=1;access_token=b")], AMBIGUOUS),
            (&[(":path", "/p?access_token=b;access_token=c")], AMBIGUOUS),
            (&[(":path", "/p?access_token[]=b")], AMBIGUOUS),
            (&[(":path", "/p?access_token=b&access.token=c")], AMBIGUOUS),
            (&[(":path", "/p?access.token=b")], AMBIGUOUS),
            (&[(":path", "/p?access%20token=b")], AMBIGUOUS),
            (&[(":path", "/p?access+token=b")], AMBIGUOUS),
            (&[(":path", "/p?access%5btoken=b")], AMBIGUOUS),
            (&[(":path", "/p?access[token]=b")], MISSING),
            (&[(":path", "/p?access-token=b")], MISSING),
            (&[(":path", "/p?++access_token=b")], AMBIGUOUS),
            (&[(":path", "/p?%20+access_token=b")], AMBIGUOUS),
            (&[(":path", "/p?access_token%00x=b")], AMBIGUOUS),
            (&[(":path", "/p?access_token+=b")], MISSING),
            (&[(":path", "/p?access_token=b"), ("cookie", "session=b")], AMBIGUOUS),
            (&[], MISSING),
        ];
        for (lines, expected) in cases {
            let sources = sources();
            let found = find(&sources, &headers(lines)).map(|found| found.credential);
            let found = found.map_err(|reason| match reason {
                Reason::CredentialAmbiguous(_) => Reason::CredentialAmbiguous(AmbiguousCredential::Several),
                other => other,
            });
            let found = found.as_ref().map(|credential| str::from_utf8(credential).unwrap());
            assert_eq!(found.map_err(|reason| *reason), *expected, "{lines:?}");
        }
    }

    #[test]
    fn ambiguous_credentials_have_a_reason() {
        use AmbiguousCredential::{Comma, Companion, Encoding, Several, SimilarName};
        let cases: &[(Lines, AmbiguousCredential)] = &[
            (&[("x-api-key", "a"), ("authorization", "Bearer b")], Several),
            (&[("cookie", "session=b; session=c")], Several),
            (&[("x_api_key", "a")], SimilarName),
            (&[(":path", "/p?Access_Token=b")], SimilarName),
            (&[(":path", "/p?a=1;access_token=b")], SimilarName),
            (&[("cookie", "a=1, session=b")], SimilarName),
            (&[("x-api-key", "a,b")], Comma),
            (&[("authorization", "Bearer a, Bearer b")], Comma),
            (&[("cookie", "session=a,b")], Comma),
            (&[(":path", "/p?access_token=a,b")], Comma),
        ];
        for (lines, expected) in cases {
            let refused = find(&sources(), &headers(lines)).map(|_| ());
            assert_eq!(refused, Err(Reason::CredentialAmbiguous(*expected)), "{lines:?}");
        }
        let companions = paired_header("x-username", &headers(&[("X_Username", "a")]));
        assert_eq!(companions, Err(Reason::CredentialAmbiguous(Companion)));
        let basic = parse_sources(r#"[{ "header": "authorization", "scheme": "Basic" }]"#);
        let refused = find(&basic, &headers(&[("authorization", "Basic a")])).map(|_| ());
        assert_eq!(refused, Err(Reason::CredentialAmbiguous(Encoding)));
    }

    /// Text around a credential, and the credential that is found in it.
    #[test]
    fn d3_d4_d5_a_credential_is_found_in_its_wrapping() {
        const SOURCES: &str = r#"[
            { "header": "authorization", "scheme": "Basic" },
            { "header": "x-username-of", "scheme": "basic", "encoding": "basic_username" },
            { "header": "x-password-of", "scheme": "Basic", "encoding": "basic_password" },
            { "header": "sec-websocket-protocol", "prefix": "app-token." },
            { "header": "sec-websocket-protocol", "prefix": "base64url.bearer.", "encoding": "base64url" },
            { "cookie": "session", "scheme": "Bearer" },
            { "cookie": "session", "prefix": "jwt:" },
            { "cookie": "plain" },
            { "query": "token", "prefix": "Bearer " }
        ]"#;
        type Case<'a> = (&'a [(&'a str, &'a str)], Result<&'a str, Reason>);
        const fn ambiguous<'a>(why: AmbiguousCredential) -> Result<&'a str, Reason> {
            Err(Reason::CredentialAmbiguous(why))
        }
        const MISSING: Result<&str, Reason> = Err(Reason::CredentialMissing);
        const SEVERAL: Result<&str, Reason> = ambiguous(AmbiguousCredential::Several);
        const SIMILAR: Result<&str, Reason> = ambiguous(AmbiguousCredential::SimilarName);
        const ENCODING: Result<&str, Reason> = ambiguous(AmbiguousCredential::Encoding);
        let protocols = "sec-websocket-protocol";
        let cases: &[Case<'_>] = &[
            // `key:`, `user:key`, `user:k:e:y`, `:key`, `:`, `key`
            (&[("authorization", "Basic a2V5Og==")], Ok("key")),
            (&[("authorization", "basic  dXNlcjprZXk= ")], Ok("key")),
            (&[("authorization", "Basic dXNlcjprOmU6eQ==")], Ok("k:e:y")),
            (&[("authorization", "Basic OmtleQ==")], Ok("key")),
            (&[("authorization", "Basic Og==")], MISSING),
            (&[("authorization", "Basic a2V5")], ENCODING),
            // No padding, another alphabet, stray bits, white space.
            (&[("authorization", "Basic a2V5Og")], ENCODING),
            (&[("authorization", "Basic a2V5Og=")], ENCODING),
            (&[("authorization", "Basic a2V5Oh==")], ENCODING),
            (&[("authorization", "Basic _2V5Og==")], ENCODING),
            (&[("authorization", "Basic a2V5 Og==")], ENCODING),
            (&[("authorization", "Basic")], MISSING),
            (&[("authorization", "Bearer key")], MISSING),
            (&[("authorization", "Basic a2V5Og==, Basic a2V5Og==")], ambiguous(AmbiguousCredential::Comma)),
            (&[("authorization", "Basic a2V5Og=="), ("authorization", "Basic a2V5Og==")], SEVERAL),
            (&[("x-username-of", "Basic a2V5Ong=")], Ok("key")),
            (&[("x-username-of", "Basic OmtleQ==")], MISSING),
            (&[("x-password-of", "Basic dXNlcjprZXk=")], Ok("key")),
            (&[("x-password-of", "Basic a2V5Og==")], MISSING),
            // A list of protocols, on one line or on several.
            (&[(protocols, "app-v1, app-token.a.b-c")], Ok("a.b-c")),
            (&[(protocols, "app-token.a,app-v1,\tapp-v2")], Ok("a")),
            (&[(protocols, "app-token.a")], Ok("a")),
            (&[(protocols, "app-v1"), (protocols, "app-token.a")], Ok("a")),
            (&[(protocols, "app-token.a"), (protocols, "app-v1, app-v2")], Ok("a")),
            (&[("Sec-WebSocket-Protocol", ",app-v1,, app-token.a,")], Ok("a")),
            (&[(protocols, "app-v1, app-v2")], MISSING),
            (&[(protocols, "App-Token.a, app-v1")], MISSING),
            (&[(protocols, "app-token., app-v1")], MISSING),
            (&[(protocols, "app-token.a, app-token.b")], SEVERAL),
            (&[(protocols, "app-token.a, app-token.a")], SEVERAL),
            (&[(protocols, "app-token., app-token.a")], SEVERAL),
            (&[(protocols, "app-token.a"), (protocols, "app-token.a")], SEVERAL),
            (&[(protocols, "base64url.bearer.a2V5, app-v1")], Ok("key")),
            (&[(protocols, "base64url.bearer.a2V5, app-token.a")], SEVERAL),
            (&[(protocols, "app-token.a"), (protocols, "app-v1, base64url.bearer.a2V5")], SEVERAL),
            (&[(protocols, "base64url.bearer.a2V5=, app-v1")], ENCODING),
            (&[(protocols, "base64url.bearer.a2V, app-v1")], ENCODING),
            (&[("sec_websocket_protocol", "app-v1, app-token.a")], SIMILAR),
            // Cookies.
            (&[("cookie", "session=Bearer a")], Ok("a")),
            (&[("cookie", "session=\"Bearer a\"; b=1")], Ok("a")),
            (&[("cookie", "session=Bearer%20a")], Ok("a")),
            (&[("cookie", "session=Bearer+a")], Ok("a")),
            (&[("cookie", "session=bearer%20%20a")], Ok("a")),
            (&[("cookie", "session=\"Bearer%20a\"")], Ok("a")),
            (&[("cookie", "session=%22Bearer%20a%22")], Ok("a")),
            (&[("cookie", "session=%42earer a")], Ok("a")),
            (&[("cookie", "session=jwt%3Aa")], Ok("a")),
            (&[("cookie", "session=jwt%3aa")], Ok("a")),
            (&[("cookie", "session=jwt:a")], Ok("a")),
            // White space around the prefix, in any spelling.
            (&[("cookie", "session=%20Bearer a")], Ok("a")),
            (&[("cookie", "session=+Bearer+%09a")], Ok("a")),
            (&[("cookie", "session=\u{a0}Bearer\u{a0}a")], Ok("a")),
            (&[("cookie", "session=%C2%A0Bearer%E3%80%80a")], Ok("a")),
            (&[("cookie", "session=\" %0bBearer a\"")], Ok("a")),
            (&[("cookie", "session=%20jwt:%20a")], Ok("a")),
            (&[("cookie", "session=%20BearerA a")], MISSING),
            (&[("cookie", "session=x Bearer a")], MISSING),
            (&[("cookie", "session=%20")], MISSING),
            (&[("cookie", "session=a; session=%20Bearer b")], SEVERAL),
            // Only the prefix is decoded.
            (&[("cookie", "session=Bearer %61")], Ok("%61")),
            (&[("cookie", "session=Bearer \"a\"")], Ok("\"a\"")),
            (&[("cookie", "session=\"Bearer a")], MISSING),
            (&[("cookie", "session=Bearer")], MISSING),
            (&[("cookie", "session=Bearera")], MISSING),
            (&[("cookie", "session=a")], MISSING),
            (&[("cookie", "session=JWT:a")], MISSING),
            // A value without the prefix is another cookie of the name for another parser.
            (&[("cookie", "session=a; session=Bearer b")], SEVERAL),
            (&[("cookie", "session=Bearer b; session=")], SEVERAL),
            (&[("cookie", "session=a"), ("cookie", "session=Bearer b")], SEVERAL),
            (&[("cookie", "session=Bearer b"), ("cookie", "x=1; session=a")], SEVERAL),
            (&[("cookie", "session=Bearer a; session=jwt:b")], SEVERAL),
            (&[("cookie", "session=\"a; session=Bearer b\"")], SEVERAL),
            (&[("cookie", "session=Bearer a; Session=Bearer b")], SIMILAR),
            (&[("cookie", "session=Bearer a; x=\"1\" session=b")], SIMILAR),
            (&[("cookie", "session=Bearer a session=b")], SIMILAR),
            (&[("cookie", "$Version=\"1\"; session=\"Bearer a\"; $Path=\"/\"")], Ok("a")),
            (&[("cookie", "$Version=\"1\", session=\"Bearer a\"")], SIMILAR),
            (&[("cookie", "session=Bearer a, b")], ambiguous(AmbiguousCredential::Comma)),
            (&[("cookie", "session=Bearer a; plain=b")], SEVERAL),
            (&[("cookie", "session=Bearer a"), ("authorization", "Basic a2V5Og==")], SEVERAL),
            // Query parameters.
            (&[(":path", "/p?token=Bearer%20a&x=1")], Ok("a")),
            (&[(":path", "/p?token=Bearer+a")], Ok("a")),
            (&[(":path", "/p?token=%20Bearer+a")], Ok("a")),
            (&[(":path", "/p?token=++Bearer%20%a0a")], Ok("a")),
            (&[(":path", "/p?token=bearer+a")], MISSING),
            (&[(":path", "/p?token=a")], MISSING),
            (&[(":path", "/p?token=a&token=Bearer+b")], SEVERAL),
            (&[(":path", "/p?token=Bearer+b&Token=Bearer+b")], SIMILAR),
        ];
        let sources = parse_sources(SOURCES);
        for (lines, expected) in cases {
            let lines: Vec<_> = lines.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
            let found = find(&sources, &lines).map(|found| found.credential);
            let found = found.as_ref().map(|credential| str::from_utf8(credential).unwrap());
            assert_eq!(found.map_err(|reason| *reason), *expected, "{lines:?}");
        }
        for (name, value, expected) in [
            (protocols, "app-v1, app-token.a", Some("app-v1")),
            (protocols, "app-token.a,app-v1,\tapp-v2", Some("app-v1, app-v2")),
            (protocols, "app-v1,app-v2", Some("app-v1,app-v2")),
            (protocols, "base64url.bearer.a, app-v1, app-token.b", Some("app-v1")),
            (protocols, "app-token.a", None),
            (protocols, ", app-token.a,", None),
            ("sec_websocket_protocol", "app-token.a", None),
            ("authorization", "Basic a2V5Og==", None),
            ("authorization", "Bearer a", Some("Bearer a")),
            ("cookie", "a=1; session=\"Bearer b\"; c=2", Some("a=1; c=2")),
            ("cookie", "a=1; session=Bearer%20b", Some("a=1")),
            ("cookie", "a=1; session=b", Some("a=1; session=b")),
            ("cookie", "a=1; Session=b", Some("a=1")),
            (":path", "/p?token=Bearer+b&a=1", Some("/p?a=1")),
            (":path", "/p?token=b&a=1", Some("/p?token=b&a=1")),
            (":path", "/p?token=+Bearer+b&a=1", Some("/p?a=1")),
            ("cookie", "a=1; session=%20Bearer b", Some("a=1")),
        ] {
            assert_eq!(stripped(&sources, name, value).as_deref(), expected, "{name}: {value}");
        }
    }

    fn stripped(sources: &[CredentialSource], name: &str, value: &str) -> Option<String> {
        match strip(sources, name, value.as_bytes()) {
            Stripped::Unchanged => Some(String::from(value)),
            Stripped::Changed(value) => Some(String::from_utf8(value.into_owned()).unwrap()),
            Stripped::Removed => None,
        }
    }

    #[test]
    fn the_first_matching_source_wins() {
        let sources: Vec<CredentialSource> = config::from_json(
            br#"[{ "header": "x", "scheme": "Bearer", "name": "first" }, { "header": "x", "name": "second" }]"#,
        )
        .unwrap();
        for (value, source, credential) in [("Bearer a", "first", "a"), ("b", "second", "b")] {
            let found = find(&sources, &[("x", value.as_bytes())]).unwrap();
            assert_eq!((found.source.name(), &*found.credential), (source, credential.as_bytes()));
        }
    }

    #[test]
    fn other_headers_contain_neither_cookies_nor_parameters() {
        for value in ["session=b", "a=1; Session=b", "/p?access_token=b", "/p?access.token=b"] {
            for name in ["other", "x-cookie", ":authority"] {
                assert_eq!(
                    find(&sources(), &[(name, value.as_bytes())]),
                    Err(Reason::CredentialMissing),
                    "{name}: {value}"
                );
                assert_eq!(strip(&sources(), name, value.as_bytes()), Stripped::Unchanged, "{name}: {value}");
            }
        }
    }

    #[test]
    fn a_cookie_name_after_an_equals_sign_is_a_value() {
        let header = b"session=b; a=session=c";
        let sources = sources();
        assert_eq!(*find(&sources, &[("cookie", header)]).unwrap().credential, *b"b");
        assert_eq!(strip(&sources, "cookie", header), Stripped::Changed(b"a=session=c"[..].into()));
    }

    #[test]
    fn similar_header_names_can_both_be_configured() {
        let sources: Vec<CredentialSource> =
            config::from_json(br#"[{ "header": "x-a" }, { "header": "x_a", "name": "second" }]"#).unwrap();
        let found = find(&sources, &[("x_a", b"b")]).unwrap();
        assert_eq!(found.source.name(), "second");
        assert_eq!(
            find(&sources, &[("x_a", b"b"), ("x-a", b"c")]),
            Err(Reason::CredentialAmbiguous(AmbiguousCredential::Several))
        );
    }

    #[test]
    fn strip_removes_only_the_credential() {
        for (name, value, expected) in [
            ("authorization", "Bearer a", None),
            ("authorization", "Basic a", Some("Basic a")),
            ("authorization", "Basic a, Bearer b", None),
            ("x-api-key", "a", None),
            ("x_api_key", "a", None),
            ("x-token", "t=a", None),
            ("x-token", "u=a", Some("u=a")),
            ("cookie", "session=b", None),
            ("cookie", "a=1; session=b;  c=\"2\" ;d", Some("a=1;  c=\"2\" ;d")),
            ("cookie", "session=b; a=1", Some("a=1")),
            ("cookie", "a=1; session=b", Some("a=1")),
            ("cookie", "a=1; session=b; session=c;", Some("a=1;")),
            // Text that only another parser takes for the cookie is removed too.
            ("cookie", "a=1; Session=b", Some("a=1")),
            ("cookie", "a=1; b=2, session=c; d=3", Some("a=1; d=3")),
            ("cookie", "a=1; next=/x?session=c", Some("a=1; next=/x?session=c")),
            (":path", "/p?access_token=b", Some("/p")),
            (":path", "/p?access_token=b&a=1", Some("/p?a=1")),
            (":path", "/p?a=%20+&access_token=b&&c", Some("/p?a=%20+&&c")),
            (":path", "/p?a=1&access_token=b", Some("/p?a=1")),
            (":path", "/p?a;%61ccess_token=b;c&Access_Token", Some("/p?a;c")),
            (":path", "/access_token=b?a=1", Some("/access_token=b?a=1")),
            ("other", "a", Some("a")),
        ] {
            assert_eq!(stripped(&sources(), name, value).as_deref(), expected, "{name}: {value}");
        }
    }

    #[test]
    fn invalid_sources_are_refused() {
        for bad in [
            "{}",
            r#"{ "header": "x", "cookie": "y" }"#,
            r#"{ "header": ":path" }"#,
            r#"{ "header": "cookie" }"#,
            r#"{ "header": "X" }"#,
            r#"{ "header": "x", "scheme": "" }"#,
            r#"{ "header": "x", "scheme": "a b" }"#,
            r#"{ "header": "x", "scheme": "a", "prefix": "b" }"#,
            r#"{ "header": "x", "prefix": "a,b" }"#,
            r#"{ "cookie": "a b" }"#,
            r#"{ "cookie": "a=b" }"#,
            r#"{ "cookie": "a", "scheme": "b c" }"#,
            r#"{ "header": "x", "encoding": "basic_username" }"#,
            r#"{ "header": "x", "encoding": "base64" }"#,
            r#"{ "header": "x", "scheme": "Basic", "encoding": "base64url" }"#,
            r#"{ "header": "x", "scheme": "Basic", "encoding": "user" }"#,
            r#"{ "query": "a&b" }"#,
            r#"{ "query": "a%b" }"#,
            r#"{ "query": "" }"#,
            r#"{ "query": "a", "pair": ":x" }"#,
        ] {
            assert!(config::from_json::<CredentialSource>(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
