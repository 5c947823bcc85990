//! Notifications of commits.

use std::{io::ErrorKind, time::Duration};

use sqlx::{
    AnyConnection, Connection as _, Executor as _, Row as _,
    postgres::{PgListener, PgPoolOptions},
    query,
};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::{Engine, StoreError};

/// How often SQLite is polled: the delay until a commit of another process is noticed.
const SQLITE_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How often PostgreSQL changes are assumed without a notification, as one may be lost.
const FALLBACK_INTERVAL: Duration = Duration::from_secs(1);

/// After this time without a notification the connection is tested: one that has gone silent would not be noticed.
const TEST_AFTER: Duration = Duration::from_secs(5);

/// The limit of the test.
const TEST_TIMEOUT: Duration = Duration::from_secs(1);

/// Reports commits of any process. May report too often, but never later than its interval.
#[derive(Debug)]
pub enum CommitListener {
    /// SQLite counts the commits of other connections. Reading the counter takes a few microseconds.
    Polled { connection: Box<AnyConnection>, ticks: tokio::time::Interval, seen: i64 },
    /// PostgreSQL sends notifications.
    Notified {
        listener: Box<PgListener>,
        /// When the server last sent something.
        heard_at: Instant,
    },
}

impl CommitListener {
    /// Opens a connection within a time limit.
    pub(super) async fn listen(engine: Engine, url: &str, limit: Duration) -> Result<Self, sqlx::Error> {
        match engine {
            Engine::Sqlite => {
                let mut ticks = interval(SQLITE_POLL_INTERVAL);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                Ok(Self::Polled { connection: Box::new(AnyConnection::connect(url).await?), ticks, seen: -1 })
            }
            Engine::Postgres => {
                let pool = PgPoolOptions::new()
                    .acquire_timeout(limit)
                    .max_connections(1)
                    .max_lifetime(None)
                    .idle_timeout(None);
                let mut listener = PgListener::connect_with(&pool.connect(url).await?).await?;
                // The caller opens another one, and reads what has changed in between.
                listener.eager_reconnect(false);
                listener.listen("keystile").await?;
                Ok(Self::Notified { listener: Box::new(listener), heard_at: Instant::now() })
            }
        }
    }

    /// Waits until something may have changed. Fails if the connection is lost.
    pub async fn next(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Polled { connection, ticks, seen } => loop {
                ticks.tick().await;
                let row = query("PRAGMA data_version").fetch_one(&mut **connection).await?;
                let version: i64 = row.try_get(0)?;
                if std::mem::replace(seen, version) != version {
                    return Ok(());
                }
            },
            Self::Notified { listener, heard_at } => {
                match timeout(FALLBACK_INTERVAL, listener.try_recv()).await {
                    Ok(Ok(Some(_notification))) => {}
                    Ok(Ok(None)) => return Err(sqlx::Error::Io(ErrorKind::ConnectionAborted.into()).into()),
                    Ok(Err(error)) => return Err(error.into()),
                    Err(_elapsed) if heard_at.elapsed() < TEST_AFTER => return Ok(()),
                    Err(_elapsed) => {
                        let test = timeout(TEST_TIMEOUT, listener.execute("SELECT 1")).await;
                        test.map_err(|_| sqlx::Error::Io(ErrorKind::TimedOut.into()))??;
                    }
                }
                *heard_at = Instant::now();
                Ok(())
            }
        }
    }
}
