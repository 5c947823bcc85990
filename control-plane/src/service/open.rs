//! How a service is opened, by a server and by a command.

use std::sync::{self, Arc, OnceLock};

use bundle::PublicKey;
use tokio::sync::Mutex;

use super::{OpenError, Service};
use crate::{
    config::Config,
    credentials::tokens::issuance_log::IssuanceLog,
    db::{SchemaAge, Startup, Store, StoreError, versions},
    edges::last_seen::LastSeenRecorder,
    installation::{self, Installation},
    issuers::missing_keys::MissingKeys,
    journal::Journal,
    keys::{
        keyring::{self as keys, KeyError, Keyring, SharedKeyring},
        publisher_keys::{self, IncompleteKeys, PublisherKeys},
        signing_keys, tag_keys,
    },
    limits::rates::OperatorRates,
    platform::{clock::Clock, data_dir::DataDir, random, telemetry::Metrics},
    restore::{Merged, merge_journal, repeat_deletion},
};

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
        let (store, age) = Store::open_any_schema(&config.store.url, data_dir.path(), Startup::MayTakeTime)
            .await
            .map_err(OpenError::Store)?;
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
            metrics: Metrics::new(),
            seen: Mutex::new(None),
            last_write_probe: Mutex::new(None),
            config,
            data_dir,
            clock,
            store,
            keys,
        })
    }
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
    let mut upkeep = store.upkeep().await?;
    installation::insert_if_absent(upkeep.db(), &installation).await?;
    upkeep.commit().await
}
