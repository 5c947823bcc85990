//! Bundles from the builder round-trip; everything else is rejected.

mod base;
mod fixtures;
mod fuzz;
mod grants;
mod holders;
mod revocation_status;
mod sharded_sets;
mod signatures;
