use alloc::string::String;
use core::fmt;

use ed25519_dalek::Signature;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The signature algorithms of our own tokens, by their names in RFC 7518 and RFC 8037.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    EdDsa,
    Hs256,
}

impl Algorithm {
    pub const fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Hs256 => "HS256",
        }
    }
}

/// A key that tokens are verified with. The algorithm belongs to the key, never to the token.
#[derive(Clone)]
pub struct VerifyingKey {
    kid: String,
    material: Material,
}

#[derive(Clone)]
enum Material {
    Ed25519(ed25519_dalek::VerifyingKey),
    Hmac(Hmac<Sha256>),
}

impl VerifyingKey {
    pub fn ed25519(kid: &str, public: &[u8; 32]) -> Result<Self, BadKey> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(public).map_err(|_| BadKey::NotAPoint)?;
        // A key of small order verifies signatures that nobody made.
        if key.is_weak() {
            return Err(BadKey::Weak);
        }
        Ok(Self { kid: checked_kid(kid)?, material: Material::Ed25519(key) })
    }

    pub fn hs256(kid: &str, secret: &[u8]) -> Result<Self, BadKey> {
        if secret.len() < MIN_HMAC_BYTES {
            return Err(BadKey::Weak);
        }
        let key = Hmac::new_from_slice(secret).map_err(|_| BadKey::Weak)?;
        Ok(Self { kid: checked_kid(kid)?, material: Material::Hmac(key) })
    }

    pub fn kid(&self) -> &str {
        &self.kid
    }

    pub const fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::Ed25519(_) => Algorithm::EdDsa,
            Material::Hmac(_) => Algorithm::Hs256,
        }
    }

    /// The public half; a symmetric key has none.
    pub fn public_bytes(&self) -> Option<&[u8; 32]> {
        match &self.material {
            Material::Ed25519(key) => Some(key.as_bytes()),
            Material::Hmac(_) => None,
        }
    }

    pub(crate) fn accepts(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            // `verify_strict` refuses S >= L and small-order points: a signature has one spelling (RFC 8032 5.1.7).
            Material::Ed25519(key) => Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
            Material::Hmac(key) => key.clone().chain_update(message).verify_slice(signature).is_ok(),
        }
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({} `{}`)", self.algorithm().name(), self.kid)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadKey {
    /// Not an encoding of a point on the curve.
    NotAPoint,
    /// A point of small order, or a secret shorter than the hash (RFC 7518 section 3.2).
    Weak,
    /// Not 1 to 64 characters out of `A-Z a-z 0-9 . _ -`.
    Kid,
}

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAPoint => "the key is not a point on the curve",
            Self::Weak => "the key is too weak",
            Self::Kid => "a `kid` is 1 to 64 characters out of A-Z a-z 0-9 . _ -",
        })
    }
}

impl core::error::Error for BadKey {}

fn checked_kid(kid: &str) -> Result<String, BadKey> {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=64).contains(&kid.len()) && kid.bytes().all(usual) { Ok(kid.into()) } else { Err(BadKey::Kid) }
}

/// RFC 7518 section 3.2: a key of the same size as the hash output or larger.
const MIN_HMAC_BYTES: usize = 32;
