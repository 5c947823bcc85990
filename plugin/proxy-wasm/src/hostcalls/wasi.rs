//! Calls of WASI for what the proxy-wasm ABI does not have: the environment variables that the configuration of the
//! VM passes on, and random bytes. Every proxy-wasm host has these calls, because modules that other compilers make
//! do not start without them. The SDK has no wrappers for them, and the standard library makes them only in the WASI
//! targets.

const SUCCESS: u32 = 0;

/// By default, Linux gives a process 2 MiB for its arguments and environment, of which a host passes on a few
/// variables.
const MAX_BYTES: usize = 1 << 20;

/// Returns the environment as a block of `NAME=value` entries, each terminated by a zero byte. The block is empty if
/// the host does not have one, or has more than [`MAX_BYTES`].
pub(crate) fn environment() -> Vec<u8> {
    let (mut count, mut size) = (0_usize, 0_usize);
    // SAFETY: the host writes both numbers during the call.
    let status = unsafe { environ_sizes_get(&raw mut count, &raw mut size) };
    if status != SUCCESS || count > MAX_BYTES || size > MAX_BYTES {
        return Vec::new();
    }
    // An empty vector has no valid address, so each has an entry more.
    let mut entries = vec![0_usize; count.saturating_add(1)];
    let mut block = vec![0_u8; size.saturating_add(1)];
    // SAFETY: the host writes `count` addresses and `size` bytes during the call, and there is room for both.
    let status = unsafe { environ_get(entries.as_mut_ptr(), block.as_mut_ptr()) };
    if status == SUCCESS { block } else { Vec::new() }
}

/// Returns random bytes, or `None` if the host has none.
pub(crate) fn random() -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    // SAFETY: the host writes `bytes.len()` bytes during the call.
    let status = unsafe { random_get(bytes.as_mut_ptr(), bytes.len()) };
    (status == SUCCESS).then_some(bytes)
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn environ_sizes_get(count: *mut usize, size: *mut usize) -> u32;
    fn environ_get(entries: *mut usize, block: *mut u8) -> u32;
    fn random_get(buffer: *mut u8, size: usize) -> u32;
}
