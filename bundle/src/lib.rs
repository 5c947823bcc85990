//! The format of bundles, which the control plane publishes and edges read: one signed manifest and the immutable objects
//! that it names by hash.
//!
//! ```text
//! root key --signs--> Delegation of snapshot keys and tail keys, included in every manifest
//!
//! bytes --Manifest::open(roots, audience)--> Manifest --names--> segments of the tail        (tail key: only additions)
//!                                               |
//!                                               +----names--> Checkpoint --names--> all else (snapshot key)
//! Entry --Objects::open(bytes)--> Object;  Snapshot::assemble(manifest, objects): the assembled bundle of an edge
//! ```
//!
//! Unverified bytes and verified data have different types. A manifest exists only after its signature was verified, and
//! an object opens only through the entry of a verified manifest, which contains its hash. All numbers are big-endian.
//! Trailing bytes are rejected everywhere.
//!
//! The crate has no clock, network or randomness: callers pass the time.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::missing_errors_doc)]
// This code runs inside the proxy, where a panic terminates a worker.
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
mod checkpoint;
mod codec;
mod delegation;
mod foreign_name;
mod gaps;
mod grants;
mod inline;
mod key;
mod keys;
mod manifest;
mod object;
mod objects;
mod requirements;
mod revocations;
mod shards;
mod snapshot;
mod sorted;
mod tail;
mod watermarks;

pub use block::{Block, Coverage, ExpiryRange};
pub use checkpoint::Checkpoint;
pub use codec::Malformed;
pub use delegation::{Delegation, DelegationError};
#[cfg(feature = "builder")]
pub use foreign_name::split_foreign_name;
pub use foreign_name::{MAX_FOREIGN_NAME_BYTES, foreign_name};
pub use gaps::Gap;
pub use grants::MAX_GRANT_BYTES;
pub use inline::InlineBundle;
pub use key::{InvalidPublicKey, PublicKey};
pub use manifest::{MAX_MANIFEST_BYTES, Manifest, ManifestError};
pub use object::{Entry, MAX_OBJECT_BYTES, Object, ObjectError, ObjectKind};
pub use objects::Objects;
pub use requirements::Requirements;
pub use snapshot::{AdvanceError, Incomplete, NoKey, Regression, RevocationStatus, Snapshot};
pub use watermarks::{Scope, ScopeKey};
