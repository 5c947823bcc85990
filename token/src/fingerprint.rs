use alloc::string::String;
use core::{fmt, str::FromStr};

use sha2::{Digest, Sha256};

/// The SHA-256 of a credential exactly as presented, including its prefix. Its text is lower case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Returns the fingerprint of a credential as it was presented.
    pub fn digest(credential: &[u8]) -> Self {
        Self(Sha256::digest(credential).into())
    }

    /// Returns the bytes of the hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the first 64 bits, by which revocation lists are sorted.
    pub const fn prefix(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl From<[u8; 32]> for Fingerprint {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from(*self))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    fn from_str(text: &str) -> Result<Self, InvalidFingerprint> {
        let mut bytes = [0; 32];
        match base16ct::lower::decode(text, &mut bytes) {
            Ok(whole) if whole.len() == 32 => Ok(Self(bytes)),
            _ => Err(InvalidFingerprint),
        }
    }
}

impl From<Fingerprint> for String {
    fn from(Fingerprint(bytes): Fingerprint) -> Self {
        base16ct::lower::encode_string(&bytes)
    }
}

/// The error for a text that is not 64 lower case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidFingerprint;

impl fmt::Display for InvalidFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a fingerprint has 64 lower case hex digits (SHA-256 of the credential as presented)")
    }
}

impl core::error::Error for InvalidFingerprint {}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn digest_is_sha_256() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // FIPS 180-4, "abc"
        let fingerprint = Fingerprint::digest(b"abc");
        assert_eq!(fingerprint.to_string(), expected);
        assert_eq!(expected.parse(), Ok(fingerprint));
        assert_eq!(fingerprint.prefix(), 0xba78_16bf_8f01_cfea);
    }

    #[test]
    fn encoding_is_unique() {
        let hex = Fingerprint::digest(b"abc").to_string();
        for other in
            [hex.to_uppercase(), hex[1..].into(), std::format!("{hex}0"), hex.replace('b', "g"), "".into()]
        {
            assert_eq!(other.parse::<Fingerprint>(), Err(InvalidFingerprint), "{other}");
        }
    }
}
