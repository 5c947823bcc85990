//! The server: starts operations, publisher and API, and shuts them down in order.

pub mod listener;
mod tasks;

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use listener::Limits;
use tasks::{BackgroundTasks, TaskEnded};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    api,
    config::{Config, Issuer},
    credentials::api_keys::expire_api_keys,
    db::StoreError,
    domain::Actor,
    issuers::IssuerRecord,
    issuers::{
        RefreshError, RefreshMode, RefreshOutcome,
        jwks::{FETCH_TIMEOUT, FetchError, Fetcher, read_key_file},
        list_issuers, refresh_issuer, sync_issuers,
    },
    keys::{activate_pending_signing_key, discard_key_files, prune_signing_keys},
    limits::count_installation,
    maintenance::purge_expired,
    platform::{data_dir::DataDir, log_throttle::LogThrottle, telemetry::Metrics},
    publishing::{self, Compaction, PublishError, compact_base_if_due},
    restore::compact_journal_if_due,
    service::{OpenError, Service},
};

/// How often to check whether an issuer refresh is due.
const ISSUER_REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// How often to check whether a new signing key can be activated.
const KEY_PROMOTION_INTERVAL: Duration = Duration::from_secs(1);

/// How often to check for expired API keys.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// How often to purge expired rows and compact the journal and the base.
const PURGE_INTERVAL: Duration = Duration::from_secs(60);

/// Serves until `stop` completes. Calls `on_listening` with the address once requests are accepted.
///
/// # Errors
///
/// If the server cannot start, if the SQLite file is replaced under it, or if a background task ends or panics: without
/// that task, keys would not be replaced and nothing would expire or be published.
pub async fn serve(
    data_dir: DataDir,
    config: Config,
    on_listening: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let stop_timeout = config.server.stop_timeout.get();
    let service = Arc::new(Service::open(data_dir, config).await.map_err(ServeError::Open)?);
    let mut tasks = BackgroundTasks::default();
    let stopping = CancellationToken::new();
    let mut outcome = run(&service, &mut tasks, stopping.clone(), on_listening, stop).await;
    match &outcome {
        Ok(()) => tracing::info!("stopping"),
        Err(ServeError::Store(error)) => {
            tracing::error!(error.code = error.code(), "stopping: {error}");
            service.close_without_writing();
            return outcome;
        }
        Err(error) => tracing::error!("stopping: {error}"),
    }
    stopping.cancel();
    match timeout(stop_timeout, tasks.wait_all()).await {
        Ok(Ok(())) => {}
        Ok(Err(ended)) => {
            tracing::error!("while stopping: {ended}");
            outcome = outcome.and(Err(ServeError::Task(ended)));
        }
        Err(_) => {
            tracing::warn!("some requests or background tasks did not finish within server.stop_timeout")
        }
    }
    if timeout(stop_timeout, service.close()).await.is_err() {
        tracing::warn!("connections to the database are still in use");
    }
    tracing::info!("stopped");
    outcome
}

/// Starts the tasks, and returns when the server must stop.
async fn run(
    service: &Arc<Service>,
    tasks: &mut BackgroundTasks,
    stopped: CancellationToken,
    on_listening: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    // Before the first manifest, so that API keys that expired while no server ran are refused from the start.
    expire_api_keys(service).await.map_err(|error| ServeError::Open(OpenError::Store(error)))?;
    sync_issuers(service).await.map_err(|error| ServeError::Open(OpenError::Store(error)))?;
    let metrics = service.metrics().clone();
    let (publications, publishing) =
        publishing::start(service, metrics.clone(), stopped.clone()).await.map_err(ServeError::Publish)?;
    for task in publishing {
        tasks.adopt("publisher", task);
    }
    service.set_publications(publications.clone());
    tasks.spawn("collector", purge_loop(Arc::clone(service), metrics.clone(), stopped.clone()));
    tasks.spawn("expiry of API keys", expiry_loop(Arc::clone(service), stopped.clone()));
    tasks.spawn("promotion of signing keys", key_promotion_loop(Arc::clone(service), stopped.clone()));
    let fetcher = Fetcher::new(FETCH_TIMEOUT).map_err(ServeError::Fetcher)?;
    for issuer in &service.config().issuers {
        let (fetcher, issuer) = (fetcher.clone(), issuer.clone());
        tasks.spawn(
            "refresh of an issuer",
            issuer_refresh_loop(Arc::clone(service), fetcher, issuer, stopped.clone()),
        );
    }
    // These end with the service, so shutdown does not wait for them.
    let mut workers = BackgroundTasks::default();
    for (name, worker) in service.workers() {
        workers.adopt(name, worker);
    }

    let listen = service.config().server.listen;
    let listener = listener::bind(listen).map_err(|source| ServeError::Bind { address: listen, source })?;
    let address = listener.local_addr().map_err(|source| ServeError::Bind { address: listen, source })?;
    let router = api::router(Arc::clone(service), publications, metrics.clone(), stopped.clone())
        .map_err(ServeError::Api)?;
    let limits = Limits::from_rlimit(&service.config().server);
    tasks.spawn("listener", listener::serve(listener, router, limits, metrics, stopped));
    let replaced = service.wait_replaced();
    tracing::info!(server.address = %address, "serving");
    on_listening(address);

    supervise(tasks, &mut workers, replaced, stop).await
}

/// Returns when `stop` completes, or with an error if the server cannot continue.
async fn supervise(
    tasks: &mut BackgroundTasks,
    workers: &mut BackgroundTasks,
    replaced: impl Future<Output = StoreError>,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    tokio::select! {
        () = stop => Ok(()),
        error = replaced => Err(ServeError::Store(error)),
        ended = tasks.wait_first_ended() => Err(ServeError::Task(ended)),
        ended = workers.wait_first_ended() => Err(ServeError::Task(ended)),
    }
}

/// The reason why the server did not start or ended unexpectedly.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Open(OpenError),
    /// The database became unusable while the server ran.
    #[error(transparent)]
    Store(StoreError),
    #[error(transparent)]
    Publish(PublishError),
    #[error(transparent)]
    Api(api::RouterError),
    #[error("cannot create the HTTP client for issuer keys")]
    Fetcher(#[source] FetchError),
    #[error("{0}; this is a bug in Keystile, see the log for details")]
    Task(TaskEnded),
    #[error("cannot listen on {address}; set `server.listen` to a free address (port 0 selects a free port)")]
    Bind { address: SocketAddr, source: io::Error },
}

/// Waits for `period`. Returns false if the server must stop.
async fn sleep_unless_stopped(period: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = sleep(period) => true,
        () = stop.cancelled() => false,
    }
}

async fn purge_loop(service: Arc<Service>, metrics: Metrics, stop: CancellationToken) {
    while sleep_unless_stopped(PURGE_INTERVAL, &stop).await {
        match purge_expired(&service).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(collected.rows = rows, "purged expired rows"),
            Err(error) => {
                tracing::warn!(error.code = error.code(), "cannot purge expired rows")
            }
        }
        match compact_journal_if_due(&service).await {
            Ok(false) => {}
            Ok(true) => tracing::info!("compacted the journal"),
            Err(error) => {
                tracing::warn!(error.code = error.code(), "cannot compact the journal: {error}")
            }
        }
        match prune_signing_keys(&service).await {
            Ok(0) => {}
            Ok(keys) => {
                tracing::info!(
                    forgotten.signing_keys = keys,
                    "removed signing keys whose tokens have expired"
                )
            }
            Err(error) => tracing::warn!("cannot remove signing keys whose tokens have expired: {error}"),
        }
        match discard_key_files(&service).await {
            Ok(0) => {}
            Ok(files) => tracing::info!(discarded.key_files = files, "deleted the files of retired keys"),
            Err(error) => tracing::warn!("cannot look for the files of retired keys: {error}"),
        }
        if let Ok(load) = count_installation(&service).await {
            metrics.set_operator_revocations(load.largest.map_or(0, |(_, held)| held));
        }
        match compact_base_if_due(&service).await {
            Ok(Some(Compaction { version: Some(version), blocks, bytes })) => tracing::info!(
                bundle.version = version.get(),
                base.blocks = blocks.len(),
                base.bytes = bytes,
                "compacted the base"
            ),
            Ok(_) => {}
            Err(error) => tracing::error!(error.code = error.code(), "cannot compact the base: {error}"),
        }
    }
}

/// Publishes the expiry of API keys that do not contain it: keys of format 1 and keys whose expiry was moved forward.
async fn expiry_loop(service: Arc<Service>, stop: CancellationToken) {
    let failing = LogThrottle::default();
    while sleep_unless_stopped(EXPIRY_INTERVAL, &stop).await {
        match expire_api_keys(&service).await {
            Ok(0) => {}
            Ok(keys) => tracing::info!(expired.api_keys = keys, "API keys expired"),
            Err(error) if failing.allow(Instant::now()) => {
                tracing::error!(error.code = error.code(), "cannot revoke expired API keys")
            }
            Err(_) => {}
        }
    }
}

/// Activates a new signing key once all live edges have it.
async fn key_promotion_loop(service: Arc<Service>, stop: CancellationToken) {
    let failing = LogThrottle::default();
    while sleep_unless_stopped(KEY_PROMOTION_INTERVAL, &stop).await {
        match activate_pending_signing_key(&service).await {
            Ok(None) => {}
            Ok(Some(kid)) => tracing::info!(key.id = kid, "activated the new signing key"),
            Err(error) if failing.allow(Instant::now()) => {
                tracing::error!("cannot activate the new signing key: {error}")
            }
            Err(_) => {}
        }
    }
}

/// Refreshes the keys of one issuer: when they are due, when the file with them changes, and when edges lack one. Each
/// issuer has a task of its own, so a slow one delays no other.
async fn issuer_refresh_loop(
    service: Arc<Service>,
    fetcher: Fetcher,
    issuer: Issuer,
    stop: CancellationToken,
) {
    let name = issuer.issuer.as_str();
    if issuer.allow_http {
        tracing::warn!(
            issuer.name = name,
            "`allow_http` is set: an attacker on the network between this server and the issuer can have any token \
             of the issuer accepted"
        );
    }
    let failing = LogThrottle::default();
    let mut file = read_key_file(&issuer, service.data_dir().path());
    let (mut is_key_missing, mut has_file_changed) = (false, false);
    loop {
        let mode = match (has_file_changed, is_key_missing) {
            (true, _) => RefreshMode::FileChanged,
            (false, true) => RefreshMode::MissingKey,
            (false, false) => RefreshMode::IfDue,
        };
        let refreshed = refresh_issuer(&service, &fetcher, &Actor::System, name, mode).await;
        // A key that is missing too soon after an attempt is fetched later.
        is_key_missing &= matches!(refreshed, Err(RefreshError::TooSoon { .. }));
        match refreshed {
            Ok(RefreshOutcome::NotDue | RefreshOutcome::Same) | Err(RefreshError::TooSoon { .. }) => {}
            Ok(RefreshOutcome::Changed(version)) => {
                tracing::info!(issuer.name = name, bundle.version = version.get(), "issuer keys changed")
            }
            // Of these the retry delay grows with each failure. Others can be caused by clients.
            Err(error) if mode != RefreshMode::MissingKey || failing.allow(Instant::now()) => {
                log_refresh_failure(&service, name, &error).await;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = sleep(ISSUER_REFRESH_INTERVAL) => {}
            () = service.wait_missing_key(name), if !is_key_missing => is_key_missing = true,
            () = stop.cancelled() => return,
        }
        let read = read_key_file(&issuer, service.data_dir().path());
        has_file_changed = read != file;
        file = read;
    }
}

async fn log_refresh_failure(service: &Service, issuer: &str, error: &RefreshError) {
    let cause = error.to_string();
    let issuers = list_issuers(service).await.unwrap_or_default();
    let has_keys = |record: Option<IssuerRecord>| record.is_some_and(|record| !record.keys.is_empty());
    let has_keys = issuers.into_iter().any(|(known, record)| known.issuer == issuer && has_keys(record));
    match has_keys {
        true => tracing::warn!(
            issuer.name = issuer,
            error.cause = cause,
            "issuer key refresh failed, keeping cached keys"
        ),
        false => tracing::error!(
            issuer.name = issuer,
            error.cause = cause,
            "issuer key refresh failed, and there are no cached keys: all tokens of the issuer are refused"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    /// Otherwise the server would continue without expiring API keys.
    #[tokio::test]
    async fn a_background_task_that_ends_or_panics_stops_the_server_with_an_error() {
        let going_on = || {
            let mut tasks = BackgroundTasks::default();
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
        for (mut tasks, mut workers, expected) in [
            (broken(), going_on(), "`expiry` panicked"),
            (going_on(), broken(), "`expiry` panicked"),
            (ended(), going_on(), "`expiry` ended by itself"),
        ] {
            let error = supervise(&mut tasks, &mut workers, pending(), pending()).await.unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        assert!(
            supervise(&mut going_on(), &mut BackgroundTasks::default(), pending(), ready(())).await.is_ok()
        );
    }

    #[tokio::test]
    async fn sleep_ends_when_the_server_stops() {
        let stop = CancellationToken::new();
        assert!(sleep_unless_stopped(Duration::ZERO, &stop).await);
        stop.cancel();
        assert!(!sleep_unless_stopped(Duration::from_secs(3600), &stop).await);
    }
}
