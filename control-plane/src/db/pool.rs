//! The database with its connections.

use std::{
    future::pending,
    io::ErrorKind,
    path::Path,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{AnyConnection, AnyPool, Connection as _, Executor as _, Row as _, any::AnyPoolOptions, query};
use tokio::{
    select,
    time::{sleep, timeout},
};

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

/// After this time the cause of the wait is looked for.
const PROBE_AFTER: Duration = Duration::from_secs(1);

/// The limit of testing a connection of the pool, so that one that has gone silent delays its caller little.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// The sizes of the pools: writers and readers. SQLite has a single writer; callers wait for it outside the database.
const SQLITE_CONNECTIONS: (u32, u32) = (1, 4);
const POSTGRES_CONNECTIONS: (u32, u32) = (8, 8);

/// The free space that a write needs: twice the largest usual change. A probe that writes one page would succeed with less.
const MIN_FREE_BYTES: u64 = 256 * 1024;

/// A database with the current schema.
#[derive(Debug, Clone)]
pub struct Store {
    engine: Engine,
    /// The database in messages.
    location: Arc<str>,
    url: String,
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
        let store = Self::connect(location, Startup::IsOver, |_| Ok(())).await?;
        migrations::run_migrations(&store.writers).await?;
        Ok(store)
    }

    /// Opens an existing database, and migrates an older schema. Waits for a server that is starting.
    pub async fn open(url: &str, folder: &Path) -> Result<Self, StoreError> {
        let (store, schema) = Self::open_any_schema(url, folder, Startup::MayTakeTime).await?;
        if schema == SchemaAge::Older {
            store.migrate().await?;
        }
        Ok(store)
    }

    /// Opens an existing database without migrating it.
    pub async fn open_any_schema(
        url: &str,
        folder: &Path,
        startup: Startup,
    ) -> Result<(Self, SchemaAge), StoreError> {
        let mut age = SchemaAge::Current;
        let location = DatabaseLocation::resolve(url, folder)?;
        let store = Self::connect(location, startup, |schema| match schema {
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
        Self::connect(DatabaseLocation::resolve(url, folder)?, Startup::IsOver, |schema| schema).await
    }

    /// Opens a database. `accept` decides about the result of the schema check.
    async fn connect(
        location: DatabaseLocation,
        startup: Startup,
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
        let mut is_reported = false;
        let first = loop {
            match timeout(CONNECT_TIMEOUT, first()).await.unwrap_or_else(|_| Err(timeout_error())) {
                Err(error) if startup.explains(&error) && Instant::now() < deadline => {
                    if !is_reported {
                        let cause = error.to_string();
                        tracing::warn!(error.cause = cause, "waiting for the database at `{location}`");
                        is_reported = true;
                    }
                    sleep(STARTUP_RETRY_INTERVAL).await;
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
            Engine::Sqlite => SQLITE_CONNECTIONS,
            Engine::Postgres => POSTGRES_CONNECTIONS,
        };
        let pool = |connections| {
            AnyPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                // The pool's own test has no time limit.
                .test_before_acquire(false)
                .before_acquire(move |connection, _| Box::pin(is_usable(engine, connection)))
                .after_connect(move |connection, _| {
                    Box::pin(async move { connection.execute(engine.session_settings()).await.map(drop) })
                })
                .after_release(move |connection, _| Box::pin(is_idle(engine, connection)))
                .connect_lazy(&url)
        };
        Ok(Self {
            engine,
            location: location.to_string().into(),
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
        let begin = self.writers.begin_with(self.engine.begin_write());
        Ok(Write::new(self.engine, self.explain_failure(begin).await?))
    }

    /// Sets a version, with its mark, that must be in the history of the database from now on.
    pub fn set_anchor(&self, version: Version, mark: i64) {
        *self.anchor.lock().unwrap_or_else(PoisonError::into_inner) = Some((version, mark));
    }

    /// Begins a read transaction, which sees one state of the database.
    pub async fn read(&self) -> Result<ReadTransaction, StoreError> {
        let begin = self.readers.begin_with(self.engine.begin_read());
        Ok(ReadTransaction::new(self.explain_failure(begin).await?))
    }

    /// Returns a connection for single queries, each of which sees its own state of the database.
    pub async fn reader(&self) -> Result<ReadConnection, StoreError> {
        Ok(ReadConnection::new(self.explain_failure(self.readers.acquire()).await?))
    }

    /// Starts to watch for commits, by any process.
    pub async fn listen_for_commits(&self) -> Result<CommitListener, StoreError> {
        self.explain_failure(CommitListener::listen(self.engine, &self.url, ACQUIRE_TIMEOUT)).await
    }

    /// Opens as many connections at the same time as a server uses, and returns their number.
    pub async fn open_all_connections(&self) -> Result<usize, StoreError> {
        let mut open = Vec::new();
        for pool in [&self.writers, &self.readers] {
            for _ in 0..pool.options().get_max_connections() {
                open.push(self.explain_failure(pool.acquire()).await?);
            }
        }
        let _listener = self.listen_for_commits().await?;
        Ok(open.len() + 1)
    }

    /// Returns the number of open connections that are not in use.
    pub fn idle_connections(&self) -> usize {
        self.writers.num_idle() + self.readers.num_idle()
    }

    /// Waits for a connection. If there is none, the error states the reason: a pool retries until its timeout, and reports
    /// that.
    async fn explain_failure<T>(
        &self,
        acquire: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, StoreError> {
        let unreachable =
            |source| StoreError::Unreachable { location: self.location.as_ref().to_owned(), source };
        let mut acquire = pin!(acquire);
        let mut probe = pin!(async {
            sleep(PROBE_AFTER).await;
            self.connection_error().await
        });
        let mut cause = None;
        loop {
            select! {
                biased;
                acquired = &mut acquire => return acquired.map_err(|error| match (error, cause, self.engine) {
                    (sqlx::Error::PoolTimedOut, Some(cause), _) => unreachable(cause),
                    (sqlx::Error::PoolTimedOut, None, _) => StoreError::Busy,
                    (error, _, Engine::Sqlite) => error.into(),
                    (error, _, Engine::Postgres) => unreachable(error),
                }),
                // No server is running, so waiting is useless.
                error = &mut probe, if cause.is_none() => match is_refused(&error) {
                    true => return Err(unreachable(error)),
                    false => cause = Some(error),
                },
            }
        }
    }

    /// Tries to open a connection, and returns the error. Never returns if there is none, or if the server is starting.
    async fn connection_error(&self) -> sqlx::Error {
        if self.engine == Engine::Postgres {
            match timeout(CONNECT_TIMEOUT, AnyConnection::connect(&self.url)).await {
                Ok(Ok(connection)) => drop(connection.close().await),
                Ok(Err(error)) if is_starting(&error) => {}
                Ok(Err(error)) => return error,
                Err(_elapsed) => return timeout_error(),
            }
        }
        pending().await
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

/// Whether the server of the database may be starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Startup {
    /// It may be started at the same time as this process.
    MayTakeTime,
    /// It must be running.
    IsOver,
}

impl Startup {
    /// Returns whether an error goes away when the server has started.
    fn explains(self, error: &sqlx::Error) -> bool {
        is_starting(error) || (matches!(self, Self::MayTakeTime) && is_refused(error))
    }
}

/// Returns whether a connection of the pool can be used. PostgreSQL's may have gone silent, or its server may have become
/// read-only in a failover; a new connection leads to the new primary.
async fn is_usable(engine: Engine, connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
    if engine == Engine::Sqlite {
        return Ok(true);
    }
    let read_only = async {
        let row = query("SHOW transaction_read_only").fetch_one(&mut *connection).await?;
        row.try_get::<String, _>(0)
    };
    match timeout(PING_TIMEOUT, read_only).await {
        Ok(Ok(read_only)) => Ok(read_only == "off"),
        Ok(Err(_)) | Err(_) => abandon(connection).await.map(|()| false),
    }
}

/// Returns whether a connection may return to its pool. SQLite ends a transaction itself after a full disk or an I/O error.
/// The rollback of the driver then fails, and the driver considers the connection in a transaction from then on.
async fn is_idle(engine: Engine, connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
    // The rollback of a dropped transaction is queued. The ping waits for it.
    if engine == Engine::Sqlite {
        connection.ping().await?;
        return Ok(!connection.is_in_transaction());
    }
    match timeout(PING_TIMEOUT, connection.ping()).await {
        Ok(Ok(())) => Ok(!connection.is_in_transaction()),
        Ok(Err(_)) | Err(_) => abandon(connection).await.map(|()| false),
    }
}

/// Closes a connection to PostgreSQL without a farewell. The pool then closes what replaces it: the driver waits for the
/// server when it closes a connection with TLS, and a silent one would keep its place in the pool for many minutes.
async fn abandon(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    *connection = AnyConnection::connect("sqlite::memory:").await?;
    Ok(())
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
    sqlx::Error::Io(ErrorKind::TimedOut.into())
}

/// Returns whether PostgreSQL is starting: SQLSTATE 57P03, cannot_connect_now.
fn is_starting(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "57P03")
}

/// Returns whether no server listens: at the address, or at the socket, which does not exist then.
fn is_refused(error: &sqlx::Error) -> bool {
    let sqlx::Error::Io(error) = error else { return false };
    matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound)
}
