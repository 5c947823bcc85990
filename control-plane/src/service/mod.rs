//! The service: the state that all contexts share, and the door to the unit of work.

mod error;
mod open;

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::{self, Arc, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Mutex,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    config::Config,
    credentials::tokens::issuance_log::IssuanceLog,
    db::{
        AfterCommit, Change, DatabaseFiles, Draft, Engine, PublishedVersions, Store, StoreError, Unobserved,
        Upkeep, versions,
    },
    domain::{Actor, Event, UnixMillis, Version},
    edges::last_seen::LastSeenRecorder,
    issuers::missing_keys::MissingKeys,
    journal::{COMMAND_TIMEOUT, Journal},
    keys::{keyring::SharedKeyring, signing_keys},
    limits::rates::OperatorRates,
    platform::{clock::Clock, data_dir::DataDir, telemetry::Metrics},
};
pub use error::{OpenError, ReloadKeysError};

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
    publications: OnceLock<Box<dyn PublishedVersions>>,
    metrics: Metrics,
    /// The time that had passed at the last purge, and the uptime then.
    pub(crate) seen: Mutex<Option<(UnixMillis, Duration)>>,
    /// The background tasks, until [`workers`](Self::workers) hands them over.
    workers: sync::Mutex<Vec<(&'static str, JoinHandle<()>)>>,
    /// When a probe write last succeeded.
    last_write_probe: Mutex<Option<Instant>>,
}

impl Service {
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
    pub fn now(&self) -> UnixMillis {
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

    /// Makes changes through this service request a publication, and wait for it, from now on.
    pub fn set_publications(&self, publications: impl PublishedVersions + 'static) {
        let _ = self.publications.set(Box::new(publications));
    }

    /// Returns the metrics.
    pub const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Begins a change with a new version.
    pub(crate) async fn change<'a>(&'a self, actor: &'a Actor) -> Result<Change<'a>, StoreError> {
        self.store.change(actor, || self.now(), self).await
    }

    /// Begins a change that may not need a version.
    pub(crate) async fn draft<'a>(&'a self, actor: &'a Actor) -> Result<Draft<'a>, StoreError> {
        self.store.draft(actor, || self.now(), self).await
    }

    /// Begins a change that does not wait until it is published.
    pub(crate) async fn unobserved_change<'a>(&'a self, actor: &'a Actor) -> Result<Change<'a>, StoreError> {
        self.store.change(actor, || self.now(), &Unobserved).await
    }

    /// Begins a transaction without an entry in the audit log.
    pub(crate) async fn upkeep(&self) -> Result<Upkeep, StoreError> {
        self.store.upkeep().await
    }

    /// Acknowledges a revocation that has changed nothing, because it was made before: waits until the present version is
    /// published, and returns it.
    pub(crate) async fn acknowledge_revocation(&self) -> Result<Version, StoreError> {
        let version = versions::current(&mut self.store.reader().await?).await?.number;
        self.metrics.count_revocation();
        self.wait_published(version).await;
        Ok(version)
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

    /// Opens as many connections to the database at the same time as a server uses, and returns their number.
    pub async fn check_connections(&self) -> Result<usize, StoreError> {
        self.store.open_all_connections().await
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

impl AfterCommit for Service {
    fn count(&self, event: &Event) {
        if event.is_revocation() {
            self.metrics.count_revocation();
        }
    }

    /// Waits until the own publisher has published a committed version, so that its effect is visible here when the caller
    /// gets the answer. The change is durable already, so a timeout is no error.
    fn wait_published(&self, version: Version) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            match self.publications.get() {
                Some(publications) => {
                    let _ = timeout(PUBLISH_WAIT_TIMEOUT, publications.wait_for(version)).await;
                }
                // A command writes the journal itself, as no server may be running.
                None => {
                    self.journal.keep_up(&self.store, COMMAND_TIMEOUT).await;
                }
            }
        })
    }
}
