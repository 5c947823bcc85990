//! IP networks as conditions name them.

use core::net::IpAddr;

use ipnet::IpNet;

/// Parses `10.0.0.0/24`, `2001:db8::/32` or one address. Host bits may be set and mean nothing.
///
/// The address is parsed by the standard library, which takes no leading zeros, as `ipnet` does.
pub(super) fn parse(text: &str) -> Result<IpNet, &'static str> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(prefix_length(bits).ok_or(BAD_LENGTH)?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| "not an IP address")?;
    if address.to_canonical() != address {
        return Err("an IPv4 address is written as one");
    }
    let network = match bits {
        Some(bits) => IpNet::new(address, bits).map_err(|_| BAD_LENGTH)?,
        None => IpNet::from(address),
    };
    Ok(network.trunc())
}

/// Returns the network, or `None` if it has too many bits or any after the prefix.
pub(super) fn canonical(address: impl Into<IpAddr>, bits: u8) -> Option<IpNet> {
    IpNet::new(address.into(), bits).ok().filter(|network| network.trunc() == *network)
}

/// An IPv4 address is the same written as an IPv6 one.
pub(super) fn contains(network: IpNet, address: IpAddr) -> bool {
    network.contains(&address.to_canonical())
}

/// Digits without a sign or a leading zero.
fn prefix_length(text: &str) -> Option<u8> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = text == "0" || !text.starts_with('0');
    if digits && canonical { text.parse().ok() } else { None }
}

const BAD_LENGTH: &str = "not a length of a network";

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn networks_hold_their_addresses() {
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
    fn a_compiled_network_has_one_spelling() {
        assert!(canonical(Ipv4Addr::new(10, 0, 0, 0), 24).is_some());
        assert!(canonical(Ipv4Addr::UNSPECIFIED, 0).is_some());
        assert!(canonical(Ipv4Addr::new(10, 0, 0, 1), 24).is_none());
        assert!(canonical(Ipv4Addr::new(10, 0, 0, 0), 33).is_none());
        assert!(canonical(Ipv6Addr::LOCALHOST, 128).is_some());
        assert!(canonical(Ipv6Addr::LOCALHOST, 127).is_none());
        assert!(canonical(Ipv6Addr::LOCALHOST, 129).is_none());
    }
}
