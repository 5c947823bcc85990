//! A block of the base, built while its members are streamed.

use alloc::{sync::Arc, vec::Vec};
use core::fmt;

use sha2::{Digest, Sha256};
use token::Fingerprint;

use crate::{
    Coverage, Entry, Malformed, Span,
    base::{self, BuildError, shard_bits},
    block::{self, MAX_BLOCK_BITS},
    shards::shard_of,
};

/// Takes every credential that a block is to cover, in ascending order of the first 64 bits of the fingerprint, and
/// holds those of one shard at a time.
#[derive(Debug)]
pub struct BlockBuilder {
    span: Span,
    coverage: Vec<Coverage>,
    bits: u8,
    seed: Vec<u8>,
    last: u64,
    revoked: Vec<Fingerprint>,
    good: Vec<Fingerprint>,
    shards: Vec<Shard>,
    members: u64,
    all_revoked: u64,
}

impl BlockBuilder {
    /// `revoked` and `good` are about how many there will be; the bytes depend on the members, the seed, and the number
    /// of shards that follows from these two.
    pub fn new(
        span: Span,
        mut coverage: Vec<Coverage>,
        revoked: usize,
        good: usize,
        seed: &[u8],
    ) -> Result<Self, BlockError> {
        coverage.sort_unstable();
        let bits = shard_bits(revoked, good);
        // Read as an edge would, before a long work is begun.
        let head = block::write(span, &coverage, 0, &[(0, [0; 32])]);
        head.and_then(|head| block::Block::read(&head, 0).ok()).ok_or(BlockError::Coverage)?;
        if bits > MAX_BLOCK_BITS {
            return Err(BlockError::Members);
        }
        Ok(Self {
            span,
            coverage,
            bits,
            seed: seed.into(),
            last: 0,
            revoked: Vec::new(),
            good: Vec::new(),
            shards: Vec::new(),
            members: 0,
            all_revoked: 0,
        })
    }

    pub fn add(&mut self, fingerprint: Fingerprint, revoked: bool) -> Result<(), BlockError> {
        let prefix = fingerprint.prefix();
        if prefix < self.last {
            return Err(BlockError::Order(fingerprint));
        }
        self.last = prefix;
        while self.shards.len() < usize::from(shard_of(prefix, self.bits)) {
            self.close()?;
        }
        self.members += 1;
        self.all_revoked += u64::from(revoked);
        if revoked { &mut self.revoked } else { &mut self.good }.push(fingerprint);
        Ok(())
    }

    pub fn finish(mut self) -> Result<Block, BlockError> {
        while self.shards.len() < 1 << self.bits {
            self.close()?;
        }
        let Self { span, coverage, bits, shards, members, all_revoked: revoked, .. } = self;
        Ok(Block { span, coverage, bits, shards, members, revoked })
    }

    fn close(&mut self) -> Result<(), BlockError> {
        let shard = u16::try_from(self.shards.len()).map_err(|_| BlockError::Members)?;
        let (revoked, good) = (self.revoked.drain(..), self.good.drain(..));
        // Asked about every one of its members before it is given back.
        let built = base::build(self.bits, shard, &self.seed, revoked, good).map_err(BlockError::Shard)?;
        self.shards.push(Shard::of(built.bytes()));
        Ok(())
    }
}

/// A block that can be published.
#[derive(Clone, PartialEq, Eq)]
pub struct Block {
    span: Span,
    coverage: Vec<Coverage>,
    bits: u8,
    shards: Vec<Shard>,
    members: u64,
    revoked: u64,
}

impl Block {
    pub const fn span(&self) -> Span {
        self.span
    }

    pub fn coverage(&self) -> &[Coverage] {
        &self.coverage
    }

    /// Of how many credentials it knows.
    pub const fn members(&self) -> u64 {
        self.members
    }

    /// How many of them are revoked.
    pub const fn revoked(&self) -> u64 {
        self.revoked
    }

    /// What its shards take.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.bytes.len()).sum()
    }

    /// What it says of a member; nothing of any other fingerprint.
    pub fn contains(&self, member: &Fingerprint) -> bool {
        let shard = shard_of(member.prefix(), self.bits);
        let bytes = self.shards.get(usize::from(shard)).map(|shard| shard.bytes.to_vec());
        let shard = bytes.and_then(|bytes| base::Shard::read(bytes, shard).ok());
        shard.is_none_or(|shard| shard.contains(member))
    }

    /// For keeping it: members, revoked, the head as edges read it, and the shards one after the other.
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

    /// Every shard must be what the head says.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut rest = crate::codec::Reader(bytes);
        let (members, revoked) = (rest.u64("members")?, rest.u64("revoked")?);
        let length =
            usize::try_from(rest.u64("length of the head")?).map_err(|_| Malformed("length of the head"))?;
        let head = block::Block::read(rest.bytes(length, "head")?, 0)?;
        let mut shards = Vec::new();
        for entry in head.shards() {
            let size = usize::try_from(entry.size()).map_err(|_| Malformed("size of a shard"))?;
            let shard = Shard::of(rest.bytes(size, "shard")?);
            if shard.sha256 != *entry.sha256() {
                return Err(Malformed("hash of a shard"));
            }
            shards.push(shard);
        }
        rest.end()?;
        let bits = u8::try_from(shards.len().trailing_zeros()).map_err(|_| Malformed("shards"))?;
        Ok(Self { span: head.span(), coverage: head.coverage().into(), bits, shards, members, revoked })
    }

    /// None if the coverage is too large, which was looked at before.
    pub(super) fn head(&self) -> Option<Vec<u8>> {
        let shards: Vec<_> = self.shards.iter().map(|shard| (shard.size(), shard.sha256)).collect();
        block::write(self.span, &self.coverage, self.bits, &shards)
    }

    /// The shards, as those of the block with this number.
    pub(super) fn objects(&self, number: u16) -> impl Iterator<Item = (Entry, Arc<[u8]>)> {
        self.shards.iter().zip(0..=u16::MAX).map(move |(shard, at)| {
            (Entry::of_base(number, at, shard.size(), shard.sha256), Arc::clone(&shard.bytes))
        })
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { span, coverage, members, revoked, .. } = self;
        write!(f, "Block({span:?}, {coverage:?}, {revoked} revoked of {members}, {} bytes)", self.bytes())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Shard {
    bytes: Arc<[u8]>,
    sha256: [u8; 32],
}

impl Shard {
    fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.into(), sha256: Sha256::digest(bytes).into() }
    }

    /// No shard is larger than an object may be.
    fn size(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockError {
    /// Ranges overlap or are empty, the span is, or a kid is longer than 255 bytes.
    Coverage,
    /// More members than a block can have.
    Members,
    /// It comes before the one that was added last.
    Order(Fingerprint),
    Shard(BuildError),
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coverage => {
                f.write_str("the span or the coverage of the block is empty, overlaps or is too large")
            }
            Self::Members => f.write_str("the block has too many members; divide it by expiry"),
            Self::Order(fingerprint) => write!(f, "the fingerprint {fingerprint} is out of order"),
            Self::Shard(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for BlockError {}
