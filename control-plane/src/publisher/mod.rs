//! Makes bundles of what the store holds, signs their manifests, and wakes the edges that wait for one.
//!
//! ```text
//! store --commit--> bell --> load what changed --> journal --> build --> sign --> Publications --> waiting edges, own API
//! ```
//! What the tail can't say waits for the next checkpoint. In which version that is stands in the store, so that all
//! publishers over one store settle the same, and edges may move between them.
//!
//! A manifest is signed only after the store was read: a publisher that is cut off from its store lets its edges find
//! out, instead of assuring them that nothing was revoked.

mod base;
mod contents;
mod error;
mod granted;
mod keyset;
mod lost;
mod press;
mod publications;
mod shelf;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};

pub use error::PublishError;
pub use publications::{Order, Publication, Publications};

use crate::{
    clock::Clock,
    operations::{Service, Usage, standing},
    store::{Store, in_time, versions},
    telemetry::Metrics,
};
use press::Press;

/// Starts publishing; returns when the first manifest is signed. Ends when `stop` turns true.
pub async fn start(
    service: &Service,
    metrics: Metrics,
    stop: watch::Receiver<bool>,
) -> Result<(Publications, Vec<JoinHandle<()>>), PublishError> {
    begin_anew(service).await?;
    service.journal().keep_up(service.store()).await;
    let press = Press::start(service, metrics).await?;
    let publications = press.publications();
    let ringer = tokio::spawn(ring(service.store().clone(), publications.clone(), stop.clone()));
    let mut report = Report::new(service);
    report.published(publications.latest().version);
    // A command beside this server must find that somebody publishes as soon as the server listens.
    service.usage().flush().await;
    let printer = tokio::spawn(run(press, service.config().publisher.resign.get(), report, stop));
    Ok((publications, vec![ringer, printer]))
}

/// A version above all that edges may hold, for the checkpoint too: the database may be a restored backup, or a new one.
async fn begin_anew(service: &Service) -> Result<(), PublishError> {
    let mut write = service.store().write().await?;
    let version = versions::next(&mut write, service.now()).await?;
    versions::settle(&mut write, version).await?;
    Ok(write.commit().await?)
}

/// Publishes when it is told to: for tests, which have the time in their hands.
pub struct OnDemand(Press);

impl OnDemand {
    /// As a server begins.
    pub async fn start(service: &Service) -> Result<Self, PublishError> {
        begin_anew(service).await?;
        Ok(Self(Press::start(service, Metrics::new()).await?))
    }

    /// What is known now, signed now.
    pub async fn publish(&mut self) -> Result<Publications, PublishError> {
        self.0.publish(press::Sign::Always).await?;
        Ok(self.0.publications())
    }
}

impl std::fmt::Debug for OnDemand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnDemand")
    }
}

/// Builds and signs what a server would publish now.
pub async fn preview(service: &Service) -> Result<Arc<Publication>, PublishError> {
    Ok(press_beside_servers(service).await?.publications().latest())
}

/// The same as one text, for hosts that fetch nothing.
pub async fn export(service: &Service) -> Result<String, PublishError> {
    press_beside_servers(service).await?.carried()
}

/// A server merges the journal into the store before it publishes. A command refuses to publish a store that lacks it.
async fn press_beside_servers(service: &Service) -> Result<Press, PublishError> {
    let found = standing(service).await.map_err(PublishError::Journal)?;
    if found.missing.is_some_and(|missing| !missing.refuses_nothing()) {
        return Err(PublishError::Restored);
    }
    Press::start(service, Metrics::new()).await
}

/// Publishes at every ring of the bell, and signs anew at every tick.
async fn run(mut press: Press, resign: Duration, mut report: Report, mut stop: watch::Receiver<bool>) {
    let publications = press.publications();
    let mut ticks = interval_at(Instant::now() + resign, resign);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut trouble = None;
    loop {
        let sign = tokio::select! {
            () = publications.rung() => press::Sign::IfNewer,
            _ = ticks.tick() => press::Sign::Always,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let published = tokio::select! {
            published = in_time(PATIENCE, press.publish(sign)) => published,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        if published.is_ok() {
            report.published(publications.latest().version);
        }
        publications.set_trouble(published.as_ref().err().map(PublishError::code));
        match published {
            Ok(()) if trouble.take().is_none() => {}
            Ok(()) => tracing::info!("publishing again"),
            Err(error) => {
                // The same trouble is told once, however long it lasts.
                if trouble.replace(error.code()) != Some(error.code()) {
                    let (code, cause) = (error.code(), error.cause());
                    tracing::error!(error.code = code, error.cause = cause, "nothing is published: {error}");
                }
                // A bell that keeps ringing over a broken store must not spin.
                sleep(RETRY).await;
                publications.ring();
            }
        }
    }
}

/// Tells the store what was published, so that commands beside the server know that somebody publishes from theirs.
struct Report {
    usage: Usage,
    clock: Clock,
    period: Duration,
    last: Option<(u64, Instant)>,
}

impl Report {
    fn new(service: &Service) -> Self {
        Self {
            usage: service.usage().clone(),
            clock: service.clock().clone(),
            period: service.config().publisher.lifetime.get() / 3,
            last: None,
        }
    }

    /// Each version at once, and the same one from time to time.
    fn published(&mut self, version: u64) {
        let due = |(last, at): (u64, Instant)| last != version || at.elapsed() >= self.period;
        if self.last.is_none_or(due) {
            self.usage.published(version, self.clock.now());
            self.last = Some((version, Instant::now()));
        }
    }
}

/// Rings the bell when anybody commits to the store; listens again when the listening breaks.
async fn ring(store: Store, publications: Publications, mut stop: watch::Receiver<bool>) {
    let listen = async {
        loop {
            match store.changes().await {
                Ok(mut changes) => {
                    // Whatever was committed before the listening began.
                    publications.ring();
                    while changes.next().await.is_ok() {
                        publications.ring();
                    }
                }
                Err(error) => {
                    tracing::error!(error.code = error.code(), "can't listen for changes; trying again")
                }
            }
            sleep(RETRY).await;
        }
    };
    tokio::select! {
        () = listen => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

const RETRY: Duration = Duration::from_millis(250);

/// What is loaded anew is hundreds of megabytes at the most.
const PATIENCE: Duration = Duration::from_secs(60);
