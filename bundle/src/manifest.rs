use alloc::vec::Vec;
use core::{cmp::Ordering, fmt};

use crate::{
    Delegation, DelegationError, Entry, Kind, PublicKey, Regression,
    codec::{Malformed, Reader},
    key::{Context, Distrust, split, verify},
    object::read_entries,
};

/// A manifest whose signature holds, by a key that a pinned root delegated to for this audience.
///
/// It names one checkpoint and the segments of the tail, nothing else: whoever holds only a tail key can add
/// revocations to what a snapshot key has signed, and take none away.
///
/// ```text
///  0   4  "KSM2"
///  4   8  tail key: the first bytes of the SHA-256 of its public half
/// 12   8  version
/// 20   8  issued at, milliseconds since the Unix epoch
/// 28   8  expires at, likewise
/// 36   2  d, length of the delegation
/// 38   d  delegation
///      2  number of entries
///     40  each entry, strictly ascending: one checkpoint, then the segments of the tail
///     64  Ed25519 (RFC 8032) over "keystile-manifest-v2\0" and all before
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    bytes: Vec<u8>,
    delegation: Delegation,
    version: u64,
    issued_at: u64,
    expires_at: u64,
    checkpoint: Entry,
    tail: Vec<Entry>,
}

impl Manifest {
    /// The only way to a manifest.
    pub fn open(bytes: &[u8], roots: &[PublicKey], audience: &str) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLong);
        }
        let (body, signature) = split(bytes)?;
        let mut rest = Reader(body);
        if &rest.array::<4>("magic")? != MAGIC {
            return Err(Malformed("magic").into());
        }
        let key_id = rest.array("tail key")?;
        let version = rest.u64("version")?;
        let issued_at = rest.u64("issued at")?;
        let expires_at = rest.u64("expires at")?;
        let length = rest.u16("length of the delegation")?;
        let delegation = rest.bytes(length.into(), "delegation")?;
        let delegation = Delegation::open(delegation, roots, audience)?;
        verify(delegation.tail_keys(), key_id, CONTEXT, (body, signature))?;
        let entries = read_entries(&mut rest, |kind| matches!(kind, Kind::Checkpoint | Kind::Tail))?;
        rest.end()?;
        if expires_at <= issued_at {
            return Err(Malformed("expires at").into());
        }
        let (checkpoint, tail) = entries.split_first().ok_or(Malformed("checkpoint"))?;
        if checkpoint.kind() != Kind::Checkpoint || tail.iter().any(|entry| entry.kind() != Kind::Tail) {
            return Err(Malformed("checkpoint").into());
        }
        let (checkpoint, tail) = (*checkpoint, tail.into());
        Ok(Self { bytes: bytes.into(), delegation, version, issued_at, expires_at, checkpoint, tail })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub const fn delegation(&self) -> &Delegation {
        &self.delegation
    }

    pub fn audience(&self) -> &str {
        self.delegation.audience()
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

    pub const fn checkpoint(&self) -> &Entry {
        &self.checkpoint
    }

    pub fn tail(&self) -> &[Entry] {
        &self.tail
    }

    /// Whether an edge that has `held` may take this one: it says more, or the same more recently. All but the epoch
    /// begins anew with a higher epoch.
    pub fn may_follow(&self, held: &Self) -> Result<(), Regression> {
        let order = |one: &Self| (one.version, one.issued_at);
        match self.delegation.epoch().cmp(&held.delegation.epoch()) {
            Ordering::Greater => Ok(()),
            Ordering::Equal if order(self) > order(held) => Ok(()),
            Ordering::Equal => Err(Regression::Version { held: held.version, offered: self.version }),
            Ordering::Less => {
                let [held, offered] = [held, self].map(|one| one.delegation.epoch());
                Err(Regression::Epoch { held, offered })
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestError {
    TooLong,
    Malformed(Malformed),
    Delegation(DelegationError),
    KeyUnknown,
    SignatureInvalid,
}

impl ManifestError {
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLong => "manifest_too_long",
            Self::Malformed(_) => "manifest_malformed",
            Self::Delegation(error) => error.code(),
            Self::KeyUnknown => "manifest_key_unknown",
            Self::SignatureInvalid => "manifest_signature_invalid",
        }
    }
}

impl From<Malformed> for ManifestError {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error)
    }
}

impl From<DelegationError> for ManifestError {
    fn from(error: DelegationError) -> Self {
        Self::Delegation(error)
    }
}

impl From<Distrust> for ManifestError {
    fn from(distrust: Distrust) -> Self {
        match distrust {
            Distrust::KeyUnknown => Self::KeyUnknown,
            Distrust::SignatureInvalid => Self::SignatureInvalid,
        }
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the manifest is longer than {MAX_MANIFEST_BYTES} bytes"),
            Self::Malformed(part) => write!(f, "the manifest is {part}"),
            Self::Delegation(error) => error.fmt(f),
            Self::KeyUnknown => f.write_str("the manifest is signed with a key that no root delegated to"),
            Self::SignatureInvalid => f.write_str("the signature of the manifest is invalid"),
        }
    }
}

impl core::error::Error for ManifestError {}

/// One edge holds it several times and every waiting request carries it: kept under a page.
pub const MAX_MANIFEST_BYTES: usize = 4096;

pub(crate) const MAGIC: &[u8; 4] = b"KSM2";

pub(crate) const CONTEXT: Context = b"keystile-manifest-v2\0";
