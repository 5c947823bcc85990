use axum::{
    Extension, Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    api::{
        AppState,
        extract::{caller::Caller, json::StrictJson},
        problem::Problem,
    },
    credentials::tokens::{self, ExchangeError, ExchangedToken, Lifetime},
    revocation,
    server::listener::PeerAddr,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(in crate::api) struct AuthRequest {
    auth_key_id: String,
    auth_key: Zeroizing<String>,
    #[serde(default)]
    token_timeout_seconds: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AuthResponse<'a> {
    api_key: &'a str,
    operator_id: &'a str,
    token: &'a str,
    user_name: &'a str,
}

pub(in crate::api) async fn exchange(
    State(state): State<AppState>,
    client: Option<Extension<PeerAddr>>,
    StrictJson(request): StrictJson<AuthRequest>,
) -> Result<impl IntoResponse, Problem> {
    let AuthRequest { auth_key_id, auth_key, token_timeout_seconds } = request;
    let lifetime = token_timeout_seconds.map_or(Ok(Lifetime::default()), Lifetime::try_from);
    let lifetime = lifetime.map_err(|error| Problem::invalid(format!("`tokenTimeoutSeconds`: {error}")))?;
    let exchanged = tokens::exchange_auth_key(&state.service, &auth_key_id, &auth_key, lifetime).await;
    if let (Err(ExchangeError::Refused), Some(Extension(PeerAddr(client)))) = (&exchanged, client) {
        state.admission.charge_refused_sign_in(client.into());
    }
    let ExchangedToken { session, subject, token } = exchanged?;
    let response = AuthResponse {
        api_key: session.as_str(),
        operator_id: subject.operator.as_str(),
        token: token.expose(),
        user_name: subject.user_name(),
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(response)).into_response())
}

pub(in crate::api) async fn log_out(
    State(state): State<AppState>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    revocation::logout(&state.service, &caller.subject, caller.fingerprint).await?;
    Ok(StatusCode::NO_CONTENT)
}
