use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{StatusCode, header},
};
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::{
    api::{AppState, problem::Problem},
    platform::redact,
};

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
            let detail = match serde_json::from_slice::<IgnoredAny>(&bytes) {
                Ok(_) => "the request body: expected an object".to_owned(),
                Err(error) => format!("the request body: {}", redact_values(&error)),
            };
            return Err(Problem::invalid(detail));
        }
        let mut source = serde_json::Deserializer::from_slice(&bytes);
        let parsed = serde_path_to_error::deserialize(&mut source).map_err(|error| {
            let path = error.path().to_string();
            let place = if path == "." { "the request body".to_owned() } else { format!("`{path}`") };
            Problem::invalid(format!("{place}: {}", redact_values(&error.into_inner())))
        })?;
        source.end().map_err(|_| Problem::invalid("unexpected data after the JSON document"))?;
        Ok(Self(parsed))
    }
}

/// Returns the message of the serde error in JSON terms, without any value that it quotes.
fn redact_values(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match error.classify() {
        serde_json::error::Category::Data => {
            // The position is the last part of the message; a quoted value may contain the same words.
            let text = message.rsplit_once(" at line ").map_or(message.as_str(), |(text, _)| text);
            redact::redact_value(text, "an object")
        }
        _ => format!("invalid JSON at line {} column {}", error.line(), error.column()),
    }
}
