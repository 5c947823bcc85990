//! The errors of operations on API keys.

use std::{fmt, path::PathBuf};

use crate::{
    keys::KeyError,
    model::{ApiKeyId, InvalidId, Subject},
    operations::{AccountError, Blocked},
    store::StoreError,
};

/// The limit of a name. Bytes.
pub(super) const MAX_NAME_BYTES: usize = 200;

/// The limit of metadata as JSON. Bytes.
pub(super) const MAX_METADATA_BYTES: usize = 4096;

/// Why an operation on an API key failed.
#[derive(Debug)]
pub enum ApiKeyError {
    /// The key does not exist.
    Unknown(ApiKeyId),
    /// Only the root user manages API keys of the root user.
    RootOnly,
    /// The operator of the owner does not exist, or the user cannot be created.
    Account(AccountError),
    /// The username is invalid.
    Username(InvalidId),
    /// The name exceeds the limit.
    NameTooLong,
    /// The metadata is not a JSON object, or exceeds the limit.
    Metadata,
    /// The key is not active.
    NotActive(ApiKeyId),
    /// The key is not disabled.
    NotDisabled(ApiKeyId),
    /// The key has expired.
    Expired(ApiKeyId),
    /// A watermark covers the key.
    UnderWatermark(ApiKeyId),
    /// The generation of the key was retired.
    TagRetired(ApiKeyId),
    /// The username of a root user's key is the name of a user.
    NameOfUser(Subject),
    /// The username of a key of format 1 is invalid in format 2, or has another meaning there.
    UsernameNotCarried(ApiKeyId),
    /// The current generation has the short form, which the root user cannot use.
    ShortRoot(String),
    /// The key file of the generation is on another machine.
    MadeElsewhere { kid: String, path: PathBuf },
    /// A key file cannot be used.
    Keys(KeyError),
    /// All generations, which are numbered in one byte, are used.
    NoGeneration,
    /// All numbers, which have six bytes, are used, or all attempts gave a fingerprint whose prefix is taken.
    NoNumber,
    /// No key can be issued before this second.
    Blocked(Blocked, u64),
    /// The store cannot be read or written.
    Store(StoreError),
}

impl ApiKeyError {
    /// Returns the error code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "not_found",
            Self::RootOnly => "root_only",
            Self::Account(error) => error.code(),
            Self::Username(_) | Self::NameTooLong | Self::Metadata | Self::UsernameNotCarried(_) => {
                "request_invalid"
            }
            Self::NameOfUser(_) => "name_taken",
            Self::ShortRoot(_) => "api_key_short_root",
            Self::MadeElsewhere { .. } => "key_elsewhere",
            Self::NotActive(_)
            | Self::NotDisabled(_)
            | Self::Expired(_)
            | Self::UnderWatermark(_)
            | Self::TagRetired(_) => "api_key_state",
            Self::Keys(error) => error.code(),
            Self::NoGeneration | Self::NoNumber => "api_key_numbers_exhausted",
            Self::Blocked(..) => "watermark_in_future",
            Self::Store(error) => error.code(),
        }
    }
}

impl fmt::Display for ApiKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(id) => {
                write!(f, "unknown API key `{id}`; `keystile key list` shows the existing ones")
            }
            Self::RootOnly => f.write_str(
                "only the root user may manage API keys of the root user, regardless of permissions",
            ),
            Self::Account(error) => error.fmt(f),
            Self::Username(error) => write!(f, "`username`: {error}"),
            Self::NameTooLong => write!(f, "`name`: expected at most {MAX_NAME_BYTES} bytes"),
            Self::Metadata => {
                write!(f, "`metadata`: expected a JSON object of at most {MAX_METADATA_BYTES} bytes")
            }
            Self::NotActive(id) => {
                write!(f, "`{id}` is not active; `keystile key show {id}` shows its status")
            }
            Self::NotDisabled(id) => {
                write!(
                    f,
                    "`{id}` is not disabled; only keys that `keystile key disable` has disabled can be enabled"
                )
            }
            Self::Expired(id) => write!(f, "`{id}` has expired; create another with `keystile key create`"),
            Self::UnderWatermark(id) => write!(
                f,
                "`{id}` was revoked with everything that was issued to its owner; create another with \
                 `keystile key create`"
            ),
            Self::TagRetired(id) => {
                write!(
                    f,
                    "the generation of `{id}` was retired; create another key with `keystile key create`"
                )
            }
            Self::NameOfUser(subject) => write!(
                f,
                "`username`: `{subject}` is an existing user; to create a key of that user, use `--user {subject}`"
            ),
            Self::UsernameNotCarried(id) => write!(
                f,
                "`{id}` has format 1, and a new key cannot have its username; give one with \
                 `keystile key rotate {id} --username NAME`, where OPERATOR or OPERATOR/NAME of the owner means the owner"
            ),
            Self::ShortRoot(kid) => write!(
                f,
                "new API keys have the short form ({kid}), which a stolen edge can create, so the root user cannot have \
                 one; create the key for a user, or return to format 2 with `keystile key rotate tag`"
            ),
            Self::MadeElsewhere { kid, path } => write!(
                f,
                "the key file of {kid}, the current generation of API keys, is not in this data folder; create the API key \
                 where the file is, copy the file to `{}`, or start a generation here with `keystile key rotate tag`",
                path.display()
            ),
            Self::Keys(error) => error.fmt(f),
            Self::NoGeneration => f.write_str("all 255 generations of API keys are used"),
            Self::NoNumber => f.write_str("no free API key number was found"),
            Self::Blocked(by, until) => by.write_error(*until, f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ApiKeyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Account(error) => error.source(),
            Self::Keys(error) => error.source(),
            Self::Store(error) => error.source(),
            _ => None,
        }
    }
}

impl From<StoreError> for ApiKeyError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<AccountError> for ApiKeyError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Store(error) => Self::Store(error),
            error => Self::Account(error),
        }
    }
}

impl From<KeyError> for ApiKeyError {
    fn from(error: KeyError) -> Self {
        Self::Keys(error)
    }
}
