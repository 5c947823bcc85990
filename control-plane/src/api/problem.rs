//! Error responses in the format of RFC 9457, with the additional members that Soracom's clients read.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::domain::{CoreError, ErrorKind};

/// The `Retry-After` of limits that end only when existing items are deleted.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), header: None }
    }

    pub(crate) fn with_static_header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, HeaderValue::from_static(value)));
        self
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// Returns the error for an operation that only the root user may do, regardless of permissions.
    pub(crate) fn root_only(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "root_only", detail)
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "request_invalid", detail)
    }

    /// Returns a 429 with `Retry-After`: `wait` rounded up to seconds, at least one second.
    pub(crate) fn too_many(code: &'static str, detail: impl Into<String>, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail)
            .with_header(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// Returns a 503 without details, which go to the log only.
    pub(crate) fn unavailable(code: &'static str, error: &dyn std::error::Error) -> Self {
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        tracing::error!(error.code = code, error.cause = cause, "{error}");
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            code,
            "the control plane is temporarily unavailable; try again",
        )
        .with_static_header(header::RETRY_AFTER, "1")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, code, detail, header } = self;
        let title = status.canonical_reason().unwrap_or_default();
        let body = ProblemBody {
            r#type: "about:blank",
            title,
            status: status.as_u16(),
            message: &detail,
            detail: &detail,
            code,
        };
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(header);
        response
    }
}

#[derive(Serialize)]
struct ProblemBody<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    /// The same text as `detail`; Soracom's clients read it.
    message: &'a str,
}

pub(super) async fn not_found() -> Problem {
    Problem::not_found("no resource at this path")
}

pub(super) async fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "method not allowed for this path")
}

/// Renders an error of a context: the kind gives the status.
impl<E: CoreError> From<E> for Problem {
    fn from(error: E) -> Self {
        let status = match error.kind() {
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Limited(wait) => {
                return Self::too_many(error.code(), error.to_string(), wait.unwrap_or(DEFAULT_RETRY_AFTER));
            }
            ErrorKind::Unavailable => return Self::unavailable(error.code(), &error),
        };
        Self::new(status, error.code(), error.to_string())
    }
}
