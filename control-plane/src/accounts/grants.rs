//! The grant of a user consists of the default permissions of its operator, its roles, and its own statements: one list, in
//! which a deny takes precedence. Each transaction that changes any of them recomputes the grant.

use std::collections::HashMap;

use verdict::permission::Permissions;

pub use super::queries::grants::{changed_since, count, since};
use super::{
    AccountError,
    queries::{grants, operators, roles, users},
};
use crate::{
    db::Write,
    domain::{OperatorId, RoleId, UserName, Version},
};

/// The users whose grants may have changed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum GrantTargets<'a> {
    /// One user.
    User(&'a UserName),
    /// All users with a role.
    RoleHolders(&'a RoleId),
    /// All users of the operator.
    AllUsers,
}

/// Recomputes grants, and returns the number of those that have changed.
pub(crate) async fn recompute_grants(
    write: &mut Write,
    operator: &OperatorId,
    targets: GrantTargets<'_>,
    version: Version,
) -> Result<u64, AccountError> {
    let one = match targets {
        GrantTargets::User(user) => Some(user),
        GrantTargets::RoleHolders(_) | GrantTargets::AllUsers => None,
    };
    let default = operators::find(write, operator).await?.and_then(|operator| operator.default_permission);
    let default = default.as_deref().map(compile).transpose()?;
    let mut roles_of: HashMap<UserName, Vec<RoleId>> = HashMap::new();
    for (user, role) in roles::attached(write, operator, one).await? {
        roles_of.entry(user).or_default().push(role);
    }
    let mut known: HashMap<RoleId, Permissions> = HashMap::new();
    if !roles_of.is_empty() {
        for role in roles::list(write, operator, None).await? {
            known.insert(role.id, compile(&role.permission)?);
        }
    }
    let mut changed = 0;
    for user in users::list(write, Some(operator), one).await? {
        let Some(name) = &user.subject.user else { continue };
        let held = roles_of.get(name).map(Vec::as_slice).unwrap_or_default();
        if matches!(targets, GrantTargets::RoleHolders(role) if !held.contains(role)) {
            continue;
        }
        let own = user.permission.as_deref().map(compile).transpose()?;
        let parts: Vec<_> =
            default.iter().chain(held.iter().filter_map(|role| known.get(role))).chain(&own).collect();
        let merged = match parts.is_empty() {
            true => None,
            false => Some(
                Permissions::concat(parts)
                    .ok_or_else(|| AccountError::GrantTooLong(user.subject.clone().into()))?,
            ),
        };
        let statements = merged.as_ref().map(Permissions::as_bytes);
        changed += u64::from(grants::set(write, operator, name, statements, version).await?);
    }
    Ok(changed)
}

/// Compiles a permission document.
pub(crate) fn compile(document: &str) -> Result<Permissions, AccountError> {
    Ok(Permissions::from_json(document.as_bytes())?)
}
