use std::time::{Duration, Instant};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::Serialize;
use tokio::sync::Mutex;

use super::{Desk, problem::Problem};
use crate::operations::{self, ClockError, Service, StoreError, TakeUpError};

/// What tells one server from another: commands compare it with their own database.
#[derive(Serialize)]
pub(super) struct Health {
    status: &'static str,
    installation: Option<String>,
    /// The latest that this server has published.
    version: u64,
    epoch: u64,
    /// What is to be looked at, and no reason to take requests elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl Health {
    fn of(desk: &Desk, status: &'static str) -> Json<Self> {
        let latest = desk.latest();
        let installation = desk.service.installation().map(str::to_owned);
        let note = desk.service.journal().trouble().map(|cause| format!("journal: {cause}"));
        Json(Self { status, installation, version: latest.version, epoch: latest.epoch, note })
    }
}

/// The process lives.
pub(super) async fn lives(State(desk): State<Desk>) -> Json<Health> {
    Health::of(&desk, "ok")
}

/// Compares the clock of this machine with that of the database server, once in [`CLOCK_CHECK_INTERVAL`] at most.
#[derive(Debug, Default)]
pub(super) struct ClockCheck {
    last: Mutex<Option<(Instant, Option<&'static str>)>>,
}

impl ClockCheck {
    /// Returns the code of what is wrong.
    async fn trouble(&self, service: &Service) -> Result<Option<&'static str>, StoreError> {
        let mut last = self.last.lock().await;
        if let Some((at, trouble)) = *last
            && at.elapsed() < CLOCK_CHECK_INTERVAL
        {
            return Ok(trouble);
        }
        let trouble = match operations::check_store_clock(service).await {
            Ok(_) => None,
            Err(ClockError::Store(error)) => return Err(error),
            Err(error) => {
                tracing::error!(error.code = error.code(), "this server is not ready: {error}");
                Some(error.code())
            }
        };
        *last = Some((Instant::now(), trouble));
        Ok(trouble)
    }
}

/// The store answers and takes changes, the clock agrees with that of the database server, what edges are told is
/// published, and tokens can be issued.
pub(super) async fn ready(State(desk): State<Desk>) -> Result<Json<Health>, Problem> {
    let unready = |code, detail| Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
    desk.service.ready().await?;
    desk.service.writable().await.map_err(|error| Problem::unavailable("store_unwritable", &error))?;
    if let Some(code) = desk.clock_check.trouble(&desk.service).await? {
        return Err(unready(
            code,
            "the clock of this server differs from that of the database server by more than a minute",
        ));
    }
    if let Some(code) = desk.publications.trouble() {
        return Err(unready(code, "nothing is published at the moment; the log says why"));
    }
    if desk.service.now().millis() >= desk.latest().expires_at {
        return Err(unready("manifest_stale", "the manifest is out of date"));
    }
    match desk.service.can_issue().await {
        Ok(()) => Ok(Health::of(&desk, "ready")),
        Err(TakeUpError::Store(error)) => Err(error.into()),
        Err(TakeUpError::Keys(_)) => Err(unready(
            "signing_key_missing",
            "the key that tokens are signed with is not in the key folder of this server; the log names its file",
        )),
    }
}

pub(super) async fn metrics(State(desk): State<Desk>) -> Result<impl IntoResponse, Problem> {
    let text = desk.metrics.text().map_err(|error| Problem::unavailable("metrics_unwritable", &error))?;
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}

/// The comparison costs a query, and clocks go wrong slowly or seldom.
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(60);
