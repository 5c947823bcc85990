//! Keys of other issuers: fetched here and nowhere else, so that edges need no way to them.

mod fetch;
mod parse;

pub use fetch::{FetchError, Fetched, Fetcher, PATIENCE, is_allowed};
pub use parse::{IssuerKey, JwksError, Parsed, parse};
