use sqlx::{any::AnyRow, query};

use super::{IssuerRecord, jwks::IssuerKey};
use crate::{
    db::{Executor, StoreError, Write, row},
    domain::UnixSeconds,
};

/// Adds an issuer. Returns whether it is new.
pub async fn add(write: &mut Write, issuer: &str, due_at: UnixSeconds) -> Result<bool, StoreError> {
    let done =
        query("INSERT INTO issuers (issuer, due_at, failures) VALUES ($1, $2, 0) ON CONFLICT DO NOTHING")
            .bind(issuer)
            .bind(row::to_column(due_at))
            .execute(write.connection())
            .await?;
    Ok(done.rows_affected() == 1)
}

/// Limits the times of the next fetches to now, after a clock that was ahead.
pub async fn clamp_to_now(write: &mut Write, now: UnixSeconds) -> Result<(), StoreError> {
    query("UPDATE issuers SET due_at = $1, tried_at = NULL WHERE tried_at > $1 OR fetched_at > $1")
        .bind(row::to_column(now))
        .execute(write.connection())
        .await?;
    Ok(())
}

/// Removes an issuer. Returns whether it existed.
pub(in crate::issuers) async fn remove(write: &mut Write, issuer: &str) -> Result<bool, StoreError> {
    let done =
        query("DELETE FROM issuers WHERE issuer = $1").bind(issuer).execute(write.connection()).await?;
    Ok(done.rows_affected() == 1)
}

/// Returns all issuers.
pub async fn list(executor: &mut impl Executor) -> Result<Vec<IssuerRecord>, StoreError> {
    let rows = query(
        "SELECT issuer, keys, skipped, etag, fetched_at, tried_at, due_at, failures, error FROM issuers ORDER BY issuer",
    )
    .fetch_all(executor.connection())
    .await?;
    rows.iter().map(parse_row).collect()
}

/// Finds an issuer.
pub async fn find(executor: &mut impl Executor, issuer: &str) -> Result<Option<IssuerRecord>, StoreError> {
    Ok(list(executor).await?.into_iter().find(|record| record.issuer == issuer))
}

/// Reserves the next fetch, unless one was made after `tried_before` or none is due. Returns whether it was reserved: one of
/// several replicas fetches.
pub(in crate::issuers) async fn claim(
    write: &mut Write,
    issuer: &str,
    now: UnixSeconds,
    tried_before: UnixSeconds,
    due_before: UnixSeconds,
    until: UnixSeconds,
) -> Result<bool, StoreError> {
    let done = query(
        "UPDATE issuers SET tried_at = $2, due_at = $5 \
         WHERE issuer = $1 AND (tried_at IS NULL OR tried_at <= $3) AND due_at <= $4",
    )
    .bind(issuer)
    .bind(row::to_column(now))
    .bind(row::to_column(tried_before))
    .bind(row::to_column(due_before))
    .bind(row::to_column(until))
    .execute(write.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Writes the result of a fetch.
pub async fn update(write: &mut Write, record: &IssuerRecord) -> Result<(), StoreError> {
    let IssuerRecord { issuer, keys, skipped, tag, fetched_at, tried_at: _, due_at, failures, error } =
        record;
    query(
        "UPDATE issuers SET keys = $2, skipped = $3, etag = $4, fetched_at = $5, due_at = $6, failures = $7, \
         error = $8 WHERE issuer = $1",
    )
    .bind(issuer.as_str())
    .bind(to_json(keys))
    .bind(to_json(skipped))
    .bind(tag.as_deref())
    .bind(fetched_at.map(row::to_column))
    .bind(row::to_column(*due_at))
    .bind(row::to_column(*failures))
    .bind(error.as_deref())
    .execute(write.connection())
    .await?;
    Ok(())
}

fn to_json<T: serde::Serialize>(list: &[T]) -> String {
    serde_json::to_string(list).unwrap_or_default()
}

fn parse_row(from: &AnyRow) -> Result<IssuerRecord, StoreError> {
    let keys = row::optional_text(from, "keys")?;
    let skipped = row::optional_text(from, "skipped")?;
    Ok(IssuerRecord {
        issuer: row::text(from, "issuer")?,
        keys: keys.as_deref().map(parse_json::<IssuerKey>).transpose()?.unwrap_or_default(),
        skipped: skipped.as_deref().map(parse_json::<String>).transpose()?.unwrap_or_default(),
        tag: row::optional_text(from, "etag")?,
        fetched_at: row::optional_from_column(from, "fetched_at")?,
        tried_at: row::optional_from_column(from, "tried_at")?,
        due_at: row::from_column(from, "due_at")?,
        failures: row::from_column(from, "failures")?,
        error: row::optional_text(from, "error")?,
    })
}

fn parse_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<Vec<T>, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt { what: "keys of an issuer" })
}
