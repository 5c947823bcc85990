use alloc::{string::String, vec::Vec};

use serde::Serialize;

use crate::{Gate, Reason};

/// What a refused client gets: a problem document (RFC 9457) and, for 401 and 403, a challenge (RFC 6750 section 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

#[derive(Serialize)]
struct Problem {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    code: &'static str,
}

impl Gate {
    /// `request_id` is kept when it is one that can be sent back.
    pub fn answer(&self, reason: Reason, request_id: Option<&[u8]>) -> Answer {
        let status = reason.status();
        let problem = Problem {
            r#type: "about:blank",
            title: match status {
                401 => "Unauthorized",
                403 => "Forbidden",
                431 => "Request Header Fields Too Large",
                _ => "Service Unavailable",
            },
            status,
            detail: alloc::format!("{reason}"),
            code: reason.code(),
        };
        let mut headers = Vec::from([
            ("content-type", String::from("application/problem+json")),
            ("cache-control", String::from("no-store")),
        ]);
        if let Some(error) = challenge(reason) {
            let realm = &self.policy().realm;
            headers.push(("www-authenticate", alloc::format!("Bearer realm=\"{realm}\"{error}")));
        }
        if status == 503 {
            headers.push(("retry-after", String::from("1")));
        }
        if let Some(id) = request_id.and_then(printable) {
            headers.push(("x-request-id", id.into()));
        }
        Answer { status, headers, body: serde_json::to_string(&problem).unwrap_or_default() }
    }
}

/// RFC 6750 section 3.1: no error code when the request had no credential.
fn challenge(reason: Reason) -> Option<String> {
    let error = match reason {
        Reason::CredentialMissing => return Some(String::new()),
        Reason::BundleMissing | Reason::BundleStale | Reason::TooManyHeaders => return None,
        Reason::CredentialAmbiguous => "invalid_request",
        Reason::AudienceMismatch => "insufficient_scope",
        _ => "invalid_token",
    };
    Some(alloc::format!(", error=\"{error}\", error_description=\"{reason}\""))
}

fn printable(id: &[u8]) -> Option<&str> {
    let sane = (1..=128).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic);
    if sane { core::str::from_utf8(id).ok() } else { None }
}
