//! Spans of issue of which the store knows a part only, since it was restored from a backup.

use sqlx::{any::AnyRow, query};
use token::Fingerprint;

use super::{Lookup, StoreError, Write, row};
use crate::model::FoundGap;

/// Notes what was found; edges hear of it when it is [`close`]d.
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

/// All there are, the earliest first.
pub async fn list(lookup: &mut impl Lookup) -> Result<Vec<FoundGap>, StoreError> {
    let rows = query(
        "SELECT issued_after, issued_until, found_at, version FROM gaps ORDER BY issued_after, found_at",
    )
    .fetch_all(lookup.on())
    .await?;
    rows.iter().map(read).collect()
}

/// From the commit on nothing is entered that was issued in a gap, and edges refuse what was and is not known. First of
/// all writes to the ledger in its transaction. How many gaps were open.
pub async fn close(write: &mut Write, version: u64) -> Result<u64, StoreError> {
    super::coverage::lock(write).await?;
    let done = query("UPDATE gaps SET version = $1 WHERE version IS NULL")
        .bind(row::signed(version))
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected())
}

/// The last second of closed gaps: whatever is issued from now on must be issued after it.
pub async fn end(lookup: &mut impl Lookup) -> Result<Option<u64>, StoreError> {
    let row = query("SELECT MAX(issued_until) AS ended FROM gaps WHERE version IS NOT NULL")
        .fetch_one(lookup.on())
        .await?;
    row::optional_unsigned(&row, "ended")
}

/// The version in which one was last closed; none where there is none that edges know of.
pub async fn version(lookup: &mut impl Lookup) -> Result<Option<u64>, StoreError> {
    let row = query("SELECT MAX(version) AS version FROM gaps").fetch_one(lookup.on()).await?;
    row::optional_unsigned(&row, "version")
}

/// Returns the latest second that a gap reaches, or was found at, where that is later than this one.
pub async fn later_than(lookup: &mut impl Lookup, second: u64) -> Result<Option<u64>, StoreError> {
    let latest = list(lookup).await?.iter().map(|gap| gap.issued_until.max(gap.found_at)).max();
    Ok(latest.filter(|latest| *latest > second))
}

/// Brings gaps that reach beyond a second back to it: nothing has been issued later.
pub async fn put_right(write: &mut Write, second: u64) -> Result<(), StoreError> {
    for update in [
        "UPDATE gaps SET issued_until = $1 WHERE issued_until > $1",
        "UPDATE gaps SET found_at = $1 WHERE found_at > $1",
    ] {
        query(update).bind(row::signed(second)).execute(write.connection()).await?;
    }
    Ok(())
}

/// What was issued in closed gaps, and is known.
pub async fn known(lookup: &mut impl Lookup) -> Result<Vec<Fingerprint>, StoreError> {
    let rows = query(
        "SELECT i.fingerprint FROM issued i WHERE EXISTS (SELECT 1 FROM gaps g WHERE g.version IS NOT NULL \
         AND i.issued_at > g.issued_after AND i.issued_at <= g.issued_until) ORDER BY i.prefix",
    )
    .fetch_all(lookup.on())
    .await?;
    rows.iter().map(|from| row::parsed(from, "fingerprint")).collect()
}

/// How much was issued in a span, and is known.
pub async fn count_known(lookup: &mut impl Lookup, after: u64, until: u64) -> Result<u64, StoreError> {
    let row = query("SELECT COUNT(*) AS known FROM issued WHERE issued_at > $1 AND issued_at <= $2")
        .bind(row::signed(after))
        .bind(row::signed(until))
        .fetch_one(lookup.on())
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
