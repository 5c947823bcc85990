//! `Cookie: name=value; name=value` (RFC 6265 section 4.2.1). Quotes are part of a value.

use alloc::vec::Vec;

pub(super) fn values<'r>(header: &'r [u8], wanted: &str) -> impl Iterator<Item = &'r [u8]> {
    pieces(header).filter_map(move |piece| value(piece, wanted))
}

/// The header without these cookies and the separators in front of them; None if there are none.
pub(super) fn cut(header: &[u8], wanted: &str) -> Option<Vec<u8>> {
    values(header, wanted).next()?;
    let mut left: Vec<u8> = Vec::with_capacity(header.len());
    for (number, piece) in pieces(header).filter(|piece| value(piece, wanted).is_none()).enumerate() {
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

fn value<'r>(piece: &'r [u8], wanted: &str) -> Option<&'r [u8]> {
    let equals = piece.iter().position(|byte| *byte == b'=')?;
    let (name, value) = piece.split_at_checked(equals)?;
    let value = value.strip_prefix(b"=")?;
    (name.trim_ascii() == wanted.as_bytes()).then_some(value.trim_ascii())
}
