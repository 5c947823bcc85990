//! The delegation: the keys that a root key authorizes to sign.

use alloc::{string::String, vec::Vec};
use core::fmt;

use crate::{
    PublicKey,
    codec::{Malformed, Reader},
    key::{Context, SignatureError, split_signature, verify},
};

/// The first bytes of a delegation.
pub(crate) const MAGIC: &[u8; 4] = b"KSD1";

/// The domain separation prefix of its signature.
pub(crate) const CONTEXT: Context = b"keystile-delegation-v1\0";

/// Length of the longest audience.
pub(crate) const MAX_AUDIENCE_BYTES: usize = 64;

/// The current key and its successor, for two sites. Every manifest contains all of them.
pub(crate) const MAX_KEYS_PER_ROLE: u8 = 4;

/// The snapshot keys and tail keys that a root key has authorized for one audience, with an expiry.
///
/// Every manifest contains its delegation, so a new delegation needs no separate fetch, and the root key can stay offline.
///
/// ```text
///  0   4  "KSD1"
///  4   8  root key id: the first 8 bytes of the SHA-256 of the public key
/// 12   8  epoch
/// 20   8  issued at, milliseconds since the Unix epoch
/// 28   8  expires at, likewise
/// 36   1  n, length of the audience (1 to 64)
/// 37   n  audience
///      1  number of snapshot keys (1 to 4)
///     32  each, strictly ascending
///      1  number of tail keys (1 to 4)
///     32  each, strictly ascending; none is also a snapshot key
///     64  Ed25519 (RFC 8032) over "keystile-delegation-v1\0" and all preceding bytes
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegation {
    audience: String,
    epoch: u64,
    issued_at: u64,
    expires_at: u64,
    snapshot_keys: Vec<PublicKey>,
    tail_keys: Vec<PublicKey>,
}

impl Delegation {
    /// Verifies and decodes a delegation. There is no other constructor.
    ///
    /// # Errors
    ///
    /// [`DelegationError`] if the bytes are malformed, the signature is not valid under one of `roots`, or the audience is
    /// not `audience`.
    pub fn open(bytes: &[u8], roots: &[PublicKey], audience: &str) -> Result<Self, DelegationError> {
        let (body, signature) = split_signature(bytes)?;
        let mut rest = Reader(body);
        if &rest.array::<4>("magic")? != MAGIC {
            return Err(Malformed("magic").into());
        }
        verify(roots, rest.array("root key")?, CONTEXT, (body, signature))?;
        let delegation = Self {
            epoch: rest.u64("epoch")?,
            issued_at: rest.u64("issued at")?,
            expires_at: rest.u64("expires at")?,
            audience: decode_audience(&mut rest)?,
            snapshot_keys: decode_keys(&mut rest, "snapshot keys")?,
            tail_keys: decode_keys(&mut rest, "tail keys")?,
        };
        rest.finish()?;
        if delegation.expires_at <= delegation.issued_at {
            return Err(Malformed("expires at").into());
        }
        if delegation.tail_keys.iter().any(|key| delegation.snapshot_keys.contains(key)) {
            // A stolen tail key would otherwise be a snapshot key too.
            return Err(Malformed("a key that is snapshot key and tail key").into());
        }
        if delegation.audience != audience {
            return Err(DelegationError::AudienceMismatch);
        }
        Ok(delegation)
    }

    /// Returns the audience that the keys may sign for.
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// Returns the epoch, which increases with every change of keys. All other counters restart in a new epoch, so an
    /// operator can recover after a stolen key was used to advance them.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the time of signing, in milliseconds since the Unix epoch.
    pub const fn issued_at(&self) -> u64 {
        self.issued_at
    }

    /// Returns the expiry, in milliseconds since the Unix epoch.
    pub const fn expires_at(&self) -> u64 {
        self.expires_at
    }

    /// Returns the keys that may sign checkpoints.
    pub fn snapshot_keys(&self) -> &[PublicKey] {
        &self.snapshot_keys
    }

    /// Returns the keys that may sign manifests.
    pub fn tail_keys(&self) -> &[PublicKey] {
        &self.tail_keys
    }
}

/// Why a delegation does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DelegationError {
    /// The bytes do not have the format of a delegation.
    Malformed(Malformed),
    /// No pinned root key has the id of the signing key.
    KeyUnknown,
    /// The signature is not valid.
    SignatureInvalid,
    /// The delegation is for another audience.
    AudienceMismatch,
}

impl DelegationError {
    /// Returns the stable code for metrics and logs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Malformed(_) => "delegation_malformed",
            Self::KeyUnknown => "delegation_key_unknown",
            Self::SignatureInvalid => "delegation_signature_invalid",
            Self::AudienceMismatch => "delegation_audience_mismatch",
        }
    }
}

impl From<Malformed> for DelegationError {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error)
    }
}

impl From<SignatureError> for DelegationError {
    fn from(error: SignatureError) -> Self {
        match error {
            SignatureError::KeyUnknown => Self::KeyUnknown,
            SignatureError::SignatureInvalid => Self::SignatureInvalid,
        }
    }
}

impl fmt::Display for DelegationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(part) => write!(f, "the delegation is {part}"),
            Self::KeyUnknown => f.write_str("the delegation is signed by a root key that is not pinned"),
            Self::SignatureInvalid => f.write_str("the signature of the delegation is invalid"),
            Self::AudienceMismatch => f.write_str("the delegation is for another audience"),
        }
    }
}

impl core::error::Error for DelegationError {}

/// Reads an audience of 1 to 64 bytes.
pub(crate) fn decode_audience(from: &mut Reader<'_>) -> Result<String, Malformed> {
    match from.text("audience")? {
        audience if (1..=MAX_AUDIENCE_BYTES).contains(&audience.len()) => Ok(audience.into()),
        _ => Err(Malformed("audience")),
    }
}

/// Reads 1 to 4 public keys in strictly ascending order. `part` names them in errors.
fn decode_keys(from: &mut Reader<'_>, part: &'static str) -> Result<Vec<PublicKey>, Malformed> {
    let count = from.u8(part)?;
    if !(1..=MAX_KEYS_PER_ROLE).contains(&count) {
        return Err(Malformed(part));
    }
    let mut keys: Vec<PublicKey> = Vec::new();
    for _ in 0..count {
        let key = PublicKey::from_bytes(&from.array(part)?).map_err(|_| Malformed(part))?;
        if keys.last().is_some_and(|last| last.as_bytes() >= key.as_bytes()) {
            return Err(Malformed(part));
        }
        keys.push(key);
    }
    Ok(keys)
}
