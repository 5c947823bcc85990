//! What a limit refuses.

use std::fmt;

use crate::db::StoreError;

/// An operator or user has reached a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitReached {
    /// What is limited.
    pub kind: LimitKind,
    /// The limit.
    pub limit: u64,
}

impl LimitReached {
    /// The error code.
    pub(crate) const CODE: &str = "operator_limit_reached";
}

/// What the limits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitKind {
    AuthKeys,
    ApiKeys,
    Users,
    Roles,
    Revocations,
}

impl fmt::Display for LimitReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind: what, limit } = self;
        match what {
            LimitKind::AuthKeys => write!(
                f,
                "the user has {limit} AuthKeys, the maximum of `limits.auth_keys`; delete unused ones first"
            ),
            LimitKind::ApiKeys => write!(
                f,
                "the operator has {limit} API keys, the maximum of `limits.api_keys`; delete unused ones first"
            ),
            LimitKind::Users => {
                write!(
                    f,
                    "the operator has {limit} users, the maximum of `limits.users`; delete unused ones first"
                )
            }
            LimitKind::Roles => {
                write!(
                    f,
                    "the operator has {limit} roles, the maximum of `limits.roles`; delete unused ones first"
                )
            }
            LimitKind::Revocations => write!(
                f,
                "the operator has {limit} revocations in the bundle, the maximum of `limits.revocations`; it cannot create \
                 AuthKeys until some have expired"
            ),
        }
    }
}

/// Why there may not be another item.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LimitError {
    /// There are as many as the limit allows.
    #[error("{0}")]
    Reached(LimitReached),
    /// The items cannot be counted.
    #[error(transparent)]
    Store(#[from] StoreError),
}
