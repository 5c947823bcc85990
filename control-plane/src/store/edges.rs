use sqlx::{any::AnyRow, query};
use token::secret::SecretHash;

use super::{Lookup, StoreError, Write, row, tombstones};
use crate::model::{Edge, EdgeId, EdgeReport, EdgeWorkers, Gone};

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
    let rows = query(
        "SELECT edge_id, enrolled_at, last_seen_at, version, issued_at, workers, oldest, lagging FROM edges \
         ORDER BY edge_id",
    )
    .fetch_all(lookup.on())
    .await?;
    rows.iter().map(read).collect()
}

/// Whether there was one. What is told of it later is its credential, by its hash: a name may be given again.
pub async fn delete(write: &mut Write, id: &EdgeId) -> Result<bool, StoreError> {
    let gone = query("DELETE FROM edges WHERE edge_id = $1 RETURNING credential_hash, enrolled_at")
        .bind(id.as_str())
        .fetch_optional(write.connection())
        .await?;
    if let Some(from) = &gone {
        let (hash, at) = (row::text(from, "credential_hash")?, row::unsigned(from, "enrolled_at")?);
        tombstones::bury(write, Gone::Edge, &hash, at).await?;
    }
    Ok(gone.is_some())
}

/// The one that has a credential, by its hash in hex.
pub async fn find_by_hash(lookup: &mut impl Lookup, hash: &str) -> Result<Option<EdgeId>, StoreError> {
    let found = query("SELECT edge_id FROM edges WHERE credential_hash = $1")
        .bind(hash)
        .fetch_optional(lookup.on())
        .await?;
    found.as_ref().map(|found| row::parsed(found, "edge_id")).transpose()
}

/// What an edge told at this second. What it told another replica later stays.
pub async fn seen(write: &mut Write, id: &EdgeId, at: u64, report: &EdgeReport) -> Result<(), StoreError> {
    let EdgeReport { version, issued_at, workers } = report;
    query(
        "UPDATE edges SET last_seen_at = $2, version = $3, issued_at = $4, workers = $5, oldest = $6, lagging = $7 \
         WHERE edge_id = $1 AND (last_seen_at IS NULL OR last_seen_at <= $2)",
    )
    .bind(id.as_str())
    .bind(row::signed(at))
    .bind(row::signed(*version))
    .bind(issued_at.map(row::signed))
    .bind(workers.map(|workers| row::signed(workers.count)))
    .bind(workers.map(|workers| row::signed(workers.oldest)))
    .bind(workers.map(|workers| row::signed(workers.lagging)))
    .execute(write.connection())
    .await?;
    Ok(())
}

fn read(from: &AnyRow) -> Result<Edge, StoreError> {
    let column = |name| row::optional_unsigned(from, name);
    let workers = match (column("workers")?, column("oldest")?, column("lagging")?) {
        (Some(count), Some(oldest), Some(lagging)) => Some(EdgeWorkers { count, oldest, lagging }),
        _ => None,
    };
    let issued_at = column("issued_at")?;
    Ok(Edge {
        id: row::parsed(from, "edge_id")?,
        enrolled_at: row::unsigned(from, "enrolled_at")?,
        last_seen_at: column("last_seen_at")?,
        report: column("version")?.map(|version| EdgeReport { version, issued_at, workers }),
    })
}
