//! `Cookie: name=value; name=value` (RFC 6265 section 4.2.1). Quotes are part of a value.
//!
//! Readers differ. RFC 2965 has a comma for a separator and values in quotes, Python's `SimpleCookie` begins a name
//! after white space, PHP folds `.`, a space and `[`, and decoded names once: what one of them could take for the cookie
//! is one that is not plain.

use alloc::vec::Vec;

use super::query::is_like;

/// The values, and whether each is one to every reader.
pub(super) fn values<'r>(header: &'r [u8], wanted: &str) -> impl Iterator<Item = (&'r [u8], bool)> {
    pieces(header).filter_map(move |piece| match value(piece, wanted) {
        Some(value) => Some((value, !has_other(piece, wanted))),
        None => has_other(piece, wanted).then_some((piece, false)),
    })
}

/// The header without what [`values`] finds and the separators in front; None if there is nothing.
pub(super) fn cut(header: &[u8], wanted: &str) -> Option<Vec<u8>> {
    values(header, wanted).next()?;
    let mut left: Vec<u8> = Vec::with_capacity(header.len());
    let is_found = |piece: &&[u8]| value(piece, wanted).is_some() || has_other(piece, wanted);
    for (number, piece) in pieces(header).filter(|piece| !is_found(piece)).enumerate() {
        if number == 0 {
            left.extend(piece.trim_ascii_start());
        } else {
            left.push(b';');
            left.extend(piece);
        }
    }
    Some(left)
}

fn pieces(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    header.split(|byte| *byte == b';')
}

/// The value of the cookie, where this piece is it.
fn value<'r>(piece: &'r [u8], wanted: &str) -> Option<&'r [u8]> {
    let (name, value) = parts(piece)?;
    (name == wanted.as_bytes()).then_some(value.trim_ascii())
}

fn parts(piece: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = piece.iter().position(|byte| *byte == b'=')?;
    let (name, value) = piece.split_at_checked(equals)?;
    Some((name.trim_ascii(), value.strip_prefix(b"=")?))
}

/// Whether some reader finds the cookie in this piece, other than as the piece itself.
fn has_other(piece: &[u8], wanted: &str) -> bool {
    let Some((name, _)) = parts(piece) else { return false };
    if name != wanted.as_bytes() && (is_like(name, wanted) || is_like(last_word(name), wanted)) {
        return true;
    }
    // Every `=` but the first and the last ends a part that is the end of a value and perhaps another name, with a
    // separator between them.
    let mut texts = piece.split(|byte| *byte == b'=').skip(1).peekable();
    while let Some(text) = texts.next() {
        let word = last_word(text);
        if texts.peek().is_some() && word.len() < without_end(text).len() && is_like(word, wanted) {
            return true;
        }
    }
    false
}

/// What is after the last character that ends a value to some reader.
fn last_word(text: &[u8]) -> &[u8] {
    let ends = |byte: &u8| matches!(byte, b',' | b'"') || is_space(byte);
    without_end(text).rsplit(ends).next().unwrap_or_default()
}

fn without_end(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| !is_space(byte)).map_or(0, |last| last.saturating_add(1));
    text.get(..end).unwrap_or_default()
}

/// Whatever some reader takes for white space: Python's `str` has a no-break space among it.
const fn is_space(byte: &u8) -> bool {
    !byte.is_ascii_graphic()
}
