use alloc::{collections::VecDeque, string::String};
use core::net::IpAddr;

use serde::Deserialize;

use crate::{config::bounded_usize, policy::header_name};

/// A header in which trusted proxies say whom a request came from; without one it is as the host sees it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ClientAddress {
    /// Such as `x-forwarded-for`: addresses separated by commas, each proxy adding at the end.
    #[serde(deserialize_with = "header_name")]
    #[cfg_attr(feature = "schema", schemars(extend("pattern" = "^[a-z0-9_-]+$")))]
    header: String,
    /// How many proxies in front of this edge are trusted. The address that the outermost of them added is believed;
    /// what stands before it, anybody may have written.
    #[serde(default = "default_trusted_hops", deserialize_with = "bounded_usize::<1, MAX_HOPS, _>")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = MAX_HOPS)))]
    trusted_hops: usize,
}

impl ClientAddress {
    /// None when it is not there or is no address: that is never any address.
    pub(crate) fn find<'r>(&self, headers: impl Iterator<Item = (&'r str, &'r [u8])>) -> Option<IpAddr> {
        let values = headers.filter(|(name, _)| self.header.eq_ignore_ascii_case(name));
        // Several lines are one list (RFC 9110 section 5.3); only its end matters, so the last ones are kept.
        let mut entries: VecDeque<&[u8]> = VecDeque::new();
        for entry in values.flat_map(|(_, value)| value.split(|byte| *byte == b',')) {
            entries.push_back(entry);
            if entries.len() > self.trusted_hops {
                entries.pop_front();
            }
        }
        let enough = entries.len() == self.trusted_hops;
        let entry = entries.front().filter(|_| enough)?;
        core::str::from_utf8(entry.trim_ascii()).ok()?.parse().ok()
    }
}

const fn default_trusted_hops() -> usize {
    1
}

/// A longer chain of proxies is a mistake.
const MAX_HOPS: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_trusted_proxy_added_is_believed() {
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
            assert_eq!(source.find(headers), expected.map(|text| text.parse().unwrap()), "{lines:?}");
        }
    }
}
