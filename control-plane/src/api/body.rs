use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{StatusCode, header},
};
use serde::de::{DeserializeOwned, IgnoredAny};

use super::{Desk, problem::Problem};
use crate::redact;

/// A JSON body, strictly: the error names the member, and never repeats a value, which may be a secret.
pub(super) struct Strict<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Desk> for Strict<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, desk: &Desk) -> Result<Self, Problem> {
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
                "the body must be application/json",
            ));
        }
        let bytes =
            Bytes::from_request(request, desk).await.map_err(|rejection| match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "body_too_large",
                    "the body is longer than 16 KiB",
                ),
                _ => Problem::invalid("the body could not be read"),
            })?;
        // A structure is read from an array too, by the order of its members: nobody means that.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            let detail = match serde_json::from_slice::<IgnoredAny>(&bytes) {
                Ok(_) => "the body: expected an object".to_owned(),
                Err(error) => format!("the body: {}", without_values(&error)),
            };
            return Err(Problem::invalid(detail));
        }
        let mut source = serde_json::Deserializer::from_slice(&bytes);
        let parsed = serde_path_to_error::deserialize(&mut source).map_err(|error| {
            let path = error.path().to_string();
            let place = if path == "." { "the body".to_owned() } else { format!("`{path}`") };
            Problem::invalid(format!("{place}: {}", without_values(&error.into_inner())))
        })?;
        source.end().map_err(|_| Problem::invalid("the body goes on after its end"))?;
        Ok(Self(parsed))
    }
}

/// What serde says, unless it quotes a value, and in the words of JSON.
fn without_values(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match error.classify() {
        serde_json::error::Category::Data => {
            // The place comes last; a value may look like one.
            let what = message.rsplit_once(" at line ").map_or(message.as_str(), |(what, _)| what);
            redact::without_value(what, "an object")
        }
        _ => format!("no JSON at line {} column {}", error.line(), error.column()),
    }
}
