//! Parses `Cookie: name=value; name=value` (RFC 6265 section 4.2.1).
//!
//! Parsers differ: RFC 2965 permits commas as separators and quoted values, Python's `SimpleCookie` starts a name after
//! white space, and PHP maps `.`, a space and `[` to `_` and used to decode names. Any text that one of these parsers
//! could take for the cookie makes the cookie ambiguous.

use alloc::vec::Vec;

use super::{Visit, Visited, query::query_name_matches};
use crate::decision::AmbiguousCredential;

/// Passes each value of the cookie to `visit`. Returns an error for one that some parser reads differently.
pub(super) fn visit_values<'r>(header: &'r [u8], cookie_name: &str, visit: Visit<'_, 'r>) -> Visited {
    for piece in pieces(header) {
        if has_embedded_cookie(piece, cookie_name) {
            return Err(AmbiguousCredential::SimilarName);
        }
        value(piece, cookie_name).map_or(Ok(()), &mut *visit)?;
    }
    Ok(())
}

/// Removes everything that [`visit_values`] finds, except values that are no credentials, together with the preceding
/// separators. Returns `None` if it finds nothing.
pub(super) fn without(
    header: &[u8],
    cookie_name: &str,
    is_credential: &dyn Fn(&[u8]) -> bool,
) -> Option<Vec<u8>> {
    let is_found = |piece: &&[u8]| {
        value(piece, cookie_name).is_some_and(is_credential) || has_embedded_cookie(piece, cookie_name)
    };
    pieces(header).find(is_found)?;
    let mut remaining: Vec<u8> = Vec::with_capacity(header.len());
    for (number, piece) in pieces(header).filter(|piece| !is_found(piece)).enumerate() {
        if number == 0 {
            remaining.extend(piece.trim_ascii_start());
        } else {
            remaining.push(b';');
            remaining.extend(piece);
        }
    }
    Some(remaining)
}

fn pieces(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    header.split(|byte| *byte == b';')
}

/// Returns the value if this pair is the cookie.
fn value<'r>(piece: &'r [u8], cookie_name: &str) -> Option<&'r [u8]> {
    let (name, value) = split_pair(piece)?;
    (name == cookie_name.as_bytes()).then_some(value.trim_ascii())
}

fn split_pair(piece: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = piece.iter().position(|byte| *byte == b'=')?;
    let (name, value) = piece.split_at_checked(equals)?;
    Some((name.trim_ascii(), value.strip_prefix(b"=")?))
}

/// Returns whether some parser finds the cookie inside this pair.
fn has_embedded_cookie(piece: &[u8], cookie_name: &str) -> bool {
    let Some((name, _)) = split_pair(piece) else { return false };
    if name != cookie_name.as_bytes()
        && (query_name_matches(name, cookie_name) || query_name_matches(last_token(name), cookie_name))
    {
        return true;
    }
    // Text between two `=` can end a value and start another name after a separator.
    let mut texts = piece.split(|byte| *byte == b'=').skip(1).peekable();
    while let Some(text) = texts.next() {
        let word = last_token(text);
        if texts.peek().is_some()
            && word.len() < trim_end(text).len()
            && query_name_matches(word, cookie_name)
        {
            return true;
        }
    }
    false
}

/// Returns the text after the last character that ends a value for some parser.
fn last_token(text: &[u8]) -> &[u8] {
    let ends = |byte: &u8| matches!(byte, b',' | b'"') || is_space(byte);
    trim_end(text).rsplit(ends).next().unwrap_or_default()
}

fn trim_end(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| !is_space(byte)).map_or(0, |last| last.saturating_add(1));
    text.get(..end).unwrap_or_default()
}

/// Returns whether some parser takes a byte for white space. Python's `str` counts a no-break space.
const fn is_space(byte: &u8) -> bool {
    !byte.is_ascii_graphic()
}
