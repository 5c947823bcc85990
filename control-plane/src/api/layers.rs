//! What every request goes through.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::timeout;

use super::{Desk, admission::Admitted, problem::Problem};
use crate::{
    listener::{Connection, Peer},
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

/// Limits by address, which edges are exempt from.
pub(super) async fn limit(State(desk): State<Desk>, mut request: Request, next: Next) -> Response {
    let extensions = request.extensions();
    // Absent only where there is no network, as in tests of the router.
    let (Some(Peer(client)), Some(connection)) =
        (extensions.get::<Peer>().copied(), extensions.get::<Connection>().cloned())
    else {
        return next.run(request).await;
    };
    match desk.admission.admit(&desk, &connection, client.into(), request.uri(), request.headers()).await {
        Ok(Admitted::Edge(edge)) => {
            request.extensions_mut().insert(edge);
            next.run(request).await
        }
        Ok(Admitted::Anonymous(_working)) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn is_sane(id: &HeaderValue) -> bool {
    (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

fn new_id() -> HeaderValue {
    HeaderValue::try_from(random::uuid()).unwrap_or(HeaderValue::from_static("none"))
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MANIFEST: &str = "/edge/v1/manifest";
