//! The paths for admins.

pub(super) mod revocations;
