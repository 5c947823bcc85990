use std::{
    fmt, mem,
    sync::{self, Arc, OnceLock, PoisonError},
    time::Duration,
};

use bundle::PublicKey;
use tokio::{
    sync::Mutex,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    ledger::Ledger,
    operator_limits::OperatorRates,
    restore::{Merged, delete_again, merge},
    usage::Usage,
};
use crate::{
    authority::{self, Authority, Incomplete},
    clock::{Clock, Time},
    config::Config,
    home::Home,
    journal::{COMMAND_PATIENCE, CatchUpError, Journal},
    keys::{self, KeyError, Keyring, Keys},
    publisher::Publications,
    random,
    store::{self, Age, Engine, Store, StoreError, installation::Installation},
};

/// What operations work with.
#[derive(Debug)]
pub struct Service {
    pub(super) config: Config,
    pub(super) home: Home,
    clock: Clock,
    pub(super) store: Store,
    pub(super) keys: Arc<Keys>,
    pub(super) journal: Journal,
    pub(super) root_key: String,
    /// What tells this installation from others; none before its first server has served.
    pub(super) installation: Option<String>,
    pub(super) ledger: Ledger,
    pub(super) usage: Usage,
    pub(super) rates: OperatorRates,
    /// In the server; a command beside it leaves publishing to it.
    publications: OnceLock<Publications>,
    /// Until when time had passed when it was last looked at, and the uptime then.
    pub(super) seen: Mutex<Option<(Time, Duration)>>,
    /// The tasks of the ledger and of the usage, until somebody supervises them.
    workers: sync::Mutex<Vec<(&'static str, JoinHandle<()>)>>,
    /// When a write was last tried with success.
    written: Mutex<Option<Instant>>,
}

impl Service {
    /// For the server, which brings an older database up to date. It makes no key: what does not belong together, or is
    /// not whole, is refused before anything is written.
    pub async fn open(home: Home, config: Config) -> Result<Self, OpenError> {
        Self::open_at(home, config, Clock::System).await
    }

    /// As [`open`](Self::open), by another clock than that of the system.
    pub async fn open_at(home: Home, config: Config, clock: Clock) -> Result<Self, OpenError> {
        let home = there(home)?;
        let audience = &config.publisher.audience;
        let (root, incomplete) = authority::examine(&home).map_err(OpenError::Keys)?;
        let (store, age) =
            Store::open_any(&config.store.url, home.folder()).await.map_err(OpenError::Store)?;
        let journal = Journal::of(&home);
        let mut merged = None;
        if age == Age::Current {
            belongs(&store, &home, &root).await?;
            // Before any key is looked at: the file of one that was retired since a backup is gone.
            merged = Some(merge(&store, &home, &journal, clock.now()).await?);
        }
        examine_keys(&store, age, &home).await?;
        if incomplete == Incomplete::Nothing {
            Authority::open(&home, audience).map_err(OpenError::Keys)?;
        }
        authority::complete(&home, incomplete, audience, clock.now()).map_err(OpenError::Keys)?;
        if age == Age::Older {
            store.migrate().await.map_err(OpenError::Store)?;
        }
        adopt(&store, &root).await.map_err(OpenError::Store)?;
        let Merged { later } = match merged {
            Some(merged) => merged,
            None => merge(&store, &home, &journal, clock.now()).await?,
        };
        let service = Self::on(store, home, journal, config, clock).await?;
        delete_again(&service, &later).await?;
        Ok(service)
    }

    /// For a command beside the servers. Fails with [`OpenError::Restored`] if the database was restored from a backup and
    /// no server has merged the journal into it yet: what the command changes could not be told from what was lost.
    pub async fn attach(home: Home, config: Config) -> Result<Self, OpenError> {
        let service = Self::attach_unmerged(home, config).await?;
        if !service.journal.continues_in(&service.store).await.map_err(OpenError::Journal)? {
            return Err(OpenError::Restored);
        }
        Ok(service)
    }

    /// For a command that looks at the database as it is, and changes nothing.
    pub async fn attach_unmerged(home: Home, config: Config) -> Result<Self, OpenError> {
        let home = there(home)?;
        let store = Store::attach(&config.store.url, home.folder()).await.map_err(OpenError::Store)?;
        let version = store::versions::current(&mut store.reader().await?).await?;
        store.anchor(version.number, version.mark);
        let journal = Journal::of(&home);
        Self::on(store, home, journal, config, Clock::System).await
    }

    async fn on(
        store: Store,
        home: Home,
        journal: Journal,
        config: Config,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        let root = authority::root_key(&home).map_err(OpenError::Keys)?;
        let mut reader = store.reader().await.map_err(OpenError::Store)?;
        let installation = store::installation::find(&mut reader).await.map_err(OpenError::Store)?;
        if let Some(installation) = &installation {
            is_of(installation, &home, &root)?;
        }
        let records = store::signing_keys::list(&mut reader).await.map_err(OpenError::Store)?;
        drop(reader);
        let keys = Arc::new(Keys::open(&home, &records).map_err(OpenError::Keys)?);
        let (ledger, ledger_writer) = Ledger::start(store.clone(), clock.clone());
        let (usage, usage_writer) = Usage::start(store.clone());
        Ok(Self {
            root_key: root.to_string(),
            installation: installation.map(|installation| installation.id),
            journal,
            ledger,
            usage,
            workers: sync::Mutex::new(vec![("ledger", ledger_writer), ("usage", usage_writer)]),
            rates: OperatorRates::new(&config.limits),
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

    pub(crate) const fn usage(&self) -> &Usage {
        &self.usage
    }

    pub(crate) const fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the background tasks, by name, to whoever asks first and supervises them.
    pub(crate) fn workers(&self) -> Vec<(&'static str, JoinHandle<()>)> {
        mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The key that edges pin.
    pub fn root_key(&self) -> &str {
        &self.root_key
    }

    /// What tells this installation from others.
    pub fn installation(&self) -> Option<&str> {
        self.installation.as_deref()
    }

    /// What was taken back, beside the store.
    pub const fn journal(&self) -> &Journal {
        &self.journal
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

    /// Whether tokens can be issued here: the key that signs is in the folder by now.
    pub async fn can_issue(&self) -> Result<(), TakeUpError> {
        if self.keys.can_sign() { Ok(()) } else { self.take_up_keys().await }
    }

    /// Ends when the files of the database are not those any more that are there now.
    pub fn replaced(&self) -> impl Future<Output = StoreError> + use<> {
        let mut files = self.store.files().cloned();
        // Takes note of what lies beside the database.
        let mut found = files.as_mut().map_or(Ok(()), store::Files::check);
        async move {
            loop {
                if let Err(error) = found {
                    return error;
                }
                sleep(LOOKED_AT).await;
                found = files.as_mut().map_or(Ok(()), store::Files::check);
            }
        }
    }

    /// After a commit: the own publisher takes the change up before the answer goes out, so that whoever was told
    /// "revoked" finds it so here. The change is durable already; a publisher that hangs only costs the wait.
    pub(super) async fn settle(&self, version: u64) {
        if let Some(publications) = self.publications.get() {
            let _ = timeout(SETTLE, publications.reached(version)).await;
        } else {
            // No server may be there to do it.
            self.journal.keep_up(&self.store, COMMAND_PATIENCE).await;
        }
    }

    /// Writes what is kept back, then lets go of the database.
    pub async fn close(&self) {
        if self.store.files().cloned().is_some_and(|mut files| files.check().is_err()) {
            self.abandon();
            return;
        }
        self.usage.flush().await;
        self.store.close().await;
    }

    /// Leaves the connections open until the process ends: SQLite removes the write-ahead log by its name when the last
    /// one is closed, and by now the name is another database's.
    pub fn abandon(&self) {
        std::mem::forget(self.store.clone());
    }
}

#[derive(Debug)]
pub enum TakeUpError {
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
    NoHome {
        home: Home,
    },
    Store(StoreError),
    Keys(KeyError),
    Journal(CatchUpError),
    /// The database was restored from a backup, and the journal is not merged into it yet.
    Restored,
    /// What the journal says was deleted is there again, and can't be deleted.
    Merge {
        what: String,
        error: String,
    },
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
            Self::Journal(error) => error.fmt(f),
            Self::Restored => f.write_str(
                "the database was restored from a backup, and does not know what was revoked since; start the server, or \
                 run `keystile restore --repair`, before anything is changed",
            ),
            Self::Merge { what, error } => {
                write!(
                    f,
                    "`{what}` was deleted after the backup that was restored, and can't be deleted again: {error}"
                )
            }
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoHome { .. } | Self::Restored | Self::Merge { .. } => None,
            Self::Store(error) => error.source(),
            Self::Keys(error) => error.source(),
            Self::Journal(error) => error.source(),
        }
    }
}

fn there(home: Home) -> Result<Home, OpenError> {
    if home.exists() { Ok(home) } else { Err(OpenError::NoHome { home }) }
}

/// Whether the folder is the one that belongs to the database. Writes nothing.
async fn belongs(store: &Store, home: &Home, root: &PublicKey) -> Result<(), OpenError> {
    let mut reader = store.reader().await.map_err(OpenError::Store)?;
    match store::installation::find(&mut reader).await.map_err(OpenError::Store)? {
        Some(installation) => is_of(&installation, home, root),
        None => Ok(()),
    }
}

/// Whether the folder has the keys that the database lists. Writes nothing.
async fn examine_keys(store: &Store, age: Age, home: &Home) -> Result<(), OpenError> {
    let mut reader = store.reader().await.map_err(OpenError::Store)?;
    if age == Age::Older {
        // The tables are not those that this program reads.
        let signer = store::signing_keys::active(&mut reader).await.map_err(OpenError::Store)?;
        let file = signer.map(|kid| keys::path(home, &kid)).filter(|file| !file.exists());
        return match file {
            Some(file) => Err(OpenError::Keys(KeyError::Missing { paths: vec![file] })),
            None => Ok(()),
        };
    }
    let records = store::signing_keys::list(&mut reader).await.map_err(OpenError::Store)?;
    let generations = store::tag_keys::list(&mut reader).await.map_err(OpenError::Store)?;
    Keyring::open(home, &records).map_err(OpenError::Keys)?;
    for generation in generations {
        match keys::open_generation(home, &generation) {
            // That of another replica: it makes no API key here, and keeps no revocation back.
            Err(error) if error.is_absent() => {}
            opened => drop(opened.map_err(OpenError::Keys)?),
        }
    }
    Ok(())
}

fn is_of(installation: &Installation, home: &Home, root: &PublicKey) -> Result<(), OpenError> {
    if installation.root_key == root.to_string() {
        return Ok(());
    }
    Err(OpenError::Keys(KeyError::ForeignRoot {
        path: home.keys(),
        found: Box::new(root.clone()),
        expected: installation.root_key.clone(),
    }))
}

/// A database that is older than the record of what it belongs to gets it from its first server.
async fn adopt(store: &Store, root: &PublicKey) -> Result<(), StoreError> {
    if store::installation::find(&mut store.reader().await?).await?.is_some() {
        return Ok(());
    }
    let installation = Installation { id: random::uuid(), root_key: root.to_string() };
    let mut write = store.write().await?;
    store::installation::adopt(&mut write, &installation).await?;
    write.commit().await
}

/// How late a database that was replaced may be noticed.
const LOOKED_AT: Duration = Duration::from_secs(1);
const TRIED_LATELY: Duration = Duration::from_secs(1);
const SETTLE: Duration = Duration::from_secs(1);
