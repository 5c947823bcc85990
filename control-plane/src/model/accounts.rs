use super::{OperatorId, RoleId, Subject};

/// An account: the tenant that users belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    pub id: OperatorId,
    pub description: Option<String>,
    /// A permission document that holds for every user.
    pub default_permission: Option<String>,
    pub created_at: u64,
}

/// A user inside an operator; never the root user, who needs no permission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub subject: Subject,
    pub description: Option<String>,
    /// The user's own permission document.
    pub permission: Option<String>,
    pub created_at: u64,
}

/// A permission document that users of an operator share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    pub operator: OperatorId,
    pub id: RoleId,
    pub description: Option<String>,
    pub permission: String,
    pub created_at: u64,
    pub updated_at: u64,
}

/// What edges are told that a subject may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub subject: Subject,
    /// Compiled; None: nothing.
    pub statements: Option<Vec<u8>>,
}
