//! The tables of revocations.

pub mod revocations;
pub mod watermarks;
