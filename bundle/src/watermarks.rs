//! Watermarks: every credential of a scope that was issued at or before an instant is refused.
//!
//! ```text
//!  1  bits: the set is divided into 2^bits shards by leading bits
//!     each, ascending: 16  scope
//!                       8  instant, seconds since the Unix epoch
//! ```

use alloc::vec::Vec;
use core::fmt;

use sha2::{Digest, Sha256};

#[cfg(feature = "builder")]
use crate::foreign_name::is_ambiguous_to_older_edges;
use crate::{
    codec::{Malformed, Reader},
    shards::{Sharded, check_bits, shard_of},
};

/// Bytes of one watermark.
const ROW_LEN: usize = 24;

/// The credentials that a watermark applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope<'a> {
    /// Every credential.
    Global,
    /// The credentials signed by the key with this `kid`.
    SigningKey(&'a str),
    /// The credentials of this operator.
    Operator(&'a str),
    /// The credentials of this subject: operator and user.
    User(&'a str),
    /// The credentials issued for this AuthKey.
    AuthKey(&'a str),
    /// The credentials of this session.
    Session(&'a str),
    /// The tokens with this `iss` of another issuer.
    Issuer(&'a str),
    /// The tokens of a client of another issuer. Like the next two a [`foreign_name`](crate::foreign_name).
    Client(&'a str),
    /// The tokens of a session of another issuer.
    IssuerSession(&'a str),
    /// The token of another issuer with this id.
    TokenId(&'a str),
}

impl<'a> Scope<'a> {
    /// Returns the kind and the id, as they appear in the store, in the audit log, and in the hash.
    pub const fn kind_and_id(self) -> (&'static str, &'a str) {
        match self {
            Self::Global => ("global", ""),
            Self::SigningKey(id) => ("signing_key", id),
            Self::Operator(id) => ("operator", id),
            Self::User(id) => ("user", id),
            Self::AuthKey(id) => ("auth_key", id),
            Self::Session(id) => ("session", id),
            Self::Issuer(issuer) => ("issuer", issuer),
            Self::Client(id) => ("client", id),
            Self::IssuerSession(id) => ("issuer_session", id),
            Self::TokenId(id) => ("token_id", id),
        }
    }

    /// Returns whether edges of a version without [`Requirements::HOLDERS`](crate::Requirements::HOLDERS) would not, or
    /// not exactly, apply a watermark or grant of this scope.
    #[cfg(feature = "builder")]
    pub(crate) fn needs_holders(self) -> bool {
        match self {
            Self::Issuer(_) | Self::Client(_) | Self::IssuerSession(_) | Self::TokenId(_) => true,
            Self::User(subject) => is_ambiguous_to_older_edges(subject),
            _ => false,
        }
    }
}

/// A scope as 16 bytes: the first half of the SHA-256 of its kind, a zero byte, and its id.
///
/// An attacker who can choose ids freely needs about 2^64 attempts to find two that collide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeKey([u8; 16]);

impl ScopeKey {
    /// The key of [`Scope::Global`].
    pub const GLOBAL: Self = Self([
        0xf5, 0x19, 0x64, 0x3d, 0x18, 0x14, 0xaa, 0x69, 0x59, 0x29, 0x4f, 0x94, 0xb8, 0xa4, 0x8f, 0xe1,
    ]);

    /// Hashes a scope.
    pub fn new(scope: Scope<'_>) -> Self {
        let (kind, id) = scope.kind_and_id();
        let digest: [u8; 32] =
            Sha256::new().chain_update(kind).chain_update([0]).chain_update(id).finalize().into();
        let mut key = [0; 16];
        key.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Self(key)
    }

    #[cfg(feature = "builder")]
    pub(crate) fn from_words(word: u64, rest: u64) -> Self {
        Self((u128::from(word) << 64 | u128::from(rest)).to_be_bytes())
    }

    pub(crate) const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    #[cfg(feature = "builder")]
    pub(crate) const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Returns the leading word, which selects the shard.
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
        Self::new(scope)
    }
}

/// One shard of the watermarks: the encoded bytes, validated completely.
#[derive(Clone)]
pub struct WatermarkShard {
    bytes: Vec<u8>,
    bits: u8,
}

impl WatermarkShard {
    pub(crate) fn decode(bytes: Vec<u8>, shard: u16) -> Result<Self, Malformed> {
        let mut rest = Reader(&bytes);
        let bits = check_bits(rest.u8("shard bits")?, shard)?;
        let (rows, []) = rest.0.as_chunks::<ROW_LEN>() else {
            return Err(Malformed("length of the watermarks"));
        };
        let ascending = rows.is_sorted_by(|before, after| decode_row(before).0 < decode_row(after).0);
        if !ascending || rows.iter().any(|row| shard_of(decode_row(row).0.word(), bits) != shard) {
            return Err(Malformed("order of the watermarks"));
        }
        Ok(Self { bytes, bits })
    }

    /// Returns the watermark of the scope, in seconds since the Unix epoch.
    pub(crate) fn instant(&self, scope: ScopeKey) -> Option<u64> {
        let rows = self.bytes.get(1..)?.as_chunks::<ROW_LEN>().0;
        // Many deployments have no watermarks.
        if rows.is_empty() {
            return None;
        }
        let at = rows.binary_search_by_key(&scope, |row| decode_row(row).0).ok()?;
        rows.get(at).map(|row| decode_row(row).1)
    }
}

impl Sharded for WatermarkShard {
    fn bits(&self) -> u8 {
        self.bits
    }
}

impl fmt::Debug for WatermarkShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WatermarkShard({} bytes)", self.bytes.len())
    }
}

/// Encodes a shard. The scopes must be in strictly ascending order and belong to it.
#[cfg(feature = "builder")]
pub(crate) fn encode(bits: u8, watermarks: &[(ScopeKey, u64)]) -> Vec<u8> {
    let mut out = Vec::from([bits]);
    for (scope, instant) in watermarks {
        out.extend(scope.0);
        out.extend(instant.to_be_bytes());
    }
    out
}

fn decode_row(row: &[u8; ROW_LEN]) -> (ScopeKey, u64) {
    let (scope, instant) = row.split_at(16);
    let instant = instant.try_into().map_or(u64::MAX, u64::from_be_bytes);
    (ScopeKey(scope.try_into().unwrap_or_default()), instant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn global_scope_key_matches_its_hash() {
        assert_eq!(ScopeKey::new(Scope::Global), ScopeKey::GLOBAL);
    }
}
