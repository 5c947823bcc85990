//! Keys of other issuers. Only the control plane fetches them, so edges need no connection to issuers.

mod document;
mod fetch;
mod parse;

pub use document::DocumentKind;
pub use fetch::{FETCH_TIMEOUT, FetchError, FetchOutcome, Fetcher, read_key_file};
pub use parse::{IssuerKey, JwksError, ParsedJwks, is_for_another_purpose, parse};
