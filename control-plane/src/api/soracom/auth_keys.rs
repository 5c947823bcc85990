use axum::{
    Json,
    extract::{Path, State},
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::Serialize;

use crate::{
    api::{Desk, caller::Caller, problem::Problem},
    model::Subject,
    operations,
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct AuthKeyResponse {
    auth_key_id: String,
    create_date_time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_date_time: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GenerateAuthKeyResponse<'a> {
    auth_key_id: &'a str,
    auth_key: &'a str,
}

/// The AuthKeys of the root user; those of users have their own paths.
pub(in crate::api) async fn list(
    State(desk): State<Desk>,
    caller: Caller,
    Path(operator): Path<String>,
) -> Result<Json<Vec<AuthKeyResponse>>, Problem> {
    let (operator, _) = caller.authority_over(&operator)?;
    let keys = operations::list_auth_keys(&desk.service, Some(&operator)).await?;
    let keys = keys.into_iter().filter(|key| key.subject.is_root()).map(|key| AuthKeyResponse {
        auth_key_id: key.id.to_string(),
        create_date_time: key.created_at,
        last_used_date_time: key.last_used_at,
    });
    Ok(Json(keys.collect()))
}

pub(in crate::api) async fn create(
    State(desk): State<Desk>,
    caller: Caller,
    Path(operator): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    let (operator, _) = caller.authority_over(&operator)?;
    caller.must_be_root()?;
    let subject = Subject { operator, user: None };
    let created = operations::create_auth_key(&desk.service, &caller.actor(), &subject).await?;
    let response =
        GenerateAuthKeyResponse { auth_key_id: created.id.as_str(), auth_key: created.secret.expose() };
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(response)).into_response())
}

pub(in crate::api) async fn remove(
    State(desk): State<Desk>,
    caller: Caller,
    Path((operator, id)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let (_, authority) = caller.authority_over(&operator)?;
    caller.must_be_root()?;
    let id = id.parse().map_err(|_| Problem::not_found("there is no such AuthKey"))?;
    operations::delete_auth_key(&desk.service, &caller.actor(), &authority, &id).await?;
    desk.metrics.revoked();
    Ok(StatusCode::NO_CONTENT)
}
