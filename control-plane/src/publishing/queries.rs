//! The blocks of the base.

use sqlx::{any::AnyRow, query};
use token::base64url;

use crate::{
    db::{Executor, StoreError, Write, row},
    domain::{BaseBlockRow, UnixSeconds},
};

/// The size of a part: 1 MiB in base64, which keeps the number of statements and the size of each low.
const MAX_PART_BYTES: usize = 768 * 1024;

/// Inserts a block, or replaces the one of the same bucket. `coverage` contains the `kid` and the last covered second of
/// issue of each key.
pub(in crate::publishing) async fn replace(
    write: &mut Write,
    block: &BaseBlockRow,
    coverage: &[(String, UnixSeconds)],
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
    for (kid, high) in coverage {
        query("INSERT INTO block_coverage (expires_from, kid, high) VALUES ($1, $2, $3)")
            .bind(row::to_column(*expires_from))
            .bind(kid.as_str())
            .bind(row::to_column(*high))
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
pub(in crate::publishing) async fn read_bytes(
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

/// Deletes all blocks.
pub async fn clear(write: &mut Write) -> Result<(), StoreError> {
    for delete in ["DELETE FROM block_parts", "DELETE FROM block_coverage", "DELETE FROM blocks"] {
        query(delete).execute(write.connection()).await?;
    }
    Ok(())
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
