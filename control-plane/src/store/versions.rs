//! The version of what edges must know.

use sqlx::{Row as _, query};

use super::{Engine, Lookup, StoreError, Write, row};
use crate::{clock::Time, random};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    pub number: u64,
    /// Revocations and watermarks that only matter before this second are no longer part of the bundle.
    pub collected_before: u64,
    /// The version in which the last checkpoint was made.
    pub checkpoint: u64,
    /// Random, and another one for each version: versions with the same number may be of two histories.
    pub mark: i64,
}

/// Takes the next version. First of all writes in its transaction: the lock it takes makes versions ordered by commit.
///
/// The time in milliseconds, or one more than the last version where that is not less. So a database that was restored
/// or made anew goes on above what edges hold from before, whose versions came from earlier times.
pub async fn next(write: &mut Write, now: Time) -> Result<u64, StoreError> {
    next_above(write, now, 0).await
}

/// The same, above `floor` too: edges hold a version that this database has lost.
pub async fn next_above(write: &mut Write, now: Time, floor: u64) -> Result<u64, StoreError> {
    let mark = i64::from_be_bytes(*random::bytes()) & i64::MAX;
    let next = "UPDATE bundle_state SET version = CASE WHEN version >= $1 THEN version + 1 ELSE $1 END, mark = $2 \
                WHERE id = 1 RETURNING version";
    let least = now.millis().max(floor.saturating_add(1));
    let row = query(next).bind(row::signed(least)).bind(mark).fetch_one(write.connection()).await?;
    let version = row::unsigned(&row, "version")?;
    // What servers hold stays: the latest until now, and some of those before it.
    query(
        "DELETE FROM version_log WHERE version < (SELECT MAX(version) FROM version_log) - $1 \
         AND version NOT IN (SELECT version FROM version_log ORDER BY version DESC LIMIT $2)",
    )
    .bind(LOGGED_MS)
    .bind(LOGGED_LEAST)
    .execute(write.connection())
    .await?;
    query(
        "INSERT INTO version_log (version, mark) VALUES ($1, $2) \
         ON CONFLICT (version) DO UPDATE SET mark = excluded.mark",
    )
    .bind(row::signed(version))
    .bind(mark)
    .execute(write.connection())
    .await?;
    if write.engine() == Engine::Postgres {
        // Delivered when, and only when, the transaction commits.
        query("NOTIFY keystile").execute(write.connection()).await?;
    }
    Ok(version)
}

/// Whether this version, with this mark, is part of the history of the database. Versions that are older than the latest
/// by ten minutes are not known any more.
pub async fn is_known(lookup: &mut impl Lookup, version: u64, mark: i64) -> Result<bool, StoreError> {
    let found = query("SELECT mark FROM version_log WHERE version = $1 AND mark = $2")
        .bind(row::signed(version))
        .bind(mark)
        .fetch_optional(lookup.on())
        .await?;
    Ok(found.is_some())
}

/// The latest version at or below one, as far as they are known.
pub async fn latest_until(lookup: &mut impl Lookup, version: u64) -> Result<Option<u64>, StoreError> {
    let row = query("SELECT MAX(version) AS latest FROM version_log WHERE version <= $1")
        .bind(row::signed(version))
        .fetch_one(lookup.on())
        .await?;
    row::optional_unsigned(&row, "latest")
}

/// Keeps the version as it is until the end of the transaction: nothing is refused or deleted meanwhile. First of all in
/// its transaction, like [`next`], which may follow.
pub async fn lock(write: &mut Write) -> Result<(), StoreError> {
    // SQLite has one writer at a time anyway.
    if write.engine() == Engine::Postgres {
        query("SELECT version FROM bundle_state WHERE id = 1 FOR UPDATE").execute(write.connection()).await?;
    }
    Ok(())
}

/// Makes this version, the latest, a checkpoint: for whatever the tail can't say, which only ever grows.
pub async fn settle(write: &mut Write, version: u64) -> Result<(), StoreError> {
    query("UPDATE bundle_state SET checkpoint = $1 WHERE id = 1")
        .bind(row::signed(version))
        .execute(write.connection())
        .await?;
    Ok(())
}

/// Until when time has passed, as far as servers have seen it.
pub async fn passed(lookup: &mut impl Lookup) -> Result<Time, StoreError> {
    let row = query("SELECT passed FROM bundle_state WHERE id = 1").fetch_one(lookup.on()).await?;
    Ok(Time::from_millis(row::unsigned(&row, "passed")?))
}

pub async fn has_passed(write: &mut Write, until: Time) -> Result<(), StoreError> {
    query("UPDATE bundle_state SET passed = $1 WHERE id = 1")
        .bind(row::signed(until.millis()))
        .execute(write.connection())
        .await?;
    Ok(())
}

/// Takes back what a clock that was ahead has left here. The version itself only grows.
pub async fn put_right(write: &mut Write, now: Time) -> Result<(), StoreError> {
    query(
        "UPDATE bundle_state SET passed = CASE WHEN passed > $1 THEN $1 ELSE passed END, \
         rebasing_until = CASE WHEN rebasing_until > $1 THEN 0 ELSE rebasing_until END WHERE id = 1",
    )
    .bind(row::signed(now.millis()))
    .execute(write.connection())
    .await?;
    Ok(())
}

pub async fn collected(write: &mut Write, version: u64, before: u64) -> Result<(), StoreError> {
    settle(write, version).await?;
    query("UPDATE bundle_state SET collected_before = $1 WHERE id = 1")
        .bind(row::signed(before))
        .execute(write.connection())
        .await?;
    Ok(())
}

/// Takes the right to build the base until an instant in milliseconds, unless somebody has it. Whether it was free. One
/// that lies further ahead than anybody takes it for was left by a clock that was ahead.
pub async fn claim_rebase(write: &mut Write, now: Time, until: Time) -> Result<bool, StoreError> {
    let done = query(
        "UPDATE bundle_state SET rebasing_until = $2 \
         WHERE id = 1 AND (rebasing_until <= $1 OR rebasing_until > $3)",
    )
    .bind(row::signed(now.millis()))
    .bind(row::signed(until.millis()))
    .bind(row::signed(now.millis().saturating_add(TOO_FAR_MS)))
    .execute(write.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Puts the end of that right off, for whoever has it still. Whether that is so.
pub async fn renew_rebase(write: &mut Write, held: Time, until: Time) -> Result<bool, StoreError> {
    let done = query("UPDATE bundle_state SET rebasing_until = $2 WHERE id = 1 AND rebasing_until = $1")
        .bind(row::signed(held.millis()))
        .bind(row::signed(until.millis()))
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Gives that right back. False if it was not held any more: then somebody else may have built meanwhile.
pub async fn release_rebase(write: &mut Write, held: Time) -> Result<bool, StoreError> {
    renew_rebase(write, held, Time::from_millis(0)).await
}

pub async fn current(lookup: &mut impl Lookup) -> Result<Version, StoreError> {
    let row = query("SELECT version, collected_before, checkpoint, mark FROM bundle_state WHERE id = 1")
        .fetch_one(lookup.on())
        .await?;
    Ok(Version {
        number: row::unsigned(&row, "version")?,
        collected_before: row::unsigned(&row, "collected_before")?,
        checkpoint: row::unsigned(&row, "checkpoint")?,
        mark: row.try_get("mark")?,
    })
}

/// A server that was cut off for longer loads everything anew.
const LOGGED_MS: i64 = 600_000;

/// After a long silence several changes may come before a server has looked at the first.
const LOGGED_LEAST: i64 = 256;

/// Ten minutes: a claim is taken for one, by clocks that are a minute apart at most.
const TOO_FAR_MS: u64 = 600_000;
