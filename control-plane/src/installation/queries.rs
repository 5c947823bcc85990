//! The installation that the database belongs to, and the publications of its servers.

use sqlx::query;

use crate::{
    db::{Executor, StoreError, Write, row},
    domain::UnixMillis,
    domain::Version,
};

/// The identity of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// A random UUID.
    pub id: String,
    /// The root key, which edges pin, in base64url.
    pub root_key: String,
}

/// Records the installation of a database that has none yet.
pub async fn insert_if_absent(write: &mut Write, installation: &Installation) -> Result<(), StoreError> {
    query(
        "INSERT INTO installation (id, installation_id, root_key) VALUES (1, $1, $2) ON CONFLICT DO NOTHING",
    )
    .bind(installation.id.as_str())
    .bind(installation.root_key.as_str())
    .execute(write.connection())
    .await?;
    Ok(())
}

/// Records the installation of a new database.
pub(in crate::installation) async fn replace(
    write: &mut Write,
    installation: &Installation,
) -> Result<(), StoreError> {
    query("DELETE FROM installation").execute(write.connection()).await?;
    insert_if_absent(write, installation).await
}

/// Finds the installation; `None` until the first server of an older database has recorded it.
pub async fn find(executor: &mut impl Executor) -> Result<Option<Installation>, StoreError> {
    let found = query("SELECT installation_id, root_key FROM installation WHERE id = 1")
        .fetch_optional(executor.connection())
        .await?;
    let read = |found| {
        Ok(Installation {
            id: row::text(&found, "installation_id")?,
            root_key: row::text(&found, "root_key")?,
        })
    };
    found.map(read).transpose()
}

/// The publications of all servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicationState {
    pub version: Version,
    pub at: UnixMillis,
}

/// Returns the highest version that a server has published, and the time of the last publication.
pub async fn publication_state(executor: &mut impl Executor) -> Result<PublicationState, StoreError> {
    let row =
        query("SELECT version, at FROM published WHERE id = 1").fetch_one(executor.connection()).await?;
    Ok(PublicationState {
        version: row::from_column(&row, "version")?,
        at: UnixMillis::from_seconds(row::from_column(&row, "at")?),
    })
}

/// Records that a server has published a version.
pub async fn record_publication(
    write: &mut Write,
    version: Version,
    now: UnixMillis,
) -> Result<(), StoreError> {
    query(
        "UPDATE published SET version = CASE WHEN version > $1 THEN version ELSE $1 END, \
         at = CASE WHEN at > $2 THEN at ELSE $2 END WHERE id = 1",
    )
    .bind(row::to_column(version))
    .bind(row::to_column(now.seconds()))
    .execute(write.connection())
    .await?;
    Ok(())
}
