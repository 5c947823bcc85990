//! What the host hands in: it asks for room first, then says in the return values of a call where it put what.

use alloc::vec::Vec;
use core::{alloc::Layout, cell::Cell, ptr};

/// The room that was handed out last.
struct HandedOut(Cell<(*mut u8, usize)>);

// SAFETY: a VM has one thread.
unsafe impl Sync for HandedOut {}

static HANDED_OUT: HandedOut = HandedOut(Cell::new((ptr::null_mut(), 0)));

#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    let Ok(layout) = Layout::array::<u8>(size) else { return ptr::null_mut() };
    if size == 0 {
        return ptr::null_mut();
    }
    // SAFETY: the size is not 0.
    let data = unsafe { alloc::alloc::alloc(layout) };
    HANDED_OUT.0.set((data, size));
    data
}

/// What this VM has of memory, in bytes: it never gives any back.
pub(crate) fn memory_size() -> u64 {
    #[cfg(target_family = "wasm")]
    let pages = core::arch::wasm32::memory_size(0);
    #[cfg(not(target_family = "wasm"))]
    let pages = 0;
    u64::try_from(pages).unwrap_or_default().saturating_mul(64 * 1024)
}

/// What a call has filled: the room that was handed out during it, or nothing where a host says anything else.
pub(super) fn received(data: *mut u8, size: usize) -> Vec<u8> {
    if data.is_null() || HANDED_OUT.0.replace((ptr::null_mut(), 0)) != (data, size) {
        return Vec::new();
    }
    // SAFETY: allocated above with this size and the layout of bytes, handed out once, and filled by the host.
    unsafe { Vec::from_raw_parts(data, size, size) }
}
