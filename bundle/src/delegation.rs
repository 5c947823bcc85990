use alloc::{string::String, vec::Vec};
use core::fmt;

use crate::{
    PublicKey,
    codec::{Malformed, Reader},
    key::{Context, Distrust, split, verify},
};

/// Whom a root has made snapshot keys and tail keys, for one audience, until when. Travels within every manifest, so
/// that a new one needs no second fetch and the root none of the control plane's time.
///
/// ```text
///  0   4  "KSD1"
///  4   8  root key: the first bytes of the SHA-256 of its public half
/// 12   8  epoch
/// 20   8  issued at, milliseconds since the Unix epoch
/// 28   8  expires at, likewise
/// 36   1  n, length of the audience (1 to 64)
/// 37   n  audience
///      1  number of snapshot keys (1 to 4)
///     32  each, strictly ascending
///      1  number of tail keys (1 to 4)
///     32  each, strictly ascending; none is a snapshot key too
///     64  Ed25519 (RFC 8032) over "keystile-delegation-v1\0" and all before
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
    /// The only way to a delegation.
    pub fn open(bytes: &[u8], roots: &[PublicKey], audience: &str) -> Result<Self, DelegationError> {
        let (body, signature) = split(bytes)?;
        let mut rest = Reader(body);
        if &rest.array::<4>("magic")? != MAGIC {
            return Err(Malformed("magic").into());
        }
        verify(roots, rest.array("root key")?, CONTEXT, (body, signature))?;
        let delegation = Self {
            epoch: rest.u64("epoch")?,
            issued_at: rest.u64("issued at")?,
            expires_at: rest.u64("expires at")?,
            audience: read_audience(&mut rest)?,
            snapshot_keys: read_keys(&mut rest, "snapshot keys")?,
            tail_keys: read_keys(&mut rest, "tail keys")?,
        };
        rest.end()?;
        if delegation.expires_at <= delegation.issued_at {
            return Err(Malformed("expires at").into());
        }
        if delegation.tail_keys.iter().any(|key| delegation.snapshot_keys.contains(key)) {
            // The thief of a tail key would have a snapshot key.
            return Err(Malformed("a key that is snapshot key and tail key").into());
        }
        if delegation.audience != audience {
            return Err(DelegationError::AudienceMismatch);
        }
        Ok(delegation)
    }

    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// Counts the changes of keys. All other counters begin anew with a higher one: that is how a stolen key that ran
    /// them up is got rid of.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Milliseconds since the Unix epoch.
    pub const fn issued_at(&self) -> u64 {
        self.issued_at
    }

    /// Milliseconds since the Unix epoch.
    pub const fn expires_at(&self) -> u64 {
        self.expires_at
    }

    /// They sign checkpoints.
    pub fn snapshot_keys(&self) -> &[PublicKey] {
        &self.snapshot_keys
    }

    /// They sign manifests.
    pub fn tail_keys(&self) -> &[PublicKey] {
        &self.tail_keys
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DelegationError {
    Malformed(Malformed),
    KeyUnknown,
    SignatureInvalid,
    AudienceMismatch,
}

impl DelegationError {
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

impl From<Distrust> for DelegationError {
    fn from(distrust: Distrust) -> Self {
        match distrust {
            Distrust::KeyUnknown => Self::KeyUnknown,
            Distrust::SignatureInvalid => Self::SignatureInvalid,
        }
    }
}

impl fmt::Display for DelegationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(part) => write!(f, "the delegation is {part}"),
            Self::KeyUnknown => f.write_str("the delegation is signed with a root key that is not pinned"),
            Self::SignatureInvalid => f.write_str("the signature of the delegation is invalid"),
            Self::AudienceMismatch => f.write_str("the delegation is for another audience"),
        }
    }
}

impl core::error::Error for DelegationError {}

/// 1 to 64 bytes.
pub(crate) fn read_audience(from: &mut Reader<'_>) -> Result<String, Malformed> {
    match from.text("audience")? {
        audience if (1..=MAX_AUDIENCE).contains(&audience.len()) => Ok(audience.into()),
        _ => Err(Malformed("audience")),
    }
}

fn read_keys(from: &mut Reader<'_>, what: &'static str) -> Result<Vec<PublicKey>, Malformed> {
    let count = from.u8(what)?;
    if !(1..=MAX_KEYS).contains(&count) {
        return Err(Malformed(what));
    }
    let mut keys: Vec<PublicKey> = Vec::new();
    for _ in 0..count {
        let key = PublicKey::from_bytes(&from.array(what)?).map_err(|_| Malformed(what))?;
        if keys.last().is_some_and(|last| last.as_bytes() >= key.as_bytes()) {
            return Err(Malformed(what));
        }
        keys.push(key);
    }
    Ok(keys)
}

pub(crate) const MAGIC: &[u8; 4] = b"KSD1";

pub(crate) const CONTEXT: Context = b"keystile-delegation-v1\0";

pub(crate) const MAX_AUDIENCE: usize = 64;

/// The one in use, its successor, and as many for a second site; a manifest has to carry them all.
pub(crate) const MAX_KEYS: u8 = 4;
