//! Revocation sets beside each other: what each of them is on the wire, opened and asked, natively and in wasm.
//!
//! The benchmark builds them, checks every answer natively, and times the same code in V8.

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

/// The structures, as they are told apart in files and calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// None at all: what asking costs by itself.
    Nothing,
    /// Keystile's: shards, in their order.
    Base,
    /// 64 bits of each, sorted.
    Prefixes,
    /// Exceptions and descriptor, then the filter; so are those of 16 bits.
    Fuse8,
    Fuse16,
    /// Exceptions, then the list.
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
    /// Of what is not Keystile's: as they came.
    objects: Vec<Vec<u8>>,
    /// Revoked ones, or those which a filter takes for revoked and which are good.
    sorted: Vec<u64>,
    rice: Rice,
    card: Option<Card>,
}

impl Set {
    pub fn new(kind: Kind) -> Self {
        let rice = Rice::default();
        Self { kind, shards: Vec::new(), objects: Vec::new(), sorted: Vec::new(), rice, card: None }
    }

    /// Takes one object as an edge would: hash it, open it, keep it. The hash is what a manifest would be compared with.
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

    /// What it holds on to.
    pub fn bytes(&self) -> usize {
        let shards = self.shards.iter().map(|shard| shard.bytes().len() + size_of::<RibbonShard>());
        let objects = self.objects.iter().map(Vec::len);
        let card = self.card.as_ref().map_or(0, Card::bytes);
        shards.sum::<usize>() + objects.sum::<usize>() + 8 * self.sorted.len() + self.rice.bytes() + card
    }
}

/// The first object of a filter: its descriptor, if it has one, and the sorted exceptions.
pub fn head(descriptor: [u8; DESCRIPTOR], exceptions: &[u64]) -> Vec<u8> {
    [&descriptor[..], &bytes(exceptions)].concat()
}

pub fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

/// Of xorf's filters.
pub const DESCRIPTOR: usize = 20;
