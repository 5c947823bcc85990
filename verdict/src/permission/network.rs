use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP network; the bits after the prefix are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    V4(u32, u8),
    V6(u128, u8),
}

impl Network {
    /// `10.0.0.0/24`, `2001:db8::/32` or one address. Host bits may be set and mean nothing.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(prefix_length(bits).ok_or(BAD_LENGTH)?)),
            None => (text, None),
        };
        match address.parse::<IpAddr>().map_err(|_| "not an IP address")? {
            IpAddr::V4(address) => {
                let bits = bits.unwrap_or(32);
                let mask = mask_v4(bits).ok_or(BAD_LENGTH)?;
                Ok(Self::V4(address.to_bits() & mask, bits))
            }
            IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
                Err("an IPv4 address is written as one")
            }
            IpAddr::V6(address) => {
                let bits = bits.unwrap_or(128);
                let mask = mask_v6(bits).ok_or(BAD_LENGTH)?;
                Ok(Self::V6(address.to_bits() & mask, bits))
            }
        }
    }

    pub(super) fn v4(address: u32, bits: u8) -> Option<Self> {
        (address & !mask_v4(bits)? == 0).then_some(Self::V4(address, bits))
    }

    pub(super) fn v6(address: u128, bits: u8) -> Option<Self> {
        (address & !mask_v6(bits)? == 0).then_some(Self::V6(address, bits))
    }

    pub(crate) fn contains(self, address: IpAddr) -> bool {
        match (self, address.to_canonical()) {
            (Self::V4(network, bits), IpAddr::V4(address)) => within_v4(network, bits, address),
            (Self::V6(network, bits), IpAddr::V6(address)) => within_v6(network, bits, address),
            _ => false,
        }
    }
}

fn within_v4(network: u32, bits: u8, address: Ipv4Addr) -> bool {
    mask_v4(bits).is_some_and(|mask| address.to_bits() & mask == network)
}

fn within_v6(network: u128, bits: u8, address: Ipv6Addr) -> bool {
    mask_v6(bits).is_some_and(|mask| address.to_bits() & mask == network)
}

/// None when there are not so many bits.
fn mask_v4(bits: u8) -> Option<u32> {
    let host = 32u32.checked_sub(bits.into())?;
    Some(u32::MAX.checked_shl(host).unwrap_or(0))
}

fn mask_v6(bits: u8) -> Option<u128> {
    let host = 128u32.checked_sub(bits.into())?;
    Some(u128::MAX.checked_shl(host).unwrap_or(0))
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
            let parsed = Network::parse(network).unwrap();
            assert!(parsed.contains(inside.parse().unwrap()), "{network} {inside}");
            assert!(!parsed.contains(outside.parse().unwrap()), "{network} {outside}");
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
            assert!(Network::parse(bad).is_err(), "{bad}");
        }
    }
}
