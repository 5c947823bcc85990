//! Builds bundles from the store, signs their manifests, and wakes the edges that wait for one.
//!
//! ```text
//! store --commit--> notification --> load changes --> journal --> build --> sign --> Publications --> edges, own API
//! ```
//! A change that the tail cannot express waits for the next checkpoint. The store records the version of the checkpoint,
//! so all publishers of a database make the same checkpoints, and edges may move between them.
//!
//! A manifest is signed only after the store was read: if a publisher loses its store, the manifest expires at its edges.
//! Otherwise the publisher would confirm that nothing was revoked without knowing it.

mod base;
pub mod blocks;
mod collision;
mod compaction;
mod error;
mod gaps;
mod grants;
mod keyset;
mod object_cache;
mod publications;
mod publisher;
mod queries;
mod signer;
mod state;
mod status;
mod universe;

use std::{error::Error as _, sync::Arc, time::Duration};

use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};
use tokio_util::sync::CancellationToken;

pub use compaction::{CompactBaseError, Compaction, compact_base, compact_base_if_due};
pub use error::PublishError;
pub use publications::{BundlePosition, Publication, Publications};
pub use status::{PublicationStatus, RecordedPublications};

use crate::{
    db::{Store, versions, with_timeout},
    domain::Version,
    edges::LastSeenRecorder,
    journal::PUBLISHER_TIMEOUT,
    platform::{clock::Clock, telemetry::Metrics},
    service::Service,
};
use publisher::{BundlePublisher, SignMode};

/// The delay after a failure, before publishing or listening is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(250);

/// The limit of a publishing step. The first load of a large database reads hundreds of megabytes.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(60);

/// Starts to publish, and returns when the first manifest is signed. The tasks end when `stop` is canceled.
pub async fn start(
    service: &Service,
    metrics: Metrics,
    stop: CancellationToken,
) -> Result<(Publications, Vec<JoinHandle<()>>), PublishError> {
    start_new_version(service).await?;
    service.journal().keep_up(service.store(), PUBLISHER_TIMEOUT).await;
    let publisher = BundlePublisher::start(service, metrics).await?;
    let publications = publisher.publications();
    let watcher =
        tokio::spawn(watch_store_changes(service.store().clone(), publications.clone(), stop.clone()));
    let mut report = PublicationRecorder::new(service);
    // This is stored before the server listens, so a command that finds it listening also finds its publications.
    report.record(publications.latest().version);
    service.usage().flush().await;
    let runner = tokio::spawn(run(publisher, service.config().publisher.resign.get(), report, stop));
    Ok((publications, vec![watcher, runner]))
}

/// Allocates a version above every version that edges may hold, and makes it the checkpoint: the database may be new, or
/// restored from a backup.
async fn start_new_version(service: &Service) -> Result<(), PublishError> {
    let mut upkeep = service.upkeep().await?;
    let version = upkeep.allocate_version(service.now()).await?;
    versions::mark_checkpoint(upkeep.db(), version).await?;
    Ok(upkeep.commit().await?)
}

/// Publishes on request. Tests use it to control the time.
pub struct OnDemandPublisher(BundlePublisher);

impl OnDemandPublisher {
    /// Starts as a server does, without its tasks.
    pub async fn start(service: &Service) -> Result<Self, PublishError> {
        start_new_version(service).await?;
        Ok(Self(BundlePublisher::start(service, Metrics::new()).await?))
    }

    /// Publishes the present state of the store.
    pub async fn publish(&mut self) -> Result<Publications, PublishError> {
        self.0.publish(SignMode::Always).await?;
        Ok(self.0.publications())
    }
}

impl std::fmt::Debug for OnDemandPublisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnDemand")
    }
}

/// Builds and signs the bundle that a server would publish now, without publishing it.
pub async fn preview(service: &Service) -> Result<Arc<Publication>, PublishError> {
    Ok(BundlePublisher::start(service, Metrics::new()).await?.publications().latest())
}

/// Builds and signs the same bundle as one text, for hosts that fetch no bundle.
pub async fn export_inline(service: &Service) -> Result<String, PublishError> {
    BundlePublisher::start(service, Metrics::new()).await?.export_inline()
}

/// Publishes on every request, and signs the manifest again at every interval of `resign`.
async fn run(
    mut publisher: BundlePublisher,
    resign: Duration,
    mut report: PublicationRecorder,
    stop: CancellationToken,
) {
    let publications = publisher.publications();
    let mut ticks = interval_at(Instant::now() + resign, resign);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failure = None;
    loop {
        let sign = tokio::select! {
            () = publications.wait_publish_request() => SignMode::IfNewer,
            _ = ticks.tick() => SignMode::Always,
            () = stop.cancelled() => return,
        };
        let published = tokio::select! {
            published = with_timeout(PUBLISH_TIMEOUT, publisher.publish(sign)) => published,
            () = stop.cancelled() => return,
        };
        if published.is_ok() {
            report.record(publications.latest().version);
        }
        publications.set_error_code(published.as_ref().err().map(PublishError::code));
        match published {
            Ok(()) if failure.take().is_none() => {}
            Ok(()) => tracing::info!("publishing again"),
            Err(error) => {
                // A failure is logged once, however long it lasts.
                if failure.replace(error.code()) != Some(error.code()) {
                    let (code, cause) = (error.code(), error.cause());
                    tracing::error!(error.code = code, error.cause = cause, "nothing is published: {error}");
                }
                // Without the delay, repeated requests would spin while the store is unusable.
                sleep(RETRY_DELAY).await;
                publications.request_publish();
            }
        }
    }
}

/// Records in the store which version was published, for commands that run beside the server.
struct PublicationRecorder {
    usage: LastSeenRecorder,
    clock: Clock,
    /// How often an unchanged version is recorded again.
    interval: Duration,
    /// The version that was recorded last, and when.
    last: Option<(Version, Instant)>,
}

impl PublicationRecorder {
    fn new(service: &Service) -> Self {
        Self {
            usage: service.usage().clone(),
            clock: service.clock().clone(),
            interval: service.config().publisher.lifetime.get() / 3,
            last: None,
        }
    }

    /// Records a new version immediately, and an unchanged one once per interval.
    fn record(&mut self, version: Version) {
        let due = |(last, at): (Version, Instant)| last != version || at.elapsed() >= self.interval;
        if self.last.is_none_or(due) {
            self.usage.record_publication(version, self.clock.now());
            self.last = Some((version, Instant::now()));
        }
    }
}

/// Requests a publication after every commit to the store, by any process. Listens again after a failure.
async fn watch_store_changes(store: Store, publications: Publications, stop: CancellationToken) {
    let listen = async {
        let mut is_failing = false;
        loop {
            match store.listen_for_commits().await {
                Ok(mut changes) => {
                    is_failing = false;
                    // Commits from before the connection are included.
                    publications.request_publish();
                    let error = loop {
                        match changes.next().await {
                            Ok(()) => publications.request_publish(),
                            Err(error) => break error,
                        }
                    };
                    let cause = error.source().map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(
                        error.cause = cause,
                        "lost the connection that notifies of changes, opening another"
                    );
                }
                Err(error) if !is_failing => {
                    is_failing = true;
                    let cause = error.source().map(ToString::to_string).unwrap_or_default();
                    tracing::error!(
                        error.code = error.code(),
                        error.cause = cause,
                        "cannot listen for store changes, retrying"
                    );
                }
                Err(_) => {}
            }
            sleep(RETRY_DELAY).await;
        }
    };
    tokio::select! {
        () = listen => {}
        () = stop.cancelled() => {}
    }
}
