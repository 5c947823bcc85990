//! What other contexts may do with the version of the key set, within their transactions.

pub use super::queries::key_set::{set_version, version};
