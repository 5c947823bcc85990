//! What the control plane publishes and edges read: one signed manifest and the immutable objects it names by hash.
//!
//! ```text
//! bytes --Manifest::open(keys, audience)--> Manifest --entries()--> Entry --open(bytes)--> Object
//!                                              |                                             |
//!                                              +------------- Snapshot::assemble ------------+
//! ```
//!
//! A signature check is the only door: unverified bytes have another type, and an object opens only through the entry
//! of a verified manifest, which holds its hash. All numbers are big-endian; trailing bytes are refused everywhere.
//!
//! Nothing here knows the time, a network or randomness: they are arguments.
#![no_std]
#![forbid(unsafe_code)]
// This runs inside the proxy, where a panic takes a worker down.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unwrap_used
    )
)]

extern crate alloc;

pub mod base;
#[cfg(feature = "builder")]
pub mod builder;
mod carried;
mod codec;
mod grants;
mod keys;
mod manifest;
mod object;
mod revocations;
mod shards;
mod snapshot;
mod watermarks;

pub use carried::Carried;
pub use codec::Malformed;
pub use grants::MAX_GRANT_BYTES;
pub use manifest::{BadPublisherKey, MAX_MANIFEST_BYTES, Manifest, ManifestError, PublisherKey};
pub use object::{Entry, Kind, MAX_OBJECT_BYTES, Object, ObjectError};
pub use snapshot::{Incomplete, Objects, Snapshot, Standing};
pub use watermarks::{Scope, ScopeKey};
