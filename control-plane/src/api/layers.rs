//! What every request goes through.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::timeout;

use super::{Desk, problem::Problem};
use crate::{
    random,
    telemetry::{Method, Route},
};

/// Request id, metrics, one log line.
pub(super) async fn observe(State(desk): State<Desk>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = request.headers().get(&REQUEST_ID).filter(|id| is_sane(id)).cloned().unwrap_or_else(new_id);
    let method = Method::from(request.method());
    let route = Route::of(request.extensions().get::<MatchedPath>());
    let mut response = next.run(request).await;
    let status = response.status();
    desk.metrics.request(method, &route, status);
    let seconds = began.elapsed().as_secs_f64();
    if route.name() != MANIFEST {
        desk.metrics.took(&route, seconds);
    }
    tracing::debug!(
        http.method = method.name(),
        http.route = route.name(),
        http.status = status.as_u16(),
        http.seconds = seconds,
        http.request_id = id.to_str().unwrap_or_default(),
        "answered"
    );
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// Waiting edges are not under it.
pub(super) async fn time_limit(State(desk): State<Desk>, request: Request, next: Next) -> Response {
    let limit = desk.service.config().server.request_timeout.get();
    timeout(limit, next.run(request)).await.unwrap_or_else(|_| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timed_out", "this took too long; try again")
            .with(header::RETRY_AFTER, "1")
            .into_response()
    })
}

fn is_sane(id: &HeaderValue) -> bool {
    (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

fn new_id() -> HeaderValue {
    HeaderValue::try_from(random::uuid()).unwrap_or(HeaderValue::from_static("none"))
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MANIFEST: &str = "/edge/v1/manifest";
