//! The manifest: the signed list of everything that belongs to one version of a bundle.

use alloc::vec::Vec;
use core::{cmp::Ordering, fmt};

use crate::{
    Delegation, DelegationError, Entry, ObjectKind, PublicKey, Regression,
    codec::{Malformed, Reader},
    key::{Context, SignatureError, split_signature, verify},
    object::decode_entries,
};

/// Size of the longest manifest, in bytes. Every response to a waiting edge contains one, so it fits one memory page.
pub const MAX_MANIFEST_BYTES: usize = 4096;

/// The first bytes of a manifest.
pub(crate) const MAGIC: &[u8; 4] = b"KSM2";

/// The domain separation prefix of its signature.
pub(crate) const CONTEXT: Context = b"keystile-manifest-v2\0";

/// A manifest with a valid signature by a tail key that a pinned root key has authorized for this audience.
///
/// It names one checkpoint and the segments of the tail, and nothing else: a tail key alone can add revocations to what a
/// snapshot key has signed, but cannot remove any.
///
/// ```text
///  0   4  "KSM2"
///  4   8  tail key id: the first 8 bytes of the SHA-256 of the public key
/// 12   8  version
/// 20   8  issued at, milliseconds since the Unix epoch
/// 28   8  expires at, likewise
/// 36   2  d, length of the delegation
/// 38   d  delegation
///      2  number of entries
///     40  each entry, strictly ascending: one checkpoint, then the segments of the tail
///     64  Ed25519 (RFC 8032) over "keystile-manifest-v2\0" and all preceding bytes
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
    /// Verifies and decodes a manifest. There is no other constructor.
    ///
    /// # Errors
    ///
    /// [`ManifestError`] if the bytes are malformed, or if the delegation or the signature does not verify under one of
    /// `roots` for `audience`. Expiry is not checked, because this crate has no clock.
    ///
    /// # Examples
    ///
    /// ```
    /// use bundle::{Entry, Manifest, ObjectKind};
    /// use bundle::builder::{DelegationFields, ManifestFields, RootKey, SnapshotKey, TailKey};
    ///
    /// // The control plane signs.
    /// let (root, snapshot_key, tail_key) =
    ///     (RootKey::new(&[1; 32]), SnapshotKey::new(&[2; 32]), TailKey::new(&[3; 32]));
    /// let delegation = root.delegate(&DelegationFields {
    ///     audience: "production",
    ///     epoch: 1,
    ///     issued_at: 1_700_000_000_000,
    ///     expires_at: 1_800_000_000_000,
    ///     snapshot_keys: &[snapshot_key.public_key()],
    ///     tail_keys: &[tail_key.public_key()],
    /// })?;
    /// let checkpoint = Entry::for_bytes(ObjectKind::Checkpoint, 0, b"a signed checkpoint").unwrap();
    /// let bytes = tail_key.sign(&ManifestFields {
    ///     delegation: &delegation,
    ///     version: 42,
    ///     issued_at: 1_700_000_000_000,
    ///     expires_at: 1_700_000_060_000,
    ///     checkpoint,
    ///     tail: &[],
    /// })?;
    ///
    /// // The edge pins the root key and opens manifests of its own audience only.
    /// let roots = [root.public_key()];
    /// let manifest = Manifest::open(&bytes, &roots, "production")?;
    /// assert_eq!((manifest.version(), manifest.checkpoint()), (42, &checkpoint));
    /// assert_eq!(
    ///     Manifest::open(&bytes, &roots, "staging").unwrap_err().code(),
    ///     "delegation_audience_mismatch",
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(bytes: &[u8], roots: &[PublicKey], audience: &str) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLong);
        }
        let (body, signature) = split_signature(bytes)?;
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
        let entries =
            decode_entries(&mut rest, |kind| matches!(kind, ObjectKind::Checkpoint | ObjectKind::Tail))?;
        rest.finish()?;
        if expires_at <= issued_at {
            return Err(Malformed("expires at").into());
        }
        let (checkpoint, tail) = entries.split_first().ok_or(Malformed("checkpoint"))?;
        if checkpoint.kind() != ObjectKind::Checkpoint
            || tail.iter().any(|entry| entry.kind() != ObjectKind::Tail)
        {
            return Err(Malformed("checkpoint").into());
        }
        let (checkpoint, tail) = (*checkpoint, tail.into());
        Ok(Self { bytes: bytes.into(), delegation, version, issued_at, expires_at, checkpoint, tail })
    }

    /// Returns the bytes that [`open`](Self::open) verified.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the delegation within the manifest.
    pub const fn delegation(&self) -> &Delegation {
        &self.delegation
    }

    /// Returns the audience of the bundle.
    pub fn audience(&self) -> &str {
        self.delegation.audience()
    }

    /// Returns the version, which increases with every change of the content. Signing the same content again keeps it.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Returns the time of signing, in milliseconds since the Unix epoch.
    pub const fn issued_at(&self) -> u64 {
        self.issued_at
    }

    /// Returns the expiry, in milliseconds since the Unix epoch.
    pub const fn expires_at(&self) -> u64 {
        self.expires_at
    }

    /// Returns the entry of the checkpoint.
    pub const fn checkpoint(&self) -> &Entry {
        &self.checkpoint
    }

    /// Returns the entries of the tail segments, in order.
    pub fn tail(&self) -> &[Entry] {
        &self.tail
    }

    /// Checks that an edge with the manifest `held` may replace it by this one: it has a higher version, or the same
    /// version with a later time of signing, or a higher epoch, in which versions restart.
    ///
    /// # Errors
    ///
    /// [`Regression::Epoch`] or [`Regression::Version`].
    pub fn check_successor_of(&self, held: &Self) -> Result<(), Regression> {
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

/// Why a manifest does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestError {
    /// It is longer than [`MAX_MANIFEST_BYTES`].
    TooLong,
    /// The bytes do not have the format of a manifest.
    Malformed(Malformed),
    /// Its delegation does not open.
    Delegation(DelegationError),
    /// The delegation names no tail key with the id of the signing key.
    KeyUnknown,
    /// The signature is not valid.
    SignatureInvalid,
}

impl ManifestError {
    /// Returns the stable code for metrics and logs.
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

impl From<SignatureError> for ManifestError {
    fn from(error: SignatureError) -> Self {
        match error {
            SignatureError::KeyUnknown => Self::KeyUnknown,
            SignatureError::SignatureInvalid => Self::SignatureInvalid,
        }
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the manifest is longer than {MAX_MANIFEST_BYTES} bytes"),
            Self::Malformed(part) => write!(f, "the manifest is {part}"),
            Self::Delegation(error) => error.fmt(f),
            Self::KeyUnknown => {
                f.write_str("the manifest is signed by a key that its delegation does not name")
            }
            Self::SignatureInvalid => f.write_str("the signature of the manifest is invalid"),
        }
    }
}

impl core::error::Error for ManifestError {}
