//! Gaps: intervals of issue for which the store lacks credentials, as it was restored from a backup.

use sqlx::{any::AnyRow, query};
use token::Fingerprint;

use crate::{
    credentials::coverage,
    db::{Executor, StoreError, Write, row},
    domain::{IssuanceGap, UnixSeconds, Version},
};

/// Inserts a gap. It becomes part of the bundle when [`repair_gaps`] is called.
pub(in crate::restore) async fn insert(write: &mut Write, gap: &IssuanceGap) -> Result<(), StoreError> {
    let IssuanceGap { issued_after, issued_until, found_at, version } = gap;
    query(
        "INSERT INTO gaps (issued_after, issued_until, found_at, version) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (issued_after, found_at) DO NOTHING",
    )
    .bind(row::to_column(*issued_after))
    .bind(row::to_column(*issued_until))
    .bind(row::to_column(*found_at))
    .bind(version.map(row::to_column))
    .execute(write.connection())
    .await?;
    Ok(())
}

/// Returns all gaps, earliest first.
pub async fn list(executor: &mut impl Executor) -> Result<Vec<IssuanceGap>, StoreError> {
    let rows = query(
        "SELECT issued_after, issued_until, found_at, version FROM gaps ORDER BY issued_after, found_at",
    )
    .fetch_all(executor.connection())
    .await?;
    rows.iter().map(parse_row).collect()
}

/// Marks all gaps as repaired. After the commit no credential is inserted with a time of issue in a gap, and edges refuse unknown
/// credentials that were issued in one. Must be the first write to the issuance log in the transaction.
pub(in crate::restore) async fn repair_gaps(write: &mut Write, version: Version) -> Result<(), StoreError> {
    coverage::lock_issuance(write).await?;
    query("UPDATE gaps SET version = $1 WHERE version IS NULL")
        .bind(row::to_column(version))
        .execute(write.connection())
        .await?;
    Ok(())
}

/// Returns the last second of all repaired gaps. New credentials must be issued after it.
pub async fn latest_end(executor: &mut impl Executor) -> Result<Option<UnixSeconds>, StoreError> {
    let row = query("SELECT MAX(issued_until) AS ended FROM gaps WHERE version IS NOT NULL")
        .fetch_one(executor.connection())
        .await?;
    row::optional_from_column(&row, "ended")
}

/// Returns the version in which a gap was last repaired; `None` if no gap was repaired.
pub async fn latest_version(executor: &mut impl Executor) -> Result<Option<Version>, StoreError> {
    let row = query("SELECT MAX(version) AS version FROM gaps").fetch_one(executor.connection()).await?;
    row::optional_from_column(&row, "version")
}

/// Returns the latest end or time of discovery of a gap if it is later than a second.
pub async fn latest_instant_after(
    executor: &mut impl Executor,
    second: UnixSeconds,
) -> Result<Option<UnixSeconds>, StoreError> {
    let latest = list(executor).await?.iter().map(|gap| gap.issued_until.max(gap.found_at)).max();
    Ok(latest.filter(|latest| *latest > second))
}

/// Limits ends and times of discovery to a second.
pub async fn clamp_to_now(write: &mut Write, second: UnixSeconds) -> Result<(), StoreError> {
    for update in [
        "UPDATE gaps SET issued_until = $1 WHERE issued_until > $1",
        "UPDATE gaps SET found_at = $1 WHERE found_at > $1",
    ] {
        query(update).bind(row::to_column(second)).execute(write.connection()).await?;
    }
    Ok(())
}

/// Returns the known credentials that were issued in repaired gaps.
pub async fn known_credentials(executor: &mut impl Executor) -> Result<Vec<Fingerprint>, StoreError> {
    let rows = query(
        "SELECT i.fingerprint FROM issued i WHERE EXISTS (SELECT 1 FROM gaps g WHERE g.version IS NOT NULL \
         AND i.issued_at > g.issued_after AND i.issued_at <= g.issued_until) ORDER BY i.prefix",
    )
    .fetch_all(executor.connection())
    .await?;
    rows.iter().map(|from| row::parsed_text(from, "fingerprint")).collect()
}

/// Counts the known credentials that were issued in an interval.
pub(in crate::restore) async fn count_known(
    executor: &mut impl Executor,
    after: UnixSeconds,
    until: UnixSeconds,
) -> Result<u64, StoreError> {
    let row = query("SELECT COUNT(*) AS known FROM issued WHERE issued_at > $1 AND issued_at <= $2")
        .bind(row::to_column(after))
        .bind(row::to_column(until))
        .fetch_one(executor.connection())
        .await?;
    row::from_column(&row, "known")
}

fn parse_row(from: &AnyRow) -> Result<IssuanceGap, StoreError> {
    Ok(IssuanceGap {
        issued_after: row::from_column(from, "issued_after")?,
        issued_until: row::from_column(from, "issued_until")?,
        found_at: row::from_column(from, "found_at")?,
        version: row::optional_from_column(from, "version")?,
    })
}
