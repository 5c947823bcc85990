//! Watermarks: every credential of a scope issued at or before an instant is refused.
//!
//! ```text
//!  1  bits: the set is cut into 2^bits shards by leading bits
//!     each, ascending: 16  scope
//!                       8  instant, seconds since the Unix epoch
//! ```

use alloc::vec::Vec;
use core::fmt;

use sha2::{Digest, Sha256};

use crate::{
    codec::{Malformed, Reader},
    shards::{Bits, checked_bits, shard_of},
};

/// What a watermark is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope<'a> {
    Global,
    /// The `kid` of a signing key.
    SigningKey(&'a str),
    Operator(&'a str),
    /// The subject: operator and user.
    User(&'a str),
    AuthKey(&'a str),
    Session(&'a str),
}

impl<'a> Scope<'a> {
    /// Its name in the store, in the audit log and in what is hashed.
    pub const fn parts(self) -> (&'static str, &'a str) {
        match self {
            Self::Global => ("global", ""),
            Self::SigningKey(id) => ("signing_key", id),
            Self::Operator(id) => ("operator", id),
            Self::User(id) => ("user", id),
            Self::AuthKey(id) => ("auth_key", id),
            Self::Session(id) => ("session", id),
        }
    }
}

/// A scope in 16 bytes: the first half of SHA-256 over its kind, a zero byte and its id.
///
/// Whoever could choose ids freely would have to try 2^64 of them for two that collide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeKey([u8; 16]);

impl ScopeKey {
    /// Of [`Scope::Global`], which every credential belongs to.
    pub const GLOBAL: Self = Self([
        0xf5, 0x19, 0x64, 0x3d, 0x18, 0x14, 0xaa, 0x69, 0x59, 0x29, 0x4f, 0x94, 0xb8, 0xa4, 0x8f, 0xe1,
    ]);

    pub fn of(scope: Scope<'_>) -> Self {
        let (kind, id) = scope.parts();
        let digest: [u8; 32] =
            Sha256::new().chain_update(kind).chain_update([0]).chain_update(id).finalize().into();
        let mut key = [0; 16];
        key.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Self(key)
    }

    #[cfg(feature = "builder")]
    pub(crate) fn new(word: u64, rest: u64) -> Self {
        Self((u128::from(word) << 64 | u128::from(rest)).to_be_bytes())
    }

    pub(crate) const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    #[cfg(feature = "builder")]
    pub(crate) const fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// The leading word, by which the set is cut.
    pub(crate) const fn word(&self) -> u64 {
        let [word, _] = self.words();
        word
    }

    pub(crate) const fn words(&self) -> [u64; 2] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.0;
        [u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes([i, j, k, l, m, n, o, p])]
    }
}

impl From<Scope<'_>> for ScopeKey {
    fn from(scope: Scope<'_>) -> Self {
        Self::of(scope)
    }
}

/// One shard, checked through to its last byte, in the bytes it came in.
#[derive(Clone)]
pub struct Shard {
    bytes: Vec<u8>,
    bits: u8,
}

impl Shard {
    pub(crate) fn read(bytes: Vec<u8>, shard: u16) -> Result<Self, Malformed> {
        let mut rest = Reader(&bytes);
        let bits = checked_bits(rest.u8("shard bits")?, shard)?;
        let (rows, []) = rest.0.as_chunks::<ROW>() else { return Err(Malformed("length of the watermarks")) };
        let ascending = rows.is_sorted_by(|before, after| split(before).0 < split(after).0);
        if !ascending || rows.iter().any(|row| shard_of(split(row).0.word(), bits) != shard) {
            return Err(Malformed("order of the watermarks"));
        }
        Ok(Self { bytes, bits })
    }

    pub(crate) fn instant(&self, scope: ScopeKey) -> Option<u64> {
        let rows = self.bytes.get(1..)?.as_chunks::<ROW>().0;
        let at = rows.binary_search_by_key(&scope, |row| split(row).0).ok()?;
        rows.get(at).map(|row| split(row).1)
    }
}

impl Bits for Shard {
    fn bits(&self) -> u8 {
        self.bits
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "watermarks::Shard({} bytes)", self.bytes.len())
    }
}

/// Scopes must ascend and belong to the shard.
#[cfg(feature = "builder")]
pub(crate) fn write(bits: u8, watermarks: &[(ScopeKey, u64)]) -> Vec<u8> {
    let mut out = Vec::from([bits]);
    for (scope, instant) in watermarks {
        out.extend(scope.0);
        out.extend(instant.to_be_bytes());
    }
    out
}

fn split(row: &[u8; ROW]) -> (ScopeKey, u64) {
    let (scope, instant) = row.split_at(16);
    let instant = instant.try_into().map_or(u64::MAX, u64::from_be_bytes);
    (ScopeKey(scope.try_into().unwrap_or_default()), instant)
}

const ROW: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scope_of_all_is_hashed_as_every_other() {
        assert_eq!(ScopeKey::of(Scope::Global), ScopeKey::GLOBAL);
    }
}
