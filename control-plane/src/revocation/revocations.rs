//! What other contexts may do with revocations of fingerprints, within their transactions.

pub use super::queries::revocations::{
    RevokeOutcome, all_since, count, count_changes_since, count_own_since, find, find_revoked, insert,
    page_by_prefix, purge, renew_covered, since, statuses_since, unrevoke, update_reason,
};
