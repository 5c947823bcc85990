use std::time::Duration;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use serde::{Deserialize, Serialize};

use super::{Desk, body::Strict, caller::Caller, problem::Problem};
use crate::operations::{self, Reached, RevokeError, Revoked, Target, What};

/// Exactly one of the first four.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RevocationRequest {
    #[serde(default)]
    fingerprint: Option<String>,
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    key_id: Option<String>,
    #[serde(default)]
    subject: Option<String>,
    /// Only with `subject`.
    #[serde(default)]
    instant: Option<u64>,
    #[serde(default)]
    reason: Option<String>,
}

/// `version` is the first bundle that refuses it.
#[derive(Serialize)]
pub(super) struct RevocationResponse {
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instant: Option<u64>,
    /// With `wait`.
    #[serde(skip_serializing_if = "Option::is_none")]
    edges: Option<Edges>,
}

/// How many: their names are not a tenant's business. The revocation holds in any case; `lagging` are live edges that did
/// not tell in time that they enforce it.
#[derive(Serialize)]
struct Edges {
    enforcing: usize,
    lagging: usize,
    silent: usize,
    unseen: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RevocationQuery {
    /// Seconds to wait, at most, for every live edge to enforce it.
    #[serde(default)]
    wait: u64,
}

pub(super) async fn create(
    State(desk): State<Desk>,
    caller: Caller,
    query: Result<Query<RevocationQuery>, QueryRejection>,
    Strict(request): Strict<RevocationRequest>,
) -> Result<Json<RevocationResponse>, Problem> {
    let Query(RevocationQuery { wait }) =
        query.map_err(|_| Problem::invalid("`wait`: expected a number of seconds"))?;
    let authority = caller.authority();
    let (target, reason) = read(request)?;
    if target.is_up_to_now() {
        operations::check_store_clock(&desk.service).await?;
    }
    let revoked =
        operations::revoke(&desk.service, &caller.actor(), &authority, target, reason.as_deref()).await;
    if let Err(error @ RevokeError::TooMany(_)) = &revoked {
        desk.metrics.limited(error.code());
    }
    let Revoked { version, what } = revoked?;
    desk.metrics.revoked();
    let edges = match wait {
        0 => None,
        _ => Some(enforced(&desk, version, Duration::from_secs(wait)).await?),
    };
    Ok(Json(match what {
        What::Fingerprint(fingerprint) => RevocationResponse {
            version,
            fingerprint: Some(fingerprint.to_string()),
            scope: None,
            instant: None,
            edges,
        },
        What::Scope(watermark) => RevocationResponse {
            version,
            fingerprint: None,
            scope: Some(watermark.scope.to_string()),
            instant: Some(watermark.instant),
            edges,
        },
    }))
}

async fn enforced(desk: &Desk, version: u64, wait: Duration) -> Result<Edges, Problem> {
    // The request must not time out: the revocation holds.
    let longest = desk.service.config().server.request_timeout.get().mul_f64(0.8);
    let reached = operations::await_fleet(&desk.service, version, wait.min(longest)).await;
    let Reached { enforcing, lagging, silent, unseen, .. } = reached.map_err(RevokeError::Store)?;
    let (enforcing, lagging) = (enforcing.len(), lagging.len());
    Ok(Edges { enforcing, lagging, silent: silent.len(), unseen: unseen.len() })
}

fn read(request: RevocationRequest) -> Result<(Target, Option<String>), Problem> {
    let RevocationRequest { fingerprint, token, key_id, subject, instant, reason } = request;
    if instant.is_some() && subject.is_none() {
        return Err(Problem::invalid("`instant`: goes with `subject` only"));
    }
    let target = match (fingerprint, token, key_id, subject) {
        (Some(text), None, None, None) => Target::Fingerprint(parse("fingerprint", &text)?),
        (None, Some(text), None, None) => Target::Token(text),
        (None, None, Some(text), None) => Target::Key(parse("keyId", &text)?),
        (None, None, None, Some(text)) => Target::Subject { subject: parse("subject", &text)?, instant },
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
