use std::fmt;

use verdict::permission::PermissionError;

use super::LimitReached;
use crate::{
    model::{ApiKeyId, OperatorId, RoleId, Subject},
    store::StoreError,
};

/// The limit of a description. Bytes.
const MAX_DESCRIPTION_BYTES: usize = 500;

/// Why an operation on operators, users, roles or permissions failed.
#[derive(Debug)]
pub enum AccountError {
    /// The operator does not exist.
    OperatorUnknown,
    /// The user does not exist.
    UserUnknown(Subject),
    /// The role does not exist.
    RoleUnknown(RoleId),
    /// The user already exists.
    UserTaken(Subject),
    /// The role already exists.
    RoleTaken(RoleId),
    /// An API key of the root user has this name as its username.
    NameOfApiKey(Subject, ApiKeyId),
    /// The root user has all permissions, and cannot be deleted without its operator.
    Root(OperatorId),
    /// The user does not have the role.
    NotAttached,
    /// The permission document is invalid.
    Permission(PermissionError),
    /// The grant of this user exceeds the limit.
    GrantTooLong(Subject),
    /// The description exceeds the limit.
    DescriptionTooLong,
    /// The operator has reached a limit.
    LimitReached(LimitReached),
    /// The store cannot be read or written.
    Store(StoreError),
}

impl AccountError {
    /// Returns the error code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::OperatorUnknown | Self::UserUnknown(_) | Self::RoleUnknown(_) | Self::NotAttached => {
                "not_found"
            }
            Self::UserTaken(_) | Self::RoleTaken(_) | Self::NameOfApiKey(..) => "name_taken",
            Self::Root(_) => "user_is_root",
            Self::Permission(_) => "permission_invalid",
            Self::GrantTooLong(_) => "grant_too_long",
            Self::DescriptionTooLong => "request_invalid",
            Self::LimitReached(_) => "operator_limit_reached",
            Self::Store(error) => error.code(),
        }
    }
}

impl fmt::Display for AccountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OperatorUnknown => {
                f.write_str("there is no such operator; `keystile operator list` shows the existing ones")
            }
            Self::UserUnknown(subject) => {
                write!(f, "there is no user `{subject}`; `keystile user list` shows the existing ones")
            }
            Self::RoleUnknown(id) => {
                write!(f, "there is no role `{id}`; `keystile role list` shows the existing ones")
            }
            Self::UserTaken(subject) => write!(f, "the user `{subject}` already exists"),
            Self::NameOfApiKey(subject, id) => write!(
                f,
                "the API key `{id}` already has the username `{subject}` and would become a key of the user; choose \
                 another name, or run `keystile key delete {id}` first"
            ),
            Self::RoleTaken(id) => {
                write!(f, "the role `{id}` already exists; `keystile role update` changes it")
            }
            Self::Root(operator) => write!(
                f,
                "`{operator}` is the root user, which has all permissions and cannot be deleted without the operator; give \
                 a user as `{operator}/NAME`"
            ),
            Self::NotAttached => f.write_str("the user does not have this role"),
            Self::Permission(error) => write!(f, "the permission document: {error}"),
            Self::GrantTooLong(subject) => write!(
                f,
                "the compiled permissions of `{subject}` (default permissions, roles and own statements) exceed {} bytes; \
                 name fewer operations, or use `Tag:*`",
                verdict::permission::MAX_COMPILED_BYTES
            ),
            Self::DescriptionTooLong => {
                write!(f, "`description`: expected at most {MAX_DESCRIPTION_BYTES} bytes")
            }
            Self::LimitReached(reached) => reached.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AccountError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
            _ => None,
        }
    }
}

impl From<StoreError> for AccountError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<LimitReached> for AccountError {
    fn from(reached: LimitReached) -> Self {
        Self::LimitReached(reached)
    }
}

impl From<PermissionError> for AccountError {
    fn from(error: PermissionError) -> Self {
        Self::Permission(error)
    }
}

/// Checks the length of a description.
pub(super) fn check_description(description: Option<&str>) -> Result<(), AccountError> {
    match description {
        Some(text) if text.len() > MAX_DESCRIPTION_BYTES => Err(AccountError::DescriptionTooLong),
        _ => Ok(()),
    }
}
