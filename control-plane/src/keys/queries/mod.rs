//! The tables of keys.

pub mod key_set;
pub mod signing_keys;
pub mod tag_keys;
