//! Permissions and roles of subjects of other issuers. The grant of such a subject consists of its own statements and of
//! its roles, which can be of several operators. The default permissions of an operator do not apply to it.

use verdict::permission::Permissions;

use super::{
    AccountError,
    grants::compile,
    permissions::permission_json,
    queries::{foreign_subjects, roles},
};
use crate::{
    db::{StoreError, Write},
    domain::{
        Actor, Event, ForeignName, ForeignSubject, OperatorId, Page, PageRequest, PermissionHolder, RoleId,
        RoleName, Version,
    },
    service::Service,
};

/// Sets or removes the permission document of a subject of another issuer. The document is checked first. Returns the
/// first version with the change.
pub async fn set_foreign_permission(
    service: &Service,
    actor: &Actor,
    subject: &ForeignName,
    document: Option<&str>,
) -> Result<Version, AccountError> {
    document.map(compile).transpose()?;
    check_issuer(service, subject)?;
    let mut change = service.change(actor).await?;
    let version = change.version();
    match document {
        Some(_) => foreign_subjects::ensure(change.db(), subject, version).await?,
        None => {
            require_known(change.db(), subject).await?;
        }
    }
    foreign_subjects::set_permission(change.db(), subject, document).await?;
    let grants = recompute_foreign_grants(change.db(), [subject.clone()], version).await?;
    let of = PermissionHolder::Foreign(subject.clone());
    Ok(change.commit(Event::PermissionSet { of, document: permission_json(document), grants }).await?)
}

/// Attaches a role of an operator to a subject of another issuer. A second call changes nothing and succeeds.
pub async fn attach_foreign_role(
    service: &Service,
    actor: &Actor,
    subject: &ForeignName,
    operator: &OperatorId,
    id: &RoleId,
) -> Result<(), AccountError> {
    check_issuer(service, subject)?;
    let mut change = service.change(actor).await?;
    let version = change.version();
    if roles::list(change.db(), operator, Some(id)).await?.is_empty() {
        return Err(AccountError::RoleUnknown(id.clone()));
    }
    foreign_subjects::ensure(change.db(), subject, version).await?;
    if !foreign_subjects::attach_role(change.db(), subject, operator, id).await? {
        return Ok(());
    }
    recompute_foreign_grants(change.db(), [subject.clone()], version).await?;
    let role = RoleName { operator: operator.clone(), id: id.clone() };
    change.commit(Event::RoleAttached { role, user: subject.as_str().to_owned() }).await?;
    Ok(())
}

/// Detaches a role of an operator from a subject of another issuer.
pub async fn detach_foreign_role(
    service: &Service,
    actor: &Actor,
    subject: &ForeignName,
    operator: &OperatorId,
    id: &RoleId,
) -> Result<(), AccountError> {
    let mut change = service.change(actor).await?;
    let version = change.version();
    if !foreign_subjects::detach_role(change.db(), subject, operator, id).await? {
        return Err(AccountError::NotAttached);
    }
    recompute_foreign_grants(change.db(), [subject.clone()], version).await?;
    let role = RoleName { operator: operator.clone(), id: id.clone() };
    change.commit(Event::RoleDetached { role, user: subject.as_str().to_owned() }).await?;
    Ok(())
}

/// Finds a subject of another issuer that has permissions or roles.
pub async fn find_foreign_subject(
    service: &Service,
    subject: &ForeignName,
) -> Result<ForeignSubject, AccountError> {
    let found = foreign_subjects::find(&mut service.store.read().await?, subject).await?;
    found.ok_or_else(|| AccountError::ForeignSubjectUnknown(subject.clone()))
}

/// Returns a page of the subjects of other issuers that have permissions or roles.
pub async fn list_foreign_subjects(
    service: &Service,
    page: &PageRequest,
) -> Result<Page<ForeignSubject>, StoreError> {
    foreign_subjects::page(&mut service.store.read().await?, page).await
}

/// Recomputes the grants of subjects of other issuers, and returns the number of those that have changed.
pub(crate) async fn recompute_foreign_grants(
    write: &mut Write,
    subjects: impl IntoIterator<Item = ForeignName>,
    version: Version,
) -> Result<u64, AccountError> {
    let mut changed = 0;
    for subject in subjects {
        let known = foreign_subjects::find(write, &subject).await?;
        let mut parts: Vec<Permissions> = Vec::new();
        for (operator, role) in known.iter().flat_map(|known| &known.roles) {
            for role in roles::list(write, operator, Some(role)).await? {
                parts.push(compile(&role.permission)?);
            }
        }
        if let Some(document) = known.as_ref().and_then(|known| known.permission.as_deref()) {
            parts.push(compile(document)?);
        }
        let merged = match parts.is_empty() {
            true => None,
            false => Some(
                Permissions::concat(&parts)
                    .ok_or_else(|| AccountError::GrantTooLong(subject.clone().into()))?,
            ),
        };
        let statements = merged.as_ref().map(Permissions::as_bytes);
        changed += u64::from(foreign_subjects::set_statements(write, &subject, statements, version).await?);
    }
    Ok(changed)
}

async fn require_known(write: &mut Write, subject: &ForeignName) -> Result<(), AccountError> {
    let known = foreign_subjects::find(write, subject).await?;
    known.map(drop).ok_or_else(|| AccountError::ForeignSubjectUnknown(subject.clone()))
}

/// Rejects a subject of this deployment in the spelling of another issuer: no token has it.
fn check_issuer(service: &Service, subject: &ForeignName) -> Result<(), AccountError> {
    match subject.issuer() == service.config.tokens.issuer {
        true => Err(AccountError::OwnIssuer(subject.clone())),
        false => Ok(()),
    }
}
