//! Keys of other issuers. Only the control plane fetches them, so edges need no connection to issuers.

mod fetch;
mod parse;

pub use fetch::{FETCH_TIMEOUT, FetchError, FetchOutcome, Fetcher, is_allowed};
pub use parse::{IssuerKey, JwksError, ParsedJwks, parse};
