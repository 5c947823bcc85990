//! Builds a block of the base from a stream of its members.

use alloc::{sync::Arc, vec::Vec};
use core::fmt;

use sha2::{Digest, Sha256};
use token::Fingerprint;

use crate::{
    Coverage, Entry, ExpiryRange, Malformed,
    base::{self, BuildError, shard_bits},
    block::{self, MAX_BLOCK_BITS},
    shards::shard_of,
};

/// Builds a block from its members, which are added in ascending order of the first 64 bits of their fingerprints. Keeps
/// only the members of one shard in memory at a time.
#[derive(Debug)]
pub struct BlockBuilder {
    expiry_range: ExpiryRange,
    coverage: Vec<Coverage>,
    bits: u8,
    seed: Vec<u8>,
    last_prefix: u64,
    revoked: Vec<Fingerprint>,
    good: Vec<Fingerprint>,
    shards: Vec<EncodedShard>,
    /// The block that this one replaces.
    previous: Option<BuiltBlock>,
    members: u64,
    total_revoked: u64,
}

impl BlockBuilder {
    /// Starts a block. `revoked` and `good` are the approximate numbers of members, from which the number of shards
    /// follows; the bytes of the block depend on that number, the members, and `seed`.
    ///
    /// # Errors
    ///
    /// [`BlockError::InvalidCoverage`] or [`BlockError::TooManyMembers`].
    pub fn new(
        expiry_range: ExpiryRange,
        mut coverage: Vec<Coverage>,
        revoked: usize,
        good: usize,
        seed: &[u8],
    ) -> Result<Self, BlockError> {
        coverage.sort_unstable();
        let bits = shard_bits(revoked, good);
        // Decode the head as an edge does, before the expensive work begins.
        let head = block::encode(expiry_range, &coverage, 0, &[(0, [0; 32])]);
        head.and_then(|head| block::Block::decode(&head, 0).ok()).ok_or(BlockError::InvalidCoverage)?;
        if bits > MAX_BLOCK_BITS {
            return Err(BlockError::TooManyMembers);
        }
        Ok(Self {
            expiry_range,
            coverage,
            bits,
            seed: seed.into(),
            last_prefix: 0,
            revoked: Vec::new(),
            good: Vec::new(),
            shards: Vec::new(),
            previous: None,
            members: 0,
            total_revoked: 0,
        })
    }

    /// Returns the builder with a block that this one replaces. A shard of it that is right for all members is used again,
    /// so that it is neither built nor downloaded again.
    #[must_use]
    pub fn replacing(self, previous: BuiltBlock) -> Self {
        Self { previous: Some(previous).filter(|previous| previous.bits == self.bits), ..self }
    }

    /// Adds a member of the block, and whether it is revoked.
    ///
    /// # Errors
    ///
    /// [`BlockError::OutOfOrder`], or [`BlockError::Shard`] if this member completes a shard that cannot be built.
    pub fn add(&mut self, fingerprint: Fingerprint, revoked: bool) -> Result<(), BlockError> {
        let prefix = fingerprint.prefix();
        if prefix < self.last_prefix {
            return Err(BlockError::OutOfOrder(fingerprint));
        }
        self.last_prefix = prefix;
        while self.shards.len() < usize::from(shard_of(prefix, self.bits)) {
            self.finish_shard()?;
        }
        self.members += 1;
        self.total_revoked += u64::from(revoked);
        if revoked { &mut self.revoked } else { &mut self.good }.push(fingerprint);
        Ok(())
    }

    /// Builds the remaining shards and returns the block.
    ///
    /// # Errors
    ///
    /// [`BlockError::Shard`] if a shard cannot be built.
    pub fn finish(mut self) -> Result<BuiltBlock, BlockError> {
        while self.shards.len() < 1 << self.bits {
            self.finish_shard()?;
        }
        let Self { expiry_range, coverage, bits, shards, members, total_revoked: revoked, .. } = self;
        Ok(BuiltBlock { expiry_range, coverage, bits, shards, members, revoked })
    }

    fn finish_shard(&mut self) -> Result<(), BlockError> {
        let number = self.shards.len();
        let shard = u16::try_from(number).map_err(|_| BlockError::TooManyMembers)?;
        let held = self.previous.as_ref().and_then(|previous| previous.shards.get(number));
        let encoded = match held.filter(|held| held.is_right_for(shard, &self.revoked, &self.good)) {
            Some(held) => held.clone(),
            // `build_shard` verifies the shard for every member.
            None => {
                let (revoked, good) = (self.revoked.iter().copied(), self.good.iter().copied());
                let built = base::build_shard(self.bits, shard, &self.seed, revoked, good)
                    .map_err(BlockError::Shard)?;
                EncodedShard::new(built.bytes())
            }
        };
        self.revoked.clear();
        self.good.clear();
        self.shards.push(encoded);
        Ok(())
    }
}

/// A complete block, ready to be installed in a [`Builder`](super::Builder).
#[derive(Clone, PartialEq, Eq)]
pub struct BuiltBlock {
    expiry_range: ExpiryRange,
    coverage: Vec<Coverage>,
    bits: u8,
    shards: Vec<EncodedShard>,
    members: u64,
    revoked: u64,
}

impl BuiltBlock {
    /// Returns the range of expiry times.
    pub const fn expiry_range(&self) -> ExpiryRange {
        self.expiry_range
    }

    /// Returns the covered ranges of issuance, in ascending order.
    pub fn coverage(&self) -> &[Coverage] {
        &self.coverage
    }

    /// Returns the number of members.
    pub const fn member_count(&self) -> u64 {
        self.members
    }

    /// Returns the number of revoked members.
    pub const fn revoked_count(&self) -> u64 {
        self.revoked
    }

    /// Returns the total size of the shards, in bytes.
    pub fn shard_bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.bytes.len()).sum()
    }

    /// Returns whether a member is revoked. For any other fingerprint the result is arbitrary.
    pub fn contains(&self, member: &Fingerprint) -> bool {
        let shard = shard_of(member.prefix(), self.bits);
        let bytes = self.shards.get(usize::from(shard)).map(|shard| shard.bytes.to_vec());
        let shard = bytes.and_then(|bytes| base::RibbonShard::decode(bytes, shard).ok());
        shard.is_none_or(|shard| shard.contains(member))
    }

    /// Serializes the block for storage: the number of members, the number of revoked ones, the length of the head (8
    /// bytes each, big-endian), the head in the format that edges read, and the shards in order.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let head = self.head().unwrap_or_default();
        for number in [self.members, self.revoked, head.len() as u64] {
            out.extend(number.to_be_bytes());
        }
        out.extend(head);
        self.shards.iter().for_each(|shard| out.extend(&*shard.bytes));
        out
    }

    /// Deserializes a block.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the bytes are not a block, or a shard does not have the hash in the head.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut rest = crate::codec::Reader(bytes);
        let (members, revoked) = (rest.u64("members")?, rest.u64("revoked")?);
        let length =
            usize::try_from(rest.u64("length of the head")?).map_err(|_| Malformed("length of the head"))?;
        let head = block::Block::decode(rest.bytes(length, "head")?, 0)?;
        let mut shards = Vec::new();
        for entry in head.shards() {
            let size = usize::try_from(entry.size()).map_err(|_| Malformed("size of a shard"))?;
            let shard = EncodedShard::new(rest.bytes(size, "shard")?);
            if shard.sha256 != *entry.sha256() {
                return Err(Malformed("hash of a shard"));
            }
            shards.push(shard);
        }
        rest.finish()?;
        let bits = u8::try_from(shards.len().trailing_zeros()).map_err(|_| Malformed("shards"))?;
        Ok(Self {
            expiry_range: head.expiry_range(),
            coverage: head.coverage().into(),
            bits,
            shards,
            members,
            revoked,
        })
    }

    /// Encodes the head. Never `None`, because [`BlockBuilder::new`] checks the size of the coverage.
    pub(super) fn head(&self) -> Option<Vec<u8>> {
        let shards: Vec<_> = self.shards.iter().map(|shard| (shard.size(), shard.sha256)).collect();
        block::encode(self.expiry_range, &self.coverage, self.bits, &shards)
    }

    /// Returns the shards with their entries, for the block with this number.
    pub(super) fn objects(&self, number: u16) -> impl Iterator<Item = (Entry, Arc<[u8]>)> {
        self.shards.iter().zip(0..=u16::MAX).map(move |(shard, at)| {
            (Entry::for_base_shard(number, at, shard.size(), shard.sha256), Arc::clone(&shard.bytes))
        })
    }
}

impl fmt::Debug for BuiltBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expiry_range, coverage, members, revoked, .. } = self;
        write!(
            f,
            "BuiltBlock({expiry_range:?}, {coverage:?}, {revoked} revoked of {members}, {} bytes)",
            self.shard_bytes()
        )
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct EncodedShard {
    bytes: Arc<[u8]>,
    sha256: [u8; 32],
}

impl EncodedShard {
    fn new(bytes: &[u8]) -> Self {
        Self { bytes: bytes.into(), sha256: Sha256::digest(bytes).into() }
    }

    /// Returns whether the shard gives the right answer for every member.
    fn is_right_for(&self, shard: u16, revoked: &[Fingerprint], good: &[Fingerprint]) -> bool {
        base::RibbonShard::decode(self.bytes.to_vec(), shard).is_ok_and(|shard| {
            revoked.iter().all(|member| shard.contains(member))
                && !good.iter().any(|member| shard.contains(member))
        })
    }

    /// Returns the size in bytes, which is at most [`MAX_OBJECT_BYTES`](crate::MAX_OBJECT_BYTES).
    fn size(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }
}

/// Why a block cannot be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockError {
    /// A range of the coverage or the range of expiry times is empty, ranges overlap, or a kid is longer than 255 bytes.
    InvalidCoverage,
    /// The block would need more shards than it can have.
    TooManyMembers,
    /// This fingerprint sorts before the one added last.
    OutOfOrder(Fingerprint),
    /// A shard cannot be built.
    Shard(BuildError),
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidCoverage => f.write_str(
                "the expiry range or the coverage of the block is empty, overlaps or is too large",
            ),
            Self::TooManyMembers => f.write_str("the block has too many members; divide it by expiry time"),
            Self::OutOfOrder(fingerprint) => write!(f, "the fingerprint {fingerprint} is out of order"),
            Self::Shard(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for BlockError {}
