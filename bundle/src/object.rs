//! Objects and the entries that name them by hash.

use alloc::{string::String, sync::Arc, vec::Vec};
use core::fmt;

use sha2::{Digest, Sha256};

use crate::{
    Block, Checkpoint, Delegation, Gap, Requirements, base,
    codec::{Malformed, Reader},
    gaps, grants,
    key::SignatureError,
    keys, revocations, tail, watermarks,
};

/// Size of the largest object, in bytes. An edge hashes an object without interruption, and 64 KiB take 0.4 ms in wasm
/// (measured, 176 MB/s), so no request is delayed for long.
pub const MAX_OBJECT_BYTES: u32 = 64 * 1024;

/// The kind of an object. Its code on the wire includes a version of the format, so that formats can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// The public keys that verify tokens and API keys.
    Keys,
    /// Symmetric keys. The only secret kind: edges fetch it over the authenticated channel.
    SecretKeys,
    /// One shard of the revoked fingerprints.
    Revocations,
    /// One shard of the watermarks.
    Watermarks,
    /// Further entries of a checkpoint that has many.
    Index,
    /// One shard of the grants.
    Grants,
    /// The signed state, see [`Checkpoint`].
    Checkpoint,
    /// One segment of the operations since the checkpoint.
    Tail,
    /// One shard of the un-revoked fingerprints, which override the base.
    Unrevocations,
    /// The head of a block of the base, see [`Block`].
    Block,
    /// One shard of a block of the base.
    Base,
    /// The ranges of issuance with partial records, see [`Gap`].
    Gaps,
    /// One shard of the known fingerprints of credentials that were issued in a gap.
    Known,
    /// What an edge must be able to do to apply the bundle, see [`Requirements`].
    Requirements,
}

impl ObjectKind {
    const ALL: [Self; 14] = [
        Self::Keys,
        Self::SecretKeys,
        Self::Revocations,
        Self::Watermarks,
        Self::Index,
        Self::Grants,
        Self::Checkpoint,
        Self::Tail,
        Self::Unrevocations,
        Self::Block,
        Self::Base,
        Self::Gaps,
        Self::Known,
        Self::Requirements,
    ];

    /// Returns the code on the wire: the kind, then the version of its format.
    const fn code(self) -> [u8; 2] {
        match self {
            Self::Keys => [1, 2],
            Self::SecretKeys => [2, 2],
            Self::Revocations => [3, 1],
            Self::Watermarks => [4, 1],
            Self::Index => [5, 1],
            Self::Grants => [6, 1],
            Self::Checkpoint => [7, 1],
            Self::Tail => [8, 1],
            Self::Unrevocations => [9, 1],
            Self::Block => [10, 1],
            Self::Base => [11, 1],
            Self::Gaps => [12, 1],
            Self::Known => [13, 1],
            Self::Requirements => [14, 1],
        }
    }

    /// Returns the name of the kind in the names of slots, which edges and caches persist.
    const fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::SecretKeys => "secret-keys",
            Self::Revocations => "revocations",
            Self::Watermarks => "watermarks",
            Self::Index => "index",
            Self::Grants => "grants",
            Self::Checkpoint => "checkpoint",
            Self::Tail => "tail",
            Self::Unrevocations => "restorations",
            Self::Block => "block",
            Self::Base => "base",
            Self::Gaps => "gaps",
            Self::Known => "known",
            Self::Requirements => "requirements",
        }
    }

    /// Returns whether an index may name objects of this kind, because a set can have many of them.
    pub(crate) const fn is_indexed(self) -> bool {
        matches!(
            self,
            Self::Revocations | Self::Watermarks | Self::Grants | Self::Unrevocations | Self::Known
        )
    }

    fn decode(code: [u8; 2]) -> Result<Self, Malformed> {
        let known = Self::ALL.into_iter().find(|kind| kind.code() == code);
        known.ok_or(Malformed("unknown kind or format of an object"))
    }
}

/// Names an object by its hash. Comes from a verified manifest or an object that it names; blocks name their shards in
/// another format.
///
/// ```text
///  0   1  kind
///  1   1  version of its format
///  2   2  shard
///  4   4  size in bytes, at most 64 KiB
///  8  32  SHA-256 of the bytes
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    kind: ObjectKind,
    /// For a shard of the base, the number of its block; otherwise 0.
    block: u16,
    shard: u16,
    size: u32,
    sha256: [u8; 32],
}

impl Entry {
    /// Returns the kind of the object.
    pub const fn kind(&self) -> ObjectKind {
        self.kind
    }

    /// Returns the number of the shard, segment or block, or 0.
    pub const fn shard(&self) -> u16 {
        self.shard
    }

    /// Returns the size of the object, in bytes.
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// Returns the SHA-256 of the object.
    pub const fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// Returns the name of the slot to store the object under. Within one bundle slots are unique. An object of a later
    /// bundle has the slot of the one that it supersedes, and so overwrites it.
    pub fn slot(&self) -> String {
        alloc::format!("{}/{}/{}", self.kind.name(), self.block, self.shard)
    }

    /// Returns the entry of a shard of the base.
    pub(crate) const fn for_base_shard(block: u16, shard: u16, size: u32, sha256: [u8; 32]) -> Self {
        Self { kind: ObjectKind::Base, block, shard, size, sha256 }
    }

    /// Returns the least and the greatest possible entry with the slot of this one.
    pub(crate) const fn slot_range(&self) -> [Self; 2] {
        [Self { size: 0, sha256: [0; 32], ..*self }, Self { size: u32::MAX, sha256: [255; 32], ..*self }]
    }

    /// Verifies the hash of an object and decodes it. There is no other constructor of an [`Object`]. A checkpoint must be
    /// signed by a snapshot key of the delegation.
    ///
    /// # Errors
    ///
    /// [`ObjectError`] if the bytes are not the object that this entry names, or it is malformed.
    pub fn open(&self, bytes: Vec<u8>, delegation: &Delegation) -> Result<Object, ObjectError> {
        if u32::try_from(bytes.len()) != Ok(self.size) {
            return Err(ObjectError::SizeMismatch);
        }
        if <[u8; 32]>::from(Sha256::digest(&bytes)) != self.sha256 {
            return Err(ObjectError::HashMismatch);
        }
        Ok(match self.kind {
            ObjectKind::Keys => Object::Keys(keys::decode_public(&bytes)?),
            ObjectKind::SecretKeys => Object::Keys(keys::decode_secret(&bytes)?),
            ObjectKind::Revocations => {
                Object::Revocations(Arc::new(revocations::PrefixShard::decode(bytes, self.shard)?))
            }
            ObjectKind::Watermarks => {
                Object::Watermarks(Arc::new(watermarks::WatermarkShard::decode(bytes, self.shard)?))
            }
            ObjectKind::Index => Object::Index(decode_index(&bytes)?),
            ObjectKind::Grants => Object::Grants(Arc::new(grants::GrantShard::decode(bytes, self.shard)?)),
            ObjectKind::Checkpoint => Object::Checkpoint(Arc::new(Checkpoint::open(&bytes, delegation)?)),
            ObjectKind::Tail => Object::Tail(Arc::new(tail::TailSegment::decode(&bytes)?)),
            ObjectKind::Unrevocations => {
                Object::Unrevocations(Arc::new(revocations::PrefixShard::decode(bytes, self.shard)?))
            }
            ObjectKind::Block => Object::Block(Arc::new(Block::decode(&bytes, self.shard)?)),
            ObjectKind::Base => Object::Base(Arc::new(base::RibbonShard::decode(bytes, self.shard)?)),
            ObjectKind::Gaps => Object::Gaps(gaps::decode(&bytes)?),
            ObjectKind::Known => {
                Object::Known(Arc::new(revocations::PrefixShard::decode(bytes, self.shard)?))
            }
            ObjectKind::Requirements => Object::Requirements(Requirements::decode(&bytes)?),
        })
    }

    /// Returns the entry of an object, or `None` if it is longer than [`MAX_OBJECT_BYTES`].
    #[cfg(feature = "builder")]
    pub fn for_bytes(kind: ObjectKind, shard: u16, bytes: &[u8]) -> Option<Self> {
        let size = u32::try_from(bytes.len()).ok().filter(|size| *size <= MAX_OBJECT_BYTES)?;
        Some(Self { kind, block: 0, shard, size, sha256: Sha256::digest(bytes).into() })
    }

    #[cfg(feature = "builder")]
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let Self { kind, block: _, shard, size, sha256 } = self;
        out.extend(kind.code());
        out.extend(shard.to_be_bytes());
        out.extend(size.to_be_bytes());
        out.extend(sha256);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let entry = Self {
            kind: ObjectKind::decode(from.array("kind of an object")?)?,
            block: 0,
            shard: from.u16("shard of an object")?,
            size: from.u32("size of an object")?,
            sha256: from.array("hash of an object")?,
        };
        if entry.size > MAX_OBJECT_BYTES { Err(Malformed("size of an object")) } else { Ok(entry) }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes) {}", self.slot(), self.size, token::Fingerprint::from(self.sha256))
    }
}

/// A decoded object with the hash from a verified manifest, validated completely.
#[derive(Debug, Clone)]
pub enum Object {
    /// [`ObjectKind::Keys`] or [`ObjectKind::SecretKeys`].
    Keys(keys::Keys),
    /// [`ObjectKind::Revocations`].
    Revocations(Arc<revocations::PrefixShard>),
    /// [`ObjectKind::Watermarks`].
    Watermarks(Arc<watermarks::WatermarkShard>),
    /// [`ObjectKind::Index`].
    Index(Vec<Entry>),
    /// [`ObjectKind::Grants`].
    Grants(Arc<grants::GrantShard>),
    /// [`ObjectKind::Checkpoint`].
    Checkpoint(Arc<Checkpoint>),
    /// [`ObjectKind::Tail`].
    Tail(Arc<tail::TailSegment>),
    /// [`ObjectKind::Unrevocations`].
    Unrevocations(Arc<revocations::PrefixShard>),
    /// [`ObjectKind::Block`].
    Block(Arc<Block>),
    /// [`ObjectKind::Base`].
    Base(Arc<base::RibbonShard>),
    /// [`ObjectKind::Gaps`].
    Gaps(Vec<Gap>),
    /// [`ObjectKind::Known`].
    Known(Arc<revocations::PrefixShard>),
    /// [`ObjectKind::Requirements`].
    Requirements(Requirements),
}

/// Why an object does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectError {
    /// The size is not the one in the entry.
    SizeMismatch,
    /// The SHA-256 is not the one in the entry.
    HashMismatch,
    /// The bytes do not have the format of the kind.
    Malformed(Malformed),
    /// The delegation names no snapshot key with the id of the key that signed the checkpoint.
    KeyUnknown,
    /// The signature of the checkpoint is not valid.
    SignatureInvalid,
    /// The checkpoint is for another audience.
    AudienceMismatch,
}

impl ObjectError {
    /// Returns the stable code for metrics and logs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::SizeMismatch => "object_size_mismatch",
            Self::HashMismatch => "object_hash_mismatch",
            Self::Malformed(_) => "object_malformed",
            Self::KeyUnknown => "checkpoint_key_unknown",
            Self::SignatureInvalid => "checkpoint_signature_invalid",
            Self::AudienceMismatch => "checkpoint_audience_mismatch",
        }
    }
}

impl From<Malformed> for ObjectError {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error)
    }
}

impl From<SignatureError> for ObjectError {
    fn from(error: SignatureError) -> Self {
        match error {
            SignatureError::KeyUnknown => Self::KeyUnknown,
            SignatureError::SignatureInvalid => Self::SignatureInvalid,
        }
    }
}

impl fmt::Display for ObjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SizeMismatch => f.write_str("the object does not have the size in its entry"),
            Self::HashMismatch => f.write_str("the object does not have the hash in its entry"),
            Self::Malformed(part) => write!(f, "the object is {part}"),
            Self::KeyUnknown => {
                f.write_str("the checkpoint is signed by a key that the delegation does not name")
            }
            Self::SignatureInvalid => f.write_str("the signature of the checkpoint is invalid"),
            Self::AudienceMismatch => f.write_str("the checkpoint is for another audience"),
        }
    }
}

impl core::error::Error for ObjectError {}

/// Reads a number of entries and then the entries, in strictly ascending order of kind and shard.
pub(crate) fn decode_entries(
    from: &mut Reader<'_>,
    is_allowed: impl Fn(ObjectKind) -> bool,
) -> Result<Vec<Entry>, Malformed> {
    let count = from.u16("number of entries")?;
    let mut entries: Vec<Entry> = Vec::new();
    for _ in 0..count {
        let entry = Entry::decode(from)?;
        if !is_allowed(entry.kind) {
            return Err(Malformed("kind of an entry"));
        }
        if entries.last().is_some_and(|last| (last.kind, last.shard) >= (entry.kind, entry.shard)) {
            return Err(Malformed("order of the entries"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// Appends the number of entries and the entries. Returns `None` if there are too many.
#[cfg(feature = "builder")]
pub(crate) fn encode_entries(out: &mut Vec<u8>, entries: &[Entry]) -> Option<()> {
    out.extend(u16::try_from(entries.len()).ok()?.to_be_bytes());
    entries.iter().for_each(|entry| entry.encode(out));
    Some(())
}

fn decode_index(bytes: &[u8]) -> Result<Vec<Entry>, Malformed> {
    let mut rest = Reader(bytes);
    // An index names no other index: one level is enough, and a cycle is impossible.
    let entries = decode_entries(&mut rest, ObjectKind::is_indexed)?;
    rest.finish()?;
    Ok(entries)
}
