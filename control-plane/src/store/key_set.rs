//! When the keys that edges verify with last changed.

use sqlx::query;

use super::{Lookup, StoreError, Write, row};

pub async fn changed(write: &mut Write, version: u64) -> Result<(), StoreError> {
    query("UPDATE key_set SET version = $1 WHERE id = 1")
        .bind(row::signed(version))
        .execute(write.connection())
        .await?;
    Ok(())
}

pub async fn version(lookup: &mut impl Lookup) -> Result<u64, StoreError> {
    let row = query("SELECT version FROM key_set WHERE id = 1").fetch_one(lookup.on()).await?;
    row::unsigned(&row, "version")
}
