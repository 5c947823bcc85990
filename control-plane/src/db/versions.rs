//! The version of the bundle's content.

use sqlx::{Row as _, query};

use super::{Engine, Executor, StoreError, Write, row};
use crate::{
    domain::{UnixMillis, UnixSeconds, Version},
    platform::random,
};

/// How long versions are logged, in milliseconds. A server that was disconnected for longer reloads everything.
const LOG_RETENTION_MS: i64 = 600_000;

/// How many versions are logged at least: after a long pause several changes may precede the next load of a server.
const MIN_LOGGED_VERSIONS: i64 = 256;

/// A build lease that ends later than this is invalid, in milliseconds: leases are a minute long, and clocks differ by a
/// minute at most.
const MAX_LEASE_MS: u64 = 600_000;

/// The present version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BundleVersion {
    /// The number.
    pub number: Version,
    /// Revocations and watermarks of credentials that expired before this second are no longer part of the bundle.
    pub collected_before: UnixSeconds,
    /// The version of the last checkpoint.
    pub checkpoint: Version,
    /// A random number for each version. It distinguishes versions of different histories that have the same number.
    pub mark: i64,
}

/// Allocates a version above `floor`, which edges have even if this database has lost it. Must be the first write of the
/// transaction: the lock makes versions ordered by commit.
///
/// The version is the time in milliseconds, or the last version plus one if that is higher. So a database that is restored
/// or new continues above the versions that edges have, which were allocated earlier.
pub(super) async fn allocate_above(
    write: &mut Write,
    now: UnixMillis,
    floor: Version,
) -> Result<Version, StoreError> {
    let mark = i64::from_be_bytes(*random::bytes()) & i64::MAX;
    let next = "UPDATE bundle_state SET version = CASE WHEN version >= $1 THEN version + 1 ELSE $1 END, mark = $2 \
                WHERE id = 1 RETURNING version";
    let least = now.millis().max(floor.next().get());
    let row = query(next).bind(row::to_column(least)).bind(mark).fetch_one(write.connection()).await?;
    let version = row::from_column(&row, "version")?;
    // The versions that servers may have loaded last stay in the log.
    query(
        "DELETE FROM version_log WHERE version < (SELECT MAX(version) FROM version_log) - $1 \
         AND version NOT IN (SELECT version FROM version_log ORDER BY version DESC LIMIT $2)",
    )
    .bind(LOG_RETENTION_MS)
    .bind(MIN_LOGGED_VERSIONS)
    .execute(write.connection())
    .await?;
    query(
        "INSERT INTO version_log (version, mark) VALUES ($1, $2) \
         ON CONFLICT (version) DO UPDATE SET mark = excluded.mark",
    )
    .bind(row::to_column(version))
    .bind(mark)
    .execute(write.connection())
    .await?;
    if write.engine() == Engine::Postgres {
        // The notification is delivered if and when the transaction commits.
        query("NOTIFY keystile").execute(write.connection()).await?;
    }
    Ok(version)
}

/// Returns whether this version with this mark is in the history of the database. Versions that are more than ten minutes
/// older than the latest are unknown.
pub async fn is_logged(
    executor: &mut impl Executor,
    version: Version,
    mark: i64,
) -> Result<bool, StoreError> {
    let found = query("SELECT mark FROM version_log WHERE version = $1 AND mark = $2")
        .bind(row::to_column(version))
        .bind(mark)
        .fetch_optional(executor.connection())
        .await?;
    Ok(found.is_some())
}

/// Returns the latest logged version at or below a version.
pub async fn latest_until(
    executor: &mut impl Executor,
    version: Version,
) -> Result<Option<Version>, StoreError> {
    let row = query("SELECT MAX(version) AS latest FROM version_log WHERE version <= $1")
        .bind(row::to_column(version))
        .fetch_one(executor.connection())
        .await?;
    row::optional_from_column(&row, "latest")
}

/// Locks the version until the end of the transaction, so that no revocation or deletion can commit in between. Must be the
/// first statement of the transaction. A call of [`allocate_above`] may follow.
pub(super) async fn lock_version(write: &mut Write) -> Result<(), StoreError> {
    // SQLite has a single writer anyway.
    if write.engine() == Engine::Postgres {
        query("SELECT version FROM bundle_state WHERE id = 1 FOR UPDATE").execute(write.connection()).await?;
    }
    Ok(())
}

/// Makes this version, the latest, a checkpoint. It is necessary for changes that the tail cannot express.
pub async fn mark_checkpoint(write: &mut Write, version: Version) -> Result<(), StoreError> {
    query("UPDATE bundle_state SET checkpoint = $1 WHERE id = 1")
        .bind(row::to_column(version))
        .execute(write.connection())
        .await?;
    Ok(())
}

/// Returns the time that servers have seen pass.
pub async fn passed_time(executor: &mut impl Executor) -> Result<UnixMillis, StoreError> {
    let row = query("SELECT passed FROM bundle_state WHERE id = 1").fetch_one(executor.connection()).await?;
    Ok(UnixMillis::from_millis(row::from_column(&row, "passed")?))
}

/// Records the time that has passed.
pub async fn set_passed_time(write: &mut Write, until: UnixMillis) -> Result<(), StoreError> {
    query("UPDATE bundle_state SET passed = $1 WHERE id = 1")
        .bind(row::to_column(until.millis()))
        .execute(write.connection())
        .await?;
    Ok(())
}

/// Corrects what a clock that was ahead has left. The version itself only grows.
pub async fn clamp_to_now(write: &mut Write, now: UnixMillis) -> Result<(), StoreError> {
    query(
        "UPDATE bundle_state SET passed = CASE WHEN passed > $1 THEN $1 ELSE passed END, \
         rebasing_until = CASE WHEN rebasing_until > $1 THEN 0 ELSE rebasing_until END WHERE id = 1",
    )
    .bind(row::to_column(now.millis()))
    .execute(write.connection())
    .await?;
    Ok(())
}

/// Records that rows which expired before a second were purged, in a version that becomes a checkpoint.
pub async fn mark_purged(write: &mut Write, version: Version, before: UnixSeconds) -> Result<(), StoreError> {
    mark_checkpoint(write, version).await?;
    query("UPDATE bundle_state SET collected_before = $1 WHERE id = 1")
        .bind(row::to_column(before))
        .execute(write.connection())
        .await?;
    Ok(())
}

/// Acquires the build lease until a time. Returns `false` if another process has it. A lease that ends later than any valid
/// one was left by a clock that was ahead, and is ignored.
pub async fn acquire_build_lease(
    write: &mut Write,
    now: UnixMillis,
    until: UnixMillis,
) -> Result<bool, StoreError> {
    let done = query(
        "UPDATE bundle_state SET rebasing_until = $2 \
         WHERE id = 1 AND (rebasing_until <= $1 OR rebasing_until > $3)",
    )
    .bind(row::to_column(now.millis()))
    .bind(row::to_column(until.millis()))
    .bind(row::to_column(now.millis().saturating_add(MAX_LEASE_MS)))
    .execute(write.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Extends the build lease. Returns `false` if it was lost.
pub async fn renew_build_lease(
    write: &mut Write,
    held: UnixMillis,
    until: UnixMillis,
) -> Result<bool, StoreError> {
    let done = query("UPDATE bundle_state SET rebasing_until = $2 WHERE id = 1 AND rebasing_until = $1")
        .bind(row::to_column(held.millis()))
        .bind(row::to_column(until.millis()))
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Releases the build lease. Returns `false` if it was lost, so another process may have built the base in between.
pub async fn release_build_lease(write: &mut Write, held: UnixMillis) -> Result<bool, StoreError> {
    renew_build_lease(write, held, UnixMillis::from_millis(0)).await
}

/// Returns the present version.
pub async fn current(executor: &mut impl Executor) -> Result<BundleVersion, StoreError> {
    let row = query("SELECT version, collected_before, checkpoint, mark FROM bundle_state WHERE id = 1")
        .fetch_one(executor.connection())
        .await?;
    Ok(BundleVersion {
        number: row::from_column(&row, "version")?,
        collected_before: row::from_column(&row, "collected_before")?,
        checkpoint: row::from_column(&row, "checkpoint")?,
        mark: row.try_get("mark")?,
    })
}
