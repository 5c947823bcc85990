//! What other contexts may do with the generations of API keys, within their transactions.

pub use super::queries::tag_keys::{exists, insert, list, parse_kind};
