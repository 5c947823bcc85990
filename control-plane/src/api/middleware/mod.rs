//! What happens to each request before its handler.

pub(super) mod admission;
pub(super) mod layers;
