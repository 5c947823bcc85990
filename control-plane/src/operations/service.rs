use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::{ledger::Ledger, usage::Usage};
use crate::{
    authority,
    clock::{Clock, Time},
    config::Config,
    home::Home,
    keys::{KeyError, Keys},
    publisher::Publications,
    store::{self, Engine, Store, StoreError},
};

/// What operations work with.
#[derive(Debug)]
pub struct Service {
    pub(super) config: Config,
    pub(super) home: Home,
    clock: Clock,
    pub(super) store: Store,
    pub(super) keys: Arc<Keys>,
    pub(super) root_key: String,
    pub(super) ledger: Ledger,
    pub(super) usage: Usage,
    /// In the server; a command beside it leaves publishing to it.
    publications: OnceLock<Publications>,
    /// Until when time had passed when it was last looked at, and the uptime then.
    pub(super) seen: Mutex<Option<(Time, Duration)>>,
    /// When a write was last tried with success.
    written: Mutex<Option<Instant>>,
}

impl Service {
    /// For the server, which brings an older database up to date.
    pub async fn open(home: Home, config: Config) -> Result<Self, OpenError> {
        Self::open_at(home, config, Clock::System).await
    }

    /// As [`open`](Self::open), by another clock than that of the system.
    pub async fn open_at(home: Home, config: Config, clock: Clock) -> Result<Self, OpenError> {
        let home = there(home)?;
        let store = Store::open(&config.store.url, home.folder()).await.map_err(OpenError::Store)?;
        // A data folder of 0.1 has one key for everything.
        authority::create(&home, &config.publisher.audience, clock.now()).map_err(OpenError::Keys)?;
        Self::on(store, home, config, clock).await
    }

    /// For a command, which takes the database as it is.
    pub async fn attach(home: Home, config: Config) -> Result<Self, OpenError> {
        let home = there(home)?;
        let store = Store::attach(&config.store.url, home.folder()).await.map_err(OpenError::Store)?;
        Self::on(store, home, config, Clock::System).await
    }

    async fn on(store: Store, home: Home, config: Config, clock: Clock) -> Result<Self, OpenError> {
        let records = store::signing_keys::list(&mut store.reader().await.map_err(OpenError::Store)?).await;
        let keys = Arc::new(Keys::open(&home, &records.map_err(OpenError::Store)?).map_err(OpenError::Keys)?);
        let root_key = authority::root_key(&home).map_err(OpenError::Keys)?.to_string();
        Ok(Self {
            root_key,
            ledger: Ledger::start(store.clone(), clock.clone()),
            usage: Usage::start(store.clone()),
            publications: OnceLock::new(),
            seen: Mutex::new(None),
            written: Mutex::new(None),
            config,
            home,
            clock,
            store,
            keys,
        })
    }

    pub const fn config(&self) -> &Config {
        &self.config
    }

    pub const fn home(&self) -> &Home {
        &self.home
    }

    pub(crate) const fn clock(&self) -> &Clock {
        &self.clock
    }

    pub fn now(&self) -> Time {
        self.clock.now()
    }

    pub const fn store_engine(&self) -> Engine {
        self.store.engine()
    }

    pub(crate) const fn store(&self) -> &Store {
        &self.store
    }

    /// The key that edges pin.
    pub fn root_key(&self) -> &str {
        &self.root_key
    }

    pub const fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// Looks for keys that the publisher has not told of yet.
    pub(super) async fn take_up_keys(&self) -> Result<(), TakeUpError> {
        let records = store::signing_keys::list(&mut self.store.reader().await?).await?;
        self.keys.take_up(&records).map_err(TakeUpError::Keys)
    }

    /// Changes made through this service ring the publisher from now on.
    pub fn publish_through(&self, publications: Publications) {
        let _ = self.publications.set(publications);
    }

    /// Whether the store answers.
    pub async fn ready(&self) -> Result<(), StoreError> {
        store::versions::current(&mut self.store.reader().await?).await.map(drop)
    }

    /// Whether the store takes changes. Asked however often, it is tried once a second: it costs a commit.
    pub async fn writable(&self) -> Result<(), StoreError> {
        let mut written = self.written.lock().await;
        if written.is_none_or(|tried| tried.elapsed() >= TRIED_LATELY) {
            *written = None;
            self.store.try_write().await?;
            *written = Some(Instant::now());
        }
        Ok(())
    }

    /// After a commit: the own publisher takes the change up before the answer goes out, so that whoever was told
    /// "revoked" finds it so here. The change is durable already; a publisher that hangs only costs the wait.
    pub(super) async fn settle(&self, version: u64) {
        if let Some(publications) = self.publications.get() {
            let _ = timeout(SETTLE, publications.reached(version)).await;
        }
    }

    /// Writes what is kept back, then lets go of the database.
    pub async fn close(&self) {
        self.usage.flush().await;
        self.store.close().await;
    }
}

#[derive(Debug)]
pub(super) enum TakeUpError {
    Keys(KeyError),
    Store(StoreError),
}

impl From<StoreError> for TakeUpError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

#[derive(Debug)]
pub enum OpenError {
    NoHome { home: Home },
    Store(StoreError),
    Keys(KeyError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHome { home } => write!(
                f,
                "there is no data folder `{0}`; run `keystile --data {0} init`, or name another with --data",
                home.folder().display()
            ),
            Self::Store(error) => error.fmt(f),
            Self::Keys(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoHome { .. } => None,
            Self::Store(error) => error.source(),
            Self::Keys(error) => error.source(),
        }
    }
}

fn there(home: Home) -> Result<Home, OpenError> {
    if home.exists() { Ok(home) } else { Err(OpenError::NoHome { home }) }
}

const TRIED_LATELY: Duration = Duration::from_secs(1);
const SETTLE: Duration = Duration::from_secs(1);
