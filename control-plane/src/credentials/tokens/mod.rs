//! Tokens.

pub mod exchange;
pub mod inspect;
pub mod issuance_log;
pub mod issue;
pub mod mint;

pub use exchange::{ExchangeError, ExchangedToken, exchange_auth_key};
pub use inspect::{InspectTokenError, InspectedToken, TokenStatus, inspect_token};
pub use issue::{IssueError, IssuedToken, TokenRecipient, issue_token};
pub use mint::{InvalidLifetime, IssuanceBlock, Lifetime, MintError};
