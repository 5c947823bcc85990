use std::time::Duration;

use sqlx::{AnyConnection, Connection as _, Row as _, postgres::PgListener, query};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Engine, StoreError};

/// Tells of commits, by whatever process. May tell too often, never too late by more than its period.
#[derive(Debug)]
pub enum Changes {
    /// SQLite counts the commits of other connections; asking costs a few microseconds.
    Polled { connection: Box<AnyConnection>, ticks: tokio::time::Interval, seen: i64 },
    /// PostgreSQL tells; a notification lost with its connection is caught up with in a second.
    Notified(Box<PgListener>),
}

impl Changes {
    pub(super) async fn listen(engine: Engine, url: &str) -> Result<Self, StoreError> {
        match engine {
            Engine::Sqlite => {
                let mut ticks = interval(POLL);
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

    /// Returns when something may have changed. May be dropped and called again.
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
            Self::Notified(listener) => match timeout(NET, listener.recv()).await {
                Err(_elapsed) => Ok(()),
                Ok(notification) => Ok(notification.map(drop)?),
            },
        }
    }
}

/// How late a command beside the server may be noticed.
const POLL: Duration = Duration::from_millis(20);

/// The net under lost notifications.
const NET: Duration = Duration::from_secs(1);
