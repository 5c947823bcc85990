use alloc::{
    string::{String, ToString},
    vec::Vec,
};

use token::json::Json;

use crate::{
    Gate, Reason, Refusal,
    quoted::quoted,
    strict::{self, Members, Read, Wrong},
};

/// What a refused client gets: a body in the style of the policy and, for 401 and 403, a challenge (RFC 6750 section 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

/// How to answer a refused client.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    style: Style,
    /// The status where no rule matched: 404 by default, or 403.
    unmatched_status: Option<u16>,
    /// The status where a good credential does not suffice: 403 by default, or 404 to say nothing of what is there.
    denied_status: Option<u16>,
    /// Where clients learn who issues credentials for this resource (RFC 9728 section 5.1).
    resource_metadata: Option<String>,
}

/// What bodies look like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Style {
    /// A problem document (RFC 9457).
    #[default]
    Problem,
    SoshiaConnect,
    Soracom,
    Kuzzle,
}

impl Read for Answers {
    fn read(json: &Json) -> Result<Self, Wrong> {
        let known = ["style", "unmatched_status", "denied_status", "resource_metadata"];
        let members = Members::of(json, &known)?;
        Ok(Self {
            style: members.optional("style")?.unwrap_or_default(),
            unmatched_status: members.optional_by("unmatched_status", hidden)?,
            denied_status: members.optional_by("denied_status", hidden)?,
            resource_metadata: members.optional_by("resource_metadata", url)?,
        })
    }
}

impl Read for Style {
    fn read(json: &Json) -> Result<Self, Wrong> {
        strict::variant(
            json,
            &[
                ("problem", Self::Problem),
                ("soshiaconnect", Self::SoshiaConnect),
                ("soracom", Self::Soracom),
                ("kuzzle", Self::Kuzzle),
            ],
        )
    }
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

fn problem(status: u16, reason: Reason) -> String {
    let mut body = Body::default();
    body.text("type", "about:blank").text("title", title(status)).number("status", status.into());
    body.text("detail", &reason.to_string()).text("code", reason.code()).end()
}

/// `errors` is for the fields of a form: none is to blame.
fn soshiaconnect(reason: Reason) -> String {
    let message = match reason.status() {
        401 => "Invalid or missing authentication".into(),
        403 => "Insufficient permissions".into(),
        _ => reason.to_string(),
    };
    let mut body = Body::default();
    body.raw("success", "false")
        .text("message", &message)
        .raw("errors", "{}")
        .text("code", reason.code())
        .end()
}

/// Both forms that Soracom's documents know: its specification has `errorMessage`, its guide `code` and `message`.
fn soracom(status: u16, reason: Reason) -> String {
    let (code, message) = (reason.code(), reason.to_string());
    let inner = Body::default().text("code", code).text("message", &message).end();
    let mut body = Body::default();
    body.text("code", code).text("message", &message).number("httpStatus", status.into());
    body.raw("errorMessage", &inner).end()
}

/// The envelope of Kuzzle 2, whose clients act on `error.id`; our own code is in `error.props`.
fn kuzzle(status: u16, reason: Reason, request_id: Option<&str>) -> String {
    let (id, code) = match (status, reason) {
        (400 | 431, _) => ("network.http.unexpected_error", 0x0301_0002),
        (401, Reason::CredentialMissing) => ("security.rights.unauthorized", 0x0703_0001),
        (401, _) => ("security.token.invalid", 0x0701_0001),
        (403, _) => ("security.rights.forbidden", 0x0703_0002),
        (404, _) => ("network.http.url_not_found", 0x0301_0007),
        _ => ("api.process.overloaded", 0x0202_0002),
    };
    let mut error = Body::default();
    error.text("id", id).number("code", code).text("message", &reason.to_string());
    let error =
        error.raw("props", &["[\"", reason.code(), "\"]"].concat()).number("status", status.into()).end();
    let mut body = Body::default();
    match request_id {
        Some(id) => body.text("requestId", id),
        None => body.raw("requestId", "null"),
    };
    body.number("status", status.into()).raw("error", &error);
    for name in ["controller", "action", "collection", "index", "volatile", "result"] {
        body.raw(name, "null");
    }
    body.end()
}

/// A JSON object as it is written: a general serialiser is 8 KB of the filter.
#[derive(Default)]
struct Body(String);

impl Body {
    /// `value` is JSON already.
    fn raw(&mut self, name: &str, value: &str) -> &mut Self {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        quoted(&mut self.0, name);
        self.0.push(':');
        self.0.push_str(value);
        self
    }

    fn text(&mut self, name: &str, value: &str) -> &mut Self {
        let mut text = String::new();
        quoted(&mut text, value);
        self.raw(name, &text)
    }

    fn number(&mut self, name: &str, value: u32) -> &mut Self {
        self.raw(name, &value.to_string())
    }

    fn end(&mut self) -> String {
        self.0.push('}');
        core::mem::take(&mut self.0)
    }
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

fn hidden(json: &Json) -> Result<u16, Wrong> {
    match u64::read(json)? {
        403 => Ok(403),
        404 => Ok(404),
        _ => Err(Wrong::new("must be 403 or 404")),
    }
}

/// A quoted string in the challenge: nothing that would need escaping.
fn url(json: &Json) -> Result<String, Wrong> {
    let url = strict::text(json)?;
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    if url.starts_with("https://") && url.bytes().all(plain) {
        Ok(url.into())
    } else {
        Err(Wrong::new("must be an https URL"))
    }
}
