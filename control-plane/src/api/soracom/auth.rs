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
        problem::{Problem, TOKENS_EXCEEDED},
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
    let ExchangedToken { session, subject, token } = exchanged.map_err(|error| {
        match error {
            ExchangeError::Refused => {
                state.metrics.count_refused_sign_in();
                if let Some(Extension(PeerAddr(client))) = client {
                    state.admission.charge_refused_sign_in(client.into());
                }
            }
            ExchangeError::RateLimited(_) => state.metrics.count_limited(TOKENS_EXCEEDED),
            _ => {}
        }
        Problem::from(error)
    })?;
    state.metrics.count_issued_token();
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
    state.metrics.count_revocation();
    Ok(StatusCode::NO_CONTENT)
}
