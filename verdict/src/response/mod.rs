//! Responses to refused requests, and what the upstream receives of admitted ones.

pub(crate) mod upstream;

pub use upstream::{Forward, ForwardedHeader, UpstreamIdentity};

use alloc::{
    string::{String, ToString},
    vec::Vec,
};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::{
    config::checked,
    credential::CredentialSource,
    decision::{Gate, Headers, Reason, Refusal},
};

/// The HTTP response to a refused request: a body in the configured style and, for 401 and 403, a challenge (RFC 6750
/// section 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The headers of the response, with names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// The body, as JSON.
    pub body: String,
}

/// How refused requests are answered.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ResponseConfig {
    /// The format of the body.
    #[serde(default)]
    style: ResponseStyle,
    /// The status if no rule matches: 404 (default) or 403.
    #[serde(default, deserialize_with = "hidden_status")]
    #[cfg_attr(feature = "schema", schemars(range(min = 403, max = 404)))]
    unmatched_status: Option<u16>,
    /// The status if a valid credential is not sufficient: 403 (default), or 404 to hide which paths exist.
    #[serde(default, deserialize_with = "hidden_status")]
    #[cfg_attr(feature = "schema", schemars(range(min = 403, max = 404)))]
    denied_status: Option<u16>,
    /// The status if rules match the host and path of a request, but not its method: 405 with `Allow`, or 404 with the
    /// response for an unknown path. The default is 405, and 404 with a `denied_status` of 404 or an `unmatched_status`
    /// of 403, which hide which paths exist.
    #[serde(default, deserialize_with = "method_status")]
    #[cfg_attr(feature = "schema", schemars(range(min = 404, max = 405)))]
    method_not_allowed_status: Option<u16>,
    /// The URL of the metadata of this protected resource (RFC 9728 section 5.1).
    #[serde(default, deserialize_with = "https_url")]
    #[cfg_attr(feature = "schema", schemars(extend("pattern" = "^https://")))]
    resource_metadata: Option<String>,
}

/// The format of response bodies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ResponseStyle {
    /// A problem document (RFC 9457).
    #[default]
    Problem,
    /// The envelope of SoshiaConnect: `success`, `message`, `errors`.
    SoshiaConnect,
    /// The error of Soracom: `code` and `message`.
    Soracom,
    /// The envelope of Kuzzle 2: `status`, `error`, `requestId`.
    Kuzzle,
}

impl Gate {
    /// Returns the response to a refused request with these headers.
    pub fn response(&self, refusal: &Refusal, headers: &Headers<'_>) -> Response {
        let request_id = headers.iter().find(|(name, _)| *name == "x-request-id").map(|(_, value)| *value);
        let mut response = self.refusal_response_as(refusal, request_id, is_grpc(headers));
        if response.status == 405
            && let Some(allow) = self.policy().rules.allow(headers.iter().copied())
        {
            response.headers.push(("allow", allow));
        }
        response
    }

    /// Returns the response to a refused request. `request_id` is returned to the client if it is visible ASCII of at
    /// most 128 bytes.
    pub fn refusal_response(&self, refusal: &Refusal, request_id: Option<&[u8]>) -> Response {
        self.refusal_response_as(refusal, request_id, false)
    }

    /// Returns the response to a refused request. For gRPC the body is a short plain text, from which hosts make the
    /// message of the status. It is its own percent-encoding
    /// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#responses>).
    pub(crate) fn refusal_response_as(
        &self,
        refusal: &Refusal,
        request_id: Option<&[u8]>,
        is_grpc: bool,
    ) -> Response {
        let ResponseConfig { style, resource_metadata, .. } = &self.policy().answers;
        let (status, reason) = self.client_status(refusal.reason());
        let request_id = request_id.and_then(valid_request_id);
        // A denied request that looks like an unknown path names no claim.
        let message = &if reason == refusal.reason() { refusal.message() } else { reason.to_string() };
        let (kind, body) = match style {
            _ if is_grpc => ("text/plain", [reason.code(), ": ", message].concat()),
            ResponseStyle::Problem => ("application/problem+json", problem(status, reason, message)),
            ResponseStyle::SoshiaConnect => ("application/json", soshiaconnect(reason, message)),
            ResponseStyle::Soracom => ("application/json", soracom(status, reason, message)),
            ResponseStyle::Kuzzle => ("application/json", kuzzle(status, reason, message, request_id)),
        };
        let mut headers =
            Vec::from([("content-type", String::from(kind)), ("cache-control", String::from("no-store"))]);
        match status {
            401 | 403 => {
                let mut challenge =
                    alloc::format!("Bearer realm=\"{}\"{}", self.policy().realm, challenge_error(reason));
                // RFC 6750 section 3: "the required scope".
                if let (Reason::ScopeMissing, Some(rule)) = (reason, refusal.rule()) {
                    let scopes = self.policy().rules.scopes(rule);
                    if !scopes.is_empty() {
                        challenge.push_str(&alloc::format!(", scope=\"{scopes}\""));
                    }
                }
                if let Some(url) = resource_metadata {
                    challenge.push_str(&alloc::format!(", resource_metadata=\"{url}\""));
                }
                headers.push(("www-authenticate", challenge));
                // Git and other clients send a user name and a password only if they are asked for them.
                let mut sources = self.policy().credentials.iter();
                if status == 401 && sources.any(CredentialSource::is_basic_authorization) {
                    let basic = ["Basic realm=\"", &self.policy().realm, "\", charset=\"UTF-8\""].concat();
                    headers.push(("www-authenticate", basic));
                }
            }
            503 => headers.push(("retry-after", String::from("1"))),
            _ => {}
        }
        if let Some(id) = request_id {
            headers.push(("x-request-id", id.into()));
        }
        Response { status, headers, body }
    }

    /// Returns the status and reason to report to the client. With `denied_status` 404, a denied request looks like an
    /// unknown path.
    fn client_status(&self, reason: Reason) -> (u16, Reason) {
        let ResponseConfig { unmatched_status, denied_status, method_not_allowed_status, .. } =
            &self.policy().answers;
        let unmatched = unmatched_status.unwrap_or(Reason::RouteUnmatched.status());
        // Otherwise the status would tell that a path exists, which the other settings hide.
        let hides_paths = *denied_status == Some(404) || unmatched == 403;
        let wrong_method = method_not_allowed_status.unwrap_or(if hides_paths { 404 } else { 405 });
        match (reason, reason.status(), denied_status) {
            (Reason::MethodNotAllowed, ..) if wrong_method == 404 => (unmatched, Reason::RouteUnmatched),
            (Reason::RouteUnmatched, ..) => (unmatched, reason),
            (_, 403, Some(404)) => (404, Reason::RouteUnmatched),
            (_, status, _) => (status, reason),
        }
    }
}

/// Returns whether a request is a gRPC call.
pub fn is_grpc(headers: &Headers<'_>) -> bool {
    let content_type = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let kind = content_type.and_then(|(_, value)| value.strip_prefix(b"application/grpc"));
    kind.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Serializes a body. Serialization fails only for maps whose keys are not strings, and no body has one.
fn to_json(body: &impl Serialize) -> String {
    serde_json::to_string(body).unwrap_or_default()
}

fn problem(status: u16, reason: Reason, detail: &str) -> String {
    #[derive(Serialize)]
    struct Problem<'a> {
        r#type: &'a str,
        title: &'a str,
        status: u16,
        detail: &'a str,
        code: &'a str,
    }
    to_json(&Problem { r#type: "about:blank", title: title(status), status, detail, code: reason.code() })
}

/// The `errors` member lists invalid form fields. It is always empty here.
fn soshiaconnect(reason: Reason, message: &str) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        success: bool,
        message: &'a str,
        errors: NoMembers,
        code: &'a str,
    }
    let message = match reason.status() {
        401 => "Invalid or missing authentication",
        403 => "Insufficient permissions",
        _ => message,
    };
    to_json(&Body { success: false, message, errors: NoMembers {}, code: reason.code() })
}

#[derive(Serialize)]
struct NoMembers {}

/// Writes both forms that Soracom documents: `errorMessage` of its API specification, and `code` and `message` of its
/// guide.
fn soracom(status: u16, reason: Reason, message: &str) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        code: &'a str,
        message: &'a str,
        http_status: u16,
        error_message: ErrorMessage<'a>,
    }
    #[derive(Serialize)]
    struct ErrorMessage<'a> {
        code: &'a str,
        message: &'a str,
    }
    let code = reason.code();
    to_json(&Body { code, message, http_status: status, error_message: ErrorMessage { code, message } })
}

/// Writes the envelope of Kuzzle 2. Its clients act on `error.id`; `error.props` has the code of Keystile.
fn kuzzle(status: u16, reason: Reason, message: &str, request_id: Option<&str>) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        request_id: Option<&'a str>,
        status: u16,
        error: Error<'a>,
        controller: (),
        action: (),
        collection: (),
        index: (),
        volatile: (),
        result: (),
    }
    #[derive(Serialize)]
    struct Error<'a> {
        id: &'a str,
        code: u32,
        message: &'a str,
        props: [&'a str; 1],
        status: u16,
    }
    let (id, code) = match (status, reason) {
        (400 | 431, _) => ("network.http.unexpected_error", 0x0301_0002),
        (401, Reason::CredentialMissing) => ("security.rights.unauthorized", 0x0703_0001),
        (401, _) => ("security.token.invalid", 0x0701_0001),
        (403, _) => ("security.rights.forbidden", 0x0703_0002),
        (404 | 405, _) => ("network.http.url_not_found", 0x0301_0007),
        _ => ("api.process.overloaded", 0x0202_0002),
    };
    let error = Error { id, code, message, props: [reason.code()], status };
    to_json(&Body {
        request_id,
        status,
        error,
        controller: (),
        action: (),
        collection: (),
        index: (),
        volatile: (),
        result: (),
    })
}

const fn title(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        _ => "Service Unavailable",
    }
}

/// Returns the error attributes of the challenge. RFC 6750 section 3.1: no error code if the request had no credential.
fn challenge_error(reason: Reason) -> String {
    let error = match reason {
        Reason::CredentialMissing | Reason::RouteUnmatched => return String::new(),
        Reason::CredentialAmbiguous(_) | Reason::CredentialMisplaced => "invalid_request",
        _ if reason.status() == 403 => "insufficient_scope",
        _ => "invalid_token",
    };
    alloc::format!(", error=\"{error}\", error_description=\"{reason}\"")
}

pub(crate) fn valid_request_id(id: &[u8]) -> Option<&str> {
    let sane = (1..=128).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic);
    if sane { core::str::from_utf8(id).ok() } else { None }
}

fn method_status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    match u64::deserialize(deserializer)? {
        404 => Ok(Some(404)),
        405 => Ok(Some(405)),
        _ => Err(D::Error::custom("must be 404 or 405")),
    }
}

fn hidden_status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    match u64::deserialize(deserializer)? {
        403 => Ok(Some(403)),
        404 => Ok(Some(404)),
        _ => Err(D::Error::custom("must be 403 or 404")),
    }
}

/// Parses an https URL. It is sent as a quoted string, so it must not contain characters that need escaping.
fn https_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(deserializer, |url| {
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
        let is_url = url.starts_with("https://") && url.bytes().all(plain);
        if is_url { Ok(Some(url.into())) } else { Err("must be an https URL") }
    })
}
