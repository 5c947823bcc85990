//! `?name=value&name=value`. Some readers decode names, take them in any case, split at `;` too, or make an array of
//! `name[]`: what one of them could take for the parameter is one that is not plain.

use alloc::vec::Vec;

/// The values, and whether each is one to every reader.
pub(super) fn values<'r>(target: &'r [u8], wanted: &str) -> impl Iterator<Item = (&'r [u8], bool)> {
    let (_, query) = split(target);
    pieces(query).filter_map(move |(separator, piece)| {
        let (name, value) = parts(piece);
        let plain = name == wanted.as_bytes() && separator != Some(b';');
        // What others read on after a `;` is not to be part of a credential.
        is_like(name, wanted).then_some((value, plain))
    })
}

/// The target without what [`values`] finds and the separators in front; None if there is nothing.
pub(super) fn cut(target: &[u8], wanted: &str) -> Option<Vec<u8>> {
    values(target, wanted).next()?;
    let (path, query) = split(target);
    let mut left = Vec::with_capacity(target.len());
    left.extend(path);
    let kept = pieces(query).filter(|(_, piece)| !is_like(parts(piece).0, wanted));
    for (number, (separator, piece)) in kept.enumerate() {
        left.push(if number == 0 { b'?' } else { separator.unwrap_or(b'&') });
        left.extend(piece);
    }
    Some(left)
}

fn split(target: &[u8]) -> (&[u8], &[u8]) {
    let at = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
    let (path, query) = target.split_at_checked(at).unwrap_or((target, &[]));
    (path, query.strip_prefix(b"?").unwrap_or_default())
}

/// Each with what separates it from the one before.
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

fn parts(piece: &[u8]) -> (&[u8], &[u8]) {
    let equals = piece.iter().position(|byte| *byte == b'=').unwrap_or(piece.len());
    let (name, value) = piece.split_at_checked(equals).unwrap_or((piece, &[]));
    (name, value.strip_prefix(b"=").unwrap_or_default())
}

/// Whether somebody reads the name as the one that is wanted. PHP leaves out spaces in front and what follows a zero
/// byte, and puts `_` for `.`, a space and a `[` that stays open.
pub(super) fn is_like(name: &[u8], wanted: &str) -> bool {
    let fold = |byte: u8| match byte {
        b'.' | b' ' | b'+' | b'[' => b'_',
        _ => byte.to_ascii_lowercase(),
    };
    let mut rest = name;
    while let Some((b' ' | b'+', after)) = decoded(rest) {
        rest = after;
    }
    for expected in wanted.bytes() {
        match decoded(rest) {
            Some((byte, after)) if fold(byte) == fold(expected) => rest = after,
            _ => return false,
        }
    }
    matches!(decoded(rest), None | Some((b'[' | 0, _)))
}

/// The first character, decoded if it is in percent-encoding.
fn decoded(text: &[u8]) -> Option<(u8, &[u8])> {
    if let [b'%', high, low, rest @ ..] = text {
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        if let (Some(high), Some(low)) = (digit(high), digit(low)) {
            return Some((high << 4 | low, rest));
        }
    }
    text.split_first().map(|(byte, rest)| (*byte, rest))
}
