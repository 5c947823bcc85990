//! The audit log.

use serde_json::Value;
use sqlx::{any::AnyRow, query};

use super::{Executor, StoreError, Write, row};
use crate::{
    clock::Time,
    model::{Actor, AuditEntry},
};

/// An entry to append.
#[derive(Debug)]
pub struct Change<'a> {
    /// When the change was made.
    pub at: Time,
    /// Who made it.
    pub actor: &'a Actor,
    /// What was done.
    pub action: &'static str,
    /// What was changed.
    pub target: &'a str,
    /// Further details, as a JSON object.
    pub detail: Value,
}

/// Appends an entry in the transaction of its change. Must be the last write of the transaction, as it locks the sequence.
pub async fn append(write: &mut Write, change: Change<'_>) -> Result<(), StoreError> {
    append_all(write, &[change]).await
}

/// Appends the entries of several changes that share a transaction. Must be the last write, like [`append`].
pub async fn append_all(write: &mut Write, changes: &[Change<'_>]) -> Result<(), StoreError> {
    let count = u64::try_from(changes.len()).unwrap_or(u64::MAX);
    let last = query("UPDATE audit_state SET seq = seq + $1 WHERE id = 1 RETURNING seq")
        .bind(row::signed(count))
        .fetch_one(write.connection())
        .await?;
    let first = row::unsigned(&last, "seq")? - count + 1;
    for (seq, Change { at, actor, action, target, detail }) in (first..).zip(changes) {
        query("INSERT INTO audit (seq, at, actor, action, target, detail) VALUES ($1, $2, $3, $4, $5, $6)")
            .bind(row::signed(seq))
            .bind(row::signed(at.millis()))
            .bind(actor.to_string())
            .bind(*action)
            .bind(*target)
            .bind(detail.to_string())
            .execute(write.connection())
            .await?;
    }
    Ok(())
}

/// Returns the newest entries, newest first.
pub async fn newest(executor: &mut impl Executor, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
    let rows = query("SELECT seq, at, actor, action, target, detail FROM audit ORDER BY seq DESC LIMIT $1")
        .bind(i64::from(limit))
        .fetch_all(executor.connection())
        .await?;
    rows.iter().map(read).collect()
}

/// Returns the time of an entry in milliseconds; `None` if there is no such entry, or if it was purged.
pub async fn made_at(executor: &mut impl Executor, seq: u64) -> Result<Option<u64>, StoreError> {
    let found = query("SELECT at FROM audit WHERE seq = $1")
        .bind(row::signed(seq))
        .fetch_optional(executor.connection())
        .await?;
    found.as_ref().map(|found| row::unsigned(found, "at")).transpose()
}

/// Returns the latest time of an entry at or before a time.
pub async fn last_until(executor: &mut impl Executor, at: u64) -> Result<Option<u64>, StoreError> {
    let found = query("SELECT MAX(at) AS last FROM audit WHERE at <= $1")
        .bind(row::signed(at))
        .fetch_one(executor.connection())
        .await?;
    row::optional_unsigned(&found, "last")
}

/// Returns the number of the last entry, and that of the first one that was not purged.
pub async fn extent(executor: &mut impl Executor) -> Result<(u64, Option<u64>), StoreError> {
    let found = query(
        "SELECT (SELECT seq FROM audit_state WHERE id = 1) AS last, (SELECT MIN(seq) FROM audit) AS first_kept",
    )
    .fetch_one(executor.connection())
    .await?;
    Ok((row::unsigned(&found, "last")?, row::optional_unsigned(&found, "first_kept")?))
}

/// Returns whether the log has the entry of this number and time, or has purged it.
pub async fn has_entry(executor: &mut impl Executor, seq: u64, at: u64) -> Result<bool, StoreError> {
    if let Some(found) = made_at(executor, seq).await? {
        return Ok(found == at);
    }
    let (last, first_kept) = extent(executor).await?;
    Ok(seq <= last && first_kept.is_none_or(|first| seq < first))
}

/// Deletes the entries before a time, and returns their number.
pub async fn collect(write: &mut Write, before: Time) -> Result<u64, StoreError> {
    let done = query("DELETE FROM audit WHERE at < $1")
        .bind(row::signed(before.millis()))
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected())
}

fn read(from: &AnyRow) -> Result<AuditEntry, StoreError> {
    Ok(AuditEntry {
        seq: row::unsigned(from, "seq")?,
        at: row::unsigned(from, "at")?,
        actor: row::text(from, "actor")?,
        action: row::text(from, "action")?,
        target: row::text(from, "target")?,
        detail: serde_json::from_str(&row::text(from, "detail")?)
            .map_err(|_| StoreError::Corrupt { what: "detail" })?,
    })
}
