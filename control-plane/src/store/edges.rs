use sqlx::{any::AnyRow, query};
use token::secret::SecretHash;

use super::{Lookup, StoreError, Write, row};
use crate::model::{Edge, EdgeId};

/// Whether the name was free.
pub async fn insert(
    write: &mut Write,
    id: &EdgeId,
    credential: &SecretHash,
    at: u64,
) -> Result<bool, StoreError> {
    let done = query("INSERT INTO edges (edge_id, credential_hash, enrolled_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(id.as_str())
        .bind(row::hex32(credential.as_bytes()))
        .bind(row::signed(at))
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// By the hash of a secret with 256 random bits: how long a miss takes tells nothing worth knowing.
pub async fn find(lookup: &mut impl Lookup, credential: &SecretHash) -> Result<Option<EdgeId>, StoreError> {
    let found = query("SELECT edge_id FROM edges WHERE credential_hash = $1")
        .bind(row::hex32(credential.as_bytes()))
        .fetch_optional(lookup.on())
        .await?;
    found.as_ref().map(|found| row::parsed(found, "edge_id")).transpose()
}

pub async fn list(lookup: &mut impl Lookup) -> Result<Vec<Edge>, StoreError> {
    let rows =
        query("SELECT edge_id, enrolled_at, last_seen_at, version, status FROM edges ORDER BY edge_id")
            .fetch_all(lookup.on())
            .await?;
    rows.iter().map(read).collect()
}

/// Whether there was one.
pub async fn delete(write: &mut Write, id: &EdgeId) -> Result<bool, StoreError> {
    let done =
        query("DELETE FROM edges WHERE edge_id = $1").bind(id.as_str()).execute(write.connection()).await?;
    Ok(done.rows_affected() == 1)
}

pub async fn seen(
    write: &mut Write,
    id: &EdgeId,
    at: u64,
    version: u64,
    status: Option<&str>,
) -> Result<(), StoreError> {
    query("UPDATE edges SET last_seen_at = $2, version = $3, status = $4 WHERE edge_id = $1")
        .bind(id.as_str())
        .bind(row::signed(at))
        .bind(row::signed(version))
        .bind(status)
        .execute(write.connection())
        .await?;
    Ok(())
}

fn read(from: &AnyRow) -> Result<Edge, StoreError> {
    Ok(Edge {
        id: row::parsed(from, "edge_id")?,
        enrolled_at: row::unsigned(from, "enrolled_at")?,
        last_seen_at: row::optional_unsigned(from, "last_seen_at")?,
        version: row::optional_unsigned(from, "version")?,
        status: row::optional_text(from, "status")?,
    })
}
