//! The durable truth, on SQLite or PostgreSQL through one set of queries.
//!
//! A recipe: lookups return `Option`, writes say what they affected, time and ids are arguments, row types are private.
//! [`Store::write`] returns what the caller must [`Write::commit`]; committed means durable.

pub mod api_keys;
pub mod audit;
pub mod auth_keys;
pub mod blocks;
mod changes;
pub mod coverage;
pub mod edges;
mod engine;
mod error;
mod file;
pub mod gaps;
pub mod grants;
pub mod installation;
pub mod issued;
pub mod issuers;
pub mod key_set;
mod migrations;
pub mod operators;
pub mod revocations;
pub mod roles;
mod row;
pub mod shares;
pub mod signing_keys;
pub mod tag_keys;
pub mod tombstones;
pub mod users;
pub mod versions;
pub mod watermarks;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{
    Any, AnyConnection, AnyPool, Connection as _, Executor as _, Row as _, any::AnyPoolOptions, query,
};
use tokio::time::{sleep, timeout};

use crate::clock::Time;
pub use changes::Changes;
pub use engine::Engine;
use engine::Place;
pub use error::StoreError;
pub use file::Files;
pub use row::NEVER;

/// A database that is at the current migration.
#[derive(Debug, Clone)]
pub struct Store {
    engine: Engine,
    url: String,
    /// SQLite has one writer at a time, so there is one connection for it and nobody waits inside the database.
    writers: AnyPool,
    readers: AnyPool,
    /// Of SQLite.
    files: Option<Files>,
    /// A version that this process knows to be part of the history of the database, with its mark.
    anchor: Arc<Mutex<Option<(u64, i64)>>>,
}

impl Store {
    /// Makes the database where there is none. A relative SQLite path is one inside `folder`.
    pub async fn create(url: &str, folder: &Path) -> Result<Self, StoreError> {
        let place = Place::resolve(url, folder)?;
        place.make().map_err(|source| StoreError::File { place: place.to_string(), source })?;
        let store = Self::connect(place, |_| Ok(())).await?;
        migrations::run(&store.writers).await?;
        Ok(store)
    }

    /// Opens a database that is there, and brings an older schema up to date.
    pub async fn open(url: &str, folder: &Path) -> Result<Self, StoreError> {
        let (store, schema) = Self::open_any(url, folder).await?;
        if schema == Age::Older {
            store.migrate().await?;
        }
        Ok(store)
    }

    /// Opens a database that is there, and leaves an older schema as it is.
    pub async fn open_any(url: &str, folder: &Path) -> Result<(Self, Age), StoreError> {
        let mut age = Age::Current;
        let store = Self::connect(Place::resolve(url, folder)?, |schema| match schema {
            Err(StoreError::SchemaOlder) => {
                age = Age::Older;
                Ok(())
            }
            schema => schema,
        })
        .await?;
        Ok((store, age))
    }

    /// Brings an older schema up to date.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        migrations::run(&self.writers).await
    }

    /// Opens a database as it is: whoever only looks leaves no trace.
    pub async fn attach(url: &str, folder: &Path) -> Result<Self, StoreError> {
        Self::connect(Place::resolve(url, folder)?, |schema| schema).await
    }

    /// `accept` says what to make of a schema that is not the current one.
    async fn connect(
        place: Place,
        accept: impl FnOnce(Result<(), StoreError>) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        place.find()?;
        let files = place.path().map(Files::of);
        let (engine, url) = (place.engine(), place.url().to_owned());
        let unusable = |source| StoreError::Unusable { place: place.to_string(), source };
        // Not through a pool: it would try until its patience ends, and then tell of that instead of the cause.
        let first = async || {
            let mut connection = AnyConnection::connect(&url).await?;
            let schema = migrations::schema(&mut connection, engine).await?;
            Ok((connection, schema))
        };
        let patience = Instant::now() + STARTING_TIMEOUT;
        let first = loop {
            match timeout(CONNECT_TIMEOUT, first()).await.unwrap_or_else(|_| Err(timed_out())) {
                Err(error) if is_starting(&error) && Instant::now() < patience => sleep(STARTING_RETRY).await,
                first => break first,
            }
        };
        let (mut connection, schema) = first.map_err(unusable)?;
        accept(schema.current(&place))?;
        // Turns write-ahead logging on; the readers must find it so.
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
                .after_release(move |connection, _| Box::pin(at_rest(engine, connection)))
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

    pub const fn engine(&self) -> Engine {
        self.engine
    }

    /// The files of the database as they were when it was opened; none of PostgreSQL.
    pub const fn files(&self) -> Option<&Files> {
        self.files.as_ref()
    }

    /// Begins a transaction that may change things. Fails with [`StoreError::WentBack`] if the database does not know the
    /// version that [`anchor`](Self::anchor) named: it was restored, and what it has forgotten must be refused again first.
    pub async fn write(&self) -> Result<Write, StoreError> {
        let mut write = self.write_unanchored().await?;
        let anchor = *self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        // The query locks the table that it reads, so a restoration waits for the end of this transaction.
        if let Some((version, mark)) = anchor
            && !versions::is_known(&mut write, version, mark).await?
        {
            return Err(StoreError::WentBack);
        }
        Ok(write)
    }

    /// As [`write`](Self::write), for what has to be done when the database was restored.
    pub async fn write_unanchored(&self) -> Result<Write, StoreError> {
        let transaction = self.writers.begin_with(self.engine.begin_write()).await?;
        Ok(Write { engine: self.engine, transaction })
    }

    /// Names a version that this process has seen in the database, with its mark.
    pub fn anchor(&self, version: u64, mark: i64) {
        *self.anchor.lock().unwrap_or_else(PoisonError::into_inner) = Some((version, mark));
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

    /// What time it is by the database's own clock, where that is another machine's.
    pub async fn clock(&self) -> Result<Option<Time>, StoreError> {
        if self.engine == Engine::Sqlite {
            return Ok(None);
        }
        let now = query("SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS now")
            .fetch_one(self.reader().await?.on())
            .await?;
        Ok(Some(Time::from_millis(row::unsigned(&now, "now")?)))
    }

    /// Whether a change could be made now; makes none that anybody reads.
    pub async fn try_write(&self) -> Result<(), StoreError> {
        if self.files.as_ref().and_then(Files::room).is_some_and(|room| room < LEAST_ROOM) {
            return Err(StoreError::NoRoom);
        }
        let mut write = self.write().await?;
        match self.engine {
            // Nothing reaches the disk before the commit, nor does what does not differ.
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
                Ok(write.transaction.rollback().await?)
            }
        }
    }

    pub async fn close(&self) {
        self.readers.close().await;
        self.writers.close().await;
    }
}

/// How the schema of a database compares with what this program needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    Older,
    Current,
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

/// Whether a connection may go back to its pool. SQLite ends a transaction by itself when a disk is full or an I/O
/// error strikes; the driver, whose rollback then fails, would take the connection for being inside it for ever.
async fn at_rest(engine: Engine, connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
    if engine == Engine::Sqlite {
        // The rollback of what was dropped is queued: what comes after it comes after it.
        connection.ping().await?;
    }
    Ok(!connection.is_in_transaction())
}

/// What a database does not answer in time fails, instead of holding up all that comes after it.
pub async fn in_time<T, E: From<StoreError>>(
    patience: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match timeout(patience, work).await {
        Ok(done) => done,
        Err(_elapsed) => Err(StoreError::Database(timed_out()).into()),
    }
}

fn timed_out() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}

/// PostgreSQL answers, but not yet to us: SQLSTATE 57P03, cannot_connect_now.
fn is_starting(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "57P03")
}

/// For a server that was started along with us, or recovers from a crash.
const STARTING_TIMEOUT: Duration = Duration::from_secs(30);
const STARTING_RETRY: Duration = Duration::from_millis(100);

/// For the first connection, which nobody need wait for when nothing answers.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// A caller that waited longer is better told so: clients retry.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(8);

/// What the largest of usual changes takes, twice over: a probe that writes one page fits where a token does not.
const LEAST_ROOM: u64 = 256 * 1024;
