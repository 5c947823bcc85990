//! The HTTP surface. Each module is one group of paths; all go through [`operations`](crate::operations).

mod admission;
mod body;
mod caller;
mod edge;
mod health;
mod layers;
mod openapi;
mod problem;
mod revocations;
mod soracom;

use std::{fmt, sync::Arc};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{delete, get, post},
};
use serde_json::json;
use tokio::sync::watch;
use verdict::{Gate, Policy, PolicyError};

use crate::{
    model::EdgeId,
    operations::Service,
    publisher::{Publication, Publications},
    seldom::SeldomEach,
    telemetry::Metrics,
};

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Desk {
    service: Arc<Service>,
    publications: Publications,
    gate: Arc<Gate>,
    metrics: Metrics,
    /// Edges that hold more than there is.
    ahead: Arc<SeldomEach<EdgeId>>,
    admission: Arc<admission::Admission>,
    clock_check: Arc<health::ClockCheck>,
    stop: watch::Receiver<bool>,
}

impl Desk {
    fn latest(&self) -> Arc<Publication> {
        self.publications.latest()
    }
}

pub fn router(
    service: Arc<Service>,
    publications: Publications,
    metrics: Metrics,
    stop: watch::Receiver<bool>,
) -> Result<Router, RouterError> {
    let gate = Arc::new(Gate::new(policy(&service).map_err(RouterError)?));
    let admission = Arc::new(admission::Admission::new(&service.config().server));
    let desk = Desk {
        service,
        publications,
        gate,
        metrics,
        ahead: Arc::default(),
        admission,
        clock_check: Arc::default(),
        stop,
    };
    let timed = Router::new()
        .route("/v1/auth", post(soracom::auth::exchange))
        .route("/v1/auth/logout", post(soracom::auth::log_out))
        .route(
            "/v1/operators/{operator_id}/auth_keys",
            get(soracom::auth_keys::list).post(soracom::auth_keys::create),
        )
        .route("/v1/operators/{operator_id}/auth_keys/{auth_key_id}", delete(soracom::auth_keys::remove))
        .route("/revocations", post(revocations::create))
        .route("/edge/v1/objects/{sha256}", get(edge::object))
        .route("/edge/v1/keys", get(edge::secret_keys))
        .route("/healthz", get(health::lives))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(openapi::show))
        .layer(middleware::from_fn_with_state(desk.clone(), layers::time_limit));
    Ok(timed
        .route("/edge/v1/manifest", get(edge::manifest))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn_with_state(desk.clone(), layers::limit))
        .layer(middleware::from_fn_with_state(desk.clone(), layers::observe))
        .with_state(desk))
}

/// The own API asks the same gate as an edge.
fn policy(service: &Service) -> Result<Policy, PolicyError> {
    let config = service.config();
    let policy = json!({
        "audience": config.publisher.audience,
        "root_keys": [service.root_key()],
        "control_plane": { "cluster": "none" },
        "tokens": { "issuer": config.tokens.issuer, "audiences": [config.tokens.audience] },
        "credentials": [{ "header": "authorization", "scheme": "Bearer" }, { "header": "x-soracom-token" }],
        "rules": [{ "operations": { "table": openapi::operations() } }],
        // The router behind it tells capitals apart, and so do names of users in paths.
        "path_case": "exact",
    });
    Policy::from_json(policy.to_string().as_bytes())
}

/// The settings make no policy.
#[derive(Debug)]
pub struct RouterError(PolicyError);

impl fmt::Display for RouterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the settings of tokens and publisher make no policy")
    }
}

impl std::error::Error for RouterError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// The longest thing anybody has to send is a token of 8 KiB.
const LARGEST_BODY: usize = 16 * 1024;
