use sqlx::{any::AnyRow, query};
use token::base64url;

use super::{foreign_subjects, statements::parse_statements};
use crate::{
    db::{Executor, StoreError, Write, row},
    domain::{AnySubject, Grant, OperatorId, UserName, Version},
};

/// Sets the grant of a user, or removes it. Returns whether it has changed.
pub(in crate::accounts) async fn set(
    write: &mut Write,
    operator: &OperatorId,
    user: &UserName,
    statements: Option<&[u8]>,
    version: Version,
) -> Result<bool, StoreError> {
    let statement = match statements {
        Some(_) => {
            "INSERT INTO grants (operator_id, user_name, statements, version) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (operator_id, user_name) DO UPDATE \
             SET statements = excluded.statements, version = excluded.version \
             WHERE grants.statements IS DISTINCT FROM excluded.statements"
        }
        None => {
            "UPDATE grants SET statements = $3, version = $4 \
             WHERE operator_id = $1 AND user_name = $2 AND statements IS NOT NULL"
        }
    };
    let done = query(statement)
        .bind(operator.as_str())
        .bind(user.as_str())
        .bind(statements.map(base64url::encode))
        .bind(row::to_column(version))
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Removes the grants of all users of an operator.
pub(in crate::accounts) async fn clear(
    write: &mut Write,
    operator: &OperatorId,
    version: Version,
) -> Result<(), StoreError> {
    query(
        "UPDATE grants SET statements = NULL, version = $2 WHERE operator_id = $1 AND statements IS NOT NULL",
    )
    .bind(operator.as_str())
    .bind(row::to_column(version))
    .execute(write.connection())
    .await?;
    Ok(())
}

/// Returns the grants that were changed after a version.
pub async fn since(executor: &mut impl Executor, version: Version) -> Result<Vec<Grant>, StoreError> {
    let rows = query("SELECT operator_id, user_name, statements FROM grants WHERE version > $1")
        .bind(row::to_column(version))
        .fetch_all(executor.connection())
        .await?;
    let mut grants = rows.iter().map(parse_row).collect::<Result<Vec<_>, _>>()?;
    grants.extend(foreign_subjects::grants_since(executor, version).await?);
    Ok(grants)
}

/// Returns the subjects whose grants were changed after a version, each with the version of the change.
pub async fn changed_since(
    executor: &mut impl Executor,
    version: Version,
) -> Result<Vec<(Version, AnySubject)>, StoreError> {
    let rows = query(
        "SELECT operator_id, user_name, version FROM grants WHERE version > $1 \
         ORDER BY version, operator_id, user_name",
    )
    .bind(row::to_column(version))
    .fetch_all(executor.connection())
    .await?;
    let mut changed: Vec<(Version, AnySubject)> = rows
        .iter()
        .map(|from| Ok((row::from_column(from, "version")?, row::subject(from)?.into())))
        .collect::<Result<_, StoreError>>()?;
    changed.extend(foreign_subjects::changed_since(executor, version).await?);
    Ok(changed)
}

/// Counts the grants.
pub async fn count(executor: &mut impl Executor) -> Result<u64, StoreError> {
    row::count(
        executor,
        "SELECT (SELECT COUNT(*) FROM grants) + (SELECT COUNT(*) FROM foreign_subjects) AS number",
    )
    .await
}

fn parse_row(from: &AnyRow) -> Result<Grant, StoreError> {
    Ok(Grant { subject: row::subject(from)?.into(), statements: parse_statements(from)? })
}
