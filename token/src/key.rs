use alloc::{boxed::Box, string::String};
use core::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::{
    Algorithm, SignatureVerifier, ecdsa, ed25519,
    hash::Hash,
    rsa::{self, Padding},
};

/// A key that tokens are verified with. The algorithm belongs to the key, never to the token; so does the issuer.
#[derive(Clone)]
pub struct VerifyingKey {
    /// None: ours.
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
    Rsa(Box<rsa::PublicKey>, Hash, Padding),
}

impl VerifyingKey {
    /// A key of our own; `bytes` are
    ///
    /// ```text
    /// EdDSA       32 bytes (RFC 8032 section 5.1.5)
    /// HS...       the secret
    /// ES...       x, y
    /// RS... PS... exponent in 4 bytes, modulus; no leading zeros
    /// ```
    /// all numbers big-endian.
    ///
    /// # Errors
    ///
    /// Returns [`BadKey::Kid`] for a `kid` that is not 1 to 64 characters out of `A-Z a-z 0-9 . _ -`, and
    /// [`BadKey::NotAPoint`] or [`BadKey::Weak`] for bytes that are no good key of this algorithm.
    pub fn own(kid: &str, algorithm: Algorithm, bytes: &[u8]) -> Result<Self, BadKey> {
        // What we mint names its key in a header, a log line and a command: nothing that needs quoting.
        let usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if !(1..=64).contains(&kid.len()) || !kid.bytes().all(usual) {
            return Err(BadKey::Kid);
        }
        Self::read(None, kid, algorithm, bytes)
    }

    /// A key of another issuer, which opens only tokens that name this issuer and this `kid`; empty for tokens that
    /// name none.
    ///
    /// # Errors
    ///
    /// Returns [`BadKey::Kid`] where issuer or `kid` are longer than 255 bytes, and [`BadKey::NotAPoint`] or
    /// [`BadKey::Weak`] for bytes that are no good key of this algorithm.
    pub fn of_issuer(issuer: &str, kid: &str, algorithm: Algorithm, bytes: &[u8]) -> Result<Self, BadKey> {
        if kid.len() > MAX_FOREIGN_NAME || issuer.len() > MAX_FOREIGN_NAME {
            return Err(BadKey::Kid);
        }
        Self::read(Some(issuer), kid, algorithm, bytes)
    }

    fn read(issuer: Option<&str>, kid: &str, algorithm: Algorithm, bytes: &[u8]) -> Result<Self, BadKey> {
        let material = Material::read(algorithm, bytes)?;
        // The parts are as long as they are in all keys of this name, or end where a zero byte stands.
        let thumbprint = Sha256::new().chain_update(algorithm.name()).chain_update([0]).chain_update(bytes);
        let (issuer, kid) = (issuer.map(String::from), String::from(kid));
        Ok(Self { issuer, kid, algorithm, material, thumbprint: thumbprint.finalize().into() })
    }

    /// Returns a key of our own for EdDSA (RFC 8032 section 5.1.5).
    ///
    /// # Errors
    ///
    /// Returns what [`Self::own`] does.
    pub fn ed25519(kid: &str, public: &[u8; 32]) -> Result<Self, BadKey> {
        Self::own(kid, Algorithm::EdDsa, public)
    }

    /// Returns a key of our own for HS256.
    ///
    /// # Errors
    ///
    /// Returns what [`Self::own`] does: a secret has at least 32 bytes.
    pub fn hs256(kid: &str, secret: &[u8]) -> Result<Self, BadKey> {
        Self::own(kid, Algorithm::Hs256, secret)
    }

    /// None for a key of our own.
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// Returns the `kid` of the tokens that it opens; empty for a key without a name.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Returns the algorithm that tokens under it must name.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Tells a key from another of the same name. Of a secret, too, it says nothing: that has as many bits.
    pub const fn thumbprint(&self) -> &[u8; 32] {
        &self.thumbprint
    }

    /// The public half of an Ed25519 key; None for every other.
    pub fn public_bytes(&self) -> Option<&[u8; 32]> {
        match &self.material {
            Material::Ed25519(key) => Some(key.as_bytes()),
            _ => None,
        }
    }

    /// The bytes that [`Self::own`] and [`Self::of_issuer`] take, of a public key; None for a symmetric one.
    #[cfg(feature = "mint")]
    pub fn public_material(&self) -> Option<alloc::vec::Vec<u8>> {
        match &self.material {
            Material::Ed25519(key) => Some(key.as_bytes().to_vec()),
            Material::Hmac256(_) | Material::Hmac384(_) | Material::Hmac512(_) => None,
            Material::Ecdsa(key) => Some(key.material()),
            Material::Rsa(key, ..) => Some(key.material()),
        }
    }

    pub(crate) fn accepts(&self, message: &[u8], signature: &[u8], verifier: &dyn SignatureVerifier) -> bool {
        // A host may take numbers with zeros in front: the same token under other fingerprints.
        let by_host = |length: usize| match signature.len() {
            right if right == length => {
                verifier.verify(self.algorithm, &self.material.public_key_info()?, message, signature)
            }
            _ => Some(false),
        };
        match &self.material {
            Material::Ed25519(key) => key.accepts(&[message], signature),
            Material::Hmac256(key) => key.clone().chain_update(message).verify_slice(signature).is_ok(),
            Material::Hmac384(key) => key.clone().chain_update(message).verify_slice(signature).is_ok(),
            Material::Hmac512(key) => key.clone().chain_update(message).verify_slice(signature).is_ok(),
            Material::Ecdsa(key) => {
                by_host(key.signature_bytes()).unwrap_or_else(|| key.accepts(message, signature))
            }
            Material::Rsa(key, hash, padding) => {
                let by_host = by_host(key.signature_bytes());
                by_host.unwrap_or_else(|| key.accepts(*hash, *padding, message, signature))
            }
        }
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
    /// What a host needs to verify in our place; only for algorithms that are slow here.
    fn public_key_info(&self) -> Option<alloc::vec::Vec<u8>> {
        match self {
            Self::Ed25519(_) | Self::Hmac256(_) | Self::Hmac384(_) | Self::Hmac512(_) => None,
            Self::Ecdsa(key) => key.public_key_info(),
            Self::Rsa(key, ..) => key.public_key_info(),
        }
    }

    fn read(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, BadKey> {
        let rsa = |hash, padding| {
            let (exponent, modulus) = bytes.split_first_chunk().ok_or(BadKey::Weak)?;
            let key = rsa::PublicKey::new(modulus, u32::from_be_bytes(*exponent)).ok_or(BadKey::Weak)?;
            Ok(Self::Rsa(Box::new(key), hash, padding))
        };
        match algorithm {
            Algorithm::EdDsa => {
                let public = bytes.try_into().map_err(|_| BadKey::NotAPoint)?;
                ed25519::PublicKey::from_bytes(public).map(Self::Ed25519).ok_or(BadKey::NotAPoint)
            }
            Algorithm::Hs256 => hmac(Hash::Sha256, bytes).map(Self::Hmac256),
            Algorithm::Hs384 => hmac(Hash::Sha384, bytes).map(|key| Self::Hmac384(Box::new(key))),
            Algorithm::Hs512 => hmac(Hash::Sha512, bytes).map(|key| Self::Hmac512(Box::new(key))),
            Algorithm::Es256 => ecdsa::PublicKey::p256(bytes).map(Self::Ecdsa).ok_or(BadKey::NotAPoint),
            Algorithm::Es384 => ecdsa::PublicKey::p384(bytes).map(Self::Ecdsa).ok_or(BadKey::NotAPoint),
            Algorithm::Rs256 => rsa(Hash::Sha256, Padding::Pkcs1),
            Algorithm::Rs384 => rsa(Hash::Sha384, Padding::Pkcs1),
            Algorithm::Rs512 => rsa(Hash::Sha512, Padding::Pkcs1),
            Algorithm::Ps256 => rsa(Hash::Sha256, Padding::Pss),
            Algorithm::Ps384 => rsa(Hash::Sha384, Padding::Pss),
            Algorithm::Ps512 => rsa(Hash::Sha512, Padding::Pss),
        }
    }
}

/// Why bytes are no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadKey {
    /// Not an encoding of a point on the curve, or of one of small order.
    NotAPoint,
    /// A secret shorter than the hash (RFC 7518 section 3.2), or an RSA key that is not 2048
    /// to 4096 bits with an odd exponent.
    Weak,
    /// Not 1 to 64 characters out of `A-Z a-z 0-9 . _ -`; for another issuer, longer than 255 bytes.
    Kid,
    /// Tokens under it are verified, not made.
    NotMinted,
}

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAPoint => "the key is not a point on the curve, or one of small order",
            Self::Weak => "the key is too weak",
            Self::Kid => "a `kid` is 1 to 64 characters out of A-Z a-z 0-9 . _ -",
            Self::NotMinted => "tokens are made with EdDSA and HS256 only",
        })
    }
}

impl core::error::Error for BadKey {}

/// RFC 7518 section 3.2: a key of the same size as the hash output or larger.
fn hmac<M: KeyInit>(hash: Hash, secret: &[u8]) -> Result<M, BadKey> {
    if secret.len() < hash.bytes() {
        return Err(BadKey::Weak);
    }
    M::new_from_slice(secret).map_err(|_| BadKey::Weak)
}

/// What one byte of length can say.
const MAX_FOREIGN_NAME: usize = 255;
