use std::time::Duration;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};

use crate::{
    api::{
        AppState,
        extract::{caller::Caller, json::StrictJson},
        problem::Problem,
    },
    domain::{UnixSeconds, Version},
    edges::{self, RolloutStatus},
    maintenance::{self, ClockError},
    revocation::{self, DurableRevocation, RevocationOutcome, RevocationTarget, RevokeError},
};

/// The body of a revocation request. Exactly one of the first four members must be present.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(in crate::api) struct RevocationRequest {
    #[serde(default)]
    fingerprint: Option<String>,
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    key_id: Option<String>,
    #[serde(default)]
    subject: Option<String>,
    /// Unix time in seconds; allowed only with `subject`.
    #[serde(default)]
    instant: Option<UnixSeconds>,
    #[serde(default)]
    reason: Option<String>,
}

/// The result of a revocation. `version` is the first bundle version that contains it.
#[derive(Serialize)]
pub(in crate::api) struct RevocationResponse {
    version: Version,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instant: Option<UnixSeconds>,
    /// Present if the request has `wait`.
    #[serde(skip_serializing_if = "Option::is_none")]
    edges: Option<RolloutCounts>,
}

/// The number of edges in each rollout state, without their names, which tenants must not see. The revocation is in
/// effect regardless; `lagging` counts the live edges that did not confirm it in time.
#[derive(Serialize)]
struct RolloutCounts {
    enforcing: usize,
    lagging: usize,
    silent: usize,
    unseen: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct RevocationQuery {
    /// The maximum time to wait until every live edge enforces the revocation, in seconds.
    #[serde(default)]
    wait: u64,
}

pub(in crate::api) async fn create_revocation(
    State(state): State<AppState>,
    caller: Caller,
    query: Result<Query<RevocationQuery>, QueryRejection>,
    StrictJson(request): StrictJson<RevocationRequest>,
) -> Result<Json<RevocationResponse>, Problem> {
    let Query(RevocationQuery { wait }) =
        query.map_err(|_| Problem::invalid("`wait`: expected a number of seconds"))?;
    let access_scope = caller.access_scope();
    let (target, reason) = parse_request(request)?;
    if target.is_up_to_now() {
        maintenance::check_store_clock(&state.service).await.map_err(refuse_by_clock)?;
    }
    let DurableRevocation { version, outcome: what } =
        revocation::revoke(&state.service, &caller.actor(), &access_scope, target, reason.as_deref()).await?;
    let edges = match wait {
        0 => None,
        _ => Some(rollout_status(&state, version, Duration::from_secs(wait)).await?),
    };
    Ok(Json(match what {
        RevocationOutcome::Fingerprint(fingerprint) => RevocationResponse {
            version,
            fingerprint: Some(fingerprint.to_string()),
            scope: None,
            instant: None,
            edges,
        },
        RevocationOutcome::Scope(watermark) => RevocationResponse {
            version,
            fingerprint: None,
            scope: Some(watermark.scope.to_string()),
            instant: Some(watermark.instant),
            edges,
        },
    }))
}

/// Names the cause: another attempt would fail too.
fn refuse_by_clock(error: ClockError) -> Problem {
    let detail = match error {
        ClockError::Store(error) => return error.into(),
        ClockError::Ahead(..) => "the control plane's clock is ahead of other clocks; nothing was revoked",
        ClockError::Behind(..) => "the control plane's clock is behind other clocks; nothing was revoked",
        ClockError::Unconfirmed => "no other clock confirms the control plane's clock",
    };
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.code(), detail)
}

async fn rollout_status(
    state: &AppState,
    version: Version,
    wait: Duration,
) -> Result<RolloutCounts, Problem> {
    // Answer before the request times out: the revocation is already in effect.
    let max_wait = state.service.config().server.request_timeout.get().mul_f64(0.8);
    let reached = edges::await_live_edges(&state.service, version, wait.min(max_wait)).await;
    let RolloutStatus { enforcing, lagging, silent, never_seen: unseen, .. } =
        reached.map_err(RevokeError::Store)?;
    let (enforcing, lagging) = (enforcing.len(), lagging.len());
    Ok(RolloutCounts { enforcing, lagging, silent: silent.len(), unseen: unseen.len() })
}

fn parse_request(request: RevocationRequest) -> Result<(RevocationTarget, Option<String>), Problem> {
    let RevocationRequest { fingerprint, token, key_id, subject, instant, reason } = request;
    if instant.is_some() && subject.is_none() {
        return Err(Problem::invalid("`instant`: allowed only with `subject`"));
    }
    let target = match (fingerprint, token, key_id, subject) {
        (Some(text), None, None, None) => RevocationTarget::Fingerprint(parse("fingerprint", &text)?),
        (None, Some(text), None, None) => RevocationTarget::Token(text),
        (None, None, Some(text), None) => RevocationTarget::Key(parse("keyId", &text)?),
        (None, None, None, Some(text)) => {
            RevocationTarget::Subject { subject: parse("subject", &text)?, instant }
        }
        _ => {
            return Err(Problem::invalid(
                "expected exactly one of `fingerprint`, `token`, `keyId`, `subject`",
            ));
        }
    };
    Ok((target, reason))
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(member: &str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error| Problem::invalid(format!("`{member}`: {error}")))
}
