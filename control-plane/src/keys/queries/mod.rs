//! The tables of keys.

pub(super) mod key_set;
pub(super) mod signing_keys;
pub(super) mod tag_keys;
