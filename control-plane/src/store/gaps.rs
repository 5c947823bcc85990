//! Gaps: intervals of issue for which the store lacks credentials, as it was restored from a backup.

use sqlx::{any::AnyRow, query};
use token::Fingerprint;

use super::{Executor, StoreError, Write, row};
use crate::model::FoundGap;

/// Inserts a gap. It becomes part of the bundle when [`close`] marks it as repaired.
pub async fn insert(write: &mut Write, gap: &FoundGap) -> Result<(), StoreError> {
    let FoundGap { issued_after, issued_until, found_at, version } = gap;
    query(
        "INSERT INTO gaps (issued_after, issued_until, found_at, version) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (issued_after, found_at) DO NOTHING",
    )
    .bind(row::signed(*issued_after))
    .bind(row::signed(*issued_until))
    .bind(row::signed(*found_at))
    .bind(version.map(row::signed))
    .execute(write.connection())
    .await?;
    Ok(())
}

/// Returns all gaps, earliest first.
pub async fn list(executor: &mut impl Executor) -> Result<Vec<FoundGap>, StoreError> {
    let rows = query(
        "SELECT issued_after, issued_until, found_at, version FROM gaps ORDER BY issued_after, found_at",
    )
    .fetch_all(executor.connection())
    .await?;
    rows.iter().map(read).collect()
}

/// Marks all gaps as repaired. After the commit no credential is inserted with a time of issue in a gap, and edges refuse unknown
/// credentials that were issued in one. Must be the first write to the issuance log in the transaction. Returns the number of
/// gaps that were not repaired before.
pub async fn close(write: &mut Write, version: u64) -> Result<u64, StoreError> {
    super::coverage::lock(write).await?;
    let done = query("UPDATE gaps SET version = $1 WHERE version IS NULL")
        .bind(row::signed(version))
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected())
}

/// Returns the last second of all repaired gaps. New credentials must be issued after it.
pub async fn end(executor: &mut impl Executor) -> Result<Option<u64>, StoreError> {
    let row = query("SELECT MAX(issued_until) AS ended FROM gaps WHERE version IS NOT NULL")
        .fetch_one(executor.connection())
        .await?;
    row::optional_unsigned(&row, "ended")
}

/// Returns the version in which a gap was last repaired; `None` if no gap was repaired.
pub async fn version(executor: &mut impl Executor) -> Result<Option<u64>, StoreError> {
    let row = query("SELECT MAX(version) AS version FROM gaps").fetch_one(executor.connection()).await?;
    row::optional_unsigned(&row, "version")
}

/// Returns the latest end or time of discovery of a gap if it is later than a second.
pub async fn later_than(executor: &mut impl Executor, second: u64) -> Result<Option<u64>, StoreError> {
    let latest = list(executor).await?.iter().map(|gap| gap.issued_until.max(gap.found_at)).max();
    Ok(latest.filter(|latest| *latest > second))
}

/// Limits ends and times of discovery to a second.
pub async fn clamp_to_now(write: &mut Write, second: u64) -> Result<(), StoreError> {
    for update in [
        "UPDATE gaps SET issued_until = $1 WHERE issued_until > $1",
        "UPDATE gaps SET found_at = $1 WHERE found_at > $1",
    ] {
        query(update).bind(row::signed(second)).execute(write.connection()).await?;
    }
    Ok(())
}

/// Returns the known credentials that were issued in closed gaps.
pub async fn known(executor: &mut impl Executor) -> Result<Vec<Fingerprint>, StoreError> {
    let rows = query(
        "SELECT i.fingerprint FROM issued i WHERE EXISTS (SELECT 1 FROM gaps g WHERE g.version IS NOT NULL \
         AND i.issued_at > g.issued_after AND i.issued_at <= g.issued_until) ORDER BY i.prefix",
    )
    .fetch_all(executor.connection())
    .await?;
    rows.iter().map(|from| row::parsed(from, "fingerprint")).collect()
}

/// Counts the known credentials that were issued in an interval.
pub async fn count_known(executor: &mut impl Executor, after: u64, until: u64) -> Result<u64, StoreError> {
    let row = query("SELECT COUNT(*) AS known FROM issued WHERE issued_at > $1 AND issued_at <= $2")
        .bind(row::signed(after))
        .bind(row::signed(until))
        .fetch_one(executor.connection())
        .await?;
    row::unsigned(&row, "known")
}

fn read(from: &AnyRow) -> Result<FoundGap, StoreError> {
    Ok(FoundGap {
        issued_after: row::unsigned(from, "issued_after")?,
        issued_until: row::unsigned(from, "issued_until")?,
        found_at: row::unsigned(from, "found_at")?,
        version: row::optional_unsigned(from, "version")?,
    })
}
