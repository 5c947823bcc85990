//! Builds the tail: the operations since the checkpoint, in segments of three sizes, so that a new operation costs an
//! edge one small object.
//!
//! ```text
//! | at most 4,096 | ... | a multiple of 256 | fewer than 256 |
//! ```

use alloc::{collections::BTreeSet, sync::Arc, vec::Vec};
use core::ops::Range;

use super::{TooLarge, sharded_set::encode_object};
use crate::{Entry, MAX_OBJECT_BYTES, ObjectKind, ScopeKey, codec::encode_varint};

/// Operations in the newest segment: at most 2.5 KiB, which an edge fetches for each new operation.
const SEGMENT_STEP: usize = 256;

/// 41 KiB of revocations. A longer tail requires a checkpoint.
pub(super) const MAX_SEGMENT_OPERATIONS: usize = 4096;

/// Limits segments of watermarks, which are larger than revocations.
const MAX_SEGMENT_BYTES: usize = MAX_OBJECT_BYTES as usize - 64;

/// The operations since the last checkpoint and their encoded segments.
#[derive(Default)]
pub(super) struct TailBuilder {
    operations: Vec<Operation>,
    revoked: BTreeSet<u64>,
    /// With the range of operations that each contains.
    segments: Vec<(Range<usize>, EncodedSegment)>,
    last: u64,
}

type EncodedSegment = (Entry, Arc<[u8]>);

struct Operation {
    /// The number of the transaction.
    number: u64,
    kind: OperationKind,
}

#[derive(Clone, Copy)]
pub(super) enum OperationKind {
    Revoke(u64),
    RaiseWatermark(ScopeKey, u64),
}

impl TailBuilder {
    /// Returns the number of operations.
    pub(super) fn len(&self) -> usize {
        self.operations.len()
    }

    /// Returns the number of the last operation, including those before the checkpoint.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// Appends an operation, unless it revokes a prefix that the tail already revokes. `number` is the number of the
    /// transaction; one that is below the last counts as the last.
    pub(super) fn add(&mut self, number: u64, kind: OperationKind) {
        if let OperationKind::Revoke(prefix) = kind
            && !self.revoked.insert(prefix)
        {
            return;
        }
        self.last = self.last.max(number);
        self.operations.push(Operation { number: self.last, kind });
    }

    /// Removes all operations; the number of the last one is kept.
    pub(super) fn clear(&mut self, covered_until: u64) {
        *self = Self { last: self.last.max(covered_until), ..Self::default() };
    }

    /// Encodes the segments that have changed and returns all of them.
    pub(super) fn encode(&mut self) -> Result<impl Iterator<Item = &EncodedSegment>, TooLarge> {
        let mut held = core::mem::take(&mut self.segments);
        for (range, shard) in self.ranges().into_iter().zip(0..) {
            let known = held.iter().position(|(known, (entry, _))| *known == range && entry.shard() == shard);
            let segment = match known {
                Some(at) => held.swap_remove(at).1,
                None => {
                    let operations = self.operations.get(range.clone()).unwrap_or_default();
                    encode_object(ObjectKind::Tail, shard, encode(operations).ok_or(TooLarge)?)?
                }
            };
            self.segments.push((range, segment));
        }
        Ok(self.segments.iter().map(|(_, segment)| segment))
    }

    /// Divides the operations into segments.
    fn ranges(&self) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        let (mut start, mut bytes, mut last) = (0, 0, 0);
        for (at, operation) in self.operations.iter().enumerate() {
            let more = operation.max_encoded_len(last);
            if at - start == MAX_SEGMENT_OPERATIONS || bytes + more > MAX_SEGMENT_BYTES {
                ranges.push(start..at);
                (start, bytes) = (at, 0);
            }
            bytes += more;
            last = operation.number;
        }
        let end = self.operations.len();
        let middle = end - (end - start) % SEGMENT_STEP;
        ranges.extend([start..middle, middle..end].into_iter().filter(|range| !range.is_empty()));
        ranges
    }
}

impl Operation {
    /// Returns the number that encodes the kind of the operation and its distance from the one before.
    fn head(&self, before: u64) -> u64 {
        let kind = match self.kind {
            OperationKind::Revoke(_) => 0,
            OperationKind::RaiseWatermark(..) => 1,
        };
        ((self.number - before) << 1) | kind
    }

    /// Returns an upper bound of the encoded size, in bytes.
    fn max_encoded_len(&self, before: u64) -> usize {
        let head = 70 - usize::try_from(self.head(before).leading_zeros()).unwrap_or(0);
        let body = match self.kind {
            OperationKind::Revoke(_) => 8,
            OperationKind::RaiseWatermark(..) => 24,
        };
        head / 7 + 1 + body
    }
}

/// Encodes a segment. Returns `None` if it is empty or has too many operations.
fn encode(operations: &[Operation]) -> Option<Vec<u8>> {
    let mut last = operations.first()?.number;
    let mut out = Vec::from(last.to_be_bytes());
    out.extend(u16::try_from(operations.len()).ok()?.to_be_bytes());
    for operation in operations {
        encode_varint(&mut out, operation.head(last));
        match operation.kind {
            OperationKind::Revoke(prefix) => out.extend(prefix.to_be_bytes()),
            OperationKind::RaiseWatermark(scope, instant) => {
                out.extend(scope.to_bytes());
                out.extend(instant.to_be_bytes());
            }
        }
        last = operation.number;
    }
    Some(out)
}
