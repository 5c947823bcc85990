//! Secrets of people and programs: shown once as a [`Secret`], stored as a [`SecretHash`].
//!
//! ```text
//! secret-4fPq...43 characters base62...xY2k1Zq8
//! |       |                            |
//! prefix  256 random bits              CRC-32 of all before, 6 characters base62
//! ```
//! The checksum lets scanners and clients detect a mistyped or foreign string locally.

use alloc::string::String;
use core::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A secret text. `Debug` does not print it, and its memory is zeroed on drop.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Returns the text. It must never be logged.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the hash to store.
    pub fn hash(&self) -> SecretHash {
        SecretHash::digest(self.expose())
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The stored hash of a secret. A single SHA-256 suffices, because the secret has 256 random bits.
#[derive(Clone, Copy)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// Hashes a presented text.
    pub fn digest(presented: &str) -> Self {
        Self(Sha256::digest(presented.as_bytes()).into())
    }

    /// Creates a hash from stored bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the SHA-256 to store.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns whether the presented text has this hash. Compares in constant time.
    pub fn matches(&self, presented: &str) -> bool {
        self.0.ct_eq(&Self::digest(presented).0).into()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

/// Returns whether both byte strings are equal. Compares in constant time.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// Why a text is not a secret of this deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidSecret {
    /// The text does not have the prefix of this kind of secret.
    Prefix,
    /// The text does not have the length of this kind of secret.
    Length,
    /// The text has a character outside `0-9 A-Z a-z`.
    Alphabet,
    /// The checksum (CRC-32) does not match.
    Checksum,
}

impl fmt::Display for InvalidSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prefix => "the secret has an unknown prefix",
            Self::Length => "the secret has a wrong length",
            Self::Alphabet => "the secret has a character outside 0-9 A-Z a-z",
            Self::Checksum => "the checksum of the secret is wrong: it was mistyped or truncated",
        })
    }
}

impl core::error::Error for InvalidSecret {}

#[cfg(feature = "mint")]
pub use generated::{check_format, generate};

#[cfg(feature = "mint")]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "does not run in the proxy; lengths are bounded by constants"
)]
mod generated {
    use super::{InvalidSecret, Secret, String, Zeroizing};
    use crate::{base62, crc32::crc32};

    /// Number of digits of the body: 62^43 > 2^256.
    const BODY_LEN: usize = 43;

    /// Number of digits of the checksum: 62^6 > 2^32.
    const CHECKSUM_LEN: usize = 6;

    /// Encodes 256 random bits as a secret.
    pub fn generate(prefix: &str, random: &[u8; 32]) -> Secret {
        let mut text = Zeroizing::new(String::with_capacity(prefix.len() + BODY_LEN + CHECKSUM_LEN));
        text.push_str(prefix);
        let mut body = Zeroizing::new([0; BODY_LEN]);
        base62::encode(*random, &mut body[..]);
        text.extend(body.iter().map(|digit| char::from(*digit)));
        let mut checksum = [0; CHECKSUM_LEN];
        base62::encode(crc32(text.as_bytes()).to_be_bytes(), &mut checksum);
        text.extend(checksum.map(char::from));
        Secret(text)
    }

    /// Checks the encoding of a secret. It does not prove that the secret was issued.
    ///
    /// # Errors
    ///
    /// Returns the first error that is found.
    pub fn check_format(prefix: &str, text: &str) -> Result<(), InvalidSecret> {
        let body = text.strip_prefix(prefix).ok_or(InvalidSecret::Prefix)?;
        if body.len() != BODY_LEN + CHECKSUM_LEN {
            return Err(InvalidSecret::Length);
        }
        if !body.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(InvalidSecret::Alphabet);
        }
        let (before, sum) = text.split_at_checked(text.len() - CHECKSUM_LEN).ok_or(InvalidSecret::Length)?;
        let expected = crc32(before.as_bytes()).to_be_bytes();
        if base62::decode(sum.as_bytes()) == Ok(expected) { Ok(()) } else { Err(InvalidSecret::Checksum) }
    }
}

#[cfg(all(test, feature = "mint"))]
mod tests {
    use proptest::prelude::*;
    use std::{format, string::ToString};

    use super::*;

    proptest! {
        #[test]
        fn check_format_accepts_generated_secrets_only(random: [u8; 32], at in 0..56_usize, with in "[0-9A-Za-z]") {
            let secret = generate("secret-", &random);
            prop_assert_eq!(check_format("secret-", secret.expose()), Ok(()));
            prop_assert!(secret.hash().matches(secret.expose()));
            let mut other = secret.expose().to_string();
            other.replace_range(at..=at, &with);
            if other != secret.expose() {
                prop_assert!(check_format("secret-", &other).is_err());
                prop_assert!(!secret.hash().matches(&other));
            }
        }
    }

    #[test]
    fn check_format_returns_the_first_error() {
        let secret = generate("secret-", &[7; 32]);
        let text = secret.expose();
        assert_eq!(check_format("ks_edge_", text), Err(InvalidSecret::Prefix));
        assert_eq!(check_format("secret-", &text[..text.len() - 1]), Err(InvalidSecret::Length));
        assert_eq!(check_format("secret-", &text.replacen('-', "--", 1)), Err(InvalidSecret::Length));
        assert_eq!(check_format("secret-", &format!("secret-_{}", &text[8..])), Err(InvalidSecret::Alphabet));
        assert_eq!(
            check_format("secret-", &format!("secret-{}", "0".repeat(49))),
            Err(InvalidSecret::Checksum)
        );
    }

    #[test]
    fn debug_does_not_print_secrets() {
        let secret = generate("secret-", &[7; 32]);
        assert_eq!(format!("{secret:?} {:?}", secret.hash()), "Secret(..) SecretHash(..)");
    }
}
