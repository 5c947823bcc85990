//! The serialization of header maps in the ABI. All numbers are little-endian:
//!
//! ```text
//! u32 count | count * (u32 name length, u32 value length) | count * (name, 0, value, 0)
//! ```
//!
//! The SDK's own deserializer panics on a malformed map and on a name that is not UTF-8, and copies every name and
//! value.

/// The size of the two lengths of a header.
const LENGTHS_BYTES: usize = 8;

/// Returns the headers in their order. Returns `None` if the map is malformed, or has a name that is not UTF-8, which
/// no codec permits: the filter then does not know what the request contains.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<(&str, &[u8])>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let (count, rest) = bytes.split_first_chunk()?;
    let count = decode_length(*count)?;
    let (lengths, mut rest) = rest.split_at_checked(count.checked_mul(LENGTHS_BYTES)?)?;
    let mut headers = Vec::with_capacity(count);
    for [a, b, c, d, e, f, g, h] in lengths.as_chunks::<LENGTHS_BYTES>().0 {
        let (name, more) = decode_text(rest, decode_length([*a, *b, *c, *d])?)?;
        let (value, more) = decode_text(more, decode_length([*e, *f, *g, *h])?)?;
        rest = more;
        headers.push((str::from_utf8(name).ok()?, value));
    }
    rest.is_empty().then_some(headers)
}

pub(crate) fn encode<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])> + Clone) -> Vec<u8> {
    let sizes =
        headers.clone().map(|(name, value)| name.len().saturating_add(value.len()).saturating_add(10));
    let mut bytes = Vec::with_capacity(sizes.fold(4, usize::saturating_add));
    encode_length(&mut bytes, headers.clone().count());
    for (name, value) in headers.clone() {
        encode_length(&mut bytes, name.len());
        encode_length(&mut bytes, value.len());
    }
    for (name, value) in headers {
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(value);
        bytes.push(0);
    }
    bytes
}

fn decode_length(bytes: [u8; 4]) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(bytes)).ok()
}

fn decode_text(bytes: &[u8], length: usize) -> Option<(&[u8], &[u8])> {
    match bytes.split_at_checked(length)? {
        (text, [0, rest @ ..]) => Some((text, rest)),
        _ => None,
    }
}

/// Encodes a length as 32 bits, which is sufficient for everything in the memory of a VM.
fn encode_length(bytes: &mut Vec<u8>, length: usize) {
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}
