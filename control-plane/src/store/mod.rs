//! The durable truth, on SQLite or PostgreSQL through one set of queries.
//!
//! A recipe: lookups return `Option`, writes say what they affected, time and ids are arguments, row types are private.
//! [`Store::write`] returns what the caller must [`Write::commit`]; committed means durable.

pub mod audit;
pub mod auth_keys;
mod changes;
pub mod edges;
mod engine;
mod error;
pub mod issued;
mod migrations;
pub mod operators;
pub mod revocations;
mod row;
pub mod signing_keys;
pub mod versions;
pub mod watermarks;

use std::path::Path;

use sqlx::{Any, AnyConnection, AnyPool, Connection as _, Executor as _, any::AnyPoolOptions};

pub use changes::Changes;
pub use engine::Engine;
pub use error::StoreError;

/// A database that is at the current migration.
#[derive(Debug, Clone)]
pub struct Store {
    engine: Engine,
    url: String,
    /// SQLite has one writer at a time, so there is one connection for it and nobody waits inside the database.
    writers: AnyPool,
    readers: AnyPool,
}

impl Store {
    /// Opens the database, making and migrating it where needed. A relative SQLite path is one inside `folder`.
    pub async fn open(url: &str, folder: &Path) -> Result<Self, StoreError> {
        let store = Self::connect(url, folder).await?;
        migrations::run(&store.writers).await?;
        Ok(store)
    }

    async fn connect(url: &str, folder: &Path) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let (engine, url) = engine::resolve(url, folder)?;
        let (writers, readers) = match engine {
            Engine::Sqlite => (1, 4),
            Engine::Postgres => (8, 8),
        };
        let pool = |connections| {
            AnyPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .test_before_acquire(engine == Engine::Postgres)
                .after_connect(move |connection, _| {
                    Box::pin(async move { connection.execute(engine.session_settings()).await.map(drop) })
                })
                .connect_lazy(&url)
        };
        let store = Self { engine, writers: pool(writers)?, readers: pool(readers)?, url: url.clone() };
        // The first connection turns write-ahead logging on; the readers must find it so.
        store.writers.acquire().await?.ping().await?;
        Ok(store)
    }

    pub const fn engine(&self) -> Engine {
        self.engine
    }

    /// A transaction that may change things.
    pub async fn write(&self) -> Result<Write, StoreError> {
        let transaction = self.writers.begin_with(self.engine.begin_write()).await?;
        Ok(Write { engine: self.engine, transaction })
    }

    /// One moment of the database, for as long as it is held.
    pub async fn read(&self) -> Result<Read, StoreError> {
        Ok(Read { transaction: self.readers.begin_with(self.engine.begin_read()).await? })
    }

    /// For a single query, which is a moment of its own.
    pub async fn reader(&self) -> Result<Reader, StoreError> {
        Ok(Reader { connection: self.readers.acquire().await? })
    }

    /// Tells of commits, whoever makes them.
    pub async fn changes(&self) -> Result<Changes, StoreError> {
        Changes::listen(self.engine, &self.url).await
    }

    pub async fn close(&self) {
        self.readers.close().await;
        self.writers.close().await;
    }
}

/// A transaction; rolled back unless committed.
pub struct Write {
    engine: Engine,
    transaction: sqlx::Transaction<'static, Any>,
}

impl Write {
    /// Returns when the changes are durable.
    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.transaction.commit().await?)
    }

    pub(in crate::store) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }

    pub(in crate::store) const fn engine(&self) -> Engine {
        self.engine
    }
}

impl std::fmt::Debug for Write {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Write")
    }
}

/// A read-only snapshot.
pub struct Read {
    transaction: sqlx::Transaction<'static, Any>,
}

impl std::fmt::Debug for Read {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Read")
    }
}

/// A connection for single queries.
pub struct Reader {
    connection: sqlx::pool::PoolConnection<Any>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

/// What a lookup may run on: any of the three.
pub trait Lookup: Send {
    fn on(&mut self) -> &mut AnyConnection;
}

impl Lookup for Write {
    fn on(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }
}

impl Lookup for Read {
    fn on(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }
}

impl Lookup for Reader {
    fn on(&mut self) -> &mut AnyConnection {
        &mut self.connection
    }
}

/// A caller that waited longer is better told so: clients retry.
const ACQUIRE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(8);
