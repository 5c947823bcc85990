use sqlx::{any::AnyRow, query};
use token::Fingerprint;

use super::{Lookup, StoreError, Write, row};
use crate::model::{Revocation, RevocationChange};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    Yes,
    /// It is revoked already.
    Before,
    /// The prefix belongs to another credential, which would be refused too.
    PrefixTaken,
}

pub async fn insert(
    write: &mut Write,
    revocation: &Revocation,
    version: u64,
) -> Result<Inserted, StoreError> {
    let Revocation { fingerprint, expires_at, reason, revoked_at } = revocation;
    let done = query(
        "INSERT INTO revocations (prefix, fingerprint, expires_at, version, reason, revoked_at) \
         SELECT $1, $2, $3, $4, $5, $6 \
         WHERE NOT EXISTS (SELECT 1 FROM issued WHERE prefix = $1 AND fingerprint <> $2) \
         ON CONFLICT (prefix) DO UPDATE SET expires_at = excluded.expires_at, version = excluded.version, \
         reason = excluded.reason, revoked_at = excluded.revoked_at, restored_at = NULL \
         WHERE revocations.fingerprint = excluded.fingerprint AND revocations.restored_at IS NOT NULL",
    )
    .bind(row::prefix(fingerprint))
    .bind(fingerprint.to_string())
    .bind(row::signed(*expires_at))
    .bind(row::signed(version))
    .bind(reason.as_deref())
    .bind(row::signed(*revoked_at))
    .execute(write.connection())
    .await?;
    if done.rows_affected() == 1 {
        Ok(Inserted::Yes)
    } else if find(write, fingerprint).await?.is_some() {
        Ok(Inserted::Before)
    } else {
        Ok(Inserted::PrefixTaken)
    }
}

/// Takes a revocation back. Whether there was one.
pub async fn restore(
    write: &mut Write,
    fingerprint: &Fingerprint,
    at: u64,
    version: u64,
) -> Result<bool, StoreError> {
    let done = query(
        "UPDATE revocations SET restored_at = $3, version = $4 \
         WHERE prefix = $1 AND fingerprint = $2 AND restored_at IS NULL",
    )
    .bind(row::prefix(fingerprint))
    .bind(fingerprint.to_string())
    .bind(row::signed(at))
    .bind(row::signed(version))
    .execute(write.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The revocation that holds, if any.
pub async fn find(
    lookup: &mut impl Lookup,
    fingerprint: &Fingerprint,
) -> Result<Option<Revocation>, StoreError> {
    let found = query(
        "SELECT fingerprint, expires_at, reason, revoked_at FROM revocations \
               WHERE prefix = $1 AND fingerprint = $2 AND restored_at IS NULL",
    )
    .bind(row::prefix(fingerprint))
    .bind(fingerprint.to_string())
    .fetch_optional(lookup.on())
    .await?;
    found.as_ref().map(read).transpose()
}

/// What changed after a version: of each fingerprint the latest.
pub async fn since(lookup: &mut impl Lookup, version: u64) -> Result<Vec<RevocationChange>, StoreError> {
    let rows = query(
        "SELECT fingerprint, expires_at, reason, revoked_at, restored_at FROM revocations WHERE version > $1 \
         ORDER BY version, prefix",
    )
    .bind(row::signed(version))
    .fetch_all(lookup.on())
    .await?;
    rows.iter()
        .map(|from| match row::optional_unsigned(from, "restored_at")? {
            None => Ok(RevocationChange::Revoked(read(from)?)),
            Some(_) => Ok(RevocationChange::Restored {
                fingerprint: row::parsed(from, "fingerprint")?,
                expires_at: row::unsigned(from, "expires_at")?,
            }),
        })
        .collect()
}

pub async fn count_since(lookup: &mut impl Lookup, version: u64) -> Result<u64, StoreError> {
    let row = query("SELECT COUNT(*) AS changes FROM revocations WHERE version > $1")
        .bind(row::signed(version))
        .fetch_one(lookup.on())
        .await?;
    row::unsigned(&row, "changes")
}

/// Forgets those whose credential has expired by itself; returns how many.
pub async fn collect(write: &mut Write, before: u64) -> Result<u64, StoreError> {
    let done = query("DELETE FROM revocations WHERE expires_at < $1")
        .bind(row::signed(before))
        .execute(write.connection())
        .await?;
    Ok(done.rows_affected())
}

fn read(from: &AnyRow) -> Result<Revocation, StoreError> {
    Ok(Revocation {
        fingerprint: row::parsed(from, "fingerprint")?,
        expires_at: row::unsigned(from, "expires_at")?,
        reason: row::optional_text(from, "reason")?,
        revoked_at: row::unsigned(from, "revoked_at")?,
    })
}
