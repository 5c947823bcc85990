//! AuthKeys, which are exchanged for tokens.

pub mod create;
pub mod delete;
pub mod list;
pub(in crate::credentials) mod queries;

pub use create::{CreateAuthKeyError, CreatedAuthKey, create_auth_key};
pub use delete::{DeleteAuthKeyError, delete_auth_key};
pub use list::{find_auth_key, list_auth_keys, list_root_auth_keys};
pub use queries::{count, created_by, delete, delete_all, find, insert, list, record_use};
