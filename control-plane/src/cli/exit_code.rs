//! The exit codes.

/// The exit code if the change is durable and edges are enrolled, but no server has published it.
pub(super) const EXIT_UNPUBLISHED: u8 = 3;

/// The exit code if the change is published, but an edge that may still admit the credential has not confirmed it.
pub(super) const EXIT_NOT_ENFORCED: u8 = 4;

/// The exit code if `policy import` could not carry over a part of the source.
pub(super) const EXIT_NOT_CARRIED_OVER: u8 = 5;
