//! The errors of operations on API keys.

use std::path::PathBuf;

use crate::{
    accounts::AccountError,
    credentials::tokens::IssuanceBlock,
    db::StoreError,
    domain::{ApiKeyId, CoreError, ErrorKind, InvalidId, Subject, UnixSeconds},
    keys::keyring::KeyError,
};

/// The limit of a name. Bytes.
pub(crate) const MAX_NAME_BYTES: usize = 200;

/// The limit of metadata as JSON. Bytes.
pub(crate) const MAX_METADATA_BYTES: usize = 4096;

/// Why an operation on an API key failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiKeyError {
    /// The key does not exist.
    #[error("unknown API key `{0}`")]
    Unknown(ApiKeyId),
    /// Only the root user manages API keys of the root user.
    #[error("only the root user may manage API keys of the root user, regardless of permissions")]
    RootOnly,
    /// The operator of the owner does not exist, or the user cannot be created.
    #[error(transparent)]
    Account(AccountError),
    /// The username is invalid.
    #[error("`username`: {0}")]
    Username(InvalidId),
    /// The name exceeds the limit.
    #[error("`name`: expected at most {max} bytes", max = MAX_NAME_BYTES)]
    NameTooLong,
    /// The metadata is no JSON object, or exceeds the limit.
    #[error("`metadata`: expected a JSON object of at most {max} bytes", max = MAX_METADATA_BYTES)]
    Metadata,
    /// The key is not active.
    #[error("`{0}` is not active")]
    NotActive(ApiKeyId),
    /// The key is not disabled.
    #[error("`{0}` is not disabled")]
    NotDisabled(ApiKeyId),
    /// The key has expired.
    #[error("`{0}` has expired")]
    Expired(ApiKeyId),
    /// A watermark covers the key.
    #[error("`{0}` was revoked with everything that was issued to its owner")]
    UnderWatermark(ApiKeyId),
    /// The generation of the key was retired.
    #[error("the generation of `{0}` was retired")]
    TagRetired(ApiKeyId),
    /// The username of a root user's key is the name of a user.
    #[error("`username`: `{0}` is an existing user")]
    UsernameIsUser(Subject),
    /// The username of a key of format 1 is invalid in format 2, or has another meaning there.
    #[error("`{0}` has format 1, and a new key cannot have its username")]
    UsernameNotInherited(ApiKeyId),
    /// The current generation has the short form, which the root user cannot use.
    #[error(
        "new API keys have the short form ({0}), which a stolen edge can create, so the root user cannot \
         have one"
    )]
    ShortFormForRoot(String),
    /// The key file of the generation is on another machine.
    #[error("the key file of {kid}, the current generation of API keys, is not in this data folder")]
    KeyFileElsewhere { kid: String, path: PathBuf },
    /// A key file cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// All generations, which are numbered in one byte, are used.
    #[error("all 255 generations of API keys are used")]
    NoGeneration,
    /// All numbers, which have six bytes, are used, or all attempts gave a fingerprint whose prefix is taken.
    #[error("no free API key number was found")]
    NoFreeNumber,
    /// No key can be issued before this second.
    #[error(fmt = IssuanceBlock::write_error)]
    Blocked(IssuanceBlock, UnixSeconds),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ApiKeyError {
    /// Returns the error code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "not_found",
            Self::RootOnly => "root_only",
            Self::Account(error) => error.code(),
            Self::Username(_) | Self::NameTooLong | Self::Metadata | Self::UsernameNotInherited(_) => {
                "request_invalid"
            }
            Self::UsernameIsUser(_) => "name_taken",
            Self::ShortFormForRoot(_) => "api_key_short_root",
            Self::KeyFileElsewhere { .. } => "key_elsewhere",
            Self::NotActive(_)
            | Self::NotDisabled(_)
            | Self::Expired(_)
            | Self::UnderWatermark(_)
            | Self::TagRetired(_) => "api_key_state",
            Self::Keys(error) => error.code(),
            Self::NoGeneration | Self::NoFreeNumber => "api_key_numbers_exhausted",
            Self::Blocked(..) => "watermark_in_future",
            Self::Store(error) => error.code(),
        }
    }
}

impl CoreError for ApiKeyError {
    fn code(&self) -> &'static str {
        self.code()
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown(_) => ErrorKind::NotFound,
            Self::RootOnly => ErrorKind::Forbidden,
            Self::Account(error) => error.kind(),
            Self::Username(_) | Self::NameTooLong | Self::Metadata | Self::UsernameNotInherited(_) => {
                ErrorKind::Invalid
            }
            Self::UsernameIsUser(_)
            | Self::NotActive(_)
            | Self::NotDisabled(_)
            | Self::Expired(_)
            | Self::UnderWatermark(_)
            | Self::TagRetired(_)
            | Self::ShortFormForRoot(_) => ErrorKind::Conflict,
            Self::KeyFileElsewhere { .. }
            | Self::Keys(_)
            | Self::NoGeneration
            | Self::NoFreeNumber
            | Self::Blocked(..) => ErrorKind::Unavailable,
            Self::Store(error) => error.kind(),
        }
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
