//! What other contexts may do with the records of signing keys, within their transactions.

pub use super::queries::signing_keys::{
    activate, active_kid, clamp_to_now, delete, insert, list, newest_created_at,
};
