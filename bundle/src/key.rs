//! Ed25519 public keys, and verification of their signatures.

use core::{fmt, str::FromStr};

use sha2::{Digest, Sha256};
use token::ed25519;

use crate::codec::Malformed;

/// An Ed25519 public key (RFC 8032): a root key that edges pin, or a key that a delegation names.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(ed25519::PublicKey);

impl PublicKey {
    /// Decodes a public key.
    ///
    /// # Errors
    ///
    /// [`InvalidPublicKey`] if the bytes are not the canonical encoding of a point, or the point has small order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, InvalidPublicKey> {
        ed25519::PublicKey::from_bytes(bytes).map(Self).ok_or(InvalidPublicKey)
    }

    /// Returns the 32-byte encoding.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Returns the public key of a signing key.
    #[cfg(feature = "builder")]
    pub(crate) fn from_signing_key(key: &ed25519_dalek::SigningKey) -> Self {
        Self(ed25519::PublicKey::from_signing_key(key))
    }

    /// Returns whether the signature of the body is valid.
    fn has_signed(&self, context: Context, body: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify(&[context, body], signature)
    }

    /// Returns the key id: the first 8 bytes of the SHA-256 of the key.
    pub(crate) fn id(&self) -> [u8; 8] {
        let digest: [u8; 32] = Sha256::digest(self.0.as_bytes()).into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        [a, b, c, d, e, f, g, h]
    }
}

impl FromStr for PublicKey {
    type Err = InvalidPublicKey;

    /// Decodes 32 bytes in unpadded base64url (RFC 4648 section 5).
    fn from_str(text: &str) -> Result<Self, InvalidPublicKey> {
        let bytes = token::base64url::decode(text.as_bytes()).ok_or(InvalidPublicKey)?;
        Self::from_bytes(bytes.as_slice().try_into().map_err(|_| InvalidPublicKey)?)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&token::base64url::encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// The text or the bytes are not a valid Ed25519 public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidPublicKey;

impl fmt::Display for InvalidPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be the 32 bytes of an Ed25519 public key in unpadded base64url")
    }
}

impl core::error::Error for InvalidPublicKey {}

/// The domain separation prefix of the signed bytes: a signature of one kind of message is not valid for another.
pub(crate) type Context = &'static [u8];

/// Why a signature does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignatureError {
    /// None of the trusted keys has this id.
    KeyUnknown,
    /// The signature is not valid.
    SignatureInvalid,
}

/// Splits a message into the body and its Ed25519 signature (RFC 8032), the last 64 bytes.
pub(crate) fn split_signature(bytes: &[u8]) -> Result<(&[u8], &[u8; 64]), Malformed> {
    bytes.split_last_chunk().ok_or(Malformed("signature"))
}

/// Verifies that the trusted key with this id signed the body. Returns the key.
pub(crate) fn verify<'k>(
    trusted: &'k [PublicKey],
    id: [u8; 8],
    context: Context,
    (body, signature): (&[u8], &[u8; 64]),
) -> Result<&'k PublicKey, SignatureError> {
    let key = trusted.iter().find(|key| key.id() == id).ok_or(SignatureError::KeyUnknown)?;
    if key.has_signed(context, body, signature) { Ok(key) } else { Err(SignatureError::SignatureInvalid) }
}
