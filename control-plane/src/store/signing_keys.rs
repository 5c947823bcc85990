use sqlx::{any::AnyRow, query};
use token::Algorithm;

use super::{Lookup, StoreError, Write, row, tombstones};
use crate::model::{Gone, SigningKeyRecord, SigningKeyState};

pub async fn insert(write: &mut Write, key: &SigningKeyRecord, at: u64) -> Result<(), StoreError> {
    let SigningKeyRecord { kid, algorithm, public, state } = key;
    query("INSERT INTO signing_keys (kid, algorithm, public, state, created_at) VALUES ($1, $2, $3, $4, $5)")
        .bind(kid.as_str())
        .bind(algorithm.name())
        .bind(public.as_ref().map(row::hex32))
        .bind(match state {
            SigningKeyState::Active => "active",
            SigningKeyState::Verifying => "verifying",
        })
        .bind(row::signed(at))
        .execute(write.connection())
        .await?;
    Ok(())
}

/// From the commit on this one signs, and no other.
pub async fn activate(write: &mut Write, kid: &str) -> Result<(), StoreError> {
    query("UPDATE signing_keys SET state = CASE WHEN kid = $1 THEN 'active' ELSE 'verifying' END")
        .bind(kid)
        .execute(write.connection())
        .await?;
    Ok(())
}

pub async fn delete(write: &mut Write, kid: &str) -> Result<(), StoreError> {
    let gone = query("DELETE FROM signing_keys WHERE kid = $1 RETURNING created_at")
        .bind(kid)
        .fetch_optional(write.connection())
        .await?;
    if let Some(from) = &gone {
        tombstones::bury(write, Gone::SigningKey, kid, row::unsigned(from, "created_at")?).await?;
    }
    Ok(())
}

/// None was made in the future: a new one would not begin to sign for as long. Their order stays.
pub async fn put_right(write: &mut Write, now: u64) -> Result<(), StoreError> {
    let rows = query("SELECT kid FROM signing_keys WHERE created_at > $1 ORDER BY created_at, kid DESC")
        .bind(row::signed(now))
        .fetch_all(write.connection())
        .await?;
    let earlier = query("SELECT MAX(created_at) AS newest FROM signing_keys WHERE created_at <= $1")
        .bind(row::signed(now))
        .fetch_one(write.connection())
        .await?;
    let mut at = row::optional_unsigned(&earlier, "newest")?.unwrap_or_default();
    at = at.max(now.saturating_sub(u64::try_from(rows.len()).unwrap_or_default()));
    for found in &rows {
        at = at.saturating_add(1);
        query("UPDATE signing_keys SET created_at = $2 WHERE kid = $1")
            .bind(row::text(found, "kid")?)
            .bind(row::signed(at))
            .execute(write.connection())
            .await?;
    }
    Ok(())
}

/// When the newest was made.
pub async fn newest_at(lookup: &mut impl Lookup) -> Result<Option<u64>, StoreError> {
    let row = query("SELECT MAX(created_at) AS newest FROM signing_keys").fetch_one(lookup.on()).await?;
    row::optional_unsigned(&row, "newest")
}

/// The newest first: the first active one signs. One that is newer than that is to sign when all edges know it.
pub async fn list(lookup: &mut impl Lookup) -> Result<Vec<SigningKeyRecord>, StoreError> {
    let rows = query("SELECT kid, algorithm, public, state FROM signing_keys ORDER BY created_at DESC, kid")
        .fetch_all(lookup.on())
        .await?;
    rows.iter().map(read).collect()
}

/// The name of the key that signs, in a schema of any age.
pub async fn active(lookup: &mut impl Lookup) -> Result<Option<String>, StoreError> {
    let found =
        query("SELECT kid FROM signing_keys WHERE state = 'active' ORDER BY created_at DESC, kid LIMIT 1")
            .fetch_optional(lookup.on())
            .await?;
    found.map(|found| row::text(&found, "kid")).transpose()
}

fn read(from: &AnyRow) -> Result<SigningKeyRecord, StoreError> {
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
