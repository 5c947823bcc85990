use alloc::{boxed::Box, string::String};
use core::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::{
    Algorithm, SignatureVerifier, ecdsa, ed25519,
    hash::Hash,
    rsa::{self, Padding},
};

/// Maximum length of a foreign issuer or `kid`: the bundle encodes the length in one byte.
const MAX_FOREIGN_NAME_BYTES: usize = 255;

/// A key that verifies tokens. The algorithm and the issuer belong to the key, never to the token.
#[derive(Clone)]
pub struct VerifyingKey {
    /// The issuer, or `None` for a key of this deployment.
    issuer: Option<String>,
    kid: String,
    algorithm: Algorithm,
    material: Material,
    thumbprint: [u8; 32],
}

#[derive(Clone)]
enum Material {
    Ed25519(ed25519::PublicKey),
    Hmac256(Hmac<Sha256>),
    Hmac384(Box<Hmac<Sha384>>),
    Hmac512(Box<Hmac<Sha512>>),
    Ecdsa(ecdsa::PublicKey),
    P521(ecdsa::P521PublicKey),
    Rsa(Box<rsa::PublicKey>, Hash, Padding),
}

impl VerifyingKey {
    /// Creates a key of this deployment. `bytes` are
    ///
    /// ```text
    /// EdDSA       32 bytes (RFC 8032 section 5.1.5)
    /// HS...       the secret
    /// ES...       x, y
    /// RS... PS... exponent in 4 bytes, modulus; no leading zeros
    /// ```
    /// where all numbers are big-endian.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidKey::InvalidKid`] if `kid` is not 1 to 64 characters of `A-Z a-z 0-9 . _ -`, and
    /// [`InvalidKey::InvalidPoint`], [`InvalidKey::Weak`] or [`InvalidKey::TooLarge`] if the bytes are not a valid key of
    /// this algorithm.
    pub fn local(kid: &str, algorithm: Algorithm, bytes: &[u8]) -> Result<Self, InvalidKey> {
        // The `kid` of an issued token appears in headers, log lines and commands, so it must not need quoting.
        let is_permitted = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if !(1..=64).contains(&kid.len()) || !kid.bytes().all(is_permitted) {
            return Err(InvalidKey::InvalidKid);
        }
        Self::new(None, kid, algorithm, bytes)
    }

    /// Creates a key of another issuer. It verifies only tokens with this issuer, and with this `kid` unless key or
    /// token has none. An empty `kid` is that of a key without one.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidKey::InvalidKid`] if issuer or `kid` is longer than 255 bytes, and [`InvalidKey::InvalidPoint`],
    /// [`InvalidKey::Weak`] or [`InvalidKey::TooLarge`] if the bytes are not a valid key of this algorithm.
    pub fn foreign(issuer: &str, kid: &str, algorithm: Algorithm, bytes: &[u8]) -> Result<Self, InvalidKey> {
        if kid.len() > MAX_FOREIGN_NAME_BYTES || issuer.len() > MAX_FOREIGN_NAME_BYTES {
            return Err(InvalidKey::InvalidKid);
        }
        Self::new(Some(issuer), kid, algorithm, bytes)
    }

    fn new(issuer: Option<&str>, kid: &str, algorithm: Algorithm, bytes: &[u8]) -> Result<Self, InvalidKey> {
        let material = Material::decode(algorithm, bytes)?;
        // The encoding is injective: the name ends at the zero byte.
        let thumbprint = Sha256::new().chain_update(algorithm.name()).chain_update([0]).chain_update(bytes);
        let (issuer, kid) = (issuer.map(String::from), String::from(kid));
        Ok(Self { issuer, kid, algorithm, material, thumbprint: thumbprint.finalize().into() })
    }

    /// Creates a key of this deployment for EdDSA (RFC 8032 section 5.1.5).
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Self::local`].
    pub fn ed25519(kid: &str, public: &[u8; 32]) -> Result<Self, InvalidKey> {
        Self::local(kid, Algorithm::EdDsa, public)
    }

    /// Creates a key of this deployment for HS256.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Self::local`]: the secret must have at least 32 bytes.
    pub fn hs256(kid: &str, secret: &[u8]) -> Result<Self, InvalidKey> {
        Self::local(kid, Algorithm::Hs256, secret)
    }

    /// Returns the issuer, or `None` for a key of this deployment.
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// Returns the `kid`. It is empty for a key of another issuer without one.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Returns the algorithm that tokens must name.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns a hash that distinguishes keys of the same name. It does not reveal a secret, which has at least 256
    /// bits.
    pub const fn thumbprint(&self) -> &[u8; 32] {
        &self.thumbprint
    }

    /// Returns the public key of an Ed25519 key, or `None` for other keys.
    pub fn public_bytes(&self) -> Option<&[u8; 32]> {
        match &self.material {
            Material::Ed25519(key) => Some(key.as_bytes()),
            _ => None,
        }
    }

    /// Returns the bytes that [`Self::local`] and [`Self::foreign`] take for a public key, or `None` for a symmetric
    /// key.
    #[cfg(feature = "mint")]
    pub fn public_material(&self) -> Option<alloc::vec::Vec<u8>> {
        match &self.material {
            Material::Ed25519(key) => Some(key.as_bytes().to_vec()),
            Material::Hmac256(_) | Material::Hmac384(_) | Material::Hmac512(_) => None,
            Material::Ecdsa(key) => Some(key.material()),
            Material::P521(key) => Some(key.material()),
            Material::Rsa(key, ..) => Some(key.material()),
        }
    }

    /// Returns whether a token with this `kid`, which is empty if it has none, names this key or leaves the choice open. A
    /// key of this deployment is always named. [`Unverified::verify`](crate::Unverified::verify) trusts the caller to
    /// leave the choice open for the only key of the algorithm.
    pub(crate) fn is_for_kid(&self, kid: &str) -> bool {
        kid == self.kid || self.issuer.is_some() && (kid.is_empty() || self.kid.is_empty())
    }

    /// Returns `None` if only a host can verify signatures of this algorithm, and this one cannot.
    pub(crate) fn verify(
        &self,
        message: &[u8],
        signature: &[u8],
        verifier: &dyn SignatureVerifier,
    ) -> Option<bool> {
        // A host could accept numbers with leading zeros, which would give the same token other fingerprints.
        let verify_by_host = |length: usize| match signature.len() {
            right if right == length => {
                verifier.verify(self.algorithm, &self.material.public_key_info()?, message, signature)
            }
            _ => Some(false),
        };
        Some(match &self.material {
            Material::Ed25519(key) => key.verify(&[message], signature),
            Material::Hmac256(key) => key.clone().chain_update(message).verify_slice(signature).is_ok(),
            Material::Hmac384(key) => key.clone().chain_update(message).verify_slice(signature).is_ok(),
            Material::Hmac512(key) => key.clone().chain_update(message).verify_slice(signature).is_ok(),
            Material::Ecdsa(key) => {
                verify_by_host(key.signature_bytes()).unwrap_or_else(|| key.verify(message, signature))
            }
            Material::P521(_) => return verify_by_host(ecdsa::P521PublicKey::BYTES),
            Material::Rsa(key, hash, padding) => verify_by_host(key.signature_bytes())
                .unwrap_or_else(|| key.verify(*hash, *padding, message, signature)),
        })
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({} `{}`", self.algorithm.name(), self.kid)?;
        self.issuer.iter().try_for_each(|issuer| write!(f, " of `{issuer}`"))?;
        f.write_str(")")
    }
}

impl Material {
    /// Returns the public key for verification by a host, for algorithms that are slow in WebAssembly.
    fn public_key_info(&self) -> Option<alloc::vec::Vec<u8>> {
        match self {
            Self::Ed25519(_) | Self::Hmac256(_) | Self::Hmac384(_) | Self::Hmac512(_) => None,
            Self::Ecdsa(key) => key.public_key_info(),
            Self::P521(key) => Some(key.public_key_info()),
            Self::Rsa(key, ..) => key.public_key_info(),
        }
    }

    fn decode(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, InvalidKey> {
        let rsa = |hash, padding| {
            let (exponent, modulus) = bytes.split_first_chunk().ok_or(InvalidKey::Weak)?;
            let key = rsa::PublicKey::new(modulus, u32::from_be_bytes(*exponent))?;
            Ok(Self::Rsa(Box::new(key), hash, padding))
        };
        match algorithm {
            Algorithm::EdDsa => {
                let public = bytes.try_into().map_err(|_| InvalidKey::InvalidPoint)?;
                ed25519::PublicKey::from_bytes(public).map(Self::Ed25519).ok_or(InvalidKey::InvalidPoint)
            }
            Algorithm::Hs256 => hmac(Hash::Sha256, bytes).map(Self::Hmac256),
            Algorithm::Hs384 => hmac(Hash::Sha384, bytes).map(|key| Self::Hmac384(Box::new(key))),
            Algorithm::Hs512 => hmac(Hash::Sha512, bytes).map(|key| Self::Hmac512(Box::new(key))),
            Algorithm::Es256 => {
                ecdsa::PublicKey::p256(bytes).map(Self::Ecdsa).ok_or(InvalidKey::InvalidPoint)
            }
            Algorithm::Es384 => {
                ecdsa::PublicKey::p384(bytes).map(Self::Ecdsa).ok_or(InvalidKey::InvalidPoint)
            }
            Algorithm::Es512 => {
                ecdsa::P521PublicKey::new(bytes).map(Self::P521).ok_or(InvalidKey::InvalidPoint)
            }
            Algorithm::Rs256 => rsa(Hash::Sha256, Padding::Pkcs1),
            Algorithm::Rs384 => rsa(Hash::Sha384, Padding::Pkcs1),
            Algorithm::Rs512 => rsa(Hash::Sha512, Padding::Pkcs1),
            Algorithm::Ps256 => rsa(Hash::Sha256, Padding::Pss),
            Algorithm::Ps384 => rsa(Hash::Sha384, Padding::Pss),
            Algorithm::Ps512 => rsa(Hash::Sha512, Padding::Pss),
        }
    }
}

/// Why bytes are not a valid key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidKey {
    /// The bytes do not encode a point on the curve, or encode one of small order.
    InvalidPoint,
    /// The secret is shorter than the hash (RFC 7518 section 3.2), or the RSA key has less than 2048 bits, an even
    /// modulus, or an exponent that is even or 1.
    Weak,
    /// The RSA key has more than 8192 bits, or more than 4096 bits and an exponent above 65537.
    TooLarge,
    /// The `kid` is not 1 to 64 characters of `A-Z a-z 0-9 . _ -`, or the name of another issuer's key is longer than
    /// 255 bytes.
    InvalidKid,
    /// The algorithm can verify tokens but not sign them.
    VerifyOnlyAlgorithm,
}

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidPoint => "the key is not a point on the curve, or has small order",
            Self::Weak => "the key is too weak",
            Self::TooLarge => "the key is too large",
            Self::InvalidKid => {
                "a `kid` has 1 to 64 characters of A-Z a-z 0-9 . _ -, or of another issuer up to 255 bytes"
            }
            Self::VerifyOnlyAlgorithm => "tokens can be signed with EdDSA and HS256 only",
        })
    }
}

impl core::error::Error for InvalidKey {}

/// Creates an HMAC key. RFC 7518 section 3.2: the key must be at least as long as the hash output.
fn hmac<M: KeyInit>(hash: Hash, secret: &[u8]) -> Result<M, InvalidKey> {
    if secret.len() < hash.bytes() {
        return Err(InvalidKey::Weak);
    }
    M::new_from_slice(secret).map_err(|_| InvalidKey::Weak)
}
