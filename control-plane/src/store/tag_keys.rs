use sqlx::query;

use super::{Lookup, StoreError, Write, row};

pub async fn insert(write: &mut Write, generation: u8, at: u64) -> Result<(), StoreError> {
    query("INSERT INTO tag_keys (generation, created_at) VALUES ($1, $2)")
        .bind(i64::from(generation))
        .bind(row::signed(at))
        .execute(write.connection())
        .await?;
    Ok(())
}

pub async fn delete(write: &mut Write, generation: u8) -> Result<(), StoreError> {
    query("DELETE FROM tag_keys WHERE generation = $1")
        .bind(i64::from(generation))
        .execute(write.connection())
        .await?;
    Ok(())
}

/// The newest first: it makes the tags of new keys.
pub async fn list(lookup: &mut impl Lookup) -> Result<Vec<u8>, StoreError> {
    let rows =
        query("SELECT generation FROM tag_keys ORDER BY generation DESC").fetch_all(lookup.on()).await?;
    rows.iter()
        .map(|from| {
            u8::try_from(row::unsigned(from, "generation")?)
                .map_err(|_| StoreError::Corrupt { what: "generation" })
        })
        .collect()
}
