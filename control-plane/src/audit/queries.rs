//! The audit log.

use sqlx::{any::AnyRow, query};

use crate::{
    db::{Executor, StoreError, Write, row},
    domain::AuditEntry,
    domain::UnixMillis,
};

/// Returns the newest entries, newest first.
pub async fn list_newest(executor: &mut impl Executor, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
    let rows = query("SELECT seq, at, actor, action, target, detail FROM audit ORDER BY seq DESC LIMIT $1")
        .bind(i64::from(limit))
        .fetch_all(executor.connection())
        .await?;
    rows.iter().map(parse_row).collect()
}

/// Returns the time of an entry in milliseconds; `None` if there is no such entry, or if it was purged.
pub(in crate::audit) async fn created_at(
    executor: &mut impl Executor,
    seq: u64,
) -> Result<Option<u64>, StoreError> {
    let found = query("SELECT at FROM audit WHERE seq = $1")
        .bind(row::to_column(seq))
        .fetch_optional(executor.connection())
        .await?;
    found.as_ref().map(|found| row::from_column(found, "at")).transpose()
}

/// Returns the latest time of an entry at or before a time.
pub async fn latest_until(executor: &mut impl Executor, at: u64) -> Result<Option<u64>, StoreError> {
    let found = query("SELECT MAX(at) AS last FROM audit WHERE at <= $1")
        .bind(row::to_column(at))
        .fetch_one(executor.connection())
        .await?;
    row::optional_from_column(&found, "last")
}

/// Returns the number of the last entry, and that of the first one that was not purged.
pub(in crate::audit) async fn extent(executor: &mut impl Executor) -> Result<(u64, Option<u64>), StoreError> {
    let found = query(
        "SELECT (SELECT seq FROM audit_state WHERE id = 1) AS last, (SELECT MIN(seq) FROM audit) AS first_kept",
    )
    .fetch_one(executor.connection())
    .await?;
    Ok((row::from_column(&found, "last")?, row::optional_from_column(&found, "first_kept")?))
}

/// Returns whether the log has the entry of this number and time, or has purged it.
pub async fn has_entry(executor: &mut impl Executor, seq: u64, at: u64) -> Result<bool, StoreError> {
    if let Some(found) = created_at(executor, seq).await? {
        return Ok(found == at);
    }
    let (last, first_kept) = extent(executor).await?;
    Ok(seq <= last && first_kept.is_none_or(|first| seq < first))
}

/// Deletes the entries before a time, and returns their number.
pub async fn purge(write: &mut Write, before: UnixMillis) -> Result<u64, StoreError> {
    let done = query("DELETE FROM audit WHERE at < $1")
        .bind(row::to_column(before.millis()))
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected())
}

fn parse_row(from: &AnyRow) -> Result<AuditEntry, StoreError> {
    Ok(AuditEntry {
        seq: row::from_column(from, "seq")?,
        at: row::from_column(from, "at")?,
        actor: row::text(from, "actor")?,
        action: row::text(from, "action")?,
        target: row::text(from, "target")?,
        detail: serde_json::from_str(&row::text(from, "detail")?)
            .map_err(|_| StoreError::Corrupt { what: "detail" })?,
    })
}
