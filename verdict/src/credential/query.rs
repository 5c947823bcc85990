//! Parses `?name=value&name=value`. Parsers differ: some decode names, ignore case, split at `;` too, or make an array
//! of `name[]`. Any parameter that one of these parsers could take for the credential makes it ambiguous.

use alloc::vec::Vec;

use super::{Visit, Visited};
use crate::decision::AmbiguousCredential;

/// Passes each value of the parameter to `visit`. Returns an error for one that some parser reads differently.
pub(super) fn visit_values<'r>(target: &'r [u8], parameter: &str, visit: Visit<'_, 'r>) -> Visited {
    for (separator, piece) in pieces(split(target).1) {
        value(separator, piece, parameter).transpose()?.map_or(Ok(()), &mut *visit)?;
    }
    Ok(())
}

/// Returns the value if this pair is the parameter, or an error if only some parsers take it for the parameter.
fn value<'r>(
    separator: Option<u8>,
    piece: &'r [u8],
    parameter: &str,
) -> Option<Result<&'r [u8], AmbiguousCredential>> {
    let (name, value) = split_pair(piece);
    // Text after a `;` must not become part of the credential.
    let is_unambiguous = name == parameter.as_bytes() && separator != Some(b';');
    let value = if is_unambiguous { Ok(value) } else { Err(AmbiguousCredential::SimilarName) };
    query_name_matches(name, parameter).then_some(value)
}

/// Removes everything that [`visit_values`] finds, except values that are no credentials, together with the preceding
/// separators. Returns `None` if it finds nothing.
pub(super) fn without(
    target: &[u8],
    parameter: &str,
    is_credential: &dyn Fn(&[u8]) -> bool,
) -> Option<Vec<u8>> {
    let (path, query) = split(target);
    let is_found = |(separator, piece): &(Option<u8>, &[u8])| {
        value(*separator, piece, parameter).is_some_and(|value| value.map_or(true, is_credential))
    };
    pieces(query).find(is_found)?;
    let mut remaining = Vec::with_capacity(target.len());
    remaining.extend(path);
    let kept = pieces(query).filter(|piece| !is_found(piece));
    for (number, (separator, piece)) in kept.enumerate() {
        remaining.push(if number == 0 { b'?' } else { separator.unwrap_or(b'&') });
        remaining.extend(piece);
    }
    Some(remaining)
}

fn split(target: &[u8]) -> (&[u8], &[u8]) {
    let at = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
    let (path, query) = target.split_at_checked(at).unwrap_or((target, &[]));
    (path, query.strip_prefix(b"?").unwrap_or_default())
}

/// Returns each name-value pair with the separator before it.
fn pieces(query: &[u8]) -> impl Iterator<Item = (Option<u8>, &[u8])> {
    let mut rest = Some((None, query));
    core::iter::from_fn(move || {
        let (separator, here) = rest.take()?;
        let end = here.iter().position(|byte| matches!(byte, b'&' | b';'));
        let (piece, after) = here.split_at_checked(end.unwrap_or(here.len()))?;
        rest = after.split_first().map(|(separator, after)| (Some(*separator), after));
        Some((separator, piece))
    })
}

fn split_pair(piece: &[u8]) -> (&[u8], &[u8]) {
    let equals = piece.iter().position(|byte| *byte == b'=').unwrap_or(piece.len());
    let (name, value) = piece.split_at_checked(equals).unwrap_or((piece, &[]));
    (name, value.strip_prefix(b"=").unwrap_or_default())
}

/// Returns whether some parser takes the name for the expected one. PHP ignores leading spaces and everything after a
/// zero byte, and maps `.`, a space and an unclosed `[` to `_`.
pub(super) fn query_name_matches(name: &[u8], parameter: &str) -> bool {
    let fold = |byte: u8| match byte {
        b'.' | b' ' | b'+' | b'[' => b'_',
        _ => byte.to_ascii_lowercase(),
    };
    let mut rest = name;
    while let Some((b' ' | b'+', after)) = decode_first(rest) {
        rest = after;
    }
    for expected in parameter.bytes() {
        match decode_first(rest) {
            Some((byte, after)) if fold(byte) == fold(expected) => rest = after,
            _ => return false,
        }
    }
    matches!(decode_first(rest), None | Some((b'[' | 0, _)))
}

/// Returns the first character, percent-decoded.
pub(super) fn decode_first(text: &[u8]) -> Option<(u8, &[u8])> {
    if let [b'%', high, low, rest @ ..] = text {
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        if let (Some(high), Some(low)) = (digit(high), digit(low)) {
            return Some((high << 4 | low, rest));
        }
    }
    text.split_first().map(|(byte, rest)| (*byte, rest))
}
