//! The version of what edges must know.

use sqlx::query;

use super::{Engine, Lookup, StoreError, Write, row};
use crate::clock::Time;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    pub number: u64,
    /// Revocations and watermarks that only matter before this second are no longer part of the bundle.
    pub collected_before: u64,
}

/// Takes the next version. First of all writes in its transaction: the lock it takes makes versions ordered by commit.
///
/// The time in milliseconds, or one more than the last version where that is not less. So a database that was restored
/// or made anew goes on above what edges hold from before, whose versions came from earlier times.
pub async fn next(write: &mut Write, now: Time) -> Result<u64, StoreError> {
    let next = "UPDATE bundle_state SET version = CASE WHEN version >= $1 THEN version + 1 ELSE $1 END \
                WHERE id = 1 RETURNING version";
    let row = query(next).bind(row::signed(now.millis())).fetch_one(write.connection()).await?;
    if write.engine() == Engine::Postgres {
        // Delivered when, and only when, the transaction commits.
        query("NOTIFY keystile").execute(write.connection()).await?;
    }
    row::unsigned(&row, "version")
}

pub async fn collected(write: &mut Write, before: u64) -> Result<(), StoreError> {
    query("UPDATE bundle_state SET collected_before = $1 WHERE id = 1")
        .bind(row::signed(before))
        .execute(write.connection())
        .await?;
    Ok(())
}

pub async fn current(lookup: &mut impl Lookup) -> Result<Version, StoreError> {
    let row = query("SELECT version, collected_before FROM bundle_state WHERE id = 1")
        .fetch_one(lookup.on())
        .await?;
    Ok(Version {
        number: row::unsigned(&row, "version")?,
        collected_before: row::unsigned(&row, "collected_before")?,
    })
}
