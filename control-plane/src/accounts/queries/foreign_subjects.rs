//! The permissions and roles of subjects of other issuers.

use sqlx::{any::AnyRow, query};
use token::base64url;

use super::statements::parse_statements;
use crate::{
    db::{Executor, StoreError, Write, row},
    domain::{
        AnySubject, ForeignName, ForeignSubject, Grant, OperatorId, Page, PageRequest, RoleId, Version,
    },
};

/// Inserts a subject without permissions, unless it is known.
pub(in crate::accounts) async fn ensure(
    write: &mut Write,
    subject: &ForeignName,
    version: Version,
) -> Result<(), StoreError> {
    query("INSERT INTO foreign_subjects (subject, version) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(subject.as_str())
        .bind(row::to_column(version))
        .execute(write.connection())
        .await?;
    Ok(())
}

/// Sets or removes the permission document of a known subject.
pub(in crate::accounts) async fn set_permission(
    write: &mut Write,
    subject: &ForeignName,
    document: Option<&str>,
) -> Result<(), StoreError> {
    query("UPDATE foreign_subjects SET permission = $2 WHERE subject = $1")
        .bind(subject.as_str())
        .bind(document)
        .execute(write.connection())
        .await?;
    Ok(())
}

/// Sets the compiled statements of a known subject. Returns whether they have changed.
pub(in crate::accounts) async fn set_statements(
    write: &mut Write,
    subject: &ForeignName,
    statements: Option<&[u8]>,
    version: Version,
) -> Result<bool, StoreError> {
    let done = query(
        "UPDATE foreign_subjects SET statements = $2, version = $3 \
         WHERE subject = $1 AND statements IS DISTINCT FROM $2",
    )
    .bind(subject.as_str())
    .bind(statements.map(base64url::encode))
    .bind(row::to_column(version))
    .execute(write.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Finds a subject that has permissions or roles.
pub(in crate::accounts) async fn find(
    executor: &mut impl Executor,
    subject: &ForeignName,
) -> Result<Option<ForeignSubject>, StoreError> {
    let found = query("SELECT subject, permission FROM foreign_subjects WHERE subject = $1")
        .bind(subject.as_str())
        .fetch_optional(executor.connection())
        .await?;
    let Some(found) = found else { return Ok(None) };
    let found = parse_subject(executor, &found).await?;
    Ok(Some(found).filter(|found| found.permission.is_some() || !found.roles.is_empty()))
}

/// Returns a page of the subjects that have permissions or roles, in the order of their names.
pub(in crate::accounts) async fn page(
    executor: &mut impl Executor,
    page: &PageRequest,
) -> Result<Page<ForeignSubject>, StoreError> {
    let rows = query(
        "SELECT subject, permission FROM foreign_subjects s WHERE subject > $1 AND (permission IS NOT NULL \
         OR EXISTS (SELECT 1 FROM foreign_subject_roles r WHERE r.subject = s.subject)) ORDER BY subject LIMIT $2",
    )
    .bind(page.after().unwrap_or(""))
    .bind(page.rows())
    .fetch_all(executor.connection())
    .await?;
    let mut subjects = Vec::new();
    for from in &rows {
        subjects.push(parse_subject(executor, from).await?);
    }
    Ok(page.paginate(subjects, |subject| subject.subject.to_string()))
}

/// Attaches a role to a known subject. Returns whether it was not attached before.
pub(in crate::accounts) async fn attach_role(
    write: &mut Write,
    subject: &ForeignName,
    operator: &OperatorId,
    role: &RoleId,
) -> Result<bool, StoreError> {
    let done = query(
        "INSERT INTO foreign_subject_roles (subject, operator_id, role_id) VALUES ($1, $2, $3) \
         ON CONFLICT DO NOTHING",
    )
    .bind(subject.as_str())
    .bind(operator.as_str())
    .bind(role.as_str())
    .execute(write.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Detaches a role from a subject. Returns whether it was attached.
pub(in crate::accounts) async fn detach_role(
    write: &mut Write,
    subject: &ForeignName,
    operator: &OperatorId,
    role: &RoleId,
) -> Result<bool, StoreError> {
    let done =
        query("DELETE FROM foreign_subject_roles WHERE subject = $1 AND operator_id = $2 AND role_id = $3")
            .bind(subject.as_str())
            .bind(operator.as_str())
            .bind(role.as_str())
            .execute(write.connection())
            .await?;
    Ok(done.rows_affected() == 1)
}

/// Detaches a role of an operator from all subjects, or all its roles. Returns the subjects that had one.
pub(in crate::accounts) async fn detach_all(
    write: &mut Write,
    operator: &OperatorId,
    role: Option<&RoleId>,
) -> Result<Vec<ForeignName>, StoreError> {
    let holders = with_role(write, operator, role).await?;
    query("DELETE FROM foreign_subject_roles WHERE operator_id = $1 AND ($2 = '' OR role_id = $2)")
        .bind(operator.as_str())
        .bind(role.map_or("", RoleId::as_str))
        .execute(write.connection())
        .await?;
    Ok(holders)
}

/// Returns the subjects that have a role of an operator, or any of its roles.
pub(in crate::accounts) async fn with_role(
    executor: &mut impl Executor,
    operator: &OperatorId,
    role: Option<&RoleId>,
) -> Result<Vec<ForeignName>, StoreError> {
    let rows = query(
        "SELECT DISTINCT subject FROM foreign_subject_roles \
         WHERE operator_id = $1 AND ($2 = '' OR role_id = $2) ORDER BY subject",
    )
    .bind(operator.as_str())
    .bind(role.map_or("", RoleId::as_str))
    .fetch_all(executor.connection())
    .await?;
    rows.iter().map(|from| row::parsed_text(from, "subject")).collect()
}

/// Returns the grants that were changed after a version.
pub(in crate::accounts) async fn grants_since(
    executor: &mut impl Executor,
    version: Version,
) -> Result<Vec<Grant>, StoreError> {
    let rows = query("SELECT subject, statements FROM foreign_subjects WHERE version > $1")
        .bind(row::to_column(version))
        .fetch_all(executor.connection())
        .await?;
    let grant = |from| {
        Ok(Grant {
            subject: AnySubject::Foreign(row::parsed_text(from, "subject")?),
            statements: parse_statements(from)?,
        })
    };
    rows.iter().map(grant).collect()
}

/// Returns the subjects whose grants were changed after a version, each with the version of the change.
pub(in crate::accounts) async fn changed_since(
    executor: &mut impl Executor,
    version: Version,
) -> Result<Vec<(Version, AnySubject)>, StoreError> {
    let rows =
        query("SELECT subject, version FROM foreign_subjects WHERE version > $1 ORDER BY version, subject")
            .bind(row::to_column(version))
            .fetch_all(executor.connection())
            .await?;
    let changed = |from| {
        Ok((row::from_column(from, "version")?, AnySubject::Foreign(row::parsed_text(from, "subject")?)))
    };
    rows.iter().map(changed).collect()
}

async fn parse_subject(executor: &mut impl Executor, from: &AnyRow) -> Result<ForeignSubject, StoreError> {
    let subject: ForeignName = row::parsed_text(from, "subject")?;
    let rows = query(
        "SELECT operator_id, role_id FROM foreign_subject_roles WHERE subject = $1 ORDER BY operator_id, role_id",
    )
    .bind(subject.as_str())
    .fetch_all(executor.connection())
    .await?;
    let roles = rows
        .iter()
        .map(|from| Ok((row::parsed_text(from, "operator_id")?, row::parsed_text(from, "role_id")?)))
        .collect::<Result<_, StoreError>>()?;
    Ok(ForeignSubject { subject, permission: row::optional_text(from, "permission")?, roles })
}
