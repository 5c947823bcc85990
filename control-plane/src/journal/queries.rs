//! Tombstones: records of deletions and of ends that were set, each written in the transaction of the change with its version.

use sqlx::query;

use crate::{
    db::{Executor, StoreError, Write, row},
    domain::{Tombstone, TombstoneKind, UnixSeconds, Version},
};

/// Records a deletion, or an end that was set. `at` is that of [`Tombstone`].
pub async fn insert(
    write: &mut Write,
    gone: TombstoneKind,
    id: &str,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO tombstones (kind, id, at, version) SELECT $1, $2, $3, version FROM bundle_state WHERE id = 1 \
         ON CONFLICT (kind, id) DO UPDATE SET at = excluded.at, version = excluded.version",
    )
    .bind(gone.name())
    .bind(id)
    .bind(row::to_column(at))
    .execute(write.connection())
    .await?;
    Ok(())
}

/// Records a tombstone from the journal, whose item is not in the store.
pub async fn insert_from_journal(write: &mut Write, tombstone: &Tombstone) -> Result<(), StoreError> {
    insert(write, tombstone.kind, &tombstone.id, tombstone.at).await
}

/// Returns the tombstones after a version, each with its version.
pub async fn since(
    executor: &mut impl Executor,
    version: Version,
) -> Result<Vec<(Version, Tombstone)>, StoreError> {
    let rows =
        query("SELECT kind, id, at, version FROM tombstones WHERE version > $1 ORDER BY version, kind, id")
            .bind(row::to_column(version))
            .fetch_all(executor.connection())
            .await?;
    rows.iter()
        .map(|from| {
            let gone = TombstoneKind::from_name(&row::text(from, "kind")?)
                .ok_or(StoreError::Corrupt { what: "kind" })?;
            let tombstone =
                Tombstone { kind: gone, id: row::text(from, "id")?, at: row::from_column(from, "at")? };
            Ok((row::from_column(from, "version")?, tombstone))
        })
        .collect()
}

/// Counts the tombstones.
pub async fn count(executor: &mut impl Executor) -> Result<u64, StoreError> {
    row::count(executor, "SELECT COUNT(*) AS number FROM tombstones").await
}

/// Deletes the tombstones before a version, and returns their number.
pub async fn purge(write: &mut Write, before: Version) -> Result<u64, StoreError> {
    let done = query("DELETE FROM tombstones WHERE version < $1")
        .bind(row::to_column(before))
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected())
}
