//! The address of the client.

use alloc::{collections::VecDeque, string::String};
use core::net::IpAddr;

use serde::Deserialize;

use crate::config::{bounded_usize, policy::header_name};

/// The default of `trusted_hops`.
const DEFAULT_TRUSTED_HOPS: usize = 1;

/// The maximum of `trusted_hops`. Longer proxy chains are assumed to be a mistake.
const MAX_TRUSTED_HOPS: u64 = 16;

/// The header in which trusted proxies report the client address. Without it the address of the peer is used.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ClientAddress {
    /// The header name, such as `x-forwarded-for`: addresses separated by commas, to which each proxy appends one.
    #[serde(deserialize_with = "header_name")]
    #[cfg_attr(feature = "schema", schemars(extend("pattern" = "^[a-z0-9_-]+$")))]
    header: String,
    /// The number of trusted entries at the end of the list. The first of them is used, because the client can forge those
    /// before it. Each trusted proxy appends one. Envoy with `use_remote_address: true` appends one itself, so that the
    /// number is one more than that of the proxies in front of it.
    #[serde(default = "default_trusted_hops", deserialize_with = "bounded_usize::<1, MAX_TRUSTED_HOPS, _>")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = MAX_TRUSTED_HOPS)))]
    trusted_hops: usize,
}

impl ClientAddress {
    /// Returns the client address, or `None` if it is missing or not an IP address.
    pub(crate) fn resolve<'r>(&self, headers: impl Iterator<Item = (&'r str, &'r [u8])>) -> Option<IpAddr> {
        let values = headers.filter(|(name, _)| self.header.eq_ignore_ascii_case(name));
        // Several lines form one list (RFC 9110 section 5.3). Only the last `trusted_hops` entries are needed.
        let mut entries: VecDeque<&[u8]> = VecDeque::new();
        for entry in values.flat_map(|(_, value)| value.split(|byte| *byte == b',')) {
            entries.push_back(entry);
            if entries.len() > self.trusted_hops {
                entries.pop_front();
            }
        }
        let is_complete = entries.len() == self.trusted_hops;
        let entry = entries.front().filter(|_| is_complete)?;
        core::str::from_utf8(entry.trim_ascii()).ok()?.parse().ok()
    }
}

const fn default_trusted_hops() -> usize {
    DEFAULT_TRUSTED_HOPS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_comes_from_the_trusted_hop() {
        type Lines = &'static [&'static [u8]];
        let cases: [(usize, Lines, Option<&str>); 14] = [
            (1, &[b"1.1.1.1"], Some("1.1.1.1")),
            (1, &[b"9.9.9.9, 1.1.1.1"], Some("1.1.1.1")),
            (2, &[b"9.9.9.9, 1.1.1.1 ,2.2.2.2"], Some("1.1.1.1")),
            (2, &[b"9.9.9.9, 1.1.1.1", b"2.2.2.2"], Some("1.1.1.1")),
            (2, &[b"9.9.9.9", b"1.1.1.1,2.2.2.2"], Some("1.1.1.1")),
            (1, &[b"2001:db8::1"], Some("2001:db8::1")),
            (2, &[b"1.1.1.1"], None),
            (1, &[], None),
            (1, &[b""], None),
            (1, &[b"1.1.1.1,"], None),
            (1, &[b"unknown"], None),
            (1, &[b"1.1.1.1:80"], None),
            (1, &[b"[::1]"], None),
            (1, &[b"\xff"], None),
        ];
        for (trusted_hops, lines, expected) in cases {
            let source = ClientAddress { header: "x-forwarded-for".into(), trusted_hops };
            let headers = lines.iter().map(|line| ("X-Forwarded-For", *line));
            assert_eq!(source.resolve(headers), expected.map(|text| text.parse().unwrap()), "{lines:?}");
        }
    }
}
