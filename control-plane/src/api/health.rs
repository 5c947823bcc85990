use axum::{
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};

use super::{Desk, problem::Problem};

/// The process lives.
pub(super) async fn lives() -> &'static str {
    "ok\n"
}

/// The store answers and takes changes, and the manifest is one that edges take for fresh.
pub(super) async fn ready(State(desk): State<Desk>) -> Result<String, Problem> {
    desk.service.ready().await?;
    desk.service.writable().await.map_err(|error| Problem::unavailable("store_unwritable", &error))?;
    if desk.service.now().millis() >= desk.latest().expires_at {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "manifest_stale",
            "the manifest is out of date",
        ));
    }
    // No reason to take requests elsewhere, and one to look.
    let note = desk.service.journal().trouble().map(|cause| format!("journal: {cause}\n"));
    Ok(note.unwrap_or_default() + "ready\n")
}

pub(super) async fn metrics(State(desk): State<Desk>) -> Result<impl IntoResponse, Problem> {
    let text = desk.metrics.text().map_err(|error| Problem::unavailable("metrics_unwritable", &error))?;
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}
