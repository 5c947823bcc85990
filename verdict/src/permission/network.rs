//! IP networks in conditions.

use core::net::IpAddr;

use ipnet::IpNet;

/// The error for a malformed or excessive prefix length.
const INVALID_PREFIX_LENGTH: &str = "not a valid prefix length";

/// Parses a network such as `10.0.0.0/24` or `2001:db8::/32`, or one address. Host bits are ignored.
///
/// Addresses with leading zeros are refused, by the standard library as by `ipnet`.
pub(super) fn parse(text: &str) -> Result<IpNet, &'static str> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(prefix_length(bits).ok_or(INVALID_PREFIX_LENGTH)?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| "not an IP address")?;
    if address.to_canonical() != address {
        return Err("an IPv4-mapped address: write it as an IPv4 address");
    }
    let network = match bits {
        Some(bits) => IpNet::new(address, bits).map_err(|_| INVALID_PREFIX_LENGTH)?,
        None => IpNet::from(address),
    };
    Ok(network.trunc())
}

/// Returns the network, or `None` if the prefix is too long or host bits are set.
pub(super) fn canonical(address: impl Into<IpAddr>, bits: u8) -> Option<IpNet> {
    IpNet::new(address.into(), bits).ok().filter(|network| network.trunc() == *network)
}

/// Returns whether the network contains the address. An IPv4-mapped IPv6 address counts as its IPv4 address.
pub(super) fn contains(network: IpNet, address: IpAddr) -> bool {
    network.contains(&address.to_canonical())
}

/// Parses decimal digits without a sign or leading zeros.
fn prefix_length(text: &str) -> Option<u8> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = text == "0" || !text.starts_with('0');
    if digits && canonical { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        for (network, inside, outside) in [
            ("10.0.0.0/24", "10.0.0.255", "10.0.1.0"),
            ("10.0.0.1/24", "10.0.0.0", "10.0.1.1"),
            ("10.0.0.1/24", "::ffff:10.0.0.9", "::ffff:10.0.1.9"),
            ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("2001:db8::/33", "2001:db8:7fff::", "2001:db8:8000::"),
            ("::1/128", "::1", "::2"),
        ] {
            let parsed = parse(network).unwrap();
            assert!(contains(parsed, inside.parse().unwrap()), "{network} {inside}");
            assert!(!contains(parsed, outside.parse().unwrap()), "{network} {outside}");
        }
        for bad in [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/024",
            "10.0.0.0/+8",
            "10.0.0.0/24/8",
            "010.0.0.0/8",
            "10.0.0/8",
            "10.0.0.0 /8",
            "::/129",
            "[::1]",
            "::ffff:10.0.0.0/104",
            "fe80::1%eth0",
            "localhost",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn compiled_networks_are_canonical() {
        assert!(canonical(Ipv4Addr::new(10, 0, 0, 0), 24).is_some());
        assert!(canonical(Ipv4Addr::UNSPECIFIED, 0).is_some());
        assert!(canonical(Ipv4Addr::new(10, 0, 0, 1), 24).is_none());
        assert!(canonical(Ipv4Addr::new(10, 0, 0, 0), 33).is_none());
        assert!(canonical(Ipv6Addr::LOCALHOST, 128).is_some());
        assert!(canonical(Ipv6Addr::LOCALHOST, 127).is_none());
        assert!(canonical(Ipv6Addr::LOCALHOST, 129).is_none());
    }
}
