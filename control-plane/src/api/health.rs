use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::Serialize;

use super::{AppState, problem::Problem};
use crate::{
    domain::{Epoch, Version},
    service::ReloadKeysError,
};

/// The body of `/healthz` and `/readyz`. Commands compare it with their own database.
#[derive(Serialize)]
pub(super) struct Health {
    status: &'static str,
    installation: Option<String>,
    /// The latest bundle version that this server has published.
    version: Version,
    epoch: Epoch,
    /// A problem that needs attention but does not make the server unready.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl Health {
    fn new(state: &AppState, status: &'static str) -> Json<Self> {
        let latest = state.latest();
        let installation = state.service.installation().map(str::to_owned);
        let note = state.service.journal().last_error().map(|cause| format!("journal: {cause}"));
        Json(Self { status, installation, version: latest.version, epoch: latest.epoch, note })
    }
}

/// Answers 200 while the process runs.
pub(super) async fn liveness(State(state): State<AppState>) -> Json<Health> {
    Health::new(&state, "ok")
}

/// Answers 200 if the store accepts writes, the clock agrees with the database server's, the latest changes are
/// published, and tokens can be issued.
pub(super) async fn readiness(State(state): State<AppState>) -> Result<Json<Health>, Problem> {
    let unready = |code, detail| Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
    state.service.check_ready().await?;
    state.service.check_writable().await.map_err(|error| Problem::unavailable("store_unwritable", &error))?;
    if let Some(code) = state.clock_check.error_code(&state.service).await? {
        return Err(unready(
            code,
            "the clock of this server differs from the database server's by more than a minute",
        ));
    }
    if let Some(code) = state.publications.last_error_code() {
        return Err(unready(code, "publishing fails; see the server log"));
    }
    if state.service.now().millis() >= state.latest().expires_at {
        return Err(unready("manifest_stale", "the manifest has expired"));
    }
    match state.service.check_can_issue().await {
        Ok(()) => Ok(Health::new(&state, "ready")),
        Err(ReloadKeysError::Store(error)) => Err(error.into()),
        Err(ReloadKeysError::Keys(_)) => Err(unready(
            "signing_key_missing",
            "the key file of the current signing key is missing from `keys/`; the server log names the file",
        )),
    }
}

pub(super) async fn metrics(State(state): State<AppState>) -> Result<impl IntoResponse, Problem> {
    let text = state.metrics.render().map_err(|error| Problem::unavailable("metrics_unwritable", &error))?;
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}
