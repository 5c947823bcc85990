//! What other contexts may do with gaps, within their transactions.

pub use super::queries::{
    clamp_to_now, known_credentials, latest_end, latest_instant_after, latest_version, list,
};
