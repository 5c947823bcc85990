//! The server: operations, publisher and API put together, and taken apart again in order.

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    task::JoinHandle,
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
        compact_journal_if_due, expire_api_keys, forget_signing_keys, load, promote_signing_key,
        rebase_if_due, refresh_issuer,
    },
    publisher::{self, PublishError},
    seldom::Seldom,
    telemetry::Metrics,
};

/// Serves until `stop` is done. `bound` is told the address once requests are answered.
pub async fn serve(
    home: Home,
    config: Config,
    bound: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let listen = config.server.listen;
    let stop_timeout = config.server.stop_timeout.get();
    let service = Arc::new(Service::open(home, config).await.map_err(ServeError::Open)?);
    // Before the first manifest: what ended while nobody served is refused from the start.
    expire_api_keys(&service).await.map_err(|error| ServeError::Open(OpenError::Store(error)))?;
    adopt_issuers(&service).await.map_err(|error| ServeError::Open(OpenError::Store(error)))?;
    let metrics = Metrics::new();
    let (stopping, stopped) = watch::channel(false);
    let (publications, tasks) =
        publisher::start(&service, metrics.clone(), stopped.clone()).await.map_err(ServeError::Publish)?;
    service.publish_through(publications.clone());
    let collector = tokio::spawn(collect_for_ever(Arc::clone(&service), metrics.clone()));
    let expiry = tokio::spawn(expire_for_ever(Arc::clone(&service)));
    let promotion = tokio::spawn(promote_for_ever(Arc::clone(&service)));
    let fetcher = Fetcher::new(PATIENCE).map_err(ServeError::Fetcher)?;
    let refreshing: Vec<_> = service.config().issuers.iter().map(|issuer| issuer.issuer.clone()).collect();
    let refreshing = refreshing
        .into_iter()
        .map(|issuer| tokio::spawn(refresh_for_ever(Arc::clone(&service), fetcher.clone(), issuer)));
    let refreshing: Vec<_> = refreshing.collect();

    let listener = listener::bind(listen).map_err(|source| ServeError::Bind { address: listen, source })?;
    let address = listener.local_addr().map_err(|source| ServeError::Bind { address: listen, source })?;
    let router = api::router(Arc::clone(&service), publications, metrics.clone(), stopped.clone())
        .map_err(ServeError::Api)?;
    let limits = Limits::of_this_process(&service.config().server);
    let serving = tokio::spawn(listener::serve(listener, router, limits, metrics, stopped));
    let replaced = service.replaced();
    tracing::info!(server.address = %address, "serving");
    bound(address);

    tokio::select! {
        () = stop => {}
        error = replaced => {
            tracing::error!(error.code = error.code(), "stopping: {error}");
            service.abandon();
            return Err(ServeError::Store(error));
        }
    }
    tracing::info!("stopping");
    let _ = stopping.send(true);
    if timeout(stop_timeout, serving).await.is_err() {
        tracing::warn!("some requests were not finished in time");
    }
    collector.abort();
    expiry.abort();
    promotion.abort();
    refreshing.iter().for_each(JoinHandle::abort);
    for task in tasks {
        let _ = task.await;
    }
    service.close().await;
    tracing::info!("stopped");
    Ok(())
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
            Self::Bind { source, .. } => Some(source),
        }
    }
}

async fn collect_for_ever(service: Arc<Service>, metrics: Metrics) {
    loop {
        sleep(COLLECTION).await;
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
async fn expire_for_ever(service: Arc<Service>) {
    let failing = Seldom::default();
    loop {
        sleep(EXPIRY).await;
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
async fn promote_for_ever(service: Arc<Service>) {
    let failing = Seldom::default();
    loop {
        sleep(PROMOTION).await;
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
async fn refresh_for_ever(service: Arc<Service>, fetcher: Fetcher, issuer: String) {
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
        sleep(DUE).await;
    }
}

/// How late a fetch that is due may begin.
const DUE: Duration = Duration::from_secs(1);

/// How late a new signing key may begin.
const PROMOTION: Duration = Duration::from_secs(1);

/// How late an API key may end.
const EXPIRY: Duration = Duration::from_secs(1);

const COLLECTION: Duration = Duration::from_secs(60);
