use sqlx::{any::AnyRow, query};
use token::secret::SecretHash;

use super::{Lookup, StoreError, Write, row};
use crate::model::{Edge, EdgeId, EdgeReport, EdgeWorkers};

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

/// Whether there was one.
pub async fn delete(write: &mut Write, id: &EdgeId) -> Result<bool, StoreError> {
    let done =
        query("DELETE FROM edges WHERE edge_id = $1").bind(id.as_str()).execute(write.connection()).await?;
    Ok(done.rows_affected() == 1)
}

/// What an edge told at this second. What it told another replica later stays, unless that is so much later that a clock
/// was ahead.
pub async fn seen(write: &mut Write, id: &EdgeId, at: u64, report: &EdgeReport) -> Result<(), StoreError> {
    let EdgeReport { version, issued_at, workers } = report;
    query(
        "UPDATE edges SET last_seen_at = $2, version = $3, issued_at = $4, workers = $5, oldest = $6, lagging = $7 \
         WHERE edge_id = $1 AND (last_seen_at IS NULL OR last_seen_at <= $2 OR last_seen_at > $8)",
    )
    .bind(id.as_str())
    .bind(row::signed(at))
    .bind(row::signed(*version))
    .bind(issued_at.map(row::signed))
    .bind(workers.map(|workers| row::signed(workers.count)))
    .bind(workers.map(|workers| row::signed(workers.oldest)))
    .bind(workers.map(|workers| row::signed(workers.lagging)))
    .bind(row::signed(at.saturating_add(60)))
    .execute(write.connection())
    .await?;
    Ok(())
}

/// Nobody was heard of in the future.
pub async fn put_right(write: &mut Write, now: u64) -> Result<(), StoreError> {
    query("UPDATE edges SET last_seen_at = $1 WHERE last_seen_at > $1")
        .bind(row::signed(now))
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
