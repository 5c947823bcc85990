//! Up to which second of issue the base knows all that a key signed.

use sqlx::query;

use super::{Engine, Lookup, StoreError, Write, row};

/// The last second of issue, of whatever key, that is before `now`; none are entered until the end of the transaction.
/// It lies no further ahead than tokens do: a clock that is, for a while, then keeps nobody from issuing later. Nor is it
/// earlier than it was: by a clock that is behind, the base would cease to say what it has taken in.
pub async fn last_second(write: &mut Write, now: u64) -> Result<u64, StoreError> {
    lock(write).await?;
    let row = query("SELECT MAX(issued_at) AS latest FROM issued").fetch_one(write.connection()).await?;
    let latest = row::optional_unsigned(&row, "latest")?.unwrap_or_default();
    let row = query("SELECT MAX(high) AS covered FROM coverage WHERE high < $1")
        .bind(row::signed(row::NEVER))
        .fetch_one(write.connection())
        .await?;
    let covered = row::optional_unsigned(&row, "covered")?.unwrap_or_default();
    Ok(latest.min(now.saturating_sub(1)).max(covered))
}

/// From the commit on no token of the key is entered that was issued at or before this second, and all that were are
/// there to be found. First of all writes to either table in its transaction.
pub async fn raise(write: &mut Write, kids: &[String], high: u64) -> Result<(), StoreError> {
    lock(write).await?;
    for kid in kids {
        query(
            "INSERT INTO coverage (kid, high) VALUES ($1, $2) \
             ON CONFLICT (kid) DO UPDATE SET high = excluded.high WHERE excluded.high > coverage.high",
        )
        .bind(kid.as_str())
        .bind(row::signed(high))
        .execute(write.connection())
        .await?;
    }
    Ok(())
}

/// Keeps tokens from being entered until the end of the transaction, and waits for those that are being entered.
pub async fn lock(write: &mut Write) -> Result<(), StoreError> {
    if write.engine() == Engine::Postgres {
        // Waits for those who have entered some and not yet committed, and keeps out whoever has not looked here yet:
        // a statement looks at the database after it got its lock on the table. SQLite has one writer at a time anyway.
        query("LOCK TABLE issued IN SHARE MODE").execute(write.connection()).await?;
    }
    Ok(())
}

/// Keys that are covered beyond a second, but for those that sign no more.
pub async fn later_than(lookup: &mut impl Lookup, second: u64) -> Result<Vec<(String, u64)>, StoreError> {
    let rows = query("SELECT kid, high FROM coverage WHERE high > $1 AND high < $2 ORDER BY kid")
        .bind(row::signed(second))
        .bind(row::signed(row::NEVER))
        .fetch_all(lookup.on())
        .await?;
    rows.iter().map(|from| Ok((row::text(from, "kid")?, row::unsigned(from, "high")?))).collect()
}

/// Brings coverage that reaches beyond a second back to it. No block may say more.
pub async fn lower(write: &mut Write, second: u64) -> Result<(), StoreError> {
    query("UPDATE coverage SET high = $1 WHERE high > $1 AND high < $2")
        .bind(row::signed(second))
        .bind(row::signed(row::NEVER))
        .execute(write.connection())
        .await?;
    Ok(())
}

pub async fn of(lookup: &mut impl Lookup, kid: &str) -> Result<Option<u64>, StoreError> {
    let found =
        query("SELECT high FROM coverage WHERE kid = $1").bind(kid).fetch_optional(lookup.on()).await?;
    found.as_ref().map(|found| row::unsigned(found, "high")).transpose()
}
