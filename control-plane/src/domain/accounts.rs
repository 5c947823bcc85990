use super::{AnySubject, ForeignName, OperatorId, RoleId, Subject, UnixSeconds};

/// An operator: the account (tenant) that users belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    pub id: OperatorId,
    pub description: Option<String>,
    /// The permission document that applies to every user except the root user.
    pub default_permission: Option<String>,
    pub created_at: UnixSeconds,
}

/// A user of an operator, other than the root user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub subject: Subject,
    pub description: Option<String>,
    /// The user's own permission document.
    pub permission: Option<String>,
    pub created_at: UnixSeconds,
}

/// A subject of another issuer that has permissions here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignSubject {
    pub subject: ForeignName,
    /// The subject's own permission document.
    pub permission: Option<String>,
    /// Its roles, each of an operator.
    pub roles: Vec<(OperatorId, RoleId)>,
}

/// A permission document that users of an operator share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    pub operator: OperatorId,
    pub id: RoleId,
    pub description: Option<String>,
    pub permission: String,
    pub created_at: UnixSeconds,
    pub updated_at: UnixSeconds,
}

/// The grant of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub subject: AnySubject,
    /// The compiled statements; `None` for no permissions.
    pub statements: Option<Vec<u8>>,
}
