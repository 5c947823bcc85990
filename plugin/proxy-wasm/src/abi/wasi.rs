//! What WASI gives where proxy-wasm has nothing: the environment variables that the configuration of the VM lets through,
//! and random bytes. Every proxy-wasm host has these calls, as modules of other languages do not start without them.

use alloc::{vec, vec::Vec};

/// The environment as a block of `NAME=value` entries, each ended by a zero byte; empty where the host gives none, or
/// more than [`MAX_BYTES`].
pub(crate) fn environment() -> Vec<u8> {
    let (mut count, mut size) = (0_usize, 0_usize);
    // SAFETY: the host writes both numbers during the call.
    let status = unsafe { environ_sizes_get(&raw mut count, &raw mut size) };
    if status != SUCCESS || count > MAX_BYTES || size > MAX_BYTES {
        return Vec::new();
    }
    // A host that says less than it writes does so outside of these anyway; one entry more keeps the pointers valid.
    let mut entries = vec![0_usize; count.saturating_add(1)];
    let mut block = vec![0_u8; size.saturating_add(1)];
    // SAFETY: the host writes `count` addresses and `size` bytes during the call, both of which there is room for.
    let status = unsafe { environ_get(entries.as_mut_ptr(), block.as_mut_ptr()) };
    if status == SUCCESS { block } else { Vec::new() }
}

/// Random bytes; `None` where the host has none.
pub(crate) fn random() -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    // SAFETY: the host writes the bytes during the call.
    let status = unsafe { random_get(bytes.as_mut_ptr(), bytes.len()) };
    (status == SUCCESS).then_some(bytes)
}

const SUCCESS: u32 = 0;

/// Linux gives a process 2 MiB of arguments and environment by default; a host passes on a few variables.
const MAX_BYTES: usize = 1 << 20;

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn environ_sizes_get(count: *mut usize, size: *mut usize) -> u32;
    fn environ_get(entries: *mut usize, block: *mut u8) -> u32;
    fn random_get(buffer: *mut u8, size: usize) -> u32;
}
