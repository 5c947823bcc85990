use verdict::permission::PermissionError;

use crate::{
    db::StoreError,
    domain::{AnySubject, ApiKeyId, CoreError, ErrorKind, ForeignName, OperatorId, RoleId, Subject},
    limits::{LimitError, LimitReached},
};

/// The limit of a description. Bytes.
const MAX_DESCRIPTION_BYTES: usize = 500;

/// Why an operation on operators, users, roles or permissions failed.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The operator does not exist.
    #[error("there is no such operator")]
    OperatorUnknown,
    /// The user does not exist.
    #[error("there is no user `{0}`")]
    UserUnknown(Subject),
    /// The subject of another issuer has neither permissions nor roles.
    #[error("`{0}` has no permissions and no roles here")]
    ForeignSubjectUnknown(ForeignName),
    /// The subject of this installation is written like one of another issuer.
    #[error("`{0}` names the issuer of this installation: write its subjects as OPERATOR or OPERATOR/NAME")]
    OwnIssuer(ForeignName),
    /// The role does not exist.
    #[error("there is no role `{0}`")]
    RoleUnknown(RoleId),
    /// The user already exists.
    #[error("the user `{0}` already exists")]
    UserExists(Subject),
    /// The role already exists.
    #[error("the role `{0}` already exists")]
    RoleExists(RoleId),
    /// An API key of the root user has this name as its username.
    #[error("the API key `{1}` already has the username `{0}` and would become a key of the user")]
    NameIsUsernameOfApiKey(Subject, ApiKeyId),
    /// The root user has all permissions, and cannot be deleted without its operator.
    #[error(
        "`{0}` is the root user, which has all permissions and cannot be deleted without the operator; give \
         a user as `{0}/NAME`"
    )]
    RootUserImmutable(OperatorId),
    /// The user does not have the role.
    #[error("the user does not have this role")]
    NotAttached,
    /// The permission document is invalid.
    #[error("the permission document: {0}")]
    Permission(PermissionError),
    /// The grant of this user exceeds the limit.
    #[error(
        "the compiled permissions of `{0}` (default permissions, roles and own statements) exceed {max} bytes; \
         name fewer operations, or use `Tag:*`",
        max = verdict::permission::MAX_COMPILED_BYTES
    )]
    GrantTooLong(AnySubject),
    /// The description exceeds the limit.
    #[error("`description`: expected at most {max} bytes", max = MAX_DESCRIPTION_BYTES)]
    DescriptionTooLong,
    /// The operator has reached a limit.
    #[error("{0}")]
    LimitReached(LimitReached),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AccountError {
    /// Returns the error code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::OperatorUnknown
            | Self::UserUnknown(_)
            | Self::ForeignSubjectUnknown(_)
            | Self::RoleUnknown(_)
            | Self::NotAttached => "not_found",
            Self::UserExists(_) | Self::RoleExists(_) | Self::NameIsUsernameOfApiKey(..) => "name_taken",
            Self::RootUserImmutable(_) => "user_is_root",
            Self::Permission(_) => "permission_invalid",
            Self::GrantTooLong(_) => "grant_too_long",
            Self::DescriptionTooLong | Self::OwnIssuer(_) => "request_invalid",
            Self::LimitReached(_) => LimitReached::CODE,
            Self::Store(error) => error.code(),
        }
    }
}

impl CoreError for AccountError {
    fn code(&self) -> &'static str {
        self.code()
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::OperatorUnknown
            | Self::UserUnknown(_)
            | Self::ForeignSubjectUnknown(_)
            | Self::RoleUnknown(_)
            | Self::NotAttached => ErrorKind::NotFound,
            Self::UserExists(_) | Self::RoleExists(_) | Self::NameIsUsernameOfApiKey(..) => {
                ErrorKind::Conflict
            }
            Self::RootUserImmutable(_)
            | Self::Permission(_)
            | Self::GrantTooLong(_)
            | Self::OwnIssuer(_)
            | Self::DescriptionTooLong => ErrorKind::Invalid,
            Self::LimitReached(_) => ErrorKind::Limited(None),
            Self::Store(error) => error.kind(),
        }
    }
}

impl From<LimitError> for AccountError {
    fn from(error: LimitError) -> Self {
        match error {
            LimitError::Reached(reached) => Self::LimitReached(reached),
            LimitError::Store(error) => Self::Store(error),
        }
    }
}

impl From<PermissionError> for AccountError {
    fn from(error: PermissionError) -> Self {
        Self::Permission(error)
    }
}

/// Checks the length of a description.
pub(crate) fn check_description(description: Option<&str>) -> Result<(), AccountError> {
    match description {
        Some(text) if text.len() > MAX_DESCRIPTION_BYTES => Err(AccountError::DescriptionTooLong),
        _ => Ok(()),
    }
}
