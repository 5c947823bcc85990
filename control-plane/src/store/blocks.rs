//! The blocks of the base.

use sqlx::{any::AnyRow, query};
use token::base64url;

use super::{Lookup, StoreError, Write, row};
use crate::model::BaseBlock;

/// Puts a block into the place of the one with the same bucket. `coverage`: kid, and the last second of issue.
pub async fn replace(
    write: &mut Write,
    block: &BaseBlock,
    coverage: &[(String, u64)],
    bytes: &[u8],
) -> Result<(), StoreError> {
    let BaseBlock { expires_from, expires_before, as_of, version, built_at, members, revoked } = block;
    delete(write, *expires_from).await?;
    query(
        "INSERT INTO blocks (expires_from, expires_before, as_of, version, built_at, members, revoked) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(row::signed(*expires_from))
    .bind(row::signed(*expires_before))
    .bind(row::signed(*as_of))
    .bind(row::signed(*version))
    .bind(row::signed(*built_at))
    .bind(row::signed(*members))
    .bind(row::signed(*revoked))
    .execute(write.connection())
    .await?;
    for (kid, high) in coverage {
        query("INSERT INTO block_coverage (expires_from, kid, high) VALUES ($1, $2, $3)")
            .bind(row::signed(*expires_from))
            .bind(kid.as_str())
            .bind(row::signed(*high))
            .execute(write.connection())
            .await?;
    }
    for (part, bytes) in (0..).zip(bytes.chunks(PART)) {
        query("INSERT INTO block_parts (expires_from, part, bytes) VALUES ($1, $2, $3)")
            .bind(row::signed(*expires_from))
            .bind(row::signed(part))
            .bind(base64url::encode(bytes))
            .execute(write.connection())
            .await?;
    }
    Ok(())
}

pub async fn list(lookup: &mut impl Lookup) -> Result<Vec<BaseBlock>, StoreError> {
    let rows = query(
        "SELECT expires_from, expires_before, as_of, version, built_at, members, revoked FROM blocks \
         ORDER BY expires_from",
    )
    .fetch_all(lookup.on())
    .await?;
    rows.iter().map(read).collect()
}

/// What it was put in with.
pub async fn bytes(lookup: &mut impl Lookup, expires_from: u64) -> Result<Vec<u8>, StoreError> {
    let rows = query("SELECT bytes FROM block_parts WHERE expires_from = $1 ORDER BY part")
        .bind(row::signed(expires_from))
        .fetch_all(lookup.on())
        .await?;
    let mut bytes = Vec::new();
    for row in &rows {
        let part = base64url::decode(row::text(row, "bytes")?.as_bytes());
        bytes.extend(part.ok_or(StoreError::Corrupt { what: "bytes" })?);
    }
    Ok(bytes)
}

/// Forgets those whose members have all expired; returns how many.
pub async fn collect(write: &mut Write, before: u64) -> Result<u64, StoreError> {
    let rows = query("SELECT expires_from FROM blocks WHERE expires_before <= $1")
        .bind(row::signed(before))
        .fetch_all(write.connection())
        .await?;
    for row in &rows {
        delete(write, row::unsigned(row, "expires_from")?).await?;
    }
    Ok(rows.len().try_into().unwrap_or(u64::MAX))
}

/// Takes all of them away.
pub async fn clear(write: &mut Write) -> Result<(), StoreError> {
    for delete in ["DELETE FROM block_parts", "DELETE FROM block_coverage", "DELETE FROM blocks"] {
        query(delete).execute(write.connection()).await?;
    }
    Ok(())
}

async fn delete(write: &mut Write, expires_from: u64) -> Result<(), StoreError> {
    for delete in [
        "DELETE FROM block_parts WHERE expires_from = $1",
        "DELETE FROM block_coverage WHERE expires_from = $1",
        "DELETE FROM blocks WHERE expires_from = $1",
    ] {
        query(delete).bind(row::signed(expires_from)).execute(write.connection()).await?;
    }
    Ok(())
}

fn read(from: &AnyRow) -> Result<BaseBlock, StoreError> {
    Ok(BaseBlock {
        expires_from: row::unsigned(from, "expires_from")?,
        expires_before: row::unsigned(from, "expires_before")?,
        as_of: row::unsigned(from, "as_of")?,
        version: row::unsigned(from, "version")?,
        built_at: row::unsigned(from, "built_at")?,
        members: row::unsigned(from, "members")?,
        revoked: row::unsigned(from, "revoked")?,
    })
}

/// 1 MiB in base64: few statements, and none that a database would choke on.
const PART: usize = 768 * 1024;
