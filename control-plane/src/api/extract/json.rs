use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{StatusCode, header},
};
use serde::{
    Deserialize as _,
    de::{DeserializeOwned, IgnoredAny},
};

use super::member::Members;
use crate::api::{AppState, problem::Problem};

/// Extracts a JSON object and rejects unknown members and trailing data. An error names the member and never echoes a
/// value, which may be a secret.
pub(in crate::api) struct StrictJson<T>(pub(in crate::api) T);

impl<T: DeserializeOwned> FromRequest<AppState> for StrictJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let json = content_type.is_some_and(|value| {
            value
                .split(';')
                .next()
                .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
        });
        if !json {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "media_type_unsupported",
                "the request body must be `application/json`",
            ));
        }
        let bytes =
            Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "body_too_large",
                    "the request body is larger than 16 KiB",
                ),
                _ => Problem::invalid("the request body could not be read"),
            })?;
        // Serde also deserializes a struct from an array, by position. Accept objects only.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(match serde_json::from_slice::<IgnoredAny>(&bytes) {
                Ok(_) => Problem::invalid("the request body: expected an object"),
                Err(error) => invalid_json(&error),
            });
        }
        let mut source = serde_json::Deserializer::from_slice(&bytes);
        let members = Members::deserialize(&mut source).map_err(|error| invalid_json(&error))?;
        source.end().map_err(|_| Problem::invalid("unexpected data after the JSON document"))?;
        members.into_body().map(Self).map_err(Problem::invalid)
    }
}

/// Returns where the text is no JSON, without any part of it.
fn invalid_json(error: &serde_json::Error) -> Problem {
    let (line, column) = (error.line(), error.column());
    Problem::invalid(format!("the request body: invalid JSON at line {line} column {column}"))
}
