use core::{fmt, str::FromStr};

use sha2::{Digest, Sha256};
use token::ed25519;

use crate::codec::Malformed;

/// The public half of a key that signs: a root that edges pin, or a key that a root has delegated to.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(ed25519::PublicKey);

impl PublicKey {
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, BadPublicKey> {
        ed25519::PublicKey::from_bytes(bytes).map(Self).ok_or(BadPublicKey)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    #[cfg(feature = "builder")]
    pub(crate) fn own(key: &ed25519_dalek::SigningKey) -> Self {
        Self(ed25519::PublicKey::of(key))
    }

    /// The first bytes of the SHA-256 of the key.
    pub(crate) fn id(&self) -> [u8; 8] {
        let digest: [u8; 32] = Sha256::digest(self.0.as_bytes()).into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        [a, b, c, d, e, f, g, h]
    }
}

impl FromStr for PublicKey {
    type Err = BadPublicKey;

    /// 32 bytes in unpadded base64url (RFC 4648 section 5).
    fn from_str(text: &str) -> Result<Self, BadPublicKey> {
        let bytes = token::base64url::decode(text.as_bytes()).ok_or(BadPublicKey)?;
        Self::from_bytes(bytes.as_slice().try_into().map_err(|_| BadPublicKey)?)
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPublicKey;

impl fmt::Display for BadPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be the 32 bytes of an Ed25519 public key in unpadded base64url")
    }
}

impl core::error::Error for BadPublicKey {}

/// What comes before the signed bytes, so that a signature under one kind of thing is none under another.
pub(crate) type Context = &'static [u8];

/// Why something signed is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Distrust {
    KeyUnknown,
    SignatureInvalid,
}

/// The body, and its Ed25519 signature (RFC 8032) in the last 64 bytes.
pub(crate) fn split(bytes: &[u8]) -> Result<(&[u8], &[u8; 64]), Malformed> {
    bytes.split_last_chunk().ok_or(Malformed("signature"))
}

/// The one of the trusted keys with this id, if it signed the body.
pub(crate) fn verify<'k>(
    trusted: &'k [PublicKey],
    id: [u8; 8],
    context: Context,
    (body, signature): (&[u8], &[u8; 64]),
) -> Result<&'k PublicKey, Distrust> {
    let key = trusted.iter().find(|key| key.id() == id).ok_or(Distrust::KeyUnknown)?;
    if key.0.accepts(&[context, body], signature) { Ok(key) } else { Err(Distrust::SignatureInvalid) }
}
