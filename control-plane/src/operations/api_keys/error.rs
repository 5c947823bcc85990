use std::{fmt, path::PathBuf};

use crate::{
    keys::KeyError,
    model::{ApiKeyId, BadId, Subject},
    operations::{AccountError, Blocked},
    store::StoreError,
};

#[derive(Debug)]
pub enum ApiKeyError {
    Unknown(ApiKeyId),
    /// Only the root user manages API keys of the root user.
    RootOnly,
    /// Owner: no such operator, or a user that can't be made.
    Account(AccountError),
    Username(BadId),
    NameTooLong,
    Metadata,
    NotActive(ApiKeyId),
    NotDisabled(ApiKeyId),
    Expired(ApiKeyId),
    /// All that the owner was issued up to some instant is refused, this key too.
    UnderWatermark(ApiKeyId),
    /// The generation that it was made with was retired.
    TagRetired(ApiKeyId),
    /// The username of a root user's key is the name of a user.
    NameOfUser(Subject),
    /// A key of format 1, whose username format 2 can't have, or would give another meaning.
    UsernameNotCarried(ApiKeyId),
    /// Keys of this generation are of the short form, which root users can't have.
    ShortRoot(String),
    /// The key file of the generation is on another machine.
    MadeElsewhere {
        kid: String,
        path: PathBuf,
    },
    Keys(KeyError),
    /// Generations are counted in one byte.
    NoGeneration,
    /// Numbers are counted in six bytes; or fingerprints collided again and again.
    NoNumber,
    /// Until a second.
    Blocked(Blocked, u64),
    Store(StoreError),
}

impl ApiKeyError {
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
                write!(f, "there is no API key `{id}`; `keystile key list` shows those there are")
            }
            Self::RootOnly => {
                f.write_str("only the root user manages API keys of the root user, whatever was granted")
            }
            Self::Account(error) => error.fmt(f),
            Self::Username(error) => write!(f, "`username`: {error}"),
            Self::NameTooLong => write!(f, "`name`: expected at most {LONGEST_NAME} bytes"),
            Self::Metadata => {
                write!(f, "`metadata`: expected a JSON object of at most {LONGEST_METADATA} bytes")
            }
            Self::NotActive(id) => {
                write!(f, "`{id}` is not active; `keystile key show {id}` says what it is")
            }
            Self::NotDisabled(id) => {
                write!(f, "`{id}` is not disabled; only what `keystile key disable` refused is enabled again")
            }
            Self::Expired(id) => write!(f, "`{id}` has expired; `keystile key create` makes another"),
            Self::UnderWatermark(id) => write!(
                f,
                "`{id}` was issued before an instant up to which all of its owner is refused; \
                 `keystile key create` makes another"
            ),
            Self::TagRetired(id) => {
                write!(f, "what `{id}` was made with was retired; `keystile key create` makes another")
            }
            Self::NameOfUser(subject) => write!(
                f,
                "`username`: there is a user `{subject}`, and the key would stand for it; to make it that user's key: \
                 `--user {subject}`"
            ),
            Self::UsernameNotCarried(id) => write!(
                f,
                "`{id}` is of format 1, and its username can't be that of a new key; say which it is to be: \
                 `keystile key rotate {id} --username NAME`, with OPERATOR or OPERATOR/NAME of its owner for the owner"
            ),
            Self::ShortRoot(kid) => write!(
                f,
                "new API keys are of the short form ({kid}), which whoever steals an edge can make: none is made for a \
                 root user; make it a user's, or go back to format 2 with `keystile key rotate tag`"
            ),
            Self::MadeElsewhere { kid, path } => write!(
                f,
                "API keys are made with {kid}, whose key file is not here; make them where it is, bring it here as \
                 `{}`, or begin a generation here: `keystile key rotate tag`",
                path.display()
            ),
            Self::Keys(error) => error.fmt(f),
            Self::NoGeneration => f.write_str("all 255 generations of API keys are used up"),
            Self::NoNumber => f.write_str("no number for another API key was found"),
            Self::Blocked(by, until) => by.tell(*until, f),
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

pub(super) const LONGEST_NAME: usize = 200;
pub(super) const LONGEST_METADATA: usize = 4096;
