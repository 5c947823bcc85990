//! No decoder allocates more than a small multiple of its input, regardless of the lengths in it. The inputs have a correct
//! hash, as from a faulty publisher or with stolen keys.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

#[path = "bundle/fixtures.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod fixtures;

use bolero::check;
use bundle::{Coverage, Entry, ExpiryRange, ObjectKind, builder::BlockBuilder};

use crate::fixtures::{builder, fingerprint, open_delegation};

const KINDS: [ObjectKind; 13] = [
    ObjectKind::Keys,
    ObjectKind::SecretKeys,
    ObjectKind::Revocations,
    ObjectKind::Watermarks,
    ObjectKind::Index,
    ObjectKind::Grants,
    ObjectKind::Checkpoint,
    ObjectKind::Tail,
    ObjectKind::Unrevocations,
    ObjectKind::Block,
    ObjectKind::Base,
    ObjectKind::Gaps,
    ObjectKind::Known,
];

/// Counts the bytes that the current thread allocates.
struct CountingAllocator;

thread_local! {
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "allocations can only be observed in the global allocator")]
// SAFETY: every call is forwarded to the system allocator.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.with(|bytes| bytes.set(bytes.get() + layout.size()));
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Overwrites bytes near the start, where lengths are: each at an offset, with one of the values.
type Corruptions = Vec<(u8, CorruptValue)>;

#[derive(Debug, Clone, Copy, bolero::TypeGenerator)]
enum CorruptValue {
    Zero,
    One,
    MaxU8,
    Half,
    MaxU16,
    MaxU32,
}

fn corrupt(bytes: &[u8], corruptions: &Corruptions) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, corruption) in corruptions {
        let (value, width): (u8, usize) = match corruption {
            CorruptValue::Zero => (0, 1),
            CorruptValue::One => (1, 1),
            CorruptValue::MaxU8 => (255, 1),
            CorruptValue::Half => (128, 1),
            CorruptValue::MaxU16 => (255, 2),
            CorruptValue::MaxU32 => (255, 4),
        };
        let at = usize::from(*at) % bytes.len().clamp(1, 64);
        bytes.iter_mut().skip(at).take(width).for_each(|byte| *byte = value);
    }
    bytes
}

#[test]
fn decoders_allocate_in_proportion_to_their_input() {
    let delegation = open_delegation();
    let span = ExpiryRange { expires_from: 5, expires_before: u64::MAX };
    let coverage = vec![Coverage { kid: "k1".into(), iat_low: 0, iat_high: 9 }];
    let mut block = BlockBuilder::new(span, coverage, 40, 900, b"").unwrap();
    let mut members: Vec<u64> = (0..900).collect();
    members.sort_by_key(|number| fingerprint(*number).prefix());
    members.iter().for_each(|number| block.add(fingerprint(*number), *number < 40).unwrap());
    let mut content = builder();
    content.install_block(block.finish().unwrap()).unwrap();
    (0..300).for_each(|number| assert!(content.revoke(1, fingerprint(number)).unwrap()));
    content.checkpoint(1).unwrap();
    content.revoke(2, fingerprint(1_000)).unwrap();
    let valid: Vec<Vec<u8>> =
        content.build().unwrap().objects.iter().map(|(_, bytes)| bytes.to_vec()).collect();
    check!().with_type::<(Vec<u8>, Corruptions, u16)>().for_each(|(arbitrary, corruptions, padding)| {
        let padded = [arbitrary.clone(), vec![0; usize::from(*padding)]].concat();
        let corrupted_inputs = valid.iter().map(|bytes| corrupt(bytes, corruptions));
        for bytes in corrupted_inputs.chain([arbitrary.clone(), corrupt(&padded, corruptions)]) {
            for kind in KINDS {
                let Some(entry) = Entry::for_bytes(kind, 0, &bytes) else { continue };
                let given = bytes.clone();
                let before = BYTES.get();
                let opened = entry.open(given, &delegation);
                let taken = BYTES.get() - before;
                // The allocations of a growing vector are up to four times its size, and 8 bytes can become an entry of 40.
                assert!(
                    taken <= 24 * bytes.len() + 16_384,
                    "{kind:?}: {taken} bytes for {}: {opened:?}",
                    bytes.len()
                );
            }
        }
    });
}
