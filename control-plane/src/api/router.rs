//! The routes, and the policy that protects them.

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware::from_fn_with_state,
    routing::{delete, get, post},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use verdict::{Gate, Policy, PolicyError};

use super::{
    admin, edge, health,
    middleware::{self, admission::RequestAdmission},
    openapi, problem, soracom,
    state::AppState,
};
use crate::{platform::telemetry::Metrics, publishing::Publications, service::Service};

/// The maximum size of a request body. The largest valid value in one is a token of 8 KiB.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// Builds the router of the HTTP API.
///
/// # Errors
///
/// If the settings do not yield a valid policy for the API itself.
pub fn router(
    service: Arc<Service>,
    publications: Publications,
    metrics: Metrics,
    stop: CancellationToken,
) -> Result<Router, RouterError> {
    let gate = Arc::new(Gate::new(own_api_policy(&service).map_err(RouterError)?));
    let admission = Arc::new(RequestAdmission::new(&service.config().server));
    let state = AppState {
        service,
        publications,
        gate,
        metrics,
        edge_ahead_log: Arc::default(),
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
        .route("/revocations", post(admin::revocations::create_revocation))
        .route("/edge/v1/objects/{sha256}", get(edge::object))
        .route("/edge/v1/keys", get(edge::secret_keys))
        .route("/healthz", get(health::liveness))
        .route("/readyz", get(health::readiness))
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(openapi::serve_openapi))
        .layer(from_fn_with_state(state.clone(), middleware::layers::enforce_timeout));
    Ok(timed
        .route("/edge/v1/manifest", get(edge::manifest))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(state.clone(), middleware::layers::check_admission))
        .layer(from_fn_with_state(state.clone(), middleware::layers::observe_request))
        .with_state(state))
}

/// Builds the policy of the control plane's own API, which the same gate evaluates as at an edge.
fn own_api_policy(service: &Service) -> Result<Policy, PolicyError> {
    let config = service.config();
    let policy = json!({
        "audience": config.publisher.audience,
        "root_keys": [service.root_key()],
        "control_plane": { "cluster": "none" },
        "tokens": { "issuer": config.tokens.issuer, "audiences": [config.tokens.audience] },
        "credentials": [{ "header": "authorization", "scheme": "Bearer" }, { "header": "x-soracom-token" }],
        "rules": [{ "operations": { "table": openapi::operations_table() } }],
        // The router and the user names in paths are case-sensitive.
        "path_case": "exact",
    });
    Policy::from_json(policy.to_string().as_bytes())
}

/// The API's own policy cannot be built from the settings.
#[derive(Debug, thiserror::Error)]
#[error("cannot build the API's own policy from `tokens` and `publisher`")]
pub struct RouterError(#[source] PolicyError);
