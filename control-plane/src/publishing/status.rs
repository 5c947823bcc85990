//! Lets a command wait until a server publishes its change.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    db::{Store, StoreError, versions},
    domain::{UnixMillis, Version},
    edges, installation,
    platform::clock::Clock,
    service::Service,
};

/// How long a command waits for a server.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How often the database is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// By how much the clocks of two hosts may differ.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(60);

/// Whether a server has published a version of this database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicationStatus {
    /// The version or a later one is published.
    Published,
    /// The version is not published yet.
    Pending {
        /// When a server last published a version of this database.
        last: Option<UnixMillis>,
        /// The number of enrolled edges.
        edges: usize,
    },
}

/// The publications that servers have recorded in a database.
#[derive(Debug, Clone)]
pub struct RecordedPublications {
    store: Store,
    clock: Clock,
    /// The lifetime of a manifest.
    lifetime: Duration,
}

impl RecordedPublications {
    /// Returns the publications of the service's database.
    pub fn new(service: &Service) -> Self {
        let lifetime = service.config.publisher.lifetime.get();
        Self { store: service.store.clone(), clock: service.clock().clone(), lifetime }
    }

    /// Returns the latest version of the database, published or not.
    pub async fn latest_version(&self) -> Result<Version, StoreError> {
        Ok(versions::current(&mut self.store.reader().await?).await?.number)
    }

    /// Waits until a server has published the version, for at most a second. A server records its publications in the
    /// database that it reads, so a server on another database, such as a deleted file, is not counted.
    pub async fn wait_for_version(&self, version: Version) -> Result<PublicationStatus, StoreError> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let published = installation::publication_state(&mut self.store.reader().await?).await?;
            if published.version >= version {
                return Ok(PublicationStatus::Published);
            }
            let is_silent = self.clock.now() > published.at.plus(self.lifetime).plus(MAX_CLOCK_DIFFERENCE);
            if is_silent || Instant::now() >= deadline {
                let edges = edges::list(&mut self.store.reader().await?).await?.len();
                let last = (published.at > UnixMillis::from_millis(0)).then_some(published.at);
                return Ok(PublicationStatus::Pending { last, edges });
            }
            sleep(POLL_INTERVAL).await;
        }
    }
}
