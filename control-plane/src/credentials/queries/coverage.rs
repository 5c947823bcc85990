//! The coverage of each key: the second of issue up to which the base contains everything that the key signed.

use sqlx::query;

use crate::{
    db::{Engine, Executor, StoreError, Write, row},
    domain::UnixSeconds,
};

/// Locks the issuance log until the end of the transaction, and returns the latest second of issue, of any key.
///
/// The result is never later than `now - 1` and than the latest token, so a clock that is ahead for a while cannot block
/// later issuance. It is never earlier than the present coverage, so a clock that is behind cannot reduce it.
pub async fn latest_issued_second(write: &mut Write, now: UnixSeconds) -> Result<UnixSeconds, StoreError> {
    lock_issuance(write).await?;
    let row = query("SELECT MAX(issued_at) AS latest FROM issued").fetch_one(write.connection()).await?;
    let latest: UnixSeconds = row::optional_from_column(&row, "latest")?.unwrap_or_default();
    let row = query("SELECT MAX(high) AS covered FROM coverage WHERE high < $1")
        .bind(row::to_column(row::NEVER_EXPIRES))
        .fetch_one(write.connection())
        .await?;
    let covered = row::optional_from_column(&row, "covered")?.unwrap_or_default();
    Ok(latest.min(now.saturating_sub(1)).max(covered))
}

/// Raises the coverage of keys. After the commit no token of these keys can be inserted with a time of issue at or before
/// this second, and all earlier ones are visible. Must be the first write to `issued` and `coverage` in the transaction.
pub async fn raise_floor(write: &mut Write, kids: &[String], high: UnixSeconds) -> Result<(), StoreError> {
    lock_issuance(write).await?;
    for kid in kids {
        query(
            "INSERT INTO coverage (kid, high) VALUES ($1, $2) \
             ON CONFLICT (kid) DO UPDATE SET high = excluded.high WHERE excluded.high > coverage.high",
        )
        .bind(kid.as_str())
        .bind(row::to_column(high))
        .execute(write.connection())
        .await?;
    }
    Ok(())
}

/// Prevents inserts into the issuance log until the end of the transaction, and waits for those that have begun.
pub async fn lock_issuance(write: &mut Write) -> Result<(), StoreError> {
    if write.engine() == Engine::Postgres {
        // The lock waits for transactions with uncommitted inserts. Later inserts wait for this transaction and see its
        // changes, as a statement takes its snapshot after its table lock. SQLite has a single writer anyway.
        query("LOCK TABLE issued IN SHARE MODE").execute(write.connection()).await?;
    }
    Ok(())
}

/// Returns the keys whose coverage is later than a second, except for keys that sign no more.
pub async fn floors_after(
    executor: &mut impl Executor,
    second: UnixSeconds,
) -> Result<Vec<(String, UnixSeconds)>, StoreError> {
    let rows = query("SELECT kid, high FROM coverage WHERE high > $1 AND high < $2 ORDER BY kid")
        .bind(row::to_column(second))
        .bind(row::to_column(row::NEVER_EXPIRES))
        .fetch_all(executor.connection())
        .await?;
    rows.iter().map(|from| Ok((row::text(from, "kid")?, row::from_column(from, "high")?))).collect()
}

/// Lowers coverage that is later than a second. The caller must delete the blocks with a later coverage.
pub async fn lower_floors(write: &mut Write, second: UnixSeconds) -> Result<(), StoreError> {
    query("UPDATE coverage SET high = $1 WHERE high > $1 AND high < $2")
        .bind(row::to_column(second))
        .bind(row::to_column(row::NEVER_EXPIRES))
        .execute(write.connection())
        .await?;
    Ok(())
}

/// Returns the coverage of a key; `None` if the base covers nothing of it.
pub async fn floor_for(executor: &mut impl Executor, kid: &str) -> Result<Option<UnixSeconds>, StoreError> {
    let found = query("SELECT high FROM coverage WHERE kid = $1")
        .bind(kid)
        .fetch_optional(executor.connection())
        .await?;
    found.as_ref().map(|found| row::from_column(found, "high")).transpose()
}
