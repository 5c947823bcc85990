//! The service: what operations work with, and how it is opened.

use std::{
    mem,
    sync::{self, Arc, OnceLock, PoisonError},
    time::Duration,
};

use bundle::PublicKey;
use tokio::{
    sync::Mutex,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    config::Config,
    credentials::tokens::issuance_log::IssuanceLog,
    db::{DatabaseFiles, Engine, SchemaAge, Store, StoreError, versions},
    edges::last_seen::LastSeenRecorder,
    installation::queries::{self as installation, Installation},
    issuers::refresh::MissingKeys,
    journal::{COMMAND_TIMEOUT, CatchUpError, Journal},
    keys::{
        keyring::{self as keys, KeyError, Keyring, SharedKeyring},
        publisher_keys::{self, IncompleteKeys, PublisherKeys},
        queries::{signing_keys, tag_keys},
    },
    limits::operator::OperatorRates,
    platform::{
        clock::{Clock, Time},
        data_dir::DataDir,
        random,
    },
    publishing::Publications,
    restore::{Merged, merge_journal, repeat_deletion},
};

/// How often the files of the database are checked: a replaced database is noticed this late at most.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a successful probe write counts.
const WRITE_PROBE_TTL: Duration = Duration::from_secs(1);

/// How long an operation waits until its change is published.
const PUBLISH_WAIT_TIMEOUT: Duration = Duration::from_secs(1);

/// The state that operations share.
#[derive(Debug)]
pub struct Service {
    pub(crate) config: Config,
    pub(crate) data_dir: DataDir,
    clock: Clock,
    pub(crate) store: Store,
    pub(crate) keys: Arc<SharedKeyring>,
    pub(crate) journal: Journal,
    pub(crate) root_key: String,
    /// The id of the installation; `None` before its first server has started.
    pub(crate) installation: Option<String>,
    pub(crate) issuance_log: IssuanceLog,
    pub(crate) usage: LastSeenRecorder,
    pub(crate) rates: OperatorRates,
    pub(crate) missing_keys: MissingKeys,
    /// Set in a server. A command leaves publishing to the servers.
    publications: OnceLock<Publications>,
    /// The time that had passed at the last purge, and the uptime then.
    pub(crate) seen: Mutex<Option<(Time, Duration)>>,
    /// The background tasks, until [`workers`](Self::workers) hands them over.
    workers: sync::Mutex<Vec<(&'static str, JoinHandle<()>)>>,
    /// When a probe write last succeeded.
    last_write_probe: Mutex<Option<Instant>>,
}

impl Service {
    /// Opens a data folder for a server, and migrates an older database. Creates no keys: fails before anything is written
    /// if database and key files do not belong together or are incomplete.
    pub async fn open(data_dir: DataDir, config: Config) -> Result<Self, OpenError> {
        Self::open_at(data_dir, config, Clock::System).await
    }

    /// Like [`open`](Self::open), with a given clock.
    pub async fn open_at(data_dir: DataDir, config: Config, clock: Clock) -> Result<Self, OpenError> {
        let data_dir = require_data_dir(data_dir)?;
        let audience = &config.publisher.audience;
        let (root, incomplete) = publisher_keys::examine(&data_dir).map_err(OpenError::Keys)?;
        let (store, age) =
            Store::open_any_schema(&config.store.url, data_dir.path()).await.map_err(OpenError::Store)?;
        let journal = Journal::new(&data_dir);
        let mut merged = None;
        if age == SchemaAge::Current {
            check_database(&store, &data_dir, &root).await?;
            // The merge precedes the check of the keys: the file of a key that was retired after a backup does not exist.
            merged = Some(merge_journal(&store, &data_dir, &journal, clock.now()).await?);
        }
        check_keys(&store, age, &data_dir).await?;
        if incomplete == IncompleteKeys::Nothing {
            PublisherKeys::open(&data_dir, audience).map_err(OpenError::Keys)?;
        }
        publisher_keys::complete(&data_dir, incomplete, audience, clock.now()).map_err(OpenError::Keys)?;
        if age == SchemaAge::Older {
            store.migrate().await.map_err(OpenError::Store)?;
        }
        record_installation(&store, &root).await.map_err(OpenError::Store)?;
        let Merged { pending } = match merged {
            Some(merged) => merged,
            None => merge_journal(&store, &data_dir, &journal, clock.now()).await?,
        };
        let service = Self::with_store(store, data_dir, journal, config, clock).await?;
        repeat_deletion(&service, &pending).await?;
        Ok(service)
    }

    /// Opens a data folder for a command that runs beside the servers. Fails with [`OpenError::JournalNotMerged`] if the database was
    /// restored from a backup and no server has merged the journal yet: changes of the command could not be distinguished
    /// from lost ones.
    pub async fn attach(data_dir: DataDir, config: Config) -> Result<Self, OpenError> {
        let service = Self::attach_unmerged(data_dir, config).await?;
        if !service.journal.continues_in(&service.store).await.map_err(OpenError::Journal)? {
            return Err(OpenError::JournalNotMerged);
        }
        Ok(service)
    }

    /// Opens a data folder for a command that only reads.
    pub async fn attach_unmerged(data_dir: DataDir, config: Config) -> Result<Self, OpenError> {
        let data_dir = require_data_dir(data_dir)?;
        let store = Store::attach(&config.store.url, data_dir.path()).await.map_err(OpenError::Store)?;
        let version = versions::current(&mut store.reader().await?).await?;
        store.set_anchor(version.number, version.mark);
        let journal = Journal::new(&data_dir);
        Self::with_store(store, data_dir, journal, config, Clock::System).await
    }

    async fn with_store(
        store: Store,
        data_dir: DataDir,
        journal: Journal,
        config: Config,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        let root = publisher_keys::root_key(&data_dir).map_err(OpenError::Keys)?;
        let mut reader = store.reader().await.map_err(OpenError::Store)?;
        let installation = installation::find(&mut reader).await.map_err(OpenError::Store)?;
        if let Some(installation) = &installation {
            check_installation(installation, &data_dir, &root)?;
        }
        let records = signing_keys::list(&mut reader).await.map_err(OpenError::Store)?;
        drop(reader);
        let keys = Arc::new(SharedKeyring::open(&data_dir, &records).map_err(OpenError::Keys)?);
        let (issuance_log, issuance_log_writer) = IssuanceLog::start(store.clone(), clock.clone());
        let (usage, usage_writer) = LastSeenRecorder::start(store.clone());
        Ok(Self {
            root_key: root.to_string(),
            installation: installation.map(|installation| installation.id),
            journal,
            issuance_log,
            usage,
            workers: sync::Mutex::new(vec![("issuance log", issuance_log_writer), ("usage", usage_writer)]),
            rates: OperatorRates::new(&config.limits),
            missing_keys: MissingKeys::new(&config.issuers),
            publications: OnceLock::new(),
            seen: Mutex::new(None),
            last_write_probe: Mutex::new(None),
            config,
            data_dir,
            clock,
            store,
            keys,
        })
    }

    /// Returns the configuration.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the data folder.
    pub const fn data_dir(&self) -> &DataDir {
        &self.data_dir
    }

    pub(crate) const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Returns the present time.
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// Returns the engine of the database.
    pub const fn store_engine(&self) -> Engine {
        self.store.engine()
    }

    pub(crate) const fn usage(&self) -> &LastSeenRecorder {
        &self.usage
    }

    pub(crate) const fn store(&self) -> &Store {
        &self.store
    }

    /// Hands the background tasks over, with their names, to the first caller, which supervises them.
    pub(crate) fn workers(&self) -> Vec<(&'static str, JoinHandle<()>)> {
        mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the root key, which edges pin.
    pub fn root_key(&self) -> &str {
        &self.root_key
    }

    /// Returns the id of the installation.
    pub fn installation(&self) -> Option<&str> {
        self.installation.as_deref()
    }

    /// Returns the journal.
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Returns the signing keys of tokens.
    pub const fn keys(&self) -> &Arc<SharedKeyring> {
        &self.keys
    }

    /// Reloads the signing keys without waiting for the publisher.
    pub(crate) async fn reload_keys(&self) -> Result<(), ReloadKeysError> {
        let records = signing_keys::list(&mut self.store.reader().await?).await?;
        self.keys.reload(&records).map_err(ReloadKeysError::Keys)
    }

    /// Makes changes through this service request a publication from now on.
    pub fn set_publications(&self, publications: Publications) {
        let _ = self.publications.set(publications);
    }

    /// Checks that the store can be read.
    pub async fn check_ready(&self) -> Result<(), StoreError> {
        versions::current(&mut self.store.reader().await?).await.map(drop)
    }

    /// Checks that the store can be written. The check costs a commit, so its success counts for a second.
    pub async fn check_writable(&self) -> Result<(), StoreError> {
        let mut last_probe = self.last_write_probe.lock().await;
        if last_probe.is_none_or(|at| at.elapsed() >= WRITE_PROBE_TTL) {
            *last_probe = None;
            self.store.probe_write().await?;
            *last_probe = Some(Instant::now());
        }
        Ok(())
    }

    /// Checks that tokens can be issued: the current signing key is in the data folder.
    pub async fn check_can_issue(&self) -> Result<(), ReloadKeysError> {
        if self.keys.can_sign() { Ok(()) } else { self.reload_keys().await }
    }

    /// Waits until the files of the database are replaced by others.
    pub fn wait_replaced(&self) -> impl Future<Output = StoreError> + use<> {
        let mut files = self.store.files().cloned();
        // The first check records the files.
        let mut found = files.as_mut().map_or(Ok(()), DatabaseFiles::check);
        async move {
            loop {
                if let Err(error) = found {
                    return error;
                }
                sleep(FILE_CHECK_INTERVAL).await;
                found = files.as_mut().map_or(Ok(()), DatabaseFiles::check);
            }
        }
    }

    /// Waits until the own publisher has published a committed version, so that its effect is visible here when the caller
    /// gets the answer. The change is durable already, so a timeout is no error.
    pub(crate) async fn wait_published(&self, version: u64) {
        if let Some(publications) = self.publications.get() {
            let _ = timeout(PUBLISH_WAIT_TIMEOUT, publications.wait_for_version(version)).await;
        } else {
            // A command writes the journal itself, as no server may be running.
            self.journal.keep_up(&self.store, COMMAND_TIMEOUT).await;
        }
    }

    /// Writes buffered updates, then closes the database.
    pub async fn close(&self) {
        if self.store.files().cloned().is_some_and(|mut files| files.check().is_err()) {
            self.close_without_writing();
            return;
        }
        self.usage.flush().await;
        self.store.close().await;
    }

    /// Keeps the connections open until the process ends. Closing the last one would make SQLite remove the write-ahead log
    /// by its name, which belongs to another database by now.
    pub fn close_without_writing(&self) {
        std::mem::forget(self.store.clone());
    }
}

/// Why the signing keys could not be reloaded.
#[derive(Debug)]
pub enum ReloadKeysError {
    /// A key file cannot be used.
    Keys(KeyError),
    /// The store cannot be read.
    Store(StoreError),
}

impl From<StoreError> for ReloadKeysError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Why a service could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data folder does not exist.
    #[error(
        "the data folder `{shown}` does not exist; run `keystile --data {shown} init`, or give another with \
         --data",
        shown = .data_dir.path().display()
    )]
    NoDataDir { data_dir: DataDir },
    /// The store cannot be opened.
    #[error(transparent)]
    Store(StoreError),
    /// A key file cannot be used.
    #[error(transparent)]
    Keys(KeyError),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(CatchUpError),
    /// The database was restored from a backup, and the journal is not merged into it yet.
    #[error(
        "the database was restored from a backup and lacks the revocations since; start the server, or run \
         `keystile restore --repair`, before changing anything"
    )]
    JournalNotMerged,
    /// The store has an item again that was deleted according to the journal, and it cannot be deleted.
    #[error("`{what}` was deleted after the restored backup, and cannot be deleted again: {error}")]
    Merge { what: String, error: String },
}

/// Checks that the data folder exists.
fn require_data_dir(data_dir: DataDir) -> Result<DataDir, OpenError> {
    if data_dir.exists() { Ok(data_dir) } else { Err(OpenError::NoDataDir { data_dir }) }
}

/// Checks that the data folder belongs to the database. Writes nothing.
async fn check_database(store: &Store, data_dir: &DataDir, root: &PublicKey) -> Result<(), OpenError> {
    let mut reader = store.reader().await.map_err(OpenError::Store)?;
    match installation::find(&mut reader).await.map_err(OpenError::Store)? {
        Some(installation) => check_installation(&installation, data_dir, root),
        None => Ok(()),
    }
}

/// Checks that the data folder has the key files that the database lists. Writes nothing.
async fn check_keys(store: &Store, age: SchemaAge, data_dir: &DataDir) -> Result<(), OpenError> {
    let mut reader = store.reader().await.map_err(OpenError::Store)?;
    if age == SchemaAge::Older {
        // Only this query works with older schemas too.
        let signer = signing_keys::active_kid(&mut reader).await.map_err(OpenError::Store)?;
        let file = signer.map(|kid| keys::path(data_dir, &kid)).filter(|file| !file.exists());
        return match file {
            Some(file) => Err(OpenError::Keys(KeyError::Missing { paths: vec![file] })),
            None => Ok(()),
        };
    }
    let records = signing_keys::list(&mut reader).await.map_err(OpenError::Store)?;
    let generations = tag_keys::list(&mut reader).await.map_err(OpenError::Store)?;
    Keyring::open(data_dir, &records).map_err(OpenError::Keys)?;
    for generation in generations {
        match keys::open_generation(data_dir, &generation) {
            // The key of another replica may be missing: API keys cannot be created here, everything else works.
            Err(error) if error.is_absent() => {}
            opened => drop(opened.map_err(OpenError::Keys)?),
        }
    }
    Ok(())
}

/// Checks that the database was created with this root key.
fn check_installation(
    installation: &Installation,
    data_dir: &DataDir,
    root: &PublicKey,
) -> Result<(), OpenError> {
    if installation.root_key == root.to_string() {
        return Ok(());
    }
    Err(OpenError::Keys(KeyError::ForeignRoot {
        path: data_dir.keys(),
        found: Box::new(root.clone()),
        expected: installation.root_key.clone(),
    }))
}

/// Records installation id and root key in a database that has none, because it is new or older than the record.
async fn record_installation(store: &Store, root: &PublicKey) -> Result<(), StoreError> {
    if installation::find(&mut store.reader().await?).await?.is_some() {
        return Ok(());
    }
    let installation = Installation { id: random::uuid(), root_key: root.to_string() };
    let mut write = store.write().await?;
    installation::insert_if_absent(&mut write, &installation).await?;
    write.commit().await
}
