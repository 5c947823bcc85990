use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::IntoResponse,
};
use serde::{Deserialize, Serialize};

use crate::{
    api::{AppState, extract::caller::Caller, problem::Problem},
    credentials::auth_keys,
    domain::{Page, PageRequest, Subject, UnixSeconds},
};

const NEXT_KEY: HeaderName = HeaderName::from_static("x-soracom-next-key");

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct AuthKeyResponse {
    auth_key_id: String,
    create_date_time: UnixSeconds,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_date_time: Option<UnixSeconds>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GenerateAuthKeyResponse<'a> {
    auth_key_id: &'a str,
    auth_key: &'a str,
}

/// The paging parameters of Soracom's API.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct ListQuery {
    limit: Option<u32>,
    last_evaluated_key: Option<String>,
}

/// Lists the AuthKeys of the root user. AuthKeys of other users have paths of their own.
pub(in crate::api) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Path(operator): Path<String>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<impl IntoResponse, Problem> {
    let (operator, _) = caller.access_scope_for(&operator)?;
    let Query(ListQuery { limit, last_evaluated_key }) = query.map_err(|_| {
        Problem::invalid(
            "`limit`: expected a number; `last_evaluated_key`: expected the value of `x-soracom-next-key`",
        )
    })?;
    let page =
        PageRequest::new(limit, last_evaluated_key).map_err(|error| Problem::invalid(error.to_string()))?;
    let Page { items, next } = auth_keys::list_root_auth_keys(&state.service, &operator, &page).await?;
    let keys: Vec<_> = items
        .into_iter()
        .map(|key| AuthKeyResponse {
            auth_key_id: key.id.to_string(),
            create_date_time: key.created_at,
            last_used_date_time: key.last_used_at,
        })
        .collect();
    let mut response = Json(keys).into_response();
    if let Some(next) = next
        && let Ok(value) = HeaderValue::try_from(next)
    {
        response.headers_mut().insert(NEXT_KEY, value);
    }
    Ok(response)
}

pub(in crate::api) async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Path(operator): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    let (operator, _) = caller.access_scope_for(&operator)?;
    caller.require_root()?;
    let subject = Subject { operator, user: None };
    let created = auth_keys::create_auth_key(&state.service, &caller.actor(), &subject).await?;
    let response =
        GenerateAuthKeyResponse { auth_key_id: created.id.as_str(), auth_key: created.secret.expose() };
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(response)).into_response())
}

pub(in crate::api) async fn remove(
    State(state): State<AppState>,
    caller: Caller,
    Path((operator, id)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let (_, access_scope) = caller.access_scope_for(&operator)?;
    caller.require_root()?;
    let id = id.parse().map_err(|_| Problem::not_found("AuthKey not found"))?;
    auth_keys::delete_auth_key(&state.service, &caller.actor(), &access_scope, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
