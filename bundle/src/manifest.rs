use alloc::{string::String, vec::Vec};
use core::{fmt, str::FromStr};

use ed25519_dalek::Signature;
use sha2::{Digest, Sha256};

use crate::{
    Entry,
    codec::{Malformed, Reader},
    object::read_entries,
};

/// A manifest whose signature and audience hold.
///
/// ```text
///  0   4  "KSM1"
///  4   8  publisher key: the first bytes of the SHA-256 of its public half
/// 12   8  version
/// 20   8  issued at, milliseconds since the Unix epoch
/// 28   8  expires at, likewise
/// 36   1  n, length of the audience (1 to 64)
/// 37   n  audience
///      2  number of entries
///     40  each entry, strictly ascending
///     64  Ed25519 (RFC 8032) over "keystile-manifest-v1\0" and all before
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    bytes: Vec<u8>,
    audience: String,
    version: u64,
    issued_at: u64,
    expires_at: u64,
    entries: Vec<Entry>,
}

impl Manifest {
    /// The only way to a manifest.
    pub fn open(bytes: &[u8], trusted: &[PublisherKey], audience: &str) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLong);
        }
        let (body, signature) = bytes.split_last_chunk::<64>().ok_or(Malformed("signature"))?;
        let mut rest = Reader(body);
        if &rest.array::<4>("magic")? != MAGIC {
            return Err(Malformed("magic").into());
        }
        let key_id: [u8; 8] = rest.array("publisher key")?;
        let key = trusted.iter().find(|key| key.id() == key_id).ok_or(ManifestError::KeyUnknown)?;
        if !key.accepts(body, signature) {
            return Err(ManifestError::SignatureInvalid);
        }
        let manifest = Self {
            bytes: bytes.into(),
            version: rest.u64("version")?,
            issued_at: rest.u64("issued at")?,
            expires_at: rest.u64("expires at")?,
            audience: rest.text("audience")?.into(),
            entries: read_entries(&mut rest)?,
        };
        rest.end()?;
        if manifest.expires_at <= manifest.issued_at {
            return Err(Malformed("expires at").into());
        }
        if manifest.audience != audience {
            return Err(ManifestError::AudienceMismatch);
        }
        Ok(manifest)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// Counts the changes of the content; the same content signed again keeps it.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Milliseconds since the Unix epoch.
    pub const fn issued_at(&self) -> u64 {
        self.issued_at
    }

    /// Milliseconds since the Unix epoch.
    pub const fn expires_at(&self) -> u64 {
        self.expires_at
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether this one says more than `other`, or the same more recently.
    pub fn supersedes(&self, other: &Self) -> bool {
        (self.version, self.issued_at) > (other.version, other.issued_at)
    }
}

/// The public half of the key that manifests are signed with, as pinned in an edge's configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct PublisherKey(ed25519_dalek::VerifyingKey);

impl PublisherKey {
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, BadPublisherKey> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| BadPublisherKey)?;
        if key.is_weak() { Err(BadPublisherKey) } else { Ok(Self(key)) }
    }

    #[cfg(feature = "builder")]
    pub(crate) const fn own(key: ed25519_dalek::VerifyingKey) -> Self {
        Self(key)
    }

    pub(crate) fn id(&self) -> [u8; 8] {
        let digest: [u8; 32] = Sha256::digest(self.0.as_bytes()).into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        [a, b, c, d, e, f, g, h]
    }

    fn accepts(&self, body: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(&signed_bytes(body), &Signature::from_bytes(signature)).is_ok()
    }
}

impl FromStr for PublisherKey {
    type Err = BadPublisherKey;

    /// 32 bytes in unpadded base64url (RFC 4648 section 5).
    fn from_str(text: &str) -> Result<Self, BadPublisherKey> {
        let bytes = token::base64url::decode(text.as_bytes()).ok_or(BadPublisherKey)?;
        Self::from_bytes(bytes.as_slice().try_into().map_err(|_| BadPublisherKey)?)
    }
}

impl fmt::Display for PublisherKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&token::base64url::encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for PublisherKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublisherKey({self})")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPublisherKey;

impl fmt::Display for BadPublisherKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a publisher key is the 32 bytes of an Ed25519 public key in unpadded base64url")
    }
}

impl core::error::Error for BadPublisherKey {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestError {
    TooLong,
    Malformed(Malformed),
    KeyUnknown,
    SignatureInvalid,
    AudienceMismatch,
}

impl ManifestError {
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLong => "manifest_too_long",
            Self::Malformed(_) => "manifest_malformed",
            Self::KeyUnknown => "manifest_key_unknown",
            Self::SignatureInvalid => "manifest_signature_invalid",
            Self::AudienceMismatch => "manifest_audience_mismatch",
        }
    }
}

impl From<Malformed> for ManifestError {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error)
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the manifest is longer than {MAX_MANIFEST_BYTES} bytes"),
            Self::Malformed(part) => write!(f, "the manifest is {part}"),
            Self::KeyUnknown => f.write_str("the manifest is signed with a key that is not pinned"),
            Self::SignatureInvalid => f.write_str("the signature of the manifest is invalid"),
            Self::AudienceMismatch => f.write_str("the manifest is for another audience"),
        }
    }
}

impl core::error::Error for ManifestError {}

/// One edge holds it several times and every waiting request carries it: kept under a page.
pub const MAX_MANIFEST_BYTES: usize = 4096;

pub(crate) const MAGIC: &[u8; 4] = b"KSM1";

/// Domain separation: the publisher's signature under anything else is no manifest.
pub(crate) fn signed_bytes(body: &[u8]) -> Vec<u8> {
    [b"keystile-manifest-v1\0", body].concat()
}
