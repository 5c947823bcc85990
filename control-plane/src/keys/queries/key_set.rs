//! The version in which the keys that edges verify with last changed.

use sqlx::query;

use crate::{
    db::{Executor, StoreError, Write, row},
    domain::Version,
};

/// Records `version` as the one in which the keys last changed.
pub async fn set_version(write: &mut Write, version: Version) -> Result<(), StoreError> {
    query("UPDATE key_set SET version = $1 WHERE id = 1")
        .bind(row::to_column(version))
        .execute(write.connection())
        .await?;
    Ok(())
}

/// Returns the version in which the keys last changed.
pub async fn version(executor: &mut impl Executor) -> Result<Version, StoreError> {
    let row = query("SELECT version FROM key_set WHERE id = 1").fetch_one(executor.connection()).await?;
    row::from_column(&row, "version")
}
