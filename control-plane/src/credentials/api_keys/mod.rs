//! API keys. Edges verify them without a list of keys; an inactive key is one whose fingerprint is revoked.

mod change;
mod create;
mod error;
mod expire;
mod list;
pub(in crate::credentials) mod queries;
mod remaining;
mod revocation;
mod rotate;

pub use change::{delete_api_key, disable_api_key, enable_api_key};
pub(crate) use create::create_tag_key_generation;
pub use create::{CreateApiKey, CreatedApiKey, create_api_key};
pub use error::ApiKeyError;
pub use expire::expire_api_keys;
pub(crate) use expire::take_back_expiry;
pub use list::{ApiKeyStatus, find_api_key, list_api_keys};
pub use queries::{
    count, delete, expire_at, find, find_by_fingerprint, insert, list_by_name, list_created_by, next_number,
    set_state,
};
pub use remaining::remaining_api_keys;
pub(crate) use revocation::{
    DISABLED, EXPIRED, RESERVED_REASONS, ROTATED, make_revocation_permanent, revoke_key, revoke_keys_in_scope,
};
pub use rotate::{rotate_api_key, rotate_tag_key};
