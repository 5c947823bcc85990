//! Revocation sets for comparison: how each one is encoded, loaded and queried, natively and in wasm.
//!
//! The benchmark builds them, checks every result natively, and measures the same code in V8.

mod club;
mod rice;
mod universe;
#[cfg(target_family = "wasm")]
pub mod wasm;

pub use club::{Card, Item, flat};
pub use rice::Rice;
pub use universe::{Universe, fingerprint};

use bundle::base::RibbonShard;
use sha2::{Digest, Sha256};
use token::Fingerprint;
use xorf::{BinaryFuse8Ref, BinaryFuse16Ref, Filter, FilterRef};

/// The data structures, as files and calls name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No structure: measures the cost of the query loop.
    Nothing,
    /// Keystile's base: shards in their order.
    Base,
    /// The first 64 bits of each fingerprint, sorted.
    Prefixes,
    /// Exceptions and descriptor, then a filter with 8 bits per member.
    Fuse8,
    Fuse16,
    /// Exceptions, then the Rice-coded list.
    Rice,
    Clubcard,
}

impl Kind {
    pub const ALL: [Self; 7] =
        [Self::Nothing, Self::Base, Self::Prefixes, Self::Fuse8, Self::Fuse16, Self::Rice, Self::Clubcard];
}

/// A set of revoked fingerprints.
#[derive(Debug)]
pub struct Set {
    kind: Kind,
    shards: Vec<RibbonShard>,
    /// The objects of the structures that are not Keystile's, unchanged.
    objects: Vec<Vec<u8>>,
    /// Revoked fingerprints, or valid ones for which a filter gives a false positive.
    sorted: Vec<u64>,
    rice: Rice,
    card: Option<Card>,
}

impl Set {
    pub fn new(kind: Kind) -> Self {
        let rice = Rice::default();
        Self { kind, shards: Vec::new(), objects: Vec::new(), sorted: Vec::new(), rice, card: None }
    }

    /// Loads one object as an edge does: hashes it, decodes it and stores it. An edge compares the hash with a manifest.
    pub fn open(&mut self, object: Vec<u8>) -> [u8; 32] {
        let hash = Sha256::digest(&object).into();
        let first = self.objects.is_empty();
        match self.kind {
            Kind::Nothing => {}
            Kind::Base => {
                let shard = u16::try_from(self.shards.len()).expect("at most 2^16 shards");
                self.shards.push(RibbonShard::decode(object, shard).expect("a shard that was built"));
            }
            Kind::Prefixes => self.sorted = words(&object),
            Kind::Clubcard => self.card = Some(Card::read(&object)),
            Kind::Rice if !first => self.rice = Rice::read(object),
            Kind::Fuse8 | Kind::Fuse16 if !first => self.objects.push(object),
            Kind::Rice | Kind::Fuse8 | Kind::Fuse16 => {
                let (descriptor, exceptions) = object.split_at(DESCRIPTOR);
                self.sorted = words(exceptions);
                self.objects.push(descriptor.to_vec());
            }
        }
        hash
    }

    pub fn contains(&self, fingerprint: &Fingerprint) -> bool {
        let prefix = fingerprint.prefix();
        match self.kind {
            Kind::Nothing => prefix == 0,
            Kind::Base => {
                let bits = self.shards.len().trailing_zeros();
                let shard = prefix.checked_shr(64 - bits).unwrap_or(0);
                self.shards[usize::try_from(shard).expect("a shard")].contains(fingerprint)
            }
            Kind::Prefixes => self.sorted.binary_search(&prefix).is_ok(),
            Kind::Fuse8 => {
                let filter = BinaryFuse8Ref::from_dma(&self.objects[0], &self.objects[1]);
                filter.contains(&prefix) && self.sorted.binary_search(&prefix).is_err()
            }
            Kind::Fuse16 => {
                let filter = BinaryFuse16Ref::from_dma(&self.objects[0], &self.objects[1]);
                filter.contains(&prefix) && self.sorted.binary_search(&prefix).is_err()
            }
            Kind::Rice => self.rice.contains(prefix) && self.sorted.binary_search(&prefix).is_err(),
            Kind::Clubcard => self.card.as_ref().is_some_and(|card| card.contains(fingerprint)),
        }
    }

    /// Returns the memory that the set uses, in bytes.
    pub fn bytes(&self) -> usize {
        let shards = self.shards.iter().map(|shard| shard.bytes().len() + size_of::<RibbonShard>());
        let objects = self.objects.iter().map(Vec::len);
        let card = self.card.as_ref().map_or(0, Card::bytes);
        shards.sum::<usize>() + objects.sum::<usize>() + 8 * self.sorted.len() + self.rice.bytes() + card
    }
}

/// Returns the first object of a filter: its descriptor, if it has one, and the sorted exceptions.
pub fn head(descriptor: [u8; DESCRIPTOR], exceptions: &[u64]) -> Vec<u8> {
    [&descriptor[..], &bytes(exceptions)].concat()
}

pub fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

/// The descriptor of xorf's filters.
pub const DESCRIPTOR: usize = 20;
