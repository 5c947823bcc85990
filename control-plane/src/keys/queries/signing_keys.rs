use sqlx::{any::AnyRow, query};
use token::Algorithm;

use crate::{
    db::{Executor, StoreError, Write, row},
    domain::{SigningKeyRecord, SigningKeyState, TombstoneKind, UnixSeconds},
    journal::tombstones,
};

/// Inserts a signing key.
pub async fn insert(write: &mut Write, key: &SigningKeyRecord, at: UnixSeconds) -> Result<(), StoreError> {
    let SigningKeyRecord { kid, algorithm, public, state } = key;
    query("INSERT INTO signing_keys (kid, algorithm, public, state, created_at) VALUES ($1, $2, $3, $4, $5)")
        .bind(kid.as_str())
        .bind(algorithm.name())
        .bind(public.as_ref().map(row::hex32))
        .bind(match state {
            SigningKeyState::Active => "active",
            SigningKeyState::Verifying => "verifying",
        })
        .bind(row::to_column(at))
        .execute(write.connection())
        .await?;
    Ok(())
}

/// Makes a key the only active one.
pub async fn activate(write: &mut Write, kid: &str) -> Result<(), StoreError> {
    query("UPDATE signing_keys SET state = CASE WHEN kid = $1 THEN 'active' ELSE 'verifying' END")
        .bind(kid)
        .execute(write.connection())
        .await?;
    Ok(())
}

/// Deletes a signing key.
pub async fn delete(write: &mut Write, kid: &str) -> Result<(), StoreError> {
    let gone = query("DELETE FROM signing_keys WHERE kid = $1 RETURNING created_at")
        .bind(kid)
        .fetch_optional(write.connection())
        .await?;
    if let Some(from) = &gone {
        tombstones::insert(write, TombstoneKind::SigningKey, kid, row::from_column(from, "created_at")?)
            .await?;
    }
    Ok(())
}

/// Limits the times of creation to now, in the same order: a pending key with a future time would not be activated until
/// then.
pub async fn clamp_to_now(write: &mut Write, now: UnixSeconds) -> Result<(), StoreError> {
    let rows = query("SELECT kid FROM signing_keys WHERE created_at > $1 ORDER BY created_at, kid DESC")
        .bind(row::to_column(now))
        .fetch_all(write.connection())
        .await?;
    let earlier = query("SELECT MAX(created_at) AS newest FROM signing_keys WHERE created_at <= $1")
        .bind(row::to_column(now))
        .fetch_one(write.connection())
        .await?;
    let mut at: UnixSeconds = row::optional_from_column(&earlier, "newest")?.unwrap_or_default();
    at = at.max(now.saturating_sub(u64::try_from(rows.len()).unwrap_or_default()));
    for found in &rows {
        at = at.saturating_add(1);
        query("UPDATE signing_keys SET created_at = $2 WHERE kid = $1")
            .bind(row::text(found, "kid")?)
            .bind(row::to_column(at))
            .execute(write.connection())
            .await?;
    }
    Ok(())
}

/// Returns when the newest key was created.
pub async fn newest_created_at(executor: &mut impl Executor) -> Result<Option<UnixSeconds>, StoreError> {
    let row =
        query("SELECT MAX(created_at) AS newest FROM signing_keys").fetch_one(executor.connection()).await?;
    row::optional_from_column(&row, "newest")
}

/// Returns all keys, newest first. The first active one signs; a newer one is activated when all edges have it.
pub async fn list(executor: &mut impl Executor) -> Result<Vec<SigningKeyRecord>, StoreError> {
    let rows = query("SELECT kid, algorithm, public, state FROM signing_keys ORDER BY created_at DESC, kid")
        .fetch_all(executor.connection())
        .await?;
    rows.iter().map(parse_row).collect()
}

/// Returns the `kid` of the active key. Works with every schema version.
pub async fn active_kid(executor: &mut impl Executor) -> Result<Option<String>, StoreError> {
    let found =
        query("SELECT kid FROM signing_keys WHERE state = 'active' ORDER BY created_at DESC, kid LIMIT 1")
            .fetch_optional(executor.connection())
            .await?;
    found.map(|found| row::text(&found, "kid")).transpose()
}

fn parse_row(from: &AnyRow) -> Result<SigningKeyRecord, StoreError> {
    Ok(SigningKeyRecord {
        kid: row::text(from, "kid")?,
        algorithm: match row::text(from, "algorithm")?.as_str() {
            "EdDSA" => Algorithm::EdDsa,
            "HS256" => Algorithm::Hs256,
            _ => return Err(StoreError::Corrupt { what: "algorithm" }),
        },
        public: match row::optional_text(from, "public")? {
            None => None,
            Some(_) => Some(row::hash(from, "public")?),
        },
        state: match row::text(from, "state")?.as_str() {
            "active" => SigningKeyState::Active,
            "verifying" => SigningKeyState::Verifying,
            _ => return Err(StoreError::Corrupt { what: "state" }),
        },
    })
}
