//! The server: operations, publisher and API put together, and taken apart again in order.

mod tasks;

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tasks::{TaskEnded, Tasks};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    api,
    config::Config,
    home::Home,
    jwks::{FetchError, Fetcher, PATIENCE},
    listener::{self, Limits},
    model::Actor,
    operations::{
        OpenError, Rebased, Refreshed, Service, StoreError, Wanted, adopt_issuers, collect,
        compact_journal_if_due, discard_key_files, expire_api_keys, forget_signing_keys, load,
        promote_signing_key, rebase_if_due, refresh_issuer,
    },
    publisher::{self, PublishError},
    seldom::Seldom,
    telemetry::Metrics,
};

/// Serves until `stop` is done. `bound` is told the address once requests are answered. A background task that ends or
/// panics ends the server with an error: without it, keys would not be replaced, nothing would expire or be published.
pub async fn serve(
    home: Home,
    config: Config,
    bound: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let stop_timeout = config.server.stop_timeout.get();
    let service = Arc::new(Service::open(home, config).await.map_err(ServeError::Open)?);
    let mut tasks = Tasks::default();
    let (stopping, stopped) = watch::channel(false);
    let mut outcome = run(&service, &mut tasks, stopped, bound, stop).await;
    match &outcome {
        Ok(()) => tracing::info!("stopping"),
        Err(ServeError::Store(error)) => {
            tracing::error!(error.code = error.code(), "stopping: {error}");
            service.abandon();
            return outcome;
        }
        Err(error) => tracing::error!("stopping: {error}"),
    }
    let _ = stopping.send(true);
    match timeout(stop_timeout, tasks.drain()).await {
        Ok(Ok(())) => {}
        Ok(Err(ended)) => {
            tracing::error!("while stopping: {ended}");
            outcome = outcome.and(Err(ServeError::Task(ended)));
        }
        Err(_) => tracing::warn!("some requests or background tasks were not finished in time"),
    }
    if timeout(stop_timeout, service.close()).await.is_err() {
        tracing::warn!("connections to the database are still in use");
    }
    tracing::info!("stopped");
    outcome
}

/// Starts the tasks, and returns when the server is to stop.
async fn run(
    service: &Arc<Service>,
    tasks: &mut Tasks,
    stopped: watch::Receiver<bool>,
    bound: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    // Before the first manifest: what ended while nobody served is refused from the start.
    expire_api_keys(service).await.map_err(|error| ServeError::Open(OpenError::Store(error)))?;
    adopt_issuers(service).await.map_err(|error| ServeError::Open(OpenError::Store(error)))?;
    let metrics = Metrics::new();
    let (publications, publishing) =
        publisher::start(service, metrics.clone(), stopped.clone()).await.map_err(ServeError::Publish)?;
    for task in publishing {
        tasks.adopt("publisher", task);
    }
    service.publish_through(publications.clone());
    tasks.spawn("collector", collect_for_ever(Arc::clone(service), metrics.clone(), stopped.clone()));
    tasks.spawn("expiry of API keys", expire_for_ever(Arc::clone(service), stopped.clone()));
    tasks.spawn("promotion of signing keys", promote_for_ever(Arc::clone(service), stopped.clone()));
    let fetcher = Fetcher::new(PATIENCE).map_err(ServeError::Fetcher)?;
    for issuer in &service.config().issuers {
        let (fetcher, issuer) = (fetcher.clone(), issuer.issuer.clone());
        tasks.spawn(
            "refresh of an issuer",
            refresh_for_ever(Arc::clone(service), fetcher, issuer, stopped.clone()),
        );
    }
    // These end with the service, so that nothing waits for their end.
    let mut workers = Tasks::default();
    for (name, worker) in service.workers() {
        workers.adopt(name, worker);
    }

    let listen = service.config().server.listen;
    let listener = listener::bind(listen).map_err(|source| ServeError::Bind { address: listen, source })?;
    let address = listener.local_addr().map_err(|source| ServeError::Bind { address: listen, source })?;
    let router = api::router(Arc::clone(service), publications, metrics.clone(), stopped.clone())
        .map_err(ServeError::Api)?;
    let limits = Limits::of_this_process(&service.config().server);
    tasks.spawn("listener", listener::serve(listener, router, limits, metrics, stopped));
    let replaced = service.replaced();
    tracing::info!(server.address = %address, "serving");
    bound(address);

    supervise(tasks, &mut workers, replaced, stop).await
}

/// Returns when `stop` is done, or when the server can't go on.
async fn supervise(
    tasks: &mut Tasks,
    workers: &mut Tasks,
    replaced: impl Future<Output = StoreError>,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    tokio::select! {
        () = stop => Ok(()),
        error = replaced => Err(ServeError::Store(error)),
        ended = tasks.ended() => Err(ServeError::Task(ended)),
        ended = workers.ended() => Err(ServeError::Task(ended)),
    }
}

/// Why the server did not start, or ended by itself.
#[derive(Debug)]
pub enum ServeError {
    Open(OpenError),
    /// Why it went no further.
    Store(StoreError),
    Publish(PublishError),
    Api(api::RouterError),
    Fetcher(FetchError),
    Task(TaskEnded),
    Bind {
        address: SocketAddr,
        source: io::Error,
    },
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Task(ended) => write!(f, "{ended}: that is a defect of Keystile; the log says more"),
            Self::Publish(error) => error.fmt(f),
            Self::Api(error) => error.fmt(f),
            Self::Fetcher(_) => f.write_str("no client for the keys of other issuers can be made"),
            Self::Bind { address, .. } => {
                write!(f, "can't listen on {address}; set server.listen to a free address (port 0 takes any)")
            }
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open(error) => error.source(),
            Self::Store(error) => error.source(),
            Self::Publish(error) => error.source(),
            Self::Api(error) => error.source(),
            Self::Fetcher(error) => Some(error),
            Self::Task(_) => None,
            Self::Bind { source, .. } => Some(source),
        }
    }
}

/// Waits for so long. Returns whether to go on: not when the server is to stop.
async fn pause(period: Duration, stop: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        () = sleep(period) => true,
        _ = stop.wait_for(|stop| *stop) => false,
    }
}

async fn collect_for_ever(service: Arc<Service>, metrics: Metrics, mut stop: watch::Receiver<bool>) {
    while pause(COLLECTION, &mut stop).await {
        match collect(&service).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(collected.rows = rows, "forgot what had expired"),
            Err(error) => {
                tracing::warn!(error.code = error.code(), "what had expired could not be collected")
            }
        }
        match compact_journal_if_due(&service).await {
            Ok(false) => {}
            Ok(true) => tracing::info!("compacted the journal"),
            Err(error) => {
                tracing::warn!(error.code = error.code(), "the journal could not be compacted: {error}")
            }
        }
        match forget_signing_keys(&service).await {
            Ok(0) => {}
            Ok(keys) => {
                tracing::info!(forgotten.signing_keys = keys, "forgot keys whose tokens have expired")
            }
            Err(error) => tracing::warn!("a key whose tokens have expired could not be forgotten: {error}"),
        }
        match discard_key_files(&service).await {
            Ok(0) => {}
            Ok(files) => tracing::info!(discarded.key_files = files, "deleted the files of retired keys"),
            Err(error) => tracing::warn!("files of retired keys could not be looked for: {error}"),
        }
        if let Ok(load) = load(&service).await {
            metrics.operator_revocations(load.largest.map_or(0, |(_, held)| held));
        }
        match rebase_if_due(&service).await {
            Ok(Some(Rebased { version: Some(version), blocks, bytes })) => tracing::info!(
                bundle.version = version,
                base.blocks = blocks.len(),
                base.bytes = bytes,
                "built the base anew"
            ),
            Ok(_) => {}
            Err(error) => tracing::error!(error.code = error.code(), "the base was not built: {error}"),
        }
    }
}

/// API keys of format 1 do not say themselves when they end, nor does any whose end was moved up.
async fn expire_for_ever(service: Arc<Service>, mut stop: watch::Receiver<bool>) {
    let failing = Seldom::default();
    while pause(EXPIRY, &mut stop).await {
        match expire_api_keys(&service).await {
            Ok(0) => {}
            Ok(keys) => tracing::info!(expired.api_keys = keys, "API keys came to their end"),
            Err(error) if failing.due(Instant::now()) => {
                tracing::error!(error.code = error.code(), "API keys that ended could not be refused")
            }
            Err(_) => {}
        }
    }
}

/// A new signing key begins to sign when the edges know it.
async fn promote_for_ever(service: Arc<Service>, mut stop: watch::Receiver<bool>) {
    let failing = Seldom::default();
    while pause(PROMOTION, &mut stop).await {
        match promote_signing_key(&service).await {
            Ok(None) => {}
            Ok(Some(kid)) => tracing::info!(key.id = kid, "signing with another key from now on"),
            Err(error) if failing.due(Instant::now()) => {
                tracing::error!("a new signing key can't be used: {error}")
            }
            Err(_) => {}
        }
    }
}

/// Keeps the keys of one issuer fresh; a slow one keeps nobody else waiting.
async fn refresh_for_ever(
    service: Arc<Service>,
    fetcher: Fetcher,
    issuer: String,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        match refresh_issuer(&service, &fetcher, &Actor::System, &issuer, Wanted::Due).await {
            Ok(Refreshed::NotDue | Refreshed::Same) => {}
            Ok(Refreshed::Changed(version)) => {
                tracing::info!(issuer.name = issuer, bundle.version = version, "an issuer has other keys")
            }
            // As often as there are attempts, and they space out.
            Err(error) => tracing::warn!(
                issuer.name = issuer,
                error.cause = error.to_string(),
                "the keys of an issuer could not be fetched; those that are known hold"
            ),
        }
        if !pause(DUE, &mut stop).await {
            return;
        }
    }
}

/// How late a fetch that is due may begin.
const DUE: Duration = Duration::from_secs(1);

/// How late a new signing key may begin.
const PROMOTION: Duration = Duration::from_secs(1);

/// How late an API key may end.
const EXPIRY: Duration = Duration::from_secs(1);

const COLLECTION: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    /// Without this the server would go on, and API keys would not expire any more.
    #[tokio::test]
    async fn a_background_task_that_ends_or_panics_stops_the_server_with_an_error() {
        let going_on = || {
            let mut tasks = Tasks::default();
            tasks.spawn("steady", pending());
            tasks
        };
        let broken = || {
            let mut tasks = going_on();
            tasks.spawn("expiry", async { assert_eq!(1, 2, "a defect") });
            tasks
        };
        let ended = || {
            let mut tasks = going_on();
            tasks.spawn("expiry", async {});
            tasks
        };
        for (mut tasks, mut workers, told) in [
            (broken(), going_on(), "`expiry` panicked"),
            (going_on(), broken(), "`expiry` panicked"),
            (ended(), going_on(), "`expiry` ended by itself"),
        ] {
            let error = supervise(&mut tasks, &mut workers, pending(), pending()).await.unwrap_err();
            assert!(error.to_string().contains(told), "{error}");
        }
        assert!(supervise(&mut going_on(), &mut Tasks::default(), pending(), ready(())).await.is_ok());
    }

    #[tokio::test]
    async fn a_pause_ends_with_the_server() {
        let (stopping, mut stop) = watch::channel(false);
        assert!(pause(Duration::ZERO, &mut stop).await);
        stopping.send_replace(true);
        assert!(!pause(Duration::from_secs(3600), &mut stop).await);
    }
}
