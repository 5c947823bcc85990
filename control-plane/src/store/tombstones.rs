//! What was deleted for ever. Written by whoever deletes it, in the same transaction, under the version that was taken.

use sqlx::query;

use super::{Lookup, StoreError, Write, row};
use crate::model::{Gone, Tombstone};

/// `at`: when what is deleted had been made.
pub(in crate::store) async fn bury(
    write: &mut Write,
    gone: Gone,
    id: &str,
    at: u64,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO tombstones (kind, id, at, version) SELECT $1, $2, $3, version FROM bundle_state WHERE id = 1 \
         ON CONFLICT (kind, id) DO UPDATE SET at = excluded.at, version = excluded.version",
    )
    .bind(gone.name())
    .bind(id)
    .bind(row::signed(at))
    .execute(write.connection())
    .await?;
    Ok(())
}

/// One that is known from elsewhere, of something that is not here, or not any more.
pub async fn note(write: &mut Write, tombstone: &Tombstone) -> Result<(), StoreError> {
    bury(write, tombstone.gone, &tombstone.id, tombstone.at).await
}

/// Those of deletions after a version, each with its own.
pub async fn since(lookup: &mut impl Lookup, version: u64) -> Result<Vec<(u64, Tombstone)>, StoreError> {
    let rows =
        query("SELECT kind, id, at, version FROM tombstones WHERE version > $1 ORDER BY version, kind, id")
            .bind(row::signed(version))
            .fetch_all(lookup.on())
            .await?;
    rows.iter()
        .map(|from| {
            let gone = Gone::of(&row::text(from, "kind")?).ok_or(StoreError::Corrupt { what: "kind" })?;
            let tombstone = Tombstone { gone, id: row::text(from, "id")?, at: row::unsigned(from, "at")? };
            Ok((row::unsigned(from, "version")?, tombstone))
        })
        .collect()
}

pub async fn count(lookup: &mut impl Lookup) -> Result<u64, StoreError> {
    row::count(lookup, "SELECT COUNT(*) AS number FROM tombstones").await
}

/// Forgets those of before a version; returns how many.
pub async fn collect(write: &mut Write, before: u64) -> Result<u64, StoreError> {
    let done = query("DELETE FROM tombstones WHERE version < $1")
        .bind(row::signed(before))
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected())
}
