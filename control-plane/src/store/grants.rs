use sqlx::{any::AnyRow, query};
use token::base64url;

use super::{Lookup, StoreError, Write, row};
use crate::model::{Grant, OperatorId, Subject, UserName};

/// Replaces what a user may do; None: nothing any more. Whether that is news to the edges.
pub async fn set(
    write: &mut Write,
    operator: &OperatorId,
    user: &UserName,
    statements: Option<&[u8]>,
    version: u64,
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
        .bind(row::signed(version))
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes back whatever anybody in the operator was granted.
pub async fn clear(write: &mut Write, operator: &OperatorId, version: u64) -> Result<(), StoreError> {
    query(
        "UPDATE grants SET statements = NULL, version = $2 WHERE operator_id = $1 AND statements IS NOT NULL",
    )
    .bind(operator.as_str())
    .bind(row::signed(version))
    .execute(write.connection())
    .await?;
    Ok(())
}

/// Those that changed after a version.
pub async fn since(lookup: &mut impl Lookup, version: u64) -> Result<Vec<Grant>, StoreError> {
    let rows = query("SELECT operator_id, user_name, statements FROM grants WHERE version > $1")
        .bind(row::signed(version))
        .fetch_all(lookup.on())
        .await?;
    rows.iter().map(read).collect()
}

/// Whose changed after a version, with that of the change.
pub async fn changed_since(
    lookup: &mut impl Lookup,
    version: u64,
) -> Result<Vec<(u64, Subject)>, StoreError> {
    let rows = query(
        "SELECT operator_id, user_name, version FROM grants WHERE version > $1 \
         ORDER BY version, operator_id, user_name",
    )
    .bind(row::signed(version))
    .fetch_all(lookup.on())
    .await?;
    rows.iter().map(|from| Ok((row::unsigned(from, "version")?, row::subject(from)?))).collect()
}

pub async fn count(lookup: &mut impl Lookup) -> Result<u64, StoreError> {
    row::count(lookup, "SELECT COUNT(*) AS number FROM grants").await
}

fn read(from: &AnyRow) -> Result<Grant, StoreError> {
    let statements = row::optional_text(from, "statements")?
        .map(|text| base64url::decode(text.as_bytes()).ok_or(StoreError::Corrupt { what: "statements" }));
    Ok(Grant { subject: row::subject(from)?, statements: statements.transpose()? })
}
