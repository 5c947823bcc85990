//! Base64url (RFC 4648 section 5) with one text for each byte string: no padding, and stray bits are refused (RFC 7515
//! section 2, RFC 4648 section 3.5).
//!
//! The general library is 5 KB of the filter for its many dialects, of which this is one.

use alloc::{string::String, vec::Vec};

pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    for quantum in text.chunks(4) {
        let mut word = 0_u32;
        for letter in quantum {
            let value = VALUES.get(usize::from(*letter)).filter(|value| **value != NONE)?;
            word = word << 6 | u32::from(*value);
        }
        // 6 bits make no byte; what is left of 12 or 18 must be zero.
        let (whole, stray) = match quantum.len() {
            4 => (3, 0),
            3 => (2, 2),
            2 => (1, 4),
            _ => return None,
        };
        if word.trailing_zeros() < stray {
            return None;
        }
        let [_, high, middle, low] = (word >> stray).to_be_bytes();
        bytes.extend([high, middle, low].iter().skip(3_usize.saturating_sub(whole)));
    }
    Some(bytes)
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
const VALUES: [u8; 128] = {
    let mut values = [NONE; 128];
    let mut at: u8 = 0;
    while at < 64 {
        #[expect(clippy::indexing_slicing, reason = "before it runs")]
        {
            values[ALPHABET[at as usize] as usize] = at;
            at += 1;
        }
    }
    values
};

const NONE: u8 = u8::MAX;

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
