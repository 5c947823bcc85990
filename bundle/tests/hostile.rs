//! What a publisher that went wrong, or the thief of its keys, puts behind a right hash: no decoder takes more memory than
//! a small multiple of what it was given, whatever the numbers in it say.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

#[path = "bundle/world.rs"]
#[expect(dead_code, reason = "the other tests use all of it")]
mod world;

use bolero::check;
use bundle::{Coverage, Entry, Kind, Span, builder::BlockBuilder};

use crate::world::{builder, fingerprint, opened_delegation};

/// Sums what this thread asks for.
struct Counting;

thread_local! {
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "there is no other way to see what is allocated")]
// SAFETY: hands everything on to the allocator of the system.
unsafe impl GlobalAlloc for Counting {
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
static COUNTING: Counting = Counting;

const KINDS: [Kind; 11] = [
    Kind::Keys,
    Kind::SecretKeys,
    Kind::Revocations,
    Kind::Watermarks,
    Kind::Index,
    Kind::Grants,
    Kind::Checkpoint,
    Kind::Tail,
    Kind::Restorations,
    Kind::Block,
    Kind::Base,
];

/// Numbers that lie: at some place in front, one of these instead of what is there.
type Lies = Vec<(u8, Lie)>;

#[derive(Debug, Clone, Copy, bolero::TypeGenerator)]
enum Lie {
    Zero,
    One,
    Most,
    Half,
    TwoOfMost,
    FourOfMost,
}

fn told(bytes: &[u8], lies: &Lies) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, lie) in lies {
        let (value, width): (u8, usize) = match lie {
            Lie::Zero => (0, 1),
            Lie::One => (1, 1),
            Lie::Most => (255, 1),
            Lie::Half => (128, 1),
            Lie::TwoOfMost => (255, 2),
            Lie::FourOfMost => (255, 4),
        };
        let at = usize::from(*at) % bytes.len().clamp(1, 64);
        bytes.iter_mut().skip(at).take(width).for_each(|byte| *byte = value);
    }
    bytes
}

#[test]
fn no_decoder_takes_more_memory_than_it_is_given() {
    let delegation = opened_delegation();
    let span = Span { expires_from: 5, expires_before: u64::MAX };
    let coverage = vec![Coverage { kid: "k1".into(), iat_low: 0, iat_high: 9 }];
    let mut block = BlockBuilder::new(span, coverage, 40, 900, b"").unwrap();
    let mut members: Vec<u64> = (0..900).collect();
    members.sort_by_key(|number| fingerprint(*number).prefix());
    members.iter().for_each(|number| block.add(fingerprint(*number), *number < 40).unwrap());
    let mut content = builder();
    content.install(block.finish().unwrap()).unwrap();
    (0..300).for_each(|number| assert!(content.revoke(1, fingerprint(number)).unwrap()));
    content.settle(1).unwrap();
    content.revoke(2, fingerprint(1_000)).unwrap();
    let valid: Vec<Vec<u8>> =
        content.build().unwrap().objects.iter().map(|(_, bytes)| bytes.to_vec()).collect();
    check!().with_type::<(Vec<u8>, Lies, u16)>().for_each(|(arbitrary, lies, padding)| {
        let padded = [arbitrary.clone(), vec![0; usize::from(*padding)]].concat();
        let lying = valid.iter().map(|bytes| told(bytes, lies));
        for bytes in lying.chain([arbitrary.clone(), told(&padded, lies)]) {
            for kind in KINDS {
                let Some(entry) = Entry::of(kind, 0, &bytes) else { continue };
                let given = bytes.clone();
                let before = BYTES.get();
                let opened = entry.open(given, &delegation);
                let taken = BYTES.get() - before;
                // All that a vector asked for while it grew is up to four times its size, and 8 bytes may be an entry of 40.
                assert!(
                    taken <= 24 * bytes.len() + 16_384,
                    "{kind:?}: {taken} bytes for {}: {opened:?}",
                    bytes.len()
                );
            }
        }
    });
}
