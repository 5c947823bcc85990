use serde_json::Value;
use sqlx::{any::AnyRow, query};

use super::{Lookup, StoreError, Write, row};
use crate::{
    clock::Time,
    model::{Actor, AuditLine},
};

/// A change, in the words of the log.
#[derive(Debug)]
pub struct Change<'a> {
    pub at: Time,
    pub actor: &'a Actor,
    pub action: &'static str,
    pub target: &'a str,
    pub detail: Value,
}

/// Writes a line in the transaction of the change it tells of. Last of all writes: it takes the lock of the sequence.
pub async fn append(write: &mut Write, change: Change<'_>) -> Result<(), StoreError> {
    append_all(write, &[change]).await
}

/// Writes the lines of several changes that share a transaction.
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

/// The newest lines, newest first.
pub async fn newest(lookup: &mut impl Lookup, limit: u32) -> Result<Vec<AuditLine>, StoreError> {
    let rows = query("SELECT seq, at, actor, action, target, detail FROM audit ORDER BY seq DESC LIMIT $1")
        .bind(i64::from(limit))
        .fetch_all(lookup.on())
        .await?;
    rows.iter().map(read).collect()
}

/// When the change of a line was made, in milliseconds; None for a line that is not there or was forgotten.
pub async fn made_at(lookup: &mut impl Lookup, seq: u64) -> Result<Option<u64>, StoreError> {
    let found = query("SELECT at FROM audit WHERE seq = $1")
        .bind(row::signed(seq))
        .fetch_optional(lookup.on())
        .await?;
    found.as_ref().map(|found| row::unsigned(found, "at")).transpose()
}

/// The greatest time of a line that is not later than this one.
pub async fn last_until(lookup: &mut impl Lookup, at: u64) -> Result<Option<u64>, StoreError> {
    let found = query("SELECT MAX(at) AS last FROM audit WHERE at <= $1")
        .bind(row::signed(at))
        .fetch_one(lookup.on())
        .await?;
    row::optional_unsigned(&found, "last")
}

/// How many lines were ever written, and the first that is still there.
pub async fn extent(lookup: &mut impl Lookup) -> Result<(u64, Option<u64>), StoreError> {
    let found = query(
        "SELECT (SELECT seq FROM audit_state WHERE id = 1) AS last, (SELECT MIN(seq) FROM audit) AS first_kept",
    )
    .fetch_one(lookup.on())
    .await?;
    Ok((row::unsigned(&found, "last")?, row::optional_unsigned(&found, "first_kept")?))
}

/// Returns whether the store holds the line of this number and time, or has forgotten it as lines are.
pub async fn is_there(lookup: &mut impl Lookup, seq: u64, at: u64) -> Result<bool, StoreError> {
    if let Some(found) = made_at(lookup, seq).await? {
        return Ok(found == at);
    }
    let (last, first_kept) = extent(lookup).await?;
    Ok(seq <= last && first_kept.is_none_or(|first| seq < first))
}

/// Forgets lines from before an instant; returns how many.
pub async fn collect(write: &mut Write, before: Time) -> Result<u64, StoreError> {
    let done = query("DELETE FROM audit WHERE at < $1")
        .bind(row::signed(before.millis()))
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected())
}

fn read(from: &AnyRow) -> Result<AuditLine, StoreError> {
    Ok(AuditLine {
        seq: row::unsigned(from, "seq")?,
        at: row::unsigned(from, "at")?,
        actor: row::text(from, "actor")?,
        action: row::text(from, "action")?,
        target: row::text(from, "target")?,
        detail: serde_json::from_str(&row::text(from, "detail")?)
            .map_err(|_| StoreError::Corrupt { what: "detail" })?,
    })
}
