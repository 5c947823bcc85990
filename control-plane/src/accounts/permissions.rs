//! Sets permissions.

use serde_json::{Value, json};

use super::{
    AccountError,
    grants::{GrantTargets, compile, recompute_grants},
    queries::{operators, users},
};
use crate::{
    audit::queries as audit,
    db::versions,
    domain::{Actor, Subject},
    service::Service,
};

/// Sets or removes the permission document of a user, or the default document of an operator, which applies to all its
/// users except the root user. The document is checked first. Returns the first version with the change.
pub async fn set_permission(
    service: &Service,
    actor: &Actor,
    subject: &Subject,
    document: Option<&str>,
) -> Result<u64, AccountError> {
    document.map(compile).transpose()?;
    let now = service.now();
    let mut write = service.store.write().await?;
    let version = versions::allocate(&mut write, now).await?;
    let Subject { operator, user } = subject;
    let targets = match user {
        Some(user) => {
            if !users::set_permissions(&mut write, operator, user, document).await? {
                return Err(AccountError::UserUnknown(subject.clone()));
            }
            GrantTargets::User(user)
        }
        None => {
            if !operators::set_default_permissions(&mut write, operator, document).await? {
                return Err(AccountError::OperatorUnknown);
            }
            GrantTargets::AllUsers
        }
    };
    let changed = recompute_grants(&mut write, operator, targets, version).await?;
    let action = match (user, document) {
        (Some(_), Some(_)) => "user.permission.set",
        (Some(_), None) => "user.permission.clear",
        (None, Some(_)) => "operator.permission.set",
        (None, None) => "operator.permission.clear",
    };
    let detail = json!({ "permission": permission_json(document), "grants": changed, "version": version });
    let target = &subject.to_string();
    audit::append(&mut write, audit::NewAuditEntry { at: now, actor, action, target, detail }).await?;
    write.commit().await?;
    service.wait_published(version).await;
    Ok(version)
}

/// Returns a document as a JSON value, so that the audit log contains it as JSON and not as text.
pub(crate) fn permission_json(document: Option<&str>) -> Option<Value> {
    document.and_then(|document| serde_json::from_str(document).ok())
}
