//! Header maps as they cross the border, all numbers little-endian:
//!
//! ```text
//! u32 count | count * (u32 name length, u32 value length) | count * (name, 0, value, 0)
//! ```

use alloc::vec::Vec;

/// None when it is none, or names a header in other than UTF-8, which no codec lets through: nothing then is known of
/// what the request carries.
pub(crate) fn read(bytes: &[u8]) -> Option<Vec<(&str, &[u8])>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let (count, rest) = number(bytes)?;
    let (mut sizes, mut rest) = rest.split_at_checked(count.checked_mul(SIZES)?)?;
    let mut pairs = Vec::with_capacity(count);
    while !sizes.is_empty() {
        let (name_size, more) = number(sizes)?;
        let (value_size, more) = number(more)?;
        sizes = more;
        let (name, more) = text(rest, name_size)?;
        let (value, more) = text(more, value_size)?;
        rest = more;
        pairs.push((core::str::from_utf8(name).ok()?, value));
    }
    rest.is_empty().then_some(pairs)
}

pub(crate) fn write<'a>(pairs: impl Iterator<Item = (&'a str, &'a [u8])> + Clone) -> Vec<u8> {
    let sizes = pairs.clone().map(|(name, value)| name.len().saturating_add(value.len()).saturating_add(10));
    let mut bytes = Vec::with_capacity(sizes.fold(4, usize::saturating_add));
    put(&mut bytes, pairs.clone().count());
    for (name, value) in pairs.clone() {
        put(&mut bytes, name.len());
        put(&mut bytes, value.len());
    }
    for (name, value) in pairs {
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(value);
        bytes.push(0);
    }
    bytes
}

fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((usize::try_from(u32::from_le_bytes(*number)).ok()?, rest))
}

fn text(bytes: &[u8], size: usize) -> Option<(&[u8], &[u8])> {
    match bytes.split_at_checked(size)? {
        (text, [0, rest @ ..]) => Some((text, rest)),
        _ => None,
    }
}

/// Lengths of what fits into the memory of a VM fit into 32 bits.
fn put(bytes: &mut Vec<u8>, number: usize) {
    bytes.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}

/// Two lengths.
const SIZES: usize = 8;
