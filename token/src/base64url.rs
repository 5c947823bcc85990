//! Base64url (RFC 4648 section 5) with one text for each byte string: no padding, and stray bits are refused (RFC 7515
//! section 2, RFC 4648 section 3.5).
//!
//! The general library is 5 KB of the filter for its many dialects, of which this is one.

use alloc::{string::String, vec, vec::Vec};

pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let (quanta, rest) = text.as_chunks();
    let mut bytes = vec![0; quanta.len().saturating_mul(3)];
    let mut all = 0;
    for (three, four) in bytes.as_chunks_mut().0.iter_mut().zip(quanta) {
        let word = word(*four);
        let [_, bytes @ ..] = word.to_be_bytes();
        *three = bytes;
        all |= word;
    }
    // 6 bits make no byte; what is left of 12 or 18 must be zero.
    let (last, whole) = match *rest {
        [] => (*b"AAAA", 0),
        [a, b] => ([a, b, b'A', b'A'], 1),
        [a, b, c] => ([a, b, c, b'A'], 2),
        _ => return None,
    };
    let last = word(last);
    let [_, last_bytes @ ..] = last.to_be_bytes();
    let (whole, stray) = last_bytes.split_at(whole);
    bytes.extend_from_slice(whole);
    ((all | last) >= 0 && stray.iter().all(|byte| *byte == 0)).then_some(bytes)
}

/// 24 bits; negative if a letter is of no alphabet.
fn word([a, b, c, d]: [u8; 4]) -> i32 {
    value(a) << 18 | value(b) << 12 | value(c) << 6 | value(d)
}

fn value(letter: u8) -> i32 {
    VALUES.get(usize::from(letter)).copied().unwrap_or(NONE).into()
}

pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(4).div_ceil(3));
    for quantum in bytes.chunks(3) {
        let mut padded = [0; 4];
        padded.iter_mut().skip(1).zip(quantum).for_each(|(to, from)| *to = *from);
        let word = u32::from_be_bytes(padded);
        for shift in [18, 12, 6, 0].into_iter().take(quantum.len().saturating_add(1)) {
            let at = usize::try_from(word >> shift & 63).unwrap_or_default();
            text.extend(ALPHABET.get(at).map(|letter| char::from(*letter)));
        }
    }
    text
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The place of each letter in the alphabet.
const VALUES: [i8; 256] = {
    let mut values = [NONE; 256];
    let mut at: i8 = 0;
    while at < 64 {
        #[expect(clippy::indexing_slicing, clippy::cast_sign_loss, reason = "before it runs, from 0 to 63")]
        {
            values[ALPHABET[at as usize] as usize] = at;
            at += 1;
        }
    }
    values
};

/// Stays negative, however far it is shifted.
const NONE: i8 = -1;

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_general_library(bytes: Vec<u8>, text in "[A-Za-z0-9_=+/-]{0,9}", any: Vec<u8>) {
            prop_assert_eq!(encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes));
            prop_assert_eq!(decode(encode(&bytes).as_bytes()), Some(bytes));
            prop_assert_eq!(decode(text.as_bytes()), URL_SAFE_NO_PAD.decode(&text).ok());
            prop_assert_eq!(decode(&any), URL_SAFE_NO_PAD.decode(&any).ok());
        }
    }
}
