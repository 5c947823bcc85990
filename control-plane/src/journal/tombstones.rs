//! What other contexts may do with tombstones, within their transactions.

pub use super::queries::{count, insert, insert_from_journal, purge, since};
