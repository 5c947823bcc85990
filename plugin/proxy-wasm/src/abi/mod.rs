//! The proxy-wasm ABI, version 0.2.1: what the host calls here, what is called there, and the memory in between.
//!
//! The SDK is not used: it panics wherever a host answers anything unexpected, exports every callback there is (a host
//! calls each of them for every request) and copies each value twice.
//!
//! Beside it three calls of WASI, which every proxy-wasm host has.
//!
//! All unsafe code of the filter is in this folder.
#![expect(unsafe_code, reason = "the ABI is one of raw pointers")]

#[cfg(target_family = "wasm")]
mod alone;
mod calls;
mod entry;
mod memory;
mod wasi;

pub(crate) use calls::*;
pub(crate) use memory::memory_size;
pub(crate) use wasi::{environment, random};

/// Milliseconds since the Unix epoch. None where the host does not know.
pub(crate) fn now() -> Option<u64> {
    current_time().ok().map(|nanos| nanos.div_euclid(1_000_000))
}
