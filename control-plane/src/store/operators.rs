use sqlx::query;

use super::{Lookup, StoreError, Write, row};
use crate::model::{OperatorId, UserName};

pub async fn insert(write: &mut Write, operator: &OperatorId, at: u64) -> Result<(), StoreError> {
    query("INSERT INTO operators (operator_id, created_at) VALUES ($1, $2)")
        .bind(operator.as_str())
        .bind(row::signed(at))
        .execute(write.connection())
        .await?;
    Ok(())
}

/// Whether the user is new.
pub async fn insert_user(
    write: &mut Write,
    operator: &OperatorId,
    user: &UserName,
    at: u64,
) -> Result<bool, StoreError> {
    let done =
        query("INSERT INTO users (operator_id, name, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
            .bind(operator.as_str())
            .bind(user.as_str())
            .bind(row::signed(at))
            .execute(write.connection())
            .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn exists(lookup: &mut impl Lookup, operator: &OperatorId) -> Result<bool, StoreError> {
    let row = query("SELECT operator_id FROM operators WHERE operator_id = $1")
        .bind(operator.as_str())
        .fetch_optional(lookup.on())
        .await?;
    Ok(row.is_some())
}

pub async fn user_exists(
    lookup: &mut impl Lookup,
    operator: &OperatorId,
    user: &UserName,
) -> Result<bool, StoreError> {
    let row = query("SELECT name FROM users WHERE operator_id = $1 AND name = $2")
        .bind(operator.as_str())
        .bind(user.as_str())
        .fetch_optional(lookup.on())
        .await?;
    Ok(row.is_some())
}

/// In the order they were made.
pub async fn list(lookup: &mut impl Lookup) -> Result<Vec<OperatorId>, StoreError> {
    let rows = query("SELECT operator_id FROM operators ORDER BY created_at, operator_id")
        .fetch_all(lookup.on())
        .await?;
    rows.iter().map(|row| row::parsed(row, "operator_id")).collect()
}
