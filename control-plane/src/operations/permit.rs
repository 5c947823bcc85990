use serde_json::{Value, json};

use super::{
    AccountError, Service,
    regrant::{Whose, compile, regrant},
};
use crate::{
    model::{Actor, Subject},
    store::{audit, operators, users, versions},
};

/// Sets the permission document of a user, or takes it back; of an operator (its root user needs none): what holds for
/// every user of it. Checked before anything is changed; edges know it from the version that is returned.
pub async fn permit(
    service: &Service,
    actor: &Actor,
    subject: &Subject,
    document: Option<&str>,
) -> Result<u64, AccountError> {
    document.map(compile).transpose()?;
    let now = service.now();
    let mut write = service.store.write().await?;
    let version = versions::next(&mut write, now).await?;
    let Subject { operator, user } = subject;
    let whose = match user {
        Some(user) => {
            if !users::permit(&mut write, operator, user, document).await? {
                return Err(AccountError::UserUnknown(subject.clone()));
            }
            Whose::User(user)
        }
        None => {
            if !operators::permit(&mut write, operator, document).await? {
                return Err(AccountError::OperatorUnknown);
            }
            Whose::Everybody
        }
    };
    let changed = regrant(&mut write, operator, whose, version).await?;
    let action = match (user, document) {
        (Some(_), Some(_)) => "user.permission.set",
        (Some(_), None) => "user.permission.clear",
        (None, Some(_)) => "operator.permission.set",
        (None, None) => "operator.permission.clear",
    };
    let detail = json!({ "permission": written(document), "grants": changed, "version": version });
    let target = &subject.to_string();
    audit::append(&mut write, audit::Change { at: now, actor, action, target, detail }).await?;
    write.commit().await?;
    service.settle(version).await;
    Ok(version)
}

/// A document as JSON inside JSON, so that the audit log is readable.
pub(super) fn written(document: Option<&str>) -> Option<Value> {
    document.and_then(|document| serde_json::from_str(document).ok())
}
