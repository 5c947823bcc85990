//! Envoy's own normalization of paths, written down as functions. `tests/tests/promises/rule_forms.rs` compares them
//! with the real Envoy.

use std::{borrow::ToOwned, format, string::String, vec::Vec};

/// `normalize_path`: the canonical form of Chromium's URL library, without the query. Returns `None` if Envoy answers
/// 400.
pub(crate) fn normalize_path(path: &str) -> Option<String> {
    let mut segments: Vec<String> = Vec::new();
    // Unlike other parsers, this one reads a backslash as a slash.
    let text = path.strip_prefix(['/', '\\'])?;
    let mut remaining = text.split(['/', '\\']).peekable();
    while let Some(segment) = remaining.next() {
        let is_last = remaining.peek().is_none();
        let canonical = canonical_segment(segment)?;
        match &*canonical {
            "." if is_last => segments.push(String::new()),
            "." => {}
            ".." => {
                segments.pop();
                if is_last {
                    segments.push(String::new());
                }
            }
            _ => segments.push(canonical),
        }
    }
    Some(format!("/{}", segments.join("/")))
}

/// Decodes percent-encoded unreserved characters, and encodes what may not be in a path.
fn canonical_segment(segment: &str) -> Option<String> {
    let bytes = segment.as_bytes();
    let (mut canonical, mut at) = (String::new(), 0);
    while at < bytes.len() {
        let byte = bytes[at];
        let digits = segment
            .get(at + 1..at + 3)
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match (byte, digits) {
            (b'%', Some(digits)) => {
                let decoded = u8::from_str_radix(digits, 16).ok()?;
                if decoded == 0 {
                    return None;
                }
                if decoded.is_ascii_alphanumeric() || b"-._~".contains(&decoded) {
                    canonical.push(char::from(decoded));
                } else {
                    canonical.push_str(&segment[at..at + 3]);
                }
                at += 3;
                continue;
            }
            (byte, _) if byte <= b' ' || byte >= 0x7f || b"\"<>`{|}".contains(&byte) => {
                canonical.push_str(&format!("%{byte:02X}"));
            }
            (byte, _) => canonical.push(char::from(byte)),
        }
        at += 1;
    }
    Some(canonical)
}

/// `merge_slashes`.
pub(crate) fn merge_slashes(path: &str) -> String {
    let mut merged = String::new();
    for letter in path.chars() {
        if letter != '/' || !merged.ends_with('/') {
            merged.push(letter);
        }
    }
    merged
}

/// `path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD`. With `REJECT_REQUEST` and `UNESCAPE_AND_REDIRECT` a path that
/// this changes does not reach the filter.
pub(crate) fn unescape_slashes(path: &str) -> String {
    let mut path = path.to_owned();
    for (escaped, plain) in [("%2F", "/"), ("%2f", "/"), ("%5C", "\\"), ("%5c", "\\")] {
        path = path.replace(escaped, plain);
    }
    path
}
