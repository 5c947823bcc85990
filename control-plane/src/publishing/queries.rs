//! The blocks of the base.

use bundle::Coverage;
use serde::{Deserialize, Serialize};
use sqlx::{any::AnyRow, query};
use token::base64url;

use crate::{
    db::{Executor, StoreError, Write, row},
    domain::{BaseBlockRow, UnixSeconds, Version},
};

/// The size of a part: 1 MiB in base64, which keeps the number of statements and the size of each low.
const MAX_PART_BYTES: usize = 768 * 1024;

/// For how long a compaction is recorded, in milliseconds: longer than any token lives.
const COMPACTION_RETENTION_MS: u64 = 7 * 86_400_000;

/// A compaction in the history of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::publishing) struct CompactionMark {
    /// The version whose revocations it has included.
    pub as_of: Version,
    /// A random number.
    pub mark: i64,
}

/// Inserts a block, or replaces the one of the same bucket.
pub(in crate::publishing) async fn replace(
    write: &mut Write,
    block: &BaseBlockRow,
    coverage: &[Coverage],
    bytes: &[u8],
) -> Result<(), StoreError> {
    let BaseBlockRow { expires_from, expires_before, as_of, version, built_at, members, revoked } = block;
    delete(write, *expires_from).await?;
    query(
        "INSERT INTO blocks (expires_from, expires_before, as_of, version, built_at, members, revoked) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(row::to_column(*expires_from))
    .bind(row::to_column(*expires_before))
    .bind(row::to_column(*as_of))
    .bind(row::to_column(*version))
    .bind(row::to_column(*built_at))
    .bind(row::to_column(*members))
    .bind(row::to_column(*revoked))
    .execute(write.connection())
    .await?;
    for Coverage { kid, iat_low, iat_high } in coverage {
        query("INSERT INTO block_coverage (expires_from, kid, low, high) VALUES ($1, $2, $3, $4)")
            .bind(row::to_column(*expires_from))
            .bind(kid.as_str())
            .bind(row::to_column(*iat_low))
            .bind(row::to_column(*iat_high))
            .execute(write.connection())
            .await?;
    }
    for (part, bytes) in (0_u64..).zip(bytes.chunks(MAX_PART_BYTES)) {
        query("INSERT INTO block_parts (expires_from, part, bytes) VALUES ($1, $2, $3)")
            .bind(row::to_column(*expires_from))
            .bind(row::to_column(part))
            .bind(base64url::encode(bytes))
            .execute(write.connection())
            .await?;
    }
    Ok(())
}

/// Returns all blocks without their bytes.
pub async fn list(executor: &mut impl Executor) -> Result<Vec<BaseBlockRow>, StoreError> {
    let rows = query(
        "SELECT expires_from, expires_before, as_of, version, built_at, members, revoked FROM blocks \
         ORDER BY expires_from",
    )
    .fetch_all(executor.connection())
    .await?;
    rows.iter().map(parse_row).collect()
}

/// Returns the bytes of a block.
pub async fn read_bytes(
    executor: &mut impl Executor,
    expires_from: UnixSeconds,
) -> Result<Vec<u8>, StoreError> {
    let rows = query("SELECT bytes FROM block_parts WHERE expires_from = $1 ORDER BY part")
        .bind(row::to_column(expires_from))
        .fetch_all(executor.connection())
        .await?;
    let mut bytes = Vec::new();
    for row in &rows {
        let part = base64url::decode(row::text(row, "bytes")?.as_bytes());
        bytes.extend(part.ok_or(StoreError::Corrupt { what: "bytes" })?);
    }
    Ok(bytes)
}

/// Deletes the blocks whose members all expired before a second, and returns their number.
pub async fn purge(write: &mut Write, before: UnixSeconds) -> Result<u64, StoreError> {
    let rows = query("SELECT expires_from FROM blocks WHERE expires_before <= $1")
        .bind(row::to_column(before))
        .fetch_all(write.connection())
        .await?;
    for row in &rows {
        delete(write, row::from_column(row, "expires_from")?).await?;
    }
    Ok(rows.len().try_into().unwrap_or(u64::MAX))
}

/// Deletes all blocks, and the records of the compactions: the next one reads everything again.
pub async fn clear(write: &mut Write) -> Result<(), StoreError> {
    for delete in [
        "DELETE FROM block_parts",
        "DELETE FROM block_coverage",
        "DELETE FROM blocks",
        "DELETE FROM compactions",
    ] {
        query(delete).execute(write.connection()).await?;
    }
    Ok(())
}

/// Records a compaction.
pub(in crate::publishing) async fn record_compaction(
    write: &mut Write,
    compaction: CompactionMark,
) -> Result<(), StoreError> {
    let CompactionMark { as_of, mark } = compaction;
    query("DELETE FROM compactions WHERE as_of < $1")
        .bind(row::to_column(as_of.get().saturating_sub(COMPACTION_RETENTION_MS)))
        .execute(write.connection())
        .await?;
    query("INSERT INTO compactions (mark, as_of) VALUES ($1, $2)")
        .bind(mark)
        .bind(row::to_column(as_of))
        .execute(write.connection())
        .await?;
    Ok(())
}

/// Returns whether a compaction is in the history of the database.
pub(in crate::publishing) async fn has_compaction(
    executor: &mut impl Executor,
    compaction: CompactionMark,
) -> Result<bool, StoreError> {
    let found = query("SELECT mark FROM compactions WHERE mark = $1 AND as_of = $2")
        .bind(compaction.mark)
        .bind(row::to_column(compaction.as_of))
        .fetch_optional(executor.connection())
        .await?;
    Ok(found.is_some())
}

/// Returns the version whose revocations the last compaction has included; 0 if there was none.
pub(in crate::publishing) async fn last_compaction(
    executor: &mut impl Executor,
) -> Result<Version, StoreError> {
    let row = query("SELECT MAX(as_of) AS latest FROM compactions").fetch_one(executor.connection()).await?;
    Ok(row::optional_from_column(&row, "latest")?.unwrap_or_default())
}

async fn delete(write: &mut Write, expires_from: UnixSeconds) -> Result<(), StoreError> {
    for delete in [
        "DELETE FROM block_parts WHERE expires_from = $1",
        "DELETE FROM block_coverage WHERE expires_from = $1",
        "DELETE FROM blocks WHERE expires_from = $1",
    ] {
        query(delete).bind(row::to_column(expires_from)).execute(write.connection()).await?;
    }
    Ok(())
}

fn parse_row(from: &AnyRow) -> Result<BaseBlockRow, StoreError> {
    Ok(BaseBlockRow {
        expires_from: row::from_column(from, "expires_from")?,
        expires_before: row::from_column(from, "expires_before")?,
        as_of: row::from_column(from, "as_of")?,
        version: row::from_column(from, "version")?,
        built_at: row::from_column(from, "built_at")?,
        members: row::from_column(from, "members")?,
        revoked: row::from_column(from, "revoked")?,
    })
}
