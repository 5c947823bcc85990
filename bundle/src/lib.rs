//! What the control plane publishes and edges read: one signed manifest and the immutable objects it names by hash.
//!
//! ```text
//! root key --signs--> delegation of snapshot keys and tail keys, within every manifest
//!
//! bytes --Manifest::open(roots, audience)--> Manifest --names--> segments of the tail       (tail key: only adds)
//!                                               |
//!                                               +----names--> Checkpoint --names--> the rest  (snapshot key)
//! Entry --Objects::open(bytes)--> Object;  Snapshot::assemble(manifest, objects): all that an edge knows
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
mod block;
#[cfg(feature = "builder")]
pub mod builder;
mod carried;
mod checkpoint;
mod codec;
mod delegation;
mod gaps;
mod grants;
mod key;
mod keys;
mod manifest;
mod object;
mod objects;
mod revocations;
mod shards;
mod snapshot;
mod sorted;
mod tail;
mod watermarks;

pub use block::{Block, Coverage, Span};
pub use carried::Carried;
pub use checkpoint::Checkpoint;
pub use codec::Malformed;
pub use delegation::{Delegation, DelegationError};
pub use gaps::Gap;
pub use grants::MAX_GRANT_BYTES;
pub use key::{BadPublicKey, PublicKey};
pub use manifest::{MAX_MANIFEST_BYTES, Manifest, ManifestError};
pub use object::{Entry, Kind, MAX_OBJECT_BYTES, Object, ObjectError};
pub use objects::Objects;
pub use snapshot::{Incomplete, Regression, Rejected, Snapshot, Standing};
pub use watermarks::{Scope, ScopeKey};
