//! Middleware for every request.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::timeout;

use super::admission::AdmittedClient;
use crate::{
    api::{AppState, problem::Problem},
    platform::{
        random,
        telemetry::{Method, Route},
    },
    server::listener::{Connection, PeerAddr},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MANIFEST: &str = "/edge/v1/manifest";

/// Adds the request id, records metrics and writes one debug log line.
pub(in crate::api) async fn observe_request(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let id = request
        .headers()
        .get(&REQUEST_ID)
        .filter(|id| is_valid_request_id(id))
        .cloned()
        .unwrap_or_else(new_request_id);
    let method = Method::from(request.method());
    let route = Route::from_match(request.extensions().get::<MatchedPath>());
    let mut response = next.run(request).await;
    let status = response.status();
    state.metrics.count_request(method, &route, status);
    let seconds = began.elapsed().as_secs_f64();
    if route.name() != MANIFEST {
        state.metrics.observe_duration(&route, seconds);
    }
    tracing::debug!(
        http.method = method.name(),
        http.route = route.name(),
        http.status = status.as_u16(),
        http.seconds = seconds,
        http.request_id = id.to_str().unwrap_or_default(),
        "request completed"
    );
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// Limits the time of a request. Manifest requests are exempt: edges wait in them.
pub(in crate::api) async fn enforce_timeout(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let limit = state.service.config().server.request_timeout.get();
    timeout(limit, next.run(request)).await.unwrap_or_else(|_| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timed_out", "the request timed out; try again")
            .with_static_header(header::RETRY_AFTER, "1")
            .into_response()
    })
}

/// Applies the limits per client address, from which edges are exempt.
pub(in crate::api) async fn check_admission(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let extensions = request.extensions();
    // Absent only without a network, as in router tests.
    let (Some(PeerAddr(client)), Some(connection)) =
        (extensions.get::<PeerAddr>().copied(), extensions.get::<Connection>().cloned())
    else {
        return next.run(request).await;
    };
    match state
        .admission
        .admit(&state.service, &connection, client.into(), request.uri(), request.headers())
        .await
    {
        Ok(AdmittedClient::Edge(edge)) => {
            request.extensions_mut().insert(edge);
            next.run(request).await
        }
        Ok(AdmittedClient::Anonymous(_guard)) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn is_valid_request_id(id: &HeaderValue) -> bool {
    (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

fn new_request_id() -> HeaderValue {
    HeaderValue::try_from(random::uuid()).unwrap_or(HeaderValue::from_static("none"))
}
