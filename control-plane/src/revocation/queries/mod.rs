//! The tables of revocations.

pub(super) mod revocations;
pub(super) mod watermarks;
