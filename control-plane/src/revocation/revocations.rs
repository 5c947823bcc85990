//! What other contexts may do with revocations of fingerprints, within their transactions.

pub use super::queries::revocations::{
    RevokeOutcome, all_since, count, count_own_since, count_since, find, insert, page_by_prefix, purge,
    renew_covered, since, statuses_since, unrevoke, update_reason,
};
