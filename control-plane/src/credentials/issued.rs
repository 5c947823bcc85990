//! What other contexts may do with the issuance log, within their transactions.

pub use super::queries::issued::{
    IssueOutcome, PURGE_BATCH, find, find_session, has_any_of_key, insert, latest_expiry, latest_issue,
    own_tokens, purge, revoke_issued_after,
};
