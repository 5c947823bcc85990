//! Error responses in the format of RFC 9457, with the additional members that Soracom's clients read.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    accounts::AccountError,
    credentials::{
        auth_keys::{CreateAuthKeyError, DeleteAuthKeyError},
        tokens::{ExchangeError, MintError, exchange::TOKENS_EXCEEDED},
    },
    db::StoreError,
    edges::AuthenticateEdgeError,
    maintenance::ClockError,
    revocation::RevokeError,
};

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

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Page(error) => Self::invalid(error.to_string()),
            error => Self::unavailable(error.code(), &error),
        }
    }
}

impl From<ExchangeError> for Problem {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Refused => {
                Self::new(StatusCode::UNAUTHORIZED, "auth_key_refused", error.to_string())
            }
            ExchangeError::RateLimited(wait) => Self::too_many(TOKENS_EXCEEDED, error.to_string(), wait),
            ExchangeError::Store(error) => error.into(),
            ExchangeError::Mint(MintError::Store(error)) => error.into(),
            ExchangeError::Mint(error @ MintError::Blocked(..)) => {
                Self::unavailable("watermark_in_future", &error)
            }
            ExchangeError::Mint(error) => Self::unavailable("mint_failed", &error),
        }
    }
}

impl From<ClockError> for Problem {
    fn from(error: ClockError) -> Self {
        let code = error.code();
        let detail = match error {
            ClockError::Store(error) => return error.into(),
            ClockError::Ahead(..) => {
                "the control plane's clock is ahead of other clocks; nothing was revoked"
            }
            ClockError::Behind(..) => "the control plane's clock is behind other clocks; nothing was revoked",
            ClockError::Unconfirmed => "no other clock confirms the control plane's clock",
        };
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
    }
}

impl From<RevokeError> for Problem {
    fn from(error: RevokeError) -> Self {
        let status = match error {
            RevokeError::NotFound => StatusCode::NOT_FOUND,
            RevokeError::Token(_)
            | RevokeError::TokenKeyUnknown
            | RevokeError::InstantInFuture
            | RevokeError::OwnIssuer
            | RevokeError::ReasonTooLong
            | RevokeError::ReasonReserved => StatusCode::BAD_REQUEST,
            RevokeError::RootOnly => StatusCode::FORBIDDEN,
            RevokeError::PrefixTaken => StatusCode::CONFLICT,
            RevokeError::RateLimited(wait) => return Self::too_many(error.code(), error.to_string(), wait),
            RevokeError::Store(error) => return error.into(),
        };
        Self::new(status, error.code(), error.to_string())
    }
}

impl From<AccountError> for Problem {
    fn from(error: AccountError) -> Self {
        let status = match error {
            AccountError::OperatorUnknown => return Self::not_found("operator not found"),
            AccountError::UserUnknown(_)
            | AccountError::ForeignSubjectUnknown(_)
            | AccountError::RoleUnknown(_)
            | AccountError::NotAttached => {
                return Self::not_found(error.to_string());
            }
            AccountError::UserExists(_)
            | AccountError::RoleExists(_)
            | AccountError::NameIsUsernameOfApiKey(..) => StatusCode::CONFLICT,
            AccountError::RootUserImmutable(_)
            | AccountError::Permission(_)
            | AccountError::GrantTooLong(_)
            | AccountError::OwnIssuer(_)
            | AccountError::DescriptionTooLong => StatusCode::BAD_REQUEST,
            AccountError::LimitReached(_) => {
                return Self::too_many(error.code(), error.to_string(), DEFAULT_RETRY_AFTER);
            }
            AccountError::Store(error) => return error.into(),
        };
        Self::new(status, error.code(), error.to_string())
    }
}

impl From<CreateAuthKeyError> for Problem {
    fn from(error: CreateAuthKeyError) -> Self {
        match error {
            CreateAuthKeyError::Account(error) => error.into(),
            CreateAuthKeyError::RootOnly => Self::root_only(error.to_string()),
            CreateAuthKeyError::Store(error) => error.into(),
        }
    }
}

impl From<DeleteAuthKeyError> for Problem {
    fn from(error: DeleteAuthKeyError) -> Self {
        match error {
            DeleteAuthKeyError::NotFound => Self::not_found(error.to_string()),
            DeleteAuthKeyError::RootOnly => Self::root_only(error.to_string()),
            DeleteAuthKeyError::Store(error) => error.into(),
        }
    }
}

impl From<AuthenticateEdgeError> for Problem {
    fn from(error: AuthenticateEdgeError) -> Self {
        match error {
            AuthenticateEdgeError::Refused => {
                Self::new(StatusCode::UNAUTHORIZED, "edge_credential_refused", error.to_string())
                    .with_static_header(header::WWW_AUTHENTICATE, "Bearer realm=\"keystile-edge\"")
            }
            AuthenticateEdgeError::Store(error) => error.into(),
        }
    }
}
