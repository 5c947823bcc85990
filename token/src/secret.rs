//! Secrets that people and programs hold: shown once as a [`Secret`], kept as a [`SecretHash`].
//!
//! ```text
//! secret-4fPq...43 characters base62...xY2k1Zq8
//! |       |                            |
//! prefix  256 random bits              CRC-32 of all before, 6 characters base62
//! ```
//! The checksum lets scanners and clients tell a mistyped or foreign string without asking anybody.

use alloc::string::String;
use core::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A text that is shown once and never printed by `Debug`; its memory is wiped when it goes.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Returns the text, to be shown or sent, and never logged.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns what is kept of it.
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(self.expose())
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

/// What is kept of a secret. One SHA-256 is enough: the secret has 256 random bits, so there is nothing to guess.
#[derive(Clone, Copy)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// Returns the hash of a text that somebody presents.
    pub fn of(presented: &str) -> Self {
        Self(Sha256::digest(presented.as_bytes()).into())
    }

    /// Returns the hash that a store kept.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the SHA-256, for a store to keep.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Takes the same time wherever the two differ.
    pub fn matches(&self, presented: &str) -> bool {
        self.0.ct_eq(&Self::of(presented).0).into()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

/// Whether both are the same; takes the same time wherever they differ.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// Why a text is not a secret of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Another prefix than the kind of secret has.
    Prefix,
    /// More or fewer characters than such a secret has.
    Length,
    /// A character outside `0-9 A-Z a-z`.
    Alphabet,
    /// The CRC-32 at the end is another than that of the text.
    Checksum,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prefix => "the secret has another prefix",
            Self::Length => "the secret has another length",
            Self::Alphabet => "the secret has a character outside 0-9 A-Z a-z",
            Self::Checksum => "the checksum of the secret is wrong: mistyped or cut",
        })
    }
}

impl core::error::Error for Malformed {}

#[cfg(feature = "mint")]
pub use made::{check, new};

#[cfg(feature = "mint")]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "does not run in the proxy; lengths are bounded by constants"
)]
mod made {
    use super::{Malformed, Secret, String, Zeroizing};
    use crate::{base62, crc32::crc32};

    /// Makes a secret out of 256 random bits.
    pub fn new(prefix: &str, random: &[u8; 32]) -> Secret {
        let mut text = Zeroizing::new(String::with_capacity(prefix.len() + BODY + CHECKSUM));
        text.push_str(prefix);
        let mut body = Zeroizing::new([0; BODY]);
        base62::encode(*random, &mut body[..]);
        text.extend(body.iter().map(|digit| char::from(*digit)));
        let mut checksum = [0; CHECKSUM];
        base62::encode(crc32(text.as_bytes()).to_be_bytes(), &mut checksum);
        text.extend(checksum.map(char::from));
        Secret(text)
    }

    /// Whether a text can be a secret of ours; says nothing of whether it was issued.
    ///
    /// # Errors
    ///
    /// Returns the first defect that is found.
    pub fn check(prefix: &str, text: &str) -> Result<(), Malformed> {
        let body = text.strip_prefix(prefix).ok_or(Malformed::Prefix)?;
        if body.len() != BODY + CHECKSUM {
            return Err(Malformed::Length);
        }
        if !body.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Malformed::Alphabet);
        }
        let (before, sum) = text.split_at_checked(text.len() - CHECKSUM).ok_or(Malformed::Length)?;
        let expected = crc32(before.as_bytes()).to_be_bytes();
        if base62::decode(sum.as_bytes()) == Ok(expected) { Ok(()) } else { Err(Malformed::Checksum) }
    }

    /// 62^43 > 2^256.
    const BODY: usize = 43;

    /// 62^6 > 2^32.
    const CHECKSUM: usize = 6;
}

#[cfg(all(test, feature = "mint"))]
mod tests {
    use proptest::prelude::*;
    use std::{format, string::ToString};

    use super::*;

    proptest! {
        #[test]
        fn what_is_made_is_accepted_and_nothing_one_character_off(random: [u8; 32], at in 0..56_usize, with in "[0-9A-Za-z]") {
            let secret = new("secret-", &random);
            prop_assert_eq!(check("secret-", secret.expose()), Ok(()));
            prop_assert!(secret.hash().matches(secret.expose()));
            let mut other = secret.expose().to_string();
            other.replace_range(at..=at, &with);
            if other != secret.expose() {
                prop_assert!(check("secret-", &other).is_err());
                prop_assert!(!secret.hash().matches(&other));
            }
        }
    }

    #[test]
    fn each_defect_has_its_name() {
        let secret = new("secret-", &[7; 32]);
        let text = secret.expose();
        assert_eq!(check("ks_edge_", text), Err(Malformed::Prefix));
        assert_eq!(check("secret-", &text[..text.len() - 1]), Err(Malformed::Length));
        assert_eq!(check("secret-", &text.replacen('-', "--", 1)), Err(Malformed::Length));
        assert_eq!(check("secret-", &format!("secret-_{}", &text[8..])), Err(Malformed::Alphabet));
        assert_eq!(check("secret-", &format!("secret-{}", "0".repeat(49))), Err(Malformed::Checksum));
    }

    #[test]
    fn is_never_printed() {
        let secret = new("secret-", &[7; 32]);
        assert_eq!(format!("{secret:?} {:?}", secret.hash()), "Secret(..) SecretHash(..)");
    }
}
