use alloc::{string::String, sync::Arc, vec::Vec};
use core::fmt;

use sha2::{Digest, Sha256};

use crate::{
    Block, Checkpoint, Delegation, Gap, base,
    codec::{Malformed, Reader},
    gaps, grants,
    key::Distrust,
    keys, revocations, tail, watermarks,
};

/// What an object holds. The byte after the kind is the version of its format, so that formats can follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Public keys that tokens are verified with.
    Keys,
    /// Symmetric keys: the one kind that is secret, fetched over the authenticated channel only.
    SecretKeys,
    /// Revoked fingerprints, one shard: sorted 64-bit prefixes.
    Revocations,
    /// Watermarks, one shard.
    Watermarks,
    /// More entries than a checkpoint is to have.
    Index,
    /// What subjects may do, one shard.
    Grants,
    /// What a snapshot key signed.
    Checkpoint,
    /// Operations since the checkpoint.
    Tail,
    /// Fingerprints that are good again whatever the base says, one shard: as revocations.
    Restorations,
    /// What some shards of the base know of.
    Block,
    /// One shard of a block.
    Base,
    /// Spans of issue of which only a part is known.
    Gaps,
    /// Fingerprints that were issued in a gap and are known, one shard: as revocations.
    Known,
}

impl Kind {
    const ALL: [Self; 13] = [
        Self::Keys,
        Self::SecretKeys,
        Self::Revocations,
        Self::Watermarks,
        Self::Index,
        Self::Grants,
        Self::Checkpoint,
        Self::Tail,
        Self::Restorations,
        Self::Block,
        Self::Base,
        Self::Gaps,
        Self::Known,
    ];

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
            Self::Restorations => [9, 1],
            Self::Block => [10, 1],
            Self::Base => [11, 1],
            Self::Gaps => [12, 1],
            Self::Known => [13, 1],
        }
    }

    /// In lower case, as it stands in the names of slots.
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
            Self::Restorations => "restorations",
            Self::Block => "block",
            Self::Base => "base",
            Self::Gaps => "gaps",
            Self::Known => "known",
        }
    }

    /// Whether a set may have so many of them that an index is needed.
    pub(crate) const fn is_indexed(self) -> bool {
        matches!(self, Self::Revocations | Self::Watermarks | Self::Grants | Self::Restorations | Self::Known)
    }

    fn read(code: [u8; 2]) -> Result<Self, Malformed> {
        let known = Self::ALL.into_iter().find(|kind| kind.code() == code);
        known.ok_or(Malformed("unknown kind or format of an object"))
    }
}

/// An object as a verified manifest names it, or what that names. Those of a block stand there in a form of their own.
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
    kind: Kind,
    /// The number of the block that a shard of the base belongs to; 0 of everything else.
    block: u16,
    shard: u16,
    size: u32,
    sha256: [u8; 32],
}

impl Entry {
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    pub const fn shard(&self) -> u16 {
        self.shard
    }

    pub const fn size(&self) -> u32 {
        self.size
    }

    pub const fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// A name for a place to keep it in: no two objects of one bundle share it, those of successive bundles do, so that
    /// what is superseded is overwritten.
    pub fn slot(&self) -> String {
        alloc::format!("{}/{}/{}", self.kind.name(), self.block, self.shard)
    }

    pub(crate) const fn of_base(block: u16, shard: u16, size: u32, sha256: [u8; 32]) -> Self {
        Self { kind: Kind::Base, block, shard, size, sha256 }
    }

    /// The least and the greatest entry that could have the slot of this one.
    pub(crate) const fn slot_range(&self) -> [Self; 2] {
        [Self { size: 0, sha256: [0; 32], ..*self }, Self { size: u32::MAX, sha256: [255; 32], ..*self }]
    }

    /// The only way to an object: its bytes are the ones the manifest names. A checkpoint must be signed by a key of
    /// the delegation.
    pub fn open(&self, bytes: Vec<u8>, delegation: &Delegation) -> Result<Object, ObjectError> {
        if u32::try_from(bytes.len()) != Ok(self.size) {
            return Err(ObjectError::SizeMismatch);
        }
        if <[u8; 32]>::from(Sha256::digest(&bytes)) != self.sha256 {
            return Err(ObjectError::HashMismatch);
        }
        Ok(match self.kind {
            Kind::Keys => Object::Keys(keys::read_public(&bytes)?),
            Kind::SecretKeys => Object::Keys(keys::read_secret(&bytes)?),
            Kind::Revocations => Object::Revocations(Arc::new(revocations::Shard::read(bytes, self.shard)?)),
            Kind::Watermarks => Object::Watermarks(Arc::new(watermarks::Shard::read(bytes, self.shard)?)),
            Kind::Index => Object::Index(read_index(&bytes)?),
            Kind::Grants => Object::Grants(Arc::new(grants::Shard::read(bytes, self.shard)?)),
            Kind::Checkpoint => Object::Checkpoint(Arc::new(Checkpoint::open(&bytes, delegation)?)),
            Kind::Tail => Object::Tail(Arc::new(tail::Segment::read(&bytes)?)),
            Kind::Restorations => {
                Object::Restorations(Arc::new(revocations::Shard::read(bytes, self.shard)?))
            }
            Kind::Block => Object::Block(Arc::new(Block::read(&bytes, self.shard)?)),
            Kind::Base => Object::Base(Arc::new(base::Shard::read(bytes, self.shard)?)),
            Kind::Gaps => Object::Gaps(gaps::read(&bytes)?),
            Kind::Known => Object::Known(Arc::new(revocations::Shard::read(bytes, self.shard)?)),
        })
    }

    /// None if they are too many.
    #[cfg(feature = "builder")]
    pub fn of(kind: Kind, shard: u16, bytes: &[u8]) -> Option<Self> {
        let size = u32::try_from(bytes.len()).ok().filter(|size| *size <= MAX_OBJECT_BYTES)?;
        Some(Self { kind, block: 0, shard, size, sha256: Sha256::digest(bytes).into() })
    }

    #[cfg(feature = "builder")]
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let Self { kind, block: _, shard, size, sha256 } = self;
        out.extend(kind.code());
        out.extend(shard.to_be_bytes());
        out.extend(size.to_be_bytes());
        out.extend(sha256);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let entry = Self {
            kind: Kind::read(from.array("kind of an object")?)?,
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

/// An object whose hash is the one in a verified manifest, checked through to its last byte.
#[derive(Debug, Clone)]
pub enum Object {
    Keys(keys::Keys),
    Revocations(Arc<revocations::Shard>),
    Watermarks(Arc<watermarks::Shard>),
    Index(Vec<Entry>),
    Grants(Arc<grants::Shard>),
    Checkpoint(Arc<Checkpoint>),
    Tail(Arc<tail::Segment>),
    Restorations(Arc<revocations::Shard>),
    Block(Arc<Block>),
    Base(Arc<base::Shard>),
    Gaps(Vec<Gap>),
    Known(Arc<revocations::Shard>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectError {
    SizeMismatch,
    HashMismatch,
    Malformed(Malformed),
    /// Of a checkpoint.
    KeyUnknown,
    /// Of a checkpoint.
    SignatureInvalid,
    /// Of a checkpoint.
    AudienceMismatch,
}

impl ObjectError {
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

impl From<Distrust> for ObjectError {
    fn from(distrust: Distrust) -> Self {
        match distrust {
            Distrust::KeyUnknown => Self::KeyUnknown,
            Distrust::SignatureInvalid => Self::SignatureInvalid,
        }
    }
}

impl fmt::Display for ObjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SizeMismatch => f.write_str("the object has another size than the manifest says"),
            Self::HashMismatch => f.write_str("the object has another hash than the manifest says"),
            Self::Malformed(part) => write!(f, "the object is {part}"),
            Self::KeyUnknown => f.write_str("the checkpoint is signed with a key that no root delegated to"),
            Self::SignatureInvalid => f.write_str("the signature of the checkpoint is invalid"),
            Self::AudienceMismatch => f.write_str("the checkpoint is for another audience"),
        }
    }
}

impl core::error::Error for ObjectError {}

/// An edge hashes an object in one go: 64 KiB take 0.4 ms in wasm (measured, 176 MB/s), so that no request waits long.
pub const MAX_OBJECT_BYTES: u32 = 64 * 1024;

/// A count, then as many entries, each greater than the one before; no two for the same kind and shard.
pub(crate) fn read_entries(
    from: &mut Reader<'_>,
    is_allowed: impl Fn(Kind) -> bool,
) -> Result<Vec<Entry>, Malformed> {
    let count = from.u16("number of entries")?;
    let mut entries: Vec<Entry> = Vec::new();
    for _ in 0..count {
        let entry = Entry::read(from)?;
        if !is_allowed(entry.kind) {
            return Err(Malformed("kind of an object that may not be named here"));
        }
        if entries.last().is_some_and(|last| (last.kind, last.shard) >= (entry.kind, entry.shard)) {
            return Err(Malformed("order of the entries"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

#[cfg(feature = "builder")]
pub(crate) fn write_entries(out: &mut Vec<u8>, entries: &[Entry]) -> Option<()> {
    out.extend(u16::try_from(entries.len()).ok()?.to_be_bytes());
    entries.iter().for_each(|entry| entry.write(out));
    Some(())
}

fn read_index(bytes: &[u8]) -> Result<Vec<Entry>, Malformed> {
    let mut rest = Reader(bytes);
    // No index within an index: one level is enough, more would let a publisher send an edge round in circles.
    let entries = read_entries(&mut rest, Kind::is_indexed)?;
    rest.end()?;
    Ok(entries)
}
