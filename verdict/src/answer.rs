use alloc::{
    string::{String, ToString},
    vec::Vec,
};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::{Gate, Reason, Refusal, config::checked};

/// What a refused client gets: a body in the style of the policy and, for 401 and 403, a challenge (RFC 6750 section 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers of the answer, with names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// The body, JSON.
    pub body: String,
}

/// How to answer a refused client.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Answers {
    #[serde(default)]
    style: Style,
    /// The status where no rule matched: 404 by default, or 403.
    #[serde(default, deserialize_with = "hidden_status")]
    #[cfg_attr(feature = "schema", schemars(range(min = 403, max = 404)))]
    unmatched_status: Option<u16>,
    /// The status where a good credential does not suffice: 403 by default, or 404 to say nothing of what is there.
    #[serde(default, deserialize_with = "hidden_status")]
    #[cfg_attr(feature = "schema", schemars(range(min = 403, max = 404)))]
    denied_status: Option<u16>,
    /// Where clients learn who issues credentials for this resource (RFC 9728 section 5.1).
    #[serde(default, deserialize_with = "https_url")]
    #[cfg_attr(feature = "schema", schemars(extend("pattern" = "^https://")))]
    resource_metadata: Option<String>,
}

/// What bodies look like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Style {
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
    /// `request_id` is kept when it is one that can be sent back.
    pub fn answer(&self, refusal: &Refusal, request_id: Option<&[u8]>) -> Answer {
        let Answers { style, resource_metadata, .. } = &self.policy().answers;
        let (status, reason) = self.shown(refusal.reason());
        let request_id = request_id.and_then(printable);
        let (kind, body) = match style {
            Style::Problem => ("application/problem+json", problem(status, reason)),
            Style::SoshiaConnect => ("application/json", soshiaconnect(reason)),
            Style::Soracom => ("application/json", soracom(status, reason)),
            Style::Kuzzle => ("application/json", kuzzle(status, reason, request_id)),
        };
        let mut headers =
            Vec::from([("content-type", String::from(kind)), ("cache-control", String::from("no-store"))]);
        match status {
            401 | 403 => {
                let mut challenge =
                    alloc::format!("Bearer realm=\"{}\"{}", self.policy().realm, error(reason));
                // RFC 6750 section 3: "the required scope", all of it.
                if let (Reason::ScopeMissing, Some(rule)) = (reason, refusal.rule()) {
                    challenge.push_str(&alloc::format!(
                        ", scope=\"{}\"",
                        self.policy().rules.scopes(rule).join(" ")
                    ));
                }
                if let Some(url) = resource_metadata {
                    challenge.push_str(&alloc::format!(", resource_metadata=\"{url}\""));
                }
                headers.push(("www-authenticate", challenge));
            }
            503 => headers.push(("retry-after", String::from("1"))),
            _ => {}
        }
        if let Some(id) = request_id {
            headers.push(("x-request-id", id.into()));
        }
        Answer { status, headers, body }
    }

    /// What the client is told: where it must not learn what there is, everything looks as if nothing were.
    fn shown(&self, reason: Reason) -> (u16, Reason) {
        let Answers { unmatched_status, denied_status, .. } = &self.policy().answers;
        let unmatched = unmatched_status.unwrap_or(Reason::RouteUnmatched.status());
        match (reason, reason.status(), denied_status) {
            (Reason::RouteUnmatched, ..) => (unmatched, reason),
            (_, 403, Some(404)) => (404, Reason::RouteUnmatched),
            (_, status, _) => (status, reason),
        }
    }
}

/// Returns the JSON text. None of the bodies has a map with names that are not strings, the one thing that fails.
fn written(body: &impl Serialize) -> String {
    serde_json::to_string(body).unwrap_or_default()
}

fn problem(status: u16, reason: Reason) -> String {
    #[derive(Serialize)]
    struct Problem<'a> {
        r#type: &'a str,
        title: &'a str,
        status: u16,
        detail: &'a str,
        code: &'a str,
    }
    let detail = &reason.to_string();
    written(&Problem { r#type: "about:blank", title: title(status), status, detail, code: reason.code() })
}

/// `errors` is for the fields of a form: none is to blame.
fn soshiaconnect(reason: Reason) -> String {
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
        _ => &reason.to_string(),
    };
    written(&Body { success: false, message, errors: NoMembers {}, code: reason.code() })
}

#[derive(Serialize)]
struct NoMembers {}

/// Both forms that Soracom's documents know: its specification has `errorMessage`, its guide `code` and `message`.
fn soracom(status: u16, reason: Reason) -> String {
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
    let (code, message) = (reason.code(), &reason.to_string());
    written(&Body { code, message, http_status: status, error_message: ErrorMessage { code, message } })
}

/// The envelope of Kuzzle 2, whose clients act on `error.id`; our own code is in `error.props`.
fn kuzzle(status: u16, reason: Reason, request_id: Option<&str>) -> String {
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
        (404, _) => ("network.http.url_not_found", 0x0301_0007),
        _ => ("api.process.overloaded", 0x0202_0002),
    };
    let error = Error { id, code, message: &reason.to_string(), props: [reason.code()], status };
    written(&Body {
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
        431 => "Request Header Fields Too Large",
        _ => "Service Unavailable",
    }
}

/// RFC 6750 section 3.1: no error code when the request had no credential.
fn error(reason: Reason) -> String {
    let error = match reason {
        Reason::CredentialMissing | Reason::RouteUnmatched => return String::new(),
        Reason::CredentialAmbiguous | Reason::CredentialMisplaced => "invalid_request",
        _ if reason.status() == 403 => "insufficient_scope",
        _ => "invalid_token",
    };
    alloc::format!(", error=\"{error}\", error_description=\"{reason}\"")
}

fn printable(id: &[u8]) -> Option<&str> {
    let sane = (1..=128).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic);
    if sane { core::str::from_utf8(id).ok() } else { None }
}

fn hidden_status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    match u64::deserialize(deserializer)? {
        403 => Ok(Some(403)),
        404 => Ok(Some(404)),
        _ => Err(D::Error::custom("must be 403 or 404")),
    }
}

/// A quoted string in the challenge: nothing that would need escaping.
fn https_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(deserializer, |url| {
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
        let is_url = url.starts_with("https://") && url.bytes().all(plain);
        if is_url { Ok(Some(url.into())) } else { Err("must be an https URL") }
    })
}
