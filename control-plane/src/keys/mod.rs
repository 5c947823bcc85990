//! The keys that sign tokens, make API keys, and sign bundles.

pub mod key_set;
pub mod keyring;
pub mod publisher_keys;
mod queries;
pub mod renew_authority;
pub mod self_test;
pub mod signing;
pub mod signing_keys;
pub mod symmetric;
pub mod tag_keys;

pub use keyring::{
    KeyError, Keyring, SharedKeyring, create_generation, create_signing_key, list_key_files, open_generation,
    open_tag_secret, remove, unused_generation,
};
pub use renew_authority::{RenewAuthorityError, renew_authority};
pub use self_test::self_test_signing_key;
pub use signing::{
    SigningKeyError, activate_pending_signing_key, discard_key_files, prune_signing_keys, retire_key,
    retired_key_file, rotate_signing_key,
};
pub use symmetric::symmetric_keys;
