//! A block of the base: which credentials it covers, and the shards that contain their status.
//!
//! ```text
//!  8  expires from, seconds since the Unix epoch
//!  8  expires before, likewise; 2^64 - 1: no end, and credentials without expiry belong to this block too
//!  2  number of ranges of the coverage
//!     each, ascending, without overlap within one kid:
//!        1  n, length of the kid
//!        n  kid
//!        8  issued from, seconds since the Unix epoch
//!        8  issued until, likewise, inclusive
//!  1  bits: there are 2^bits shards, at most 1,024
//!     each: 4  size of the shard, at most 64 KiB
//!          32  SHA-256 of its bytes
//! ```
//! Outside its coverage a shard gives arbitrary answers, so it is never queried there.

use alloc::{string::String, vec::Vec};

use crate::{
    Entry,
    codec::{Malformed, Reader},
    object::MAX_OBJECT_BYTES,
};

/// The largest clock difference that a policy can allow.
const MAX_LEEWAY_SECONDS: u64 = 300;

/// 36 KiB of entries: 33 million members of the smaller set, at 32k per shard.
pub(crate) const MAX_BLOCK_BITS: u8 = 10;

/// The range of expiry times of the credentials in a block, in seconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExpiryRange {
    /// The earliest expiry, inclusive.
    pub expires_from: u64,
    /// The latest expiry, exclusive. `u64::MAX` means no end, and includes credentials that never expire.
    pub expires_before: u64,
}

impl ExpiryRange {
    /// Returns whether the range contains `expiry`. `None` is a credential that never expires.
    pub fn contains(&self, expiry: Option<u64>) -> bool {
        let expiry = expiry.unwrap_or(u64::MAX);
        expiry >= self.expires_from && (expiry < self.expires_before || self.expires_before == u64::MAX)
    }

    /// Returns whether every credential in the range has expired, even with the largest clock difference. `now` is in
    /// milliseconds since the Unix epoch.
    pub(crate) fn has_expired(&self, now: u64) -> bool {
        self.expires_before != u64::MAX
            && self.expires_before.saturating_add(MAX_LEEWAY_SECONDS).saturating_mul(1000) <= now
    }
}

/// The credentials of one key that were issued within a range of seconds: a block covers exactly these.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Coverage {
    /// The `kid` of the signing key.
    pub kid: String,
    /// The first second, inclusive, since the Unix epoch.
    pub iat_low: u64,
    /// The last second, inclusive, since the Unix epoch.
    pub iat_high: u64,
}

/// The head of a block, validated completely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    expiry_range: ExpiryRange,
    coverage: Vec<Coverage>,
    shards: Vec<Entry>,
}

impl Block {
    pub(crate) fn decode(bytes: &[u8], number: u16) -> Result<Self, Malformed> {
        let mut rest = Reader(bytes);
        let expiry_range = ExpiryRange {
            expires_from: rest.u64("expires from")?,
            expires_before: rest.u64("expires before")?,
        };
        if expiry_range.expires_before <= expiry_range.expires_from {
            return Err(Malformed("expires before"));
        }
        let mut coverage: Vec<Coverage> = Vec::new();
        for _ in 0..rest.u16("number of ranges")? {
            let range = Coverage {
                kid: rest.text("kid")?.into(),
                iat_low: rest.u64("issued from")?,
                iat_high: rest.u64("issued until")?,
            };
            let follows = |last: &Coverage| {
                last.kid < range.kid || (last.kid == range.kid && last.iat_high < range.iat_low)
            };
            if range.iat_high < range.iat_low || !coverage.last().is_none_or(follows) {
                return Err(Malformed("order of the coverage"));
            }
            coverage.push(range);
        }
        let bits = rest.u8("shard bits")?;
        if bits > MAX_BLOCK_BITS {
            return Err(Malformed("shard bits"));
        }
        let mut shards = Vec::new();
        for shard in 0..1u16 << bits {
            let size = rest.u32("size of a shard")?;
            if size > MAX_OBJECT_BYTES {
                return Err(Malformed("size of a shard"));
            }
            shards.push(Entry::for_base_shard(number, shard, size, rest.array("hash of a shard")?));
        }
        rest.finish()?;
        Ok(Self { expiry_range, coverage, shards })
    }

    /// Returns the range of expiry times.
    pub const fn expiry_range(&self) -> ExpiryRange {
        self.expiry_range
    }

    /// Returns the covered ranges of issuance, in ascending order.
    pub fn coverage(&self) -> &[Coverage] {
        &self.coverage
    }

    /// Returns the entries of the shards, in order.
    pub(crate) fn shards(&self) -> &[Entry] {
        &self.shards
    }

    /// Returns whether the block covers the credential. `iat` and `expiry` are in seconds since the Unix epoch.
    pub(crate) fn covers(&self, kid: &str, iat: u64, expiry: Option<u64>) -> bool {
        let starts_before = |range: &Coverage| (range.kid.as_str(), range.iat_low) <= (kid, iat);
        let after = self.coverage.partition_point(starts_before);
        let range = after.checked_sub(1).and_then(|at| self.coverage.get(at));
        self.expiry_range.contains(expiry)
            && range.is_some_and(|range| range.kid == kid && iat <= range.iat_high)
    }
}

/// Encodes the head of a block. Returns `None` if a length does not fit its field.
#[cfg(feature = "builder")]
pub(crate) fn encode(
    expiry_range: ExpiryRange,
    coverage: &[Coverage],
    bits: u8,
    shards: &[(u32, [u8; 32])],
) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    out.extend(expiry_range.expires_from.to_be_bytes());
    out.extend(expiry_range.expires_before.to_be_bytes());
    out.extend(u16::try_from(coverage.len()).ok()?.to_be_bytes());
    for Coverage { kid, iat_low, iat_high } in coverage {
        out.push(u8::try_from(kid.len()).ok()?);
        out.extend(kid.as_bytes());
        out.extend(iat_low.to_be_bytes());
        out.extend(iat_high.to_be_bytes());
    }
    out.push(bits);
    for (size, sha256) in shards {
        out.extend(size.to_be_bytes());
        out.extend(sha256);
    }
    Some(out)
}
