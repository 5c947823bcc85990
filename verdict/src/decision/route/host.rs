//! Host patterns of rules.

use alloc::{format, string::String};

use serde::Deserialize;

use super::AmbiguousRequest;

/// A host name, or `*.` before one for all names below it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
#[serde(try_from = "String")]
pub(super) enum Host {
    Exact(String),
    /// The suffix, with its leading dot.
    Below(String),
}

impl Host {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (name, below) = match text.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let address = name.starts_with('[') && host_of_authority(name.as_bytes()) == Ok(name);
        let lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
        if !lower || !(is_name(name) || (address && !below)) {
            return Err(
                "must be a host name in lower case without a port or a trailing dot, or `*.` before one; leave `hosts` out for \
                 any host",
            );
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

/// Returns the host of an authority without its port (RFC 3986 section 3.2). A trailing dot, which marks a complete name
/// (RFC 1034 section 3.1), is removed. User information is refused.
pub(super) fn host_of_authority(authority: &[u8]) -> Result<&str, AmbiguousRequest> {
    let text = core::str::from_utf8(authority).map_err(|_| AmbiguousRequest::Host)?;
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']').and_then(|at| at.checked_add(2)).ok_or(AmbiguousRequest::Host)?;
            text.split_at_checked(end).ok_or(AmbiguousRequest::Host)?
        }
        None => text.split_at_checked(text.find(':').unwrap_or(text.len())).ok_or(AmbiguousRequest::Host)?,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_valid_port = match port.strip_prefix(':') {
        Some(digits) => digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit()),
        None => port.is_empty(),
    };
    let inner = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_valid_name = match inner {
        Some(address) => address.parse::<core::net::Ipv6Addr>().is_ok(),
        None => is_name(name),
    };
    if is_valid_port && is_valid_name { Ok(name) } else { Err(AmbiguousRequest::Host) }
}

fn is_name(name: &str) -> bool {
    let is_permitted = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let label = |label: &str| !label.is_empty() && label.bytes().all(is_permitted);
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e7_hosts_match_ignoring_case_port_and_trailing_dot() {
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
            ("svc.ns.svc.cluster.local", "svc.ns.svc.cluster.local.", true),
            ("svc.ns.svc.cluster.local", "SVC.ns.svc.cluster.local.:8080", true),
            ("*.example.com", "a.example.com.", true),
            ("*.example.com", "example.com.", false),
            ("10.0.0.1", "10.0.0.1.", true),
        ] {
            let host = host_of_authority(authority.as_bytes()).unwrap();
            assert_eq!(Host::parse(pattern).unwrap().matches(host), expected, "{pattern} {authority}");
        }
        for bad in [
            "", ".", "..", "a..", ".a", "a..b", "[::1].", "a.:x", "a@b", "a:b", "a:123456", "a b", "[::1",
            "[x]", "a/b", "*.a", "\u{e9}",
        ] {
            assert_eq!(host_of_authority(bad.as_bytes()), Err(AmbiguousRequest::Host), "{bad}");
        }
        for bad in ["", "*", "*.", "a.*", "*.*.a", "A", "a:80", "a.", "*.[::1]", "https://a"] {
            assert!(Host::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_below_a_domain_has_a_label_of_its_own() {
        let below = Host::parse("*.example.com").unwrap();
        assert!(below.matches("a.example.com"));
        assert!(!below.matches(".example.com"));
    }
}
