//! Where the credential of a request is, and how to take it away.
//!
//! **There is one, or the request is refused.** Two credentials, one header twice, a list where one is expected: no
//! upstream can believe another than the one that was checked.
//!
//! | place | one credential | refused as ambiguous |
//! |---|---|---|
//! | header | `x-api-key: ks_live_...` | twice; a comma in it, as proxies join doubled headers; as `x_api_key` or `x.api.key` |
//! | header with a scheme | `Authorization: Bearer eyJ...` | the same; and the scheme in any part between commas |
//! | cookie | `session=eyJ...` | twice, in one header or several; after a comma, white space or a quote; its name in another case, in percent-encoding, or as PHP reads it |
//! | query parameter | `?access_token=eyJ...` | twice; after `;`; its name in percent-encoding, in another case, or as PHP reads it (`access.token`) |
//!
//! A value is taken as it is sent: what would need decoding (`%`, `+`, quotes) is no spelling of a credential.

mod cookie;
mod query;
mod source;

use alloc::{borrow::Cow, vec::Vec};

pub use source::CredentialSource;

use crate::{Headers, Reason};
use source::{Header, Place, Several};

/// The one credential of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found<'r, 's> {
    pub(crate) credential: &'r [u8],
    pub(crate) source: &'s CredentialSource,
}

/// None is different from a wrong one.
pub(crate) fn find<'r, 's>(
    sources: &'s [CredentialSource],
    headers: &Headers<'r>,
) -> Result<Found<'r, 's>, Reason> {
    let mut found = None;
    let mut take = |credential: &'r [u8], source: &'s CredentialSource| {
        let before = found.replace(Found { credential, source });
        before.map_or(Ok(()), |_| Err(Reason::CredentialAmbiguous))
    };
    for (name, value) in headers {
        // The first source in their order that this header fits: `Bearer` before the header as such.
        let in_header = |is: fn(&Header, &str) -> bool| {
            let found = sources.iter().find_map(|source| match &source.place {
                Place::Header(header) if is(header, name) => Some((header.credential(value)?, source)),
                _ => None,
            });
            found.filter(|(credential, _)| *credential != Ok(&[]))
        };
        let is_like = |source: &CredentialSource| matches!(&source.place, Place::Header(header) if header.is_like(name));
        if sources.iter().any(is_like) {
            if let Some((credential, source)) = in_header(Header::is) {
                take(credential.map_err(|Several| Reason::CredentialAmbiguous)?, source)?;
            } else if in_header(Header::is_like).is_some() {
                return Err(Reason::CredentialAmbiguous);
            }
        }
        for source in sources {
            match &source.place {
                Place::Cookie(cookie) if name.eq_ignore_ascii_case("cookie") => {
                    for (value, plain) in cookie::values(value, cookie) {
                        if !plain {
                            return Err(Reason::CredentialAmbiguous);
                        }
                        if !value.is_empty() {
                            take(one(value)?, source)?;
                        }
                    }
                }
                Place::Query(parameter) if *name == ":path" => {
                    for (value, plain) in query::values(value, parameter) {
                        if !plain {
                            return Err(Reason::CredentialAmbiguous);
                        }
                        if !value.is_empty() {
                            take(one(value)?, source)?;
                        }
                    }
                }
                _ => {}
            }
        }
    }
    found.ok_or(Reason::CredentialMissing)
}

/// No credential has a comma.
fn one(value: &[u8]) -> Result<&[u8], Reason> {
    if value.contains(&b',') { Err(Reason::CredentialAmbiguous) } else { Ok(value) }
}

/// The one value of a header that belongs to a credential; empty when it is not there.
pub(crate) fn companion<'r>(name: &str, headers: &Headers<'r>) -> Result<&'r [u8], Reason> {
    let mut values = headers.iter().filter(|(header, _)| is_like(header, name));
    match (values.next(), values.next()) {
        (None, _) => Ok(&[]),
        (Some((header, value)), None) if header.eq_ignore_ascii_case(name) => Ok(value),
        _ => Err(Reason::CredentialAmbiguous),
    }
}

/// What is left of a header when everything that could be a credential is taken out of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Left<'r> {
    All,
    Some(Cow<'r, [u8]>),
    Nothing,
}

pub(crate) fn strip<'r>(sources: &[CredentialSource], name: &str, value: &'r [u8]) -> Left<'r> {
    let mut left = Left::All;
    for source in sources {
        let here = match &left {
            Left::All => value,
            Left::Some(value) => value,
            Left::Nothing => return left,
        };
        let cut: Option<Vec<u8>> = match &source.place {
            Place::Header(header) if header.is_like(name) && header.holds(here) => {
                return Left::Nothing;
            }
            Place::Cookie(cookie) if name.eq_ignore_ascii_case("cookie") => cookie::cut(here, cookie),
            Place::Query(parameter) if name == ":path" => query::cut(here, parameter),
            _ => None,
        };
        if let Some(cut) = cut {
            // A cookie header may go; a request has a path.
            let gone = cut.is_empty() && name != ":path";
            left = if gone { Left::Nothing } else { Left::Some(Cow::Owned(cut)) };
        }
    }
    left
}

/// CGI and its heirs (RFC 3875 section 4.1.18) put `_` for `-`, some for every character that is no letter or digit:
/// to them `x.keystile.subject` is ours, so it is to us.
pub(crate) fn starts_like(name: &str, prefix: &str) -> bool {
    let fold = |byte: u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
    let start = name.as_bytes().get(..prefix.len());
    start
        .is_some_and(|start| start.iter().zip(prefix.as_bytes()).all(|(a, b)| a == b || fold(*a) == fold(*b)))
}

/// Header names are the same in small and capital letters. Most hosts write small ones, and comparing those as they are
/// takes a tenth.
pub(crate) fn is_same(name: &str, other: &str) -> bool {
    name == other || name.eq_ignore_ascii_case(other)
}

pub(crate) fn is_like(name: &str, other: &str) -> bool {
    name.len() == other.len() && starts_like(name, other)
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
    fn one_credential_is_found_where_it_may_be() {
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
            // No reader begins a name within a word.
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
    fn the_first_source_that_fits_is_the_one() {
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
    fn names_that_are_alike_may_both_be_configured() {
        let sources: Vec<CredentialSource> =
            config::from_json(br#"[{ "header": "x-a" }, { "header": "x_a", "name": "second" }]"#).unwrap();
        let found = find(&sources, &[("x_a", b"b")]).unwrap();
        assert_eq!(found.source.name(), "second");
        assert_eq!(find(&sources, &[("x_a", b"b"), ("x-a", b"c")]), Err(Reason::CredentialAmbiguous));
    }

    #[test]
    fn what_is_stripped_is_the_credential_and_nothing_else() {
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
            // What only another reader takes for it goes as well.
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
            let left = match strip(&sources(), name, value.as_bytes()) {
                Left::All => Some(String::from(value)),
                Left::Some(value) => Some(String::from_utf8(value.into_owned()).unwrap()),
                Left::Nothing => None,
            };
            assert_eq!(left.as_deref(), expected, "{name}: {value}");
        }
    }

    #[test]
    fn a_source_is_one_place() {
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
