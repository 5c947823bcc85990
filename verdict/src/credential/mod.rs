//! Finds the credential of a request and removes it.
//!
//! **A request with more than one credential is refused.** Two credentials, a repeated header, or a list where one
//! value is expected could let an upstream use a different credential from the one that was checked.
//!
//! | place | one credential | refused as ambiguous |
//! |---|---|---|
//! | header | `x-api-key: ks_live_...` | twice; a comma in it, as proxies join doubled headers; as `x_api_key` or `x.api.key` |
//! | header with a scheme | `Authorization: Bearer eyJ...` | the same; and the scheme in any part between commas |
//! | cookie | `session=eyJ...` | twice, in one header or several; after a comma, white space or a quote; its name in another case, in percent-encoding, or as PHP reads it |
//! | query parameter | `?access_token=eyJ...` | twice; after `;`; its name in percent-encoding, in another case, or as PHP reads it (`access.token`) |
//!
//! A value is used as it was sent. A value that would have to be decoded (`%`, `+`, quotes) is not a valid credential.

mod cookie;
mod query;
mod source;

use alloc::{borrow::Cow, vec::Vec};

pub use source::CredentialSource;

use crate::{Headers, Reason};
use source::{CredentialLocation, Header, MultipleCredentials};

/// The only credential of a request, with its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PresentedCredential<'r, 's> {
    pub(crate) credential: &'r [u8],
    pub(crate) source: &'s CredentialSource,
}

/// Finds the credential. No credential and an ambiguous one are different errors.
pub(crate) fn find<'r, 's>(
    sources: &'s [CredentialSource],
    headers: &Headers<'r>,
) -> Result<PresentedCredential<'r, 's>, Reason> {
    let mut found = None;
    let mut take = |credential: &'r [u8], source: &'s CredentialSource| {
        let before = found.replace(PresentedCredential { credential, source });
        before.map_or(Ok(()), |_| Err(Reason::CredentialAmbiguous))
    };
    for (name, value) in headers {
        // The first matching source wins: `Bearer` comes before the whole header.
        let in_header = |is: fn(&Header, &str) -> bool| {
            let found = sources.iter().find_map(|source| match &source.location {
                CredentialLocation::Header(header) if is(header, name) => {
                    Some((header.credential(value)?, source))
                }
                _ => None,
            });
            found.filter(|(credential, _)| *credential != Ok(&[]))
        };
        let resembles = |source: &CredentialSource| matches!(&source.location, CredentialLocation::Header(header) if header.name_resembles(name));
        if sources.iter().any(resembles) {
            if let Some((credential, source)) = in_header(Header::name_equals) {
                take(credential.map_err(|MultipleCredentials| Reason::CredentialAmbiguous)?, source)?;
            } else if in_header(Header::name_resembles).is_some() {
                return Err(Reason::CredentialAmbiguous);
            }
        }
        for source in sources {
            match &source.location {
                CredentialLocation::Cookie(cookie) if name.eq_ignore_ascii_case("cookie") => {
                    for value in cookie::values(value, cookie) {
                        let value = value.map_err(|MultipleCredentials| Reason::CredentialAmbiguous)?;
                        if !value.is_empty() {
                            take(single_value(value)?, source)?;
                        }
                    }
                }
                CredentialLocation::Query(parameter) if *name == ":path" => {
                    for value in query::values(value, parameter) {
                        let value = value.map_err(|MultipleCredentials| Reason::CredentialAmbiguous)?;
                        if !value.is_empty() {
                            take(single_value(value)?, source)?;
                        }
                    }
                }
                _ => {}
            }
        }
    }
    found.ok_or(Reason::CredentialMissing)
}

/// Returns the value unless it has a comma, which no credential contains.
fn single_value(value: &[u8]) -> Result<&[u8], Reason> {
    if value.contains(&b',') { Err(Reason::CredentialAmbiguous) } else { Ok(value) }
}

/// Returns the only value of a header that accompanies a credential, or an empty value without it.
pub(crate) fn paired_header<'r>(name: &str, headers: &Headers<'r>) -> Result<&'r [u8], Reason> {
    let mut values = headers.iter().filter(|(header, _)| eq_normalized(header, name));
    match (values.next(), values.next()) {
        (None, _) => Ok(&[]),
        (Some((header, value)), None) if header.eq_ignore_ascii_case(name) => Ok(value),
        _ => Err(Reason::CredentialAmbiguous),
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
        let remaining: Option<Vec<u8>> = match &source.location {
            CredentialLocation::Header(header)
                if header.name_resembles(name) && header.contains_credential(current) =>
            {
                return Stripped::Removed;
            }
            CredentialLocation::Cookie(cookie) if name.eq_ignore_ascii_case("cookie") => {
                cookie::without(current, cookie)
            }
            CredentialLocation::Query(parameter) if name == ":path" => query::without(current, parameter),
            _ => None,
        };
        if let Some(remaining) = remaining {
            // A cookie header can be removed. The path cannot.
            let is_removed = remaining.is_empty() && name != ":path";
            stripped = if is_removed { Stripped::Removed } else { Stripped::Changed(Cow::Owned(remaining)) };
        }
    }
    stripped
}

/// Returns whether a header name starts with `prefix` after normalization. CGI (RFC 3875 section 4.1.18) and similar
/// interfaces map `-`, or every character that is not a letter or digit, to `_`, so `x.keystile.subject` counts as an
/// identity header.
pub(crate) fn name_has_prefix(name: &str, prefix: &str) -> bool {
    let fold = |byte: u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
    let start = name.as_bytes().get(..prefix.len());
    start
        .is_some_and(|start| start.iter().zip(prefix.as_bytes()).all(|(a, b)| a == b || fold(*a) == fold(*b)))
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
        config::from_json(SOURCES.as_bytes()).unwrap()
    }

    type Lines = &'static [(&'static str, &'static str)];

    fn headers(lines: Lines) -> Vec<(&'static str, &'static [u8])> {
        lines.iter().map(|(name, value)| (*name, value.as_bytes())).collect()
    }

    #[test]
    fn find_returns_the_only_credential() {
        const MISSING: Result<&str, Reason> = Err(Reason::CredentialMissing);
        const AMBIGUOUS: Result<&str, Reason> = Err(Reason::CredentialAmbiguous);
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
            (&[("cookie", "session=\"b\"")], Ok("\"b\"")),
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
            let expected = expected.map(str::as_bytes);
            let sources = sources();
            let found = find(&sources, &headers(lines)).map(|found| found.credential);
            assert_eq!(found, expected, "{lines:?}");
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
            assert_eq!((found.source.name(), found.credential), (source, credential.as_bytes()));
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
        assert_eq!(find(&sources, &[("cookie", header)]).unwrap().credential, b"b");
        assert_eq!(strip(&sources, "cookie", header), Stripped::Changed(b"a=session=c"[..].into()));
    }

    #[test]
    fn similar_header_names_can_both_be_configured() {
        let sources: Vec<CredentialSource> =
            config::from_json(br#"[{ "header": "x-a" }, { "header": "x_a", "name": "second" }]"#).unwrap();
        let found = find(&sources, &[("x_a", b"b")]).unwrap();
        assert_eq!(found.source.name(), "second");
        assert_eq!(find(&sources, &[("x_a", b"b"), ("x-a", b"c")]), Err(Reason::CredentialAmbiguous));
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
            let stripped = match strip(&sources(), name, value.as_bytes()) {
                Stripped::Unchanged => Some(String::from(value)),
                Stripped::Changed(value) => Some(String::from_utf8(value.into_owned()).unwrap()),
                Stripped::Removed => None,
            };
            assert_eq!(stripped.as_deref(), expected, "{name}: {value}");
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
            r#"{ "cookie": "a", "scheme": "b" }"#,
            r#"{ "query": "a&b" }"#,
            r#"{ "query": "a%b" }"#,
            r#"{ "query": "" }"#,
            r#"{ "query": "a", "pair": ":x" }"#,
        ] {
            assert!(config::from_json::<CredentialSource>(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
