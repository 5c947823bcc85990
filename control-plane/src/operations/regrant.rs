//! What a user may do follows from the default permissions of its operator, its roles and its own statements: one list,
//! in which a deny wins wherever it comes from. It is worked out anew in the transaction that changes any of them.

use std::collections::HashMap;

use verdict::permission::Permissions;

use super::AccountError;
use crate::{
    model::{OperatorId, RoleId, UserName},
    store::{Write, grants, operators, roles, users},
};

/// Whose grants may have changed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whose<'a> {
    User(&'a UserName),
    Holders(&'a RoleId),
    Everybody,
}

/// Returns how many grants edges will hear of.
pub(super) async fn regrant(
    write: &mut Write,
    operator: &OperatorId,
    whose: Whose<'_>,
    version: u64,
) -> Result<u64, AccountError> {
    let one = match whose {
        Whose::User(user) => Some(user),
        Whose::Holders(_) | Whose::Everybody => None,
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
        if matches!(whose, Whose::Holders(role) if !held.contains(role)) {
            continue;
        }
        let own = user.permission.as_deref().map(compile).transpose()?;
        let parts: Vec<_> =
            default.iter().chain(held.iter().filter_map(|role| known.get(role))).chain(&own).collect();
        let merged = match parts.is_empty() {
            true => None,
            false => Some(
                Permissions::merged(parts).ok_or_else(|| AccountError::GrantTooLong(user.subject.clone()))?,
            ),
        };
        let statements = merged.as_ref().map(Permissions::as_bytes);
        changed += u64::from(grants::set(write, operator, name, statements, version).await?);
    }
    Ok(changed)
}

pub(super) fn compile(document: &str) -> Result<Permissions, AccountError> {
    Ok(Permissions::from_json(document.as_bytes())?)
}
