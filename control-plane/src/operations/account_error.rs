use std::fmt;

use verdict::permission::PermissionError;

use super::LimitReached;
use crate::{
    model::{ApiKeyId, OperatorId, RoleId, Subject},
    store::StoreError,
};

/// Why nothing was changed about operators, users, roles and what they permit.
#[derive(Debug)]
pub enum AccountError {
    OperatorUnknown,
    UserUnknown(Subject),
    RoleUnknown(RoleId),
    UserTaken(Subject),
    RoleTaken(RoleId),
    /// An API key of the root user stands for this name.
    NameOfApiKey(Subject, ApiKeyId),
    /// The root user may do everything, and goes with its operator only.
    Root(OperatorId),
    NotAttached,
    Permission(PermissionError),
    /// Default permissions, roles and own statements of this user together.
    GrantTooLong(Subject),
    DescriptionTooLong,
    LimitReached(LimitReached),
    Store(StoreError),
}

impl AccountError {
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
                f.write_str("there is no such operator; `keystile operator list` shows those there are")
            }
            Self::UserUnknown(subject) => {
                write!(f, "there is no user `{subject}`; `keystile user list` shows those there are")
            }
            Self::RoleUnknown(id) => {
                write!(f, "there is no role `{id}`; `keystile role list` shows those there are")
            }
            Self::UserTaken(subject) => write!(f, "there is a user `{subject}` already"),
            Self::NameOfApiKey(subject, id) => write!(
                f,
                "`{id}` stands for `{subject}` already, and would become the user's; take another name, or \
                 `keystile key delete {id}` first"
            ),
            Self::RoleTaken(id) => {
                write!(f, "there is a role `{id}` already; `keystile role update` changes it")
            }
            Self::Root(operator) => write!(
                f,
                "`{operator}` is the root user, who may do everything and goes with the operator; name a user: `{operator}/NAME`"
            ),
            Self::NotAttached => f.write_str("the user does not have this role"),
            Self::Permission(error) => write!(f, "the permission document: {error}"),
            Self::GrantTooLong(subject) => write!(
                f,
                "what `{subject}` is given by default permissions, roles and its own statements is longer than {} \
                 bytes when compiled; name fewer operations, or use `Tag:*`",
                verdict::permission::MAX_COMPILED_BYTES
            ),
            Self::DescriptionTooLong => {
                write!(f, "`description`: expected at most {LONGEST_DESCRIPTION} bytes")
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

/// A line or two for whoever reads the list.
pub(super) fn check_description(description: Option<&str>) -> Result<(), AccountError> {
    match description {
        Some(text) if text.len() > LONGEST_DESCRIPTION => Err(AccountError::DescriptionTooLong),
        _ => Ok(()),
    }
}

const LONGEST_DESCRIPTION: usize = 500;
