//! The operations since the cut, in segments that grow in three steps, so that one more costs an edge one small object.
//!
//! ```text
//! | at most 4,096 | ... | a multiple of 256 | fewer than 256 |
//! ```

use alloc::{collections::BTreeSet, sync::Arc, vec::Vec};
use core::ops::Range;

use super::{TooLarge, cut::encoded};
use crate::{Entry, Kind, MAX_OBJECT_BYTES, ScopeKey, codec::write_varint};

#[derive(Default)]
pub(super) struct Tail {
    operations: Vec<Operation>,
    revoked: BTreeSet<u64>,
    /// By the operations they hold.
    segments: Vec<(Range<usize>, Segment)>,
    last: u64,
}

type Segment = (Entry, Arc<[u8]>);

struct Operation {
    number: u64,
    what: What,
}

#[derive(Clone, Copy)]
pub(super) enum What {
    Revoke(u64),
    Raise(ScopeKey, u64),
}

impl Tail {
    pub(super) fn len(&self) -> usize {
        self.operations.len()
    }

    /// The number of the last operation there ever was.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// A prefix that is revoked already stays where it is.
    pub(super) fn add(&mut self, number: u64, what: What) {
        if let What::Revoke(prefix) = what
            && !self.revoked.insert(prefix)
        {
            return;
        }
        self.last = self.last.max(number);
        self.operations.push(Operation { number: self.last, what });
    }

    /// Forgets all operations, not the number of the last one.
    pub(super) fn clear(&mut self, cut: u64) {
        *self = Self { last: self.last.max(cut), ..Self::default() };
    }

    pub(super) fn encode(&mut self) -> Result<impl Iterator<Item = &Segment>, TooLarge> {
        let mut held = core::mem::take(&mut self.segments);
        for (range, shard) in self.ranges().into_iter().zip(0..) {
            let known = held.iter().position(|(known, (entry, _))| *known == range && entry.shard() == shard);
            let segment = match known {
                Some(at) => held.swap_remove(at).1,
                None => {
                    let operations = self.operations.get(range.clone()).unwrap_or_default();
                    encoded(Kind::Tail, shard, write(operations).ok_or(TooLarge)?)?
                }
            };
            self.segments.push((range, segment));
        }
        Ok(self.segments.iter().map(|(_, segment)| segment))
    }

    /// Which operations stand together.
    fn ranges(&self) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        let (mut start, mut bytes, mut last) = (0, 0, 0);
        for (at, operation) in self.operations.iter().enumerate() {
            let more = operation.most_bytes(last);
            if at - start == SEGMENT || bytes + more > MOST_BYTES {
                ranges.push(start..at);
                (start, bytes) = (at, 0);
            }
            bytes += more;
            last = operation.number;
        }
        let end = self.operations.len();
        let middle = end - (end - start) % NEWEST;
        ranges.extend([start..middle, middle..end].into_iter().filter(|range| !range.is_empty()));
        ranges
    }
}

impl Operation {
    fn head(&self, before: u64) -> u64 {
        let what = match self.what {
            What::Revoke(_) => 0,
            What::Raise(..) => 1,
        };
        ((self.number - before) << 1) | what
    }

    fn most_bytes(&self, before: u64) -> usize {
        let head = 70 - usize::try_from(self.head(before).leading_zeros()).unwrap_or(0);
        let body = match self.what {
            What::Revoke(_) => 8,
            What::Raise(..) => 24,
        };
        head / 7 + 1 + body
    }
}

fn write(operations: &[Operation]) -> Option<Vec<u8>> {
    let mut last = operations.first()?.number;
    let mut out = Vec::from(last.to_be_bytes());
    out.extend(u16::try_from(operations.len()).ok()?.to_be_bytes());
    for operation in operations {
        write_varint(&mut out, operation.head(last));
        match operation.what {
            What::Revoke(prefix) => out.extend(prefix.to_be_bytes()),
            What::Raise(scope, instant) => {
                out.extend(scope.bytes());
                out.extend(instant.to_be_bytes());
            }
        }
        last = operation.number;
    }
    Some(out)
}

/// What one more operation costs an edge to fetch: at most 2.5 KiB.
const NEWEST: usize = 256;

/// 41 KiB of revocations; when there are more, the next checkpoint is due.
pub(super) const SEGMENT: usize = 4096;

/// Watermarks are larger: fewer stand together.
const MOST_BYTES: usize = MAX_OBJECT_BYTES as usize - 64;
