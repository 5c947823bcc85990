//! The database with its connections.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{AnyConnection, AnyPool, Connection as _, Executor as _, Row as _, any::AnyPoolOptions, query};
use tokio::time::{sleep, timeout};

use super::{
    CommitListener, DatabaseFiles, Engine, Executor as _, ReadConnection, ReadTransaction, StoreError, Write,
    engine::DatabaseLocation, migrations, row, versions,
};
use crate::{domain::UnixMillis, domain::Version};

/// How long a server is given to start or to recover from a crash.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(30);
const STARTUP_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// The limit of the first connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a caller waits for a connection of the pool.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(8);

/// The free space that a write needs: twice the largest usual change. A probe that writes one page would succeed with less.
const MIN_FREE_BYTES: u64 = 256 * 1024;

/// A database with the current schema.
#[derive(Debug, Clone)]
pub struct Store {
    engine: Engine,
    url: String,
    /// SQLite has a single writer, so the pool has one connection, and callers wait for it outside the database.
    writers: AnyPool,
    readers: AnyPool,
    /// The files of a SQLite database.
    files: Option<DatabaseFiles>,
    /// A version, with its mark, that must be in the history of the database.
    anchor: Arc<Mutex<Option<(Version, i64)>>>,
}

impl Store {
    /// Creates the database if there is none. A relative SQLite path is relative to `folder`.
    pub async fn create(url: &str, folder: &Path) -> Result<Self, StoreError> {
        let location = DatabaseLocation::resolve(url, folder)?;
        location
            .create_file()
            .map_err(|source| StoreError::File { location: location.to_string(), source })?;
        let store = Self::connect(location, |_| Ok(())).await?;
        migrations::run_migrations(&store.writers).await?;
        Ok(store)
    }

    /// Opens an existing database, and migrates an older schema.
    pub async fn open(url: &str, folder: &Path) -> Result<Self, StoreError> {
        let (store, schema) = Self::open_any_schema(url, folder).await?;
        if schema == SchemaAge::Older {
            store.migrate().await?;
        }
        Ok(store)
    }

    /// Opens an existing database without migrating it.
    pub async fn open_any_schema(url: &str, folder: &Path) -> Result<(Self, SchemaAge), StoreError> {
        let mut age = SchemaAge::Current;
        let store = Self::connect(DatabaseLocation::resolve(url, folder)?, |schema| match schema {
            Err(StoreError::SchemaOlder) => {
                age = SchemaAge::Older;
                Ok(())
            }
            schema => schema,
        })
        .await?;
        Ok((store, age))
    }

    /// Migrates an older schema.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        migrations::run_migrations(&self.writers).await
    }

    /// Opens an existing database that has the current schema.
    pub async fn attach(url: &str, folder: &Path) -> Result<Self, StoreError> {
        Self::connect(DatabaseLocation::resolve(url, folder)?, |schema| schema).await
    }

    /// Opens a database. `accept` decides about the result of the schema check.
    async fn connect(
        location: DatabaseLocation,
        accept: impl FnOnce(Result<(), StoreError>) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        location.check_exists()?;
        let files = location.path().map(DatabaseFiles::open);
        let (engine, url) = (location.engine(), location.url().to_owned());
        let unusable = |source| StoreError::Unusable { location: location.to_string(), source };
        // A pool would retry until its timeout, and report the timeout instead of the cause.
        let first = async || {
            let mut connection = AnyConnection::connect(&url).await?;
            let schema = migrations::read_schema(&mut connection, engine).await?;
            Ok((connection, schema))
        };
        let deadline = Instant::now() + STARTUP_TIMEOUT;
        let first = loop {
            match timeout(CONNECT_TIMEOUT, first()).await.unwrap_or_else(|_| Err(timeout_error())) {
                Err(error) if is_startup_error(&error) && Instant::now() < deadline => {
                    sleep(STARTUP_RETRY_INTERVAL).await
                }
                first => break first,
            }
        };
        let (mut connection, schema) = first.map_err(unusable)?;
        accept(schema.current(&location))?;
        // This enables write-ahead logging, which readers require.
        connection.execute(engine.session_settings()).await.map_err(unusable)?;
        connection.close().await.map_err(unusable)?;
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
                .after_release(move |connection, _| Box::pin(is_idle(engine, connection)))
                .connect_lazy(&url)
        };
        Ok(Self {
            engine,
            writers: pool(writers)?,
            readers: pool(readers)?,
            url: url.clone(),
            files,
            anchor: Arc::default(),
        })
    }

    /// Returns the engine.
    pub const fn engine(&self) -> Engine {
        self.engine
    }

    /// Returns the files of the database as they were when it was opened; `None` for PostgreSQL.
    pub const fn files(&self) -> Option<&DatabaseFiles> {
        self.files.as_ref()
    }

    /// Begins a write transaction. Fails with [`StoreError::RolledBack`] if the database lacks the version that
    /// [`set_anchor`](Self::set_anchor) has set: it was rolled back, and the journal must be merged first.
    pub(super) async fn write(&self) -> Result<Write, StoreError> {
        let mut write = self.write_unanchored().await?;
        let anchor = *self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        // The query locks the table, so restoring the database waits for the end of this transaction.
        if let Some((version, mark)) = anchor
            && !versions::is_logged(&mut write, version, mark).await?
        {
            return Err(StoreError::RolledBack);
        }
        Ok(write)
    }

    /// Begins a write transaction in a database that may have been rolled back, for the merge.
    pub(super) async fn write_unanchored(&self) -> Result<Write, StoreError> {
        let transaction = self.writers.begin_with(self.engine.begin_write()).await?;
        Ok(Write::new(self.engine, transaction))
    }

    /// Sets a version, with its mark, that must be in the history of the database from now on.
    pub fn set_anchor(&self, version: Version, mark: i64) {
        *self.anchor.lock().unwrap_or_else(PoisonError::into_inner) = Some((version, mark));
    }

    /// Begins a read transaction, which sees one state of the database.
    pub async fn read(&self) -> Result<ReadTransaction, StoreError> {
        Ok(ReadTransaction::new(self.readers.begin_with(self.engine.begin_read()).await?))
    }

    /// Returns a connection for single queries, each of which sees its own state of the database.
    pub async fn reader(&self) -> Result<ReadConnection, StoreError> {
        Ok(ReadConnection::new(self.readers.acquire().await?))
    }

    /// Starts to watch for commits, by any process.
    pub async fn listen_for_commits(&self) -> Result<CommitListener, StoreError> {
        CommitListener::listen(self.engine, &self.url).await
    }

    /// Returns the time of the database server; `None` for SQLite.
    pub async fn clock(&self) -> Result<Option<UnixMillis>, StoreError> {
        if self.engine == Engine::Sqlite {
            return Ok(None);
        }
        let now = query("SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS now")
            .fetch_one(self.reader().await?.connection())
            .await?;
        Ok(Some(UnixMillis::from_millis(row::from_column(&now, "now")?)))
    }

    /// Checks that the database can be written, by a change without effect.
    pub async fn probe_write(&self) -> Result<(), StoreError> {
        if self.files.as_ref().and_then(DatabaseFiles::free_bytes).is_some_and(|room| room < MIN_FREE_BYTES) {
            return Err(StoreError::DiskAlmostFull);
        }
        let mut write = self.write().await?;
        match self.engine {
            // Only a commit with an actual change reaches the disk.
            Engine::Sqlite => {
                let used = query("PRAGMA user_version").fetch_one(write.connection()).await?;
                let next = if used.try_get::<i64, _>(0)? == 0 {
                    "PRAGMA user_version = 1"
                } else {
                    "PRAGMA user_version = 0"
                };
                query(next).execute(write.connection()).await?;
                write.commit().await
            }
            Engine::Postgres => {
                query("UPDATE bundle_state SET version = version WHERE id = 1")
                    .execute(write.connection())
                    .await?;
                write.rollback().await
            }
        }
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writers.close().await;
    }
}

/// The age of a database schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaAge {
    /// The schema must be migrated.
    Older,
    /// The schema is that of this program.
    Current,
}

/// Returns whether a connection may return to its pool. SQLite ends a transaction itself after a full disk or an I/O error.
/// The rollback of the driver then fails, and the driver considers the connection in a transaction from then on.
async fn is_idle(engine: Engine, connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
    if engine == Engine::Sqlite {
        // The rollback of a dropped transaction is queued. The ping waits for it.
        connection.ping().await?;
    }
    Ok(!connection.is_in_transaction())
}

/// Runs database operations with a time limit, so that a database that hangs does not block later operations.
pub async fn with_timeout<T, E: From<StoreError>>(
    limit: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match timeout(limit, work).await {
        Ok(done) => done,
        Err(_elapsed) => Err(StoreError::Database(timeout_error()).into()),
    }
}

fn timeout_error() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}

/// Returns whether PostgreSQL is starting: SQLSTATE 57P03, cannot_connect_now.
fn is_startup_error(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "57P03")
}
