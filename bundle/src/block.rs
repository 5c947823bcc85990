//! A block of the base: of which credentials it knows, and the shards that tell.
//!
//! ```text
//!  8  expires from, seconds since the Unix epoch
//!  8  expires before, likewise; 2^64 - 1: never, and what has no expiry belongs here too
//!  2  number of ranges of the coverage
//!     each, ascending, of one kid without overlap:
//!        1  n, length of the kid
//!        n  kid
//!        8  issued from, seconds since the Unix epoch
//!        8  issued until, likewise, included
//!  1  bits: there are 2^bits shards, at most 1,024
//!     each: 4  size of the shard, at most 64 KiB
//!          32  SHA-256 of its bytes
//! ```
//! Outside its coverage a shard answers at random, so it is never asked.

use alloc::{string::String, vec::Vec};

use crate::{
    Entry,
    codec::{Malformed, Reader},
    object::MAX_OBJECT_BYTES,
};

/// When the credentials of a block expire: seconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub expires_from: u64,
    /// Not included, but for `u64::MAX`, which is never.
    pub expires_before: u64,
}

impl Span {
    /// None: never.
    pub fn contains(&self, expiry: Option<u64>) -> bool {
        let expiry = expiry.unwrap_or(u64::MAX);
        expiry >= self.expires_from && (expiry < self.expires_before || self.expires_before == u64::MAX)
    }

    /// Whether nothing in it can be alive, `now` in milliseconds: every edge allows for some difference of clocks.
    pub(crate) fn is_over(&self, now: u64) -> bool {
        self.expires_before != u64::MAX
            && self.expires_before.saturating_add(LEEWAY_SECONDS).saturating_mul(1000) <= now
    }
}

/// All credentials with this `kid` issued within these seconds, both included.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Coverage {
    pub kid: String,
    pub iat_low: u64,
    pub iat_high: u64,
}

/// The head of a block, checked through to its last byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    span: Span,
    coverage: Vec<Coverage>,
    shards: Vec<Entry>,
}

impl Block {
    pub(crate) fn read(bytes: &[u8], number: u16) -> Result<Self, Malformed> {
        let mut rest = Reader(bytes);
        let span =
            Span { expires_from: rest.u64("expires from")?, expires_before: rest.u64("expires before")? };
        if span.expires_before <= span.expires_from {
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
            shards.push(Entry::of_base(number, shard, size, rest.array("hash of a shard")?));
        }
        rest.end()?;
        Ok(Self { span, coverage, shards })
    }

    pub const fn span(&self) -> Span {
        self.span
    }

    pub fn coverage(&self) -> &[Coverage] {
        &self.coverage
    }

    /// The entries of its shards, in order.
    pub(crate) fn shards(&self) -> &[Entry] {
        &self.shards
    }

    /// Whether its shards know the credential.
    pub(crate) fn covers(&self, kid: &str, iat: u64, expiry: Option<u64>) -> bool {
        let name = |range: &Coverage| (range.kid.as_str(), range.iat_low) <= (kid, iat);
        let after = self.coverage.partition_point(name);
        let range = after.checked_sub(1).and_then(|at| self.coverage.get(at));
        self.span.contains(expiry) && range.is_some_and(|range| range.kid == kid && iat <= range.iat_high)
    }
}

#[cfg(feature = "builder")]
pub(crate) fn write(
    span: Span,
    coverage: &[Coverage],
    bits: u8,
    shards: &[(u32, [u8; 32])],
) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    out.extend(span.expires_from.to_be_bytes());
    out.extend(span.expires_before.to_be_bytes());
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

/// What clocks are allowed to differ by in any policy.
const LEEWAY_SECONDS: u64 = 300;

/// 36 KiB of shards: 33 million members of the smaller set at 32k each.
pub(crate) const MAX_BLOCK_BITS: u8 = 10;
