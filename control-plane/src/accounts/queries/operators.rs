use sqlx::{any::AnyRow, query};

use crate::{
    db::{Executor, StoreError, Write, row},
    domain::{Operator, OperatorId, Page, PageRequest, TombstoneKind, UnixSeconds, UserName},
    journal::tombstones,
};

/// Inserts an operator.
pub async fn insert(write: &mut Write, operator: &OperatorId, at: UnixSeconds) -> Result<(), StoreError> {
    query("INSERT INTO operators (operator_id, created_at) VALUES ($1, $2)")
        .bind(operator.as_str())
        .bind(row::to_column(at))
        .execute(write.connection())
        .await?;
    Ok(())
}

/// Inserts a user. Returns whether it is new.
pub async fn insert_user(
    write: &mut Write,
    operator: &OperatorId,
    user: &UserName,
    at: UnixSeconds,
) -> Result<bool, StoreError> {
    let done =
        query("INSERT INTO users (operator_id, name, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
            .bind(operator.as_str())
            .bind(user.as_str())
            .bind(row::to_column(at))
            .execute(write.connection())
            .await?;
    Ok(done.rows_affected() == 1)
}

/// Returns whether the operator exists.
pub async fn exists(executor: &mut impl Executor, operator: &OperatorId) -> Result<bool, StoreError> {
    let row = query("SELECT operator_id FROM operators WHERE operator_id = $1")
        .bind(operator.as_str())
        .fetch_optional(executor.connection())
        .await?;
    Ok(row.is_some())
}

/// Returns whether there is any operator. Works with every schema version.
pub async fn exists_any(executor: &mut impl Executor) -> Result<bool, StoreError> {
    let row =
        query("SELECT operator_id FROM operators LIMIT 1").fetch_optional(executor.connection()).await?;
    Ok(row.is_some())
}

/// Returns whether the user exists.
pub async fn user_exists(
    executor: &mut impl Executor,
    operator: &OperatorId,
    user: &UserName,
) -> Result<bool, StoreError> {
    let row = query("SELECT name FROM users WHERE operator_id = $1 AND name = $2")
        .bind(operator.as_str())
        .bind(user.as_str())
        .fetch_optional(executor.connection())
        .await?;
    Ok(row.is_some())
}

/// Finds an operator.
pub(in crate::accounts) async fn find(
    executor: &mut impl Executor,
    operator: &OperatorId,
) -> Result<Option<Operator>, StoreError> {
    let found = query(
        "SELECT operator_id, description, default_permission, created_at FROM operators WHERE operator_id = $1",
    )
    .bind(operator.as_str())
    .fetch_optional(executor.connection())
    .await?;
    found.as_ref().map(parse_row).transpose()
}

/// Returns a page of the operators in the order of their creation.
pub(in crate::accounts) async fn page(
    executor: &mut impl Executor,
    page: &PageRequest,
) -> Result<Page<Operator>, StoreError> {
    let (created_at, id) = page.after_pair()?.unwrap_or((-1, ""));
    let rows = query(
        "SELECT operator_id, description, default_permission, created_at FROM operators \
         WHERE created_at > $1 OR (created_at = $1 AND operator_id > $2) \
         ORDER BY created_at, operator_id LIMIT $3",
    )
    .bind(created_at)
    .bind(id)
    .bind(page.rows())
    .fetch_all(executor.connection())
    .await?;
    let operators = rows.iter().map(parse_row).collect::<Result<Vec<_>, _>>()?;
    Ok(page.paginate(operators, |operator| format!("{}.{}", operator.created_at, operator.id)))
}

/// Counts the operators.
pub async fn count(executor: &mut impl Executor) -> Result<u64, StoreError> {
    row::count(executor, "SELECT COUNT(*) AS number FROM operators").await
}

/// Sets the description of an operator.
pub(in crate::accounts) async fn set_description(
    write: &mut Write,
    operator: &OperatorId,
    description: Option<&str>,
) -> Result<(), StoreError> {
    query("UPDATE operators SET description = $2 WHERE operator_id = $1")
        .bind(operator.as_str())
        .bind(description)
        .execute(write.connection())
        .await?;
    Ok(())
}

/// Sets or removes the default permissions of an operator. Returns whether the operator exists.
pub(in crate::accounts) async fn set_default_permissions(
    write: &mut Write,
    operator: &OperatorId,
    document: Option<&str>,
) -> Result<bool, StoreError> {
    let done = query("UPDATE operators SET default_permission = $2 WHERE operator_id = $1")
        .bind(operator.as_str())
        .bind(document)
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes an operator, which must have no users or keys. Returns whether it existed.
pub(in crate::accounts) async fn delete(
    write: &mut Write,
    operator: &OperatorId,
) -> Result<bool, StoreError> {
    let gone = query("DELETE FROM operators WHERE operator_id = $1 RETURNING created_at")
        .bind(operator.as_str())
        .fetch_optional(write.connection())
        .await?;
    if let Some(from) = &gone {
        let at = row::from_column(from, "created_at")?;
        tombstones::insert(write, TombstoneKind::Operator, operator.as_str(), at).await?;
    }
    Ok(gone.is_some())
}

fn parse_row(from: &AnyRow) -> Result<Operator, StoreError> {
    Ok(Operator {
        id: row::parsed_text(from, "operator_id")?,
        description: row::optional_text(from, "description")?,
        default_permission: row::optional_text(from, "default_permission")?,
        created_at: row::from_column(from, "created_at")?,
    })
}
