//! Sets permissions.

use serde_json::Value;

use super::{
    AccountError,
    grants::{GrantTargets, compile, recompute_grants},
    queries::{operators, users},
};
use crate::{
    domain::{Actor, Event, PermissionHolder, Subject, Version},
    service::Service,
};

/// Sets or removes the permission document of a user, or the default document of an operator, which applies to all its
/// users except the root user. The document is checked first. Returns the first version with the change.
pub async fn set_permission(
    service: &Service,
    actor: &Actor,
    subject: &Subject,
    document: Option<&str>,
) -> Result<Version, AccountError> {
    document.map(compile).transpose()?;
    let mut change = service.change(actor).await?;
    let version = change.version();
    let Subject { operator, user } = subject;
    let targets = match user {
        Some(user) => {
            if !users::set_permissions(change.db(), operator, user, document).await? {
                return Err(AccountError::UserUnknown(subject.clone()));
            }
            GrantTargets::User(user)
        }
        None => {
            if !operators::set_default_permissions(change.db(), operator, document).await? {
                return Err(AccountError::OperatorUnknown);
            }
            GrantTargets::AllUsers
        }
    };
    let grants = recompute_grants(change.db(), operator, targets, version).await?;
    let of = PermissionHolder::Subject(subject.clone());
    Ok(change.commit(Event::PermissionSet { of, document: permission_json(document), grants }).await?)
}

/// Returns a document as a JSON value, so that the audit log contains it as JSON and not as text.
pub(crate) fn permission_json(document: Option<&str>) -> Option<Value> {
    document.and_then(|document| serde_json::from_str(document).ok())
}
