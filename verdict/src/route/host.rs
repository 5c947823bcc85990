use alloc::{format, string::String};

use serde::Deserialize;

use super::Unroutable;

/// `api.example.com`, or `*.example.com` for every name below it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
#[serde(try_from = "String")]
pub(super) enum Host {
    Exact(String),
    /// With its dot.
    Below(String),
}

impl Host {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (name, below) = match text.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let address = name.starts_with('[') && named(name.as_bytes()) == Ok(name);
        let lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
        if !lower || !(is_name(name) || (address && !below)) {
            return Err("must be a host in lower case, without a port, or `*.` before one");
        }
        Ok(if below { Self::Below(format!(".{name}")) } else { Self::Exact(name.into()) })
    }

    pub(super) fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => name.eq_ignore_ascii_case(host),
            Self::Below(suffix) => host
                .len()
                .checked_sub(suffix.len())
                .filter(|before| *before > 0)
                .and_then(|before| host.get(before..))
                .is_some_and(|end| end.eq_ignore_ascii_case(suffix)),
        }
    }
}

impl TryFrom<String> for Host {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

/// The host in an authority (RFC 3986 section 3.2), its port left out. User information has no place in a request, and
/// a dot at the end is another spelling.
pub(super) fn named(authority: &[u8]) -> Result<&str, Unroutable> {
    let text = core::str::from_utf8(authority).map_err(|_| Unroutable::Host)?;
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']').and_then(|at| at.checked_add(2)).ok_or(Unroutable::Host)?;
            text.split_at_checked(end).ok_or(Unroutable::Host)?
        }
        None => text.split_at_checked(text.find(':').unwrap_or(text.len())).ok_or(Unroutable::Host)?,
    };
    let good_port = match port.strip_prefix(':') {
        Some(digits) => digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit()),
        None => port.is_empty(),
    };
    let inner = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let good_name = match inner {
        Some(address) => address.parse::<core::net::Ipv6Addr>().is_ok(),
        None => is_name(name),
    };
    if good_port && good_name { Ok(name) } else { Err(Unroutable::Host) }
}

fn is_name(name: &str) -> bool {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let label = |label: &str| !label.is_empty() && label.bytes().all(usual);
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_match_by_name() {
        for (pattern, authority, expected) in [
            ("api.example.com", "api.example.com", true),
            ("api.example.com", "API.Example.com:8443", true),
            ("api.example.com", "example.com", false),
            ("api.example.com", "xapi.example.com", false),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.EXAMPLE.com:1", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "aexample.com", false),
            ("10.0.0.1", "10.0.0.1:80", true),
            ("[::1]", "[::1]:80", true),
            ("localhost", "localhost", true),
        ] {
            let host = named(authority.as_bytes()).unwrap();
            assert_eq!(Host::parse(pattern).unwrap().matches(host), expected, "{pattern} {authority}");
        }
        for bad in [
            "", ".", "a.", ".a", "a..b", "a@b", "a:b", "a:123456", "a b", "[::1", "[x]", "a/b", "*.a",
            "\u{e9}",
        ] {
            assert_eq!(named(bad.as_bytes()), Err(Unroutable::Host), "{bad}");
        }
        for bad in ["", "*", "*.", "a.*", "*.*.a", "A", "a:80", "a.", "*.[::1]", "https://a"] {
            assert!(Host::parse(bad).is_err(), "{bad}");
        }
    }
}
