//! Edges, their credentials, and their reports.

use sqlx::{any::AnyRow, query};
use token::secret::SecretHash;

use crate::{
    db::{Executor, StoreError, Write, row},
    domain::{Edge, EdgeId, EdgeReport, EdgeWorkers, Page, PageRequest, TombstoneKind, UnixSeconds, Version},
    journal::tombstones,
    platform::random,
};

macro_rules! select {
    () => {
        "SELECT edge_id, enrolled_at, last_seen_at, version, issued_at, workers, oldest, lagging, kept_streams, rotated_at, \
         (SELECT MAX(ends_at) FROM old_edge_credentials o WHERE o.edge_id = edges.edge_id) AS old_ends_at FROM edges "
    };
}

/// Inserts an edge. Returns whether the name was free.
pub(in crate::edges) async fn insert(
    write: &mut Write,
    id: &EdgeId,
    credential: &SecretHash,
    at: UnixSeconds,
) -> Result<bool, StoreError> {
    let done = query("INSERT INTO edges (edge_id, credential_hash, enrolled_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(id.as_str())
        .bind(row::hex32(credential.as_bytes()))
        .bind(row::to_column(at))
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// The edge of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialHolder {
    /// The edge.
    pub id: EdgeId,
    /// True if the credential is the newest one, and its use ends earlier ones.
    pub ends_others: bool,
}

/// Finds the edge of a credential. The secret has 256 random bits, so the response time reveals nothing useful. `now` is in
/// seconds.
pub async fn find(
    executor: &mut impl Executor,
    credential: &SecretHash,
    now: UnixSeconds,
) -> Result<Option<CredentialHolder>, StoreError> {
    let found = query(
        "SELECT edge_id, (SELECT COUNT(*) FROM old_edge_credentials o \
         WHERE o.edge_id = edges.edge_id AND o.ends_on_use = 1) AS others FROM edges WHERE credential_hash = $1 \
         UNION ALL \
         SELECT o.edge_id, 0 AS others FROM old_edge_credentials o JOIN edges e ON e.edge_id = o.edge_id \
         WHERE o.credential_hash = $1 AND o.ends_at > $2",
    )
    .bind(row::hex32(credential.as_bytes()))
    .bind(row::to_column(now))
    .fetch_optional(executor.connection())
    .await?;
    let Some(found) = found else { return Ok(None) };
    Ok(Some(CredentialHolder {
        id: row::parsed_text(&found, "edge_id")?,
        ends_others: row::from_column::<u64>(&found, "others")? > 0,
    }))
}

/// Replaces the credential of an edge, and keeps the previous one as an old one. Returns whether the edge exists.
pub(in crate::edges) async fn replace_credential(
    write: &mut Write,
    id: &EdgeId,
    credential: &SecretHash,
    at: UnixSeconds,
) -> Result<bool, StoreError> {
    query(
        "INSERT INTO old_edge_credentials (credential_hash, edge_id, ends_at, ends_on_use) \
         SELECT credential_hash, edge_id, $2, 1 FROM edges WHERE edge_id = $1",
    )
    .bind(id.as_str())
    .bind(i64::MAX)
    .execute(write.connection())
    .await?;
    let done = query("UPDATE edges SET credential_hash = $2, rotated_at = $3 WHERE edge_id = $1")
        .bind(id.as_str())
        .bind(row::hex32(credential.as_bytes()))
        .bind(row::to_column(at))
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Sets when the old credentials of an edge end. An earlier end stays.
pub(in crate::edges) async fn keep_old_credentials_until(
    write: &mut Write,
    id: &EdgeId,
    ends_at: UnixSeconds,
    ends_on_use: bool,
) -> Result<(), StoreError> {
    let rows = query(
        "UPDATE old_edge_credentials SET ends_on_use = $3, \
         ends_at = CASE WHEN ends_at < $2 THEN ends_at ELSE $2 END WHERE edge_id = $1 \
         RETURNING credential_hash, ends_at",
    )
    .bind(id.as_str())
    .bind(row::to_column(ends_at))
    .bind(i64::from(ends_on_use))
    .fetch_all(write.connection())
    .await?;
    for old in &rows {
        let (hash, at) = (row::text(old, "credential_hash")?, row::from_column(old, "ends_at")?);
        tombstones::insert(write, TombstoneKind::EdgeCredentialEnd, &hash, at).await?;
    }
    Ok(())
}

/// Ends the old credentials of an edge at this second. Returns whether there were any.
pub(in crate::edges) async fn end_old_credentials(
    write: &mut Write,
    id: &EdgeId,
    at: UnixSeconds,
) -> Result<bool, StoreError> {
    let ended = query("DELETE FROM old_edge_credentials WHERE edge_id = $1 RETURNING credential_hash")
        .bind(id.as_str())
        .fetch_all(write.connection())
        .await?;
    insert_tombstones(write, &ended, at).await
}

/// Ends the old credentials that end when the current one is used, if `used` is the hash of the current one. Returns whether
/// there were any.
pub async fn end_credentials_on_use(
    write: &mut Write,
    id: &EdgeId,
    used: &SecretHash,
    at: UnixSeconds,
) -> Result<bool, StoreError> {
    let ended = query(
        "DELETE FROM old_edge_credentials WHERE edge_id = $1 AND ends_on_use = 1 \
         AND EXISTS (SELECT 1 FROM edges WHERE edge_id = $1 AND credential_hash = $2) RETURNING credential_hash",
    )
    .bind(id.as_str())
    .bind(row::hex32(used.as_bytes()))
    .fetch_all(write.connection())
    .await?;
    insert_tombstones(write, &ended, at).await
}

/// Writes tombstones of ended credentials. Returns whether there were any.
async fn insert_tombstones(write: &mut Write, ended: &[AnyRow], at: UnixSeconds) -> Result<bool, StoreError> {
    for credential in ended {
        let hash = row::text(credential, "credential_hash")?;
        tombstones::insert(write, TombstoneKind::EdgeCredentialEnd, &hash, at).await?;
    }
    Ok(!ended.is_empty())
}

/// Ends a credential, by its hash, that had ended before the database was restored. If it is the current credential of an
/// edge, the edge gets an unknown random one, as its successor is lost.
pub async fn repeat_end(
    write: &mut Write,
    hash: &str,
    ends_at: UnixSeconds,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    if let Some(id) = find_by_hash(write, hash).await? {
        replace_credential(write, &id, &SecretHash::from_bytes(*random::bytes()), now).await?;
        keep_old_credentials_until(write, &id, ends_at, false).await?;
    } else {
        query("UPDATE old_edge_credentials SET ends_at = $2 WHERE credential_hash = $1 AND ends_at > $2")
            .bind(hash)
            .bind(row::to_column(ends_at))
            .execute(write.connection())
            .await?;
    }
    Ok(())
}

/// Deletes the old credentials that have ended, and returns their number. `now` is in seconds.
pub async fn purge(write: &mut Write, now: UnixSeconds) -> Result<u64, StoreError> {
    let done = query("DELETE FROM old_edge_credentials WHERE ends_at <= $1")
        .bind(row::to_column(now))
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected())
}

/// Returns all edges in the order of their names.
pub async fn list(executor: &mut impl Executor) -> Result<Vec<Edge>, StoreError> {
    let rows = query(concat!(select!(), "ORDER BY edge_id")).fetch_all(executor.connection()).await?;
    rows.iter().map(parse_row).collect()
}

/// Returns a page of the edges in the order of their names.
pub(in crate::edges) async fn page(
    executor: &mut impl Executor,
    page: &PageRequest,
) -> Result<Page<Edge>, StoreError> {
    let rows = query(concat!(select!(), "WHERE edge_id > $1 ORDER BY edge_id LIMIT $2"))
        .bind(page.after().unwrap_or(""))
        .bind(page.rows())
        .fetch_all(executor.connection())
        .await?;
    let edges = rows.iter().map(parse_row).collect::<Result<Vec<_>, _>>()?;
    Ok(page.paginate(edges, |edge| edge.id.to_string()))
}

/// Deletes an edge with its earlier credentials. Returns whether it existed. The tombstones contain the hashes of the
/// credentials, as the name may be used again.
pub async fn delete(write: &mut Write, id: &EdgeId) -> Result<bool, StoreError> {
    let old = query("DELETE FROM old_edge_credentials WHERE edge_id = $1 RETURNING credential_hash")
        .bind(id.as_str())
        .fetch_all(write.connection())
        .await?;
    let gone = query("DELETE FROM edges WHERE edge_id = $1 RETURNING credential_hash, enrolled_at")
        .bind(id.as_str())
        .fetch_optional(write.connection())
        .await?;
    if let Some(from) = &gone {
        let at = row::from_column(from, "enrolled_at")?;
        for credential in old.iter().chain([from]) {
            tombstones::insert(write, TombstoneKind::Edge, &row::text(credential, "credential_hash")?, at)
                .await?;
        }
    }
    Ok(gone.is_some())
}

/// Finds the edge whose current credential has a hash, in hexadecimal.
pub async fn find_by_hash(executor: &mut impl Executor, hash: &str) -> Result<Option<EdgeId>, StoreError> {
    let found = query("SELECT edge_id FROM edges WHERE credential_hash = $1")
        .bind(hash)
        .fetch_optional(executor.connection())
        .await?;
    found.as_ref().map(|found| row::parsed_text(found, "edge_id")).transpose()
}

/// Records the report of an edge at a second. A later report to another replica stays, unless it is so much later that a
/// clock must have been ahead.
pub async fn record_report(
    write: &mut Write,
    id: &EdgeId,
    at: UnixSeconds,
    report: &EdgeReport,
) -> Result<(), StoreError> {
    let EdgeReport { version, issued_at, workers } = report;
    query(
        "UPDATE edges SET last_seen_at = $2, version = $3, issued_at = $4, workers = $5, oldest = $6, lagging = $7, \
         kept_streams = $8 WHERE edge_id = $1 AND (last_seen_at IS NULL OR last_seen_at <= $2 OR last_seen_at > $9)",
    )
    .bind(id.as_str())
    .bind(row::to_column(at))
    .bind(row::to_column(*version))
    .bind(issued_at.map(row::to_column))
    .bind(workers.map(|workers| row::to_column(workers.count)))
    .bind(workers.map(|workers| row::to_column(workers.oldest)))
    .bind(workers.map(|workers| row::to_column(workers.lagging)))
    .bind(row::to_column(workers.map_or(0, |workers| workers.kept_streams)))
    .bind(row::to_column(at.saturating_add(60)))
    .execute(write.connection())
    .await?;
    Ok(())
}

/// Limits the times of the last reports to now.
pub async fn clamp_to_now(write: &mut Write, now: UnixSeconds) -> Result<(), StoreError> {
    query("UPDATE edges SET last_seen_at = $1 WHERE last_seen_at > $1")
        .bind(row::to_column(now))
        .execute(write.connection())
        .await?;
    Ok(())
}

fn parse_row(from: &AnyRow) -> Result<Edge, StoreError> {
    let column = |name| row::optional_from_column::<u64>(from, name);
    let workers = match (column("workers")?, column("oldest")?, column("lagging")?) {
        (Some(count), Some(oldest), Some(lagging)) => {
            let kept_streams = row::from_column(from, "kept_streams")?;
            Some(EdgeWorkers { count, oldest: Version::new(oldest), lagging, kept_streams })
        }
        _ => None,
    };
    let issued_at = column("issued_at")?;
    Ok(Edge {
        id: row::parsed_text(from, "edge_id")?,
        enrolled_at: row::from_column(from, "enrolled_at")?,
        last_seen_at: row::optional_from_column(from, "last_seen_at")?,
        rotated_at: row::optional_from_column(from, "rotated_at")?,
        old_credential_ends_at: row::optional_from_column(from, "old_ends_at")?,
        report: row::optional_from_column(from, "version")?.map(|version| EdgeReport {
            version,
            issued_at,
            workers,
        }),
    })
}
