//! The number of revocations in the bundle that each operator has caused.

use sqlx::query;

use crate::{
    db::{Executor, StoreError, Write, row},
    domain::{OperatorId, UnixMillis, UnixSeconds},
};

/// Counts a revocation, which leaves the bundle at a second.
pub(in crate::limits) async fn add(
    write: &mut Write,
    operator: &OperatorId,
    forgotten_at: UnixSeconds,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO operator_shares (operator_id, until_hour, held) VALUES ($1, $2, 1) \
         ON CONFLICT (operator_id, until_hour) DO UPDATE SET held = operator_shares.held + 1",
    )
    .bind(operator.as_str())
    .bind(row::to_column(forgotten_at.get() / HOUR_SECS))
    .execute(write.connection())
    .await?;
    Ok(())
}

/// Returns the present number of an operator's revocations in the bundle.
pub(in crate::limits) async fn current_share(
    executor: &mut impl Executor,
    operator: &OperatorId,
    now: UnixMillis,
) -> Result<u64, StoreError> {
    let found = query(
        "SELECT CAST(COALESCE(SUM(held), 0) AS BIGINT) AS held FROM operator_shares \
         WHERE operator_id = $1 AND until_hour >= $2",
    )
    .bind(operator.as_str())
    .bind(row::to_column(now.seconds().get() / HOUR_SECS))
    .fetch_one(executor.connection())
    .await?;
    row::from_column(&found, "held")
}

/// Returns the operator with the most revocations, and their number.
pub(in crate::limits) async fn largest_share(
    executor: &mut impl Executor,
    now: UnixMillis,
) -> Result<Option<(OperatorId, u64)>, StoreError> {
    let found = query(
        "SELECT operator_id, CAST(SUM(held) AS BIGINT) AS held FROM operator_shares WHERE until_hour >= $1 \
         GROUP BY operator_id ORDER BY held DESC, operator_id LIMIT 1",
    )
    .bind(row::to_column(now.seconds().get() / HOUR_SECS))
    .fetch_optional(executor.connection())
    .await?;
    found.map(|row| Ok((row::parsed_text(&row, "operator_id")?, row::from_column(&row, "held")?))).transpose()
}

/// Deletes expired rows, and returns their number.
pub async fn purge(write: &mut Write, now: UnixMillis) -> Result<u64, StoreError> {
    let done = query("DELETE FROM operator_shares WHERE until_hour < $1")
        .bind(row::to_column(now.seconds().get() / HOUR_SECS))
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected())
}

const HOUR_SECS: u64 = 3600;
