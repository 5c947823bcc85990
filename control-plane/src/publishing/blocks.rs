//! What other contexts may do with the blocks of the base, within their transactions.

pub use super::queries::{clear, list, purge, read_bytes};
