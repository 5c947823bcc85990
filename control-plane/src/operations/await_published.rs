use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Service;
use crate::{
    clock::{Clock, Time},
    store::{Store, StoreError, edges, installation, versions},
};

/// Whether a server has published a version of this very database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publication {
    Published,
    Pending {
        /// When a server last published anything of it.
        last: Option<Time>,
        /// How many edges are enrolled, which hear of it as soon as one does.
        edges: usize,
    },
}

/// What the servers of a database have published of it.
#[derive(Debug, Clone)]
pub struct Publishing {
    store: Store,
    clock: Clock,
    /// Of a manifest.
    lifetime: Duration,
}

impl Publishing {
    pub fn of(service: &Service) -> Self {
        let lifetime = service.config.publisher.lifetime.get();
        Self { store: service.store.clone(), clock: service.clock().clone(), lifetime }
    }

    /// The latest version that the database has, published or not.
    pub async fn latest(&self) -> Result<u64, StoreError> {
        Ok(versions::current(&mut self.store.reader().await?).await?.number)
    }

    /// Returns when a server has published the version, or after a second. Servers tell the database what they publish:
    /// who publishes from another one, be it a deleted file, says nothing here.
    pub async fn reached(&self, version: u64) -> Result<Publication, StoreError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let published = installation::published(&mut self.store.reader().await?).await?;
            if published.version >= version {
                return Ok(Publication::Published);
            }
            let is_silent = self.clock.now() > published.at.plus(self.lifetime).plus(CLOCKS_APART);
            if is_silent || Instant::now() >= deadline {
                let edges = edges::list(&mut self.store.reader().await?).await?.len();
                let last = (published.at > Time::from_seconds(0)).then_some(published.at);
                return Ok(Publication::Pending { last, edges });
            }
            sleep(PAUSE).await;
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);

/// Of two hosts.
const CLOCKS_APART: Duration = Duration::from_secs(60);
