//! Notifications of commits.

use std::time::Duration;

use sqlx::{AnyConnection, Connection as _, Row as _, postgres::PgListener, query};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Engine, StoreError};

/// How often SQLite is polled: the delay until a commit of another process is noticed.
const SQLITE_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How often PostgreSQL changes are assumed without a notification, as one may be lost.
const FALLBACK_INTERVAL: Duration = Duration::from_secs(1);

/// Reports commits of any process. May report too often, but never later than its interval.
#[derive(Debug)]
pub enum CommitListener {
    /// SQLite counts the commits of other connections. Reading the counter takes a few microseconds.
    Polled { connection: Box<AnyConnection>, ticks: tokio::time::Interval, seen: i64 },
    /// PostgreSQL sends notifications.
    Notified(Box<PgListener>),
}

impl CommitListener {
    pub(crate) async fn listen(engine: Engine, url: &str) -> Result<Self, StoreError> {
        match engine {
            Engine::Sqlite => {
                let mut ticks = interval(SQLITE_POLL_INTERVAL);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                Ok(Self::Polled { connection: Box::new(AnyConnection::connect(url).await?), ticks, seen: -1 })
            }
            Engine::Postgres => {
                let mut listener = PgListener::connect(url).await?;
                listener.listen("keystile").await?;
                Ok(Self::Notified(Box::new(listener)))
            }
        }
    }

    /// Waits until something may have changed. This function is cancel safe.
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
            Self::Notified(listener) => match timeout(FALLBACK_INTERVAL, listener.recv()).await {
                Err(_elapsed) => Ok(()),
                Ok(notification) => Ok(notification.map(drop)?),
            },
        }
    }
}
