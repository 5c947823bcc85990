//! What handlers take from a request.

pub(super) mod caller;
pub(super) mod json;
mod member;
