use sqlx::{any::AnyRow, query};

use super::{Lookup, StoreError, Write, row};
use crate::{jwks::IssuerKey, model::IssuerRecord};

/// Makes the row of an issuer that is new. Whether it was.
pub async fn add(write: &mut Write, issuer: &str, due_at: u64) -> Result<bool, StoreError> {
    let done =
        query("INSERT INTO issuers (issuer, due_at, failures) VALUES ($1, $2, 0) ON CONFLICT DO NOTHING")
            .bind(issuer)
            .bind(row::signed(due_at))
            .execute(write.connection())
            .await?;
    Ok(done.rows_affected() == 1)
}

/// Whose keys were fetched by a clock that was ahead are due now.
pub async fn put_right(write: &mut Write, now: u64) -> Result<(), StoreError> {
    query("UPDATE issuers SET due_at = $1, tried_at = NULL WHERE tried_at > $1 OR fetched_at > $1")
        .bind(row::signed(now))
        .execute(write.connection())
        .await?;
    Ok(())
}

/// Whether there was one.
pub async fn remove(write: &mut Write, issuer: &str) -> Result<bool, StoreError> {
    let done =
        query("DELETE FROM issuers WHERE issuer = $1").bind(issuer).execute(write.connection()).await?;
    Ok(done.rows_affected() == 1)
}

pub async fn list(lookup: &mut impl Lookup) -> Result<Vec<IssuerRecord>, StoreError> {
    let rows = query(
        "SELECT issuer, keys, skipped, etag, fetched_at, tried_at, due_at, failures, error FROM issuers ORDER BY issuer",
    )
    .fetch_all(lookup.on())
    .await?;
    rows.iter().map(read).collect()
}

pub async fn find(lookup: &mut impl Lookup, issuer: &str) -> Result<Option<IssuerRecord>, StoreError> {
    Ok(list(lookup).await?.into_iter().find(|record| record.issuer == issuer))
}

/// Claims the next attempt, unless one was made after `tried_before` or none is due. Whether it could be claimed: of two
/// replicas one fetches.
pub async fn claim(
    write: &mut Write,
    issuer: &str,
    now: u64,
    tried_before: u64,
    due_before: u64,
    until: u64,
) -> Result<bool, StoreError> {
    let done = query(
        "UPDATE issuers SET tried_at = $2, due_at = $5 \
         WHERE issuer = $1 AND (tried_at IS NULL OR tried_at <= $3) AND due_at <= $4",
    )
    .bind(issuer)
    .bind(row::signed(now))
    .bind(row::signed(tried_before))
    .bind(row::signed(due_before))
    .bind(row::signed(until))
    .execute(write.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Writes what an attempt brought.
pub async fn update(write: &mut Write, record: &IssuerRecord) -> Result<(), StoreError> {
    let IssuerRecord { issuer, keys, skipped, tag, fetched_at, tried_at: _, due_at, failures, error } =
        record;
    query(
        "UPDATE issuers SET keys = $2, skipped = $3, etag = $4, fetched_at = $5, due_at = $6, failures = $7, \
         error = $8 WHERE issuer = $1",
    )
    .bind(issuer.as_str())
    .bind(json(keys))
    .bind(json(skipped))
    .bind(tag.as_deref())
    .bind(fetched_at.map(row::signed))
    .bind(row::signed(*due_at))
    .bind(row::signed(*failures))
    .bind(error.as_deref())
    .execute(write.connection())
    .await?;
    Ok(())
}

fn json<T: serde::Serialize>(list: &[T]) -> String {
    serde_json::to_string(list).unwrap_or_default()
}

fn read(from: &AnyRow) -> Result<IssuerRecord, StoreError> {
    let keys = row::optional_text(from, "keys")?;
    let skipped = row::optional_text(from, "skipped")?;
    Ok(IssuerRecord {
        issuer: row::text(from, "issuer")?,
        keys: keys.as_deref().map(parsed::<IssuerKey>).transpose()?.unwrap_or_default(),
        skipped: skipped.as_deref().map(parsed::<String>).transpose()?.unwrap_or_default(),
        tag: row::optional_text(from, "etag")?,
        fetched_at: row::optional_unsigned(from, "fetched_at")?,
        tried_at: row::optional_unsigned(from, "tried_at")?,
        due_at: row::unsigned(from, "due_at")?,
        failures: row::unsigned(from, "failures")?,
        error: row::optional_text(from, "error")?,
    })
}

fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<Vec<T>, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt { what: "keys of an issuer" })
}
