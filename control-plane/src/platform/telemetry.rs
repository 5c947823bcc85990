//! Logging and metrics.

use std::{fmt, sync::Arc};

use axum::{extract::MatchedPath, http};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelSetEncoder, LabelValueEncoder, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use tracing_subscriber::{EnvFilter, fmt as format};

use crate::config::{Format, Level, Log};

/// The histogram buckets of request durations, in seconds.
const DURATION_BUCKETS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];

/// Starts logging to stderr. Stdout is for data.
pub fn start_logging(log: &Log) {
    let level = match log.level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
    };
    // At `debug` the database driver would log statements with their arguments.
    let filter = EnvFilter::new(format!("{level},sqlx=warn,hyper=warn"));
    let logs = format().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second start in one process, as in tests, keeps the first logger.
    let _ = match log.format {
        Format::Text => logs.try_init(),
        Format::Json => logs.json().flatten_event(true).try_init(),
    };
}

/// The metrics of the server.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram>,
    waiting_edges: Gauge,
    connections: Family<ConnectionLabels, Gauge>,
    connections_closed: Family<CloseReason, Counter>,
    limited: Family<LimitLabel, Counter>,
    sign_ins_refused: Counter,
    operator_revocations: Gauge,
    tokens_issued: Counter,
    revocations: Counter,
    bundle_version: Gauge,
    bundle_issued: Gauge,
    bundle_revocations: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: Method,
    route: Route,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: Route,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectionLabels {
    of: &'static str,
}

/// The reason why the server closed a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum CloseReason {
    /// The client did not read its responses.
    Stalled,
    /// Another connection needed the slot.
    Evicted,
}

impl EncodeLabelSet for CloseReason {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        let reason = match self {
            Self::Stalled => "stalled",
            Self::Evicted => "crowded_out",
        };
        [("reason", reason)].encode(encoder)
    }
}

/// The error code of the limit that refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct LimitLabel(&'static str);

impl EncodeLabelSet for LimitLabel {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        [("code", self.0)].encode(encoder)
    }
}

/// The method as a metric label. Unknown methods share one label, because a client may send any word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    Other,
}

impl Method {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Other => "other",
        }
    }
}

impl From<&http::Method> for Method {
    fn from(method: &http::Method) -> Self {
        match *method {
            http::Method::GET => Self::Get,
            http::Method::HEAD => Self::Head,
            http::Method::POST => Self::Post,
            http::Method::PUT => Self::Put,
            http::Method::PATCH => Self::Patch,
            http::Method::DELETE => Self::Delete,
            http::Method::OPTIONS => Self::Options,
            _ => Self::Other,
        }
    }
}

impl EncodeLabelValue for Method {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        self.name().encode(encoder)
    }
}

/// The pattern of the matched route, not the path: the number of paths is unbounded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Route(Option<Arc<str>>);

impl Route {
    pub(crate) fn from_match(matched: Option<&MatchedPath>) -> Self {
        Self(matched.map(|path| Arc::from(path.as_str())))
    }

    pub(crate) fn name(&self) -> &str {
        self.0.as_deref().unwrap_or("none")
    }
}

impl EncodeLabelValue for Route {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        self.name().encode(encoder)
    }
}

impl Metrics {
    pub fn new() -> Self {
        let metrics = Self {
            registry: Arc::default(),
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            waiting_edges: Gauge::default(),
            connections: Family::default(),
            connections_closed: Family::default(),
            limited: Family::default(),
            sign_ins_refused: Counter::default(),
            operator_revocations: Gauge::default(),
            tokens_issued: Counter::default(),
            revocations: Counter::default(),
            bundle_version: Gauge::default(),
            bundle_issued: Gauge::default(),
            bundle_revocations: Gauge::default(),
        };
        let mut registry = Registry::with_prefix("keystile");
        registry.register(
            "http_requests",
            "HTTP requests by method, route and status",
            metrics.requests.clone(),
        );
        registry.register_with_unit(
            "http_request_duration",
            "Time to the response, except for manifest requests, in which edges wait",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register(
            "waiting_edges",
            "Edges that wait for a newer manifest",
            metrics.waiting_edges.clone(),
        );
        registry.register(
            "connections",
            "Open connections of edges and trusted proxies, and of all other clients",
            metrics.connections.clone(),
        );
        registry.register(
            "connections_closed",
            "Connections closed by the server, by reason",
            metrics.connections_closed.clone(),
        );
        registry.register(
            "requests_limited",
            "Requests refused by a limit, by error code",
            metrics.limited.clone(),
        );
        registry.register(
            "sign_ins_refused",
            "Exchanges with a wrong AuthKey",
            metrics.sign_ins_refused.clone(),
        );
        registry.register(
            "operator_revocations_max",
            "Largest number of revocations of one operator, as counted by limits.revocations",
            metrics.operator_revocations.clone(),
        );
        registry.register("tokens_issued", "AuthKeys exchanged for tokens", metrics.tokens_issued.clone());
        registry.register("revocations", "Revocations acknowledged", metrics.revocations.clone());
        registry.register("bundle_version", "Version of the latest bundle", metrics.bundle_version.clone());
        registry.register(
            "bundle_revocations",
            "Fingerprints in the latest bundle",
            metrics.bundle_revocations.clone(),
        );
        registry.register_with_unit(
            "bundle_issued",
            "Unix time at which the latest manifest was signed",
            Unit::Seconds,
            metrics.bundle_issued.clone(),
        );
        Self { registry: Arc::new(registry), ..metrics }
    }

    /// Returns the metrics in the OpenMetrics text format.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    pub(crate) fn count_request(&self, method: Method, route: &Route, status: http::StatusCode) {
        let labels = RequestLabels { method, route: route.clone(), status: status.as_u16() };
        self.requests.get_or_create(&labels).inc();
    }

    pub(crate) fn observe_duration(&self, route: &Route, seconds: f64) {
        self.durations.get_or_create(&RouteLabels { route: route.clone() }).observe(seconds);
    }

    pub(crate) fn set_connections(&self, anonymous: usize, edges: usize) {
        for (of, number) in [("anonymous", anonymous), ("edges", edges)] {
            self.connections
                .get_or_create(&ConnectionLabels { of })
                .set(i64::try_from(number).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn count_closed_connection(&self, why: CloseReason) {
        self.connections_closed.get_or_create(&why).inc();
    }

    /// Counts a request that a limit refused. `code` must be one of a bounded set.
    pub(crate) fn count_limited(&self, code: &'static str) {
        self.limited.get_or_create(&LimitLabel(code)).inc();
    }

    pub(crate) fn count_refused_sign_in(&self) {
        self.sign_ins_refused.inc();
    }

    pub(crate) fn set_operator_revocations(&self, most: u64) {
        self.operator_revocations.set(i64::try_from(most).unwrap_or(i64::MAX));
    }

    pub(crate) fn count_issued_token(&self) {
        self.tokens_issued.inc();
    }

    pub(crate) fn count_revocation(&self) {
        self.revocations.inc();
    }

    /// Counts an edge as waiting until the guard is dropped.
    pub(crate) fn track_waiting_edge(&self) -> WaitingEdgeGuard {
        self.waiting_edges.inc();
        WaitingEdgeGuard(self.waiting_edges.clone())
    }

    /// Records a publication. `issued_at` is in milliseconds since the Unix epoch.
    pub(crate) fn set_published(&self, version: u64, issued_at: u64, revocations: usize) {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.bundle_version.set(signed(version));
        self.bundle_issued.set(signed(issued_at / 1000));
        self.bundle_revocations.set(i64::try_from(revocations).unwrap_or(i64::MAX));
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

#[derive(Debug)]
pub(crate) struct WaitingEdgeGuard(Gauge);

impl Drop for WaitingEdgeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
